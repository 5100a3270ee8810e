"""Matrix and residuals are at the minimum of their convex problem, written again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning

from skhegraph.hegraph import text_nodes
from skhegraph.hegraph.class_graph import Received
from skhegraph.hegraph.text_nodes import BIAS, fit_text_nodes
from skhegraph.support import unit_rows

NOTHING = Received(np.zeros((2, 1)), np.zeros((0, 1)))


@pytest.mark.parametrize(("n", "width"), [(30, 3), (6, 10)], ids=["n > D", "n < D"])
@pytest.mark.parametrize("penalty", [0.1, 5.0])
@pytest.mark.parametrize("messages", ["none", "some", "of itself"])
def test_minimum_of_the_penalised_loss(
    n: int, width: int, penalty: float, messages: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_nodes, "TOLERANCE", 1e-9)
    monkeypatch.setattr(text_nodes, "VARIANCE_KEPT", 1 - 1e-12)
    rng = np.random.default_rng(0)
    X, y, weight = unit_rows(rng.normal(size=(n, width))), np.arange(n) % 3, rng.uniform(1, 2, n)
    logits, centre = rng.normal(size=(n, 3)), X.mean(axis=0)
    A = rng.normal(size=(width, width))
    values, axes = np.linalg.eigh(A @ A.T)
    H = axes * np.sqrt(values)
    Z = (X - centre) @ H
    H = H / np.sqrt(np.average((Z**2).sum(axis=1), weights=weight))
    Z = np.column_stack([(X - centre) @ H, np.full(n, BIAS)])
    M = np.zeros((3, 2)) if messages == "none" else rng.normal(size=(3, 2))
    shift = rng.normal(size=(n, 2)) * (messages == "of itself")
    r = len(Z[0])

    def change(flat: np.ndarray, i: int) -> np.ndarray:
        """Logits that the trained nodes add to row i, which hears its class without itself."""
        W, R = flat[: 2 * r].reshape(2, r), flat[2 * r :].reshape(3, r)
        heard = M.copy()
        heard[y[i]] += shift[i]
        return (heard @ W + R) @ Z[i]

    def loss(flat: np.ndarray) -> float:
        rows = [-log_softmax(logits[i] + change(flat, i))[y[i]] for i in range(n)]
        return float(weight @ rows + 0.5 * penalty * (flat @ flat))

    best = minimize(loss, np.zeros(5 * r), tol=1e-10).x
    D = M @ best[: 2 * r].reshape(2, r) + best[2 * r :].reshape(3, r)
    got = fit_text_nodes(X, y, weight, logits, penalty, A, centre, Received(M, shift))
    queries = rng.normal(size=(5, width))
    want = np.column_stack([(queries - centre) @ H, np.full(5, BIAS)]) @ D.T
    np.testing.assert_allclose(queries @ got.coef.T + got.intercept, want, atol=1e-3)
    assert got.n_steps > 0


def test_too_few_steps_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_nodes, "MAX_STEPS", 1)
    X = unit_rows(np.random.default_rng(0).normal(size=(8, 4)))
    with pytest.warns(ConvergenceWarning, match="did not converge in 1 steps: raise penalty"):
        fit_text_nodes(X, np.arange(8) % 2, np.ones(8), X[:, :2], 1e-6, np.eye(4), X[0], NOTHING)


def test_a_huge_penalty_leaves_the_logits() -> None:
    X = unit_rows(np.random.default_rng(0).normal(size=(8, 4)))
    rows = (X, np.arange(8) % 2, np.ones(8), np.zeros((8, 2)))
    got = fit_text_nodes(*rows, 1e9, np.eye(4), X[0], NOTHING)
    assert np.abs(X @ got.coef.T + got.intercept).max() < 1e-6


def test_equal_rows_stay_finite() -> None:
    X = np.full((4, 3), 3**-0.5)
    got = fit_text_nodes(
        X, np.array([0, 0, 1, 1]), np.ones(4), np.zeros((4, 2)), 1.0, np.eye(3), X[0], NOTHING
    )
    assert np.isfinite(got.coef).all() and np.isfinite(got.intercept).all()


def test_single_precision_of_a_large_problem_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X, y = unit_rows(rng.normal(size=(60, 8))), np.arange(60) % 4
    messages = Received(rng.normal(size=(4, 8)), 0.1 * rng.normal(size=(60, 8)))
    problem = (X, y, np.ones(60), rng.normal(size=(60, 4)), 0.5, np.eye(8), X[0], messages)
    want = fit_text_nodes(*problem)
    monkeypatch.setattr("skhegraph.parallel.LOGITS_IN_DOUBLE", 10)
    got = fit_text_nodes(*problem)
    assert got.coef.dtype == np.float64
    np.testing.assert_allclose(X @ got.coef.T, X @ want.coef.T, atol=1e-3)


def test_directions_of_little_variance_are_left_out() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 5)) * [3.0, 1.0, 1.0, 0.2, 0.01]
    weight, centre = np.ones(50), X.mean(axis=0)
    Z, H = text_nodes.coordinates(X, weight, np.eye(5), centre, np.float64)
    assert Z.shape == (50, 4) and H.shape == (5, 3)  # and the offset
    variance = np.square(Z[:, :-1]).sum() / 50
    assert text_nodes.VARIANCE_KEPT <= variance < 1
    np.testing.assert_array_equal(Z[:, -1], BIAS)
    # Directions of equal variance are kept or left together, whatever rounding makes of them.
    corners = np.vstack([np.eye(5), -np.eye(5)])
    _, H = text_nodes.coordinates(corners, np.ones(10), np.eye(5), np.zeros(5), np.float64)
    assert H.shape == (5, 5)
