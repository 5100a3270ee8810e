"""The graph of HeGraphClassifier: which classes are alike, and what a text node receives.

Seven relations join a positive-text, a negative-text and a visual node of each class. Edges into
the positive nodes are `I + A`, the class itself and the classes that are like it: dense cosines
would give all classes nearly the same message, since among C classes each keeps a share of about
`1 / C` of itself. The negative nodes hear what their class is not, with the sign of the described
method, and pass it on with another change of sign:

    N'  = N - (P + V') / 2                                   p->n, v->n   (Eq. 1-2)
    M_c = w_pp (I + A) P + w_vp (I + A) V' - w_np (I + A) N'  p->p, v->p, n->p   (inputs of Eq. 3-4)

Edges into the visual nodes are in :mod:`skhegraph.hegraph.messages`. Nodes of each kind are centred
and of mean square length 1, and so is what each relation gives: a path weight of 1 counts as much
as the node itself, whatever the CLIP and the number of classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array, diags_array, eye_array, vstack

from skhegraph.hegraph.messages import Edges
from skhegraph.parallel import map_rows
from skhegraph.support import Floats, unit_rows

#: Classes that a class is joined to, those whose text is most alike. Without any, with five and
#: with all of them the log-loss on draws from the pools of four sets differs by 0.001 in the mean
#: over 1 to 16 shots; at two shots five are best, 0.010 below none and 0.005 below all.
NEIGHBOURS = 5
#: Weight of what a negative node hears from the positive and the visual node of its class: the
#: described method's (Eq. 1-2).
POLARITY = 0.5
#: Cosines that differ by less are equal, but for rounding: all of them are kept, or none.
TIE = 1e-9
#: Least length of what a relation gives: below it nodes are equal, but for rounding.
LEAST_LENGTH = 1e-6


class Paths(NamedTuple):
    """Path weights of the relations into the positive nodes (Eq. 3-4)."""

    positive_to_positive: float
    visual_to_positive: float
    negative_to_positive: float


class Received(NamedTuple):
    """What the positive node of each class receives.

    Attributes
    ----------
    nodes : ndarray of shape (n_classes, n_features)
        `M`.
    held_out_shift : ndarray of shape (n_samples, n_features)
        What a support row's absence changes in the row of `M` of its own class.
    """

    nodes: Floats
    held_out_shift: Floats


def similar_classes(nodes: Floats) -> csr_array:
    """Edges `A` between classes: the `NEIGHBOURS` largest centred cosines above 0, as shares.

    More where cosines are equal.

    Parameters
    ----------
    nodes : ndarray of shape (n_classes, n_features)
        Positive nodes.

    Returns
    -------
    csr_array of shape (n_classes, n_classes)
        Rows are targets and sum to one, or are empty.
    """
    n_classes = len(nodes)
    unit = unit_rows(nodes - nodes.mean(axis=0))
    n_kept = min(NEIGHBOURS, n_classes - 1)

    def into(block: slice) -> csr_array:
        """Edges into a block of the classes."""
        cosine = unit[block] @ unit.T
        each = np.arange(len(cosine))
        cosine[each, block.start + each] = 0
        least = np.partition(cosine, -n_kept, axis=1)[:, -n_kept, None]
        cosine[(cosine < least - TIE) | (cosine < TIE)] = 0
        return csr_array(cosine / np.maximum(cosine.sum(axis=1, keepdims=True), TIE))

    return csr_array(vstack(list(map_rows(into, n_classes, n_classes))))


def to_unit(nodes: Floats) -> float:
    """Factor that gives rows a mean square length of 1."""
    length = float(np.sqrt(np.square(nodes).sum() / len(nodes)))
    return 1 / length if length > LEAST_LENGTH else 0.0


def received(
    positive: Floats,
    negative: Floats,
    visual: Floats,
    visual_shift: Floats,
    edges: csr_array,
    paths: Paths,
) -> Received:
    """Gather `M` along the edges `I + A` into the positive nodes.

    Parameters
    ----------
    positive, negative, visual : ndarray of shape (n_classes, n_features)
        Text nodes and adapted visual nodes.
    visual_shift : ndarray of shape (n_samples, n_features)
        What a row's absence changes in the visual node of its class; it is changed in place.
    edges : csr_array of shape (n_classes, n_classes)
        `A`.
    paths : Paths
        Path weights; a relation of weight 0 is left out.
    """
    P, N, V = (nodes - nodes.mean(axis=0) for nodes in (positive, negative, visual))
    P, N, scale = to_unit(P) * P, to_unit(N) * N, to_unit(V)
    V = scale * V
    opposed = -(N - POLARITY * (P + V))  # n->p changes the sign, as p->n and v->n do
    M: Floats = np.zeros_like(V)
    of_shift = 0.0
    for weight, nodes, share_of_visual in (
        (paths.positive_to_positive, P, 0.0),
        (paths.visual_to_positive, V, 1.0),
        (paths.negative_to_positive, opposed, POLARITY),
    ):
        if weight:
            message = nodes + edges @ nodes
            weight *= to_unit(message)
            M += weight * message
            of_shift += weight * share_of_visual * scale
    visual_shift *= of_shift  # in place: the largest array of a fit on many rows
    return Received(M, visual_shift)


def acting_edges(positive: Floats, strengths: dict[str, float]) -> dict[tuple[str, str], csr_array]:
    """Every relation that acted, with its edges times the strength with which it did.

    Parameters
    ----------
    positive : ndarray of shape (n_classes, n_features)
        Positive nodes.
    strengths : dict
        ``"positive_to_visual"`` and so on, as fitted; a relation of strength 0 did not act.

    Returns
    -------
    dict of csr_array of shape (n_classes, n_classes)
        Keys are (source, target), rows of the edges are targets.
    """
    identity = csr_array(eye_array(len(positive)))
    into_positive = identity + similar_classes(positive)
    opposite = -POLARITY * identity * (strengths["negative_to_positive"] > 0)
    K = Edges.of_text(positive - positive.mean(axis=0))
    alike = csr_array((K.vectors * K.values) @ K.vectors.T)
    edges = {
        ("positive", "visual"): strengths["positive_to_visual"] * identity,
        ("visual", "visual"): strengths["visual_to_visual"]
        * (alike - diags_array(alike.diagonal())),
        ("positive", "negative"): opposite,
        ("visual", "negative"): opposite,
        ("positive", "positive"): strengths["positive_to_positive"] * into_positive,
        ("visual", "positive"): strengths["visual_to_positive"] * into_positive,
        ("negative", "positive"): -strengths["negative_to_positive"] * into_positive,
    }
    acting = {}
    for relation, weights in edges.items():
        weights = csr_array(weights)
        weights.eliminate_zeros()
        if weights.nnz:
            acting[relation] = weights
    return acting
