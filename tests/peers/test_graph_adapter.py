"""GraphAdapter's start, with the star graphs written out as matrices."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose

from skhegraph.peers import (
    GraphAdapterClassifier,
)


def graph_adapter_start(hand, X, y, text):
    """The refined text before training, with the star graphs written out as matrices."""
    bound = 1 / np.sqrt(6)
    rng = np.random.RandomState(0)
    weights = [rng.uniform(-bound, bound, (6, 6)) for _ in range(2)]
    means = np.stack([X[y == c].mean(axis=0) for c in range(4)])
    outs = []
    for leaves, W in zip((text, means), weights, strict=True):
        rows = []
        for t in text:
            nodes = np.vstack([t, leaves])
            A = np.maximum(hand.unit(nodes) @ hand.unit(nodes).T, 0) + np.eye(5)
            scale = A.sum(axis=1) ** -0.5
            rows.append(np.tanh((scale[:, None] * A * scale @ (10 * nodes) @ W)[0]))
        outs.append(np.stack(rows))
    return 0.7 * 10 * text + 0.3 * (0.7 * outs[0] + 0.3 * outs[1])


def test_a_rate_of_zero_leaves_the_start(problem, hand):
    X, y, text, Z = problem
    _, got = hand.fitted(GraphAdapterClassifier, problem, learning_rate=0.0, n_epochs=1)
    assert_allclose(
        got, hand.TAU * Z @ hand.unit(graph_adapter_start(hand, X, y, text)).T, atol=2e-5
    )
