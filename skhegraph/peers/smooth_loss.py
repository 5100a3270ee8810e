"""Cross-entropy with its gradient, and L-BFGS, for the peers that minimise a smooth loss."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning

from skhegraph.support import Floats, Support


def cross_entropy(logits: Floats, support: Support) -> tuple[float, Floats]:
    """Weighted mean cross-entropy and its gradient in the logits, shape (n, C)."""
    weight = support.sample_weight / support.sample_weight.sum()
    log_proba = log_softmax(logits, axis=1)
    rows = np.arange(len(support.y))
    gradient = np.exp(log_proba)
    gradient[rows, support.y] -= 1.0
    return float(-weight @ log_proba[rows, support.y]), gradient * weight[:, None]


def minimise(
    objective: Callable[[Floats], tuple[float, Floats]],
    start: Floats,
    *,
    max_iter: int,
    tol: float,
    name: str,
) -> tuple[Floats, int]:
    """Minimise a smooth function of a matrix by L-BFGS; return the minimum and the steps taken."""

    def flat(values: Floats) -> tuple[float, Floats]:
        loss, gradient = objective(values.reshape(start.shape))
        return loss, gradient.ravel()

    options = {"maxiter": int(max_iter), "gtol": tol, "ftol": 64 * np.finfo(float).eps}
    result = minimize(flat, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    if result.status == 1:
        warnings.warn(
            f"{name} did not converge in max_iter={max_iter} steps: raise max_iter or tol.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return result.x.reshape(start.shape), max(1, int(result.nit))
