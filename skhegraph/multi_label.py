"""Several labels for one image: for each a classifier of two classes, the thing and its absence."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted, validate_data

from skhegraph._sklearn import ClassifierMixin, check_sample_weight
from skhegraph.feature_classifier import all_or_nothing, refuse_images
from skhegraph.hegraph.classifier import HeGraphClassifier
from skhegraph.labelled_rows import check_labels, name_rows, unreadable_rows
from skhegraph.labels import brief
from skhegraph.prompted_text import PromptedText
from skhegraph.support import Floats, Ints
from skhegraph.text_source import Asked, Prototypes
from skhegraph.versioned import VersionedEstimator

__all__ = ["MultiLabelHeGraphClassifier"]

_ABSENT, _PRESENT = 0, 1
_EXPECTED = "expected 0 and 1 in an indicator matrix (n_samples, n_labels)"
_SETS = "Sets of labels become one with sklearn.preprocessing.MultiLabelBinarizer"


class MultiLabelHeGraphClassifier(ClassifierMixin, VersionedEstimator):
    """Several labels for one image, with a :class:`HeGraphClassifier` of two classes for each.

    The classes are the thing and its absence, and both have a text: the positive prompts of the
    label, "a photo of a cat.", and its negative ones, "a photo of no cat.".

    Parameters
    ----------
    estimator : HeGraphClassifier or None, default=None
        What is cloned for each label. Its `class_names` are those of the labels, its `templates`
        and `negative_templates` say that they are there and that they are not, and its
        `text_features` may give both, as for classes that are these labels, in the order of the
        columns of `y`. Its `class_weight` is of 0 (absent) and 1 (present): the default takes both
        as equally likely before an image is seen, None as often as they are among the rows. None
        takes ``HeGraphClassifier()``.
    n_jobs : int or None, default=None
        Labels that are fitted at a time, as in :class:`sklearn.multiclass.OneVsRestClassifier`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_labels,)
        Labels: the columns of a frame, else the numbers of the columns.
    estimators_ : list of n_labels HeGraphClassifier
        Classifier of each label, with the classes 0 (absent) and 1 (present).
    n_features_in_ : int
        Feature width.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Feature names, if `X` had string column names.

    See Also
    --------
    HeGraphClassifier : One label for each image.
    sklearn.multiclass.OneVsRestClassifier : The same for classifiers that know no text.

    Notes
    -----
    The labels are taken as independent of each other. A row of `X` that is NaN throughout, as of
    an unreadable image, is left out of a fit, with a warning.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph import HeGraphClassifier, MultiLabelHeGraphClassifier
    >>> X = np.eye(3)[[0, 0, 1, 1, 2, 2]] + np.eye(3)[[0, 2, 1, 2, 2, 2]]
    >>> Y = np.eye(3, dtype=int)[[0, 0, 1, 1, 2, 2]] | np.eye(3, dtype=int)[[0, 2, 1, 2, 2, 2]]
    >>> clf = MultiLabelHeGraphClassifier(HeGraphClassifier(text_features="prototypes"))
    >>> clf.fit(X, Y).predict([[1, 0, 1]])
    array([[1, 0, 1]])
    """

    # What the HTML display links to: the method.
    _doc_link_module = "skhegraph"
    _doc_link_template = "https://arxiv.org/abs/2410.07854"

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [HeGraphClassifier, None],
        "n_jobs": [Integral, None],
    }

    estimators_: list[HeGraphClassifier]

    def __init__(
        self, estimator: HeGraphClassifier | None = None, *, n_jobs: int | None = None
    ) -> None:
        self.estimator = estimator
        self.n_jobs = n_jobs

    def fit(
        self, X: ArrayLike, y: Any, sample_weight: ArrayLike | None = None
    ) -> MultiLabelHeGraphClassifier:
        """Fit a classifier for each label.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features; rows are scaled to unit length.
        y : array-like, sparse matrix or frame of shape (n_samples, n_labels)
            1 where an image has a label, and 0 where it has not. Columns of a frame name the
            labels. A label that all rows have, or none, is told by its text.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights relative to each other.

        Returns
        -------
        MultiLabelHeGraphClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If the input, the text source or a parameter is invalid, or if a label that all rows
            have, or none, has no text.
        TypeError
            If `X` holds images in place of features.
        OSError
            If the weights of the text tower cannot be had.
        """
        self._validate_params()
        estimator = HeGraphClassifier() if self.estimator is None else clone(self.estimator)
        _check_no_unknown(estimator)
        with all_or_nothing(self) as fitted:
            rows = fitted._rows(X, reset=True)
            indicator, labels = _indicator(y)
            check_consistent_length(rows, indicator)
            weight = check_sample_weight(
                sample_weight, rows, dtype=np.float64, ensure_non_negative=True
            )
            readable = _readable(rows)
            rows, indicator, weight = rows[readable], indicator[readable], weight[readable]
            texts = _texts(estimator, rows.shape[1], labels)
            if texts[0] is None:
                _check_both(indicator[weight > 0], labels)
            done = Parallel(n_jobs=self.n_jobs)(
                delayed(_fit_label)(estimator, rows, column, weight, text)
                for column, text in zip(indicator.T, texts, strict=True)
            )
            _warn_by_label([told for _, told in done], labels)
            fitted.classes_ = labels
            fitted.estimators_ = [clf for clf, _ in done]
        return self

    def _rows(self, X: ArrayLike, *, reset: bool) -> Floats:
        """Validated rows; NaN throughout for unreadable images."""
        refuse_images(X, type(self).__name__)
        rows: Floats = validate_data(
            self, X, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan", reset=reset
        )
        return rows

    def _of_each(self, method: str, X: ArrayLike) -> list[NDArray[Any]]:
        """What a method of the classifier of each label gives for queries."""
        check_is_fitted(self)
        rows = self._rows(X, reset=False)
        return [getattr(clf, method)(rows) for clf in self.estimators_]

    def decision_function(self, X: ArrayLike) -> Floats:
        """Log-odds of each label.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features. A row that is NaN throughout, as of an unreadable image, gives NaN.

        Returns
        -------
        ndarray of shape (n_samples, n_labels)
            In the order of `classes_`. Single precision for float32 `X`.
        """
        return np.column_stack(self._of_each("decision_function", X))

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Probability of each label, whatever the others are.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features. A row that is NaN throughout, as of an unreadable image, gives NaN.

        Returns
        -------
        ndarray of shape (n_samples, n_labels)
            In the order of `classes_`; rows need not sum to one.
        """
        return np.column_stack([proba[:, _PRESENT] for proba in self._of_each("predict_proba", X)])

    def predict(self, X: ArrayLike) -> Ints:
        """Labels whose probability is above one half.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features.

        Returns
        -------
        ndarray of shape (n_samples, n_labels), int64
            1 for each label that an image has, 0 for the others, in the order of `classes_`.

        Raises
        ------
        ValueError
            If a row is NaN throughout, as of an unreadable image.
        """
        log_odds = self.decision_function(X)
        if (unknown := np.isnan(log_odds[:, 0])).any():
            raise ValueError(
                f"NaN throughout: {name_rows(unknown)} of X. Images that could not be read have no "
                "labels: leave them out; predict_proba gives NaN for them."
            )
        return (log_odds > 0).astype(np.int64)

    def __sklearn_tags__(self) -> Any:
        """Describe the target to scikit-learn: an indicator matrix."""
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output = False
        tags.target_tags.multi_output = True
        tags.target_tags.two_d_labels = True
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.multi_label = True
        return tags


