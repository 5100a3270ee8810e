"""How familiar a query is: whether it lies where images lie, and whether one class stands out.

Two measures, each of which misses what the other sees:

    density    = -min_c (z - V'_c)' (s S)^-1 (z - V'_c) / 2     nearest adapted visual node
    prominence = max_c l_c - mean_c l_c                       fused logits `l`

An image of another world is far from every node though its logits may favour a class; an image of
a class that is missing lies among the others and favours none. Each is measured in standard
deviations of the support rows, scored by models that have not seen them, and their sum has mean 0
and standard deviation 1 over many such rows (:func:`familiarity_scale` on few).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skhegraph.hegraph.priors import PRIOR_ROWS, UNKNOWN_DENSITY
from skhegraph.support import Floats

#: Least standard deviation: what is below it is rounding, and equal support rows say nothing about
#: other images.
LEAST_DEVIATION = 1e-5


def log_density(
    Z: Floats, nodes: Floats, whitener: Floats, centre: Floats, outside_variance: float
) -> Floats:
    """Gaussian log-density of unit rows at the nearest node, up to a constant; shape (n_queries,).

    Parameters
    ----------
    Z : ndarray of shape (n_queries, n_features)
        Queries.
    nodes : ndarray of shape (n_classes, n_features)
        Adapted visual nodes.
    whitener : ndarray of shape (r, n_features)
        Orthogonal rows `W` with `W'W` the precision in their span.
    centre : ndarray of shape (n_features,)
        Origin of that span.
    outside_variance : float
        Variance along each direction outside the span.
    """
    W = whitener.astype(Z.dtype, copy=False)
    away = Z - centre.astype(Z.dtype, copy=False)
    U, A = away @ W.T, (nodes - centre).astype(Z.dtype) @ W.T
    squared = (np.square(A).sum(axis=1) - 2 * U @ A.T).min(axis=1) + np.square(U).sum(axis=1)
    if np.isfinite(outside_variance):
        inside = np.square(U) @ (1 / np.square(W).sum(axis=1))
        squared += np.maximum(np.square(away).sum(axis=1) - inside, 0) / outside_variance
    return -0.5 * squared


def prominence(logits: Floats) -> Floats:
    """How far the best class stands above the mean of all; shape (n_queries,)."""
    return logits.max(axis=1) - logits.mean(axis=1)


def familiarity_scale(
    density: Floats, prominence: Floats, concentration: float, known: float
) -> Floats:
    """Factors of the two measures and an offset, from their values on left-out support rows.

    Few rows say little about how much a measure varies: its variance is averaged with that of
    `PRIOR_ROWS` rows that vary as theory has it. Half a squared distance is a chi-squared variable
    over the directions of the images, with a standard deviation of `sqrt(2 concentration)` of its
    mean, `concentration = tr S^2 / (tr S)^2` being one over their number. Prominence is taken to
    vary by its mean where a left-out row has no other image of its class to speak for it, and by
    half of that where it has many; `known` is the mean of `1 - 1/k` over the classes. Where classes
    have few images the density of queries also lies elsewhere than that of left-out rows, by
    `UNKNOWN_DENSITY` of its size at one.
    """
    measures = np.stack([density, prominence]).astype(np.float64)
    n_rows, size = len(density), np.abs(measures.mean(axis=1))
    elsewhere = np.array([UNKNOWN_DENSITY * (1 - known) * size[0], 0.0])

    def deviation(variance: Any, expected: Any) -> Any:
        """Standard deviation of rows, averaged with what is expected."""
        return np.sqrt((n_rows * variance + PRIOR_ROWS * expected) / (n_rows + PRIOR_ROWS))

    expected = size * (np.sqrt(2 * concentration), 1 - known / 2)
    each = np.hypot(deviation(measures.var(axis=1), np.square(expected)), elsewhere)
    factors = 1 / np.maximum(each, LEAST_DEVIATION)
    total = deviation((factors @ measures).var(), 2.0)  # two independent measures
    factors /= np.hypot(total, factors @ elsewhere)
    return np.append(factors, -float((factors @ measures).mean()))


def familiarity(density: Floats, prominence: Floats, scale: Floats) -> Floats:
    """Score of queries: higher is more familiar."""
    return scale[0] * density + scale[1] * prominence + scale[2]
