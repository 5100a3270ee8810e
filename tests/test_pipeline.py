"""The main job on real images and the real tiny CLIP: files in, searched and saved model out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, load_files
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_score,
    learning_curve,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skhegraph import CLIPFeatures, HeGraphClassifier, make_hegraph_pipeline
from skhegraph.pipeline import HeGraphPipeline

TINY = "skhegraph-tiny"
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """Paths of 16 PNG files of each digit, and their names."""
    folder = tmp_path_factory.mktemp("digits")
    digits = load_digits()
    paths, labels = [], []
    for c, name in enumerate(NAMES):
        for i in np.flatnonzero(digits.target == c)[:16]:
            path = folder / f"{name}-{i}.png"
            Image.fromarray((digits.images[i] * 15).astype(np.uint8)).save(path)
            paths.append(str(path))
            labels.append(name)
    return np.array(paths, dtype=object), np.array(labels)


@pytest.fixture(scope="module")
def fitted(files: tuple[np.ndarray, np.ndarray]) -> Pipeline:
    paths, labels = files
    support = np.arange(len(paths)) % 16 < 8
    pipe = Pipeline([("clip", CLIPFeatures(TINY)), ("clf", HeGraphClassifier(TINY))])
    return pipe.fit(paths[support], labels[support])


def test_fit_on_paths_with_string_labels(
    files: tuple[np.ndarray, np.ndarray], fitted: Pipeline
) -> None:
    paths, labels = files
    queries = np.arange(len(paths)) % 16 >= 8
    assert list(fitted.classes_) == sorted(NAMES)
    assert fitted.score(paths[queries], labels[queries]) > 0.6  # chance is 0.1
    proba = fitted.predict_proba(list(paths[queries]))
    np.testing.assert_allclose(proba.sum(axis=1), 1)


def test_dump_load_and_predict_in_a_new_process(
    files: tuple[np.ndarray, np.ndarray], fitted: Pipeline, tmp_path: Path
) -> None:
    paths, _ = files
    model, out = tmp_path / "model.joblib", tmp_path / "proba.npy"
    joblib.dump(fitted, model)
    # Nodes, classifiers, kept rows and prompts; none of the 4.7 MB of weights.
    assert model.stat().st_size < 3e5
    code = (
        "import joblib, numpy as np, sys\n"
        f"pipe = joblib.load({str(model)!r})\n"
        f"np.save({str(out)!r}, pipe.predict_proba({list(paths[:20])!r}))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    np.testing.assert_array_equal(np.load(out), fitted.predict_proba(list(paths[:20])))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_over_graph_parameters(
    files: tuple[np.ndarray, np.ndarray], n_jobs: int
) -> None:
    paths, labels = files
    few = np.arange(len(paths)) % 16 < 4
    search = GridSearchCV(
        make_hegraph_pipeline(TINY),
        {"clf__visual_to_positive": [0.0, 0.24], "clf__positive_to_visual": [0.0, 1.0]},
        cv=StratifiedKFold(2),
        scoring=["neg_log_loss", "roc_auc_ovr"],
        refit="neg_log_loss",
        n_jobs=n_jobs,
        error_score="raise",
    ).fit(paths[few], labels[few])
    scores = search.cv_results_["mean_test_neg_log_loss"]
    assert len(set(np.round(scores, 6))) == 4  # every candidate is another model
    assert search.best_score_ == scores.max()


def test_clone_cross_val_score_and_calibration(files: tuple[np.ndarray, np.ndarray]) -> None:
    paths, labels = files
    pipe = clone(make_hegraph_pipeline(TINY))
    scores = cross_val_score(pipe, paths, labels, cv=2, error_score="raise")
    assert scores.min() > 0.4
    calibrated = CalibratedClassifierCV(pipe, cv=2).fit(paths, labels)
    np.testing.assert_allclose(calibrated.predict_proba(paths[:5]).sum(axis=1), 1)


def test_make_hegraph_pipeline_gives_one_clip_to_both_steps() -> None:
    pipe = make_hegraph_pipeline(
        "RN50", "openai", device="cpu", verbose=1, batch_size=7, cache_dir="folder", penalty=2.0
    )
    for step in pipe.named_steps.values():
        assert (step.model_name, step.pretrained, step.device) == ("RN50", "openai", "cpu")
    assert pipe.named_steps["clip"].batch_size == 7
    assert pipe.named_steps["clip"].cache_dir == "folder"
    assert pipe.named_steps["clip"].verbose == 1
    assert pipe.named_steps["clf"].penalty == 2.0


def test_unknown_parameter_names_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"visual_to_positives=1.*\(nearest: visual_to_positive"):
        make_hegraph_pipeline(visual_to_positives=1)


@pytest.mark.parametrize(
    ("names", "model_name"),
    [
        ("0123456789", "skhegraph-lite"),
        ("0123456789", TINY),
        ("零一二三四五六七八九", "skhegraph-lite"),
    ],
)
def test_names_that_a_clip_does_not_know_tell_nothing(names: str, model_name: str) -> None:
    """Issue 17.32: both steps are of one CLIP, and the warning speaks of no other."""
    digits = load_digits()
    chosen = np.concatenate([np.flatnonzero(digits.target == c)[:10] for c in range(10)])
    images = [digits.images[i] / 16 for i in chosen]
    with pytest.warns(UserWarning) as caught:
        make_hegraph_pipeline(model_name).fit(images, np.array(list(names))[digits.target[chosen]])
    (message,) = (str(warning.message) for warning in caught)
    assert "tells nothing of these images, and holds" in message and "Give other names" in message
    assert "?" not in message and "another" not in message and "of one" not in message


def test_broken_images_in_a_pipeline(files: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    paths, labels = (values[::4].copy() for values in files)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with_broken, with_label = [*paths, str(broken)], [*labels, "zero"]
    pipe = make_hegraph_pipeline(TINY, on_error="nan")
    with pytest.warns(UserWarning) as caught:
        pipe.fit(with_broken, with_label)
    assert sum("broken.png" in str(w.message) for w in caught) == 1
    clean = clone(pipe).fit(paths, labels)
    with pytest.warns(UserWarning, match=r"broken\.png"):
        proba = pipe.predict_proba(with_broken)
    np.testing.assert_array_equal(proba[:-1], clean.predict_proba(list(paths)))
    assert np.isnan(proba[-1]).all()
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="set unknown_label"):
        pipe.predict(with_broken)
    pipe.set_params(clf__unknown_label="?").fit(list(paths), labels)
    with pytest.warns(UserWarning, match=r"broken\.png"):
        assert pipe.predict(with_broken)[-1] == "?"


def test_wrong_pairing_names_both_widths_and_the_remedy(
    files: tuple[np.ndarray, np.ndarray],
) -> None:
    paths, labels = files
    pipe = Pipeline([("clip", CLIPFeatures(TINY)), ("clf", HeGraphClassifier(TINY))])
    wide = np.hstack([pipe["clip"].fit_transform(paths[::4])] * 2)
    with pytest.raises(ValueError, match=r"256 features.*128.*make_hegraph_pipeline"):
        pipe["clf"].fit(wide, labels[::4])


# --- more images later ----------------------------------------------------------------------------

DIGITS = load_digits()
FEW = np.flatnonzero(DIGITS.target < 3)[:24]
IMAGES, LABELS = [DIGITS.images[i] / 16 for i in FEW], np.array(NAMES)[DIGITS.target[FEW]]
WEIGHT = np.arange(1.0, 25.0)
FIRST, LATER = np.arange(10), np.arange(10, 24)


@pytest.mark.filterwarnings("ignore:.*better than chance")
@pytest.mark.parametrize("first", ["fit", "partial_fit"])
def test_partial_fit_equals_one_fit_on_all(first: str) -> None:
    """Training images are encoded with views in each call, and those to predict without."""
    pipe = make_hegraph_pipeline(TINY, n_views=2)
    classes = [*NAMES[:3], "nine"]
    whole = clone(pipe).fit(IMAGES, LABELS, clf__classes=classes, clf__sample_weight=WEIGHT)
    for method, rows in zip((first, "partial_fit"), (FIRST, LATER), strict=True):
        got = getattr(pipe, method)(
            [IMAGES[i] for i in rows],
            LABELS[rows],
            clf__classes=classes,
            clf__sample_weight=WEIGHT[rows],
        )
        assert got is pipe
    np.testing.assert_allclose(pipe.predict_proba(IMAGES), whole.predict_proba(IMAGES), atol=1e-9)
    assert pipe.classes_.tolist() == sorted(classes)


def test_partial_fit_does_not_fit_a_step_that_learned() -> None:
    pipe = HeGraphPipeline(
        [
            ("clip", CLIPFeatures(TINY)),
            ("scale", StandardScaler()),
            ("same", FunctionTransformer()),
            ("none", "passthrough"),
            ("clf", HeGraphClassifier(text_features="prototypes")),
        ]
    )
    pipe.partial_fit([IMAGES[i] for i in FIRST], LABELS[FIRST])
    mean = pipe["scale"].mean_.copy()
    pipe.partial_fit([IMAGES[i] for i in LATER], LABELS[LATER])
    np.testing.assert_array_equal(pipe["scale"].mean_, mean)
    rows = pipe[:-1].transform(IMAGES)
    want = (pipe["clip"].transform(IMAGES) - mean) / pipe["scale"].scale_
    np.testing.assert_allclose(rows, want, atol=1e-4)
    clf = HeGraphClassifier(text_features="prototypes").fit(rows, LABELS)
    np.testing.assert_allclose(pipe.predict_proba(IMAGES), clf.predict_proba(rows), atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*better than chance")
def test_partial_fit_in_a_learning_curve() -> None:
    """It gives `classes` to `partial_fit`, and what was learned so far the next images."""
    options = {"train_sizes": [6, 12], "cv": 2, "error_score": "raise"}
    curves = [
        learning_curve(
            make_hegraph_pipeline(TINY),
            np.array(IMAGES)[..., None],
            LABELS,
            exploit_incremental_learning=incremental,
            scoring="neg_log_loss",
            **options,
        )
        for incremental in (True, False)
    ]
    np.testing.assert_allclose(curves[0][2], curves[1][2])


def test_partial_fit_routes_metadata() -> None:
    want = make_hegraph_pipeline(TINY).fit(IMAGES, LABELS, clf__sample_weight=WEIGHT)
    with config_context(enable_metadata_routing=True):
        pipe = make_hegraph_pipeline(TINY)
        pipe["clf"].set_partial_fit_request(sample_weight=True, classes=False)
        pipe.partial_fit(IMAGES, LABELS, sample_weight=WEIGHT)
        with pytest.raises(TypeError, match="groups"):
            pipe.partial_fit(IMAGES, LABELS, groups=LABELS)
        np.testing.assert_array_equal(pipe.predict_proba(IMAGES), want.predict_proba(IMAGES))


def test_partial_fit_is_there_where_the_last_step_has_it(tmp_path: Path) -> None:
    pipe = make_hegraph_pipeline(TINY, memory=str(tmp_path)).set_output(transform="pandas")
    assert isinstance(clone(pipe), HeGraphPipeline) and hasattr(clone(pipe), "partial_fit")
    assert isinstance(pipe[:-1], HeGraphPipeline) and not hasattr(pipe[:-1], "partial_fit")
    assert not hasattr(HeGraphPipeline([]), "partial_fit")
    with pytest.raises(TypeError, match=r"got 'sample_weight': .*spelled clf__sample_weight"):
        pipe.partial_fit(IMAGES, LABELS, sample_weight=WEIGHT)
    pipe.fit(IMAGES, LABELS).partial_fit(IMAGES, LABELS)
    assert pipe["clf"].n_samples_seen_ == 48
    assert pipe["clf"].feature_names_in_[0] == "clip000"
    assert "HeGraphPipeline" in pipe._repr_html_()


@pytest.mark.parametrize("name", ["cifar10", "pacs_photo", "signdigits"])
def test_shared_images_from_files(shared_data: Path, name: str) -> None:
    train = load_files(shared_data / "images" / name / "train", load_content=False)
    test = load_files(shared_data / "images" / name / "test", load_content=False)
    names = [label.replace("_", " ") for label in train.target_names]
    support = np.concatenate([np.flatnonzero(train.target == c)[:16] for c in range(len(names))])
    pipe = make_hegraph_pipeline(TINY, class_names=names)
    pipe.fit(train.filenames[support], train.target[support])
    assert pipe.score(test.filenames, test.target) > 0.5
