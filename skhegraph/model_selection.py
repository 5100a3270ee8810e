"""Splitters for few-shot classification: the few-shot protocol, and unlabelled samples."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state, indexable
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import column_or_1d

from skhegraph._sklearn import BaseShuffleSplit, safe_indexing
from skhegraph.labelled_rows import check_labels
from skhegraph.labels import is_unlabelled, keep_unlabelled, without_label
from skhegraph.support import Ints


class KeepUnlabelled:
    """Folds of the labelled samples; unlabelled ones are in every training set and no test set.

    For `cross_val_score`, `GridSearchCV` and the like with an estimator that takes the label -1 for
    an unlabelled sample, as :class:`HeGraphClassifier` does: no score counts these.

    Parameters
    ----------
    cv : int, splitter or iterable, default=5
        How the labelled samples are split, as in scikit-learn: an integer makes stratified folds.
        The indices of an iterable of (train, test) count labelled samples alone.

    Notes
    -----
    What counts as unlabelled is as in :meth:`HeGraphClassifier.fit` without `classes`: if there are
    two numbers in all, -1 is a label. `cross_val_predict` refuses this splitter, as it wants an
    answer for every sample: loop over :meth:`split` for the answers.

    Examples
    --------
    >>> from skhegraph import KeepUnlabelled
    >>> y = ["cat", "dog", "cat", "dog", -1, -1]
    >>> for train, test in KeepUnlabelled(cv=2).split(y, y):
    ...     print(train, test)
    [2 3 4 5] [0 1]
    [0 1 4 5] [2 3]
    """

    def __init__(self, cv: Any = 5) -> None:
        self.cv = list(cv) if isinstance(cv, Iterator) else cv

    def __repr__(self) -> str:
        return f"{type(self).__name__}(cv={self.cv!r})"

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[Ints, Ints]]:
        """Yield training and test indices.

        Parameters
        ----------
        X : sequence of length n_samples
            Samples; only their number counts, unless `cv` looks at them.
        y : array-like of shape (n_samples,)
            Labels; -1 for unlabelled samples.
        groups : array-like of shape (n_samples,), default=None
            Groups, for a splitter that has them.

        Yields
        ------
        train, test : ndarray
            Indices, sorted.

        Raises
        ------
        ValueError
            If no sample has a label, or a label is missing.
        """
        X, y, groups = indexable(X, y, groups)
        labelled, others, labels = _by_label(y)
        inner = check_cv(self.cv, labels, classifier=True)
        some = [None if part is None else safe_indexing(part, labelled) for part in (X, groups)]
        for train, test in inner.split(some[0], labels, some[1]):
            yield np.sort(np.concatenate([labelled[train], others])), labelled[test]

    def get_metadata_routing(self) -> Any:
        """What `cv` asks for: groups, if it has them.

        Returns
        -------
        MetadataRequest
            That of `cv`.
        """
        return get_routing_for_object(check_cv(self.cv))

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of splits.

        Parameters
        ----------
        X, y, groups : array-like, default=None
            As in :meth:`split`, for a splitter whose number depends on them.

        Returns
        -------
        int
            As many as `cv` makes of the labelled samples.
        """
        if y is None:
            return int(check_cv(self.cv).get_n_splits(X, y, groups))
        return sum(1 for _ in self.split(y if X is None else X, y, groups))


def _by_label(y: Any) -> tuple[Ints, Ints, list[Any]]:
    """Samples with a label and without, and the labels of the first."""
    check_labels(y, or_unlabelled=True)
    labels = column_or_1d(keep_unlabelled(y))
    if all(map(is_unlabelled, labels)):
        raise ValueError("y holds -1 alone: no sample has a label that could be split.")
    unlabelled = without_label(labels)
    return np.flatnonzero(~unlabelled), np.flatnonzero(unlabelled), labels[~unlabelled].tolist()


class FewShotSplit(BaseShuffleSplit):
    """Draw `n_shots` training samples of each class; the rest is the test set.

    Parameters
    ----------
    n_shots : int, default=16
        Training samples per class.
    n_splits : int, default=5
        Number of independent draws.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph import FewShotSplit
    >>> y = np.repeat(["cat", "dog"], 10)
    >>> train, test = next(FewShotSplit(n_shots=2, random_state=0).split(y, y))
    >>> [str(label) for label in y[train]], len(test)
    (['cat', 'cat', 'dog', 'dog'], 16)
    """

    def __init__(
        self,
        n_shots: int = 16,
        n_splits: int = 5,
        *,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(n_splits=n_splits, random_state=random_state)
        self.n_shots = n_shots

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[Ints, Ints]]:
        """Yield training and test indices.

        Parameters
        ----------
        X : sequence of length n_samples
            Samples; only their number counts.
        y : array-like of shape (n_samples,)
            Labels; -1 is one of them, unless :class:`KeepUnlabelled` takes this splitter.
        groups : object
            Ignored.

        Yields
        ------
        train : ndarray of shape (n_shots * n_classes,)
            Training indices, sorted by class.
        test : ndarray
            All other indices, sorted.

        Raises
        ------
        ValueError
            If `n_shots` is not a positive integer, or a class has no more than `n_shots` samples.
        """
        yield from super().split(X, y, groups)

    def _iter_indices(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[Ints, Ints]]:
        """Draw the splits."""
        if not isinstance(self.n_shots, Integral) or self.n_shots < 1:
            raise ValueError(f"n_shots={self.n_shots!r}: expected a positive integer.")
        check_labels(y)
        y = column_or_1d(y)
        classes, index, counts = np.unique(y, return_inverse=True, return_counts=True)
        if counts.min() <= self.n_shots:
            scarce = str(classes[counts.argmin()])
            raise ValueError(
                f"n_shots={self.n_shots}: class {scarce!r} has only {counts.min()} samples, and "
                "one at least must be left for the test set. Lower n_shots or add samples."
            )
        rng = check_random_state(self.random_state)
        for _ in range(self.n_splits):
            drawn = [
                rng.choice(np.flatnonzero(index == c), self.n_shots, replace=False)
                for c in range(len(classes))
            ]
            train = np.concatenate(drawn)
            yield train, np.setdiff1d(np.arange(len(y)), train)
