"""What every classifier of the package shares: the text source, labels and validation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

DEFAULT_LOGIT_SCALE = 100.0
#: Queries scored at a time.
QUERIES_PER_CHUNK = 1024
#: Bound of every scalar parameter: beyond it single precision gives no sensible result.
LARGEST = 1e6
Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.intp]


@dataclass(frozen=True)
class Support:
    """A validated support set with the text nodes of its classes.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features), float64
        Unit rows.
    y : ndarray of shape (n_samples,), intp
        Class indices into `classes_`.
    sample_weight : ndarray of shape (n_samples,), float64
        Positive weights; rows of weight zero have been dropped.
    positive, negative : ndarray of shape (n_classes, n_features), float64
        Unit text nodes `P` and `N` (method, section 1).
    logit_scale : float
        CLIP's frozen `exp(logit_scale)`, `tau`.
    """

    X: Floats
    y: Ints
    sample_weight: Floats
    positive: Floats
    negative: Floats
    logit_scale: float

    @property
    def visual(self) -> Floats:
        """Visual nodes `V`, the weighted class means, shape (n_classes, n_features)."""
        return class_means(self.X, self.y, self.sample_weight)

    @property
    def onehot(self) -> Floats:
        """Weighted one-hot labels, shape (n_samples, n_classes)."""
        labels = np.zeros((len(self.y), len(self.positive)))
        labels[np.arange(len(self.y)), self.y] = self.sample_weight
        return labels


def unit_rows(X: ArrayLike) -> Floats:
    """Scale each row to unit L2 length; a zero row stays zero."""
    X = np.asarray(X, dtype=np.float64)
    norms = np.linalg.norm(X, axis=-1, keepdims=True)
    return X / np.where(norms > 0, norms, 1.0)


def class_means(X: Floats, y: Ints, weight: Floats) -> Floats:
    """Weighted mean row of each class, of which every one has a row: the visual nodes `V`."""
    labels = csr_array((weight, (y, np.arange(len(y)))))
    return (labels @ X) / np.bincount(y, weights=weight)[:, None]


def check_number(
    name: str, value: Any, low: float, high: float = LARGEST, *, closed: bool = True
) -> None:
    """Raise ValueError unless `value` is a real number in [low, high], or (low, high] if open."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not real or not low <= value <= high or (value == low and not closed):
        bracket = "[" if closed else "("
        raise ValueError(f"{name}={value!r}: expected a number in {bracket}{low:g}, {high:g}].")


