"""The graph's picture: edges against cosines worked out here, order, and many classes."""

from __future__ import annotations

import numpy as np
import pytest

from skhegraph.inspection import GraphDisplay
from skhegraph.inspection.graph import node_angles, similarity_order, strongest_edges


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_edges_are_the_strongest_of_each_relation(make_classifier):
    clf = make_classifier(5)
    edges = strongest_edges(clf.to_hetero_data(), 4)
    relations = {(e.source_type, e.target_type) for e in edges}
    assert len(relations) == 6 and len(edges) == 24
    same_class = {("positive", "positive"): 0, ("visual", "visual"): 0, ("visual", "positive"): 1}
    for source_type, target_type in relations:
        sign = same_class.get((source_type, target_type), -1)
        source, target = clf.graph_[source_type], clf.graph_[target_type]
        R = np.array([[cosine(t, s) for s in source] for t in target], dtype=float)
        R[np.diag_indices(5)] *= sign
        mine = [e for e in edges if (e.source_type, e.target_type) == (source_type, target_type)]
        np.testing.assert_allclose(
            [e.weight for e in mine], [R[e.target, e.source] for e in mine], atol=1e-6
        )
        np.testing.assert_allclose(
            np.abs([e.weight for e in mine]), np.sort(np.abs(R).ravel())[::-1][:4], atol=1e-6
        )


def test_similar_classes_are_neighbours():
    nodes = np.array([[1, 0, 0], [0, 1, 0], [1, 0.1, 0], [0, 1, 0.1], [1, 0, 0.1]])
    order = list(similarity_order(nodes))
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert np.ptp([order.index(c) for c in (0, 2, 4)]) == 2
    assert abs(order.index(1) - order.index(3)) == 1


def test_arcs_do_not_overlap():
    angles = np.concatenate(list(node_angles(np.arange(50)).values()))
    gaps = np.diff(np.sort(np.rad2deg(angles) % 360))
    assert gaps.min() > 1.9
    assert (gaps > 10).sum() >= 2  # between the arcs


def test_every_node_is_drawn_and_named(make_classifier):
    display = GraphDisplay.from_estimator(make_classifier(4), n_edges=3)
    texts = [t.get_text() for t in display.ax_.texts]
    assert sorted(texts) == sorted([f"class {c:02d}" for c in range(4)] * 3)
    assert len(display.ax_.patches) == len(display.edges) == 18
    dashed = [p.get_linestyle() not in ("-", "solid") for p in display.ax_.patches]
    assert sum(dashed) == sum(e.weight < 0 for e in display.edges)


@pytest.mark.parametrize("n_classes", [2, 100])
def test_names_lie_within_the_axes(make_classifier, n_classes):
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=(9, 9))  # no layout that makes room for them
    clf = make_classifier(n_classes, n_features=40, shots=1)
    display = GraphDisplay.from_estimator(clf, ax=ax)
    display.figure_.canvas.draw()
    whole = ax.get_window_extent().padded(0.02 * ax.bbox.width)
    for text in display.ax_.texts:
        box = text.get_window_extent()
        assert whole.contains(box.x0, box.y0) and whole.contains(box.x1, box.y1), text.get_text()


def test_what_is_refused(make_classifier):
    with pytest.raises(ValueError, match="n_edges"):
        GraphDisplay.from_estimator(make_classifier(), n_edges=0)
