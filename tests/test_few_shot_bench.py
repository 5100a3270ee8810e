"""The few-shot benchmark: scores, selection without leakage, tables, command line."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedKFold

FOLDER = Path(__file__).parent.parent / "examples" / "benchmarks"
METHODS = ["GDA", "LogisticRegression"]
GRIDLESS = {"Zero-shot", "SS-Text", "HeGraphAdapter", "HeGraph"}


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("few_shot")
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def data(bench):
    return importlib.import_module("few_shot_data")


@pytest.fixture(scope="module")
def tables(bench):
    return importlib.import_module("few_shot_report")


@pytest.fixture(scope="module")
def digits(data):
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32)
    return data.Problem("digits", X[:900], y[:900], X[900:1200], y[900:1200])


@pytest.fixture(scope="module")
def rows(bench, digits):
    return bench.run([digits], [1, 4], [0], METHODS)


def test_smoke_on_digits(rows):
    assert [(row["shots"], row["method"]) for row in rows] == [
        (k, name) for k in (1, 4) for name in METHODS
    ]
    for row in rows:
        assert 30 < row["accuracy"] <= 100
        assert 0 < row["log_loss"] < 30
        assert 0 <= row["ece"] <= 100
        assert (row["chosen"] == "{}") == (row["shots"] == 1)


def test_permuted_test_labels_change_no_choice(bench, digits, rows):
    order = np.random.RandomState(0).permutation(len(digits.y_test))
    other = dataclasses.replace(
        digits, X_test=digits.X_test[::-1], y_test=np.asarray(digits.y_test)[order]
    )
    again = bench.run([other], [1, 4], [0], METHODS)
    assert [row["chosen"] for row in again] == [row["chosen"] for row in rows]
    assert [row["accuracy"] for row in again] != [row["accuracy"] for row in rows]


def test_choice_sees_only_the_support(bench, data, digits):
    support = data.few_rows(digits.y_train, 3, seed=1)
    X, y = digits.X_train[support], digits.y_train[support]
    blank = dataclasses.replace(
        digits, X_train=np.zeros((0, 64)), y_train=y[:0], X_test=np.zeros((0, 64)), y_test=y[:0]
    )
    criteria = ("log_loss", "accuracy")
    with_rows = bench.choose(bench.METHODS["GDA"], digits, X, y, 1, criteria)
    without = bench.choose(bench.METHODS["GDA"], blank, X, y, 1, criteria)
    assert list(with_rows) == list(without) == list(criteria)
    for criterion in criteria:
        assert with_rows[criterion][1] == without[criterion][1]


def test_choice_is_that_of_grid_search(bench, data, digits):
    support = data.few_rows(digits.y_train, 3, seed=1)
    X, y = digits.X_train[support], digits.y_train[support]
    method = bench.METHODS["GDA"]
    model, params = bench.choose(method, digits, X, y, 1, ["accuracy"])["accuracy"]
    cv = StratifiedKFold(3, shuffle=True, random_state=1)
    search = GridSearchCV(method.build(digits), method.grid, cv=cv).fit(X, y)
    assert params == search.best_params_
    np.testing.assert_allclose(
        model.predict_proba(digits.X_test), search.predict_proba(digits.X_test)
    )


def test_both_criteria_give_two_rows_for_methods_with_candidates(bench, digits):
    rows = bench.run([digits], [2], [0], ["Zero-shot", "GDA"], 1, ["log_loss", "accuracy"])
    assert [row["method"] for row in rows] == ["Zero-shot", "GDA", "GDA, by accuracy"]


def test_every_method_has_the_same_budget(bench):
    for name, method in bench.METHODS.items():
        assert len(ParameterGrid(method.grid)) == 6 if method.grid else name in GRIDLESS


def test_authors_defaults_are_among_the_candidates(bench, data):
    problem = data.Problem("p", *[np.zeros((1, 1))] * 4)
    for name, method in bench.METHODS.items():
        params = method.build(problem).get_params()
        candidates = ParameterGrid(method.grid) if method.grid else [{}]
        assert any(all(params[k] == v for k, v in c.items()) for c in candidates), name


def test_few_rows_draws_each_class_without_replacement(data):
    y = np.array([2, 0, 0, 2, 2, 5, 0])
    picked = data.few_rows(y, 2, seed=3)
    assert len(set(picked)) == len(picked) == 5
    assert [int((y[picked] == label).sum()) for label in (0, 2, 5)] == [2, 2, 1]
    assert np.array_equal(picked, data.few_rows(y, 2, seed=3))
    assert len({tuple(data.few_rows(y, 2, seed)) for seed in range(9)}) > 1


def test_calibration_error_by_hand(tables):
    proba = np.array([[0.9, 0.1], [0.92, 0.08], [0.3, 0.7], [0.55, 0.45]])
    y = np.array([0, 1, 1, 1])
    # bins of width 1/15: 0.9 and 0.92 share (13/15, 14/15]; 0.7 and 0.55 are alone
    expected = 2 / 4 * abs(0.5 - 0.91) + 1 / 4 * abs(1 - 0.7) + 1 / 4 * abs(0 - 0.55)
    assert tables.expected_calibration_error(proba, y) == pytest.approx(expected)
    assert tables.expected_calibration_error(np.eye(2), np.array([0, 1])) == 0.0


def test_scores_by_hand(tables):
    proba = np.array([[0.5, 0.5], [0.2, 0.8], [1.0, 0.0]])
    result = tables.scores(proba, np.array([0, 0, 1]))
    assert result["accuracy"] == pytest.approx(100 / 3)
    assert result["log_loss"] == pytest.approx(-(np.log(0.5) + np.log(0.2) + np.log(1e-15)) / 3)


def made_up_rows():
    values = {("A", 0): 60.0, ("A", 1): 64.0, ("HeGraph", 0): 65.0, ("HeGraph", 1): 67.0}
    return [
        {
            "dataset": dataset,
            "shots": 1,
            "seed": seed,
            "method": method,
            "accuracy": accuracy + shift,
            "log_loss": 1.0 - accuracy / 100,
            "ece": 5.0,
            "fit_seconds": 0.1,
            "predict_seconds": 0.01,
        }
        for dataset, shift in (("d1", 0.0), ("d2", 10.0))
        for (method, seed), accuracy in values.items()
    ]


def test_summary_means_errors_and_paired_differences(tables):
    lines = tables.summary(made_up_rows())
    line = next(ln for ln in lines if ln["dataset"] == "average" and ln["method"] == "A")
    assert line["accuracy"] == pytest.approx(67.0)
    assert line["accuracy_se"] == pytest.approx(2.0)
    assert line["accuracy_minus_hegraph"] == pytest.approx(-4.0)
    assert line["accuracy_minus_hegraph_se"] == pytest.approx(1.0)
    ours = next(ln for ln in lines if ln["dataset"] == "d1" and ln["method"] == "HeGraph")
    assert ours["accuracy"] == pytest.approx(66.0)
    assert "accuracy_minus_hegraph" not in ours


def test_tables_mark_the_best_and_label_published_numbers(tables):
    lines = tables.summary(made_up_rows())
    accuracy = tables.markdown_table(lines, "accuracy").splitlines()
    assert accuracy[2] == "| A | 67.0 ± 2.0 |"
    assert accuracy[3] == "| HeGraph | **71.0** ± 1.0 |"
    assert "| HeGraph | **0.340**" in tables.markdown_table(lines, "log_loss")
    assert "| A | -4.0 ± 1.0 |" in tables.difference_table(lines)
    published = tables.published_table(lines, "RN50")
    assert "| GDA (published) | 62.2 | 66.2 | 69.8 | 73.3 | 76.1 |" in published
    assert "| HeGraph (run here) | 71.0 |" in published
    assert "| GDA (published) |  |  |  |  | 81.9 |" in tables.published_table(lines, "ViT-B-16")


def test_report_writes_files(bench, rows, tmp_path, capsys):
    bench.report(rows, tmp_path, "heading")
    assert {path.name for path in tmp_path.iterdir()} == {
        "few_shot.md",
        "few_shot.png",
        "few_shot_runs.csv",
        "few_shot_summary.csv",
    }
    assert "| GDA |" in capsys.readouterr().out
    first = (tmp_path / "few_shot_runs.csv").read_text().splitlines()
    assert first[0].startswith("dataset,shots,seed,method,accuracy,log_loss,ece")
    assert len(first) == 1 + len(rows)


def write_features(path, rng, text=True):
    train = rng.normal(size=(12, 4)).astype(np.float16)
    arrays = {
        "train_features": train,
        "train_labels": np.arange(12) % 3,
        "test_features": train[:6],
        "test_labels": np.arange(6) % 3,
    }
    if text:
        arrays |= {"text_pos": np.eye(3, 4), "text_neg": -np.eye(3, 4), "logit_scale": 20.0}
    np.savez(path, **arrays)


def test_main_on_a_feature_file(bench, data, tmp_path, capsys):
    path = tmp_path / "made.npz"
    write_features(path, np.random.RandomState(0))
    problem = data.from_features(path)
    assert problem.name == "made" and problem.logit_scale == 20.0
    arguments = ["--features", str(path), "--shots", "2", "--seeds", "0", "1"]
    bench.main([*arguments, "--methods", "Zero-shot", "Tip-Adapter", "--out", str(tmp_path / "o")])
    out = capsys.readouterr().out
    assert "seeds 0 1" in out and "python few_shot.py --features" in out
    with (tmp_path / "o" / "few_shot_runs.csv").open(encoding="utf-8") as file:
        runs = list(csv.DictReader(file))
    assert [set(json.loads(run["chosen"])) for run in runs] == [set(), {"alpha", "beta"}] * 2


def test_feature_file_without_text_uses_prototypes(data, tmp_path):
    path = tmp_path / "plain.npz"
    write_features(path, np.random.RandomState(0), text=False)
    assert data.from_features(path).text_source == {"text_features": "prototypes"}


@pytest.mark.parametrize(
    "arguments",
    [[], ["--torchvision", "DTD"], ["--standard-11"], ["--features", "x", "--jobs", "a"]],
)
def test_command_line_errors(bench, arguments, capsys):
    with pytest.raises(SystemExit):
        bench.parse(arguments)
    assert "error" in capsys.readouterr().err


def save_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("parts", [("train", "test"), ("",)])
def test_image_folders(data, tmp_path, parts):
    for i, part in enumerate(parts):
        for c in ("cat", "maple_tree"):
            for n in range(4):
                save_image(tmp_path / part / c / f"{n}.bmp", seed=100 * i + n)
    problem = data.from_images(tmp_path, data.Encoder("skhegraph-tiny", None, pool=3))
    assert len(problem.X_train) == (6 if len(parts) == 2 else 4)
    assert len(problem.X_test) == (8 if len(parts) == 2 else 4)
    assert problem.text is not None and problem.text[0].shape == (2, 128)
    assert problem.logit_scale == pytest.approx(20, abs=1)
    assert sorted(set(problem.y_train)) == [0, 1]


def test_image_folders_with_other_classes_are_refused(data, tmp_path):
    save_image(tmp_path / "train" / "a" / "0.bmp", 0)
    save_image(tmp_path / "test" / "b" / "0.bmp", 1)
    with pytest.raises(ValueError, match="different classes"):
        data.from_images(tmp_path, data.Encoder("skhegraph-tiny", None))


class FakeImages:
    """Like a torchvision class: arguments select the split; labels without decoding."""

    classes = (("cat", "domestic cat"), ("dog",))

    def __init__(self, root, split="train"):
        self.targets = [0, 1] * (5 if split == "train" else 3)

    def __getitem__(self, row):
        image = Image.fromarray(np.full((8, 8, 3), 40 * (row % 2) + row, dtype=np.uint8))
        return image, self.targets[row]

    def __len__(self):
        return len(self.targets)


class FakeWhole(FakeImages):
    def __init__(self, root):
        super().__init__(root)


@pytest.mark.parametrize(("cls", "counts"), [(FakeImages, (8, 6)), (FakeWhole, (5, 5))])
def test_torchvision_class(data, monkeypatch, cls, counts):
    import torchvision

    monkeypatch.setattr(torchvision.datasets, "Fake", cls, raising=False)
    encoder = data.Encoder("skhegraph-tiny", None, pool=4)
    problem = data.from_torchvision("Fake", "nowhere", encoder, download=False)
    assert (len(problem.X_train), len(problem.X_test)) == counts
    assert data.dataset_names("Fake", cls("nowhere")) == ["cat", "dog"]


def test_torchvision_knows_the_ten_standard_classes(data):
    from torchvision import datasets

    from skhegraph.clip.prompts import PRESETS

    assert len(data.TORCHVISION) == 10
    for name, (*_, preset) in data.TORCHVISION.items():
        assert hasattr(datasets, name)
        assert preset in PRESETS


def test_unknown_torchvision_class(data):
    with pytest.raises(ValueError, match="no such class"):
        data.from_torchvision("Nope", "root", data.Encoder("skhegraph-tiny", None), False)


# --- the eleven usual data sets, in miniature -----------------------------------------------------


def make_standard_11(root):
    """The eleven folders with two classes of five training and two test images each."""
    eleven = importlib.import_module("standard_11").STANDARD_11
    names = ["cat", "maple_tree"]
    for k, (dataset, standard) in enumerate(eleven.items()):
        folder = root / standard.folder
        split = {"train": [], "val": [], "test": []}
        variants = {"train": [], "test": []}
        for label, name in enumerate(names):
            for part, count in (("train", 5), ("test", 2)):
                for n in range(count):
                    path = f"{part}_{label}_{n}.jpg"
                    if dataset == "ImageNet":
                        path = f"{'val' if part == 'test' else part}/n0{label}/{n}.jpg"
                    save_image(folder / standard.images / path, seed=1000 * k + 10 * n + label)
                    split[part].append([path, label, name])
                    variants[part].append(f"{path.removesuffix('.jpg')} {name}")
        if standard.split is not None:
            (folder / standard.split).write_text(json.dumps(split))
        elif dataset == "ImageNet":
            (folder / "classnames.txt").write_text("n00 cat\nn01 maple tree\n")
        else:
            (folder / "variants.txt").write_text("\n".join(names) + "\n")
            for part, lines in variants.items():
                (folder / f"images_variant_{part}.txt").write_text("\n".join(lines) + "\n")
    return list(eleven)


def test_standard_11_from_end_to_end(bench, tmp_path, capsys):
    names = make_standard_11(tmp_path / "data")
    arguments = ["--standard-11", "--root", str(tmp_path / "data"), "--shots", "1", "2"]
    arguments += ["--seeds", "0", "--methods", "Zero-shot", "GDA", "--out", str(tmp_path / "out")]
    bench.main([*arguments, "--standard-models", "skhegraph-tiny"])
    out = capsys.readouterr().out
    assert "skhegraph-tiny, 11 data sets" in out
    with (tmp_path / "out" / "skhegraph-tiny" / "few_shot_runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert list(dict.fromkeys(run["dataset"] for run in runs)) == names
    assert len(runs) == 11 * 2 * 2
    assert {float(run["accuracy"]) for run in runs} <= {0.0, 25.0, 50.0, 75.0, 100.0}


def test_standard_11_names_what_is_missing(bench, data, tmp_path):
    standard = importlib.import_module("standard_11")
    encoder = data.Encoder("skhegraph-tiny", None)
    with pytest.raises(FileNotFoundError, match=r"UCF101: .*split_zhou_UCF101\.json"):
        standard.load("UCF101", tmp_path, encoder, download=False)
    with pytest.raises(RuntimeError, match=r"[Dd]ataset not found"):  # torchvision's own word
        standard.load("DTD", tmp_path, encoder, download=False)


def test_clean_name(data):
    assert data.clean_name("apartment_building/outdoor") == "apartment building outdoor"
