"""The graph among classes by loops, and that every relation drawn acts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from skhegraph import HeGraphClassifier
from skhegraph.hegraph import adaptation, messages
from skhegraph.hegraph.class_graph import NEIGHBOURS, POLARITY, Paths, received, similar_classes
from skhegraph.support import unit_rows

C, D = 8, 6
RNG = np.random.default_rng(0)
P, N, V = (RNG.normal(size=(C, D)) for _ in range(3))


def neighbours(nodes: np.ndarray) -> np.ndarray:
    """Edges by loops."""
    centred = unit_rows(nodes - nodes.mean(axis=0))
    A = np.zeros((len(nodes), len(nodes)))
    for i in range(len(nodes)):
        cosines = {j: centred[i] @ centred[j] for j in range(len(nodes)) if j != i}
        best = sorted(cosines, key=lambda j: -cosines[j])[:NEIGHBOURS]
        for j in best:
            A[i, j] = max(cosines[j], 0)
        A[i] /= A[i].sum() or 1
    return A


@pytest.mark.parametrize("n_classes", [2, 3, C, 40])
def test_edges_join_classes_that_are_alike(n_classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = np.random.default_rng(1).normal(size=(n_classes, D))
    monkeypatch.setattr("skhegraph.parallel.ROWS_AT_ONCE", 16)
    np.testing.assert_allclose(similar_classes(nodes).toarray(), neighbours(nodes), atol=1e-12)


def test_what_a_node_receives_by_loops() -> None:
    def unit(nodes: np.ndarray) -> np.ndarray:
        nodes = nodes - nodes.mean(axis=0)
        return nodes / np.sqrt(np.mean(np.square(nodes).sum(axis=1)))

    A, paths = neighbours(P), Paths(0.5, 0.7, 0.3)
    shift = RNG.normal(size=(5, D))
    p, n, v = unit(P), unit(N), unit(V)
    opposed = -(n - POLARITY * p - POLARITY * v)
    want, of_shift = np.zeros((C, D)), 0.0
    size = np.sqrt(np.mean(np.square(V - V.mean(axis=0)).sum(axis=1)))
    for weight, nodes, part in ((0.5, p, 0.0), (0.7, v, 1.0), (0.3, opposed, POLARITY)):
        message = np.array([nodes[i] + sum(A[i, j] * nodes[j] for j in range(C)) for i in range(C)])
        length = np.sqrt(np.mean(np.square(message).sum(axis=1)))
        want += weight * message / length
        of_shift += weight * part / length / size
    got = received(P, N, V, shift.copy(), csr_array(A), paths)
    np.testing.assert_allclose(got.nodes, want, atol=1e-12)
    np.testing.assert_allclose(got.held_out_shift, of_shift * shift, atol=1e-12)


def test_equal_nodes_send_nothing() -> None:
    same = np.ones((C, D))
    got = received(same, same, same, np.ones((3, D)), similar_classes(same), Paths(1.0, 1.0, 1.0))
    assert not got.nodes.any() and not got.held_out_shift.any()


Y = np.repeat(np.arange(C), 4)
X = unit_rows(P)[Y] + 0.7 * np.random.default_rng(3).normal(size=(len(Y), D))
QUERIES = RNG.normal(size=(20, D))


def fitted(**params: Any) -> HeGraphClassifier:
    return HeGraphClassifier(text_features=(P, N), logit_scale=10.0, **params).fit(X, Y)


DRAWN = {
    ("positive", "to", "visual"),
    ("visual", "to", "visual"),
    ("positive", "to", "negative"),
    ("visual", "to", "negative"),
    ("positive", "to", "positive"),
    ("visual", "to", "positive"),
    ("negative", "to", "positive"),
}


def test_all_relations_are_drawn_by_default_and_off_is_off() -> None:
    given = {"positive_to_visual": 0.4, "visual_to_visual": 1.0}
    assert set(fitted(**given).to_hetero_data().edge_types) == DRAWN
    for name in (*given, "positive_to_positive", "visual_to_positive"):
        source, target = name.split("_to_")
        drawn = set(fitted(**{**given, name: 0.0}).to_hetero_data().edge_types)
        assert drawn == DRAWN - {(source, "to", target)}
    without = {kind for kind in DRAWN if "negative" not in kind}
    drawn = fitted(**given, negative_to_positive=0.0).to_hetero_data().edge_types
    assert set(drawn) == without


@pytest.mark.parametrize(
    "name",
    [
        "positive_to_visual",
        "visual_to_visual",
        "positive_to_positive",
        "visual_to_positive",
        "negative_to_positive",
    ],
)
def test_every_strength_acts_over_its_range(name: str) -> None:
    """No dead region: every value gives other probabilities."""
    answers = [
        fitted(**{name: value}).predict_proba(QUERIES) for value in (0.0, 0.1, 0.3, 1.0, 3.0)
    ]
    for one, other in pairwise(answers):
        assert np.abs(one - other).max() > 1e-6


def test_the_negative_nodes_act() -> None:
    other = HeGraphClassifier(text_features=(P, N[::-1]), logit_scale=10.0).fit(X, Y)
    assert np.abs(fitted().predict_proba(QUERIES) - other.predict_proba(QUERIES)).max() > 1e-6


def test_changing_an_edge_into_the_text_nodes_changes_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = fitted().predict_proba(QUERIES)

    def without_one(nodes: np.ndarray) -> csr_array:
        edges = similar_classes(nodes)
        edges.data[0] = 0
        return edges

    monkeypatch.setattr(adaptation, "similar_classes", without_one)
    assert np.abs(fitted().predict_proba(QUERIES) - before).max() > 1e-7


def test_changing_the_edges_among_visual_nodes_changes_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = fitted(visual_to_visual=1.0).predict_proba(QUERIES)
    of_text = messages.Edges.of_text
    monkeypatch.setattr(
        messages.Edges, "of_text", lambda text: of_text(text * np.linspace(0.5, 2, C)[:, None])
    )
    after = fitted(visual_to_visual=1.0).predict_proba(QUERIES)
    assert np.abs(after - before).max() > 1e-7


def test_edges_drawn_are_those_gathered_times_their_strength() -> None:
    clf = fitted(positive_to_visual=0.4, visual_to_visual=2.0)
    data = clf.to_hetero_data()

    def dense(source: str, target: str) -> np.ndarray:
        store, edges = data[source, "to", target], np.zeros((C, C))
        from_node, to_node = store.edge_index.numpy()
        edges[to_node, from_node] = store.edge_weight.numpy()
        return edges

    unit = unit_rows(P)
    centred = unit - unit.mean(axis=0)
    into = np.eye(C) + neighbours(unit)
    K = centred @ centred.T * C / np.square(centred).sum()
    np.fill_diagonal(K, 0)
    share = np.sqrt(1 - 1 / 4)
    for (source, target), want in {
        ("positive", "visual"): 0.4 * np.eye(C),
        ("visual", "visual"): 2.0 * K,
        ("positive", "negative"): -0.5 * np.eye(C),
        ("visual", "negative"): -0.5 * np.eye(C),
        ("positive", "positive"): 0.25 * share * into,
        ("visual", "positive"): 1.5 * share * into,
        ("negative", "positive"): -0.1 * share * into,
    }.items():
        np.testing.assert_allclose(dense(source, target), want, atol=1e-6)


def test_one_shot_trains_no_matrix() -> None:
    clf = HeGraphClassifier(text_features=P).fit(X[::4], Y[::4])
    into_text = (clf.positive_to_positive_, clf.visual_to_positive_, clf.negative_to_positive_)
    assert into_text == (0, 0, 0)
    kinds = {target for _, _, target in clf.to_hetero_data().edge_types}
    assert kinds == {"visual"}
