"""Closed-form visual classifier: a linear discriminant with a shrunk within-class covariance.

It takes the place of the cache (method, Eq. 8) in the default settings: the class means of the
support are its prototypes, and the shared within-class covariance its metric, as in GDA-CLIP
(Wang et al. 2024), whose shrinkage strength is chosen here on held-out folds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh

from skhegraph.base import Floats, class_means

#: Prior share of the variance that lies between classes; sets how fast one more shot is trusted.
BETWEEN_SHARE = 0.05


class Linear(NamedTuple):
    """Logits `Z @ coef.T + intercept`."""

    coef: Floats
    intercept: Floats

    def __call__(self, Z: Floats) -> Floats:
        """Logits of unit-row queries, shape (n_queries, n_classes)."""
        return Z @ self.coef.T + self.intercept


class ShrunkDiscriminant:
    """Statistics of a support set from which a discriminant of any shrinkage is read off.

    With means `m_c`, their centre `mu`, residual scatter `R` with `df` degrees of freedom, mean
    variance `t` and shrinkage `nu`:

        S = (R + nu D t I) / (df + nu D)
        logits_c(z) = s (z - mu)' S^-1 (m_c - mu) - s (m_c - mu)' S^-1 (m_c - mu) / 2

    where `s`, the mean of `f k_c / (1 + f k_c)` over classes of `k_c` shots, grows with the shots.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Unit rows.
    onehot : ndarray of shape (n_samples, n_classes)
        Weighted one-hot labels; every class has a positive total.
    """

    def __init__(self, X: Floats, onehot: Floats) -> None:
        shots, weight = onehot.sum(axis=0), onehot.sum(axis=1)
        self.means = class_means(X, onehot)
        self.centre = self.means.mean(axis=0)
        self.n_features = X.shape[1]
        self.df = max(weight.sum() - len(shots), 0.0)
        grand = weight @ X / weight.sum()
        total = (weight @ (X - grand) ** 2).sum() / max(weight.sum() - 1, 1)
        self.variance = max(total / self.n_features, np.finfo(np.float64).tiny ** 0.5)
        self.mean_shrinkage = float(np.mean(BETWEEN_SHARE * shots / (1 + BETWEEN_SHARE * shots)))
        residual = np.sqrt(weight)[:, None] * (X - self.means[onehot.argmax(axis=1)])
        self.scatter, self.axes = _principal_axes(residual)

    def at(self, shrinkage: float) -> Linear:
        """Linear classifier with prior strength `shrinkage` (`nu`)."""
        prior = shrinkage * self.n_features
        ridge = prior * self.variance
        M = self.means - self.centre
        # M S^-1 by the spectral form of R: only the axes R spans differ from the ridge.
        MS = M - (M @ self.axes.T) * (self.scatter / (self.scatter + ridge)) @ self.axes
        MS *= self.mean_shrinkage * (self.df + prior) / ridge
        return Linear(MS, -0.5 * (MS * M).sum(axis=1) - MS @ self.centre)


def _principal_axes(residual: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues and unit row eigenvectors of `residual' residual`, by the smaller Gram matrix."""
    n, d = residual.shape
    if n >= d:
        values, vectors = eigh(residual.T @ residual)
        return np.maximum(values, 0.0), vectors.T
    values, left = eigh(residual @ residual.T)
    keep = values > values[-1] * n * np.finfo(np.float64).eps
    values, left = values[keep], left[:, keep]
    return values, (left / np.sqrt(values)).T @ residual
