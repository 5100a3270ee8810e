"""The visual classifier: visual nodes adapted on the graph, and the discriminant they make.

The visual nodes `V` have the prior of :mod:`skhegraph.hegraph.messages`, and images are about them,

    V   = 1 m0' + rho T + E,    E ~ MN(0, (g K + v I) x Omega)
    x_i = V_c(i) + noise,       noise ~ N(0, s S / w_i)

`S` and `Omega` have unit trace; `Omega = (1 - w) S + w T'T / tr T'T`: classes differ where images
of one class do and, as far as the texts tell the class means, where the texts do
(:func:`text_share`). The posterior mean of `V` takes the place of the class means in a linear
discriminant with the covariance `s S`. Every row's logits without that row have a closed form.
(Unequal shots: exact but for one mean, :meth:`Discriminant.shared`.)

Where the images have no visual signal at all (equal rows) variances are held at 1e-10.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skhegraph.hegraph.messages import (
    LEAST_VARIANCE,
    Messages,
    Precision,
    estimate_messages,
    principal_axes,
)
from skhegraph.parallel import for_rows, precision_of, sum_rows
from skhegraph.support import Floats, Ints, Support

#: Shots that differ by less than this share are equal, but for rounding.
EQUAL_SHOTS = 1e-9
#: Least share of a node, or of the scatter along a row, that is not the row's own: below it there
#: is nothing left to divide by but rounding.
LEAST_LEFT = 1e-6


class Linear(NamedTuple):
    """Logits `Z @ coef.T + intercept`."""

    coef: Floats
    intercept: Floats

    def __call__(self, Z: Floats) -> Floats:
        """Logits of unit-row queries, shape (n_queries, n_classes)."""
        return Z @ self.coef.T + self.intercept


class Absence(NamedTuple):
    """What changes where support rows are left out, each by itself.

    Attributes
    ----------
    d, gained : ndarray of shape (n_rows, n_directions), (n_rows,)
        Directions `d` and factors `f`: the inverse covariance gains `f d d'`.
    at : ndarray of shape (n_rows,)
        `d . z`.
    own : ndarray of shape (n_rows,)
        How far the logit of the row's own class is lower.
    """

    d: Floats
    gained: Floats
    at: Floats
    own: Floats


def text_share(means: Floats, text: Floats, left_over: Floats) -> float:
    """Share `w` of the directions of the text in the prior of the class means, 0 to 1/2.

    `e = 1 - |E T'|^2 / |V T'|^2` is the part of what the centred class means `V` have along the
    text that the message `rho T` explains, `E = V - rho T` being left over, and
    `w = min(2 e, 1/2)`: a half where the text explains a quarter or more (0.3 to 0.7 on DTD, Pets
    and SUN397 from one shot on; about 0 where zero-shot is at chance). One number `rho` explains
    much of few classes, whatever the text: with that of other classes of DTD, `w` was a half in 72,
    28, 8 and 0 % of the draws of 2, 3, 5 and 10 classes at one shot.
    """
    of_means, left = along(means, text), along(left_over, text)
    if of_means <= LEAST_VARIANCE**2:
        return 0.0
    return min(2 * max(1 - left / of_means, 0.0), 0.5)


def along(A: Floats, text: Floats) -> float:
    """`|A T'|^2` of the centred rows `A`, without a matrix of classes times classes."""
    A = A - A.mean(axis=0)
    if len(A) < A.shape[1]:
        return float(np.square(A @ text.T).sum())
    return float(((A.T @ A) * (text.T @ text)).sum())


class VisualModel:
    """Statistics of a support set from which a discriminant of any shrinkage is read off.

    Parameters
    ----------
    support : Support
        Support set.
    text : ndarray of shape (n_classes, n_features) or None
        Positive text nodes; None without text.
    positive_to_visual, visual_to_visual : float or None, default=None
        See :func:`skhegraph.hegraph.messages.estimate_messages`.
    n_features : int or None, default=None
        Feature width, where the support set is given in fewer coordinates
        (:func:`skhegraph.support.in_span`); None takes that of the rows.
    alone : VisualModel or None, default=None
        Where the support set holds rows without a label: the model of the labelled rows alone,
        which tells the scales of the messages and how far the text tells of the class means.
    """

    def __init__(
        self,
        support: Support,
        text: Floats | None,
        positive_to_visual: float | None = None,
        visual_to_visual: float | None = None,
        n_features: int | None = None,
        alone: VisualModel | None = None,
    ) -> None:
        means, shots, weight = support.visual, support.mass, support.sample_weight
        n_rows, self.n_features = support.n_rows, n_features or support.X.shape[1]
        self.support, self.shots = support, shots
        self.text = np.zeros_like(means) if text is None else text - text.mean(axis=0)
        self.named_text: Floats | None = None
        if text is not None and support.named is not None:
            self.named_text = support.named.positive - text.mean(axis=0)
        scales = None if alone is None else alone.messages.scales
        self.messages: Messages = estimate_messages(
            support, self.text, positive_to_visual, visual_to_visual, scales
        )
        left_over, centre = self.messages.left_over, self.messages.centre
        df = max(n_rows - float((support.shots / shots).sum()), 0.0)
        # At few shots the scatter of the class means about their prediction tells about S too; it
        # counts with the share 1/k of a row, and not at all where there is no text to predict them.
        share = min(1.0, len(shots) / n_rows) if text is not None or df < 1e-9 else 0.0
        self.between, self.df = share * self.messages.noise, df + share * len(shots)
        own_share = text_share(means, self.text, left_over)
        self.text_share: float = own_share if alone is None else alone.text_share
        told = self.messages.precision.times(left_over)
        self.own_precision = self.messages.precision.diagonal()

        def scatter_of(block: slice) -> Floats:
            """Scatter within the classes of a block of rows."""
            residual = support.X[block] - means[support.y[block]]
            residual *= np.sqrt(weight[block])[:, None]
            return residual.T @ residual

        scatter = sum_rows(scatter_of, *support.X.shape)
        for part in support.beside:  # of a class one point, with what is about it
            counts = np.maximum(part.counts, LEAST_VARIANCE)[:, None]
            away = (part.sums / counts - means) * np.sqrt(part.counts)[:, None]
            scatter += away.T @ away
        if support.summed is not None:
            scatter += support.summed.scatter
        scatter += self.between * left_over.T @ told
        values, self.axes = np.linalg.eigh(scatter)
        self.scatter = np.maximum(values, 0)

        # In these axes: the rows about m0, and what there is of each class.
        axes = self.axes.astype(precision_of(len(weight) * len(shots)))
        self.rows: Floats = np.empty((len(weight), len(values)), axes.dtype)

        def turn(block: slice) -> None:
            """Turn a block of rows."""
            away = support.X[block] - centre
            np.matmul(away.astype(axes.dtype, copy=False), axes, out=self.rows[block])

        for_rows(turn, *support.X.shape)
        self.means, self.told = (means - centre) @ self.axes, told @ self.axes
        self.predicted = self.messages.positive_to_visual * self.text @ self.axes
        self.left_over = left_over @ self.axes
        size = max(float(np.square(self.text).sum()), LEAST_VARIANCE)
        self.text_root = self.text @ self.axes / np.sqrt(size)
        # What classes share, in units of the variance `d_c = v + s/k_c` of the rest of each mean.
        edges, messages = self.messages.edges, self.messages
        self.alone = np.sqrt(messages.freedom + messages.noise / shots)[:, None]
        root = np.sqrt(messages.edge_variance * edges.values)
        self.edge_values, self.edge_vectors = principal_axes((edges.vectors * root / self.alone).T)
        self.observed = self.edge_vectors.T @ (self.left_over / self.alone)

    def at(self, shrinkage: float) -> Discriminant:
        """Discriminant whose covariance has `shrinkage` pseudo-rows per feature of a sphere."""
        return Discriminant(self, shrinkage)


class Discriminant:
    """Linear discriminant of the posterior class means with the covariance `s S`.

    `s S = (scatter + nu s I) / (df + nu D)` for the shrinkage `nu`. Points are in the axes of `S`,
    about `m0`, and scaled so that `S` is the identity. `Omega` has there the eigenvectors `turn`
    (columns) with the values `gamma`, and is `rest` times the identity in what is orthogonal.
    """

    def __init__(self, model: VisualModel, shrinkage: float) -> None:
        self.model, self.shrinkage = model, shrinkage
        noise, self.centre = model.messages.noise, model.messages.centre
        values = model.scatter + shrinkage * noise
        self.df = model.df + shrinkage * model.n_features
        outside = (model.n_features - len(values)) * shrinkage * noise
        total = values.sum() + outside
        self.noise = total / self.df  # total variance, tr(s S)
        self.scale = 1 / np.sqrt(np.maximum(values / total, LEAST_VARIANCE))
        values, self.turn = principal_axes(model.text_root * self.scale)
        self.rest = 1 - model.text_share
        self.gamma = self.rest + model.text_share * values
        left_over, observed = model.left_over * self.scale, model.observed * self.scale
        rest = np.array([self.rest])
        a, a_rest = self.own(self.gamma), self.own(rest)
        h, h_rest = self.shared(self.gamma), self.shared(rest)
        back, squares, turn = model.alone * model.edge_vectors, model.edge_vectors**2, self.turn
        #: Share that a row of weight 1 has in the posterior mean of its class, in the turned
        #: directions and in the rest.
        self.share = (a + (1 - a) * (squares @ h)) / model.shots[:, None]
        self.share_rest = (a_rest + (1 - a_rest) * (squares @ h_rest))[:, 0] / model.shots
        left, heard = left_over @ turn, observed @ turn
        moved = a_rest * left_over + (1 - a_rest) * (back @ (h_rest * observed))
        turned = a * left + (1 - a) * (back @ (h * heard))
        turned -= a_rest * left + (1 - a_rest) * (back @ (h_rest * heard))
        #: Adapted visual nodes.
        self.nodes = model.predicted * self.scale + moved + turned @ turn.T

    def own(self, gamma: Floats) -> Floats:
        """`v gamma / (v gamma + s/k_c)`, shape (n_classes, n_directions).

        Share of a class mean that its node keeps, of what is not shared between classes.
        """
        messages = self.model.messages
        return _gain(messages.freedom / messages.noise * self.model.shots[:, None] * gamma)

    def shared(self, gamma: Floats) -> Floats:
        """Share that the edges' eigenvectors keep, shape (n_edges, n_directions).

        `l gamma / (l gamma + f)` with the eigenvalue `l` of `g K` in units of `d_c`, and what the
        rest of a class mean has in the direction, `f = (v gamma + s/k_c) / d_c`: the mean over the
        classes, exact where their shots are equal, so that no direction needs a matrix of its own.
        """
        model, messages = self.model, self.model.messages
        rest = messages.freedom * gamma + messages.noise / model.shots[:, None]
        rest = (rest / np.square(model.alone)).mean(axis=0)
        return _gain(model.edge_values[:, None] * gamma / rest)

    def visual_nodes(self, nodes: Floats | None = None) -> Floats:
        """Adapted visual nodes `V'`, shape (n_classes, n_features); of `nodes` where given."""
        nodes = self.nodes if nodes is None else nodes
        return self.centre + nodes / self.scale @ self.model.axes.T

    def named_nodes(self) -> Floats:
        """Visual nodes of classes without an image, as `nodes`: what text and neighbours predict.

        The conditional mean `rho t + g K_no (g K + v I)^-1 (V' - m0 - rho T)`, with the
        similarities `K_no` between these classes and those that have images.
        """
        model, text, messages = self.model, self.model.named_text, self.model.messages
        assert text is not None
        freedom = np.full(len(model.text), messages.freedom)
        inverse = Precision(messages.edges, messages.edge_variance, freedom)
        deviations = self.nodes - model.predicted * self.scale
        strength = messages.edge_variance * messages.edges.scale
        told = strength * text @ (model.text.T @ inverse.times(deviations))
        return messages.positive_to_visual * text @ model.axes * self.scale + told

    def linear(self, nodes: Floats | None = None) -> Linear:
        """Logits `-(z - V'_c)' (s S)^-1 (z - V'_c) / 2`, without what all classes share."""
        nodes = self.nodes if nodes is None else nodes
        coef = (nodes * self.scale) @ self.model.axes.T / self.noise
        quadratic = np.square(nodes).sum(axis=1) / self.noise
        return Linear(coef, -0.5 * quadratic - coef @ self.centre)

    def least_share(self) -> Floats:
        """Share that a row of weight 1 has in its node in the direction where it has least."""
        return self.share.min(axis=1) if len(self.turn) == len(self.gamma) else self.share_rest

    def prior_root(self) -> Floats:
        """Columns `H` with `H H' = Omega`, the prior covariance of class means and residuals."""
        root = np.sqrt(self.gamma) - np.sqrt(self.rest)
        H = (self.turn * root) @ self.turn.T + np.sqrt(self.rest) * np.eye(len(self.turn))
        return self.model.axes @ (H / self.scale[:, None])

    def whitener(self) -> Floats:
        """Rows `W` with `W'W` the inverse of `s S`, orthogonal to each other."""
        return (self.model.axes * (self.scale / np.sqrt(self.noise))).T

    def outside_variance(self) -> float:
        """Variance along each direction outside the coordinates at hand; inf if there is none."""
        if self.model.n_features == len(self.scale):
            return np.inf
        return max(self.shrinkage * self.model.messages.noise / self.df, LEAST_VARIANCE)

    def shared_logits(self, rows: Ints) -> Floats:
        """What the logits of all classes share, `-(x - m0)' (s S)^-1 (x - m0) / 2`, of rows."""
        Z = self.model.rows[rows] * self.scale
        return -0.5 / self.noise * np.square(Z).sum(axis=1)

    def away_from_held_out_node(self, rows: Ints) -> Floats:
        """`z_i - V'_c` of support rows, with the node of their class made without them.

        The mean of the others is `k / (k - w)` times as far away as that of all, and so the
        posterior node is `1 / (1 - h)` times as far, with the share `h` of the row in it, in each
        direction of `turn` and in the rest.
        """
        y, weight = self.model.support.y[rows], self.model.support.sample_weight[rows][:, None]
        away = self.model.rows[rows] * self.scale - self.nodes[y]
        part = 1 / np.maximum(1 - weight * self.share[y], LEAST_LEFT)
        part_rest = 1 / np.maximum(1 - weight * self.share_rest[y][:, None], LEAST_LEFT)
        held_out: Floats = part_rest * away
        held_out += ((part - part_rest) * (away @ self.turn)) @ self.turn.T
        return held_out

    def held_out_shift(self, rows: Ints) -> Floats:
        """Node of the class of each support row made without it, less the node of all rows."""
        out: Floats = np.empty(self.model.rows[rows].shape, self.model.rows.dtype)

        def fill(block: slice) -> None:
            """Shifts of a block of rows."""
            some = rows[block]
            away = self.model.rows[some] * self.scale - self.nodes[self.model.support.y[some]]
            moved = (away - self.away_from_held_out_node(some)) / self.scale
            out[block] = moved @ self.model.axes.T

        for_rows(fill, *out.shape)
        return out

    def lost_scatter(self, rows: Ints) -> tuple[Floats, Floats]:
        """Directions `d` along which the covariance loses the row, and factors of `d d'`.

        The scatter loses `w k / (k - w) d d'` within the class, with `d = x - m_c`; the only row
        of a class adds nothing there, and what others predict of it, `q q' / Q_cc` with the
        inverse covariance `Q` and `q = (Q L)_c`, goes: there `d = q`. By the Sherman-Morrison
        formula the inverse covariance gains `f d d'`, `f = loss / (1 - loss d'd)`.
        """
        model = self.model
        y, weight = model.support.y[rows], model.support.sample_weight[rows]
        k = model.shots[y]
        only = k - weight < EQUAL_SHOTS * k
        within = weight * k / np.where(only, 1, k - weight)
        lost = np.where(only, model.between / model.own_precision[y], within)
        d = np.where(only[:, None], model.told[y], model.rows[rows] - model.means[y]) * self.scale
        loss = lost / (self.df * self.noise)
        return d, loss / np.maximum(1 - loss * np.square(d).sum(axis=1), LEAST_LEFT)

    def leave_one_out(self, rows: Ints) -> Floats:
        """Logits of support rows, each by a model that has not seen it, in closed form.

        The row's own node and the covariance are those without it
        (:meth:`away_from_held_out_node`, :meth:`lost_scatter`). What a row moves less is kept:
        scalars, `m0`, `Omega`, the nodes of other classes, and the scatter between classes that
        have other rows. (To take that part out as well does harm: `Omega` has seen the row, and
        then tells on it.)

        Parameters
        ----------
        rows : ndarray of int
            Support rows.

        Returns
        -------
        ndarray of shape (n_rows, n_classes)
            Without what all classes share, :meth:`shared_logits`.
        """
        n_classes = len(self.nodes)
        out: Floats = np.empty((len(rows), n_classes), precision_of(len(rows) * n_classes))

        def fill(block: slice) -> None:
            """Logits of a block of rows."""
            out[block] = self._left_out(rows[block], out.dtype)

        for_rows(fill, len(rows), n_classes)
        return out

    def absence(self, rows: Ints) -> Absence:
        """What changes where support rows are left out, each by itself."""
        away = self.model.rows[rows] * self.scale
        d, gained = self.lost_scatter(rows)
        at = (d * away).sum(axis=1)
        away -= self.nodes[self.model.support.y[rows]]
        own = self.away_from_held_out_node(rows)
        farther = np.square(own).sum(axis=1) - np.square(away).sum(axis=1)
        farther += gained * np.square((d * own).sum(axis=1))
        return Absence(d, gained, at, 0.5 / self.noise * farther)

    def lost_logits(self, absent: Absence, nodes: Floats, own: Ints) -> Floats:
        """How far left-out rows lower the logits of nodes, `f (d . (z - V))^2 / (2 s)`.

        `own` tells which node is that of the row's own class: 0 there.
        """
        dtype = nodes.dtype
        lost = absent.at.astype(dtype)[:, None] - absent.d.astype(dtype) @ nodes.T
        np.square(lost, out=lost)
        lost *= (0.5 / self.noise * absent.gained).astype(dtype)[:, None]
        lost[np.arange(len(own)), own] = 0
        return lost

    def _left_out(self, rows: Ints, dtype: Any) -> Floats:
        """Logits `-(|z - V|^2 - |z|^2) / (2 s)` of all nodes `V`, less what rows left out lose."""
        y, absent, nodes = self.model.support.y[rows], self.absence(rows), self.nodes.astype(dtype)
        logits = (self.model.rows[rows] * self.scale).astype(dtype) @ nodes.T
        logits -= 0.5 * np.square(nodes).sum(axis=1)
        logits /= self.noise
        logits[np.arange(len(y)), y] -= absent.own
        logits -= self.lost_logits(absent, nodes, y)
        return logits


def _gain(signal: Any) -> Any:
    """Share of the data in a posterior mean, of the ratio of prior variance to noise."""
    return signal / (1 + signal)
