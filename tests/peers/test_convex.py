"""Peers that minimise a loss: they are at its minimum, or follow its steps."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import softmax as scipy_softmax

from skhegraph.peers import (
    CLAPClassifier,
    LPPlusPlusClassifier,
    MAPLogisticRegression,
    TextStartedLogisticRegression,
)
from skhegraph.peers.closed_form import shrunk_discriminant
from skhegraph.support import Support


def text_lr_loss(hand, W, problem, C):
    X, y, text, _ = problem
    return C * len(y) * hand.mean_loss(X @ W.T, y) + 0.5 * np.sum((W - hand.TAU * text) ** 2)


def clap_loss(hand, W, problem, penalty):
    X, y, text, _ = problem
    proba = scipy_softmax(hand.TAU * X @ text.T, axis=1)
    a = np.array([proba[y == c, c].mean() for c in range(4)])
    return hand.mean_loss(hand.TAU * X @ hand.unit(W).T, y) + penalty * np.mean(
        a * ((W - text) ** 2).sum(axis=1)
    )


def test_text_started_regression_is_at_the_minimum(problem, hand):
    clf, _ = hand.fitted(TextStartedLogisticRegression, problem, C=5.0, tol=1e-9)
    gradient = hand.numeric_gradient(lambda W: text_lr_loss(hand, W, problem, 5.0), clf.coef_)
    assert_allclose(gradient, 0.0, atol=1e-5)


def test_text_started_regression_stays_at_the_text_for_small_c(problem, hand):
    _, _, text, Z = problem
    _, got = hand.fitted(TextStartedLogisticRegression, problem, C=1e-9)
    assert_allclose(got, hand.TAU * Z @ text.T, atol=1e-5)


def test_text_started_regression_matches_sklearn_without_text(problem, hand):
    from sklearn.linear_model import LogisticRegression

    X, y, _, Z = problem
    clf = TextStartedLogisticRegression(
        text_features=np.zeros((4, 6)), logit_scale=hand.TAU, C=2.0, tol=1e-9
    ).fit(X, y)
    reference = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-9, max_iter=1000).fit(X, y)
    assert_allclose(clf.predict_proba(Z), reference.predict_proba(Z), atol=1e-5)


def test_clap_is_at_the_minimum(problem, hand):
    clf, _ = hand.fitted(CLAPClassifier, problem, penalty=3.0, tol=1e-9)
    _, _, text, _ = problem
    # coef_ keeps the direction only; the length follows from the minimum along each row.
    from scipy.optimize import minimize

    W = minimize(
        lambda w: clap_loss(hand, w.reshape(4, 6), problem, 3.0), text.ravel(), tol=1e-12
    ).x.reshape(4, 6)
    assert_allclose(clf.coef_, hand.TAU * hand.unit(W), atol=1e-3)
    assert_allclose(
        hand.numeric_gradient(lambda V: clap_loss(hand, V, problem, 3.0), W), 0.0, atol=1e-4
    )


def test_clap_with_a_huge_penalty_is_zero_shot(problem, hand):
    _, _, text, Z = problem
    _, got = hand.fitted(CLAPClassifier, problem, penalty=1e6)
    assert_allclose(got, hand.TAU * Z @ text.T, atol=1e-4)


@pytest.mark.parametrize("max_iter", [1, 10, 23])
def test_lp_plus_plus_by_its_steps(problem, hand, max_iter):
    X, y, text, Z = problem
    clf, got = hand.fitted(LPPlusPlusClassifier, problem, max_iter=max_iter)
    onehot, n = np.eye(4)[y], len(y)
    own = [np.mean(X[y == c] @ text[c]) for c in range(4)]
    alpha, w, v = np.full(4, 2.5 * hand.TAU * np.mean(own)), onehot.T @ X, 0.0
    for step in range(1, max_iter + 1):
        residual = (scipy_softmax(X @ w.T + alpha * (X @ text.T), axis=1) - onehot) / n
        slope = (residual * (X @ text.T)).sum(axis=0)
        v = 0.9 * v + residual.T @ X
        w = w - 4 * n / np.linalg.eigvalsh(X.T @ X)[-1] * v
        if step % 10 == 0:
            alpha = alpha - n / (4 * ((X @ text.T) ** 2).sum(axis=0).max()) * slope
    assert_allclose(got, Z @ w.T + alpha * (Z @ text.T), rtol=1e-7)
    assert_allclose(clf.multipliers_, alpha)


def test_lp_plus_plus_lowers_the_loss(problem, hand):
    X, y, _, _ = problem
    short, _ = hand.fitted(LPPlusPlusClassifier, problem, max_iter=1)
    long, _ = hand.fitted(LPPlusPlusClassifier, problem, max_iter=300)
    assert hand.mean_loss(long.decision_function(X), y) < hand.mean_loss(
        short.decision_function(X), y
    )


def test_map_regression_is_at_the_minimum_around_text_and_discriminant(problem, hand):
    X, y, text, _ = problem
    alpha, penalty = 0.3, 0.02
    clf, _ = hand.fitted(MAPLogisticRegression, problem, alpha=alpha, penalty=penalty, tol=1e-9)
    support = Support(X, y, np.ones(len(y)), text, text, hand.TAU)
    A, c = shrunk_discriminant(support)
    start = hand.TAU * text + alpha * A

    def loss(W):
        return hand.mean_loss(X @ W.T + alpha * c, y) + 0.5 * penalty * np.sum((W - start) ** 2)

    assert_allclose(clf.intercept_, alpha * c)
    assert_allclose(hand.numeric_gradient(loss, clf.coef_), 0.0, atol=1e-5)
    assert loss(clf.coef_) < loss(start) - 1e-3
