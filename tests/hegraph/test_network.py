"""Messages of the network against Eq. 1-6 in plain float64 loops."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch

from skhegraph.hegraph.graph import build_graph
from skhegraph.hegraph.network import HeteroGraphNetwork, PathWeights

C, D = 5, 4
PATHS = PathWeights(0.5, 0.4, 0.06, 0.24, 0.2, 0.3)
Nodes = dict[str, np.ndarray]
Matrices = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture
def nodes() -> Nodes:
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=(C, D)) for name in ("positive", "negative", "visual")}


@pytest.fixture
def matrices() -> Matrices:
    rng = np.random.default_rng(2)
    W_n, W_p, W_v = (rng.normal(size=(D, D)) for _ in range(3))
    return W_n, W_p, W_v


def relation(target: np.ndarray, source: np.ndarray, same_class: float) -> np.ndarray:
    """Cosines of the initial nodes, the same class times `same_class`."""
    R = np.empty((C, C))
    for i, x in enumerate(target):
        for j, y in enumerate(source):
            R[i, j] = x @ y / sqrt((x @ x) * (y @ y)) * (same_class if i == j else 1.0)
    return R


def message(
    R: np.ndarray, W: np.ndarray, x: np.ndarray, y: np.ndarray, self_term: bool = True
) -> np.ndarray:
    d, e = np.abs(R).sum(axis=1), np.abs(R).sum(axis=0)
    out = np.zeros((C, D))
    for i in range(C):
        if self_term:
            out[i] = W @ x[i] / (d[i] + 1)
        for j in range(C):
            out[i] += R[i, j] / sqrt((d[i] + 1) * (e[j] + 1)) * (W @ y[j])
    return np.tanh(out)


def by_hand(nodes: Nodes, w: PathWeights, W: Matrices) -> tuple[np.ndarray, ...]:
    """`P'`, `N'` and `g B`."""
    P, N, V = nodes["positive"], nodes["negative"], nodes["visual"]
    W_n, W_p, W_v = W
    N_new = (
        N
        + w.positive_to_negative * message(relation(N, P, -1), W_n, N, P)
        + w.visual_to_negative * message(relation(N, V, -1), W_n, N, V)
    )
    P_new = (
        P
        + w.positive_to_positive * message(relation(P, P, 0), W_p, P, P)
        + w.visual_to_positive * message(relation(P, V, 1), W_p, P, V)
        + w.negative_to_positive * message(relation(P, N, -1), W_p, P, N_new)
    )
    B = message(relation(V, V, 0), W_v, V, V, self_term=False)
    return P_new, N_new, w.visual_to_visual * B


def network(
    nodes: Nodes, W: Matrices, paths: PathWeights = PATHS, top_k: int | None = None
) -> HeteroGraphNetwork:
    return HeteroGraphNetwork(build_graph(nodes, top_k), paths, W, "cpu")


def outputs(net: HeteroGraphNetwork) -> list[np.ndarray]:
    parts = net.positives(), net.negatives(), net.visual_shift()
    return [part.detach().numpy() for part in parts]


@pytest.mark.parametrize("top_k", [None, C])
def test_one_pass_equals_equations_1_to_6(
    nodes: Nodes, matrices: Matrices, top_k: int | None
) -> None:
    expected = by_hand(nodes, PATHS, matrices)
    for got, want in zip(outputs(network(nodes, matrices, top_k=top_k)), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("name", PathWeights._fields)
def test_weight_zero_drops_the_relation(
    nodes: Nodes, matrices: Matrices, name: str, top_k: int | None
) -> None:
    paths = PATHS._replace(**{name: 0.0})
    zeroed = network(nodes, matrices, paths, top_k)
    want = by_hand(nodes, paths, matrices)
    if top_k is None:
        for got, expected in zip(outputs(zeroed), want, strict=True):
            np.testing.assert_allclose(got, expected, atol=2e-6)
    # The relation's edges are not read: poison them, and what was gathered over them.
    key = tuple(name.split("_to_"))
    before = outputs(zeroed)
    if name != "visual_to_visual":
        R, self_weight = zeroed.edges[key]
        zeroed.edges[key] = (R * float("nan"), self_weight * float("nan"))
        zeroed.gathered[key] = torch.full((C, D), float("nan"))
    for got, expected in zip(outputs(zeroed), before, strict=True):
        np.testing.assert_array_equal(got, expected)
    # With its weight the relation counts.
    full = outputs(network(nodes, matrices, PATHS, top_k))
    assert max(np.abs(a - b).max() for a, b in zip(full, before, strict=True)) > 1e-3


def test_zero_matrices_change_nothing(nodes: Nodes) -> None:
    zero = np.zeros((D, D))
    P, N, shift = outputs(network(nodes, (zero, zero, zero)))
    np.testing.assert_array_equal(P, nodes["positive"].astype(np.float32))
    np.testing.assert_array_equal(N, nodes["negative"].astype(np.float32))
    np.testing.assert_array_equal(shift, 0)


def test_positives_see_the_new_negatives(nodes: Nodes, matrices: Matrices) -> None:
    """W_n reaches P' through n->p and through nothing else."""
    W_n, W_p, W_v = matrices
    other = (2 * W_n, W_p, W_v)
    P, P_other = (outputs(network(nodes, W))[0] for W in (matrices, other))
    assert np.abs(P - P_other).max() > 1e-3
    deaf = PATHS._replace(negative_to_positive=0.0)
    P, P_other = (outputs(network(nodes, W, deaf))[0] for W in (matrices, other))
    np.testing.assert_array_equal(P, P_other)


