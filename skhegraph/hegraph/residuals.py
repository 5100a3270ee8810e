"""What neither branch explains: one residual per class, a convex problem."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from skhegraph.parallel import for_rows, map_rows, precision_of, sum_rows
from skhegraph.support import Floats, Ints

#: Length of the constant feature against that of a row: an offset moves every query of every
#: class, and is held ten times (1 / BIAS^2) as tightly as a direction.
BIAS = 0.3
#: Steps of L-BFGS at most, and the share of the first gradient at which it stops: a tenth of it
#: takes half as many steps again, and changes no log-loss by more than 0.001.
MAX_STEPS, TOLERANCE = 200, 1e-2
#: Mean loss (nats) below which there is nothing left to learn, and little but rounding.
LEAST_LOSS = 1e-6
#: Share of the variance of the rows, as the prior sees it, that residuals live in. Features of a
#: real CLIP have it in 20 to 210 of 512 directions; all of them change no log-loss by 0.005.
VARIANCE_KEPT = 0.99
#: Least length of the rows about their centre: below it they are equal, but for rounding.
LEAST_LENGTH = 1e-5
#: Corrections that L-BFGS keeps: each is as large as two sets of residuals.
N_CORRECTIONS = 5


class Residuals(NamedTuple):
    """Residuals `D` of the class weights, their offsets, and the steps of L-BFGS."""

    coef: Floats
    intercept: Floats
    n_steps: int


def coordinates(
    X: Floats, weight: Floats, root: Floats, centre: Floats, dtype: Any
) -> tuple[Floats, Floats]:
    """Coordinates `Z = ((X - centre) H, BIAS)` of the rows, and `H`.

    `H H'` is the prior covariance `root root'` within the principal directions that hold
    `VARIANCE_KEPT` of the rows, scaled so that all directions give a row unit length on average.
    """

    def squares_of(block: slice) -> Floats:
        """Weighted products of the features of a block of rows."""
        away = (X[block] - centre).astype(dtype, copy=False)
        return ((weight[block, None].astype(dtype) * away).T @ away).astype(np.float64)

    values, axes = np.linalg.eigh(root.T @ sum_rows(squares_of, *X.shape) @ root)
    values = np.maximum(values, 0)
    # From the least on; directions of equal variance stay together.
    n_left = int(np.sum(np.cumsum(values) <= (1 - VARIANCE_KEPT) * values.sum()))
    kept = values > (1 - 1e-6) * values[n_left:].min(initial=np.inf)
    length = max(float(np.sqrt(values.sum() / weight.sum())), LEAST_LENGTH)
    H = root @ axes[:, kept] / length
    Z: Floats = np.empty((len(X), H.shape[1] + 1), dtype)
    Z[:, -1] = BIAS

    def fill(block: slice) -> None:
        """Coordinates of a block of rows."""
        Z[block, :-1] = (X[block] - centre) @ H

    for_rows(fill, *X.shape)
    return Z, H


def fit_residuals(
    X: Floats,
    y: Ints,
    weight: Floats,
    logits: Floats,
    penalty: float,
    root: Floats,
    centre: Floats,
) -> Residuals:
    """Minimise `sum_i w_i CE(logits_i + D z_i) + penalty |D|^2 / 2` over one row `d_c` per class.

    `z = (H'(x - centre), BIAS)` with the :func:`coordinates` `H`: `D` is likely along the
    directions in which classes are known to differ, and 0 where the rows hardly do.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Unit rows.
    y : ndarray of shape (n_samples,)
        Class indices.
    weight : ndarray of shape (n_samples,)
        Weights of the rows.
    logits : ndarray of shape (n_samples, n_classes)
        Fused logits of the rows, the visual ones leave-one-out.
    penalty : float
        Strength of the ridge.
    root : ndarray of shape (n_features, n_features)
        Root of the prior covariance of a residual.
    centre : ndarray of shape (n_features,)
        Where a residual changes no logit but by its offset.

    Returns
    -------
    Residuals
        To be added to the coefficients and intercepts of a linear classifier.
    """
    n_rows, n_classes = logits.shape
    total = float(weight.sum())
    dtype = precision_of(logits.size)
    Z, H = coordinates(X, weight, root, centre, dtype)
    logits, weight = logits.astype(dtype, copy=False), weight.astype(dtype, copy=False)

    def of_rows(block: slice, D: Floats) -> tuple[float, Floats]:
        """Loss and gradient of a block of rows, without the ridge."""
        fused, labels, w = Z[block] @ D.T, y[block], weight[block]
        fused += logits[block]
        fused -= fused.max(axis=1, keepdims=True)
        each = np.arange(len(labels))
        own = fused[each, labels]
        np.exp(fused, out=fused)
        sums = fused.sum(axis=1)
        # In double precision: what a line search compares is far smaller than the loss.
        loss = float(w.astype(np.float64) @ (np.log(sums, dtype=np.float64) - own))
        fused *= (w / sums)[:, None]
        fused[each, labels] -= w
        return loss, fused.T @ Z[block]

    def objective(flat: Floats) -> tuple[float, Floats]:
        """Penalised loss and gradient, per unit of weight."""
        D = flat.reshape(n_classes, -1)
        few = D.astype(dtype, copy=False)
        loss, gradient = 0.5 * penalty * float(flat @ flat), penalty * D
        for of_block in map_rows(lambda block: of_rows(block, few), n_rows, n_classes):
            loss += of_block[0]
            gradient += of_block[1]
        gradient /= total
        return loss / total, gradient.ravel()

    start = np.zeros(n_classes * Z.shape[1])
    first = objective(start)
    slope = TOLERANCE * float(np.abs(first[1]).max()) if first[0] > LEAST_LOSS else np.inf
    options = {"maxiter": MAX_STEPS, "gtol": slope, "ftol": 0.0, "maxcor": N_CORRECTIONS}
    result = minimize(
        lambda flat: objective(flat) if flat.any() else first,
        start,
        jac=True,
        method="L-BFGS-B",
        options=options,
    )
    if result.nit >= MAX_STEPS:
        warnings.warn(
            f"The residuals did not converge in {MAX_STEPS} steps: raise penalty.",
            ConvergenceWarning,
            stacklevel=5,
        )
    D = result.x.reshape(n_classes, -1)
    coef = D[:, :-1] @ H.T
    intercept = BIAS * D[:, -1] - coef @ centre
    return Residuals(coef, intercept, int(result.nit))
