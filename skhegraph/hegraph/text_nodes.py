"""The trained text nodes: messages through one matrix, and a free residual of each class.

What the positive node of class c receives (:mod:`skhegraph.hegraph.class_graph`) passes through
one matrix `W` that all classes share, as in the described network, and each class has a residual
`r_c` of its own. Messages are linear where the described ones have tanh, so that both are the
minimum of a convex problem,

    D = M W' + R,    sum_i w_i CE(logits_i + D z_i) + penalty (|W|^2 + |R|^2) / 2,

in which support row i hears its own class without itself: `M_c(i)` is the message of the visual
node that was made without the row.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from skhegraph.hegraph.class_graph import Received
from skhegraph.hegraph.near import Near
from skhegraph.parallel import for_rows, in_turn, map_rows, precision_of, sum_rows
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


class Trained(NamedTuple):
    """Change `D` of the class weights, of their offsets, and the steps of L-BFGS."""

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


def fit_text_nodes(
    X: Floats,
    y: Ints,
    weight: Floats,
    logits: Callable[[slice], Near],
    n_classes: int,
    penalty: float,
    root: Floats,
    centre: Floats,
    messages: Received,
) -> Trained:
    """Minimise `sum_i w_i CE(logits_i + D z_i) + penalty (|W|^2 + |R|^2) / 2`, `D = M W' + R`.

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
    logits : callable
        Fused logits of a block of the rows, the visual ones held out, at the classes near to it.
    n_classes : int
        Number of classes.
    penalty : float
        Strength of the ridge.
    root : ndarray of shape (n_features, n_features)
        Root of the prior covariance of a residual.
    centre : ndarray of shape (n_features,)
        Where `D` changes no logit but by its offset.
    messages : Received
        `M`, and what a row's absence changes in it.

    Returns
    -------
    Trained
        To be added to the coefficients and intercepts of a linear classifier.
    """
    total, dtype = float(weight.sum()), precision_of(len(y) * n_classes)
    Z, H = coordinates(X, weight, root, centre, dtype)
    blocks = list(map_rows(lambda block: (block, logits(block)), len(y), n_classes))
    weight = weight.astype(dtype, copy=False)
    M, shift = (part.astype(dtype, copy=False) for part in messages)
    if not M.any():  # no message: residuals alone
        M, shift = M[:, :0], shift[:, :0]
    n_received, hears_itself = M.shape[1], bool(shift.any())

    def of_rows(block: slice, near: Near, W: Floats, D: Floats) -> tuple[float, Floats, Floats]:
        """Loss of a block of rows, and its gradients in `D` and, by the shifts, in `W`."""
        z, labels, w = Z[block], near.own, weight[block]
        each = np.arange(len(labels))
        fused = z @ D[near.classes].T
        fused += near.logits
        if hears_itself:
            fused[each, labels] += (shift[block] * (z @ W.T)).sum(axis=1)
        largest = np.maximum(fused.max(axis=1), near.others)
        fused -= largest[:, None]
        own = fused[each, labels]
        np.exp(fused, out=fused)
        sums = fused.sum(axis=1) + np.exp(near.others - largest)
        # In double precision: what a line search compares is far smaller than the loss.
        loss = float(w.astype(np.float64) @ (np.log(sums, dtype=np.float64) - own))
        fused *= (w / sums)[:, None]  # of the softmax, against the labels
        fused[each, labels] -= w
        in_W = (shift[block] * fused[each, labels, None]).T @ z if hears_itself else 0 * W
        return loss, fused.T @ z, in_W

    def objective(flat: Floats) -> tuple[float, Floats]:
        """Penalised loss and gradient, per unit of weight."""
        both = flat.astype(dtype, copy=False).reshape(n_received + n_classes, -1)
        W, R = both[:n_received], both[n_received:]
        D = M @ W + R
        loss, gradient = 0.5 * penalty * float(flat @ flat), penalty * flat.reshape(both.shape)
        all_in_D = np.zeros_like(D)
        parts = in_turn(lambda part: of_rows(*part, W, D), blocks)
        for (_, near), (of_block, in_D, in_W) in zip(blocks, parts, strict=True):
            loss += of_block
            all_in_D[near.classes] += in_D
            gradient[:n_received] += in_W
        gradient[:n_received] += M.T @ all_in_D
        gradient[n_received:] += all_in_D
        gradient /= total
        return loss / total, gradient.ravel()

    both, n_steps = minimise(objective, (n_received + n_classes, Z.shape[1]))
    D = M @ both[:n_received] + both[n_received:]
    coef = D[:, :-1] @ H.T
    return Trained(coef, BIAS * D[:, -1] - coef @ centre, n_steps)


def minimise(
    objective: Callable[[Floats], tuple[float, Floats]], shape: tuple[int, int]
) -> tuple[Floats, int]:
    """Minimum of a smooth convex function of a matrix from 0 on, by L-BFGS, and its steps."""
    start = np.zeros(shape[0] * shape[1])
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
            f"The text nodes did not converge in {MAX_STEPS} steps: raise penalty.",
            ConvergenceWarning,
            stacklevel=6,
        )
    return result.x.reshape(shape), int(result.nit)