def _check_no_unknown(estimator: HeGraphClassifier) -> None:
    """Refuse a label for unknown images: they have no label."""
    for name in ("unknown_label", "unknown_threshold"):
        if (value := getattr(estimator, name)) is not None:
            raise ValueError(
                f"estimator has {name}={value!r}, and an image of nothing known gets 0 for every "
                "label: leave it None."
            )


def _indicator(y: Any) -> tuple[Ints, NDArray[Any]]:
    """Check an indicator matrix; return it dense, and the labels of its columns.

    Raises
    ------
    ValueError
        If it is none.
    """
    if y is None:
        raise ValueError("The estimator requires y to be passed, but the target y is None.")
    try:
        given = y.toarray() if issparse(y) else np.asarray(y)
    except ValueError as error:
        raise ValueError(f"y holds rows of several lengths; {_EXPECTED}. {_SETS}.") from error
    if given.ndim != 2 or not given.shape[1]:
        raise ValueError(
            f"y has shape {given.shape} ({type_of_target(given)}); {_EXPECTED}. {_SETS}; for one "
            "class of each image there is HeGraphClassifier."
        )
    if given.dtype.kind == "O":
        known = np.frompyfunc(_is_zero_or_one, 1, 1)(given).astype(bool)
    else:
        known = np.isin(given, (0, 1))
    if not known.all():
        raise ValueError(f"y holds {given[~known].tolist()[0]!r}; {_EXPECTED}.")
    return given.astype(np.int64), _names(list(getattr(y, "columns", range(given.shape[1]))))


