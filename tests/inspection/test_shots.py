"""Scores against shots: the same as a loop written out, beside zero-shot and others."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skhegraph import FewShotSplit, HeGraphClassifier, ZeroShotCLIPClassifier
from skhegraph.inspection import ShotsDisplay

X, y = load_iris(return_X_y=True)


def test_scores_are_those_of_a_loop():
    clf = HeGraphClassifier(text_features="prototypes")
    other = LogisticRegression(max_iter=1000)
    display = ShotsDisplay.from_estimator(
        clf, X, y, shots=[2, 5], n_draws=2, others={"logistic": other}, random_state=3
    )
    assert list(display.scores) == ["HeGraphClassifier", "logistic"]  # prototypes: no zero-shot
    rng = np.random.RandomState(3)
    for i, k in enumerate([2, 5]):
        splitter = FewShotSplit(k, n_splits=2, random_state=rng)
        for j, (train, test) in enumerate(splitter.split(X, y)):
            for name, method in {"HeGraphClassifier": clf, "logistic": other}.items():
                score = method.fit(X[train], y[train]).score(X[test], y[test])
                assert display.scores[name][i, j] == score


@pytest.mark.parametrize("piped", [False, True])
def test_zero_shot_is_the_text_alone(piped):
    text = np.eye(3, 4)
    clf = HeGraphClassifier(text_features=text, logit_scale=20.0)
    estimator = make_pipeline(FunctionTransformer(), clf) if piped else clf
    display = ShotsDisplay.from_estimator(estimator, X, y, shots=[3], n_draws=2, random_state=0)
    zero = ZeroShotCLIPClassifier(text_features=text).fit(X, y)
    for j, (_, test) in enumerate(FewShotSplit(3, n_splits=2, random_state=0).split(X, y)):
        assert display.scores["zero-shot"][0, j] == zero.score(X[test], y[test])


def test_scoring_and_labels():
    clf = HeGraphClassifier(text_features="prototypes")
    display = ShotsDisplay.from_estimator(
        clf, list(X), list(y), shots=[2], n_draws=1, scoring="neg_log_loss", random_state=0
    )
    assert (display.scores["HeGraphClassifier"] < 0).all()
    assert display.ax_.get_ylabel() == "test neg log loss"
    assert display.ax_.get_xlabel() == "labelled images per class"


def test_error_bars_are_standard_errors():
    scores = np.array([[0.5, 0.7, 0.9, 0.7], [0.8, 0.8, 0.8, 0.8]])
    display = ShotsDisplay([1, 4], {"a": scores}).plot()
    bars = display.ax_.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(bars[0][:, 1], 0.7 + np.array([-1, 1]) * scores[0].std(ddof=1) / 2)
    np.testing.assert_allclose(bars[1][:, 1], [0.8, 0.8])


def test_too_many_shots_say_so():
    clf = HeGraphClassifier(text_features="prototypes")
    with pytest.raises(ValueError, match="n_shots=50"):
        ShotsDisplay.from_estimator(clf, X, y, shots=[50])
