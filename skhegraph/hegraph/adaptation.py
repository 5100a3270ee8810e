"""Adapt the nodes of the graph to a support set: the stages of HeGraphClassifier.

:mod:`skhegraph.hegraph` tells how it works, with the equations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from skhegraph.feature_classifier import LARGEST
from skhegraph.hegraph.class_graph import Paths, Received, received, similar_classes
from skhegraph.hegraph.familiarity import familiarity_scale, prominence
from skhegraph.hegraph.fusion import (
    Fusion,
    calibration_rows,
    fit_fusion,
    shots_per_class,
    wrong_class_spread,
)
from skhegraph.hegraph.logits import text_logits
from skhegraph.hegraph.messages import n_directions
from skhegraph.hegraph.near import Near, near_classes
from skhegraph.hegraph.priors import RIDGE_POWER
from skhegraph.hegraph.text_nodes import Trained, fit_text_nodes
from skhegraph.hegraph.visual import Discriminant, Linear, VisualModel
from skhegraph.parallel import precision_of
from skhegraph.support import Floats, Ints, Support, effective_weights, in_span

#: Shots per class above which training leaves out what a row's own absence changes, a share of 1/k:
#: at 60 images a class of CIFAR-10 that is 0.0006 of log-loss, at 1,000 no probability by 0.001.
MANY_SHOTS = 1000


class Strengths(NamedTuple):
    """Parameters of :class:`skhegraph.HeGraphClassifier` that are scalars of the graph.

    Those that are None are estimated.
    """

    positive_to_visual: float | None
    visual_to_visual: float | None
    text_weight: float | None
    visual_weight: float | None
    shrinkage: float | None
    paths: Paths
    penalty: float


def given(value: float | str) -> float | None:
    """Value of a parameter; None where it is "auto", to be estimated."""
    return None if isinstance(value, str) else float(value)


def by_text_alone(strengths: Strengths) -> Strengths:
    """Strengths that leave the text as it is: one class with images says nothing of the others.

    Rows made from text are where the text has them, and would teach that it is always right: with
    1 to 8 images of one class of DTD, 37 to 24 % of all were right so, and 45 % by the text.
    """
    a, b = strengths.text_weight, strengths.visual_weight
    return strengths._replace(
        text_weight=1.0 if a is None else a,
        visual_weight=0.0 if b is None else b,
        paths=Paths(0.0, 0.0, 0.0),
        penalty=LARGEST,
    )


class Adapted(NamedTuple):
    """What the stages give, for the classes that have rows.

    Attributes
    ----------
    basis : ndarray of shape (r, n_features)
        Orthonormal rows; discriminant and trained nodes are in their coordinates.
    discriminant : Discriminant
        Adapted visual nodes and covariance.
    text_weight, visual_weight : float
        `a` and `b`.
    paths : Paths
        Path weights into the text nodes as they acted.
    penalty : float
        Strength of the ridge on the trained text nodes.
    trained : Trained
        What training adds to the text branch.
    familiarity_scale : ndarray of shape (3,)
        See :mod:`skhegraph.hegraph.familiarity`.
    """

    basis: Floats
    discriminant: Discriminant
    text_weight: float
    visual_weight: float
    paths: Paths
    penalty: float
    trained: Trained
    familiarity_scale: Floats


def adapt(support: Support, prior: Floats, strengths: Strengths, has_text: bool) -> Adapted:
    """Adapt visual nodes, weights of the branches and text nodes to a support set.

    Parameters
    ----------
    support : Support
        Support set.
    prior : ndarray of shape (n_all_classes,)
        Probability of each class before an image is seen.
    strengths : Strengths
        Parameters of the graph.
    has_text : bool
        Whether the positive nodes are text, not class means.
    """
    if support.named is not None:
        prior = prior[~support.named.mask]
    weight = loss_weights(support, prior)
    # All works in the span of the rows and the text.
    inside, basis = in_span(support)
    rows = calibration_rows(support)
    visual = visual_model(inside, strengths, has_text, support.X.shape[1])
    zero_shot = None
    if has_text:
        zero_shot = text_logits(inside.X[rows], inside.positive, support.logit_scale)
    a, b, shrinkage = strengths.text_weight, strengths.visual_weight, strengths.shrinkage
    fusion = fit_fusion(visual, zero_shot, weight[rows], rows, a, b, shrinkage)
    return adapt_text(inside, basis, fusion, rows, weight, prior, strengths, has_text)


def loss_weights(support: Support, prior: Floats) -> Floats:
    """Weight of each support row in the log-loss.

    Few rows of a class stand for few, however much the class counts: effective numbers.
    """
    y, shots = support.y, support.kept_shots  # rows that are kept stand for those that are summed
    return effective_weights(support.sample_weight * prior[y] / shots[y])


def visual_model(
    inside: Support,
    strengths: Strengths,
    has_text: bool,
    n_features: int,
    alone: VisualModel | None = None,
) -> VisualModel:
    """Visual model of a support set with the given strengths of messages."""
    return VisualModel(
        inside,
        inside.positive if has_text else None,
        strengths.positive_to_visual if has_text else None,
        strengths.visual_to_visual if has_text else None,
        n_features,
        alone,
    )


def adapt_text(
    inside: Support,
    basis: Floats,
    fusion: Fusion,
    rows: Ints,
    weight: Floats,
    prior: Floats,
    strengths: Strengths,
    has_text: bool,
) -> Adapted:
    """Adapt the text nodes, and scale the familiarity: the stages after the visual nodes.

    `inside` is the support set in the coordinates of `basis`, and `rows` are those whose logits
    `fusion` holds.
    """
    paths = acting_paths(inside, strengths.paths, has_text)
    messages = messages_into_text(inside, fusion.discriminant, paths)
    linear, logits = fused(inside, fusion), training_logits(inside, fusion)
    growth = max(shots_per_class(inside) / 2, 1) ** RIDGE_POWER
    spread = wrong_class_spread(linear(inside.X[rows]), inside.y[rows])
    penalty = strengths.penalty * growth / spread**2
    root, centre = fusion.discriminant.prior_root(), inside.visual.mean(axis=0)
    trained = fit_text_nodes(
        inside.X, inside.y, weight, logits, inside.n_classes, penalty, root, centre, messages
    )
    scale = fit_familiarity(inside, fusion, trained, rows, prior)
    return Adapted(
        basis, fusion.discriminant, fusion.text, fusion.visual, paths, penalty, trained, scale
    )


def acting_paths(support: Support, paths: Paths, has_text: bool) -> Paths:
    """Path weights into the text nodes for the shots at hand, `w sqrt(1 - 1/k)`.

    One matrix serves all classes, so it is learned from what the other rows of a class say of a
    row: with one shot there are none, and the closed form has used the text already. Without text
    the positive nodes are the class means, which is what the visual nodes say.
    """
    share = float(np.sqrt(max(1 - 1 / shots_per_class(support), 0)))
    if not has_text:
        paths = Paths(0.0, paths.visual_to_positive, 0.0)
    return Paths(*(weight * share for weight in paths))


def messages_into_text(inside: Support, discriminant: Discriminant, paths: Paths) -> Received:
    """What the text nodes receive, and what of it is due to each support row itself."""
    if not any(paths):
        return Received(np.zeros((inside.n_classes, 0)), np.zeros((len(inside.y), 0)))
    edges = similar_classes(inside.positive)
    shift: Floats = np.zeros((len(inside.y), 0))
    if shots_per_class(inside) <= MANY_SHOTS:
        shift = discriminant.held_out_shift(np.arange(len(inside.y)))
    nodes = discriminant.visual_nodes()
    return received(inside.positive, inside.negative, nodes, shift, edges, paths)


def fused(inside: Support, fusion: Fusion) -> Linear:
    """Fused logits before training, by nodes and a covariance that have seen all rows."""
    visual = fusion.discriminant.linear()
    coef = fusion.text * inside.logit_scale * inside.positive + fusion.visual * visual.coef
    return Linear(coef, fusion.visual * visual.intercept)


def training_logits(inside: Support, fusion: Fusion) -> Callable[[slice], Near]:
    """Fused logits to train on, of a block of the support rows at the classes near to it.

    They lie between those of the nodes that have seen the rows, which few shots separate all too
    well, and leave-one-out ones, of a model with one row less: by the share 1/k of a row in its
    class.
    """
    discriminant, linear = fusion.discriminant, fused(inside, fusion)
    shots = shots_per_class(inside)
    share = fusion.visual / shots
    dtype = precision_of(len(inside.y) * inside.n_classes)
    coef, nodes = linear.coef.astype(dtype), discriminant.nodes.astype(dtype)
    offset = (linear.intercept + linear.coef @ discriminant.centre).astype(dtype)

    def of_rows(block: slice) -> Near:
        """Logits of a block of rows; what leaving them out takes off is known for the near ones."""
        y = inside.y[block]
        logits = (inside.X[block] - discriminant.centre).astype(dtype) @ coef.T
        logits += offset
        if shots > MANY_SHOTS:
            return near_classes(logits, y)
        absent = discriminant.absence(np.arange(len(inside.y))[block])
        logits[np.arange(len(y)), y] -= share * absent.own
        near = near_classes(logits, y)
        lower = discriminant.lost_logits(absent, nodes[near.classes], near.own)
        np.subtract(near.logits, share * lower, out=near.logits)
        return near

    return of_rows


def held_out_logits(
    inside: Support, fusion: Fusion, trained: Trained, rows: Ints, prior: Floats
) -> Floats:
    """Logits of some rows, the visual ones held out, with all that they consist of."""
    X = inside.X[rows]
    logits = text_logits(X, inside.positive, fusion.text * inside.logit_scale)
    logits = logits + fusion.visual * fusion.held_out
    logits += X @ trained.coef.T + trained.intercept + np.log(prior)
    return logits


def fit_familiarity(
    inside: Support, fusion: Fusion, trained: Trained, rows: Ints, prior: Floats
) -> Floats:
    """Scale of :mod:`skhegraph.hegraph.familiarity`, from held-out logits of some rows."""
    discriminant = fusion.discriminant
    logits = held_out_logits(inside, fusion, trained, rows, prior)
    density = fusion.held_out.max(axis=1) + discriminant.shared_logits(rows)
    # A left-out row still has its share h in the centre (squared distances lose (1 - h)^2) and in
    # the scale of the covariance (1 - h). One that is more than half of all says nothing of others.
    h = inside.sample_weight[rows] / inside.n_rows
    others = h <= max(0.5, h.min())
    density = (density / np.maximum(1 - h, 0.5) ** 3)[others]
    concentration = 1 / n_directions(discriminant.model.rows[rows[others]] * discriminant.scale)
    share = inside.sample_weight / inside.mass[inside.y]  # squares of weights may underflow
    squares = np.bincount(inside.y, np.square(share), inside.n_classes).astype(np.float64)
    if inside.summed is not None:
        squares += inside.summed.squares / np.square(inside.mass)
    known = 1 - float(np.mean(squares))
    return familiarity_scale(density, prominence(logits[others]), concentration, known)


class Branches(NamedTuple):
    """Nodes and linear classifiers of all classes, those without an image too.

    Attributes
    ----------
    visual_nodes : ndarray of shape (n_all_classes, n_features)
        Adapted visual nodes.
    initial_visual : ndarray of shape (n_all_classes, n_features)
        Class means, and adapted nodes where there is no image.
    text_coef, visual_coef : ndarray of shape (n_all_classes, n_features)
        Coefficients.
    text_intercept, visual_intercept : ndarray of shape (n_all_classes,)
        Offsets.
    share : ndarray of shape (n_all_classes,)
        Share of the rows of a class in its adapted visual node, in the direction where it is least.
    """

    visual_nodes: Floats
    initial_visual: Floats
    text_coef: Floats
    text_intercept: Floats
    visual_coef: Floats
    visual_intercept: Floats
    share: Floats


def branches(support: Support, adapted: Adapted) -> Branches:
    """Nodes and linear classifiers from what the stages gave."""
    discriminant, basis, b = adapted.discriminant, adapted.basis, adapted.visual_weight
    scale, D, named = adapted.text_weight * support.logit_scale, adapted.trained, support.named
    linear = discriminant.linear()
    of_rows = Branches(
        discriminant.visual_nodes() @ basis,
        support.visual,
        scale * support.positive + D.coef @ basis,
        D.intercept,
        b * linear.coef @ basis,
        b * linear.intercept,
        discriminant.least_share() * support.shots,
    )
    if named is None:
        return of_rows
    guess = discriminant.named_nodes()
    nodes, linear = discriminant.visual_nodes(guess) @ basis, discriminant.linear(guess)
    of_named = Branches(
        nodes,
        nodes,
        scale * named.positive,
        np.zeros(len(nodes)),
        b * linear.coef @ basis,
        b * linear.intercept,
        np.zeros(len(nodes)),
    )
    return Branches(*(named.merge(*pair) for pair in zip(of_rows, of_named, strict=True)))
