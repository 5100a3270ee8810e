"""Splitters: few shots, and unlabelled samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    LeaveOneGroupOut,
    StratifiedKFold,
    cross_val_score,
)

from skhegraph import FewShotSplit, HeGraphClassifier, KeepUnlabelled

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


# --- unlabelled samples ---------------------------------------------------------------------------

NAMED = np.array(["ant", "bee", -1, "ant", "bee", -1, "ant", "bee"], dtype=object)


@pytest.mark.parametrize("container", [lambda y: y, list, pd.Series])
@pytest.mark.parametrize("cv", [3, StratifiedKFold(3), FewShotSplit(1, 3, random_state=0)])
def test_unlabelled_samples_are_in_every_training_set(container: Any, cv: Any) -> None:
    splitter = KeepUnlabelled(cv)
    parts = list(splitter.split(np.zeros((8, 2)), container(NAMED)))
    assert splitter.get_n_splits(None, container(NAMED)) == len(parts) == 3
    for train, test in parts:
        assert {2, 5} <= set(train)
        assert sorted({*train, *test}) == list(range(8))
        assert not set(train) & set(test)
        assert (NAMED[test] != -1).all()
        assert set(NAMED[train]) == {"ant", "bee", -1}


def test_scores_count_labelled_samples_alone() -> None:
    X, y = load_digits(return_X_y=True)
    partly = np.where(np.arange(len(y)) < 60, y, -1)
    clf = HeGraphClassifier(text_features="prototypes")
    folds = KeepUnlabelled(2)
    accuracy = cross_val_score(clf, X[:300], partly[:300], cv=folds)
    want = []
    for train, test in StratifiedKFold(2).split(X[:60], y[:60]):
        seen = np.concatenate([train, np.arange(60, 300)])
        want.append(clf.fit(X[seen], partly[seen]).score(X[test], y[test]))
    np.testing.assert_allclose(accuracy, want)
    search = GridSearchCV(clf, {"penalty": [1.0, 3.0]}, cv=folds, scoring="neg_log_loss")
    assert np.isfinite(search.fit(X[:300], partly[:300]).best_score_)
    assert clone(search).get_params()["cv"].cv == 2


def test_groups_of_labelled_samples() -> None:
    groups = np.array([0, 0, 9, 1, 1, 9, 2, 2])
    parts = list(KeepUnlabelled(LeaveOneGroupOut()).split(NAMED, NAMED, groups))
    assert [test.tolist() for _, test in parts] == [[0, 1], [3, 4], [6, 7]]
    assert KeepUnlabelled(LeaveOneGroupOut()).get_n_splits(NAMED, NAMED, groups) == 3
    assert KeepUnlabelled(4).get_n_splits() == 4
    X = np.random.default_rng(0).normal(size=(8, 3)) + 9 * (NAMED == "ant")[:, None]
    clf, folds = HeGraphClassifier(text_features="prototypes"), KeepUnlabelled(LeaveOneGroupOut())
    with config_context(enable_metadata_routing=True):
        scores = cross_val_score(clf, X, NAMED, cv=folds, params={"groups": groups})
        assert len(cross_val_score(clf, X, NAMED, cv=KeepUnlabelled(3))) == 3
    np.testing.assert_array_equal(scores, cross_val_score(clf, X, NAMED, cv=folds, groups=groups))
    assert repr(KeepUnlabelled(4)) == "KeepUnlabelled(cv=4)"


def test_iterators_missing_labels_and_no_label() -> None:
    folds = [(np.arange(4), np.arange(4, 6)), (np.arange(2, 6), np.arange(2))]  # of labelled ones
    parts = KeepUnlabelled(iter(folds))
    for _ in range(2):
        tests = [test.tolist() for _, test in parts.split(NAMED, NAMED)]
        assert tests == [[6, 7], [0, 1]]
    with pytest.raises(ValueError, match=r"y has no label .* row 1"):
        next(KeepUnlabelled(2).split(NAMED[:4], ["ant", None, -1, "bee"]))
    with pytest.raises(ValueError, match="-1 alone: no sample has a label"):
        next(KeepUnlabelled(2).split(NAMED[:4], [-1] * 4))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        next(KeepUnlabelled(2).split(NAMED[:4], NAMED))
    one = [test.tolist() for _, test in KeepUnlabelled(2).split(NAMED[:4], ["ant", -1, -1, "ant"])]
    assert one == [[0], [3]]
