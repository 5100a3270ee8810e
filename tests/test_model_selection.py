"""Few-shot splitter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from skhegraph import FewShotSplit

Y = np.repeat(["a", "b", "c"], [5, 9, 20])


def test_draws_k_of_each_class_and_leaves_the_rest() -> None:
    splitter = FewShotSplit(4, n_splits=3, random_state=0)
    splits = list(splitter.split(np.zeros(len(Y)), Y))
    assert len(splits) == splitter.get_n_splits() == 3
    for train, test in splits:
        assert np.unique(Y[train], return_counts=True)[1].tolist() == [4, 4, 4]
        assert sorted([*train, *test]) == list(range(len(Y)))
    assert not np.array_equal(splits[0][0], splits[1][0])


def test_seed_decides_the_draw() -> None:
    def draw(seed: int) -> list[int]:
        train, _ = next(FewShotSplit(2, random_state=seed).split(Y, Y))
        return train.tolist()

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


def test_works_as_cv() -> None:
    X = np.random.RandomState(0).normal(size=(len(Y), 2)) + 10 * (Y == "b")[:, None]
    scores = cross_val_score(LogisticRegression(), X, Y == "b", cv=FewShotSplit(3, 4))
    assert scores.tolist() == [1.0] * 4
    assert "n_shots=3" in repr(FewShotSplit(3, 4))


def test_too_few_samples_names_the_class() -> None:
    with pytest.raises(ValueError, match=r"n_shots=5: class 'a' has only 5 samples"):
        next(FewShotSplit(5).split(Y, Y))


@pytest.mark.parametrize("n_shots", [0, -1, 1.5, "4"])
def test_bad_n_shots(n_shots: object) -> None:
    with pytest.raises(ValueError, match="n_shots"):
        next(FewShotSplit(n_shots).split(Y, Y))  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [None, np.nan, 1])
def test_missing_labels_and_labels_of_several_types_are_refused(bad: Any) -> None:
    """Issue 17.33, the kind: NaN was a class, None a message about '<'."""
    y = ["cat", "cat", "dog", "dog", bad, bad]
    with pytest.raises(ValueError, match=r"y has no label .* rows 4, 5|y holds labels of several"):
        next(FewShotSplit(n_shots=1).split(y, y))
