"""Residuals are at the minimum of their convex problem, written again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning

from skhegraph.hegraph import residuals
from skhegraph.hegraph.residuals import BIAS, fit_residuals
from skhegraph.support import unit_rows


@pytest.mark.parametrize(("n", "width"), [(30, 3), (6, 10)], ids=["n > D", "n < D"])
@pytest.mark.parametrize("penalty", [0.1, 5.0])
def test_minimum_of_the_penalised_loss(
    n: int, width: int, penalty: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residuals, "TOLERANCE", 1e-9)
    monkeypatch.setattr(residuals, "VARIANCE_KEPT", 1 - 1e-12)
    rng = np.random.default_rng(0)
    X, y, weight = unit_rows(rng.normal(size=(n, width))), np.arange(n) % 3, rng.uniform(1, 2, n)
    logits, centre = rng.normal(size=(n, 3)), X.mean(axis=0)
    A = rng.normal(size=(width, width))
    values, axes = np.linalg.eigh(A @ A.T)
    H = axes * np.sqrt(values)
    Z = (X - centre) @ H
    H = H / np.sqrt(np.average((Z**2).sum(axis=1), weights=weight))
    Z = np.column_stack([(X - centre) @ H, np.full(n, BIAS)])

    def loss(flat: np.ndarray) -> float:
        D = flat.reshape(3, width + 1)
        rows = -log_softmax(logits + Z @ D.T, axis=1)[np.arange(n), y]
        return float(weight @ rows + 0.5 * penalty * (flat @ flat))

    best = minimize(loss, np.zeros(3 * (width + 1)), tol=1e-12).x.reshape(3, width + 1)
    got = fit_residuals(X, y, weight, logits, penalty, A, centre)
    queries = rng.normal(size=(5, width))
    want = np.column_stack([(queries - centre) @ H, np.full(5, BIAS)]) @ best.T
    np.testing.assert_allclose(queries @ got.coef.T + got.intercept, want, atol=2e-4)
    assert got.n_steps > 0


def test_too_few_steps_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residuals, "MAX_STEPS", 1)
    X = unit_rows(np.random.default_rng(0).normal(size=(8, 4)))
    with pytest.warns(ConvergenceWarning, match="did not converge in 1 steps: raise penalty"):
        fit_residuals(X, np.arange(8) % 2, np.ones(8), X[:, :2], 1e-6, np.eye(4), X[0])


def test_a_huge_penalty_leaves_the_logits() -> None:
    X = unit_rows(np.random.default_rng(0).normal(size=(8, 4)))
    got = fit_residuals(X, np.arange(8) % 2, np.ones(8), np.zeros((8, 2)), 1e9, np.eye(4), X[0])
    assert np.abs(X @ got.coef.T + got.intercept).max() < 1e-6


def test_equal_rows_stay_finite() -> None:
    X = np.full((4, 3), 3**-0.5)
    got = fit_residuals(
        X, np.array([0, 0, 1, 1]), np.ones(4), np.zeros((4, 2)), 1.0, np.eye(3), X[0]
    )
    assert np.isfinite(got.coef).all() and np.isfinite(got.intercept).all()


def test_single_precision_of_a_large_problem_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X, y = unit_rows(rng.normal(size=(60, 8))), np.arange(60) % 4
    problem = (X, y, np.ones(60), rng.normal(size=(60, 4)), 0.5, np.eye(8), X.mean(axis=0))
    want = fit_residuals(*problem)
    monkeypatch.setattr("skhegraph.parallel.LOGITS_IN_DOUBLE", 10)
    got = fit_residuals(*problem)
    assert got.coef.dtype == np.float64
    np.testing.assert_allclose(X @ got.coef.T, X @ want.coef.T, atol=1e-3)


def test_directions_of_little_variance_are_left_out() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 5)) * [3.0, 1.0, 1.0, 0.2, 0.01]
    weight, centre = np.ones(50), X.mean(axis=0)
    Z, H = residuals.coordinates(X, weight, np.eye(5), centre, np.float64)
    assert Z.shape == (50, 4) and H.shape == (5, 3)  # and the offset
    variance = np.square(Z[:, :-1]).sum() / 50
    assert residuals.VARIANCE_KEPT <= variance < 1
    np.testing.assert_array_equal(Z[:, -1], BIAS)
    # Directions of equal variance are kept or left together, whatever rounding makes of them.
    corners = np.vstack([np.eye(5), -np.eye(5)])
    _, H = residuals.coordinates(corners, np.ones(10), np.eye(5), np.zeros(5), np.float64)
    assert H.shape == (5, 5)
