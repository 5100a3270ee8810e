"""Parameters that are checked against the classes of a support set."""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skhegraph.hegraph.priors import NEGATIVE_TO_POSITIVE, POSITIVE_TO_POSITIVE
from skhegraph.labels import ENCODED, and_another, are_encoded, brief
from skhegraph.support import (
    LARGEST_WEIGHT,
    LEAST_WEIGHT,
    Floats,
    Support,
    weights_in_range,
)


def class_prior(
    class_weight: str | dict[Any, float] | None, classes: NDArray[Any], support: Support
) -> Floats:
    """Share of each class in the log-loss, which is also its probability before an image is seen.

    Weights of a mapping multiply the share of the class among the rows. A class that has a name
    and no row counts as one of the mean number of rows. A mapping may hold more labels, or less,
    which then count once; not both, as in scikit-learn.
    """
    if class_weight == "balanced":
        return np.full(len(classes), 1 / len(classes))
    factors = np.ones(len(classes))
    if isinstance(class_weight, dict):
        _check_labels_of(class_weight, classes)
        factors = np.array([class_weight.get(label, 1.0) for label in classes])
    if factors.dtype.kind not in "iuf" or not weights_in_range(factors).all():
        raise ValueError(
            f"class_weight={reprlib.repr(class_weight)}: expected for each label a positive "
            f"weight, from {LEAST_WEIGHT:g} to {LARGEST_WEIGHT:g}."
        )
    shots = support.shots
    if support.named is not None:
        shots = support.named.merge(shots, shots.mean() if len(shots) else 1.0)
    prior = factors * shots
    return prior / prior.sum()


def _check_labels_of(class_weight: Mapping[Any, float], classes: NDArray[Any]) -> None:
    """Refuse weights of labels that are misspelt, and warn of those that may be of others.

    Those of all integers 0 to n_classes - 1 are not: an encoder leaves such labels as they are.
    """
    labels = set(classes.tolist())
    unknown = [label for label in class_weight if label not in labels]
    missing = [label for label in classes if label not in class_weight]
    if unknown and missing:
        raise ValueError(
            f"class_weight names {brief(unknown)}, not among the labels, and lacks "
            f"{brief(missing)}: give the labels as they are in y ({type(classes[0]).__name__})."
            + (ENCODED if are_encoded(classes) else "")
        )
    if class_weight and (unknown or missing) and are_encoded(classes):
        warnings.warn(
            f"class_weight names {brief(class_weight)}, and y holds the integers 0 to "
            f"{len(classes) - 1}: if a meta-estimator that encodes y has put these in place of "
            "yours, the weights are of other classes. Name every label in y and no other, with 1 "
            "for those that count once, or give sample_weight instead.",
            UserWarning,
            stacklevel=5,
        )


def check_unknown_label(
    label: str | int | None, threshold: float | None, classes: NDArray[Any]
) -> None:
    """Refuse a label for unknowns that is a class or would change the type of the labels."""
    if label is None:
        if threshold is not None:
            raise ValueError(
                f"unknown_threshold={threshold!r} needs a label to predict below it: set "
                "unknown_label."
            )
        return
    if label in classes:
        raise ValueError(f"unknown_label={label!r} is one of the classes: choose another.")
    if classes.dtype.kind == "b" or (isinstance(label, str) != isinstance(classes[0], str)):
        raise ValueError(
            f"unknown_label={label!r} ({type(label).__name__}) is not of the type of the "
            f"labels ({type(classes[0]).__name__}), so one array cannot hold both."
            + (ENCODED if are_encoded(classes) else "")
        )
    try:
        and_another(classes, label)
    except OverflowError as error:
        raise ValueError(
            f"unknown_label={label!r} and the labels, {classes.min()} to {classes.max()}, fit into "
            "no type of integers together: choose another label."
        ) from error


def warn_if_ignored(params: Mapping[str, Any], has_text: bool) -> None:
    """Warn of parameters that were set and cannot act."""
    defaults = {
        "positive_to_visual": "auto",
        "visual_to_visual": "auto",
        "positive_to_positive": POSITIVE_TO_POSITIVE,
        "negative_to_positive": NEGATIVE_TO_POSITIVE,
        "text_weight": "auto",
        "logit_scale": None,
        "negative_templates": None,
    }
    cases = [
        (not has_text, list(defaults), "text_features='prototypes' has no text"),
        (
            not params["negative_to_positive"],
            ["negative_templates"],
            "negative_to_positive=0 leaves negatives out",
        ),
        (params["text_weight"] == 0, ["logit_scale"], "text_weight=0"),
    ]
    for applies, names, why in cases:
        ignored = [name for name in names if params[name] not in (defaults[name], 0)]
        if applies and ignored:
            message = f"{', '.join(ignored)}: ignored, since {why}."
            warnings.warn(message, UserWarning, stacklevel=4)
            if not has_text:
                return
