"""What neither branch explains: one residual per class, a convex problem."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from skhegraph.parallel import map_rows
from skhegraph.support import Floats, Ints

#: Length of the constant feature against that of a row: an offset moves every query of every
#: class, and is held ten times (1 / BIAS^2) as tightly as a direction.
BIAS = 0.3
#: Steps of L-BFGS at most, and the share of the first gradient at which it stops: a tenth of it
#: takes half as many steps again, and changes no log-loss by more than 0.001.
MAX_STEPS, TOLERANCE = 200, 1e-2
#: Mean loss (nats) below which there is nothing left to learn, and little but rounding.
LEAST_LOSS = 1e-6
#: Logits above which the loss is computed in single precision: half the time and memory, and the
#: rounding is far below the tolerance.
LOGITS_IN_DOUBLE = 4_000_000
#: Least length of the rows about their centre: below it they are equal, but for rounding.
LEAST_LENGTH = 1e-5
#: Rows whose logits are held at a time.
ROWS_AT_ONCE = 1024
#: Directions of the rows shorter than this share of the longest are rounding.
RANK_TOLERANCE = 1e-5


class Residuals(NamedTuple):
    """Residuals `D` of the class weights, their offsets, and the steps of L-BFGS."""

    coef: Floats
    intercept: Floats
    n_steps: int


def coordinates(
    X: Floats, weight: Floats, omega: Floats, centre: Floats, dtype: Any
) -> tuple[Floats, Floats]:
    """Coordinates `Z = ((X - centre) H, BIAS)` of the rows, of unit length on average, and `H`."""
    values, axes = np.linalg.eigh(omega)
    H = axes * np.sqrt(np.maximum(values, 0))
    Z: Floats = np.empty((len(X), H.shape[1] + 1), dtype)

    def fill(block: slice) -> float:
        """Coordinates of a block of rows; the sum of their weighted squares."""
        within = (X[block] - centre) @ H
        Z[block, :-1] = within
        return float(weight[block] @ np.square(within).sum(axis=1))

    squares = sum(map_rows(fill, len(X), ROWS_AT_ONCE))
    length = max(float(np.sqrt(squares / weight.sum())), LEAST_LENGTH)
    Z /= length
    Z[:, -1] = BIAS
    return Z, H / length


def fit_residuals(
    X: Floats,
    y: Ints,
    weight: Floats,
    logits: Floats,
    penalty: float,
    omega: Floats,
    centre: Floats,
) -> Residuals:
    """Minimise `sum_i w_i CE(logits_i + D z_i) + penalty |D|^2 / 2` over one row `d_c` per class.

    `z = (H'(x - centre), BIAS)` with `H H'` proportional to `omega`, scaled so that a row has unit
    length on average: `D` is likely along the directions in which classes are known to differ.

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
    omega : ndarray of shape (n_features, n_features)
        Prior covariance of a residual.
    centre : ndarray of shape (n_features,)
        Where a residual changes no logit but by its offset.

    Returns
    -------
    Residuals
        To be added to the coefficients and intercepts of a linear classifier.
    """
    n_rows, n_classes = logits.shape
    total = float(weight.sum())
    dtype = np.float32 if logits.size > LOGITS_IN_DOUBLE else np.float64
    Z, H = coordinates(X, weight, omega, centre, dtype)
    basis = np.eye(Z.shape[1])
    if n_rows < Z.shape[1]:  # the minimum lies in the span of the rows
        _, sizes, basis = np.linalg.svd(Z, full_matrices=False)
        basis = basis[sizes > RANK_TOLERANCE * sizes[0]]
        Z = Z @ basis.T
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
        few = D.astype(Z.dtype, copy=False)
        parts = map_rows(lambda block: of_rows(block, few), n_rows, ROWS_AT_ONCE)
        loss = sum(part[0] for part in parts) + 0.5 * penalty * float(flat @ flat)
        gradient = penalty * D
        for _, of_part in parts:
            gradient += of_part
        return loss / total, gradient.ravel() / total

    start = np.zeros(n_classes * Z.shape[1])
    first = objective(start)
    slope = TOLERANCE * float(np.abs(first[1]).max()) if first[0] > LEAST_LOSS else np.inf
    options = {"maxiter": MAX_STEPS, "gtol": slope, "ftol": 0.0}
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
    D = result.x.reshape(n_classes, -1) @ basis
    coef = D[:, :-1] @ H.T
    intercept = BIAS * D[:, -1] - coef @ centre
    return Residuals(coef, intercept, int(result.nit))
