"""Edges of the graph: weights, same-class rules, normalisation, sparsity, HeteroData."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from skhegraph.hegraph.graph import (
    RELATIONS,
    build_graph,
    edge_lists,
    edge_weights,
    normalise,
)

# Cosines by hand: (3, 4) and (0, 2) have 0.8, (3, 4) and (5, 0) have 0.6, (0, 2) and (5, 0) have 0.
TARGET = np.array([[3.0, 4.0], [0.0, 2.0]])
SOURCE = np.array([[5.0, 0.0], [0.0, 7.0]])


@pytest.fixture
def nodes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(6, 4)) for name in ("positive", "negative", "visual")}


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(sum(a * b) / np.sqrt(sum(a * a) * sum(b * b)))


@pytest.mark.parametrize(
    ("diagonal", "expected"),
    [
        ("keep", [[0.6, 0.8], [0.0, 1.0]]),
        ("flip", [[-0.6, 0.8], [0.0, -1.0]]),
        ("drop", [[0.0, 0.8], [0.0, 0.0]]),
    ],
)
def test_edge_weights_by_hand_rows_are_targets(diagonal: str, expected: list[list[float]]) -> None:
    np.testing.assert_allclose(edge_weights(TARGET, SOURCE, diagonal), expected, atol=1e-15)


def test_edge_weights_leave_the_nodes_alone() -> None:
    before = TARGET.copy()
    edge_weights(TARGET, TARGET, "drop")
    np.testing.assert_array_equal(TARGET, before)


def test_same_class_rule_of_every_relation(nodes: dict[str, np.ndarray]) -> None:
    """Relations touching N flip, p->p and v->v drop, v->p keeps."""
    sign = {
        ("positive", "negative"): -1,
        ("visual", "negative"): -1,
        ("positive", "positive"): 0,
        ("visual", "positive"): 1,
        ("negative", "positive"): -1,
        ("visual", "visual"): 0,
    }
    graph = build_graph(nodes)
    assert set(graph.edge_types) == {(source, "to", target) for source, target in sign}
    for source, _, target in graph.edge_types:
        R = graph[source, "to", target].adj
        for i in range(6):
            for j in range(6):
                r = cosine(nodes[target][i], nodes[source][j])
                factor = sign[source, target] if i == j else 1
                np.testing.assert_allclose(R[i, j], factor * r, atol=1e-6)


def test_relations_are_ordered_negative_positive_visual() -> None:
    assert [r.target for r in RELATIONS] == ["negative"] * 2 + ["positive"] * 3 + ["visual"]


@pytest.mark.parametrize("sparse", [False, True])
def test_normalise_by_hand_with_row_and_column_degrees(sparse: bool) -> None:
    # Row degrees 3, 1, 8 and column degrees 1, 3, 8: with the row degree for both,
    # the entries (0, 1) and (1, 0) would be -3/sqrt(8) and 1/sqrt(8).
    R = torch.tensor([[0.0, -3.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 8.0]])
    scaled, self_weight = normalise(R.to_sparse() if sparse else R)
    assert scaled.is_sparse == sparse
    dense = scaled.to_dense()
    np.testing.assert_allclose(dense, [[0, -3 / 4, 0], [1 / 2, 0, 0], [0, 0, 8 / 9]])
    np.testing.assert_allclose(self_weight, [[1 / 4], [1 / 2], [1 / 9]])


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda r: f"{r.source}-{r.target}")
@pytest.mark.parametrize("top_k", [1, 3, 6])
def test_top_k_equals_the_masked_dense_edges(
    nodes: dict[str, np.ndarray], relation: tuple[str, str, str], top_k: int
) -> None:
    source, target, diagonal = relation
    dense = edge_weights(nodes[target], nodes[source], diagonal).numpy()
    masked = np.zeros_like(dense)
    for i, row in enumerate(dense):
        kept = sorted(range(6), key=lambda j: -abs(row[j]))[:top_k]
        masked[i, kept] = row[kept]
    sparse = edge_weights(nodes[target], nodes[source], diagonal, top_k)
    assert sparse.is_sparse
    assert sparse._nnz() == 6 * top_k
    np.testing.assert_allclose(sparse.to_dense(), masked, atol=1e-12)


def test_top_k_in_chunks_equals_one_piece(
    nodes: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = edge_weights(nodes["negative"], nodes["visual"], "flip", 3).to_dense()
    monkeypatch.setattr(
        "skhegraph.hegraph.graph.TARGETS_PER_CHUNK", 4
    )  # 6 targets: a full chunk and a part
    parts = edge_weights(nodes["negative"], nodes["visual"], "flip", 3).to_dense()
    np.testing.assert_allclose(parts, whole, atol=1e-12)


def test_edge_lists_hold_the_edges_between_the_classes_named(
    nodes: dict[str, np.ndarray],
) -> None:
    rng = np.random.default_rng(0)
    edges = {
        relation: csr_array(np.where(rng.random((3, 3)) < 0.6, rng.normal(size=(3, 3)), 0))
        for relation in (("positive", "visual"), ("visual", "visual"))
    }
    classes = np.array([0, 2, 5])
    data = edge_lists(nodes, edges, classes)
    assert data.validate(raise_on_error=True)
    assert set(data.node_types) == set(nodes)
    assert data.edge_types == [("positive", "to", "visual"), ("visual", "to", "visual")]
    for (source, target), weights in edges.items():
        store = data[source, "to", target]
        rebuilt = np.zeros((6, 6))
        from_node, to_node = store.edge_index.numpy()  # PyG: first row source, second target
        rebuilt[to_node, from_node] = store.edge_weight.numpy()
        np.testing.assert_allclose(rebuilt[np.ix_(classes, classes)], weights.toarray(), rtol=1e-6)
        assert store.edge_weight.numel() == weights.nnz


def test_changing_hetero_data_leaves_the_nodes_alone(nodes: dict[str, np.ndarray]) -> None:
    nodes = {name: x.astype(np.float32) for name, x in nodes.items()}
    before = {name: x.copy() for name, x in nodes.items()}
    data = edge_lists(nodes, {}, np.arange(6))
    for name in nodes:
        data[name].x.zero_()
        np.testing.assert_array_equal(nodes[name], before[name])
