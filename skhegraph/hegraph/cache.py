"""The cache of the described method (Eq. 8), and how it is fused with the text.

Added as logits, `a tau cos(z, P') + b cache(z)`. The weights, and the sharpness `beta` of the
affinities, minimise the log-loss of leave-one-out logits of the support rows, in which no row
meets itself, beside the text before training. Where no class has a second row, the cache says
nothing of a row's own class: `a` is that of the text alone, and `b` its prior median.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skhegraph.hegraph.fusion import (
    fit_fusion_weights,
    prior_of_text,
    prior_of_visual,
    shots_per_class,
    wrong_class_spread,
)
from skhegraph.hegraph.logits import cache_logits, text_logits
from skhegraph.hegraph.priors import FUSION_WIDTH, SHOTS_POWER, TEXT_MEDIAN, VISUAL_MEDIAN
from skhegraph.parallel import for_rows
from skhegraph.support import Floats, Support, unit_rows

#: Candidates of the sharpness; the described one is 1, that of Tip-Adapter 5.5. The first is taken
#: where no row tells.
SHARPNESSES = (3.0, 1.0, 6.0, 10.0)
#: Prior median of `b` in units of that of a discriminant, whose logits part classes better. On
#: draws from the training pools of DTD, Pets and SUN397 a quarter was better than a half.
CACHE_SHARE = 0.25


class CacheFusion(NamedTuple):
    """Weights of text and cache, the sharpness, and leave-one-out logits of the cache.

    `held_out` is 0 where no class has a second row.
    """

    text: float
    visual: float
    sharpness: float
    held_out: Floats


def leave_one_out_cache(support: Support, sharpness: float) -> Floats:
    """Cache logits (Eq. 8, without `tau`) of the support rows, which do not meet themselves."""
    out: Floats = np.empty((len(support.y), support.n_classes))
    labels = support.onehot

    def fill(block: slice) -> None:
        """Logits of a block of rows."""
        cosine = support.X[block] @ support.X.T
        each = np.arange(len(cosine))
        cosine[each, block.start + each] = -np.inf
        shots = labels.sum(axis=0) - labels[block]
        out[block] = cache_logits(cosine, labels, shots, sharpness, np.exp)

    for_rows(fill, len(support.y), len(support.y))
    return out


def zero_shot_logits(support: Support, own_shift: Floats | None) -> Floats:
    """Text logits of the support rows, those of class means without the row's own share."""
    logits: Floats = text_logits(support.X, support.positive, support.logit_scale)
    if own_shift is not None:
        own = unit_rows(support.positive[support.y] + own_shift)
        each = np.arange(len(support.y))
        logits[each, support.y] = support.logit_scale * (support.X * own).sum(axis=1)
    return logits


def fuse_cache(
    support: Support,
    text: Floats,
    sharpness: float | None = None,
    visual_weight: float | None = None,
) -> CacheFusion:
    """Estimate the weights of text and cache and the sharpness on the support rows.

    Parameters
    ----------
    support : Support
        Support set.
    text : ndarray of shape (n_samples, n_classes)
        Text logits before training.
    sharpness, visual_weight : float or None, default=None
        Given `beta` and `b`; None estimates them.
    """
    share = support.sample_weight / support.shots[support.y]  # of the row in its class
    with_others = support.sample_weight * np.clip(1 - share, 0, 1)
    text_prior = prior_of_text(text, support.y, support.sample_weight)
    one_shot = not with_others.max() > 1e-9
    candidates = SHARPNESSES if sharpness is None else (float(sharpness),)
    best: tuple[float, CacheFusion] | None = None
    for beta in candidates[:1] if one_shot else candidates:
        cache = leave_one_out_cache(support, beta)
        median = VISUAL_MEDIAN * CACHE_SHARE * np.sqrt(np.log(support.n_classes))
        median *= shots_per_class(support) ** SHOTS_POWER / wrong_class_spread(cache, support.y)
        if one_shot:
            b = median if visual_weight is None else visual_weight
            return CacheFusion(text_prior.median / TEXT_MEDIAN, float(b), beta, 0 * cache)
        fitted = fit_fusion_weights(
            text,
            cache,
            support.y,
            with_others,
            text_prior=text_prior,
            visual_prior=prior_of_visual(median, FUSION_WIDTH, visual_weight),
        )
        found = CacheFusion(fitted.text, fitted.visual, beta, cache)
        if best is None or fitted.loss < best[0]:
            best = fitted.loss, found
    assert best is not None
    return best[1]
