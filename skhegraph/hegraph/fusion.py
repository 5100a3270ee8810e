"""How far each branch can be trusted: two scalars estimated from the support set alone.

The fused logits are `a T + b G` with text logits `T` and visual logits `G`. Data sets differ
widely in how much the text tells (zero-shot accuracy of 50 % or of chance level), so `a` and `b`
are maximum a posteriori estimates under the log-loss of held-out rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from skhegraph.base import Floats, Ints, log_softmax

#: Strength of the log-normal priors, in nats at one standard deviation.
PRIOR_STRENGTH = 2.0
#: Standard deviation of log a below 0 and above: CLIP's own scale may be far too sure of a data
#: set whose names it does not understand, but it is hardly ever too modest.
TEXT_WIDTH = (3.0, 0.15)
#: Standard deviation of log b.
VISUAL_WIDTH = 0.7
#: Lowest and highest log a and log b.
BOUNDS = ((-8.0, 3.0), (-8.0, 3.0))


class Trust(NamedTuple):
    """Fusion weights and the penalised held-out loss (summed, nats) they reach."""

    text: float
    visual: float
    loss: float


def impostor_spread(logits: Floats, y: Ints) -> float:
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


def fit_trust(
    text: Floats,
    visual: Floats | None,
    y: Ints,
    sample_weight: Floats,
    visual_prior: float = 1.0,
    text_start: float | None = None,
    *,
    keep_text: bool = False,
) -> Trust:
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
    Trust
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
    return Trust(float(scales[0]), float(scales[1]), float(best.fun))


def information_gain(text: Floats, scale: float, y: Ints, sample_weight: Floats) -> float:
    """Nats a row that the scaled text logits tell about the class, beyond a uniform guess."""
    log_p = log_softmax(scale * text)[np.arange(len(y)), y]
    mean = float(sample_weight @ log_p / sample_weight.sum())
    return max(0.0, float(np.log(text.shape[1])) + mean)
