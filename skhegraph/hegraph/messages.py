"""Messages into the visual nodes: how strong they are, from the class means and the text.

The class means are tied to the text and to each other by a Gaussian model,

    V = 1 m0' + rho T + E,    E ~ MN(0, (g K + v I) x Omega)

with the centred positive text nodes `T`, and their similarities `K` in proportion to `T T'` (mean
diagonal 1) as edges between classes. `rho t_c` is the message from the text of a class to its
visual node (positive -> visual), `g K` ties visual nodes whose texts are alike (visual -> visual),
and `v` is the freedom of each class. An image deviates from its class mean with the total variance
`s`. The scalars maximise the marginal likelihood of the observed class means, under weak priors
where few rows tell little.

`K` has at most as many eigenvalues as the text has features: with more classes than features, all
this holds no matrix of classes times classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skhegraph.hegraph.priors import (
    LEAST_FREEDOM,
    MESSAGE_PRIOR,
    MESSAGE_RATIOS,
    NOISE_RATIO,
    NOISE_ROWS,
)
from skhegraph.support import Floats, Support

#: Least variance: rows have unit length, so a deviation of 1e-5 is a hundred times the rounding of
#: single precision, and products of double precision over it are right to 1e-6.
LEAST_VARIANCE = 1e-10
#: Eigenvalues below this share of the largest are rounding.
LEAST_EIGENVALUE = 1e-9


def principal_axes(A: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues of `A'A` that are not 0, shape (k,), and their vectors, shape (width, k)."""
    if not A.any():
        return np.empty(0), np.empty((A.shape[1], 0))
    wide = A.shape[0] < A.shape[1]
    values, vectors = np.linalg.eigh(A @ A.T if wide else A.T @ A)
    kept = values > LEAST_EIGENVALUE * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    return values, A.T @ (vectors / np.sqrt(values)) if wide else vectors


def n_directions(A: Floats) -> float:
    """Directions over which rows vary, `(tr S)^2 / tr S^2`, 1 or more.

    The covariance of `n` rows has `1 / (n - 1)` too much in `tr S^2 / (tr S)^2`; of that at most
    three quarters are taken off, since few rows cannot show that directions are very many.
    """
    A = A - A.mean(axis=0)
    squares = np.square(A @ A.T if len(A) < A.shape[1] else A.T @ A)
    total = float(np.square(A).sum())
    if total <= LEAST_VARIANCE:
        return 1.0
    observed = float(squares.sum()) / total**2
    return 1 / max(observed - 1 / max(len(A) - 1, 1), observed / 4)


class Edges(NamedTuple):
    """Similarities `K = U diag(values) U'` of the centred text nodes, mean diagonal 1.

    Attributes
    ----------
    values : ndarray of shape (k,)
        Eigenvalues of `K` that are not 0; none without text.
    vectors : ndarray of shape (n_classes, k)
        Their vectors `U`.
    scale : float
        Factor from products of centred text nodes to `K`; 0 without text.
    """

    values: Floats
    vectors: Floats
    scale: float

    @classmethod
    def of_text(cls, text: Floats) -> Edges:
        """Edges of centred text nodes; zeros have none."""
        trace = float(np.square(text).sum())
        if trace <= LEAST_VARIANCE:
            return cls(np.empty(0), np.empty((len(text), 0)), 0.0)
        scale = len(text) / trace
        values, vectors = principal_axes(text.T)
        return cls(scale * values, vectors, scale)


class Precision:
    """Inverse of `g K + diag(d)`, by Woodbury's formula: `diag(1/d) - R'R`."""

    def __init__(self, edges: Edges, strength: float, diagonal: Floats) -> None:
        root = edges.vectors * np.sqrt(strength * edges.values)
        self.inverse = 1 / diagonal
        scaled = self.inverse[:, None] * root
        inner = np.linalg.cholesky(np.eye(root.shape[1]) + root.T @ scaled)
        self.R = np.linalg.solve(inner, scaled.T)

    def times(self, A: Floats) -> Floats:
        """Product with a matrix of a row for each class."""
        return self.inverse[:, None] * A - self.R.T @ (self.R @ A)

    def diagonal(self) -> Floats:
        """Diagonal, shape (n_classes,)."""
        return self.inverse - np.square(self.R).sum(axis=0)


class Scales(NamedTuple):
    """Scalars of the messages: `rho`, `r`, `delta`, and the mean of 1/k that they were told by."""

    positive_to_visual: float
    visual_to_visual: float
    deviation: float
    inverse_shots: float


class Messages(NamedTuple):
    """Estimated strengths of the messages, and what they predict.

    Attributes
    ----------
    scales : Scales
        `rho`; `g` in units of the variance `delta = v + s/k` of a class mean about its prediction;
        `delta`.
    noise, freedom : float
        `s` and `v`, total variances.
    edge_variance : float
        `g`.
    edges : Edges
        `K`.
    centre : ndarray of shape (n_features,)
        `m0`.
    left_over : ndarray of shape (n_classes, n_features)
        Class means less what the text predicts, `V - m0 - rho T`.
    precision : Precision
        Inverse covariance of these, `(g K + v I + s/k)^-1`.
    """

    scales: Scales
    noise: float
    freedom: float
    edge_variance: float
    edges: Edges
    centre: Floats
    left_over: Floats
    precision: Precision

    @property
    def positive_to_visual(self) -> float:
        """`rho`."""
        return self.scales.positive_to_visual

    @property
    def visual_to_visual(self) -> float:
        """`r = g / delta`."""
        return self.scales.visual_to_visual

    def prior(self) -> Floats:
        """Covariance `g K + v I` of the visual nodes, shape (n_classes, n_classes)."""
        values, U, _ = self.edges
        return (self.edge_variance * values * U) @ U.T + self.freedom * np.eye(len(U))


