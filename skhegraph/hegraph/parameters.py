"""Parameters that are checked against the classes of a support set."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import compute_class_weight

from skhegraph.prompted_classifier import ENCODED, are_encoded
from skhegraph.support import Floats, Support


def check_top_k(top_k: int | None, n_classes: int) -> None:
    """Raise ValueError if a node cannot have that many edges."""
    if top_k is not None and top_k > n_classes:
        raise ValueError(
            f"top_k={top_k} is above the number of classes ({n_classes}): a node has one edge per "
            "class at most. Lower top_k or leave it None."
        )


def class_prior(
    class_weight: str | dict[Any, float] | None, classes: NDArray[Any], support: Support
) -> Floats:
    """Share of each class in the log-loss, which is also its probability before an image is seen.

    Weights of a mapping multiply the share of the class among the rows.
    """
    if class_weight == "balanced":
        return np.full(len(classes), 1 / len(classes))
    if isinstance(class_weight, dict):
        unknown = [label for label in class_weight if label not in classes]
        missing = [str(label) for label in classes if label not in class_weight]
        if unknown:
            raise ValueError(
                f"class_weight names {unknown[:5]}, which are no labels; missing: {missing[:5]}."
                + (ENCODED if are_encoded(classes) else "")
            )
    factors = compute_class_weight(class_weight, classes=classes, y=classes)
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise ValueError(
            f"class_weight={class_weight!r}: expected a positive finite weight for each label."
        )
    prior = factors * support.shots
    return prior / prior.sum()
