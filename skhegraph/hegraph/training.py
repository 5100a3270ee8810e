"""Training of the graph network: on the fused log-loss, or on the joint loss (Eq. 9)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skhegraph.descent import cosine_rates, descend, shuffled_batches
from skhegraph.hegraph.graph import HeteroData
from skhegraph.hegraph.logits import cache_logits, text_logits
from skhegraph.hegraph.network import HeteroGraphNetwork, PathWeights
from skhegraph.support import Floats, Support

#: Logits per step at most: the rows of a larger support take turns.
LOGITS_PER_STEP = 1_000_000
#: Weight decay of the matrices, torch's default for AdamW.
WEIGHT_DECAY = 0.01


def own_node_shift(support: Support) -> Floats:
    """What a row's absence changes in the node of its own class, where that is the class mean.

    Leave-one-out mean: `m_{c,-i} = m_c - w_i (x_i - m_c) / (W_c - w_i)`. The node is the mean
    scaled to unit length, and so is the shift. The only row of a class gets no shift.
    """
    y, weight, means = support.y, support.sample_weight, support.visual
    rest = support.shots[y] - weight
    share = np.divide(weight, rest, out=np.zeros_like(rest), where=rest > 1e-12)
    shift = -share[:, None] * (support.X - means[y])
    return shift / np.maximum(np.linalg.norm(means, axis=1), 1e-12)[y][:, None]


def support_text_logits(
    X: Tensor, y: Tensor, nodes: Tensor, scale: float, own_shift: Tensor | None
) -> Tensor:
    """Eq. 7 of support rows, the own class without the row's share of its node."""
    logits: Tensor = text_logits(X, F.normalize(nodes, dim=1), scale)
    if own_shift is None:
        return logits
    own = scale * F.cosine_similarity(X, nodes[y] + own_shift, dim=1)
    return logits.scatter(1, y[:, None], own[:, None])


