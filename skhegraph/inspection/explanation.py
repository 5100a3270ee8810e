"""Why this answer: the frame of evidence for images, and its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from skhegraph.hegraph.evidence import PARTS
from skhegraph.inspection.steps import axes_or_new, features_of, final_classifier

if TYPE_CHECKING:
    import pandas as pd

#: Colours of the parts of the evidence, from a palette that the colour-blind can tell apart.
PART_COLORS = {"text": "#0072B2", "visual": "#E69F00", "residual": "#999999", "prior": "#CC79A7"}
#: Least length of the longer side of a thumbnail, in pixels; larger images are made this small.
THUMBNAIL = 160


def explain(estimator: Any, X: Any, *, n_classes: int = 3, n_support: int = 3) -> pd.DataFrame:
    """Tell what the predictions of a pipeline, or of its classifier, rest on.

    Parameters
    ----------
    estimator : HeGraphClassifier, or Pipeline that ends with one
        Fitted estimator.
    X : list of images, or array-like of shape (n_samples, n_features)
        What `estimator.predict` takes.
    n_classes : int, default=3
        Most probable classes to explain for each query.
    n_support : int, default=3
        Support rows to name for each class.

    Returns
    -------
    pandas.DataFrame
        One row per query and class; see :func:`skhegraph.hegraph.evidence.explain`.

    Raises
    ------
    TypeError
        If the classifier is another one.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from skhegraph import make_hegraph_pipeline
    >>> from skhegraph.inspection import explain
    >>> temple, flower = load_sample_images().images
    >>> pipe = make_hegraph_pipeline("skhegraph-tiny", device="cpu")
    >>> pipe = pipe.fit([temple, flower], ["temple", "flower"])
    >>> frame = explain(pipe, [flower[:300]], n_classes=1)
    >>> frame["support"][0]
    (1,)
    """
    clf = final_classifier(estimator)
    return clf.explain(features_of(estimator, X), n_classes, n_support)


class ExplanationDisplay:
    """Picture of what predictions rest on: query, evidence, and the weightiest support images.

    One row per query: the image and its most probable class; the evidence for the top classes,
    split into its parts; the support images that speak most for the first class, of those that
    `fit` kept.

    Parameters
    ----------
    explanation : pandas.DataFrame
        From :func:`explain`.
    images : sequence of images, or None, default=None
        The queries, in the order of the frame; None draws none.
    support_images : mapping from row number to image, or None, default=None
        The images that `explanation` names in its column ``support``.

    Attributes
    ----------
    explanation, images, support_images
        As given.
    ax_ : matplotlib Axes
        Axes that holds the panels.
    axes_ : list of dict
        For each query its panels: ``"query"``, ``"evidence"`` and ``"support"`` (a list).
    figure_ : matplotlib Figure
        Figure that holds it.

    See Also
    --------
    explain : The numbers.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_sample_images
    >>> from skhegraph import make_hegraph_pipeline
    >>> from skhegraph.inspection import ExplanationDisplay
    >>> photos = load_sample_images().images
    >>> pipe = make_hegraph_pipeline("skhegraph-tiny", device="cpu")
    >>> pipe = pipe.fit(photos, ["temple", "flower"])
    >>> display = ExplanationDisplay.from_estimator(pipe, photos[:1], support_images=photos)
    >>> len(display.axes_)
    1
    """

    def __init__(
        self,
        explanation: pd.DataFrame,
        *,
        images: Sequence[Any] | None = None,
        support_images: Mapping[int, Any] | None = None,
    ) -> None:
        self.explanation = explanation
        self.images = images
        self.support_images = support_images

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        images: Any = None,
        support_images: Any = None,
        n_classes: int = 3,
        n_support: int = 3,
        ax: Any = None,
    ) -> ExplanationDisplay:
        """Explain and draw.

        Parameters
        ----------
        estimator : HeGraphClassifier, or Pipeline that ends with one
            Fitted estimator.
        X : list of images, or array-like of shape (n_samples, n_features)
            Queries, as `estimator.predict` takes them. A row is drawn for each: give few.
        images : list of images or None, default=None
            Images of the queries where `X` holds features; None takes `X` for a pipeline.
        support_images : list of images or None, default=None
            The images given to `fit`, in their order; None draws none.
        n_classes, n_support : int, default=3
            See :func:`explain`.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        ExplanationDisplay
            The display, drawn.
        """
        from skhegraph.clip.items import one_image_each

        frame = explain(estimator, X, n_classes=n_classes, n_support=n_support)
        if images is None and estimator is not final_classifier(estimator):
            images = X
        chosen = None
        if support_images is not None:
            listed = one_image_each(support_images, "support_images")
            named = {row for rows in frame["support"] for row in rows}
            if named and max(named) >= len(listed):
                raise ValueError(
                    f"support_images holds {len(listed)} images, and row {max(named)} of the X "
                    "given to fit is to be shown: give the images that fit was given, in their "
                    "order."
                )
            chosen = {row: listed[row] for row in sorted(named)}
        shown = None if images is None else one_image_each(images, "images")
        return cls(frame, images=shown, support_images=chosen).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> ExplanationDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        ExplanationDisplay
            Itself.
        """
        queries = list(self.explanation.groupby("query", sort=False))
        ax = axes_or_new("ExplanationDisplay.plot", ax, (11.0, 0.5 + 1.9 * len(queries)))
        ax.set_axis_off()
        self.ax_, self.figure_ = ax, ax.figure
        limits = _range_of_bars(self.explanation)
        height = 1 / len(queries)
        self.axes_ = [
            self._draw_query(ax, 1 - (k + 1) * height, height, number, rows, limits)
            for k, (number, rows) in enumerate(queries)
        ]
        last = self.axes_[-1]["evidence"]
        last.set_xlabel("evidence: log-odds over the mean class")
        caption = (
            f"support images (of {self.explanation['support_of'].iloc[0]}) that speak most\n"
            "for the first class, and their parts in its logit"
        )
        ax.text(0.8, 0.0, caption, ha="center", va="top", transform=ax.transAxes)
        handles, labels = last.get_legend_handles_labels()
        ax.legend(
            handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False
        )
        return self

    def _draw_query(
        self,
        ax: Any,
        bottom: float,
        height: float,
        number: int,
        rows: Any,
        limits: tuple[float, float],
    ) -> dict[str, Any]:
        """Panels of one query in a strip of `ax`."""
        top = rows.iloc[0]
        strip: dict[str, Any] = {"support": []}
        y, h = bottom + 0.12 * height, 0.68 * height
        title = f"{top['class']}: {100 * top['probability']:.0f} %"
        strip["query"] = ax.inset_axes((0.0, y, 0.16, h))
        image = None if self.images is None else self.images[number]
        _show(strip["query"], image, f"query {number}")
        strip["query"].set_title(title, fontsize=10, fontweight="bold")
        strip["evidence"] = ax.inset_axes((0.31, y, 0.26, h))
        _draw_bars(strip["evidence"], rows, limits)
        found = list(zip(top["support"], top["support_parts"], strict=True))
        n_shown = max(len(found), 3)
        width = 0.40 / n_shown
        for k, (row, part) in enumerate(found):
            panel = ax.inset_axes((0.60 + k * width, y, 0.92 * width, h))
            image = None if self.support_images is None else self.support_images.get(row)
            _show(panel, image, f"row {row}")
            if self.support_images is None:
                panel.text(0.5, 0.5, "support_images=\nnot given", ha="center", va="center", size=7)
            panel.set_title(f"{part:+.2f}", fontsize=9)
            strip["support"].append(panel)
        return strip


