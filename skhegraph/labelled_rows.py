"""A labelled set as it is given: what is refused, what is left out, what is kept of it."""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from sklearn.utils import assert_all_finite, gen_batches
from sklearn.utils.multiclass import check_classification_targets

from skhegraph.labels import is_unlabelled
from skhegraph.parallel import ROWS_AT_ONCE
from skhegraph.support import Floats, Ints, Summed, unit_rows

#: Distance, in units of the spread of the rows, below which two are of one photograph: encoded in
#: another batch it has another rounding, in half precision of up to 1e-3.
ROUNDING = 0.01


class KeptRows(NamedTuple):
    """Rows that a fitted estimator keeps, their classes, weights, numbers and shares in the nodes.

    `whole` tells whether these are all.
    """

    features: Floats
    labels: Ints
    weight: Floats
    number: Ints
    share: Floats
    whole: bool


class LabelledRows(NamedTuple):
    """Validated rows of a labelled set, those of unreadable images left out.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features), float32 or float64
        Rows as given.
    y : ndarray of shape (n_samples,)
        Labels.
    weight : ndarray of shape (n_samples,), float64
        Weights, zeros too.
    number : ndarray of shape (n_samples,), intp
        Number of each row in what was given.
    summed : Summed or None
        More rows of the labels that have one of positive weight (:mod:`skhegraph.many_rows`).
    """

    X: Floats
    y: NDArray[Any]
    weight: Floats
    number: Ints
    summed: Summed | None = None

    def take(self, chosen: NDArray[Any]) -> LabelledRows:
        """Rows chosen by a mask or by numbers, those of half precision in double."""
        X, y, weight, number = (part[chosen] for part in self[:4])
        X = X.astype(np.float64) if X.dtype == np.float16 else X
        return LabelledRows(X, y, weight, number, self.summed)

    def unlike(self, others: LabelledRows) -> LabelledRows:
        """Rows that are not among others: a row whose label came later is no row without one."""
        used = others.weight > 0
        if not len(self.y) or not used.any():
            return self
        Z, known = (unit_rows(X.astype(np.float64)) for X in (self.X, others.X[used]))
        spread = np.sqrt((Z.var(axis=0) + known.var(axis=0)).sum())
        near, _ = cKDTree(known).query(Z, distance_upper_bound=ROUNDING * spread + 1e-12)
        return self.take(np.isinf(near))

    def followed_by(self, later: LabelledRows, n_given: int) -> LabelledRows:
        """These rows, of `n_given` that were given, and later ones.

        Raises
        ------
        ValueError
            If the labels are of two types.
        """
        if not len(later.y):  # rows without a label, say: of no type
            later = later._replace(y=self.y[:0])
        if type_of(self.y) != type_of(later.y):
            raise ValueError(
                f"y holds labels of type {later.y.dtype}, and those given before are of type "
                f"{self.y.dtype}: give labels of one type."
            )
        later = later._replace(number=later.number + n_given)
        X, y, weight, number = (
            np.concatenate(pair) for pair in zip(self[:4], later[:4], strict=True)
        )
        return LabelledRows(X, y, weight, number)

    def to_keep(self, shots: int | None) -> LabelledRows:
        """Rows of positive weight, `shots` of each label that cover it (None: all), in few bytes.

        See :func:`covering_rows`.
        """
        chosen = self.weight > 0
        if shots is not None:
            _, codes = np.unique(self.y, return_inverse=True)
            for code in np.flatnonzero(np.bincount(codes[chosen]) > shots):
                of_label = np.flatnonzero(chosen & (codes == code))
                chosen[of_label] = False
                chosen[of_label[covering_rows(self.X[of_label], shots)]] = True
        rows = self.take(chosen)
        with np.errstate(over="ignore"):  # such rows are kept as they are
            narrow = rows.X.astype(np.float32)
        lossless = rows.X.dtype == np.float32 or bool((narrow == rows.X).all())
        return rows._replace(X=narrow) if lossless else rows

    def kept(self, classes: NDArray[Any], class_share: Floats, shots: int | None) -> KeptRows:
        """Rows :meth:`to_keep`, with their classes and shares.

        `class_share` is that of all rows of a class in its adapted visual node.
        """
        used, kept = self.weight > 0, self.to_keep(shots)
        codes = np.searchsorted(classes, kept.y)
        total: Floats = np.zeros(len(classes))
        np.add.at(total, np.searchsorted(classes, self.y[used]), self.weight[used])
        if self.summed is not None:
            total[np.unique(codes)] += self.summed.counts
        share = class_share[codes] * kept.weight / total[codes]
        whole = len(kept.y) == int(used.sum()) and self.summed is None
        return KeptRows(kept.X, codes, kept.weight, kept.number, share, whole)


def covering_rows(X: Floats, n_rows: int) -> Ints:
    """Numbers of `n_rows` rows of `X` such that no unit row is far from the nearest of them.

    The row nearest to the mean, then again and again the row that is farthest from those chosen
    (Gonzalez 1985): the largest distance left is at most twice the least possible. It takes
    `n_rows` products of `X` with a vector.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Rows of one class.
    n_rows : int
        How many to choose, at most `n_samples`.

    Returns
    -------
    ndarray of shape (n_rows,), intp
        Numbers of rows, in the order in which they were chosen.
    """
    Z = unit_rows(X).astype(np.float32, copy=False)
    cosine = np.full(len(Z), -np.inf, dtype=np.float32)  # to the nearest row chosen
    chosen = np.empty(n_rows, dtype=np.intp)
    chosen[0] = (Z @ Z.mean(axis=0)).argmax()
    for k in range(1, n_rows):
        np.maximum(cosine, Z @ Z[chosen[k - 1]], out=cosine)
        cosine[chosen[k - 1]] = np.inf  # equal rows are taken one after another
        chosen[k] = cosine.argmin()
    return chosen