def _names(columns: list[Any]) -> NDArray[Any]:
    """Check the names of the labels.

    Raises
    ------
    ValueError
        If one is missing, of another type than others, or there twice.
    """
    check_labels(columns, "columns of y")
    names = np.array(columns)
    if names.ndim != 1:
        raise ValueError(f"y has columns {brief(columns)}: give one name for each column.")
    unique, counts = np.unique(names, return_counts=True)
    if len(unique) < len(names):
        raise ValueError(f"y names labels twice: {brief(unique[counts > 1])}. Rename or drop them.")
    return names


def _is_zero_or_one(value: Any) -> bool:
    return isinstance(value, (Real, np.bool_)) and value in (0, 1)


def _readable(X: Floats) -> NDArray[np.bool_]:
    """Rows of images that could be read; the others are left out, with one warning."""
    unreadable = unreadable_rows(X)
    if unreadable.all():
        raise ValueError(
            "No row of X is left to fit on: each is NaN throughout (an unreadable image)."
        )
    if unreadable.any():
        warnings.warn(
            f"NaN throughout (unreadable images), left out of the fit: {name_rows(unreadable)} of "
            "X.",
            UserWarning,
            stacklevel=3,
        )
    return ~unreadable


def _texts(
    estimator: HeGraphClassifier, n_features: int, labels: NDArray[Any]
) -> Sequence[Floats | None]:
    """Text features of the absence of each label and of the label; None where there is no text.

    What `estimator` says of text is taken out of it, but for the scale.
    """
    source = estimator._text()
    if isinstance(source, Prototypes):
        return [None] * len(labels)
    prompts = isinstance(source, PromptedText)
    if prompts and estimator.class_names is None and labels.dtype.kind != "U":
        raise ValueError(
            f"y names no labels ({labels[0]}, ...), so there are no prompts: set class_names of "
            "the estimator to a list in the order of the columns, give a frame whose columns are "
            "the names (cross_val_predict makes an array of it), or text_features='prototypes'."
        )
    none = np.empty((0, n_features)), np.empty(0, dtype=np.intp), np.empty(0)
    with np.errstate(invalid="ignore"):
        present, absent, scale, *_ = source.nodes(Asked(labels, labels, *none))
    if np.isnan(absent).any():
        raise ValueError(
            "text_features gives the text of one label, and none of its absence: give a pair "
            "(present, absent)."
        )
    if estimator.logit_scale is None and estimator.text_weight != 0:
        estimator.set_params(logit_scale=scale)
    estimator.set_params(class_names=None, templates="photo", negative_templates=None)
    estimator.set_params(text_features="prototypes")
    return list(np.stack([absent, present], axis=1))


def _check_both(indicator: Ints, labels: NDArray[Any]) -> None:
    """Raise ValueError where all rows have a label, or none, and there is no text."""
    alone = indicator.all(axis=0) | ~indicator.any(axis=0)
    if len(indicator) and alone.any():
        raise ValueError(
            f"Of {brief(labels[alone])} y has one class alone, in all rows or in none, and "
            "text_features='prototypes' has no text to know the other by: give images of both, or "
            "text, or leave these labels out."
        )


def _fit_label(
    estimator: HeGraphClassifier, X: Floats, y: Ints, weight: Floats, text: Floats | None
) -> tuple[HeGraphClassifier, list[tuple[str, type[Warning]]]]:
    """Fit a clone for one label; return it with what it warned of, which does not name the label.

    `text` has a row for its absence and one for the label itself.
    """
    clf: HeGraphClassifier = clone(estimator)
    classes = None if text is None else [_ABSENT, _PRESENT]
    if text is not None:
        clf.set_params(text_features=text)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clf.fit(X, y, weight, classes=classes)
    return clf, [(str(warning.message), warning.category) for warning in caught]


def _warn_by_label(told: list[list[tuple[str, type[Warning]]]], labels: NDArray[Any]) -> None:
    """Warn once of what the classifiers of some labels warned of."""
    of: dict[tuple[str, type[Warning]], list[Any]] = {}
    for label, warned in zip(labels, told, strict=True):
        for warning in dict.fromkeys(warned):
            of.setdefault(warning, []).append(label)
    for (message, category), some in of.items():
        warnings.warn(f"Of the labels {brief(some)}: {message}", category, stacklevel=3)
