"""The bench of regimes: draws, wrong text, goals, command line."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

FOLDER = Path(__file__).parent.parent / "examples" / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("regimes")
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def digits(bench):
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32)
    text = np.stack([X[y == c].mean(axis=0) for c in range(10)])
    text = (text, -text)
    return bench.Problem("digits", X[:900], y[:900], X[900:1200], y[900:1200], text, 10.0)


def test_subsets_keep_the_text_of_their_classes(bench, digits):
    problem, rows = bench.draw(digits, "3 classes", 2, 0, develop=False)
    assert sorted(np.unique(problem.y_train[rows])) == [0, 1, 2]
    assert np.bincount(problem.y_train[rows]).tolist() == [2, 2, 2]
    for c in range(3):
        row = problem.X_train[problem.y_train == c][0]
        whole = digits.y_train[(digits.X_train == row).all(axis=1)][0]
        np.testing.assert_array_equal(problem.text[0][c], digits.text[0][whole])
    assert bench.draw(digits, "10 classes", 2, 0, develop=False) is not None
    small = bench.subset(digits, np.arange(4))
    assert bench.draw(small, "5 classes", 2, 0, develop=False) is None


@pytest.mark.parametrize("seed", range(5))
def test_a_lie_gives_no_class_its_own_text(bench, digits, seed):
    problem, _ = bench.draw(digits, "lie", 1, seed, develop=False)
    own = (problem.text[0] == digits.text[0]).all(axis=1)
    assert not own.any()
    order = [int(np.flatnonzero((digits.text[0] == row).all(axis=1))[0]) for row in problem.text[0]]
    assert sorted(order) == list(range(10))
    np.testing.assert_array_equal(problem.text[1], -problem.text[0])
    random, _ = bench.draw(digits, "random", 1, seed, develop=False)
    np.testing.assert_allclose(np.linalg.norm(random.text, axis=1), 1, rtol=1e-6)


def test_unequal_shots_are_one_to_twenty(bench, digits):
    counts = [
        np.bincount(digits.y_train[bench.draw(digits, "unequal", 0, seed, False)[1]])
        for seed in range(20)
    ]
    assert np.min(counts) == 1 and 15 < np.max(counts) <= 20


def test_development_leaves_the_test_split_alone(bench, digits):
    problem, rows = bench.draw(digits, "whole", 4, 0, develop=True)
    assert len(problem.y_test) == len(digits.y_train) - len(rows)
    seen = {row.tobytes() for row in digits.X_train[rows]}
    assert not seen & {row.tobytes() for row in problem.X_test}


def test_goals_by_hand(bench):
    marks = {"LR by folds": [80.0, 0.50, 1], "Zero-shot": [70.0, 0.60, 1]}
    cell = {name: np.array(values) for name, values in marks.items()}
    assert bench.misses(cell | {"HeGraph": np.array([79.5, 0.51, 1])}) == ""
    missed = bench.misses(cell | {"HeGraph": np.array([78.5, 0.53, 1])})
    assert missed == "accuracy -1.5, log-loss +0.030"
    bare = np.array([80.3, 0.50, 1])
    missed = bench.misses(cell | {"HeGraph": np.array([79.5, 0.50, 1]), bench.NO_TEXT: bare})
    assert missed == "without text +0.8 / -0.000"


def test_main_on_a_feature_file(bench, digits, feature_file, tmp_path, capsys):
    train = {"X_train": digits.X_train[:300], "y_train": digits.y_train[:300]}
    test = {"X_test": digits.X_test[:60], "y_test": digits.y_test[:60]}
    path = feature_file(replace(digits, **train, **test))
    out = tmp_path / "regimes.md"
    options = ["--sections", "3 classes", "lie", "--shots", "2", "--seeds", "0"]
    bench.main(["--features", str(path), *options, "--out", str(out)])
    text = out.read_text(encoding="utf-8")
    assert "### 3 classes: given features" in text and "### lie: given features" in text
    assert "| HeGraph, no text |" in text and "Cells that miss a goal" in text
    assert text in capsys.readouterr().out
