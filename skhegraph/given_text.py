"""Text features given as numbers: arrays, mappings from label to row, or pairs of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array

from skhegraph.labels import by_index, values_of_labels
from skhegraph.support import Floats, mean_of_others

Rows: TypeAlias = ArrayLike | Mapping[Any, ArrayLike]
TextFeatures: TypeAlias = str | Rows | tuple[Rows, Rows]


def given_text(source: Any, labels: NDArray[Any], n_features: int | None) -> tuple[Floats, Floats]:
    """Check precomputed text features: positives, or a pair (positives, negatives).

    Parameters
    ----------
    source : array-like, mapping of label to row, or pair of these
        Arrays have one row per label, in their order; mappings may hold more labels. A frame whose
        index holds labels is a mapping.
    labels : ndarray of shape (n_classes,)
        Sorted labels.
    n_features : int or None
        Width of the rows; None takes any.

    Returns
    -------
    tuple of two ndarray of shape (n_classes, n_features), float64
        Positives and negatives; those that are not given are the mean of the other classes'
        positives.

    Raises
    ------
    ValueError
        If they are no finite numbers of that shape, or if a label has no row.
    """
    pair = _is_pair(source)
    arrays: list[Floats] = []
    for name, rows in zip(("positive", "negative"), source if pair else (source,), strict=False):
        rows = by_index(rows, labels, "text_features")
        if isinstance(rows, Mapping):
            which = f"text_features ({name})"
            rows = values_of_labels(rows, labels, which, "an array with one row per class")
        if n_features is None and arrays:
            n_features = arrays[0].shape[1]
        arrays.append(_checked(name, rows, len(labels), n_features))
    return (arrays[0], arrays[1]) if pair else (arrays[0], mean_of_others(arrays[0]))


def _checked(name: str, rows: Any, n_classes: int, n_features: int | None) -> Floats:
    """Finite numbers of shape (n_classes, n_features)."""
    width = "n_features" if n_features is None else n_features
    expected = (
        f"({n_classes}, {width}): one row per class in the order of the sorted labels"
        + (", as wide as X" if n_features else "")
        + ", or a mapping from label to row"
    )
    try:
        array: Floats = check_array(rows, dtype=np.float64, input_name=name)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's of tensors with a gradient
        raise ValueError(
            f"text_features: the {name} array cannot be used ({str(error).rstrip('.')}). "
            f"Expected numbers of shape {expected}; or a pair of these (positive, negative)."
        ) from error
    if array.shape != (n_classes, n_features or array.shape[1]):
        raise ValueError(
            f"text_features: the {name} array has shape {array.shape}; expected {expected}."
        )
    return array


def _is_pair(source: Any) -> bool:
    """Tell two matrices from one."""
    if getattr(source, "ndim", None) == 3:
        return len(source) == 2
    if not isinstance(source, (tuple, list)) or len(source) != 2:
        return False
    first = source[0]
    return (
        isinstance(first, Mapping)
        or getattr(first, "ndim", 0) == 2
        or (
            isinstance(first, (tuple, list))
            and len(first) > 0
            and isinstance(first[0], (tuple, list))
        )
    )
