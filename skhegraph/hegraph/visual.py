"""Closed-form visual classifier: a linear discriminant with a shrunk within-class covariance.

It takes the place of the cache (Eq. 8): the class means of the support are its prototypes, and
the shared within-class covariance its metric, as in GDA-CLIP (Wang et al. 2024), whose shrinkage
strength is chosen here on held-out folds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skhegraph.support import Floats, Ints, Support, class_means

#: `f` in `s = f k / (1 + f k)`: prior ratio of the variance between classes to that within them,
#: which sets how fast the mean of k shots is trusted.
BETWEEN_SHARE = 0.05
#: Folds that hold out rows of the support set.
N_FOLDS = 10


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
    y : ndarray of shape (n_samples,)
        Class indices; every class has a row.
    weight : ndarray of shape (n_samples,)
        Positive weights.
    """

    def __init__(self, X: Floats, y: Ints, weight: Floats) -> None:
        shots, n = np.bincount(y, weights=weight), weight.sum()
        means = class_means(X, y, weight)
        self.n_features = X.shape[1]
        self.df = max(n - len(shots), 0.0)
        self.mean_shrinkage = float(np.mean(BETWEEN_SHARE * shots / (1 + BETWEEN_SHARE * shots)))
        residual = X - means[y]
        residual *= np.sqrt(weight)[:, None]
        self.scatter, self.axes = _principal_axes(residual)
        between = shots @ np.square(means - shots @ means / n)
        total = (self.scatter.sum() + between.sum()) / max(n - 1, 1)
        self.variance = max(total / self.n_features, np.finfo(np.float64).tiny ** 0.5)
        self.centre = means.mean(axis=0)
        self.centred = means - self.centre
        self.projected = self.centred @ self.axes.T

    def at(self, shrinkage: float) -> Linear:
        """Linear classifier with prior strength `shrinkage` (`nu`)."""
        scale, share = self._metric(shrinkage)
        MS = scale * (self.centred - (share * self.projected) @ self.axes)
        quadratic = np.einsum("cd,cd->c", MS, self.centred)
        return Linear(MS, -0.5 * quadratic - MS @ self.centre)

    def logits(self, Z: Floats, shrinkage: float) -> Floats:
        """Logits `at(shrinkage)(Z)`, in fewer steps where the rows are fewer than the classes."""
        scale, share = self._metric(shrinkage)
        Z = Z - self.centre
        cross = Z @ self.centred.T - (share * (Z @ self.axes.T)) @ self.projected.T
        own = np.square(self.centred).sum(axis=1) - np.square(self.projected) @ share
        return scale * (cross - 0.5 * own)

    def _metric(self, shrinkage: float) -> tuple[float, Floats]:
        """`s S^-1` by the spectral form of R, `scale (I - axes' diag(share) axes)`.

        Only the axes that R spans differ from the ridge.
        """
        prior = shrinkage * self.n_features
        ridge = prior * self.variance
        scale = self.mean_shrinkage * (self.df + prior) / ridge
        return scale, self.scatter / (self.scatter + ridge)


def _principal_axes(residual: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues and unit row eigenvectors of `residual' residual`, by the smaller Gram matrix."""
    n, d = residual.shape
    if n >= d:
        values, vectors = np.linalg.eigh(residual.T @ residual)
        return np.maximum(values, 0.0), vectors.T
    values, left = np.linalg.eigh(residual @ residual.T)
    keep = values > values[-1] * n * np.finfo(np.float64).eps
    values, left = values[keep], left[:, keep]
    return values, (left / np.sqrt(values)).T @ residual


def fold_of_rows(y: Ints, n_folds: int, rng: np.random.RandomState) -> Ints:
    """Fold that holds each row out, -1 for the only row of a class (never held out).

    The rows of a class go to different folds, as far as there are folds; folds without a row are
    left out, so the numbers have no gaps.
    """
    folds = np.full(len(y), -1)
    counts = np.bincount(y)
    for c in np.flatnonzero(counts > 1):
        rows = rng.permutation(np.flatnonzero(y == c))
        folds[rows] = (np.arange(len(rows)) + rng.randint(n_folds)) % n_folds
    held_out = folds >= 0
    folds[held_out] = np.unique(folds[held_out], return_inverse=True)[1]
    return folds


class HeldOutDiscriminant:
    """Discriminants that each leave one fold out, and the one of all rows."""

    def __init__(self, support: Support, rng: np.random.RandomState) -> None:
        X, y, weight = support.X, support.y, support.sample_weight
        self.support = support
        self.folds = fold_of_rows(y, N_FOLDS, rng)
        self.whole = ShrunkDiscriminant(X, y, weight)
        kept = [self.folds != fold for fold in range(self.folds.max() + 1)]
        self.parts = [ShrunkDiscriminant(X[rows], y[rows], weight[rows]) for rows in kept]

    def logits(self, shrinkage: float, rows: Ints) -> Floats:
        """Held-out logits of support rows; zeros for a row that is never held out."""
        logits = np.zeros((len(rows), self.support.n_classes))
        for fold, part in enumerate(self.parts):
            mine = self.folds[rows] == fold
            logits[mine] = part.logits(self.support.X[rows[mine]], shrinkage)
        return logits
