"""Which images to label next: the greedy choice by hand, and what it is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skhegraph import HeGraphClassifier
from skhegraph.inspection import labelling as module
from skhegraph.inspection import next_to_label

X, Y = load_digits(return_X_y=True)
TRAIN, TEST = np.arange(900), np.arange(900, len(Y))


def few(shots: int) -> np.ndarray:
    return np.concatenate([np.flatnonzero(c == Y)[:shots] for c in range(10)])


def fitted(rows: np.ndarray) -> HeGraphClassifier:
    return HeGraphClassifier(text_features="prototypes").fit(X[rows], Y[rows])


def test_greedy_choice_by_hand() -> None:
    clf, rows = fitted(few(2)), X[300:340]
    proba, score = np.sort(clf.predict_proba(rows), axis=1), clf.score_samples(rows)
    weight = 1 - proba[:, -1] + proba[:, -2]
    weight *= np.minimum(1, 2 * norm.cdf(score - min(0, np.median(score))))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    known = X[few(2)] / np.linalg.norm(X[few(2)], axis=1, keepdims=True)
    centre = unit.mean(axis=0)
    unit, known = ((part - centre) for part in (unit, known))
    unit, known = (p / np.linalg.norm(p, axis=1, keepdims=True) for p in (unit, known))
    chosen: list[int] = []

    def worth(more: list[int]) -> float:
        points = np.vstack([known, unit[more]])
        return float(weight @ np.maximum(unit @ points.T, 0).max(axis=1))

    for _ in range(5):
        rest = [j for j in range(40) if j not in chosen]
        chosen.append(max(rest, key=lambda j: worth([*chosen, j])))
    assert next_to_label(clf, rows, 5).tolist() == chosen


def test_chosen_labels_teach_more_than_random_ones() -> None:
    """Accuracy on rows that no choice saw, ten more labels, five draws of the random ones."""
    start = few(1)
    rest = np.setdiff1d(TRAIN, start)
    picked = rest[next_to_label(fitted(start), X[rest])]
    ours = fitted(np.concatenate([start, picked])).score(X[TEST], Y[TEST])
    rng = np.random.default_rng(0)
    random = [
        fitted(np.concatenate([start, rng.choice(rest, 10, replace=False)])).score(X[TEST], Y[TEST])
        for _ in range(5)
    ]
    assert ours > np.mean(random) + 0.03


def test_unreadable_images_are_not_chosen_and_copies_once() -> None:
    clf, rows = fitted(few(2)), X[300:308].copy()
    first = next_to_label(clf, rows, 1)[0]
    rows[first] = np.nan
    assert sorted(next_to_label(clf, rows, 99)) == [i for i in range(8) if i != first]
    twice = np.vstack([X[300:308], X[300:308]])
    assert len({i % 8 for i in next_to_label(clf, twice, 4)}) == 4
    assert len(next_to_label(clf, np.full((2, 64), np.nan))) == 0


def test_pipelines_bounds_and_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    clf = fitted(few(2))
    want = next_to_label(clf, X[300:400], 4)
    pipe: Any = make_pipeline(FunctionTransformer(), clf)
    np.testing.assert_array_equal(next_to_label(pipe, X[300:400], 4), want)
    monkeypatch.setattr(module, "MOST_IMAGES", 6)
    assert len(next_to_label(clf, X[300:400], 10)) == 6
    with pytest.raises(TypeError, match="expected a fitted HeGraphClassifier"):
        next_to_label(LogisticRegression().fit(X, Y), X)
    with pytest.raises(ValueError, match="n_images == -1, must be >= 0"):
        next_to_label(clf, X[300:400], -1)
    with pytest.raises(TypeError, match="n_images must be an instance of int"):
        next_to_label(clf, X[300:400], 2.5)  # type: ignore[arg-type]
