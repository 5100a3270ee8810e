"""The heterogeneous graph as a picture: three kinds of nodes on a circle, the relations in it."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from sklearn.utils import check_scalar

from skhegraph.inspection.steps import axes_or_new, final_classifier
from skhegraph.support import Floats, Ints, unit_rows

#: Where on the circle each kind of node has its arc (degrees, centre of the arc).
ARCS = {"positive": 90.0, "negative": -30.0, "visual": 210.0}
NODE_COLORS = {"positive": "#0072B2", "negative": "#D55E00", "visual": "#E69F00"}
#: A colour for each relation, and how far from the centre its edges pass: less far than a straight
#: line, by this share for edges as long as the radius. Two relations join the same nodes.
RELATION_STYLES = {
    ("positive", "negative"): ("#CC79A7", 0.6),
    ("visual", "negative"): ("#D55E00", 0.5),
    ("positive", "positive"): ("#0072B2", 0.5),
    ("visual", "positive"): ("#009E73", 0.5),
    ("negative", "positive"): ("#56B4E9", 0.3),
    ("visual", "visual"): ("#E69F00", 0.5),
    ("positive", "visual"): ("#000000", 0.3),
}
#: Degrees between two arcs.
GAP = 14.0


class Edge(NamedTuple):
    """A directed edge between the nodes of two classes.

    Attributes
    ----------
    source_type, target_type : str
        ``"positive"``, ``"negative"`` or ``"visual"``.
    source, target : int
        Indices into the classes.
    weight : float
        Edge times the strength with which its relation acted.
    """

    source_type: str
    source: int
    target_type: str
    target: int
    weight: float


class GraphDisplay:
    """The graph of a fitted classifier, with the strongest edges of each relation that acted.

    Every class has a positive-text, a negative-text and a visual node. Nodes lie on a circle, one
    arc for each kind, classes with similar text beside each other. The colour of an edge is its
    relation, its width the strength among the edges drawn of that relation, of which the legend
    tells the greatest; dashed edges are negative.

    Parameters
    ----------
    edges : list of Edge
        Edges to draw.
    class_names : sequence of str
        Names of the classes.
    order : ndarray of shape (n_classes,)
        Classes in the order along the arcs.

    Attributes
    ----------
    edges, class_names, order
        As given.
    ax_ : matplotlib Axes
        Axes with the graph.
    figure_ : matplotlib Figure
        Figure that holds it.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_iris
    >>> from skhegraph import HeGraphClassifier
    >>> from skhegraph.inspection import GraphDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = HeGraphClassifier(text_features="prototypes").fit(X[::5], y[::5])
    >>> display = GraphDisplay.from_estimator(clf, n_edges=2)
    >>> {(edge.source_type, edge.target_type) for edge in display.edges}
    {('visual', 'positive')}
    """

    def __init__(self, edges: list[Edge], class_names: Sequence[str], order: Ints) -> None:
        self.edges = edges
        self.class_names = class_names
        self.order = order

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, n_edges: int | None = None, ax: Any = None
    ) -> GraphDisplay:
        """Read the graph of a fitted classifier and draw it (imports torch).

        Parameters
        ----------
        estimator : HeGraphClassifier, or Pipeline that ends with one
            Fitted estimator.
        n_edges : int or None, default=None
            Edges of each relation, the strongest by absolute weight; None takes the number of
            classes, 40 at most.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        GraphDisplay
            The display, drawn.
        """
        clf = final_classifier(estimator)
        if n_edges is None:
            n_edges = min(len(clf.classes_), 40)
        check_scalar(n_edges, "n_edges", Integral, min_val=1)
        names = [str(label) for label in clf.classes_]
        order = similarity_order(clf.graph_["positive"])
        return cls(strongest_edges(clf.to_hetero_data(), n_edges), names, order).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> GraphDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        GraphDisplay
            Itself.
        """
        n_classes = len(self.class_names)
        side = float(np.clip(6.0 + 0.06 * n_classes, 7.0, 14.0))
        ax = axes_or_new("GraphDisplay.plot", ax, (side, side))
        self.ax_, self.figure_ = ax, ax.figure
        side = min(ax.figure.get_size_inches())
        size = float(np.clip(44.0 * side / n_classes, 4.0, 10.0))
        ax.set_aspect("equal")
        ax.set_axis_off()
        angles = node_angles(self.order)
        strongest = {
            kind: max(abs(e.weight) for e in self.edges if (e.source_type, e.target_type) == kind)
            for kind in {(e.source_type, e.target_type) for e in self.edges}
        }
        for edge in sorted(self.edges, key=lambda e: abs(e.weight)):
            _draw_edge(ax, edge, angles, strongest[edge.source_type, edge.target_type])
        _draw_nodes(ax, angles, self.class_names, size)
        _draw_legend(ax, self.edges)
        # Room for the names: about 0.6 of the font size a letter, 72 points an inch.
        longest = max(map(len, self.class_names)) * 0.6 * size / 72
        limit = 1.05 / max(1 - 2 * longest / side, 0.4)
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit))
        return self


