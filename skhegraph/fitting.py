"""From a support set to the fitted parts: trust first, then the graph network.

`fit_fused` is the default of the package, `fit_joint` the described method (Eq. 9).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skhegraph.base import Floats, Support, class_means, unit_rows
from skhegraph.discriminant import Linear, ShrunkDiscriminant
from skhegraph.trust import Trust, fit_trust, impostor_spread, information_gain

if TYPE_CHECKING:
    from skhegraph.classifier import HeGraphClassifier

#: Path weights of the graph, in the order of `PathWeights`.
PATHS = (
    "positive_to_negative",
    "visual_to_negative",
    "positive_to_positive",
    "visual_to_positive",
    "negative_to_positive",
    "visual_to_visual",
)
#: Candidates for the shrinkage of the discriminant; 1 is the prior's mode and the 1-shot value.
SHRINKAGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
#: Nats by which held-out evidence must speak for a shrinkage of e or 1/e (squared in the log).
SHRINKAGE_PRIOR = 0.05
#: How strongly informative text lowers the prior weight of the visual branch, a nat.
TEXT_FIRST = 2.0


@dataclass
class Fit:
    """What fitting leaves behind."""

    positive: Floats
    negative: Floats
    visual_shift: Floats
    text_weight: float
    visual_weight: float
    shrinkage: float
    discriminant: Linear | None
    n_iter: int
    loss_curve: list[float]
    device: str


def fold_of_rows(y: NDArray[np.intp], n_folds: int, rng: np.random.RandomState) -> NDArray[np.intp]:
    """Fold that holds each row out: stratified, -1 for the only row of a class (never held out)."""
    folds = np.full(len(y), -1)
    counts = np.bincount(y)
    n_folds = min(n_folds, int(counts.max()))
    for c in np.flatnonzero(counts > 1):
        rows = rng.permutation(np.flatnonzero(y == c))
        folds[rows] = (np.arange(len(rows)) + rng.randint(n_folds)) % n_folds
    return folds


def own_node_shift(support: Support, prototypes: bool) -> Floats | None:
    """What a row's absence changes in its class's positive node, where that is a class mean.

    Leave-one-out mean: `m_{c,-i} = m_c - w_i (x_i - m_c) / (W_c - w_i)`. The node is the mean
    scaled to unit length, and so is the shift. The only row of a class gets no shift.
    """
    if not prototypes:
        return None
    onehot = support.onehot
    means = class_means(support.X, onehot)
    rest = onehot.sum(axis=0)[support.y] - support.sample_weight
    share = np.divide(support.sample_weight, rest, out=np.zeros_like(rest), where=rest > 1e-12)
    shift = -share[:, None] * (support.X - means[support.y])
    return shift / np.maximum(np.linalg.norm(means, axis=1), 1e-12)[support.y][:, None]


def support_text_logits(support: Support, own_shift: Floats | None) -> Floats:
    """Zero-shot logits `tau cos(x, P)` of the support, own class leave-one-out if it must be."""
    cosine = support.X @ support.positive.T
    if own_shift is not None:
        rows = np.arange(len(support.y))
        own = unit_rows(support.positive[support.y] + own_shift)
        cosine[rows, support.y] = (support.X * own).sum(axis=1)
    return support.logit_scale * cosine


@dataclass
class Visual:
    """Visual classifier with its held-out logits on the support and the trust in it."""

    classifier: Linear | None
    held_out: Floats
    shrinkage: float
    trust: Trust


def held_out_visual(
    support: Support, folds: NDArray[np.intp], text: Floats, prior: float
) -> Visual:
    """Choose the discriminant's shrinkage and the trust by log-loss of held-out rows.

    Rows of fold -1 are never held out: their visual logits are zero, and they do not vote. At one
    shot a class no row can be held out: the trust is the prior's.
    """
    onehot, y, weight = support.onehot, support.y, support.sample_weight
    full = ShrunkDiscriminant(support.X, onehot)
    out = folds >= 0
    if not out.any():
        classifier = full.at(1.0)
        scale = prior / impostor_spread(classifier(support.X), y)
        alone = fit_trust(text, None, y, weight)
        trust = Trust(alone.text, scale, alone.loss)
        return Visual(classifier, np.zeros_like(text), 1.0, trust)
    parts = [
        (folds == f, ShrunkDiscriminant(support.X[folds != f], onehot[folds != f]))
        for f in range(folds.max() + 1)
    ]
    best: Visual | None = None
    for shrinkage in SHRINKAGES:
        logits = np.zeros_like(text)
        for rows, part in parts:
            logits[rows] = part.at(shrinkage)(support.X[rows])
        scale = prior / impostor_spread(logits[out], y[out])
        trust = fit_trust(text[out], logits[out], y[out], weight[out], scale)
        loss = trust.loss + SHRINKAGE_PRIOR * np.log(shrinkage) ** 2
        trust = trust._replace(loss=loss)
        if best is None or loss < best.trust.loss:
            best = Visual(None, logits, shrinkage, trust)
    assert best is not None
    best.classifier = full.at(best.shrinkage)
    return best


def held_out_cache(
    support: Support, text: Floats, prior: float, sharpness: float
) -> Visual:
    """Leave-one-out cache logits (Eq. 8 without tau) and the trust in them."""
    X, y, weight, onehot = support.X, support.y, support.sample_weight, support.onehot
    affinity = np.exp(-sharpness * (1 - X @ X.T))
    np.fill_diagonal(affinity, 0.0)
    shots = onehot.sum(axis=0) - onehot
    logits = (len(y) / onehot.shape[1]) * (affinity @ onehot) / np.maximum(shots, 1e-12)
    out = shots[np.arange(len(y)), y] > 1e-12
    logits[~out] = 0.0
    scale = prior / impostor_spread(logits[out] if out.any() else affinity @ onehot, y[out] if out.any() else y)
    if out.any():
        trust = fit_trust(text[out], logits[out], y[out], weight[out], scale)
    else:
        trust = fit_trust(text, None, y, weight)._replace(visual=scale)
    return Visual(None, logits, np.nan, trust)


def fit_fused(
    model: HeGraphClassifier, support: Support, rng: np.random.RandomState
) -> Fit:
    """Estimate the trust in each branch, then train the network on the fused log-loss."""
    from skhegraph.training import FusedLoss

    folds = fold_of_rows(support.y, model.n_folds, rng)
    own_shift = own_node_shift(support, _is_prototypes(model))
    text = support_text_logits(support, own_shift)
    n_classes = len(support.positive)
    alone = fit_trust(text, None, support.y, support.sample_weight)
    information = information_gain(text, alone.text, support.y, support.sample_weight)
    prior = 1.0 / (1.0 + TEXT_FIRST * information)
    if model.visual_classifier == "cache":
        visual = held_out_cache(support, text, prior, model.sharpness)
    else:
        visual = held_out_visual(support, folds, text, prior)
    a = visual.trust.text if model.text_weight is None else float(model.text_weight)
    b = visual.trust.visual if model.visual_weight is None else float(model.visual_weight)
    shots = support.sample_weight.sum() / n_classes
    penalty = model.trust_region * information / shots

    def make_loss(batch, network):  # type: ignore[no-untyped-def]
        return FusedLoss(batch, a * support.logit_scale, network.nodes["positive"], penalty)

    fit = _train(model, support, rng, folds, own_shift, b * visual.held_out, make_loss)
    fit.text_weight, fit.visual_weight = a, b
    fit.shrinkage, fit.discriminant = visual.shrinkage, visual.classifier
    return fit


def fit_joint(
    model: HeGraphClassifier, support: Support, rng: np.random.RandomState
) -> Fit:
    """Train the network on the joint loss of text and cache (Eq. 9)."""
    from skhegraph.training import JointLoss

    folds = fold_of_rows(support.y, model.n_folds, rng)
    own_shift = own_node_shift(support, _is_prototypes(model))

    def make_loss(batch, network):  # type: ignore[no-untyped-def]
        return JointLoss(batch, support.logit_scale, model.loss_weight, model.sharpness)

    fit = _train(model, support, rng, folds, own_shift, 0.0, make_loss)
    fit.visual_weight = 1.0 if model.visual_weight is None else float(model.visual_weight)
    return fit


def _is_prototypes(model: HeGraphClassifier) -> bool:
    return isinstance(model.text_features, str) and model.text_features == "prototypes"


def _train(model, support, rng, folds, own_shift, offset, make_loss) -> Fit:  # type: ignore[no-untyped-def]
    """Train on all rows, for a number of steps chosen on held-out rows with early stopping."""
    from functools import partial

    import torch
    from tqdm import tqdm

    from skhegraph.backbone import resolve_device
    from skhegraph.network import HeteroGraphNetwork, PathWeights
    from skhegraph.training import Batch, train

    device = resolve_device(model.device)
    width = support.X.shape[1]
    bound = model.init_scale / np.sqrt(width)
    initial = tuple(rng.uniform(-bound, bound, (width, width)) for _ in range(3))
    paths = PathWeights(*(getattr(model, name) for name in PATHS))
    onehot = support.onehot

    def prepare(kept):  # type: ignore[no-untyped-def]
        nodes = {
            "positive": support.positive,
            "negative": support.negative,
            "visual": class_means(support.X[kept], onehot[kept]),
        }
        network = HeteroGraphNetwork(
            nodes, paths, top_k=model.top_k, initial=initial, device=device
        )
        weight = np.where(kept, support.sample_weight, 0.0)
        batch = Batch.from_arrays(support.X, support.y, weight, own_shift, offset, device)
        return network, batch, make_loss(batch, network)

    run = partial(train, learning_rate=model.learning_rate, tol=model.tol)
    steps = model.max_iter
    if model.early_stopping and folds.max() >= 0:
        outside = []
        for fold in range(folds.max() + 1):
            network, batch, loss = prepare(folds != fold)
            held_out = torch.as_tensor(folds == fold, device=device)
            outside.append(
                train(network, batch, loss, learning_rate=model.learning_rate,
                      max_iter=steps, tol=-np.inf, held_out=held_out)[1]
            )
        steps = int(np.argmin(np.mean(outside, axis=0)))
    network, batch, loss = prepare(np.ones(len(support.y), dtype=bool))
    with tqdm(total=steps, disable=not model.verbose, desc="HeGraph") as bar:
        curve, _ = run(network, batch, loss, max_iter=steps, progress=lambda *_: bar.update())
    with torch.no_grad():
        positive = network.positives(model.negative_to_positive_predict).cpu().numpy()
        negative = network.negatives().cpu().numpy()
        shift = network.visual_shift().cpu().numpy()
    if model.visual_classifier != "cache" or model.fusion != "probabilities":
        shift = np.zeros_like(shift)
    return Fit(positive, negative, shift, 1.0, 1.0, np.nan, None, len(curve), curve, device)
