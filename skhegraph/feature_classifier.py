"""What every classifier of features shares: a validated support set in, logits out."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax
from sklearn.utils.validation import check_is_fitted, validate_data

from skhegraph._sklearn import ClassifierMixin, Interval, check_sample_weight
from skhegraph.given_text import TextFeatures
from skhegraph.labelled_rows import (
    LabelledRows,
    all_labels,
    check_labels,
    check_targets,
    name_rows,
    readable_rows,
    unreadable_rows,
)
from skhegraph.labels import UNLABELLED, and_another, brief, keep_unlabelled, signed
from skhegraph.parallel import for_rows, one_blas_thread
from skhegraph.support import (
    LARGEST_WEIGHT,
    LEAST_WEIGHT,
    Floats,
    Ints,
    Named,
    Support,
    distinct_rows,
    effective,
    unit_rows,
    weights_in_range,
)
from skhegraph.text_source import Asked, Prototypes, TextNodes, TextSource, text_source
from skhegraph.versioned import VersionedEstimator

Fitted = TypeVar("Fitted")

#: Logits below the best one whose exponentials single precision holds.
SINGLE_EXPONENTS = -80.0
#: Size of a product that a BLAS computes on one thread by itself.
PRODUCT_OF_ONE_THREAD = 200_000
#: Bound of every scalar parameter: beyond it single precision gives no sensible result.
LARGEST = 1e6


def non_negative() -> Interval:
    """Constraint of a scalar that 0 switches off."""
    return Interval(Real, 0, LARGEST, closed="both")


def positive() -> Interval:
    """Constraint of a scalar for which 0 makes no sense."""
    return Interval(Real, 0, LARGEST, closed="right")


@contextmanager
def all_or_nothing(estimator: Fitted) -> Iterator[Fitted]:
    """Fit a copy, which takes the place of the estimator if all goes well, and else is lost.

    Numbers too small for their type are zeros, whatever `numpy.seterr` says.
    """
    fitted = copy.copy(estimator)
    with np.errstate(under="ignore"):
        yield fitted
    estimator.__dict__ = fitted.__dict__


class FeatureClassifier(ClassifierMixin, VersionedEstimator):
    """Base of the classifiers that join image features with a text feature per class.

    Subclasses list the parameters below in their own `__init__`, call `_validate_support` at the
    top of `fit`, within :func:`all_or_nothing`, and implement `_logits`.

    Parameters
    ----------
    text_features : "prototypes", array-like, mapping, or pair of these, default="prototypes"
        Text nodes of the classes: positives of shape (n_classes, n_features), rows in the order of
        the sorted labels, or a mapping from label to row (or a frame with labels as its index),
        which may hold more labels than occur; or a pair (positives, negatives). ``"prototypes"``
        uses no text: the positive node of a class is its mean, the negative one the mean of the
        others' means.
    logit_scale : float or None, default=None
        `tau`; None takes 100, CLIP's own.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "text_features": "no_validation",  # the text source says what is wrong
        "logit_scale": [positive(), None],
    }
    #: Label of rows without a feature; an estimator that takes one has it as a parameter.
    unknown_label: Any = None

    def __init__(
        self, *, text_features: TextFeatures = "prototypes", logit_scale: float | None = None
    ) -> None:
        self.text_features = text_features
        self.logit_scale = logit_scale

    # --- fit side -----------------------------------------------------------------------------

    def _validate_support(
        self, X: Any, y: Any, sample_weight: ArrayLike | None = None, *, distinct: bool = False
    ) -> Support:
        """Validate parameters and support set, set `classes_` and `logit_scale_`."""
        self._validate_params()
        rows, _ = self._validate_rows(X, y, sample_weight)
        return self._support(rows, distinct=distinct)

    def _validate_rows(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        *,
        reset: bool = True,
        known: Collection[Any] = (),
        unlabelled: Callable[[NDArray[Any]], NDArray[np.bool_]] | None = None,
        take: Callable[[LabelledRows, NDArray[np.bool_]], LabelledRows] = LabelledRows.take,
    ) -> tuple[LabelledRows, LabelledRows]:
        """Validate a labelled set; leave rows of unreadable images out, with a warning.

        Labels that are `known` may be left without a row. Rows that are `unlabelled` by their
        labels come apart from the others; None takes every label for one. `take` makes the
        labelled rows of all.
        """
        refuse_images(X, type(self).__name__)
        check_labels(y, or_unlabelled=unlabelled is not None)
        y = y if unlabelled is None else keep_unlabelled(y)
        # Of a large file: `readable_rows` looks for NaN and infinities, in blocks, and half
        # precision becomes double where rows are taken.
        dtype = [np.float64, np.float32, np.float16]
        X, y = validate_data(self, X, y, dtype=dtype, ensure_all_finite=False, reset=reset)
        y = signed(y)
        without = np.zeros(len(y), dtype=bool) if unlabelled is None else unlabelled(y)
        check_targets(y[~without])
        weight = check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        wild = weight[(weight > 0) & ~weights_in_range(weight)]
        if len(wild):
            raise ValueError(
                f"sample_weight holds {wild[0]:g}: give weights from {LEAST_WEIGHT:g} to "
                f"{LARGEST_WEIGHT:g}, or 0 for a row that does not count."
            )
        rows = LabelledRows(X, y, weight, np.arange(len(y)))
        readable = readable_rows(rows, known, without)
        labelled, others = take(rows, readable & ~without), rows.take(readable & without)
        if without.any() and y.dtype.kind == "O":  # names, without the -1 that made them objects
            told = labelled.y.tolist()  # of members of an enumeration the texts
            names = [str.__str__(name) if isinstance(name, str) else name for name in told]
            labelled = labelled._replace(y=np.array(names))
        return labelled, others._replace(y=np.full(len(others.y), UNLABELLED))

    def _support(
        self,
        rows: LabelledRows,
        classes: ArrayLike | None = None,
        *,
        distinct: bool = False,
        seen: NDArray[Any] | None = None,
        by_names: bool = False,
    ) -> Support:
        """Make the support set of validated rows, set `classes_` and `logit_scale_`.

        `classes` may name classes without a row, all of them with `by_names`; `seen` are labels
        given before, whose rows may be gone: text follows them too. With `distinct`, equal rows of
        a class become one row with the sum of their weights, in an order that depends on the values
        alone, and the scale of the weights does not count.
        """
        # Labels of rows of weight zero too: text and names follow the sorted labels.
        labels, asked = all_labels(rows.y, classes)
        if seen is not None:
            named = labels[asked]
            labels = np.union1d(labels, seen)
            asked = np.isin(labels, named)
        keep = rows.weight > 0
        used = rows if keep.all() else rows.take(keep)
        with_rows, index = np.unique(used.y, return_inverse=True)
        all_classes = labels[np.isin(labels, with_rows) | asked]
        if not len(all_classes) or not (len(with_rows) or by_names):
            raise ValueError(
                "No row of X is left to fit on: none has a label, or each that has one is NaN "
                "throughout (an unreadable image) or has a sample_weight of zero."
            )
        if len(all_classes) < 2:
            names = ", or the names of all in classes=[...]" if by_names else ""
            raise ValueError(
                f"y holds one class ({all_classes[0]}); "
                f"{type(self).__name__} needs samples of at least two classes{names}."
            )
        self.classes_ = all_classes
        named = ~np.isin(self.classes_, with_rows)
        X, weight, summed = unit_rows_in_double(used.X), used.weight, rows.summed
        if distinct and len(X):
            X, index, weight = distinct_rows(X, index, weight)
            weight, summed = effective(weight, summed)
        told = (X, index, weight) if summed is None else summed.class_rows(X, index, weight)
        source = self._text()
        text = source.nodes(Asked(labels, all_classes, *told))
        self._keep_text(text)
        P, N = (
            unit_rows(np.asarray(nodes, dtype=np.float64))
            for nodes in (text.positive, text.negative)
        )
        if source.name:
            warn_if_equal(P, self.classes_)
        without_rows = Named(named, P[named], N[named]) if named.any() else None
        P, N, scale = P[~named], N[~named], self.logit_scale_
        return Support(X, index, weight, P, N, scale, without_rows, summed=summed)

    def _text(self) -> TextSource:
        """Text source that the parameters name."""
        return text_source(self.text_features, {"prototypes": Prototypes()})

    def _keep_text(self, nodes: TextNodes) -> None:
        """Set `logit_scale_`; a subclass may keep more of the text."""
        given = self.logit_scale
        self.logit_scale_ = nodes.logit_scale if given is None else float(given)

    # --- predict side: NumPy only -------------------------------------------------------------

    def _logits(self, Z: Floats) -> Floats:
        """Class logits of unit-row queries, shape (n_queries, n_classes), a new array."""
        raise TypeError(f"{type(self).__name__} must define _logits.")

    def _queries(self, X: Any) -> Floats:
        """Validated queries; rows of floats as they are, so that no copy is made of many.

        What such an array can still be refused for, NaN and infinities, shows a block at a time.
        """
        if not hasattr(self, "classes_"):
            check_is_fitted(self)
        plain = (
            type(X) in (np.ndarray, np.memmap)
            and X.dtype.char in "efd"
            and X.ndim == 2
            and len(X) > 0
            and X.shape[1] == self.n_features_in_
            and not hasattr(self, "feature_names_in_")
        )
        if plain:
            return X
        refuse_images(X, type(self).__name__)
        try:
            return validate_data(
                self, X, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan", reset=False
            )
        except ValueError as error:
            if "is expecting" not in str(error):
                raise
            raise ValueError(
                f"{error} Are these features of the CLIP that fit was given?"
            ) from error

    @np.errstate(under="ignore")
    def _in_chunks(self, X: ArrayLike, score: Callable[[Floats], NDArray[Any]]) -> NDArray[Any]:
        """Validate queries and score their unit rows a chunk at a time, in their precision."""
        queries = self._queries(X)

        def of_rows(block: slice) -> NDArray[Any]:
            """Scores of a block of rows."""
            Z = queries[block]
            if Z.dtype == np.float16:
                Z = Z.astype(np.float32)
            unit = unit_rows(Z)
            if np.isnan(unit[:, 0]).any():  # of what is not finite in a row, all is NaN
                unreadable_rows(Z)
            return score(unit)

        if len(queries) * len(self.classes_) * queries.shape[1] <= PRODUCT_OF_ONE_THREAD:
            return of_rows(slice(0, len(queries)))
        with one_blas_thread():
            first = of_rows(slice(0, 1))  # tells shape and type
            out: NDArray[Any] = np.empty((len(queries), *first.shape[1:]), first.dtype)

            def fill(block: slice) -> None:
                """Scores of a block of rows."""
                out[block] = of_rows(block)

            for_rows(fill, len(queries), len(self.classes_))
        return out

    def decision_function(self, X: ArrayLike) -> Floats:
        """Logits of the classifier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features. A row that is NaN throughout, as of an unreadable image, gives NaN.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            Log-odds; with two classes those of `classes_[1]`. Single precision for float32 `X`.
        """
        logits = self._in_chunks(X, self._logits)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_log_proba(self, X: ArrayLike) -> Floats:
        """Log-probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features. A row that is NaN throughout, as of an unreadable image, gives NaN.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        return self._in_chunks(X, lambda Z: log_softmax(self._logits(Z).astype(np.float64), axis=1))

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features. A row that is NaN throughout, as of an unreadable image, gives NaN.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Rows sum to one; columns in the order of `classes_`.
        """
        return self._in_chunks(X, lambda Z: softmax_rows(self._logits(Z)))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Most probable class of each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features. A row that is NaN throughout, as of an unreadable image, gets
            `unknown_label`, where the estimator has one.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels from `classes_`.

        Raises
        ------
        ValueError
            If a row is NaN throughout and there is no `unknown_label`.
        """

        def best(Z: Floats) -> Ints:
            """Index of the best class; -1 for none."""
            logits = self._logits(Z)
            return np.where(self._unknown(Z, logits), -1, logits.argmax(axis=1))

        index = self._in_chunks(X, best)
        unknown = index < 0
        if not unknown.any():
            return self.classes_[index]
        return self._with_unknown(index, unknown)

    def _unknown(self, Z: Floats, logits: Floats) -> NDArray[np.bool_]:
        """Which unit rows get no class: those of unreadable images, NaN throughout."""
        return np.isnan(Z[:, 0])  # a checked row is NaN throughout or nowhere

    def _with_unknown(self, index: Ints, unknown: NDArray[np.bool_]) -> NDArray[Any]:
        """Labels with the label for unknowns in the rows that have no feature."""
        if self.unknown_label is None:
            raise ValueError(
                f"NaN throughout: {name_rows(unknown)} of X. Images that could not be read have no "
                "class: leave them out, or set unknown_label where the estimator has it."
            )
        return and_another(self.classes_, self.unknown_label)[index]


class LinearFeatureClassifier(FeatureClassifier):
    """A classifier whose logits are linear in the unit query: `z coef_' + intercept_`."""

    coef_: Floats
    intercept_: Floats

    def _logits(self, Z: Floats) -> Floats:
        logits = Z @ self.coef_.T.astype(Z.dtype, copy=False)
        logits += self.intercept_.astype(Z.dtype, copy=False)
        return logits


def unit_rows_in_double(X: Floats) -> Floats:
    """Unit rows in double precision, made a block at a time: no other copy of many rows."""
    unit: Floats = np.empty(X.shape)

    def fill(block: slice) -> None:
        """Scale a block of rows."""
        unit[block] = unit_rows(X[block].astype(np.float64))

    for_rows(fill, *X.shape)
    return unit


def softmax_rows(logits: Floats) -> Floats:
    """Softmax of each row, in double precision; the logits are lost.

    (SciPy's makes copies, and double-precision exponentials take half the time of the product of
    many queries. Single-precision logits get single-precision ones, where those do not underflow.)
    """
    logits -= logits.max(axis=1, keepdims=True)
    small = logits < SINGLE_EXPONENTS if logits.dtype == np.float32 else None
    tails = None if small is None else np.exp(logits[small], dtype=np.float64)
    np.exp(logits, out=logits)
    proba = logits.astype(np.float64, copy=False)
    if tails is not None:
        proba[small] = tails
    proba *= 1 / proba.sum(axis=1, keepdims=True)
    return proba


def warn_if_equal(P: Floats, classes: NDArray[Any], stacklevel: int = 5) -> None:
    """Warn of classes whose unit text features are equal, and cannot be told apart, or zeros."""
    told = P.any(axis=1)
    if not told.all():
        warnings.warn(
            f"The text of {brief(classes[~told])} is a row of zeros, which tells nothing: give "
            "names or text features.",
            UserWarning,
            stacklevel=stacklevel,
        )
    alike: dict[bytes, list[str]] = {}
    for row, label in zip(P[told].round(6) + 0.0, classes[told], strict=True):  # + 0.0: -0 is 0
        alike.setdefault(row.tobytes(), []).append(str(label))
    groups = [group for group in alike.values() if len(group) > 1]
    if groups:
        others = f", and so is that of {len(groups) - 1} other groups" if len(groups) > 1 else ""
        warnings.warn(
            f"The text of {', '.join(map(repr, groups[0][:5]))} is equal{others}: it cannot tell "
            "them apart. Give names or text features that differ.",
            UserWarning,
            stacklevel=stacklevel,
        )


def refuse_images(X: Any, name: str) -> None:
    """Raise TypeError where X holds images: `CLIPFeatures` was forgotten."""
    kind = getattr(getattr(X, "dtype", None), "kind", "O")
    images = isinstance(X, (str, bytes, os.PathLike)) or getattr(X, "ndim", 2) > 2
    what = type(X).__name__
    sequence = isinstance(X, (list, tuple)) or hasattr(X, "to_numpy") or hasattr(X, "dtype")
    if not images and sequence and kind in "OUS":
        first = next(iter(X.to_numpy() if hasattr(X, "to_numpy") else X), None)
        if isinstance(first, np.ndarray) and first.dtype.kind in "OUS" and first.size == 1:
            first = first.item()
        while isinstance(first, (list, tuple)) and first:  # of several photographs of an item
            first = first[0]
        images = isinstance(first, (str, bytes, os.PathLike)) or hasattr(first, "getpixel")
        images = images or getattr(first, "ndim", 0) > 1
        what = type(first).__name__
    if images:
        raise TypeError(
            f"X holds images ({what}), and {name} takes features, one row of numbers per image: "
            f"put CLIPFeatures before it, make_pipeline(CLIPFeatures(...), {name}(...)); to call a "
            "step of a pipeline alone, give it model[0].transform(images)."
        )