def similarity_order(nodes: Floats) -> Ints:
    """Classes in an order in which similar ones are neighbours (leaves of average linkage)."""
    if len(nodes) < 3:
        return np.arange(len(nodes))
    tree = linkage(unit_rows(nodes.astype(np.float64)), "average", optimal_ordering=True)
    return leaves_list(tree).astype(np.intp)


def strongest_edges(graph: Any, n_edges: int) -> list[Edge]:
    """Return the `n_edges` strongest edges of each relation of a `HeteroData` with edge lists."""
    found = []
    for source_type, name, target_type in graph.edge_types:
        relation = graph[source_type, name, target_type]
        weight = relation.edge_weight.numpy()
        sources, targets = relation.edge_index.numpy()
        for k in np.argsort(-np.abs(weight), kind="stable")[:n_edges]:
            found.append(
                Edge(source_type, int(sources[k]), target_type, int(targets[k]), float(weight[k]))
            )
    return found


def node_angles(order: Ints) -> dict[str, Floats]:
    """Angle (radians) of the node of each class, for each kind of node."""
    n_classes = len(order)
    width = 120.0 - GAP
    along = (np.arange(n_classes) + 0.5) / n_classes - 0.5
    angles: dict[str, Floats] = {}
    for kind, middle in ARCS.items():
        angles[kind] = np.empty(n_classes)
        angles[kind][order] = np.deg2rad(middle - width * along)
    return angles


def _draw_edge(ax: Any, edge: Edge, angles: dict[str, Floats], strongest: float) -> None:
    """Draw an edge as an arrow that bends towards the centre."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    color, bend = RELATION_STYLES[edge.source_type, edge.target_type]
    ends = [angles[edge.source_type][edge.source], angles[edge.target_type][edge.target]]
    points = np.column_stack([np.cos(ends), np.sin(ends)]) * 0.97
    length = float(np.linalg.norm(points[0] - points[1]))
    middle = (1 - bend * min(length, 1.0)) * points.mean(axis=0)
    strength = abs(edge.weight) / strongest if strongest else 0.0
    ax.add_patch(
        FancyArrowPatch(
            path=Path([points[0], middle, points[1]], [Path.MOVETO, Path.CURVE3, Path.CURVE3]),
            arrowstyle="-|>",
            mutation_scale=5,
            color=color,
            alpha=0.35 + 0.55 * strength,
            linewidth=0.4 + 1.4 * strength**2,
            linestyle="--" if edge.weight < 0 else "-",
        )
    )


def _draw_nodes(ax: Any, angles: dict[str, Floats], names: Sequence[str], size: float) -> None:
    """Draw nodes and names; names stand along the radius, readable from the left."""
    for kind, positions in angles.items():
        x, y = np.cos(positions), np.sin(positions)
        ax.scatter(x, y, s=4 * size, color=NODE_COLORS[kind], edgecolor="white", zorder=3)
        for angle, name in zip(positions, names, strict=True):
            degrees = np.rad2deg(angle) % 360
            left = 90 < degrees < 270
            ax.text(
                1.03 * np.cos(angle),
                1.03 * np.sin(angle),
                name,
                fontsize=size,
                rotation=degrees - 180 if left else degrees,
                rotation_mode="anchor",
                ha="right" if left else "left",
                va="center",
            )


def _draw_legend(ax: Any, edges: list[Edge]) -> None:
    """Explain colours and dashes."""
    from matplotlib.lines import Line2D

    nodes: list[Any] = [
        Line2D([], [], marker="o", linestyle="", color=NODE_COLORS[kind], label=f"{kind} node")
        for kind in ARCS
    ]
    strongest: dict[tuple[str, str], float] = {}
    for e in edges:
        kind = (e.source_type, e.target_type)
        strongest[kind] = max(strongest.get(kind, 0.0), abs(e.weight))
    lines = [
        Line2D(
            [],
            [],
            color=color,
            label=f"{source} \N{RIGHTWARDS ARROW} {target} ({strongest[source, target]:.2g})",
        )
        for (source, target), (color, _) in RELATION_STYLES.items()
        if (source, target) in strongest
    ]
    if any(e.weight < 0 for e in edges):
        lines.append(Line2D([], [], color="black", linestyle="--", label="negative weight"))
    ax.legend(
        handles=nodes + lines,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=4,
        frameon=False,
        fontsize=8,
        columnspacing=1.2,
        handlelength=1.5,
    )
