"""What adaptation moved: class means before, visual nodes after, and where the text pulls them."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.utils import check_scalar

from skhegraph.inspection.steps import axes_or_new, final_classifier
from skhegraph.support import Floats


class AdaptationDisplay:
    """Map of the visual nodes before and after adaptation, and of what their text says.

    The text node of class c, sent along positive -> visual, says that the images of the class are
    about `m0 + rho t_c` (:mod:`skhegraph.hegraph`, step 1). That prediction, the class mean `V_c`
    and the adapted node `V'_c` are points of one space, of which the picture shows the two
    directions with the largest variance. A dotted line joins what the text says with the class
    mean: an arrow along it is a movement towards the text. A class with a name alone has no mean:
    it stays where text and other classes put it. What training adds to the text nodes is no
    movement of a visual node and not in the picture.

    Parameters
    ----------
    before, after : ndarray of shape (n_classes, n_features)
        Class means and adapted visual nodes.
    text : ndarray of shape (n_classes, n_features) or None
        Predictions of the text; None where it says nothing.
    class_names : sequence of str
        Names of the classes.

    Attributes
    ----------
    before, after, text, class_names
        As given.
    moved : ndarray of shape (n_classes,)
        Distance from class mean to adapted node, in units of the mean distance of a class mean
        from the centre of all.
    toward_text : ndarray of shape (n_classes,) or None
        Cosine between the movement and the direction from class mean to the prediction of the
        text: 1 is straight to it. None without text.
    ax_ : matplotlib Axes
        Axes with the map.
    figure_ : matplotlib Figure
        Figure that holds it.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_iris
    >>> from skhegraph import HeGraphClassifier
    >>> from skhegraph.inspection import AdaptationDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = HeGraphClassifier(text_features="prototypes").fit(X[::5], y[::5])
    >>> AdaptationDisplay.from_estimator(clf).moved.shape
    (3,)
    """

    def __init__(
        self, before: Floats, after: Floats, text: Floats | None, class_names: Sequence[str]
    ) -> None:
        self.before = before
        self.after = after
        self.text = text
        self.class_names = class_names
        spread = np.linalg.norm(before - before.mean(axis=0), axis=1).mean()
        distance = np.linalg.norm(after - before, axis=1)
        self.moved = distance / spread if spread > 0 else distance
        self.toward_text = None if text is None else _cosines(after - before, text - before)

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, n_labels: int = 30, ax: Any = None
    ) -> AdaptationDisplay:
        """Read the nodes of a fitted classifier and draw them.

        Parameters
        ----------
        estimator : HeGraphClassifier, or Pipeline that ends with one
            Fitted estimator.
        n_labels : int, default=30
            Classes to name: those that moved most. A name without a place is left out.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        AdaptationDisplay
            The display, drawn.
        """
        clf = final_classifier(estimator)
        before, after = (
            nodes.astype(np.float64) for nodes in (clf.graph_["visual"], clf.visual_nodes_)
        )
        text = None
        if clf.positive_to_visual_ > 0:
            P = clf.graph_["positive"].astype(np.float64)
            centre = P[clf._with_images()].mean(axis=0)
            text = clf.visual_centre_ + clf.positive_to_visual_ * (P - centre)
        names = [str(label) for label in clf.classes_]
        return cls(before, after, text, names).plot(n_labels=n_labels, ax=ax)

    def plot(self, *, n_labels: int = 30, ax: Any = None) -> AdaptationDisplay:
        """Draw.

        Parameters
        ----------
        n_labels : int, default=30
            Classes to name: those that moved most. A name without a place is left out.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        AdaptationDisplay
            Itself.
        """
        check_scalar(n_labels, "n_labels", Integral, min_val=0)
        ax = axes_or_new("AdaptationDisplay.plot", ax, (8.0, 6.0))
        self.ax_, self.figure_ = ax, ax.figure
        nodes = [self.before, self.after] + ([] if self.text is None else [self.text])
        pca = PCA(2, svd_solver="full").fit(np.vstack(nodes))
        before, after, *text = (pca.transform(points) for points in nodes)
        for points in text:
            _tie(ax, points, before)
            label = "what the text says (dotted line: of which class)"
            ax.scatter(*points.T, marker="^", color="#0072B2", s=34, label=label)
        ax.scatter(
            *before.T, facecolor="white", edgecolor="#E69F00", s=42, label="class mean (before)"
        )
        ax.scatter(*after.T, color="#E69F00", s=42, label="visual node (after)", zorder=3)
        for start, end in zip(before, after, strict=True):
            arrow = {"arrowstyle": "-|>", "color": "black", "linewidth": 0.9}
            ax.annotate("", end, start, arrowprops=arrow)
        shares = 100 * pca.explained_variance_ratio_
        ax.set(
            xlabel=f"first principal direction ({shares[0]:.0f} % of the variance)",
            ylabel=f"second principal direction ({shares[1]:.0f} %)",
            title=f"Visual nodes moved by {100 * self.moved.mean():.0f} % of their spread",
        )
        ax.margins(0.18, 0.1)
        ax.set_aspect("equal", adjustable="datalim")
        ax.legend(fontsize=8)
        most = np.argsort(-self.moved, kind="stable")[:n_labels]
        _name_points(ax, before[most], after[most], [self.class_names[c] for c in most])
        return self


def _tie(ax: Any, points: Floats, others: Floats) -> None:
    """Dotted lines from each point to the other of its class: names would lie in one heap."""
    ends = np.stack([points, others], axis=1)
    for end in ends:
        ax.plot(*end.T, ":", color="#0072B2", linewidth=1, alpha=0.6, zorder=0)


def _name_points(ax: Any, before: Floats, after: Floats, names: Sequence[str]) -> None:
    """Name arrows at their start; leave out a name that has no place beside the others."""
    ax.figure.draw_without_rendering()  # sets the limits of the axes
    taken: list[Any] = []
    for start, end, name in zip(before, after, names, strict=True):
        away = start - end
        x, y = away / (np.linalg.norm(away) or 1.0)
        for direction in ((x, y), (y, -x), (-y, x)):
            text = _annotate(ax, name, start, direction)
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def _annotate(ax: Any, name: str, point: Floats, direction: tuple[float, float]) -> Any:
    """Write a name beside a point, in that direction."""
    x, y = direction
    return ax.annotate(
        name,
        point,
        (8 * x, 8 * y),
        textcoords="offset points",
        fontsize=8,
        ha="left" if x > 0.3 else "right" if x < -0.3 else "center",
        va="bottom" if y > 0.3 else "top" if y < -0.3 else "center",
    )


def _cosines(a: Floats, b: Floats) -> Floats:
    """Cosines of the rows; 0 where a row is zero."""
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.where(length > 0, length, 1)