def train_text_nodes(
    graph: HeteroData,
    paths: PathWeights,
    support: Support,
    *,
    text_weight: float,
    visual_logits: Floats,
    loss_weight: Floats,
    penalty: float,
    learning_rate: float,
    n_epochs: int,
    batch_size: int | None,
    rng: np.random.RandomState,
    device: str,
    own_shift: Floats | None = None,
    negative_to_positive: float | None = None,
    verbose: bool = False,
) -> tuple[Floats, Floats, list[float]]:
    """Train `W_n` and `W_p` on the log-loss of the fused logits `a tau cos(x, P') + b G`.

    The visual logits `b G` are held-out, so the text branch learns what they leave over. A
    quadratic zero-shot penalty holds the text logits near their start.

    Parameters
    ----------
    graph : HeteroData
        See :func:`skhegraph.hegraph.graph.build_graph`.
    paths : PathWeights
        Path weights.
    support : Support
        Support set.
    text_weight : float
        `a`.
    visual_logits : ndarray of shape (n_samples, n_classes)
        `b G`, held-out.
    loss_weight : ndarray of shape (n_samples,)
        Weight of each row in the loss.
    penalty : float
        Weight of the squared change of the centred text logits of a row, summed over classes.
    learning_rate, n_epochs, batch_size
        Schedule of AdamW, cosine decay; None takes all rows at once, up to `LOGITS_PER_STEP`.
    rng : RandomState
        Order of the rows, where not all fit a step.
    device : str
        torch device.
    own_shift : ndarray of shape (n_samples, n_features) or None, default=None
        What a row's absence changes in the positive node of its class; None where it is text.
    negative_to_positive : float or None, default=None
        `a_np` after training; None keeps that of training.
    verbose : bool, default=False
        Show a progress bar.

    Returns
    -------
    positive, negative : ndarray of shape (n_classes, n_features), float64
        Adapted nodes `P'`, not of unit length, and `N'`.
    loss_curve : list of float
        Loss before each step.
    """

    def tensor(array: Floats) -> Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=device)

    width = support.X.shape[1]
    zero = np.zeros((width, width))  # tanh(0) = 0: the start is zero-shot
    network = HeteroGraphNetwork(graph, paths, (zero, zero, zero), device)
    X, offset, weight = tensor(support.X), tensor(visual_logits), tensor(loss_weight)
    y = torch.as_tensor(support.y, dtype=torch.long, device=device)
    scale = text_weight * support.logit_scale
    start = F.normalize(network.nodes["positive"], dim=1)
    shift = None if own_shift is None else tensor(own_shift)

    def loss(rows: Tensor) -> Tensor:
        x, labels, w = X[rows], y[rows], weight[rows] / weight[rows].sum()
        own = None if shift is None else shift[rows]
        text = support_text_logits(x, labels, network.positives(), scale, own)
        value = w @ F.cross_entropy(text + offset[rows], labels, reduction="none")
        if not penalty:
            return value
        change = text - text_logits(x, start, scale)
        change = change - change.mean(dim=1, keepdim=True)
        return value + penalty * (w @ change.square().sum(dim=1))

    at_once = min(batch_size or len(support.y), max(1, LOGITS_PER_STEP // support.n_classes))
    batches = shuffled_batches(len(support.y), at_once, n_epochs, rng)
    curve = descend(
        [network.W_n, network.W_p],
        loss,
        batches,
        cosine_rates(learning_rate, len(batches)),
        weight_decay=WEIGHT_DECAY,
        verbose=verbose,
    )
    P, N, _ = network.adapted(negative_to_positive)
    return P, N, curve


def train_jointly(
    network: HeteroGraphNetwork,
    support: Support,
    *,
    own_shift: Floats | None,
    node_norm: float,
    sharpness: float,
    loss_weight: float,
    learning_rate: float,
    n_epochs: int,
    batch_size: int,
    rng: np.random.RandomState,
    verbose: bool = False,
) -> list[float]:
    """Train the network on Eq. 9, `CE(text) + lambda CE(visual)`, over mini-batches.

    A row does not meet itself in the cache, where it would have affinity 1 to its own class and
    the visual loss would teach nothing; rows whose class has no other row have no visual loss.

    Parameters
    ----------
    network : HeteroGraphNetwork
        Changed in place.
    support : Support
        Support set.
    own_shift : ndarray of shape (n_samples, n_features) or None
        What a row's absence changes in the positive node of its class; None where it is text.
    node_norm : float
        Length of the nodes, and so of the rows of the cache.
    sharpness, loss_weight : float
        `beta` and `lambda`.
    learning_rate, n_epochs, batch_size
        Schedule of AdamW: cosine decay, the first epoch at 1e-5.
    rng : RandomState
        Order of the rows.
    verbose : bool, default=False
        Show a progress bar.

    Returns
    -------
    list of float
        Loss before each step.
    """
    device = network.W_p.device

    def tensor(array: Floats) -> Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=device)

    tau = support.logit_scale
    X, weight = tensor(support.X), tensor(support.sample_weight)
    of_class = support.onehot / support.shots  # in double: single precision holds no wild weights
    share, others = tensor(of_class), tensor(1 - of_class)
    y = torch.as_tensor(support.y, dtype=torch.long, device=device)
    shift = None if own_shift is None else tensor(own_shift)
    has_rest = torch.bincount(y)[y] > 1

    def loss(rows: Tensor) -> Tensor:
        own = None if shift is None else shift[rows]
        x, labels, w = X[rows], y[rows], weight[rows] / weight[rows].sum()
        text = support_text_logits(x, labels, network.positives(), tau, own)
        value = w @ F.cross_entropy(text, labels, reduction="none")
        w = w * has_rest[rows]
        if not (loss_weight and w.any()):
            return value
        keys = F.normalize(node_norm * X + network.visual_shift()[y], dim=1)  # Eq. 6
        cosine = (x @ keys.T).scatter(1, rows[:, None], -torch.inf)
        visual = tau * cache_logits(cosine, share, others[rows], sharpness, torch.exp)
        return value + loss_weight * (w @ F.cross_entropy(visual, labels, reduction="none"))

    batches = shuffled_batches(len(support.y), batch_size, n_epochs, rng)
    n_steps = len(batches)
    return descend(
        list(network.parameters()),
        loss,
        batches,
        cosine_rates(learning_rate, n_steps, n_steps // max(n_epochs, 1)),
        weight_decay=WEIGHT_DECAY,
        verbose=verbose,
    )
