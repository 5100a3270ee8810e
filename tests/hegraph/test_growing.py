"""Classes that have a name and no image, and more images later."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from skhegraph import HeGraphClassifier, ZeroShotCLIPClassifier
from skhegraph.hegraph.classifier import SHOTS_KEPT
from skhegraph.hegraph.visual import VisualModel
from skhegraph.support import Named, Support, unit_rows

NAMES = np.array(list("abcdef"))
RNG = np.random.default_rng(0)
TEXT = unit_rows(RNG.normal(size=(6, 30)))


def make_rows(classes: list[int], shots: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(classes, shots))
    return TEXT[y] + 0.15 * rng.normal(size=(len(y), 30)) + 0.3, NAMES[y]


def hegraph(**params: Any) -> HeGraphClassifier:
    return HeGraphClassifier(**{"text_features": TEXT, **params})


def assert_same(one: BaseEstimator, other: BaseEstimator) -> None:
    ours, theirs = vars(one), vars(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if name == "graph_":
            for kind, nodes in value.items():
                np.testing.assert_array_equal(nodes, theirs[name][kind])
        elif name.endswith("_"):
            np.testing.assert_array_equal(value, theirs[name], err_msg=name)


# --- classes without an image --------------------------------------------------------------------


def test_node_of_a_named_class_is_the_conditional_mean() -> None:
    """By the joint Gaussian of all nodes, written out."""
    X, y = make_rows([0, 1, 2, 3], 3)
    codes = np.searchsorted(NAMES[:4], y)
    named = Named(np.array([False] * 4 + [True] * 2), TEXT[4:], TEXT[4:])
    support = Support(unit_rows(X), codes, np.ones(len(y)), TEXT[:4], TEXT[:4], 1.0, named)
    model = VisualModel(support, TEXT[:4], visual_to_visual=2.0)
    discriminant = model.at(1.0)
    messages = model.messages
    centred = TEXT - TEXT[:4].mean(axis=0)
    K = centred @ centred.T * 4 / np.trace(centred[:4] @ centred[:4].T)
    freedom = messages.freedom * np.eye(6)
    joint = messages.edge_variance * K + freedom
    np.testing.assert_allclose(joint[:4, :4], messages.prior(), atol=1e-12)
    mean = messages.centre + messages.positive_to_visual * centred
    left_over = discriminant.visual_nodes() - mean[:4]
    want = mean[4:] + joint[4:, :4] @ np.linalg.inv(joint[:4, :4]) @ left_over
    got = discriminant.visual_nodes(discriminant.named_nodes())
    np.testing.assert_allclose(got, want, atol=1e-8)


@pytest.mark.parametrize("width", ["narrow", "wide"])
def test_a_name_is_enough_for_a_class(width: str) -> None:
    """Near what zero-shot does on it, and the other classes hardly hurt."""
    X, y = make_rows([0, 1, 3, 4], 4)
    queries, truth = make_rows([0, 1, 2, 3, 4, 5], 40, seed=1)
    text = TEXT
    if width == "wide":  # the fit works in the span of rows and text, those of the named too
        X, queries, text = (np.pad(a, ((0, 0), (0, 90))) for a in (X, queries, TEXT))
    clf = hegraph(text_features=(text, -text)).fit(X, y, classes=NAMES)
    assert clf.classes_.tolist() == NAMES.tolist()
    assert clf.coef_.shape == text.shape
    new = np.isin(truth, ["c", "f"])
    right = clf.predict(queries) == truth
    zero_shot = NAMES[(queries @ text.T).argmax(axis=1)] == truth
    assert right[new].mean() > zero_shot[new].mean() - 0.1
    others = text[[0, 1, 3, 4]]
    without = hegraph(text_features=(others, -others)).fit(X, y)
    alone = without.predict(queries[~new]) == truth[~new]
    assert right[~new].mean() > alone.mean() - 0.05
    # Classes with images keep their classifier.
    kept = [0, 1, 3, 4]
    np.testing.assert_allclose(clf.coef_[kept], without.coef_, atol=1e-8)
    np.testing.assert_allclose(clf.log_prior_, -np.log(6))
    for name in ["positive", "negative", "visual"]:
        assert np.isfinite(clf.graph_[name]).all()
    assert set(clf.to_hetero_data().node_types) == {"positive", "negative", "visual"}


def test_class_names_and_weights_with_a_named_class() -> None:
    X, y = make_rows([0, 1], 3)
    counts = {"a": 1.0, "b": 1.0, "c": 2.0}
    clf = hegraph(text_features=TEXT[:3], class_weight=counts).fit(X, y, classes=["c", "b", "a"])
    np.testing.assert_allclose(np.exp(clf.log_prior_), [0.25, 0.25, 0.5])
    none = hegraph(text_features=TEXT[:3], class_weight=None).fit(X, y, classes=["a", "b", "c"])
    np.testing.assert_allclose(np.exp(none.log_prior_), 1 / 3)


@pytest.mark.parametrize("classes", [set(NAMES), dict.fromkeys(NAMES), [NAMES.tolist()]])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_classes_that_are_no_list_are_refused(classes: Any, method: str) -> None:
    X, y = make_rows([0, 1], 3)
    with pytest.raises(ValueError, match=r"classes=.*expected a list of labels"):
        getattr(hegraph(), method)(X, y, classes=classes)


def test_a_name_without_text_says_nothing() -> None:
    X, y = make_rows([0, 1], 3)
    with pytest.raises(ValueError, match=r"classes names 1 classes without an image.*prototypes"):
        hegraph(text_features="prototypes").fit(X, y, classes=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"classes names 1 classes without an image.*prototypes"):
        hegraph(text_features="prototypes").fit(X[y == "a"], y[y == "a"], classes=["a", "b"])
    with pytest.raises(ValueError, match="y holds one class"):
        hegraph(text_features=TEXT[:1]).fit(X[y == "a"], y[y == "a"], classes=["a"])


# --- more images later ---------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_partial_fit_equals_a_fit_on_all(weighted: bool, dtype: type) -> None:
    X, y = make_rows([0, 1, 2, 3, 4, 5], 5)
    X = X.astype(dtype)
    weight = RNG.uniform(0.5, 2, len(y)) if weighted else np.ones(len(y))
    whole = hegraph().fit(X, y, weight)
    parts = hegraph()
    for part in (slice(0, 18), slice(18, 20), slice(20, None)):
        assert parts.partial_fit(X[part], y[part], NAMES, weight[part]) is parts
    assert_same(parts, whole)


def test_partial_fit_goes_on_after_fit_and_learns_a_new_class() -> None:
    X, y = make_rows([0, 1, 2], 4)
    more, new = make_rows([3, 0], 3, seed=2)
    clf = HeGraphClassifier(text_features="prototypes")
    clf.fit(X, y).partial_fit(more, new)
    whole = HeGraphClassifier(text_features="prototypes")
    whole.fit(np.vstack([X, more]), np.concatenate([y, new]))
    assert_same(clf, whole)
    assert clf.n_samples_seen_ == 18


def test_named_classes_of_numbers_are_remembered() -> None:
    X, y = make_rows([0, 1], 4)
    codes = np.searchsorted(NAMES, y)
    clf = hegraph(text_features=TEXT[:4]).partial_fit(X[:6], codes[:6], classes=range(4))
    clf.partial_fit(X[6:], codes[6:])
    assert_same(clf, hegraph(text_features=TEXT[:4]).fit(X, codes, classes=[0, 1, 2, 3]))
    assert clf.predict(TEXT).dtype == codes.dtype


def test_a_named_class_is_remembered_and_gets_its_images() -> None:
    X, y = make_rows([0, 1], 4)
    more, new = make_rows([2], 3, seed=2)
    clf = hegraph(text_features=TEXT[:4]).partial_fit(X, y, classes=["a", "b", "c", "d"])
    clf.partial_fit(more, new)
    whole = hegraph(text_features=TEXT[:4])
    whole.fit(np.vstack([X, more]), np.concatenate([y, new]), classes=["a", "b", "c", "d"])
    assert_same(clf, whole)


def test_rows_of_unreadable_images_keep_their_numbers() -> None:
    X, y = make_rows([0, 1, 2, 3, 4, 5], 2)
    X[3] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf = hegraph().partial_fit(X, y).partial_fit(X[4:8], y[4:8])
    assert clf.support_index_.tolist() == [0, 1, 2, *range(4, 16)]
    assert clf.n_samples_seen_ == 16


def test_a_partial_fit_that_fails_leaves_the_estimator_as_it_was() -> None:
    X, y = make_rows([0, 1, 2, 3, 4, 5], 2)
    clf = hegraph().fit(X, y)
    before = copy.deepcopy(clf)
    with pytest.raises(ValueError, match="text_features: the positive array has shape"):
        clf.partial_fit(X[:2], ["unheard of", "a"])
    with pytest.raises(ValueError, match="expecting 30 features"):
        clf.partial_fit(X[:2, :9], y[:2])
    with pytest.raises(ValueError, match="labels of one type"):
        clf.partial_fit(X[:2], [1, 2])
    assert_same(clf, before)


def test_fit_keeps_a_bounded_part_and_says_so() -> None:
    X, y = make_rows([0, 1, 2, 3, 4, 5], SHOTS_KEPT + 3)
    clf = hegraph().fit(X, y)
    assert np.bincount(clf.support_labels_).tolist() == [SHOTS_KEPT] * 6
    np.testing.assert_array_equal(clf.support_features_, X[clf.support_index_])
    assert (NAMES[clf.support_labels_] == y[clf.support_index_]).all()
    with pytest.raises(ValueError, match=r"fit kept 64 rows of each class.*call partial_fit"):
        clf.partial_fit(X[:2], y[:2])


def test_shares_of_the_kept_rows() -> None:
    """A node moves with its row by the row's share, by a fit at given scalars."""
    X, y = make_rows([0, 1, 2, 3, 4, 5], 3)
    weight = RNG.uniform(0.5, 2, len(y))
    clf = hegraph().fit(X, y, weight)
    assert clf.support_share_.min() > 0
    per_class = np.bincount(clf.support_labels_, clf.support_share_)
    assert (per_class < 1).all()
    np.testing.assert_allclose(
        clf.support_share_ / per_class[clf.support_labels_],
        weight / np.bincount(clf.support_labels_, weight)[clf.support_labels_],
    )


