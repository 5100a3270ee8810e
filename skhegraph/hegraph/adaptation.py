"""Adapt the nodes of the graph to a support set: the three steps of HeGraphClassifier.

:mod:`skhegraph.hegraph` tells how it works, with the equations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from skhegraph.hegraph.familiarity import evidence, familiarity_scale
from skhegraph.hegraph.fusion import (
    calibration_rows,
    fit_fusion,
    shots_per_class,
    wrong_class_spread,
)
from skhegraph.hegraph.logits import text_logits
from skhegraph.hegraph.parameters import NETWORK_PATHS, warn_if_ignored, warn_if_unrelated
from skhegraph.hegraph.residuals import Residuals, fit_residuals
from skhegraph.hegraph.visual import Discriminant, VisualModel
from skhegraph.parallel import for_rows
from skhegraph.support import Floats, Support, effective_weights, in_span, unit_rows

NODE_TYPES = ("positive", "negative", "visual")


class Adapted(NamedTuple):
    """What the three steps give, for the classes that have rows.

    Attributes
    ----------
    basis : ndarray of shape (r, n_features)
        Orthonormal rows; discriminant and residuals are in their coordinates.
    discriminant : Discriminant
        Adapted visual nodes and covariance.
    text_weight, visual_weight : float
        `a` and `b`.
    positive, negative : ndarray of shape (n_classes, n_features)
        Text nodes after the network.
    loss_curve : list of float
        Its losses.
    penalty : float
        Strength of the ridge on the residuals.
    residuals : Residuals
        Of the text branch.
    familiarity_scale : ndarray of shape (3,)
        See :mod:`skhegraph.hegraph.familiarity`.
    """

    basis: Floats
    discriminant: Discriminant
    text_weight: float
    visual_weight: float
    positive: Floats
    negative: Floats
    loss_curve: list[float]
    penalty: float
    residuals: Residuals
    familiarity_scale: Floats


def adapt(support: Support, prior: Floats, params: Mapping[str, Any], text_source: str) -> Adapted:
    """Adapt visual nodes, weights of the branches, text nodes and residuals to a support set.

    Parameters
    ----------
    support : Support
        Support set.
    prior : ndarray of shape (n_all_classes,)
        Probability of each class before an image is seen.
    params : mapping
        Parameters of :class:`skhegraph.HeGraphClassifier`.
    text_source : str
        Name of the text source, for a warning.
    """
    has_text = text_source != ""
    warn_if_ignored(params, has_text)
    if support.named is not None:
        prior = prior[~support.named.mask]
    # Few rows of a class stand for few, however much the class counts: effective numbers.
    loss_weight = effective_weights(support.sample_weight * (prior / support.shots)[support.y])
    rng = check_random_state(params["random_state"])

    # All but the network works in the span of the rows and the text.
    inside, basis = in_span(support)
    X, P, tau = inside.X, inside.positive, support.logit_scale

    # Messages adapt the visual nodes; leave-one-out logits weigh the two branches.
    model = VisualModel(
        inside,
        P if has_text else None,
        params["positive_to_visual"] if has_text else None,
        params["visual_to_visual"] if has_text else None,
        n_features=support.X.shape[1],
    )
    rows = calibration_rows(support, rng)
    zero_shot = text_logits(X[rows], P, tau) if has_text else None
    if zero_shot is not None:
        warn_if_unrelated(zero_shot / tau, support.y[rows], text_source, support.X.shape[1])
    discriminant, a, b = fit_fusion(
        model, zero_shot, loss_weight[rows], rows, params["text_weight"], params["visual_weight"]
    )
    # Residuals learn on logits between in-sample (which few shots separate all too well) and
    # leave-one-out ones (of a model with one row less): by the share 1/k of a row in its class.
    visual = discriminant.leave_one_out(np.arange(len(support.y)), 1 / shots_per_class(support))
    visual *= b

    # The network adapts the text nodes, where it has paths.
    in_sample = b * discriminant.linear()(X[rows]) + text_logits(X[rows], P, a * tau)
    penalty = params["penalty"] / wrong_class_spread(in_sample, support.y[rows]) ** 2
    nodes, negative, loss_curve = adapt_text(support, params, visual, loss_weight, a, penalty, rng)

    # Residuals adapt each class to what both branches leave over.
    fused, text = visual, nodes.astype(visual.dtype)

    def add_text(block: slice) -> None:
        """Add the text logits of a block of rows."""
        fused[block] += text_logits(support.X[block].astype(text.dtype), text, a * tau)

    for_rows(add_text, *fused.shape)
    centre = inside.visual.mean(axis=0)
    D = fit_residuals(X, support.y, loss_weight, fused, penalty, discriminant.prior_root(), centre)

    left_out = discriminant.leave_one_out(rows, shared=True)
    logits = text_logits(support.X[rows], nodes, a * tau) + b * left_out
    logits += X[rows] @ D.coef.T + D.intercept + np.log(prior)
    # A left-out row still has its share h in the centre (squared distances lose (1 - h)^2) and in
    # the scale of the covariance (1 - h).
    h = support.sample_weight[rows] / support.sample_weight.sum()
    density = left_out.max(axis=1) / (1 - h) ** 3
    scale = familiarity_scale(density, evidence(logits))
    return Adapted(basis, discriminant, a, b, nodes, negative, loss_curve, penalty, D, scale)


def adapt_text(
    support: Support,
    params: Mapping[str, Any],
    visual: Floats,
    loss_weight: Floats,
    text_weight: float,
    penalty: float,
    rng: np.random.RandomState,
) -> tuple[Floats, Floats, list[float]]:
    """Positive nodes (unit rows) and negative nodes after the network, and its losses."""
    into_positive = [params[name] for name in NETWORK_PATHS[2:]]
    if not (any(into_positive) and params["n_steps"] and text_weight):
        return support.positive, support.negative, []
    from skhegraph.clip.model import resolve_device
    from skhegraph.hegraph.graph import build_graph
    from skhegraph.hegraph.network import PathWeights
    from skhegraph.hegraph.training import train_text_nodes

    nodes = {
        "positive": support.positive,
        "negative": support.negative,
        "visual": support.visual,
    }
    P, N, curve = train_text_nodes(
        build_graph(nodes, params["top_k"]),
        PathWeights(*(params[name] for name in NETWORK_PATHS)),
        support,
        text_weight=text_weight,
        visual_logits=visual,
        loss_weight=loss_weight,
        # The ridge on the residuals, for matrices that move all classes at once.
        penalty=penalty / (2 * shots_per_class(support)),
        n_steps=params["n_steps"],
        rng=rng,
        device=resolve_device(params["device"]),
    )
    return unit_rows(P), N, curve


def fitted_arrays(
    support: Support, adapted: Adapted, prior: Floats, dtype: Any
) -> tuple[dict[str, Any], NDArray[Any]]:
    """Nodes and linear classifiers of all classes, those without an image too.

    The classifiers are in the precision `dtype`, that of the rows.

    Returns
    -------
    dict
        Fitted attributes of :class:`skhegraph.HeGraphClassifier`.
    ndarray of shape (n_all_classes,)
        Share of the rows of a class in its adapted visual node, in the direction where it is least.
    """
    discriminant, basis, b = adapted.discriminant, adapted.basis, adapted.visual_weight
    scale, D, named = adapted.text_weight * support.logit_scale, adapted.residuals, support.named
    linear = discriminant.linear()
    arrays = {
        "positive": support.positive,
        "negative": support.negative,
        "visual": support.visual,
        "positive_nodes": adapted.positive,
        "negative_nodes": adapted.negative,
        "visual_nodes": discriminant.visual_nodes() @ basis,
        "text_coef": scale * adapted.positive + D.coef @ basis,
        "text_intercept": D.intercept,
        "visual_coef": b * linear.coef @ basis,
        "visual_intercept": b * linear.intercept,
        "share": discriminant.least_share() * support.shots,
    }
    if named is not None:
        guess = discriminant.named_nodes()
        nodes, linear = discriminant.visual_nodes(guess) @ basis, discriminant.linear(guess)
        of_named = {
            "positive": named.positive,
            "negative": named.negative,
            "visual": nodes,
            "positive_nodes": named.positive,
            "negative_nodes": named.negative,
            "visual_nodes": nodes,
            "text_coef": scale * named.positive,
            "visual_coef": b * linear.coef @ basis,
            "visual_intercept": b * linear.intercept,
        }
        arrays = {
            name: named.merge(array, of_named.get(name, 0.0)) for name, array in arrays.items()
        }
    graph = {kind: arrays.pop(kind).astype(np.float32) for kind in NODE_TYPES}
    nodes_after = {kind: arrays.pop(f"{kind}_nodes").astype(np.float32) for kind in NODE_TYPES}
    share, log_prior = arrays.pop("share"), np.log(prior)
    # Both branches are linear, and so is their sum: one matrix product predicts.
    arrays["coef"] = arrays["text_coef"] + arrays["visual_coef"]
    arrays["intercept"] = arrays["text_intercept"] + arrays["visual_intercept"] + log_prior
    messages = discriminant.model.messages
    return {
        "log_prior_": log_prior,
        **{f"{name}_": array.astype(dtype) for name, array in arrays.items()},
        **{f"{kind}_nodes_": array for kind, array in nodes_after.items()},
        "graph_": graph,
        "visual_whitener_": (discriminant.whitener() @ basis).astype(np.float32),
        "visual_centre_": (discriminant.centre @ basis).astype(np.float32),
        "outside_variance_": discriminant.outside_variance(),
        "familiarity_scale_": adapted.familiarity_scale,
        "positive_to_visual_": float(messages.positive_to_visual),
        "visual_to_visual_": float(messages.visual_to_visual),
        "shrinkage_": discriminant.shrinkage,
        "text_weight_": adapted.text_weight,
        "visual_weight_": adapted.visual_weight,
        "penalty_": adapted.penalty,
        "n_iter_": D.n_steps,
        "loss_curve_": adapted.loss_curve,
    }, share
