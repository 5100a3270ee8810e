"""From a support set to the fitted parts: trust first, then the graph network.

`fit_fused` is the default of the package, `fit_joint` the described method (Eq. 9).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from sklearn.utils import gen_batches

from skhegraph.base import QUERIES_PER_CHUNK, Floats, Ints, Support, unit_rows
from skhegraph.hegraph.visual import Linear, ShrunkDiscriminant
from skhegraph.hegraph.graph import PathWeights
from skhegraph.hegraph.reuse import reused
from skhegraph.hegraph.fusion import Trust, fit_trust, impostor_spread, information_gain

if TYPE_CHECKING:
    from skhegraph.hegraph.classifier import HeGraphClassifier
    from skhegraph.hegraph.network import HeteroGraphNetwork
    from skhegraph.hegraph.training import Batch, Loss, Trained

#: Candidates for the shrinkage of the discriminant; 1 is the prior's mode and the 1-shot value.
SHRINKAGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
#: Nats by which held-out evidence must speak for a shrinkage of e or 1/e (squared in the log).
SHRINKAGE_PRIOR = 0.05
#: Logits that are enough to estimate the trust in a branch.
LOGITS_FOR_TRUST = 250_000
#: Growth of the prior weight of the visual branch with the shots a class.
SHOTS_POWER = 1 / 3
#: Learning rate times the feature width: what a step of AdamW moves a node.
NODE_STEP = 0.25
#: How strongly informative text lowers the prior weight of the visual branch, a nat.
TEXT_FIRST = 2.0


@dataclass(frozen=True)
class Fit:
    """What fitting leaves behind; without a `discriminant` the cache is the visual classifier."""

    trained: Trained
    text_weight: float
    visual_weight: float
    shrinkage: float | None
    discriminant: Linear | None


def fold_of_rows(y: Ints, n_folds: int, rng: np.random.RandomState) -> Ints:
    """Fold that holds each row out, -1 for the only row of a class (never held out).

    The rows of a class go to different folds, as far as there are folds; folds without a row are
    left out, so the numbers have no gaps.
    """
    folds = np.full(len(y), -1)
    counts = np.bincount(y)
    for c in np.flatnonzero(counts > 1):
        rows = rng.permutation(np.flatnonzero(y == c))
        folds[rows] = (np.arange(len(rows)) + rng.randint(n_folds)) % n_folds
    held_out = folds >= 0
    folds[held_out] = np.unique(folds[held_out], return_inverse=True)[1]
    return folds


def some_rows(n_rows: int, n_classes: int) -> Ints:
    """Every k-th row, so that two scalars are not estimated on more logits than they need."""
    return np.arange(0, n_rows, max(1, -(-n_rows * n_classes // LOGITS_FOR_TRUST)))


def own_node_shift(support: Support, text_features: object) -> Floats | None:
    """What a row's absence changes in its class's positive node, where that is a class mean.

    Leave-one-out mean: `m_{c,-i} = m_c - w_i (x_i - m_c) / (W_c - w_i)`. The node is the mean
    scaled to unit length, and so is the shift. The only row of a class gets no shift.
    """
    if not (isinstance(text_features, str) and text_features == "prototypes"):
        return None
    y, weight, means = support.y, support.sample_weight, support.visual
    rest = np.bincount(y, weights=weight)[y] - weight
    share = np.divide(weight, rest, out=np.zeros_like(rest), where=rest > 1e-12)
    shift = -share[:, None] * (support.X - means[y])
    return shift / np.maximum(np.linalg.norm(means, axis=1), 1e-12)[y][:, None]


def support_text_logits(support: Support, own_shift: Floats | None, rows: Ints) -> Floats:
    """Zero-shot logits `tau cos(x, P)` of support rows, own class leave-one-out if it must be."""
    X, y = support.X[rows], support.y[rows]
    cosine = X @ support.positive.T
    if own_shift is not None:
        own = unit_rows(support.positive[y] + own_shift[rows])
        cosine[np.arange(len(y)), y] = (X * own).sum(axis=1)
    return support.logit_scale * cosine


@dataclass(frozen=True)
class Visual:
    """Held-out visual logits of all rows, the trust in them, and the discriminant if any."""

    held_out: Floats
    trust: Trust
    shrinkage: float | None = None
    classifier: Linear | None = None


def held_out_discriminant(
    support: Support,
    folds: Ints,
    text: Floats,
    voters: Ints,
    text_scale: float,
    prior: float,
    *,
    keep_text: bool = False,
) -> Visual:
    """Choose the discriminant's shrinkage and the trust by log-loss of held-out rows.

    `text` are the text logits of the rows `voters`. Rows of fold -1 are never held out: their
    visual logits are zero, and they do not vote. At one shot a class no row can be held out: the
    trust is the prior's.
    """
    X, y, weight = support.X, support.y, support.sample_weight
    full = ShrunkDiscriminant(X, y, weight)
    out = folds[voters] >= 0
    if not out.any():
        classifier = full.at(1.0)
        scale = prior / impostor_spread(classifier(X[voters]), y[voters])
        held_out = np.zeros((len(y), text.shape[1]))
        return Visual(held_out, Trust(text_scale, scale, np.nan), 1.0, classifier)
    text, voters = text[out], voters[out]
    kept = [folds != fold for fold in range(folds.max() + 1)]
    parts = [ShrunkDiscriminant(X[rows], y[rows], weight[rows]) for rows in kept]

    def held_out_logits(shrinkage: float, rows: Ints) -> Floats:
        logits = np.zeros((len(rows), text.shape[1]))
        for fold, part in enumerate(parts):
            mine = folds[rows] == fold
            logits[mine] = part.logits(X[rows[mine]], shrinkage)
        return logits

    candidates = []
    for shrinkage in SHRINKAGES:
        logits = held_out_logits(shrinkage, voters)
        scale = prior / impostor_spread(logits, y[voters])
        trust = fit_trust(
            text, logits, y[voters], weight[voters], scale, text_scale, keep_text=keep_text
        )
        loss = trust.loss + SHRINKAGE_PRIOR * np.log(shrinkage) ** 2
        candidates.append((loss, shrinkage, trust))
    _, shrinkage, trust = min(candidates, key=lambda candidate: candidate[0])
    logits = held_out_logits(shrinkage, np.arange(len(y)))
    return Visual(logits, trust, shrinkage, full.at(shrinkage))


def held_out_cache(
    support: Support,
    text: Floats,
    voters: Ints,
    text_scale: float,
    prior: float,
    sharpness: float,
    *,
    keep_text: bool = False,
) -> Visual:
    """Leave-one-out cache logits and the trust in them, as above."""
    y, weight = support.y, support.sample_weight
    logits = leave_one_out_cache(support, sharpness)
    has_rest = np.bincount(y)[y] > 1
    out = has_rest[voters]
    if out.any():
        text, voters = text[out], voters[out]
    scale = prior / impostor_spread(logits[voters], y[voters])
    visual = logits[voters] if out.any() else None
    trust = fit_trust(
        text, visual, y[voters], weight[voters], scale, text_scale, keep_text=keep_text
    )
    if visual is None:
        trust = trust._replace(visual=scale)
    logits[~has_rest] = 0.0
    return Visual(logits, trust)


def leave_one_out_cache(support: Support, sharpness: float) -> Floats:
    """Eq. 8 without tau, for each row by the others: mean affinity to a class times mean shots."""
    X, y, weight = support.X, support.y, support.sample_weight
    labels, shots = csr_array((weight, (np.arange(len(y)), y))), np.bincount(y, weights=weight)
    logits = np.empty((len(y), len(shots)))
    for chunk in gen_batches(len(y), QUERIES_PER_CHUNK):
        affinity = np.exp(-sharpness * (1 - X[chunk] @ X.T))
        rows, own = np.arange(len(affinity)), y[chunk]
        affinity[rows, chunk.start + rows] = 0.0
        rest = np.tile(shots, (len(rows), 1))
        rest[rows, own] -= weight[chunk]
        mean = (affinity @ labels) / np.where(rest > 0, rest, 1.0)
        logits[chunk] = len(y) / len(shots) * mean
    return logits


@reused
def trusted_branches(
    support: Support,
    folds: Ints,
    own_shift: Floats | None,
    visual_classifier: str,
    sharpness: float,
    text_weight: float | None,
) -> tuple[Visual, float]:
    """Visual branch with the trust in both branches, and the information of the text, nats a row.

    Nothing here depends on the graph, so candidates of a search share it.
    """
    voters = some_rows(len(support.y), len(support.positive))
    y, weight = support.y[voters], support.sample_weight[voters]
    text = support_text_logits(support, own_shift, voters)
    alone = fit_trust(text, None, y, weight)
    information = information_gain(text, alone.text, y, weight)
    prior = mean_shots(support) ** SHOTS_POWER / (1.0 + TEXT_FIRST * information)
    keep_text = text_weight is not None
    start = alone.text
    if text_weight is not None:  # the user's weight is part of the logits, and stays
        text, start = text * text_weight, 1.0
    if visual_classifier == "cache":
        visual = held_out_cache(support, text, voters, start, prior, sharpness, keep_text=keep_text)
    else:
        visual = held_out_discriminant(
            support, folds, text, voters, start, prior, keep_text=keep_text
        )
    return replace(visual, held_out=visual.held_out.astype(np.float32)), information


def mean_shots(support: Support) -> float:
    """Mean weight of a class."""
    return float(support.sample_weight.sum() / len(support.positive))


def fit_fused(model: HeGraphClassifier, support: Support, rng: np.random.RandomState) -> Fit:
    """Estimate the trust in each branch, then train the network on the fused log-loss."""
    from skhegraph.hegraph.training import FusedLoss

    folds = fold_of_rows(support.y, model.n_folds, rng)
    own_shift = own_node_shift(support, model.text_features)
    given = None if model.text_weight is None else float(model.text_weight)
    visual, information = trusted_branches(
        support, folds, own_shift, model.visual_classifier, float(model.sharpness), given
    )
    a = visual.trust.text if given is None else given
    b = visual.trust.visual if model.visual_weight is None else float(model.visual_weight)
    penalty = model.trust_region * information / mean_shots(support)

    def make_loss(batch: Batch, network: HeteroGraphNetwork) -> Loss:
        return FusedLoss(a * support.logit_scale, network.nodes["positive"], penalty)

    trained = _train(model, support, rng, folds, own_shift, b * visual.held_out, make_loss)
    return Fit(trained, a, b, visual.shrinkage, visual.classifier)


def fit_joint(model: HeGraphClassifier, support: Support, rng: np.random.RandomState) -> Fit:
    """Train the network on the joint loss of text and cache (Eq. 9)."""
    from skhegraph.hegraph.training import JointLoss

    folds = fold_of_rows(support.y, model.n_folds, rng)
    own_shift = own_node_shift(support, model.text_features)

    def make_loss(batch: Batch, network: HeteroGraphNetwork) -> Loss:
        return JointLoss(batch, support.logit_scale, model.loss_weight, model.sharpness)

    trained = _train(model, support, rng, folds, own_shift, None, make_loss)
    w = 1.0 if model.visual_weight is None else float(model.visual_weight)
    return Fit(trained, 1.0, w, None, None)


def _train(
    model: HeGraphClassifier,
    support: Support,
    rng: np.random.RandomState,
    folds: Ints,
    own_shift: Floats | None,
    offset: Floats | None,
    make_loss: Callable[[Batch, HeteroGraphNetwork], Loss],
) -> Trained:
    """Hand the estimator's scalars to the training."""
    from skhegraph.clip.model import resolve_device
    from skhegraph.hegraph.training import Settings, train_graph

    width = support.X.shape[1]
    bound = model.init_scale / np.sqrt(width)
    W_n, W_p, W_v = (rng.uniform(-bound, bound, (width, width)) for _ in range(3))
    learning_rate = NODE_STEP / width if model.learning_rate is None else model.learning_rate
    settings = Settings(
        paths=PathWeights(*(getattr(model, name) for name in PathWeights._fields)),
        negative_to_positive_predict=model.negative_to_positive_predict,
        top_k=model.top_k,
        learning_rate=learning_rate,
        max_iter=model.max_iter,
        tol=model.tol,
        early_stopping=model.early_stopping,
        device=resolve_device(model.device),
        verbose=bool(model.verbose),
    )
    return train_graph(support, folds, (W_n, W_p, W_v), own_shift, offset, make_loss, settings)
