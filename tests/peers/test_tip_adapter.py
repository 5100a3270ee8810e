"""Tip-Adapter by loops, and the first step of its training."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose

from skhegraph.peers import (
    TipAdapterClassifier,
    TipAdapterFClassifier,
)


def test_tip_adapter_by_loops(problem, hand):
    X, y, text, Z = problem
    _, got = hand.fitted(TipAdapterClassifier, problem, alpha=1.5, beta=3.0)
    expected = hand.TAU * Z @ text.T
    for i, z in enumerate(Z):
        for x, label in zip(X, y, strict=True):
            expected[i, label] += 1.5 * np.exp(-3.0 * (1.0 - z @ x))
    assert_allclose(got, expected, rtol=1e-10)


def test_first_step_of_tip_adapter_f(problem, hand):
    """AdamW: decay by rate times 0.01, then rate times g / (|g| + 1e-4)."""
    X, y, text, _ = problem
    clf, _ = hand.fitted(TipAdapterFClassifier, problem, learning_rate=0.01, n_epochs=1)

    def loss(keys):
        cache = 1.17 * np.exp(X @ keys.T - 1.0) @ np.eye(4)[y]
        return hand.mean_loss(hand.TAU * X @ text.T + cache, y)

    g = hand.numeric_gradient(loss, X)
    assert_allclose(clf.keys_, X * (1 - 1e-4) - 0.01 * g / (np.abs(g) + 1e-4), atol=1e-5)


def test_set_params_waits_for_fit(problem, hand):
    clf, got = hand.fitted(TipAdapterClassifier, problem)
    clf.set_params(alpha=9.0, beta=9.0)
    assert_allclose(clf.decision_function(problem[3]), got)
