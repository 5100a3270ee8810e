"""Where the text nodes of the classes come from: class means, given features, or prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from skhegraph.given_text import given_text
from skhegraph.support import Floats, Ints, class_means, mean_of_others

#: `tau` where no CLIP says otherwise: what CLIP's own training ends at.
DEFAULT_LOGIT_SCALE = 100.0


class Asked(NamedTuple):
    """What a text is asked for.

    Attributes
    ----------
    labels : ndarray of shape (n_labels,)
        Sorted labels that were given, those of rows of weight zero too.
    classes : ndarray of shape (n_classes,)
        Those among them that get a node.
    X : ndarray of shape (n_rows, n_features) or None
        Unit rows of the classes; None where names alone make a classifier, of any width.
    y, weight : ndarray of shape (n_rows,)
        Class indices and weights of the rows.
    """

    labels: NDArray[Any]
    classes: NDArray[Any]
    X: Floats | None
    y: Ints
    weight: Floats

    @property
    def n_features(self) -> int | None:
        """Width of the rows; None is any."""
        return None if self.X is None else self.X.shape[1]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Labels that are classes."""
        return np.isin(self.labels, self.classes)


class TextNodes(NamedTuple):
    """Positive and negative nodes of the classes, CLIP's `tau`, and the prompts, if any."""

    positive: Floats
    negative: Floats
    logit_scale: float = DEFAULT_LOGIT_SCALE
    prompts: tuple[list[str], ...] = ()
    prompt_features: tuple[Floats, ...] = ()


class TextSource(Protocol):
    """Where text nodes come from."""

    @property
    def name(self) -> str:
        """What a message calls it; empty where it uses no text."""

    @property
    def bundled(self) -> bool:
        """Whether the text is of a CLIP that comes with the package."""

    def nodes(self, asked: Asked) -> TextNodes:
        """Text nodes of the classes; ValueError where it has none."""


@dataclass(frozen=True)
class Prototypes:
    """No text: the node of a class is its mean, the negative one the mean of the others' means."""

    name = ""
    bundled = False

    def nodes(self, asked: Asked) -> TextNodes:
        """Class means."""
        if asked.X is None:
            raise ValueError(
                "X=None, and text_features='prototypes' makes the classes of X: give X, or "
                "text features."
            )
        means = class_means(asked.X, asked.y, asked.weight)
        if len(means) < len(asked.classes):
            raise ValueError(
                f"classes names {len(asked.classes) - len(means)} classes without an image, "
                "and text_features='prototypes' has no text to know them by: give "
                "text_features, or an image of each class."
            )
        return TextNodes(means, mean_of_others(means))


@dataclass(frozen=True)
class GivenText:
    """Text features given as numbers (:mod:`skhegraph.given_text`)."""

    features: Any
    name = "The given text_features"
    bundled = False

    def nodes(self, asked: Asked) -> TextNodes:
        """Rows of the classes."""
        P, N = given_text(self.features, asked.labels, asked.n_features)
        kept = asked.kept
        return TextNodes(P[kept], N[kept])


def text_source(text_features: Any, named: Mapping[str, TextSource]) -> TextSource:
    """Text source that a parameter names or gives."""
    if not isinstance(text_features, str):
        return GivenText(text_features)
    if text_features not in named:
        raise ValueError(
            f"text_features={text_features!r}: expected {', '.join(map(repr, named))}, an array of "
            "positive text features, one row per class, a mapping from label to row, or a "
            "pair of these (positive, negative)."
        )
    return named[text_features]