def check_labels(labels: Any, name: str = "y", *, or_unlabelled: bool = False) -> None:
    """Raise ValueError where a label is missing or of another type, before NumPy makes text of it.

    Parameters
    ----------
    labels : array-like of shape (n_samples,) or (n_samples, n_outputs), or None
        Labels as the user gave them.
    name : str, default="y"
        What they are called in the error.
    or_unlabelled : bool, default=False
        Whether -1 may stand among names, for no label.
    """
    values = np.asarray(labels) if hasattr(labels, "to_numpy") else labels
    if not isinstance(values, (np.ndarray, list, tuple)) or getattr(values, "ndim", 1) == 0:
        return
    missing = _missing(values)
    if missing.any():
        raise ValueError(
            f"{name} has no label (None, NaN or NA) in {name_rows(missing)}: give each image a "
            "label, or leave it out."
        )
    if getattr(values, "dtype", np.dtype(object)).kind != "O":
        return
    told = [label for label in values if not (or_unlabelled and is_unlabelled(label))]
    if len({isinstance(label, str) for label in told}) > 1:
        types = sorted({type(label).__name__ for label in told})
        raise ValueError(
            f"{name} holds labels of several types ({', '.join(types)}): give labels of one type."
        )


def check_targets(y: NDArray[Any]) -> None:
    """Raise ValueError unless these are labels of classes; one row of each is no regression."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        check_classification_targets(y)


def _missing(values: Any) -> NDArray[np.bool_]:
    """Which labels are missing, of one output at least; masked ones too."""
    kind = values.dtype.kind if isinstance(values, np.ndarray) else "O"
    missing: NDArray[np.bool_]
    if kind == "O":
        missing = np.array([_is_missing(value) for value in values], dtype=bool)
    elif kind in "fmM":
        missing = np.isnan(np.asarray(values))
    else:
        missing = np.zeros(values.shape, dtype=bool)
    if np.ma.isMaskedArray(values):
        missing = missing | np.ma.getmaskarray(values)
    return np.logical_or.reduce(missing, axis=tuple(range(1, missing.ndim)))


def _is_missing(label: Any) -> bool:
    """Tell None, NaN, and pandas.NA, which has no truth value."""
    return (
        label is None
        or type(label).__name__ in ("NAType", "NaTType")
        or (isinstance(label, (float, np.floating)) and bool(np.isnan(label)))
    )


def unreadable_rows(X: Floats) -> NDArray[np.bool_]:
    """Rows that are NaN throughout; ValueError where a row has some NaN or an infinity.

    `CLIPFeatures(on_error="nan")` gives such a row for an image that cannot be read.
    """
    unreadable: NDArray[np.bool_] = np.zeros(len(X), dtype=bool)
    if np.isfinite(X.sum(dtype=np.float64)):  # as nearly always
        return unreadable
    for block in gen_batches(len(X), ROWS_AT_ONCE):
        np.logical_and.reduce(np.isnan(X[block]), axis=1, out=unreadable[block])
        assert_all_finite(X[block][~unreadable[block]], input_name="X")
    return unreadable


def readable_rows(
    rows: LabelledRows, known: Collection[Any], without_label: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which rows are of readable images, with one warning of others, which a fit leaves out.

    Some may be `without_label`.

    Raises
    ------
    ValueError
        If no image of a class can be read, unless its label is `known` without these rows.
    """
    unreadable = unreadable_rows(rows.X)
    if not unreadable.any():
        return ~unreadable
    labels, left = rows.y[~without_label], rows.y[~(without_label | unreadable)]
    lost = [label for label in np.setdiff1d(labels, left) if label not in known]
    if lost:
        raise ValueError(
            f"Class {str(lost[0])!r} has no readable image: each of its rows of X is NaN "
            "throughout. Give it an image that can be read, or leave the class out of y."
        )
    warnings.warn(
        f"NaN throughout (unreadable images), left out of the fit: {name_rows(unreadable)} of X.",
        UserWarning,
        stacklevel=5,
    )
    return ~unreadable


def all_labels(
    y: NDArray[Any], classes: ArrayLike | None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Sorted labels of `y` and `classes`, and which of them `classes` asks for.

    Raises
    ------
    ValueError
        If `classes` is no list of labels of the type of `y`, or lacks a label of `y`.
    """
    labels = np.unique(y)
    if classes is None:
        return labels, np.zeros(len(labels), dtype=bool)
    check_labels(classes, "classes")
    given = np.asarray(classes)
    if given.ndim != 1 or type_of(given) != type_of(y):
        raise ValueError(
            f"classes={reprlib.repr(classes)}: expected a list of labels, with images or without, "
            f"of the type of y ({y.dtype})."
        )
    missing = np.setdiff1d(labels, given)
    if len(missing):
        raise ValueError(
            f"y holds {str(missing[0])!r}, which is not in classes: list every label there, those "
            "with images too."
        )
    labels = np.unique(given)
    return labels, np.ones(len(labels), dtype=bool)


def type_of(labels: NDArray[Any]) -> str:
    """Kind of the labels: integers and unsigned ones alike, strings and objects of strings."""
    kind = labels.dtype.kind
    if kind == "O":
        return "U" if all(isinstance(label, str) for label in labels) else "O"
    return "i" if kind == "u" else kind


def name_rows(chosen: NDArray[np.bool_]) -> str:
    """Numbers of the chosen rows, the first five."""
    rows = np.flatnonzero(chosen)
    named = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
    return f"row {named}" if len(rows) == 1 else f"rows {named} ({len(rows)} in all)"