def _range_of_bars(frame: pd.DataFrame) -> tuple[float, float]:
    """Ends of the longest bars to the left and right, so that all queries share a scale."""
    parts = frame[list(PARTS)].to_numpy()
    low, high = parts.clip(max=0).sum(axis=1).min(), parts.clip(min=0).sum(axis=1).max()
    margin = 0.04 * (high - low) or 1.0
    return float(low - margin), float(high + margin)


def _draw_bars(ax: Any, rows: pd.DataFrame, limits: tuple[float, float]) -> None:
    """Stack the parts for each class: what speaks for it to the right, what against to the left."""
    place = np.arange(len(rows))[::-1]
    ends = {1: np.zeros(len(rows)), -1: np.zeros(len(rows))}
    for name in PARTS:
        part = rows[name].to_numpy()
        start = np.where(part >= 0, ends[1], ends[-1])
        ax.barh(place, part, left=start, height=0.62, color=PART_COLORS[name], label=name)
        ends[1] = ends[1] + part.clip(min=0)
        ends[-1] = ends[-1] + part.clip(max=0)
    names = rows["class"]
    labels = [f"{c}  {100 * p:.0f} %" for c, p in zip(names, rows["probability"], strict=True)]
    ax.set_yticks(place, labels)
    ax.tick_params(labelsize=9)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlim(*limits)
    ax.spines[["top", "right"]].set_visible(False)


def _show(ax: Any, image: Any, caption: str) -> None:
    """Draw a thumbnail, or an empty frame where there is no image."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xlabel(caption, fontsize=8)
    if image is None:
        ax.set_facecolor("#f0f0f0")
        return
    from skhegraph.clip.images import decode_image

    thumbnail = decode_image(image)
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    ax.imshow(np.asarray(thumbnail))
