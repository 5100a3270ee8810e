"""HeGraphClassifier and the described adapter inside scikit-learn's own tools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import get_scorer, log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score

from skhegraph import HeGraphAdapterClassifier, HeGraphClassifier

C, D = 4, 10


def make_data(shots: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Clusters of given sizes, in shuffled order, not of unit length."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(shots)), shots))
    return 3.5 * np.eye(len(shots), D)[y] + rng.normal(size=(len(y), D)), y


X, Y = make_data([8, 5, 3, 4])
QUERIES, TRUTH = make_data([15] * C, seed=1)
TEXT = np.random.default_rng(2).normal(size=(2, C, D)) * 0.4
PAIR = (3 * (TEXT[0] + np.eye(C, D)), TEXT[1] - np.eye(C, D))


def hegraph(**params: Any) -> HeGraphClassifier:
    return HeGraphClassifier(**{"text_features": PAIR, "device": "cpu", **params})


def adapter(**params: Any) -> HeGraphAdapterClassifier:
    return HeGraphAdapterClassifier(
        **{"text_features": PAIR, "random_state": 0, "n_epochs": 5, "device": "cpu", **params}
    )


both = pytest.mark.parametrize("make", [hegraph, adapter])


@both
def test_grid_search_and_scorers(make: Any) -> None:
    search = GridSearchCV(
        make(),
        {"visual_to_positive": [0.1, 0.5], "negative_to_positive": [0.0, 0.5]},
        scoring=["neg_log_loss", "roc_auc_ovr"],
        refit="neg_log_loss",
        cv=3,
        error_score="raise",
    ).fit(X, Y)
    assert len(set(np.round(search.cv_results_["mean_test_neg_log_loss"], 7))) == 4
    proba = search.predict_proba(QUERIES)
    scores = {name: get_scorer(name)(search, QUERIES, TRUTH) for name in search.scoring}
    assert scores["neg_log_loss"] == pytest.approx(-log_loss(TRUTH, proba))
    assert scores["roc_auc_ovr"] == pytest.approx(roc_auc_score(TRUTH, proba, multi_class="ovr"))
    assert scores["roc_auc_ovr"] > 0.9


@both
def test_cross_validation_calibration_and_clone(make: Any) -> None:
    clf = make()
    assert cross_val_score(clf, X, Y, cv=3, error_score="raise").mean() > 0.6
    calibrated = CalibratedClassifierCV(clf, cv=3).fit(X, Y)
    np.testing.assert_allclose(calibrated.predict_proba(QUERIES).sum(axis=1), 1)
    assert calibrated.score(QUERIES, TRUTH) > 0.7
    fitted = clf.fit(X, Y)
    copy = clone(fitted)
    assert not hasattr(copy, "classes_")
    want = fitted.predict_proba(QUERIES)
    np.testing.assert_array_equal(copy.fit(X, Y).predict_proba(QUERIES), want)
