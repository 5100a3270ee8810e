"""What a classifier says about images, and what the text alone or logistic regression would say."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from skhegraph.hegraph.classifier import HeGraphClassifier
from skhegraph.inspection.markup import figure, name_of, thumbnail
from skhegraph.support import Floats, Ints, unit_rows

#: Values of C to choose from by folds, and the one without folds: the best of these four at one
#: shot on textures, and near it on pets (CLIP ViT-B/32).
CHOICES_OF_C = (1.0, 10.0, 100.0, 1000.0)
C_WITHOUT_FOLDS = 100.0


@dataclass(frozen=True)
class Answers:
    """What a classifier says about the images that could be read.

    Attributes
    ----------
    clf : HeGraphClassifier
        The classifier.
    images : list of images
        All images.
    features : ndarray of shape (n_readable, n_features)
        Features of those that could be read.
    number : ndarray of shape (n_readable,), intp
        Their numbers in `images`.
    truth : ndarray of shape (n_readable,), intp, or None
        Indices of their true classes.
    """

    clf: HeGraphClassifier
    images: list[Any]
    features: Floats
    number: Ints
    truth: Ints | None
    _thumbnails: dict[int, str | None] = field(default_factory=dict)

    @cached_property
    def log_proba(self) -> Floats:
        """Log-probabilities, shape (n_readable, n_classes)."""
        return self.clf.predict_log_proba(self.features)

    @cached_property
    def predicted(self) -> Ints:
        """Index of the most probable class."""
        return self.log_proba.argmax(axis=1)

    @cached_property
    def confidence(self) -> Floats:
        """Probability of the predicted class."""
        return np.exp(self.log_proba.max(axis=1))

    @cached_property
    def familiarity(self) -> Floats:
        """What `score_samples` gives."""
        return self.clf.score_samples(self.features)

    @property
    def names(self) -> list[str]:
        """Names of the classes."""
        return [str(label) for label in self.clf.classes_]

    def figure(self, i: int, note: str = "") -> str:
        """Picture of readable image `i`, with what it is taken for and what it is."""
        k, named = int(self.number[i]), self.names[self.predicted[i]]
        if k not in self._thumbnails:
            self._thumbnails[k] = thumbnail(self.images[k])
        wrong = self.truth is not None and self.truth[i] != self.predicted[i]
        caption = f"{named}: {100 * self.confidence[i]:.0f} %"
        if self.truth is not None and wrong:
            caption += f", truly {self.names[self.truth[i]]}"
        name = name_of(self.images[k], k)
        return figure(self._thumbnails[k], name, caption, note, bad=wrong)


def zero_shot(clf: HeGraphClassifier, features: Floats) -> Floats | None:
    """Log-probabilities by the text alone; None without text."""
    if not clf.uses_text_:
        return None
    logits = unit_rows(features).astype(np.float64) @ clf.graph_["positive"].T
    found: Floats = log_softmax(clf.logit_scale_ * logits, axis=1)
    return found


def logistic_regression(clf: HeGraphClassifier, features: Floats) -> tuple[Floats, float]:
    """Log-probabilities by logistic regression on the rows that `clf` keeps, and its C.

    A class without rows has probability 0.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    X, y = unit_rows(clf.support_features_).astype(np.float64), clf.support_labels_
    weight = clf.support_weight_ / clf.support_weight_.mean()
    fewest = np.bincount(y)[np.unique(y)].min()

    def fitted(C: float, rows: Any, tol: float = 1e-4) -> Any:
        model = LogisticRegression(C=C, max_iter=1000, tol=tol, class_weight=clf.class_weight)
        with warnings.catch_warnings():  # one shot per class is no regression problem
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            return model.fit(X[rows], clf.classes_[y[rows]], sample_weight=weight[rows])

    def loss(C: float) -> float:
        """Sum over the folds; roughly, which on thousands of rows takes a third of the time."""
        folds = StratifiedKFold(min(fewest, 3), shuffle=True, random_state=0).split(X, y)
        proba = ((fitted(C, a, 1e-3).predict_log_proba(X[b]), y[b]) for a, b in folds)
        columns = np.unique(y)
        return sum(
            -float(p[np.arange(len(t)), np.searchsorted(columns, t)].sum()) for p, t in proba
        )

    best = min(CHOICES_OF_C, key=loss) if fewest > 1 else C_WITHOUT_FOLDS
    found = np.full((len(features), len(clf.classes_)), -np.inf)
    found[:, np.unique(y)] = fitted(best, slice(None)).predict_log_proba(
        unit_rows(features).astype(np.float64)
    )
    return found, best


def reliability(confidence: Floats, right: NDArray[np.bool_]) -> tuple[Floats, Floats, float]:
    """Mean confidence and share right of bins of equal size, and the mean distance of the two."""
    order = np.argsort(confidence, kind="stable")
    bins = np.array_split(order, min(10, max(1, len(order) // 5)))
    said = np.array([confidence[rows].mean() for rows in bins])
    was = np.array([right[rows].mean() for rows in bins])
    size = np.array([len(rows) for rows in bins])
    return said, was, float(np.abs(said - was) @ size / len(order))


def in_turn(groups: Ints, order: Ints, n: int) -> NDArray[np.bool_]:
    """Choose `n` of all: the first of each group in `order`, then the second, and so on."""
    _, code = np.unique(groups[order], return_inverse=True)
    by_group = np.argsort(code, kind="stable")
    rank = np.empty(len(order), dtype=np.intp)
    rank[by_group] = np.arange(len(order)) - np.searchsorted(code[by_group], code[by_group])
    chosen = np.zeros(len(order), dtype=bool)
    chosen[order[np.argsort(rank, kind="stable")[:n]]] = True
    return chosen