def estimate_messages(
    support: Support,
    text: Floats,
    positive_to_visual: float | None = None,
    visual_to_visual: float | None = None,
    scales: Scales | None = None,
) -> Messages:
    """Estimate the strengths of the messages by marginal likelihood of the class means.

    Rows without a label tell of the noise, by where those with a label lie about them, and of the
    class means. They do not tell the scales: a class of rows of all classes differs less from the
    others than it should.

    Parameters
    ----------
    support : Support
        Support set.
    text : ndarray of shape (n_classes, n_features)
        Centred text nodes; zeros without text.
    positive_to_visual, visual_to_visual : float or None, default=None
        Given `rho` and `r`; None estimates them.
    scales : Scales or None, default=None
        Given scales, of labelled rows alone; None estimates them (:func:`estimate_scales`).
    """
    means, mass = support.visual, support.mass
    edges = Edges.of_text(text)
    if scales is None:
        scales = estimate_scales(support, text, edges, positive_to_visual, visual_to_visual)
    rho, ratio, delta, inverse_shots = scales
    # Rows without a label are one point of much weight: a class of k rows has k - k / mass degrees.
    squares = support.sample_weight @ np.einsum("nd,nd->n", support.X, support.X)
    for part in support.beside:
        counts = np.maximum(part.counts, LEAST_VARIANCE)
        squares += (np.square(part.sums).sum(axis=1) / counts).sum()
    if support.summed is not None:
        squares += np.trace(support.summed.scatter)
    within = max(float(squares - mass @ np.square(means).sum(axis=1)), 0.0)
    df = max(float((support.shots - support.shots / mass).sum()), 0.0)
    expected = NOISE_RATIO * delta / (1 + NOISE_RATIO * inverse_shots)
    noise = max((within + NOISE_ROWS * expected) / (df + NOISE_ROWS), LEAST_VARIANCE)
    freedom = max(delta - noise * inverse_shots, LEAST_FREEDOM * delta)
    precision = Precision(edges, ratio * delta, freedom + noise / mass)
    share = precision.times(np.ones((len(mass), 1)))[:, 0]
    centre = share @ (means - rho * text) / share.sum()
    left_over = means - rho * text - centre
    return Messages(scales, noise, freedom, ratio * delta, edges, centre, left_over, precision)


def estimate_scales(
    support: Support,
    text: Floats,
    edges: Edges,
    positive_to_visual: float | None,
    visual_to_visual: float | None,
) -> Scales:
    """Maximise the marginal likelihood of the class means.

    In the eigenvectors of `K` the classes are independent with variance `delta (r lambda + 1)`,
    where `delta = v + s/k` and `r = g / delta`; `rho` and `delta` then have closed forms, and `r`
    is searched; the class means count as many times as they have independent directions
    (:func:`n_directions`). Unequal shots enter by the mean of 1/k.
    """
    means, shots = support.visual, support.shots
    # Contrasts of the classes: those of the edges, and the others, where `lambda` and text are 0.
    n_contrasts = len(shots) - 1
    mean_parts, text_parts = edges.vectors.T @ means, edges.vectors.T @ text
    mm, mt, tt = (
        (a * b).sum(axis=1)
        for a, b in (
            (mean_parts, mean_parts),
            (mean_parts, text_parts),
            (text_parts, text_parts),
        )
    )
    others = max(float(np.square(means - means.mean(axis=0)).sum() - mm.sum()), 0.0)

    def profile(ratio: float) -> tuple[float, float, float]:
        """Negative log-likelihood per contrast, `rho` and `delta`."""
        variance = ratio * edges.values + 1
        rho = positive_to_visual
        if rho is None:
            rho = max(
                float((mt / variance).sum() / max((tt / variance).sum(), LEAST_VARIANCE)), 0.0
            )
        left = np.maximum(mm - 2 * rho * mt + rho**2 * tt, 0) / variance
        delta = max(float(left.sum() + others) / n_contrasts, LEAST_VARIANCE)
        return float(np.log(variance).sum()) / n_contrasts + np.log(delta), rho, delta

    ratio = visual_to_visual
    if ratio is None:
        searched = MESSAGE_RATIOS if n_contrasts > 1 and edges.scale else np.zeros(1)
        prior = MESSAGE_PRIOR * np.square(np.log(np.maximum(searched, LEAST_VARIANCE)))
        losses = np.array([profile(float(r))[0] for r in searched])
        losses = 0.5 * n_directions(means) * losses + prior / n_contrasts
        ratio = float(searched[int(np.argmin(losses))])
    _, rho, delta = profile(ratio)
    return Scales(rho, ratio, delta, float(np.mean(1 / np.maximum(shots, 1))))
