"""The few-shot protocol as a scikit-learn splitter."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import column_or_1d

from skhegraph._sklearn import BaseShuffleSplit
from skhegraph.labelled_rows import check_labels
from skhegraph.support import Ints


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
            Labels.
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