# --- text of another CLIP ------------------------------------------------------------------------


def test_text_of_another_clip_warns() -> None:
    rng = np.random.default_rng(0)
    text = unit_rows(rng.normal(size=(20, 256)))
    y = np.repeat(np.arange(20), 8)
    X = text[y] + 0.08 * rng.normal(size=(160, 256))
    turn = np.linalg.qr(rng.normal(size=(256, 256)))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hegraph(text_features=text).fit(X, y)
    with pytest.warns(
        UserWarning, match=r"given text_features classifies \d+ of 160.*if X is of another CLIP"
    ):
        hegraph(text_features=text @ turn).fit(X, y)


def test_text_that_favours_one_class_does_not_warn() -> None:
    rng = np.random.default_rng(0)
    text = unit_rows(rng.normal(size=(2, 256)))
    y = np.repeat([0, 1], 20)
    noise = rng.normal(size=(40, 256))
    noise -= noise @ np.linalg.pinv(text) @ text
    X = unit_rows(noise) + 0.05 * text[y] + 0.12 * text[0]
    assert ((X @ text.T).argmax(axis=1) == 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hegraph(text_features=text).fit(X, y)


def test_text_that_is_right_more_often_than_by_chance_does_not_warn() -> None:
    """Of 1000 rows of two classes 696 are right: not what is useful, and not chance."""
    rng = np.random.default_rng(0)
    y, way = np.arange(1000) % 2, unit_rows(rng.normal(size=64))
    text = 0.3 * np.stack([way, -way]) + rng.normal(size=64) / 8
    X = rng.normal(size=(1000, 64)) / 8 + 0.055 * np.where(y[:, None] == 0, way, -way)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hegraph(text_features=text).fit(X, y)
    with pytest.warns(UserWarning, match=r"classifies \d+ of 1000 support .* chance \(500\)"):
        hegraph(text_features=text).fit(X, rng.permutation(y))


def test_real_pairs_do_not_warn(shared_data: Path) -> None:
    for name in ["dtd", "pets", "sun397"]:
        data = np.load(shared_data / f"features/clip_b32_{name}.npz")
        y = data["train_labels"].astype(int)
        rows = np.concatenate([np.flatnonzero(y == c)[:2] for c in np.unique(y)])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            HeGraphClassifier(text_features=data["text_pos"].astype(float)).fit(
                data["train_features"][rows].astype(float), y[rows]
            )


def test_labels_of_weight_zero_keep_their_rows_of_text() -> None:
    """Issue 17.1: text rows follow all labels given, those of rows that no longer count too."""
    X, y = make_rows([0, 1, 2], 3)
    weight = np.where(y == "b", 0.0, 1.0)
    clf = hegraph(text_features=TEXT[:3]).partial_fit(X, y, sample_weight=weight)
    assert clf.classes_.tolist() == ["a", "c"] and clf.labels_seen_.tolist() == ["a", "b", "c"]
    more, labels = make_rows([3], 3)
    with pytest.raises(ValueError, match=r"shape \(3, .*expected \(4,"):
        clf.partial_fit(more, labels)
    clf = hegraph(text_features=TEXT[:4])
    whole = np.vstack([X, more]), np.concatenate([y, labels]), np.concatenate([weight, np.ones(3)])
    want = clf.fit(whole[0], whole[1], sample_weight=whole[2]).predict_proba(X)
    with pytest.raises(ValueError, match=r"shape \(4, .*expected \(3,"):
        hegraph(text_features=TEXT[:4]).partial_fit(X, y, sample_weight=weight)
    first = hegraph(text_features=TEXT[:4]).partial_fit(
        np.vstack([X, more[:1]]),
        np.concatenate([y, labels[:1]]),
        sample_weight=np.append(weight, 0.0),
    )
    got = first.partial_fit(more, labels).predict_proba(X)
    np.testing.assert_array_equal(got, want)


def test_a_label_for_unknowns_of_another_type_after_the_fit_is_refused() -> None:
    """Issue 17.8: one array of labels cannot hold both."""
    X, _ = make_rows([0, 1], 3)
    clf = hegraph(text_features=TEXT[:2]).fit(X, [0, 0, 0, 1, 1, 1])
    clf.set_params(unknown_label="none")
    with pytest.raises(ValueError, match="unknown_label='none'"):
        clf.predict(np.vstack([X[:1], np.full_like(X[:1], np.nan)]))


def test_names_that_tell_nothing_are_told_of() -> None:
    """Issue 18: one sentence with the classes the text holds for alike, and a fitted attribute."""
    rng = np.random.default_rng(0)
    text = unit_rows(1 + 0.3 * rng.normal(size=(5, 64)))
    text[1] = unit_rows(text[0] + 0.01 * rng.normal(size=64))
    centres = unit_rows(1 + rng.normal(size=(5, 64)))
    y = np.repeat(list("abcde"), 12)
    X = np.repeat(centres, 12, axis=0) + 0.05 * rng.normal(size=(60, 64))
    with pytest.warns(UserWarning, match=r"nothing of these images, and holds 'a' and 'b' for"):
        clf = hegraph(text_features=text).fit(X, y)
    assert clf.text_share_ < 0.1
    right = hegraph(text_features=centres).fit(X, y)
    assert right.text_share_ == 0.5


@pytest.mark.parametrize("shots", [1, 2, 8])
@pytest.mark.parametrize("width", [30, 300])
def test_item_33_images_of_one_class_and_the_names_of_others(shots: int, width: int) -> None:
    """Issue 17.33: rows made from the text would teach that it is always right: it decides."""
    X, y = make_rows([2], shots)
    queries, truth = make_rows([0, 1, 2, 3, 4, 5], 40, seed=1)
    X, queries, text = (np.pad(a, ((0, 0), (0, width - 30))) for a in (X, queries, TEXT))
    clf = hegraph(text_features=(text, -text)).fit(X, y, classes=NAMES)
    assert clf.classes_.tolist() == NAMES.tolist() and clf.coef_.shape == text.shape
    zero_shot = ZeroShotCLIPClassifier(text_features=text).fit(None, NAMES)
    assert zero_shot.score(queries, truth) > 0.7
    got, want = clf.predict_proba(queries), zero_shot.predict_proba(queries)
    np.testing.assert_allclose(got, want, atol=1e-3)
    given = hegraph(text_features=(text, -text), visual_weight=0.1, text_weight=0.5)
    given.fit(X, y, classes=NAMES)
    assert (given.visual_weight_, given.text_weight_) == (0.1, 0.5)
    assert clf.support_labels_.tolist() == [2] * shots and clf.support_share_.max() <= 1
    np.testing.assert_array_equal(clf.support_features_, X.astype(clf.support_features_.dtype))
    np.testing.assert_allclose(clf.log_prior_, -np.log(6))
    assert np.isfinite(clf.score_samples(queries)).all()
    assert len(clf.explain(queries[:2])) == 6
    assert set(clf.to_hetero_data().node_types) == {"positive", "negative", "visual"}
    by_hand = unit_rows(X).mean(axis=0) + text[0] - text[2]
    np.testing.assert_allclose(clf.graph_["visual"][0], unit_rows(by_hand), atol=1e-6)


def test_item_9_a_stream_that_starts_with_one_class() -> None:
    """Issue 17.9."""
    X, y = make_rows([0, 1, 2, 3, 4, 5], 3)
    order = np.argsort(y, kind="stable")
    clf = hegraph()
    for rows in np.split(order, 6):
        clf.partial_fit(X[rows], y[rows], classes=NAMES)
    assert_same(clf, hegraph().fit(X[order], y[order]))


def unreadable(X: np.ndarray, rows: np.ndarray) -> np.ndarray:
    X = X.copy()
    X[rows] = np.nan
    return X


@pytest.mark.parametrize("how", ["had images", "named", "had weight 0"])
def test_item_9_the_only_image_of_a_known_class_in_a_batch_is_unreadable(how: str) -> None:
    """Issue 17.9."""
    X, y = make_rows([0, 1, 2], 4)
    more, labels = make_rows([0, 2], 2, seed=3)
    weight = np.where((y == "c") & (how == "had weight 0"), 0.0, 1.0)
    classes = NAMES[:3] if how == "named" else None
    if how == "named":
        X, y, weight = X[y != "c"], y[y != "c"], weight[y != "c"]
    clf = hegraph(text_features=TEXT[:3]).partial_fit(X, y, classes, weight)
    with pytest.warns(UserWarning, match="left out of the fit"):
        clf.partial_fit(unreadable(more, labels == "c"), labels)
    whole = hegraph(text_features=TEXT[:3])
    want_y = np.concatenate([y, labels[labels != "c"]])
    want_weight = np.append(weight, np.ones(len(want_y) - len(y)))
    whole.partial_fit(np.vstack([X, more[labels != "c"]]), want_y, classes, want_weight)
    np.testing.assert_array_equal(clf.predict_proba(X), whole.predict_proba(X))
    assert clf.n_samples_seen_ == len(X) + 4
    before = copy.deepcopy(clf)
    with pytest.warns(UserWarning, match="left out of the fit"):
        clf.partial_fit(unreadable(more, np.arange(4)), labels)  # nothing but unreadable images
    np.testing.assert_array_equal(clf.predict_proba(X), before.predict_proba(X))


def test_item_9_the_only_image_of_a_class_that_is_named_is_unreadable() -> None:
    """Issue 17.9."""
    X, y = make_rows([0, 1, 2], 3)
    clf = hegraph(text_features=TEXT[:3])
    with pytest.warns(UserWarning, match="left out of the fit"):
        clf.fit(unreadable(X, y == "c"), y, classes=NAMES[:3])
    want = hegraph(text_features=TEXT[:3]).fit(X[y != "c"], y[y != "c"], classes=NAMES[:3])
    np.testing.assert_array_equal(clf.predict_proba(X), want.predict_proba(X))
    with pytest.raises(ValueError, match="Class 'c' has no readable image"):
        clf.fit(unreadable(X, y == "c"), y)
    with pytest.raises(ValueError, match="Class 'c' has no readable image"):
        hegraph(text_features=TEXT[:2]).fit(X[y != "c"], y[y != "c"]).partial_fit(
            unreadable(X, y == "c"), y
        )
    for method in ("fit", "partial_fit"):
        with pytest.warns(UserWarning), pytest.raises(ValueError, match="No row of X is left"):
            getattr(hegraph(), method)(unreadable(X, y != ""), y, classes=NAMES)


def test_one_class_alone_turns_no_image_away() -> None:
    """Rows made from text have no scatter: nothing tells how images of the classes differ."""
    X, y = make_rows([0], 4)
    clf = hegraph(text_features=TEXT[:3], unknown_label="none", unknown_threshold=-2.0)
    clf.fit(X, y, classes=["a", "b", "c"])
    queries, _ = make_rows([0, 1, 2], 5)
    assert (clf.score_samples(queries) == 0).all()
    assert "none" not in clf.predict(queries)