class CLIPClassifier(ClassifierMixin, BaseEstimator):
    """Base of the classifiers that join image features with the text features of class names.

    Subclasses list the parameters below in their own `__init__`, call `_validate_support` at the
    top of `fit`, and implement `_logits`.

    Parameters
    ----------
    model_name, pretrained : str
        The CLIP whose text tower encodes the prompts, named as in :class:`CLIPFeatures`.
    text_features : {"clip", "prototypes"} or pair of array-like, default="clip"
        Where the text nodes come from.
    class_names : None, sequence of str, or mapping of label to str, default=None
        Names that go into the prompts; None takes string labels as they are.
    templates, negative_templates : str, sequence of str, or mapping, default="photo", None
        See :mod:`skhegraph.clip.prompts`; None takes the negatives of the `templates` preset.
    logit_scale : float or None, default=None
        `tau`; None takes the CLIP's own, 100 where there is none.
    device : str, default="auto"
        Where the text tower (and training, if any) runs.
    """

    def __init__(
        self,
        model_name: str = "ViT-B-32",
        pretrained: str | None = "laion2b_s34b_b79k",
        *,
        text_features: str | tuple[ArrayLike, ArrayLike] = "clip",
        class_names: Sequence[str] | Mapping[Any, str] | None = None,
        templates: str | Sequence[str] | Mapping[str, Any] = "photo",
        negative_templates: str | Sequence[str] | Mapping[str, Any] | None = None,
        logit_scale: float | None = None,
        device: str = "auto",
    ) -> None:
        self.model_name = model_name
        self.pretrained = pretrained
        self.text_features = text_features
        self.class_names = class_names
        self.templates = templates
        self.negative_templates = negative_templates
        self.logit_scale = logit_scale
        self.device = device

    # --- fit side -----------------------------------------------------------------------------

    def _validate_support(
        self, X: Any, y: Any, sample_weight: ArrayLike | None = None, *, distinct: bool = False
    ) -> Support:
        """Validate the support set, set `classes_` and `logit_scale_`, and resolve the text.

        With `distinct`, equal rows of a class become one row with the sum of their weights, in an
        order that depends on the values alone.
        """
        if self.logit_scale is not None:
            check_number("logit_scale", self.logit_scale, 0, closed=False)
        X, y = validate_data(self, X, y, dtype=np.float64)
        with warnings.catch_warnings():  # one shot a class is no regression problem
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            check_classification_targets(y)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        keep = weight > 0
        self.classes_, index = np.unique(y[keep], return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y holds one class ({self.classes_[0]}); "
                f"{type(self).__name__} needs samples of at least two classes."
                if len(self.classes_)
                else "Every sample_weight is zero: no sample of any class is left."
            )
        X, weight = unit_rows(X[keep]), weight[keep]
        if distinct:
            X, index, weight = distinct_rows(X, index, weight)
        positive, negative, scale = self._text_nodes(X, index, weight)
        self.logit_scale_ = scale if self.logit_scale is None else float(self.logit_scale)
        return Support(
            X, index, weight, unit_rows(positive), unit_rows(negative), self.logit_scale_
        )

    def _text_nodes(self, X: Floats, y: Ints, weight: Floats) -> tuple[Floats, Floats, float]:
        """Return positive nodes, negative nodes and logit scale of the text source."""
        source = self.text_features
        if isinstance(source, str) and source == "prototypes":
            return (*prototype_text(X, y, weight), DEFAULT_LOGIT_SCALE)
        if isinstance(source, str) and source == "clip":
            return self._clip_text(X.shape[1])
        if isinstance(source, str) or not isinstance(source, (tuple, list)) or len(source) != 2:
            got = repr(source) if isinstance(source, str) else f"<{type(source).__name__}>"
            raise ValueError(
                f"text_features={got}: expected 'clip', 'prototypes', or a pair of arrays "
                "(positive, negative), each of shape (n_classes, n_features)."
            )
        return (*self._given_text(source, X.shape[1]), DEFAULT_LOGIT_SCALE)

    def _given_text(self, source: Sequence[ArrayLike], n_features: int) -> tuple[Floats, Floats]:
        """Check a pair of precomputed text-feature arrays."""
        shape = (len(self.classes_), n_features)
        arrays = []
        for name, array in zip(("positive", "negative"), source, strict=True):
            try:
                array = np.asarray(array, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"text_features: the {name} array is not numeric ({error}); expected shape "
                    f"{shape}, one row a class in the order of classes_."
                ) from error
            if array.shape != shape or not np.isfinite(array).all():
                what = "NaN or infinite values" if array.shape == shape else f"shape {array.shape}"
                raise ValueError(
                    f"text_features: the {name} array has {what}; expected finite values of shape "
                    f"{shape}, one row a class in the order of classes_, as wide as X."
                )
            arrays.append(array)
        return arrays[0], arrays[1]

    def _clip_text(self, n_features: int) -> tuple[Floats, Floats, float]:
        """Encode the prompts of the class names with the named CLIP."""
        from skhegraph.clip.model import load_backbone
        from skhegraph.clip.prompts import PRESETS, text_nodes

        names = self._resolve_class_names()
        negative = self.negative_templates
        if negative is None:
            preset = isinstance(self.templates, str) and self.templates in PRESETS
            negative = self.templates if preset else "photo"
        backbone = load_backbone(self.model_name, self.pretrained, self.device)
        if backbone.n_features != n_features:
            raise ValueError(
                f"X has {n_features} features, but the text features of "
                f"model_name={self.model_name!r}, pretrained={self.pretrained!r} have "
                f"{backbone.n_features}: image and text must come from one CLIP. Give the same "
                "model_name and pretrained to CLIPFeatures and to "
                f"{type(self).__name__}, or build both steps with make_hegraph_pipeline; for "
                "features that no CLIP made, set text_features='prototypes'."
            )
        P = text_nodes(backbone, names, self.templates)
        N = text_nodes(backbone, names, negative, negative=True)
        return P, N, backbone.logit_scale

    def _resolve_class_names(self) -> list[str]:
        """One name a class, in the order of `classes_`."""
        given = self.class_names
        if given is None:
            if not all(isinstance(label, str) for label in self.classes_):
                raise ValueError(
                    f"The labels ({self.classes_[0]}, ...) are not strings, so they give no "
                    "prompts: set class_names to a list of names in the order of classes_ or to a "
                    "mapping from label to name (or text_features='prototypes' to use no text)."
                )
            names = [str(label) for label in self.classes_]
        elif isinstance(given, Mapping):
            missing = [str(label) for label in self.classes_ if label not in given]
            if missing:
                raise ValueError(
                    f"class_names has no name for {missing[:5]}: the mapping must name every "
                    "label in y."
                )
            names = [given[label] for label in self.classes_]
        else:
            usable = isinstance(given, Iterable) and not isinstance(given, str)
            names = list(given) if usable else []
            if len(names) != len(self.classes_):
                raise ValueError(
                    f"class_names={given!r} holds {len(names)} names for {len(self.classes_)} "
                    "classes: give one a class, in the order of classes_ (sorted labels), or a "
                    "mapping from label to name."
                )
        for label, name in zip(self.classes_, names, strict=True):
            if not isinstance(name, str) or not name.strip():
                raise ValueError(
                    f"Class {str(label)!r} has no name (got {name!r}): every class needs a "
                    "non-empty string in class_names."
                )
        return names

    # --- predict side: NumPy only -------------------------------------------------------------

    def _logits(self, Z: Floats) -> Floats:
        """Class logits of unit-row queries, shape (n_queries, n_classes), a new array."""
        raise TypeError(f"{type(self).__name__} must define _logits.")

    def _in_chunks(self, X: ArrayLike, score: Callable[[Floats], NDArray[Any]]) -> NDArray[Any]:
        """Validate queries and score their unit rows a chunk at a time: memory stays bounded."""
        check_is_fitted(self)
        queries: Floats = validate_data(self, X, dtype=np.float64, reset=False)
        first = score(unit_rows(queries[:QUERIES_PER_CHUNK]))
        out = np.empty((len(queries), *first.shape[1:]), dtype=first.dtype)
        out[: len(first)] = first
        for start in range(len(first), len(queries), QUERIES_PER_CHUNK):
            chunk = slice(start, start + QUERIES_PER_CHUNK)
            out[chunk] = score(unit_rows(queries[chunk]))
        return out

    def decision_function(self, X: ArrayLike) -> Floats:
        """Logits of the fused classifier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            Log-odds; with two classes those of `classes_[1]`.
        """
        logits = self._in_chunks(X, self._logits)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_log_proba(self, X: ArrayLike) -> Floats:
        """Log-probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        return self._in_chunks(X, lambda Z: log_softmax(self._logits(Z)))

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Rows sum to one; columns in the order of `classes_`.
        """
        return self._in_chunks(X, self._proba)

    def _proba(self, Z: Floats) -> Floats:
        logits = self._logits(Z)
        return softmax(logits, out=logits)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Most probable class of each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels from `classes_`.
        """
        best = self._in_chunks(X, lambda Z: self._logits(Z).argmax(axis=1))
        return self.classes_[best]


def distinct_rows(X: Floats, y: Ints, weight: Floats) -> tuple[Floats, Ints, Floats]:
    """Merge equal rows of a class by adding their weights; sort rows by class, then by value."""
    first: dict[tuple[int, bytes], int] = {}
    group = [
        first.setdefault((int(c), x.tobytes()), i)
        for i, (c, x) in enumerate(zip(y, X, strict=True))
    ]
    kept = [first[key] for key in sorted(first)]
    total: Floats = np.zeros(len(y))
    np.add.at(total, group, weight)
    return X[kept], y[kept], total[kept]


def prototype_text(X: Floats, y: Ints, weight: Floats) -> tuple[Floats, Floats]:
    """Stand-ins for text nodes where there is no text (method, section 1).

    `P_c` is the mean of class c, `N_c` the mean of the other classes' means.
    """
    P = class_means(X, y, weight)
    return P, (P.sum(axis=0) - P) / (len(P) - 1)


def log_softmax(logits: Floats) -> Floats:
    """Row-wise log-softmax."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def softmax(logits: Floats, out: Floats | None = None) -> Floats:
    """Row-wise softmax; `out` may be `logits`."""
    proba: Floats = np.subtract(logits, logits.max(axis=1, keepdims=True), out=out)
    np.exp(proba, out=proba)
    proba /= proba.sum(axis=1, keepdims=True)
    return proba
