"""Fusion weights against brute force, and the two summaries by hand."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
from scipy.special import log_softmax

from skhegraph.hegraph.fusion import (
    PRIOR_STRENGTH,
    TEXT_WIDTH,
    VISUAL_WIDTH,
    fit_fusion_weights,
    information_gain,
    wrong_class_spread,
)

N, C = 40, 4
Y = np.arange(N) % C
WEIGHT = 1.0 + np.arange(N) % 3


def informative(strength: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(N, C)) + strength * np.eye(C)[Y]


def objective(
    log_a: float, log_b: float, text: np.ndarray, visual: np.ndarray | None, centre: float
) -> float:
    """Penalised held-out log-loss, written again."""
    logits = np.exp(log_a) * text
    penalty = (log_a / TEXT_WIDTH[1 if log_a > 0 else 0]) ** 2
    if visual is not None:
        logits = logits + np.exp(log_b) * visual
        penalty += ((log_b - centre) / VISUAL_WIDTH) ** 2
    rows = -log_softmax(logits, axis=1)[np.arange(N), Y]
    return float(WEIGHT @ rows + PRIOR_STRENGTH * penalty)


@pytest.mark.parametrize("start", [None, 0.5])
def test_optimum_by_brute_grid(start: float | None) -> None:
    text, visual = informative(1.5, 0), informative(1.0, 1) * 3
    weights = fit_fusion_weights(text, visual, Y, WEIGHT, 0.4, start)
    grid = np.linspace(-4, 3, 141)
    losses = np.array([[objective(a, b, text, visual, log(0.4)) for b in grid] for a in grid])
    i, j = np.unravel_index(losses.argmin(), losses.shape)
    assert weights.loss <= losses.min() + 1e-6
    assert abs(log(weights.text) - grid[i]) <= 0.05
    assert abs(log(weights.visual) - grid[j]) <= 0.05
    at_optimum = objective(log(weights.text), log(weights.visual), text, visual, log(0.4))
    np.testing.assert_allclose(weights.loss, at_optimum, rtol=1e-10)


def test_gradient_vanishes_at_the_optimum() -> None:
    text, visual = informative(1.5, 0), informative(1.0, 1)
    weights = fit_fusion_weights(text, visual, Y, WEIGHT)
    a, b, h = log(weights.text), log(weights.visual), 1e-4

    def f(log_a: float, log_b: float) -> float:
        return objective(log_a, log_b, text, visual, 0.0)

    assert abs(f(a + h, b) - f(a - h, b)) / (2 * h) < 2e-2
    assert abs(f(a, b + h) - f(a, b - h)) / (2 * h) < 2e-2
    assert f(a + 0.1, b) > f(a, b) < f(a, b + 0.1)
    assert f(a - 0.1, b) > f(a, b) < f(a, b - 0.1)


def test_without_visual() -> None:
    text = informative(1.5, 0)
    weights = fit_fusion_weights(text, None, Y, WEIGHT)
    grid = np.linspace(-8, 3, 1101)
    losses = [objective(a, 0.0, text, None, 0.0) for a in grid]
    assert weights.visual == 0
    assert abs(log(weights.text) - grid[np.argmin(losses)]) <= 0.01
    np.testing.assert_allclose(weights.loss, min(losses), rtol=1e-5)


def test_useless_text_counts_little_and_good_text_much() -> None:
    useless = fit_fusion_weights(informative(0.0, 0) * 30, None, Y, WEIGHT)
    good = fit_fusion_weights(informative(8.0, 0) * 30, None, Y, WEIGHT)
    assert useless.text * 30 < 0.3
    assert good.text * 30 > 1.0
    both = fit_fusion_weights(informative(0.0, 0) * 30, informative(3.0, 1), Y, WEIGHT)
    assert both.text < 0.1 < 1 < both.visual


def test_no_rows_gives_the_prior() -> None:
    empty = np.empty((0, C))
    weights = fit_fusion_weights(empty, empty, np.empty(0, dtype=int), np.empty(0), 0.25)
    np.testing.assert_allclose(
        [weights.text, weights.visual, weights.loss], [1, 0.25, 0], atol=1e-6
    )


def test_wrong_class_spread_by_hand() -> None:
    logits = np.array([[9.0, 1.0, 3.0], [5.0, -7.0, 1.0]])
    # Wrong logits 1, 3 about 2 and 5, 1 about 3: deviations 1, 1, 2, 2.
    assert wrong_class_spread(logits, np.array([0, 1])) == pytest.approx(sqrt(10 / 4))


def test_wrong_class_spread_ignores_the_right_logit_and_offsets() -> None:
    logits = informative(0.0, 0)
    moved = logits + np.arange(N)[:, None]
    moved[np.arange(N), Y] += 100
    assert wrong_class_spread(moved, Y) == pytest.approx(wrong_class_spread(logits, Y))


def test_wrong_class_spread_of_two_classes_by_hand() -> None:
    # One wrong logit a row: both logits about their mean, deviations 1, 1, 3, 3.
    logits = np.array([[1.0, 3.0], [10.0, 4.0]])
    assert wrong_class_spread(logits, np.array([0, 1])) == pytest.approx(sqrt(20 / 4))


def test_wrong_class_spread_of_constant_logits_is_positive() -> None:
    assert 0 < wrong_class_spread(np.zeros((3, 3)), np.arange(3)) < 1e-6


def test_information_gain_by_hand() -> None:
    # Scaled by 2: softmax (3/4, 1/4) and (1/10, 9/10) of the right and the wrong class.
    text = np.array([[log(3), 0.0], [log(9), 0.0]]) / 2
    gain = information_gain(text, 2.0, np.array([0, 0]), np.array([1.0, 3.0]))
    assert gain == pytest.approx(log(2) + (log(3 / 4) + 3 * log(9 / 10)) / 4)


def test_information_gain_of_useless_text_is_zero() -> None:
    assert information_gain(np.ones((N, C)), 5.0, Y, WEIGHT) == pytest.approx(0, abs=1e-12)
    assert information_gain(informative(-3.0, 0), 5.0, Y, WEIGHT) == 0  # worse than a guess
