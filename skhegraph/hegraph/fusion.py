"""How much each branch counts: estimated on rows that the branches have not seen.

The fused logits are `a T + b G` with text logits `T` and visual logits `G`. Data sets differ widely
in how much the text tells (zero-shot accuracy of 95 % or of chance level), so `a` and `b` maximise
a posterior under the log-loss of leave-one-out logits, and so does the shrinkage of the
discriminant behind `G`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from scipy.optimize import minimize

from skhegraph.descent import balanced_order
from skhegraph.hegraph.priors import (
    FUSION_WIDTH,
    LIKELIHOOD_SHARE,
    SHOTS_POWER,
    SHRINKAGE_PRIOR,
    SHRINKAGES,
    TEXT_ALONE_WIDTH,
    TEXT_MEDIAN,
    VISUAL_MEDIAN,
    VISUAL_MEDIAN_ALONE,
)
from skhegraph.hegraph.visual import Discriminant, VisualModel
from skhegraph.parallel import in_turn, precision_of
from skhegraph.support import Floats, Ints, Support

#: Logits that are enough to estimate three scalars, and rows where each has very many.
LOGITS_FOR_FUSION, ROWS_FOR_FUSION = 250_000, 250
#: Least spread of logits: a branch below it tells nothing, and gets no weight for that.
LEAST_SPREAD = 1e-6


class FusionWeights(NamedTuple):
    """Fusion weights and the penalised held-out loss (summed, nats) they reach."""

    text: float
    visual: float
    loss: float


class Prior(NamedTuple):
    """Log-normal prior of a weight: median, and deviation of the logarithm below and above it.

    A deviation of 0 keeps the weight at the median.
    """

    median: float
    below: float
    above: float


ABOUT_ONE = Prior(1.0, FUSION_WIDTH, FUSION_WIDTH)


class Fusion(NamedTuple):
    """What the branches are worth.

    Attributes
    ----------
    discriminant : Discriminant
        That of the chosen shrinkage.
    text, visual : float
        `a` and `b`.
    held_out : ndarray of shape (n_rows, n_classes)
        Leave-one-out logits of the discriminant for the calibration rows.
    """

    discriminant: Discriminant
    text: float
    visual: float
    held_out: Floats


class Candidate(NamedTuple):
    """Penalised loss of a shrinkage, its discriminant with held-out logits, and the weights."""

    loss: float
    discriminant: Discriminant
    held_out: Floats
    weights: FusionWeights


def wrong_class_spread(logits: Floats, y: Ints, weight: Floats | None = None) -> float:
    """Standard deviation (unbiased) of each row's logits of the wrong classes about their mean.

    It is the natural unit of logits: it needs no genuine pair, so it can be measured at one shot,
    and it does not depend on the feature width. With two classes: of both logits.
    """
    wrong = np.ones(logits.shape, dtype=bool)
    several = logits.shape[1] > 2
    if several:
        wrong[np.arange(len(y)), y] = False
    rest = logits[wrong].reshape(len(y), -1)
    variance = rest.var(axis=1, ddof=1 if several else 0)
    return max(float(np.sqrt(np.average(variance, weights=weight))), LEAST_SPREAD)


def fit_fusion_weights(
    text: Floats,
    visual: Floats,
    y: Ints,
    weight: Floats,
    text_prior: Prior = ABOUT_ONE,
    visual_prior: Prior = ABOUT_ONE,
) -> FusionWeights:
    """Maximum a posteriori `a` and `b` under log-normal priors.

    Parameters
    ----------
    text, visual : ndarray of shape (n_samples, n_classes)
        Logits of rows that the branches have not seen.
    y : ndarray of shape (n_samples,)
        Class indices.
    weight : ndarray of shape (n_samples,)
        Weights of the rows.
    text_prior, visual_prior : Prior
        Priors of `a` and `b`.
    """
    medians, *widths = np.array([text_prior, visual_prior]).T
    centre = np.log(np.maximum(medians, 1e-12))
    below, above = (np.where(width > 0, width, 1.0) for width in widths)
    rows = np.arange(len(y))
    dtype = precision_of(text.size)  # of exponentials; that of logits would end a line search
    branches = [branch.astype(dtype, copy=False) for branch in (text, visual)]

    def objective(log_scale: Floats) -> tuple[float, Floats]:
        a, b = np.exp(log_scale)
        logits = a * text + b * visual
        logits -= logits.max(axis=1, keepdims=True)
        residual = np.exp(logits.astype(dtype, copy=False))
        total = residual.sum(axis=1, dtype=np.float64)
        loss = float(weight @ (np.log(total) - logits[rows, y]))
        residual *= (weight / total)[:, None]  # of the softmax, against the labels
        residual[rows, y] -= weight
        width = np.where(log_scale > centre, above, below)
        z = (log_scale - centre) / width
        slopes = [float(np.einsum("nc,nc->n", residual, branch).sum()) for branch in branches]
        return loss + 0.5 * float(z @ z), np.array(slopes) * (a, b) + z / width

    free = text_prior.below > 0, visual_prior.below > 0
    bounds = [(c - 8.0, c + 3.0) if f else (c, c) for c, f in zip(centre, free, strict=True)]
    # The log-loss in log a is not convex (it is flat where a is small): start on both sides.
    starts = [centre, centre - [3.0, 0.0]] if free[0] else [centre]
    options = {"gtol": 1e-3, "ftol": 1e-8}  # nats per factor of e, and their share
    fits = [
        minimize(objective, s, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        for s in starts
    ]
    best = min(fits, key=lambda fit: fit.fun)
    a, b = np.exp(best.x)
    return FusionWeights(float(a), float(b), float(best.fun))


def prior_of_text(
    text: Floats | None, y: Ints, weight: Floats, text_weight: float | None = None
) -> Prior:
    """Prior of `a` in the fusion, from what it is for the text alone; `a` itself where given."""
    if text is None or text_weight is not None:
        return Prior(1.0 if text_weight is None else float(text_weight), 0.0, 0.0)
    fixed = Prior(1.0, 0.0, 0.0)
    alone = fit_fusion_weights(
        text, np.zeros_like(text), y, weight, Prior(1.0, *TEXT_ALONE_WIDTH), fixed
    )
    return Prior(TEXT_MEDIAN * alone.text, FUSION_WIDTH, FUSION_WIDTH)


def prior_of_visual(median: float, width: float, visual_weight: float | None) -> Prior:
    """Prior of `b`; `b` itself where given."""
    if visual_weight is not None:
        return Prior(float(visual_weight), 0.0, 0.0)
    return Prior(median, width, width)


def visual_unit(G: Floats, y: Ints, weight: Floats | None = None) -> float:
    """Unit of `b`: the spread that parts C classes, over that of the visual logits; 0 without."""
    spread = wrong_class_spread(G, y, weight)
    return float(np.sqrt(np.log(G.shape[1])) / spread) if spread > LEAST_SPREAD else 0.0


def usual_visual_weight(G: Floats, y: Ints, has_text: bool) -> float:
    """Prior median of `b`, but for what shots and the rest of the fusion make of it.

    Beside text and with many classes it is the unit of `b`. The spread of the logits of two classes
    is what parts them, and well parted classes are to have surer logits: there `b` is the same for
    all. In between the log mean of both counts, as `1/(C - 1)^2` for the latter.
    """
    unit, share = visual_unit(G, y), 0.0 if has_text else (G.shape[1] - 1.0) ** -2
    return float(unit ** (1 - share) * LIKELIHOOD_SHARE**share) if unit > 0 else 0.0


def fit_fusion(
    model: VisualModel,
    text: Floats | None,
    weight: Floats,
    rows: Ints,
    text_weight: float | None = None,
    visual_weight: float | None = None,
    shrinkage: float | None = None,
) -> Fusion:
    """Choose shrinkage and fusion weights by the log-loss of leave-one-out logits.

    The only row of a class says nothing about `b`: at one shot per class `b` is its prior median.
    The shrinkage needs two other rows of the class: where there are none it is 1.

    Parameters
    ----------
    model : VisualModel
        Visual model of the support set.
    text : ndarray of shape (n_rows, n_classes) or None
        Zero-shot text logits of the calibration rows; None without text (`a` is 0).
    weight : ndarray of shape (n_rows,)
        Weight of each of them in the log-loss.
    rows : ndarray of shape (n_rows,), intp
        Their numbers in the support set, :func:`calibration_rows`.
    text_weight, visual_weight, shrinkage : float or None, default=None
        Given `a`, `b` and shrinkage; None estimates them.
    """
    support = model.support
    y = support.y[rows]
    share = support.sample_weight[rows] / model.shots[y]  # of the row in its class
    with_others = weight * np.clip(1 - share, 0, 1)
    one_shot = not with_others.max() > 1e-9
    certain = float(np.average(np.clip(1 - 2 * share, 0, 1), weights=weight))
    T = np.zeros((len(rows), support.n_classes)) if text is None else text
    text_prior = prior_of_text(text, y, weight, text_weight)
    part = VISUAL_MEDIAN_ALONE if text is None and one_shot else VISUAL_MEDIAN
    part *= shots_per_class(support) ** SHOTS_POWER

    def at(shrinkage: float) -> Candidate:
        """Candidate of a shrinkage."""
        discriminant = model.at(shrinkage)
        G = discriminant.leave_one_out(rows)
        width = 0.0 if one_shot else FUSION_WIDTH
        usual = part * usual_visual_weight(G, y, text is not None)
        visual_prior = prior_of_visual(usual, width, visual_weight)
        losses = weight if one_shot else with_others
        fitted = fit_fusion_weights(T, G, y, losses, text_prior, visual_prior)
        loss = certain * fitted.loss + SHRINKAGE_PRIOR * np.log(shrinkage) ** 2
        return Candidate(loss, discriminant, G, fitted)

    def at_each(shrinkages: list[float]) -> list[Candidate]:
        """The same for several; at once where each takes long."""
        large = precision_of(T.size) is np.float32
        return list(in_turn(at, shrinkages) if large else map(at, shrinkages))

    if shrinkage is not None:
        best = at(float(shrinkage))
    else:
        best = least_loss(at_each, SHRINKAGES) if certain > 1e-9 else at(1.0)
    a = best.weights.text if text_weight is None else float(text_weight)
    b = best.weights.visual if visual_weight is None else float(visual_weight)
    return Fusion(best.discriminant, a if text is not None else 0.0, b, best.held_out)


class HasLoss(Protocol):
    """What is found for a candidate."""

    @property
    def loss(self) -> float:
        """Penalised loss."""


Found = TypeVar("Found", bound=HasLoss)


def least_loss(
    at_each: Callable[[list[float]], list[Found]], candidates: tuple[float, ...]
) -> Found:
    """Go from the middle candidate to the neighbour of less loss until there is none."""
    tried: dict[int, Found] = {}
    here = len(candidates) // 2
    while True:
        near = range(max(here - 1, 0), min(here + 2, len(candidates)))
        new = [i for i in near if i not in tried]
        tried.update(zip(new, at_each([candidates[i] for i in new]), strict=True))
        best = min(near, key=lambda i: tried[i].loss)
        if best == here:
            return tried[best]
        here = best


def calibration_rows(support: Support) -> Ints:
    """Rows on which the scalars are estimated: all, or some of each class.

    Which ones depends on nothing but the rows, so that a fit is no lottery.
    """
    n_rows = max(ROWS_FOR_FUSION, LOGITS_FOR_FUSION // support.n_classes)
    if n_rows >= len(support.y):
        return np.arange(len(support.y))
    return np.sort(balanced_order(support.y, np.random.RandomState(0))[:n_rows])


def shots_per_class(support: Support) -> float:
    """Harmonic mean of the shots: classes with few rows say how far the estimates can be sure.

    A class of rows of little weight still has one.
    """
    return float(1.0 / np.mean(1.0 / np.maximum(support.shots, 1.0)))
