"""Matrix and residuals are at the minimum of their convex problem, written again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning

from skhegraph.hegraph import near, text_nodes
from skhegraph.hegraph.class_graph import Received
from skhegraph.hegraph.near import Near, near_classes
from skhegraph.hegraph.text_nodes import BIAS, fit_text_nodes
from skhegraph.support import unit_rows

NOTHING = Received(np.zeros((2, 1)), np.zeros((0, 1)))


def given(logits: np.ndarray, y: np.ndarray) -> tuple[Callable[[slice], Near], int]:
    """Logits of blocks of rows, and the number of classes."""
    return lambda block: near_classes(logits[block].copy(), y[block]), logits.shape[1]


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
    far = rng.normal(size=n)  # what classes that are not near add
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
        rows = [-log_softmax([*(logits[i] + change(flat, i)), far[i]])[y[i]] for i in range(n)]
        return float(weight @ rows + 0.5 * penalty * (flat @ flat))

    best = minimize(loss, np.zeros(5 * r), tol=1e-10).x
    D = M @ best[: 2 * r].reshape(2, r) + best[2 * r :].reshape(3, r)

    def near(rows: slice) -> Near:
        return Near(slice(None), y[rows], logits[rows], far[rows])

    got = fit_text_nodes(X, y, weight, near, 3, penalty, A, centre, Received(M, shift))
    queries = rng.normal(size=(5, width))
    want = np.column_stack([(queries - centre) @ H, np.full(5, BIAS)]) @ D.T
    np.testing.assert_allclose(queries @ got.coef.T + got.intercept, want, atol=1e-3)
    assert got.n_steps > 0


def test_too_few_steps_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_nodes, "MAX_STEPS", 1)
    X = unit_rows(np.random.default_rng(0).normal(size=(8, 4)))
    with pytest.warns(ConvergenceWarning, match="did not converge in 1 steps: raise penalty"):
        y = np.arange(8) % 2
        rows = (X, y, np.ones(8), *given(X[:, :2], y))
        fit_text_nodes(*rows, 1e-6, np.eye(4), X[0], NOTHING)


def test_a_huge_penalty_leaves_the_logits() -> None:
    X = unit_rows(np.random.default_rng(0).normal(size=(8, 4)))
    y = np.arange(8) % 2
    rows = (X, y, np.ones(8), *given(np.zeros((8, 2)), y))
    got = fit_text_nodes(*rows, 1e9, np.eye(4), X[0], NOTHING)
    assert np.abs(X @ got.coef.T + got.intercept).max() < 1e-6


def test_equal_rows_stay_finite() -> None:
    X = np.full((4, 3), 3**-0.5)
    y = np.array([0, 0, 1, 1])
    rows = (X, y, np.ones(4), *given(np.zeros((4, 2)), y))
    got = fit_text_nodes(*rows, 1.0, np.eye(3), X[0], NOTHING)
    assert np.isfinite(got.coef).all() and np.isfinite(got.intercept).all()


def test_single_precision_of_a_large_problem_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X, y = unit_rows(rng.normal(size=(60, 8))), np.arange(60) % 4
    messages = Received(rng.normal(size=(4, 8)), 0.1 * rng.normal(size=(60, 8)))
    logits = rng.normal(size=(60, 4))
    problem = [X, y, np.ones(60), *given(logits, y), 0.5, np.eye(8), X[0], messages]
    want = fit_text_nodes(*problem)
    monkeypatch.setattr("skhegraph.parallel.LOGITS_IN_DOUBLE", 10)
    problem[3:5] = given(logits.astype(np.float32), y)
    got = fit_text_nodes(*problem)
    assert got.coef.dtype == np.float64
    size = np.abs(X @ want.coef.T).max()  # rounding ends L-BFGS elsewhere within its tolerance
    np.testing.assert_allclose(X @ got.coef.T, X @ want.coef.T, atol=text_nodes.TOLERANCE * size)


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


def test_of_very_many_classes_those_near_to_a_block_are_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    nodes = 6 * rng.normal(size=(40, 8))
    y = np.repeat(np.arange(40), 3)
    X = unit_rows(nodes[y] + 2 * rng.normal(size=(120, 8)))
    logits = 12 * X @ unit_rows(nodes).T
    messages = Received(rng.normal(size=(40, 8)), 0.1 * rng.normal(size=(120, 8)))
    problem = (X, y, np.ones(120), *given(logits, y), 0.5, np.eye(8), X[0], messages)
    want = fit_text_nodes(*problem)
    monkeypatch.setattr("skhegraph.parallel.ROWS_AT_ONCE", 9)
    monkeypatch.setattr(near, "ALL_NEAR", 0)
    for least, tolerance in ((1e-9, 1e-6), (1e-3, 0.05)):
        monkeypatch.setattr(near, "LEAST_RATIO", least)
        got = fit_text_nodes(*problem)
        change, exact = (X @ part.coef.T + part.intercept for part in (got, want))
        assert np.abs(change - exact).max() < tolerance * np.abs(exact).max()
        n_near = np.mean([len(problem[3](slice(i, i + 9)).classes) for i in range(0, 120, 9)])
    assert n_near < 25