@pytest.mark.parametrize("override", [0.0, 0.7])
def test_negative_to_positive_override(nodes: Nodes, matrices: Matrices, override: float) -> None:
    P = network(nodes, matrices).positives(override).detach().numpy()
    want = by_hand(nodes, PATHS._replace(negative_to_positive=override), matrices)[0]
    np.testing.assert_allclose(P, want, atol=2e-6)


def test_top_k_equals_the_pruned_dense_graph(nodes: Nodes, matrices: Matrices) -> None:
    """Degrees are those of the kept edges."""
    R = build_graph(nodes, 2)["visual", "to", "visual"].adj.to_dense().numpy()
    W_v, V = matrices[2], nodes["visual"]
    want = 0.3 * message(R, W_v, V, V, self_term=False)
    np.testing.assert_allclose(outputs(network(nodes, matrices, top_k=2))[2], want, atol=2e-6)


@pytest.mark.parametrize("which", [0, 1, 2], ids=["W_n", "W_p", "W_v"])
@pytest.mark.parametrize("top_k", [None, C])
def test_gradient_against_finite_differences(
    nodes: Nodes, matrices: Matrices, which: int, top_k: int | None
) -> None:
    rng = np.random.default_rng(3)
    probes = [rng.normal(size=(C, D)) for _ in range(3)]

    def value(W: Matrices) -> float:
        parts = by_hand(nodes, PATHS, W)
        return sum(float((a * b).sum()) for a, b in zip(probes, parts, strict=True))

    def moved(step: float) -> Matrices:
        W = [M.copy() for M in matrices]
        W[which][1, 2] += step
        return W[0], W[1], W[2]

    net = network(nodes, matrices, top_k=top_k)
    parts = net.positives(), net.negatives(), net.visual_shift()
    loss = sum((torch.as_tensor(a) * b).sum() for a, b in zip(probes, parts, strict=True))
    loss.backward()
    gradient = (net.W_n, net.W_p, net.W_v)[which].grad[1, 2].item()
    difference = (value(moved(1e-5)) - value(moved(-1e-5))) / 2e-5
    assert abs(difference) > 1e-3
    np.testing.assert_allclose(gradient, difference, rtol=1e-3)


def test_only_the_three_matrices_train(nodes: Nodes, matrices: Matrices) -> None:
    names = {name: p.shape for name, p in network(nodes, matrices).named_parameters()}
    assert names == {"W_n": (D, D), "W_p": (D, D), "W_v": (D, D)}


def test_adapted_nodes_are_numpy_arrays_in_double_precision(
    nodes: Nodes, matrices: Matrices
) -> None:
    parts = network(nodes, matrices).adapted(0.7)
    want = by_hand(nodes, PATHS._replace(negative_to_positive=0.7), matrices)
    for got, expected in zip(parts, want, strict=True):
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, expected, atol=2e-6)
