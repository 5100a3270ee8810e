"""The visual classifier: visual nodes adapted on the graph, and the discriminant they make.

The class means `V` (visual nodes) are tied to the text and to each other by a Gaussian model,

    V   = 1 m0' + rho T + E,    E ~ MN(0, (g K + v I) x Omega)    visual nodes on the graph
    x_i = V_c(i) + noise,       noise ~ N(0, s S / w_i)           images about their class

with the centred positive text nodes `T`, and their similarities `K = T T'` (mean diagonal 1) as
edges between classes. `rho t_c` is the message from the text of a class to its visual node
(positive -> visual), `g K` ties visual nodes whose texts are alike (visual -> visual), and `v` is
the freedom of each class. `S` and `Omega` have unit trace; `Omega = S/2 + T'T / (2 tr T'T)`:
classes differ where images of one class do, and where the texts do. The scalars maximise the
marginal likelihood of the observed class means, under weak priors where few rows tell little.

The posterior mean of `V` takes the place of the class means in a linear discriminant with the
covariance `s S`. Every row's logits without that row have a closed form.

Where the images have no visual signal at all (equal rows) variances are held at 1e-10.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skhegraph.parallel import map_rows
from skhegraph.support import Floats, Ints, Support

#: Prior of the noise: `s = NOISE_RATIO v` with the weight of `NOISE_ROWS` rows. It counts where
#: classes have one row each, and scatter and freedom cannot be told apart. The sets looked at have
#: ratios of 2 to 9.
NOISE_RATIO, NOISE_ROWS = 5.0, 2.0
#: Candidates for `g / (v + s/k)`, and the strength of a log-normal prior about 1 (nats).
MESSAGE_RATIOS = np.exp(np.arange(-6.0, 4.1, 0.25))
MESSAGE_PRIOR = 0.05
#: Least share of the variance of the class means about their prediction that is freedom: the
#: scatter within classes may by chance explain all of it.
LEAST_FREEDOM = 0.05
#: Logits above which products are computed in single precision, and rows at a time.
LOGITS_IN_DOUBLE, ROWS_AT_ONCE = 4_000_000, 1024
#: Least variance: rows have unit length, so a deviation of 1e-5 is a hundred times the rounding of
#: single precision, and products of double precision over it are right to 1e-6.
LEAST_VARIANCE = 1e-10


class Messages(NamedTuple):
    """Estimated strengths of the messages, and what they predict.

    Attributes
    ----------
    positive_to_visual : float
        `rho`.
    visual_to_visual : float
        `g` in units of the variance `v + s/k` of a class mean about its prediction.
    noise, freedom : float
        `s` and `v`, total variances.
    centre : ndarray of shape (n_features,)
        `m0`.
    prior : ndarray of shape (n_classes, n_classes)
        `g K + v I`.
    edge_variance : float
        `g`.
    """

    positive_to_visual: float
    visual_to_visual: float
    noise: float
    freedom: float
    centre: Floats
    prior: Floats
    edge_variance: float


class Linear(NamedTuple):
    """Logits `Z @ coef.T + intercept`."""

    coef: Floats
    intercept: Floats

    def __call__(self, Z: Floats) -> Floats:
        """Logits of unit-row queries, shape (n_queries, n_classes)."""
        return Z @ self.coef.T + self.intercept


def text_edges(text: Floats) -> Floats:
    """Similarities `K` of the centred text nodes, mean diagonal 1; the identity without text."""
    scale = edge_scale(text)
    return scale * text @ text.T if scale else np.eye(len(text))


def edge_scale(text: Floats) -> float:
    """Factor from products of centred text nodes to `K`; 0 without text."""
    trace = float(np.square(text).sum())
    return len(text) / trace if trace > LEAST_VARIANCE else 0.0


def estimate_messages(
    support: Support,
    text: Floats,
    edges: Floats,
    positive_to_visual: float | None = None,
    visual_to_visual: float | None = None,
) -> Messages:
    """Estimate the strengths of the messages by marginal likelihood of the class means.

    In the eigenvectors of `K` the classes are independent with variance `delta (r lambda + 1)`,
    where `delta = v + s/k` and `r = g / delta`; `rho` and `delta` then have closed forms, and `r`
    is searched. Unequal shots enter by the mean of 1/k.

    Parameters
    ----------
    support : Support
        Support set.
    text : ndarray of shape (n_classes, n_features)
        Centred text nodes; zeros without text.
    edges : ndarray of shape (n_classes, n_classes)
        From :func:`text_edges`.
    positive_to_visual, visual_to_visual : float or None, default=None
        Given `rho` and `r`; None estimates them.
    """
    means, shots = support.visual, support.shots
    inverse_shots = float(np.mean(1 / np.maximum(shots, 1)))
    df = max(float(shots.sum()) - len(shots), 0.0)
    deviation = support.X - means[support.y]
    within = float(support.sample_weight @ np.einsum("nd,nd->n", deviation, deviation))
    # Without the constant eigenvector (K 1 = 0), which belongs to m0: it is moved to the front.
    values, vectors = np.linalg.eigh(edges - 1e3 / len(edges))
    values, vectors = np.maximum(values[1:], 0), vectors[:, 1:]
    mean_parts, text_parts = vectors.T @ means, vectors.T @ text
    mm, mt, tt = (
        (a * b).sum(axis=1)
        for a, b in (
            (mean_parts, mean_parts),
            (mean_parts, text_parts),
            (text_parts, text_parts),
        )
    )

    def profile(ratio: float) -> tuple[float, float, float]:
        """Negative log-likelihood per eigenvector, `rho` and `delta`."""
        variance = ratio * values + 1
        rho = positive_to_visual
        if rho is None:
            rho = max(
                float((mt / variance).sum() / max((tt / variance).sum(), LEAST_VARIANCE)), 0.0
            )
        left = np.maximum(mm - 2 * rho * mt + rho**2 * tt, 0) / variance
        delta = max(float(left.mean()), LEAST_VARIANCE)
        return float(np.log(variance).mean() + np.log(delta)), rho, delta

    ratio = visual_to_visual
    if ratio is None:
        searched = MESSAGE_RATIOS if len(values) > 1 and tt.sum() > LEAST_VARIANCE else np.zeros(1)
        prior = (
            MESSAGE_PRIOR * np.square(np.log(np.maximum(searched, LEAST_VARIANCE))) / len(values)
        )
        losses = [profile(float(r))[0] for r in searched] + prior
        ratio = float(searched[int(np.argmin(losses))])
    _, rho, delta = profile(ratio)
    expected = NOISE_RATIO * delta / (1 + NOISE_RATIO * inverse_shots)
    noise = max((within + NOISE_ROWS * expected) / (df + NOISE_ROWS), LEAST_VARIANCE)
    freedom = max(delta - noise * inverse_shots, LEAST_FREEDOM * delta)
    prior_cov = ratio * delta * edges + freedom * np.eye(len(edges))
    precision = np.linalg.inv(prior_cov + np.diag(noise / shots))
    centre = precision.sum(axis=0) @ (means - rho * text) / precision.sum()
    return Messages(rho, ratio, noise, freedom, centre, prior_cov, ratio * delta)


class VisualModel:
    """Statistics of a support set from which a discriminant of any shrinkage is read off.

    Parameters
    ----------
    support : Support
        Support set.
    text : ndarray of shape (n_classes, n_features) or None
        Positive text nodes; None without text.
    positive_to_visual, visual_to_visual : float or None, default=None
        See :func:`estimate_messages`.
    n_features : int or None, default=None
        Feature width, where the support set is given in fewer coordinates
        (:func:`skhegraph.support.in_span`); None takes that of the rows.
    """

    def __init__(
        self,
        support: Support,
        text: Floats | None,
        positive_to_visual: float | None = None,
        visual_to_visual: float | None = None,
        n_features: int | None = None,
    ) -> None:
        means, shots = support.visual, support.shots
        n_rows, self.n_features = float(shots.sum()), n_features or support.X.shape[1]
        self.support, self.shots, self.means = support, shots, means
        self.text = np.zeros_like(means) if text is None else text - text.mean(axis=0)
        self.named_text: Floats | None = None
        if text is not None and support.named is not None:
            self.named_text = support.named.positive - text.mean(axis=0)
        edges = text_edges(self.text)
        self.messages = estimate_messages(
            support, self.text, edges, positive_to_visual, visual_to_visual
        )
        rho, _, noise, _, m0, prior, _ = self.messages
        self.left_over = means - rho * self.text - m0
        residual = support.X - means[support.y]
        residual *= np.sqrt(support.sample_weight)[:, None]
        df = max(n_rows - len(shots), 0.0)
        # At few shots the scatter of the class means about their prediction tells about S too; it
        # counts with the share 1/k of a row, and not at all where there is no text to predict them.
        share = min(1.0, len(shots) / n_rows) if text is not None or df < 1e-9 else 0.0
        #: Inverse covariance of the class means about their prediction, and its weight in S.
        self.precision = np.linalg.inv(prior + np.diag(noise / shots))
        self.between = share * noise
        scatter = residual.T @ residual
        scatter += self.between * self.left_over.T @ (self.precision @ self.left_over)
        self.df = df + share * len(shots)
        values, self.axes = np.linalg.eigh(scatter)
        self.scatter = np.maximum(values, 0)
        self.text_root = self.text / np.sqrt(max(np.square(self.text).sum(), LEAST_VARIANCE))
        self.has_text = text is not None
        # Modes of the classes: eigenvectors of their prior covariance, weighted by the shots.
        root = np.sqrt(shots)
        values, self.modes = np.linalg.eigh(root[:, None] * prior / noise * root)
        self.mode_values = np.maximum(values, 0)

    def at(self, shrinkage: float) -> Discriminant:
        """Discriminant whose covariance has `shrinkage` pseudo-rows per feature of a sphere."""
        return Discriminant(self, shrinkage)


class Discriminant:
    """Linear discriminant of the posterior class means with the covariance `s S`.

    `s S = (scatter + nu s I) / (df + nu D)` for the shrinkage `nu`.
    """

    def __init__(self, model: VisualModel, shrinkage: float) -> None:
        self.model, self.shrinkage = model, shrinkage
        rho, _, noise, _, m0, _, _ = model.messages
        values = model.scatter + shrinkage * noise
        self.rows = model.df + shrinkage * model.n_features
        outside = (model.n_features - len(values)) * shrinkage * noise
        total = values.sum() + outside
        self.noise = total / self.rows  # total variance, tr(s S)
        values = np.maximum(values / total, LEAST_VARIANCE)
        self.values = values
        S = (model.axes * values) @ model.axes.T
        #: Prior covariance of class means and residuals, unit trace.
        self.omega = (S + model.text_root.T @ model.text_root) / 2 if model.has_text else S
        # Coordinates in which S is the identity and Omega diagonal: F' S F = I.
        whiten = model.axes / np.sqrt(values)
        gamma: Floats = np.ones(len(values))
        turn: Floats = np.eye(len(values))
        if model.has_text:
            gamma, turn = _text_axes(model.text_root @ whiten)
            gamma = (1 + gamma) / 2
        self.F, self.inverse_F = whiten @ turn, turn.T @ (np.sqrt(values)[:, None] * model.axes.T)
        gain = model.mode_values[:, None] * np.maximum(gamma, 0)
        gain = gain / (1 + gain)  # share of the data in the posterior, per mode and direction
        root = np.sqrt(model.shots)[:, None]
        observed = model.modes.T @ (root * (model.left_over @ self.F))
        #: Adapted visual nodes about `m0`, in these coordinates.
        self.nodes = rho * model.text @ self.F + model.modes @ (gain * observed) / root
        #: Share that a row of weight 1 has in the posterior mean of its class.
        self.own_share = np.square(model.modes) @ gain / model.shots[:, None]
        self.centre = m0

    def visual_nodes(self, nodes: Floats | None = None) -> Floats:
        """Adapted visual nodes `V'`, shape (n_classes, n_features); of `nodes` where given."""
        return self.centre + (self.nodes if nodes is None else nodes) @ self.inverse_F

    def named_nodes(self) -> Floats:
        """Visual nodes of classes without an image, as `nodes`: what text and neighbours predict.

        The conditional mean `rho t + g K_no (g K + v I)^-1 (V' - m0 - rho T)`, with the
        similarities `K_no` between these classes and those that have images.
        """
        model, text = self.model, self.model.named_text
        assert text is not None
        messages = model.messages
        rho, edges = messages.positive_to_visual, edge_scale(model.text) * text @ model.text.T
        deviations = self.nodes - rho * model.text @ self.F
        told = messages.edge_variance * edges @ np.linalg.solve(messages.prior, deviations)
        return rho * text @ self.F + told

    def linear(self, nodes: Floats | None = None) -> Linear:
        """Logits `-(z - V'_c)' (s S)^-1 (z - V'_c) / 2`, without what all classes share."""
        nodes = self.nodes if nodes is None else nodes
        coef = nodes @ self.F.T / self.noise
        quadratic = np.square(nodes).sum(axis=1) / self.noise
        return Linear(coef, -0.5 * quadratic - coef @ self.centre)

    def whitener(self) -> Floats:
        """Rows `W` with `W'W` the inverse of `s S`, orthogonal to each other."""
        return (self.model.axes / np.sqrt(self.values * self.noise)).T

    def outside_variance(self) -> float:
        """Variance along each direction outside the coordinates at hand; inf if there is none."""
        if self.model.n_features == len(self.values):
            return np.inf
        return max(self.shrinkage * self.model.messages.noise / self.rows, LEAST_VARIANCE)

    def leave_one_out(self, rows: Ints, share: float = 1.0, *, shared: bool = False) -> Floats:
        """Logits of support rows, each by a model that has not seen it, in closed form.

        The row's own node moves by `-h / (1 - h) (z - V'_c)` with the row's share `h`, and the
        scatter loses `w k / (k - w) d d'` within its class, with `d = x - m_c`, or, if the row is
        the only one of its class, what the class adds between the classes; the inverse follows by
        the Sherman-Morrison formula. What a row moves less is kept: scalars, `m0`, `Omega`, the
        nodes of other classes, and the scatter between classes that have other rows. (To take that
        part out as well does harm: `Omega` has seen the row, and then tells on it.)

        Parameters
        ----------
        rows : ndarray of int
            Support rows.
        share : float, default=1.0
            1 gives these logits, 0 those of the model that has seen the rows, and a share of both
            the sum of their shares.
        shared : bool, default=False
            Add what all classes share: log-densities up to a constant.
        """
        n_classes = len(self.nodes)
        dtype = np.float64 if len(rows) * n_classes <= LOGITS_IN_DOUBLE else np.float32
        out: Floats = np.empty((len(rows), n_classes), dtype)

        def fill(block: slice) -> None:
            """Logits of a block of rows."""
            out[block] = self._left_out(rows[block], share, shared, out.dtype)

        map_rows(fill, len(rows), ROWS_AT_ONCE)
        return out

    def _left_out(self, rows: Ints, share: float, shared: bool, dtype: Any) -> Floats:
        """Logits of :meth:`leave_one_out` of some rows, with products in the given precision."""
        support = self.model.support
        X, y, weight = support.X[rows], support.y[rows], support.sample_weight[rows]
        each = np.arange(len(rows))
        Z = (X - self.centre) @ self.F
        d, loss = self._scatter_loss(X, y, weight)
        loss = loss / np.maximum(1 - loss * np.square(d).sum(axis=1), 1e-6)
        part = weight[:, None] * self.own_share[y]
        part = part / np.maximum(1 - part, 1e-6)
        own = self.nodes[y] - part * (Z - self.nodes[y])
        nodes = self.nodes.T.astype(dtype)
        along = -(d.astype(dtype) @ nodes)
        along += (d * Z).sum(axis=1, keepdims=True)
        along[each, y] = (d * (Z - own)).sum(axis=1)
        np.square(along, out=along)
        along *= (share * loss)[:, None]
        squared = -2 * (Z.astype(dtype) @ nodes)
        squared += np.square(self.nodes).sum(axis=1)
        squared[each, y] *= 1 - share
        squared[each, y] += share * (own * own - 2 * Z * own).sum(axis=1)
        if shared:
            squared += np.square(Z).sum(axis=1, keepdims=True)
        squared += along
        squared *= -0.5 / self.noise
        return squared

    def _scatter_loss(self, X: Floats, y: Ints, weight: Floats) -> tuple[Floats, Floats]:
        """Directions `d` (n, D) and factors (n,) of `d d'` that the scatter loses without a row."""
        model = self.model
        k = model.shots[y]
        left = k - weight
        only = left < 1e-9 * k
        d = (X - model.means[y]) @ self.F
        if only.any():
            # A class without rows adds nothing between classes: its deviation goes, and what others
            # predict of it, `q q' / Q_cc` with the inverse covariance `Q` and `q = (Q L)_c`.
            d[only] = model.precision[y[only]] @ model.left_over @ self.F
        factor = np.where(
            only,
            model.between / model.precision.diagonal()[y],
            weight * k / np.where(only, 1, left),
        )
        return d, factor / (self.rows * self.noise)


def _text_axes(A: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues of `A'A` (zeros where A has no row for them) and a basis of eigenvectors."""
    n_rows, width = A.shape
    if n_rows >= width:
        return np.linalg.eigh(A.T @ A)
    basis, triangle = np.linalg.qr(A.T, mode="complete")
    triangle = triangle[:n_rows]
    values, turn = np.linalg.eigh(triangle @ triangle.T)
    basis[:, :n_rows] = basis[:, :n_rows] @ turn
    return np.concatenate([np.maximum(values, 0), np.zeros(width - n_rows)]), basis
