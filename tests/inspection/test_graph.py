"""The graph's picture: edges against cosines worked out here, order, and many classes."""

from __future__ import annotations

import numpy as np
import pytest

from skhegraph.inspection import GraphDisplay
from skhegraph.inspection.graph import node_angles, similarity_order, strongest_edges


def test_edges_are_the_strongest_of_each_relation(make_classifier):
    clf = make_classifier(5)
    data = clf.to_hetero_data()
    edges = strongest_edges(data, 4)
    relations = {(e.source_type, e.target_type) for e in edges}
    assert len(relations) == 7 and len(edges) == 28
    for source, target in relations:
        store = data[source, "to", target]
        whole = {
            (int(i), int(j)): float(w)
            for (i, j), w in zip(store.edge_index.numpy().T, store.edge_weight, strict=True)
        }
        mine = [e for e in edges if (e.source_type, e.target_type) == (source, target)]
        assert [e.weight for e in mine] == [whole[e.source, e.target] for e in mine]
        strongest = np.sort(np.abs(list(whole.values())))[::-1][:4]
        np.testing.assert_array_equal(np.abs([e.weight for e in mine]), strongest)


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
    assert len(display.ax_.patches) == len(display.edges) == 21
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
