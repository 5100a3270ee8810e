"""The fused loss of the network by hand, and leave-one-out text logits by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from skhegraph.hegraph import training
from skhegraph.hegraph.graph import build_graph
from skhegraph.hegraph.network import PathWeights
from skhegraph.hegraph.training import own_node_shift, support_text_logits, train_text_nodes
from skhegraph.support import Support, unit_rows

C, D = 3, 5
PATHS = PathWeights(0.5, 0.5, 0.06, 0.24, 0.2)


@pytest.fixture
def support() -> Support:
    rng = np.random.default_rng(0)
    y = np.array([0, 0, 0, 1, 1, 1, 2])
    P, N = unit_rows(rng.normal(size=(C, D))), unit_rows(rng.normal(size=(C, D)))
    X = unit_rows(rng.normal(size=(7, D)))
    return Support(X, y, rng.uniform(0.5, 2, 7), P, N, 10.0)


def graph_of(support: Support):
    nodes = {"positive": support.positive, "negative": support.negative, "visual": support.visual}
    return build_graph(nodes)


def train(support: Support, **changes):
    params = {
        "text_weight": 0.5,
        "visual_logits": np.random.default_rng(1).normal(size=(7, C)),
        "loss_weight": support.sample_weight,
        "penalty": 0.0,
        "learning_rate": 0.05,
        "n_epochs": 20,
        "batch_size": None,
        "rng": np.random.RandomState(0),
        "device": "cpu",
    }
    return train_text_nodes(graph_of(support), PATHS, support, **{**params, **changes})


def test_own_node_shift_by_brute_force(support: Support) -> None:
    X, y, w = support.X, support.y, support.sample_weight
    shift = own_node_shift(support)
    for i in range(6):
        rest = (y == y[i]) & (np.arange(7) != i)
        mean = np.average(X[y == y[i]], axis=0, weights=w[y == y[i]])
        without = np.average(X[rest], axis=0, weights=w[rest])
        np.testing.assert_allclose(shift[i], (without - mean) / np.linalg.norm(mean), atol=1e-12)
    np.testing.assert_array_equal(shift[6], 0)  # the only row of its class


def test_text_logits_of_prototypes_lack_the_rows_own_share(support: Support) -> None:
    X, y, w = support.X, support.y, support.sample_weight
    means = torch.tensor(unit_rows(support.visual))
    got = support_text_logits(
        torch.tensor(X), torch.tensor(y), means, 3.0, torch.tensor(own_node_shift(support))
    )
    for i, x in enumerate(X[:6]):
        for c in range(C):
            rows = (y == c) & (np.arange(7) != i)
            mean = unit_rows(np.average(X[rows], axis=0, weights=w[rows]))
            assert got[i, c].item() == pytest.approx(3.0 * x @ mean)


def test_first_loss_is_that_of_the_fused_logits(support: Support) -> None:
    visual = np.random.default_rng(1).normal(size=(7, C))
    logits = 0.5 * 10.0 * support.X @ support.positive.T + visual
    rows = -log_softmax(logits, axis=1)[np.arange(7), support.y]
    curve = train(support, visual_logits=visual, penalty=3.0)[2]  # nothing has moved yet
    assert curve[0] == pytest.approx(np.average(rows, weights=support.sample_weight), rel=1e-5)
    assert len(curve) == 20


def test_training_lowers_the_loss_and_the_penalty_holds_it_back(support: Support) -> None:
    free, _, curve = train(support, n_epochs=60)
    held, _, _ = train(support, n_epochs=60, penalty=100.0)
    assert curve[-1] < curve[0] - 0.02
    start = support.positive
    assert np.abs(held - start).max() < 0.3 * np.abs(free - start).max()


def test_no_steps_leave_the_nodes(support: Support) -> None:
    P, N, curve = train(support, n_epochs=0)
    np.testing.assert_allclose(P, support.positive, atol=1e-6)
    np.testing.assert_allclose(N, support.negative, atol=1e-6)
    assert curve == []


def test_a_large_support_takes_batches(support: Support, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOGITS_PER_STEP", 3 * C)
    assert len(train(support, n_epochs=4)[2]) == 4 * 3
