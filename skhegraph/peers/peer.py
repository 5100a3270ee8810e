"""What every peer does with a support set."""

from __future__ import annotations

from typing import TypeVar

from numpy.typing import ArrayLike

from skhegraph.feature_classifier import FeatureClassifier, LinearFeatureClassifier, all_or_nothing
from skhegraph.support import Support

Self = TypeVar("Self", bound="UnweightedPeer")


class UnweightedPeer(FeatureClassifier):
    """A classifier that is made of a validated support set."""

    def _fit(self, support: Support) -> None:
        """Set the fitted attributes."""
        raise TypeError(f"{type(self).__name__} must define _fit.")

    def fit(self: Self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit on a labelled support set.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Support features; rows are scaled to unit length.
        y : array-like of shape (n_samples,)
            Labels.

        Returns
        -------
        object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the input, the text features or a parameter is invalid.
        """
        with all_or_nothing(self) as fitted:
            fitted._fit(fitted._validate_support(X, y))
        return self


class Peer(UnweightedPeer):
    """A peer whose rows may have weights."""

    def fit(self: Self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit on a labelled support set.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Support features; rows are scaled to unit length.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights; a weight of two is the same as the row twice.

        Returns
        -------
        object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the input, the text features or a parameter is invalid.
        """
        with all_or_nothing(self) as fitted:
            fitted._fit(fitted._validate_support(X, y, sample_weight))
        return self


class LinearPeer(LinearFeatureClassifier, Peer):
    """A peer whose logits are linear in the unit query."""
