"""Fusion weights against brute force, and what they are estimated on."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
from scipy.special import log_softmax

from skhegraph.hegraph.fusion import (
    LEAST_SPREAD,
    LOGITS_FOR_FUSION,
    ROWS_FOR_FUSION,
    Prior,
    calibration_rows,
    fit_fusion,
    fit_fusion_weights,
    shots_per_class,
    usual_visual_weight,
    wrong_class_spread,
)
from skhegraph.hegraph.priors import LIKELIHOOD_SHARE, SHOTS_POWER, VISUAL_MEDIAN
from skhegraph.hegraph.visual import VisualModel
from skhegraph.support import Support, unit_rows

N, C = 40, 4
Y = np.arange(N) % C
WEIGHT = 1.0 + np.arange(N) % 3


def informative(strength: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(N, C)) + strength * np.eye(C)[Y]


def objective(log_a: float, log_b: float, text: np.ndarray, visual: np.ndarray) -> float:
    """Penalised log-loss with medians 0.8 and 0.4, written again."""
    logits = np.exp(log_a) * text + np.exp(log_b) * visual
    rows = -log_softmax(logits, axis=1)[np.arange(N), Y]
    a, b = log_a - log(0.8), log_b - log(0.4)
    return float(WEIGHT @ rows + 0.5 * (a / (0.3 if a > 0 else 2.0)) ** 2 + 0.5 * (b / 0.5) ** 2)


def test_optimum_by_brute_grid() -> None:
    text, visual = informative(1.5, 0), informative(1.0, 1) * 3
    weights = fit_fusion_weights(
        text, visual, Y, WEIGHT, Prior(0.8, 2.0, 0.3), Prior(0.4, 0.5, 0.5)
    )
    grid = np.linspace(-4, 3, 141)
    losses = np.array([[objective(a, b, text, visual) for b in grid] for a in grid])
    i, j = np.unravel_index(losses.argmin(), losses.shape)
    assert weights.loss <= losses.min() + 1e-6
    assert abs(log(weights.text) - grid[i]) <= 0.05
    assert abs(log(weights.visual) - grid[j]) <= 0.05
    at_optimum = objective(log(weights.text), log(weights.visual), text, visual)
    np.testing.assert_allclose(weights.loss, at_optimum, rtol=1e-10)


def test_a_width_of_zero_keeps_the_median() -> None:
    text, visual = informative(1.5, 0), informative(1.0, 1)
    kept = fit_fusion_weights(text, visual, Y, WEIGHT, Prior(0.3, 0.0, 0.0), Prior(0.7, 0.0, 0.0))
    np.testing.assert_allclose(kept[:2], [0.3, 0.7])


def test_useless_text_counts_little_and_good_text_much() -> None:
    wide = {"text_prior": Prior(1.0, 3.0, 0.5)}
    useless = fit_fusion_weights(informative(0.0, 0) * 30, informative(3.0, 1), Y, WEIGHT, **wide)
    good = fit_fusion_weights(informative(8.0, 0), informative(0.0, 1), Y, WEIGHT, **wide)
    assert useless.text * 30 < 1.0
    assert good.text > 0.8


def test_no_rows_gives_the_prior() -> None:
    empty = np.empty((0, C))
    none = np.empty(0, dtype=int)
    weights = fit_fusion_weights(
        empty, empty, none, np.empty(0), visual_prior=Prior(0.25, 0.5, 0.5)
    )
    np.testing.assert_allclose(weights, [1, 0.25, 0], atol=1e-6)


def test_wrong_class_spread_by_hand() -> None:
    logits = np.array([[9.0, 1.0, 3.0], [5.0, -7.0, 1.0]])
    # Wrong logits 1, 3 about 2 and 5, 1 about 3: deviations 1, 1, 2, 2, two degrees of freedom.
    assert wrong_class_spread(logits, np.array([0, 1])) == pytest.approx(sqrt(10 / 2))


def test_wrong_class_spread_ignores_the_right_logit_and_offsets() -> None:
    logits = informative(0.0, 0)
    moved = logits + np.arange(N)[:, None]
    moved[np.arange(N), Y] += 100
    assert wrong_class_spread(moved, Y) == pytest.approx(wrong_class_spread(logits, Y))


def test_wrong_class_spread_of_two_classes_is_that_of_the_row() -> None:
    logits = np.array([[1.0, 3.0], [10.0, 4.0]])  # deviations 1, 1, 3, 3
    assert wrong_class_spread(logits, np.array([0, 1])) == pytest.approx(sqrt(20 / 4))
    assert wrong_class_spread(np.zeros((3, 3)), np.arange(3)) == LEAST_SPREAD


def make_support(shots: list[int], noise: float = 0.5) -> tuple[Support, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(len(shots)), shots)
    text = unit_rows(rng.normal(size=(len(shots), 12)))
    X = unit_rows(text[y] + noise * rng.normal(size=(len(y), 12)))
    return Support(X, y, np.ones(len(y)), text, -text, 10.0), 10.0 * X @ text.T


RNG = np.random.RandomState(0)


def test_well_parted_classes_have_surer_logits() -> None:
    """Two classes without text: `b` does not undo how far apart they are; beside text it does."""
    logits, y = informative(1.0, 3)[:, :2], Y % 2
    for scale in (1.0, 9.0):
        assert usual_visual_weight(scale * logits, y, False) == pytest.approx(LIKELIHOOD_SHARE)
        unit = sqrt(log(2)) / wrong_class_spread(scale * logits, y)
        assert usual_visual_weight(scale * logits, y, True) == pytest.approx(unit)
    logits = informative(1.0, 3)
    unit = sqrt(log(C)) / wrong_class_spread(logits, Y)
    want = unit ** (8 / 9) * LIKELIHOOD_SHARE ** (1 / 9)
    assert usual_visual_weight(logits, Y, False) == pytest.approx(want)
    assert usual_visual_weight(np.zeros((N, 2)), Y % 2, False) == 0


def test_one_shot_takes_the_prior_of_the_visual_weight() -> None:
    support, text = make_support([1] * 6)
    model = VisualModel(support, support.positive)
    fusion = fit_fusion(model, text, np.ones(6), np.arange(6))
    assert fusion.discriminant.shrinkage == 1
    spread = wrong_class_spread(fusion.discriminant.leave_one_out(np.arange(6)), support.y)
    assert fusion.visual == pytest.approx(VISUAL_MEDIAN * sqrt(log(6)) / spread)


def test_more_shots_are_calibrated_on_leave_one_out_logits() -> None:
    support, text = make_support([6] * 5)
    model = VisualModel(support, support.positive)
    fusion = fit_fusion(model, text, np.ones(30), np.arange(30))
    G = fusion.discriminant.leave_one_out(np.arange(30))

    def loss(a: float, b: float) -> float:
        return -float(log_softmax(a * text + b * G, axis=1)[np.arange(30), support.y].sum())

    at = loss(fusion.text, fusion.visual)
    median = VISUAL_MEDIAN * sqrt(log(5)) * 6**SHOTS_POWER / wrong_class_spread(G, support.y)
    assert at < loss(fusion.text, median) + 1e-9  # moved from the prior towards the evidence


@pytest.mark.parametrize("shots", [[1] * 6, [4] * 6], ids=["one", "four"])
def test_given_weights_stay(shots: list[int]) -> None:
    support, text = make_support(shots)
    model = VisualModel(support, support.positive)
    ones = np.ones(len(support.y))
    both = fit_fusion(model, text, ones, np.arange(len(ones)), 0.7, 0.3)
    assert (both.text, both.visual) == (0.7, 0.3)
    assert fit_fusion(model, text, ones, np.arange(len(ones)), 0.0, None).text == 0
    assert fit_fusion(model, text, ones, np.arange(len(ones)), None, 0.0).visual == 0
    assert fit_fusion(model, None, ones, np.arange(len(ones))).text == 0
    assert (
        fit_fusion(model, text, ones, np.arange(len(ones)), shrinkage=7).discriminant.shrinkage == 7
    )


def test_noise_counts_little() -> None:
    support, text = make_support([8] * 6, noise=100.0)
    rng = np.random.default_rng(1)
    model = VisualModel(support, support.positive)
    fusion = fit_fusion(model, 5 * rng.normal(size=text.shape), np.ones(48), np.arange(48))
    G = fusion.discriminant.leave_one_out(np.arange(48))
    assert fusion.text * 5 < 1.5
    assert fusion.visual * wrong_class_spread(G, support.y) < 1.0


def test_shots_per_class_is_the_harmonic_mean() -> None:
    assert shots_per_class(make_support([1, 1, 4])[0]) == pytest.approx(3 / 2.25)


@pytest.mark.parametrize("n_classes", [500, 2000])
def test_calibration_rows_are_balanced_over_classes(n_classes: int) -> None:
    y = np.repeat(np.arange(n_classes), 3)
    X = np.ones((len(y), 1))
    support = Support(X, y, np.ones(len(y)), np.ones((n_classes, 1)), np.ones((n_classes, 1)), 1.0)
    rows = calibration_rows(support)
    assert len(rows) == max(ROWS_FOR_FUSION, LOGITS_FOR_FUSION // n_classes)
    assert np.bincount(y[rows]).max() == 1  # no class twice before each has one
    small = make_support([2, 3])[0]
    assert calibration_rows(small).tolist() == list(range(5))
