"""How much each branch counts: two scalars estimated from the support set alone.

The fused logits are `a T + b G` with text logits `T` and visual logits `G`. Data sets differ
widely in how much the text tells (zero-shot accuracy of 50 % or of chance level), so `a` and `b`
are maximum a posteriori estimates under the log-loss of held-out rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from skhegraph.descent import balanced_order
from skhegraph.hegraph.visual import HeldOutDiscriminant, Linear
from skhegraph.support import Floats, Ints, Support

#: Candidates for the shrinkage of the discriminant; 1 is the prior's mode and the 1-shot value.
SHRINKAGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
#: `p` in the penalty `p log(shrinkage)^2` on the held-out loss: nats against a factor of e.
SHRINKAGE_PRIOR = 0.05
#: Logits that are enough to estimate two scalars.
LOGITS_FOR_FUSION = 250_000
#: `q` and `t` in the prior median of `b`, `shots^q / (1 + t I)` over the wrong-class logit spread,
#: with `I` the information of the text in nats.
SHOTS_POWER = 1 / 3
TEXT_FIRST = 2.0
#: Strength of the log-normal priors, in nats at one standard deviation.
PRIOR_STRENGTH = 2.0
#: Standard deviation of log a below 0 and above: CLIP's own scale may be far too sure of a data
#: set whose names it does not understand, but it is hardly ever too modest.
TEXT_WIDTH = (3.0, 0.15)
#: Standard deviation of log b.
VISUAL_WIDTH = 0.7
#: Lowest and highest log a and log b.
BOUNDS = ((-8.0, 3.0), (-8.0, 3.0))


class FusionWeights(NamedTuple):
    """Fusion weights and the penalised held-out loss (summed, nats) they reach."""

    text: float
    visual: float
    loss: float


def wrong_class_spread(logits: Floats, y: Ints) -> float:
    """Standard deviation of each row's logits of the wrong classes about their mean.

    It is the natural unit of the visual logits: it needs no genuine pair, so it can be measured
    at one shot, and it does not depend on the feature width.
    """
    wrong = np.ones(logits.shape, dtype=bool)
    wrong[np.arange(len(y)), y] = False
    rest = logits[wrong].reshape(len(y), -1)
    if rest.shape[1] == 1:  # two classes: the one wrong logit against the mean of the row
        rest = np.column_stack([rest, logits.sum(axis=1) - rest[:, 0]])
    return max(float((rest - rest.mean(axis=1, keepdims=True)).std()), 1e-12)


def fit_fusion_weights(
    text: Floats,
    visual: Floats | None,
    y: Ints,
    sample_weight: Floats,
    visual_prior: float = 1.0,
    text_start: float | None = None,
    *,
    keep_text: bool = False,
) -> FusionWeights:
    """Estimate the fusion weights `a` and `b` on held-out logits.

    Parameters
    ----------
    text, visual : ndarray of shape (n_samples, n_classes)
        Logits of rows that the branches have not seen; None fits the text alone.
    y : ndarray of shape (n_samples,)
        Class indices.
    sample_weight : ndarray of shape (n_samples,)
        Weights, 1 for an ordinary row.
    visual_prior : float, default=1.0
        Median of the prior of `b`; that of `a` is 1, CLIP's own scale.
    text_start : float or None, default=None
        A good `a` to start from; None tries two.
    keep_text : bool, default=False
        Keep `a` at `text_start` and estimate `b` alone.

    Returns
    -------
    FusionWeights
        Weights; `visual` is 0 where only the text was given.
    """
    branches = [text] if visual is None else [text, visual]
    centre = np.log([1.0, visual_prior])[: len(branches)]
    rows = np.arange(len(y))

    def objective(log_scale: Floats) -> tuple[float, Floats]:
        scales = np.exp(log_scale)
        logits = scales[0] * branches[0]
        for scale, branch in zip(scales[1:], branches[1:], strict=True):
            logits += scale * branch
        logits -= logits.max(axis=1, keepdims=True)
        own = logits[rows, y]
        np.exp(logits, out=logits)
        total = logits.sum(axis=1)
        residual = logits / total[:, None]  # of the softmax, against the labels
        residual[rows, y] -= 1
        residual *= sample_weight[:, None]
        width = np.array([TEXT_WIDTH[int(log_scale[0] > 0)], VISUAL_WIDTH])[: len(branches)]
        z = (log_scale - centre) / width
        loss = sample_weight @ (np.log(total) - own) + PRIOR_STRENGTH * (z @ z)
        slopes = np.array([np.einsum("nc,nc", residual, branch) for branch in branches])
        return loss, scales * slopes + 2 * PRIOR_STRENGTH * z / width

    # The log-loss in log a is not convex (it is flat where a is small): start on both sides.
    first = [0.0, -3.0] if text_start is None else [np.log(text_start)]
    starts = [np.concatenate([[log_a], centre[1:]]) for log_a in first]
    bounds = [(c + low, c + high) for c, (low, high) in zip(centre, BOUNDS, strict=False)]
    if keep_text:
        bounds[0] = (first[0], first[0])
    fits = [minimize(objective, s, jac=True, method="L-BFGS-B", bounds=bounds) for s in starts]
    best = min(fits, key=lambda fit: fit.fun)
    scales = [*np.exp(best.x), 0.0]
    return FusionWeights(float(scales[0]), float(scales[1]), float(best.fun))


def information_gain(text: Floats, scale: float, y: Ints, sample_weight: Floats) -> float:
    """Nats a row that the scaled text logits tell about the class, beyond a uniform guess."""
    log_p = log_softmax(scale * text, axis=1)[np.arange(len(y)), y]
    mean = float(sample_weight @ log_p / sample_weight.sum())
    return max(0.0, float(np.log(text.shape[1])) + mean)


@dataclass(frozen=True)
class Branches:
    """The two branches before the graph adapts them, as the support set estimates them.

    Attributes
    ----------
    weights : FusionWeights
        `a` and `b` of `a T + b G`.
    information : float
        Nats per row that zero-shot text tells about the class.
    shrinkage : float
        Covariance shrinkage of the discriminant.
    visual : Linear
        The discriminant of all rows, before `b`.
    held_out : ndarray of shape (n_samples, n_classes), float32
        Its logits `G` of the support rows, each from rows of other folds.
    """

    weights: FusionWeights
    information: float
    shrinkage: float
    visual: Linear
    held_out: Floats


def fit_branches(
    support: Support,
    text: Floats,
    loss_weight: Floats,
    rng: np.random.RandomState,
    text_weight: float | None = None,
) -> Branches:
    """Choose shrinkage and fusion weights by the log-loss of held-out rows.

    Rows that are the only one of their class are never held out: their visual logits are zero
    and they do not count. At one shot per class no row can be held out: the prior decides.

    Parameters
    ----------
    support : Support
        Support set.
    text : ndarray of shape (n_samples, n_classes)
        Zero-shot logits of the support rows (leave-one-out where the text is made of them).
    loss_weight : ndarray of shape (n_samples,)
        Weight of each row in the log-loss.
    rng : RandomState
        Shuffles folds and calibration rows.
    text_weight : float or None, default=None
        A given `a`; None estimates it.
    """
    discriminant = HeldOutDiscriminant(support, rng)
    y, rows = support.y, calibration_rows(support, rng)
    alone = fit_fusion_weights(text[rows], None, y[rows], loss_weight[rows])
    information = information_gain(text[rows], alone.text, y[rows], loss_weight[rows])
    prior = shots_per_class(support) ** SHOTS_POWER / (1.0 + TEXT_FIRST * information)
    start = alone.text
    if text_weight is not None:  # the user's weight is part of the logits, and stays
        text, start = text * text_weight, 1.0

    candidates: list[tuple[float, float, FusionWeights]] = []
    held = rows[discriminant.folds[rows] >= 0]
    for shrinkage in SHRINKAGES if len(held) else ():
        logits = discriminant.logits(shrinkage, held)
        scale = prior / wrong_class_spread(logits, y[held])
        weights = fit_fusion_weights(
            text[held],
            logits,
            y[held],
            loss_weight[held],
            scale,
            start,
            keep_text=text_weight is not None,
        )
        loss = weights.loss + SHRINKAGE_PRIOR * np.log(shrinkage) ** 2
        candidates.append((loss, shrinkage, weights))
    if candidates:
        _, shrinkage, weights = min(candidates, key=lambda candidate: candidate[0])
    else:
        shrinkage = 1.0
        logits = discriminant.whole.at(shrinkage)(support.X[rows])
        scale = prior / wrong_class_spread(logits, y[rows])
        weights = FusionWeights(start, scale, np.nan)
    if text_weight is not None:
        weights = weights._replace(text=text_weight)
    held_out = discriminant.logits(shrinkage, np.arange(len(y))).astype(np.float32)
    return Branches(weights, information, shrinkage, discriminant.whole.at(shrinkage), held_out)


def calibration_rows(support: Support, rng: np.random.RandomState) -> Ints:
    """Rows on which two scalars are estimated: all, or a draw that is balanced over classes."""
    n_rows = max(support.n_classes, LOGITS_FOR_FUSION // support.n_classes)
    if n_rows >= len(support.y):
        return np.arange(len(support.y))
    return np.sort(balanced_order(support.y, rng)[:n_rows])


def shots_per_class(support: Support) -> float:
    """Harmonic mean of the shots: classes with few rows say how far the estimates can be sure."""
    return float(1.0 / np.mean(1.0 / support.shots))
