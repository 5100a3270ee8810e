"""Loss, optimiser and stopping of the graph network (method, section 4), full batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from skhegraph.base import Floats, Ints, Support, class_means
from skhegraph.hegraph.network import HeteroGraphNetwork, PathWeights

#: Steps over which the loss must change by less than `tol` for training to stop.
N_ITER_NO_CHANGE = 10
#: Logits a step at most: a larger support takes turns, every k-th row a step.
LOGITS_PER_STEP = 1_000_000


@dataclass(frozen=True)
class Batch:
    """Support rows as tensors, and what is known of them without the row itself.

    Attributes
    ----------
    X : Tensor of shape (n_samples, n_features)
        Unit rows.
    y : Tensor of shape (n_samples,)
        Class indices.
    weight : Tensor of shape (n_samples,)
        Weights that sum to one; zero leaves a row out.
    own_shift : Tensor of shape (n_samples, n_features) or None
        What a row's absence changes in the positive node of its own class; None where the text
        does not depend on the support.
    offset : Tensor of shape (n_samples, n_classes) or None
        Held-out visual logits, already scaled by their trust; only the fused loss needs them.
    """

    X: Tensor
    y: Tensor
    weight: Tensor
    own_shift: Tensor | None
    offset: Tensor | None

    @classmethod
    def from_arrays(
        cls,
        X: Floats,
        y: Ints,
        weight: Floats,
        own_shift: Floats | None,
        offset: Floats | None,
        device: str,
    ) -> Batch:
        """Copy arrays to float32 tensors on the device."""

        def tensor(a: Floats) -> Tensor:
            return torch.as_tensor(a, dtype=torch.float32, device=device)

        return cls(
            tensor(X),
            torch.as_tensor(y, dtype=torch.long, device=device),
            tensor(weight / weight.sum()),
            None if own_shift is None else tensor(own_shift),
            None if offset is None else tensor(offset),
        )

    def part(self, step: int, n_classes: int) -> Batch:
        """Rows of a step: all of them, or every k-th where all would be too many logits."""
        k = math.ceil(len(self.y) * n_classes / LOGITS_PER_STEP)
        if k <= 1:
            return self
        turn = slice(step % k, None, k)
        shift, offset = (None if t is None else t[turn] for t in (self.own_shift, self.offset))
        weight = self.weight[turn] / self.weight[turn].sum().clamp(min=1e-12)
        return Batch(self.X[turn], self.y[turn], weight, shift, offset)


def text_logits(batch: Batch, P: Tensor) -> Tensor:
    """Eq. 7 without tau: `cos(x, P')`, own class without the row's own share of its node."""
    cosine = batch.X @ F.normalize(P, dim=1).T
    if batch.own_shift is None:
        return cosine
    own = F.cosine_similarity(batch.X, P[batch.y] + batch.own_shift, dim=1)
    return cosine.scatter(1, batch.y[:, None], own[:, None])


def cache_logits(batch: Batch, shift: Tensor, sharpness: float) -> Tensor:
    """Eq. 8 without tau, leave-one-out: mean affinity to the class times the mean shots.

    `X'_k = X_k + g B_c(k)` (Eq. 6); a row never meets itself in the cache (section 5, trap 1). The
    mean in place of the sum keeps classes of more shots from winning (traps 2 and 6).
    """
    n, n_classes = len(batch.y), len(shift)
    keys = F.normalize(batch.X + shift[batch.y], dim=1)
    affinity = torch.exp(-sharpness * (1 - batch.X @ keys.T))
    affinity = affinity * (1 - torch.eye(n, device=keys.device))
    onehot = F.one_hot(batch.y, n_classes).to(keys.dtype) * batch.weight[:, None]
    shots = onehot.sum(dim=0) - F.one_hot(batch.y, n_classes) * batch.weight[:, None]
    mean_shots = (batch.weight > 0).sum() / n_classes
    return mean_shots * (affinity @ onehot) / shots.clamp(min=torch.finfo(shots.dtype).tiny)


class FusedLoss:
    """Log-loss of the fused logits `a tau cos(x, P') + b G`, with a trust region around zero-shot.

    The visual logits `G` are held-out, so the text branch learns what they leave over. The trust
    region penalises the squared change of the calibrated text logits, in proportion to the
    information they carried before training, over the mean shots a class.
    """

    by_row = True  # rows do not interact, so a step may take some of them

    def __init__(self, text_scale: float, start: Tensor, penalty: float) -> None:
        self.text_scale = text_scale
        self.start = start
        self.penalty = penalty

    def __call__(self, network: HeteroGraphNetwork, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss to minimise, and the log-loss of each row."""
        cosine = text_logits(batch, network.positives())
        visual = 0.0 if batch.offset is None else batch.offset
        rows = F.cross_entropy(self.text_scale * cosine + visual, batch.y, reduction="none")
        loss = batch.weight @ rows
        if self.penalty:
            with torch.no_grad():
                start = text_logits(batch, self.start)
            change = self.text_scale * (cosine - start)
            change = change - change.mean(dim=1, keepdim=True)
            loss = loss + self.penalty * (batch.weight @ change.square().sum(dim=1))
        return loss, rows


class JointLoss:
    """Eq. 9: `CE(text) + lambda CE(visual)`, the visual classifier leave-one-out.

    Rows whose class has no other row have no visual loss (trap 1, one shot).
    """

    by_row = False  # every row is in the cache of the others

    def __init__(self, batch: Batch, logit_scale: float, loss_weight: float, sharpness: float):
        self.logit_scale = logit_scale
        self.loss_weight = loss_weight
        self.sharpness = sharpness
        shots = torch.bincount(batch.y[batch.weight > 0], minlength=int(batch.y.max()) + 1)
        self.visual_weight = batch.weight * (shots[batch.y] > 1)

    def __call__(self, network: HeteroGraphNetwork, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss to minimise, and the log-loss of each row."""
        text = self.logit_scale * text_logits(batch, network.positives())
        rows = F.cross_entropy(text, batch.y, reduction="none")
        loss = batch.weight @ rows
        if self.loss_weight and self.visual_weight.sum() > 0:
            visual = cache_logits(batch, network.visual_shift(), self.sharpness)
            visual_rows = F.cross_entropy(self.logit_scale * visual, batch.y, reduction="none")
            loss = loss + self.loss_weight * (self.visual_weight @ visual_rows)
        return loss, rows


Loss = FusedLoss | JointLoss


@dataclass(frozen=True)
class Settings:
    """Scalars of the graph and of its training; see :class:`HeGraphClassifier`."""

    paths: PathWeights
    negative_to_positive_predict: float | None
    top_k: int | None
    learning_rate: float
    max_iter: int
    tol: float
    early_stopping: bool
    device: str
    verbose: bool


@dataclass(frozen=True)
class Trained:
    """Adapted nodes `P'`, `N'` and cache shift `g B`, with the training loss before each step."""

    positive: Floats
    negative: Floats
    visual_shift: Floats
    loss_curve: list[float]


def train_graph(
    support: Support,
    folds: Ints,
    initial: tuple[Floats, Floats, Floats],
    own_shift: Floats | None,
    offset: Floats | None,
    make_loss: Callable[[Batch, HeteroGraphNetwork], Loss],
    settings: Settings,
) -> Trained:
    """Train the network on the support, with early stopping for a number of steps chosen on folds.

    Parameters
    ----------
    support : Support
        Support set and text nodes.
    folds : ndarray of shape (n_samples,)
        Fold that holds each row out, -1 for none.
    initial : tuple of ndarray of shape (n_features, n_features)
        Start of `W_n, W_p, W_v`.
    own_shift, offset : ndarray or None
        See :class:`Batch`.
    make_loss : callable
        Makes the loss of a batch and its untrained network.
    settings : Settings
        Scalars.
    """
    device, y, weights = settings.device, support.y, support.sample_weight

    def prepare(kept: NDArray[np.bool_]) -> tuple[HeteroGraphNetwork, Batch, Loss]:
        nodes = {
            "positive": support.positive,
            "negative": support.negative,
            "visual": class_means(support.X[kept], y[kept], weights[kept]),
        }
        network = HeteroGraphNetwork(
            nodes, settings.paths, top_k=settings.top_k, initial=initial, device=device
        )
        weight = np.where(kept, weights, 0.0)
        batch = Batch.from_arrays(support.X, y, weight, own_shift, offset, device)
        return network, batch, make_loss(batch, network)

    steps = settings.max_iter
    if settings.early_stopping and folds.max() >= 0:
        curves = [
            held_out_curve(*prepare(folds != fold), folds == fold, settings)
            for fold in range(folds.max() + 1)
        ]
        steps = int(np.argmin(np.mean(curves, axis=0)))
    network, batch, loss = prepare(np.ones(len(y), dtype=bool))
    curve = []
    for value in tqdm(
        islice(optimise(network, batch, loss, settings), steps),
        total=steps,
        disable=not settings.verbose,
        desc="HeGraph",
    ):
        curve.append(value)
        if has_converged(curve, settings.tol):
            break
    with torch.no_grad():
        parts = (
            network.positives(settings.negative_to_positive_predict),
            network.negatives(),
            network.visual_shift(),
        )
    positive, negative, shift = (part.cpu().numpy().astype(np.float64) for part in parts)
    return Trained(positive, negative, shift, curve)


def held_out_curve(
    network: HeteroGraphNetwork,
    batch: Batch,
    loss: Loss,
    held_out: NDArray[np.bool_],
    settings: Settings,
) -> Floats:
    """Mean log-loss of the held-out rows before each step and after the last."""
    inside = torch.as_tensor(held_out, device=settings.device)

    def outside_loss() -> float:
        with torch.no_grad():
            return float(loss(network, batch)[1][inside].mean())

    curve = [outside_loss()]
    for _ in optimise(network, batch, loss, settings):
        curve.append(outside_loss())
    return np.array(curve)


def optimise(
    network: HeteroGraphNetwork, batch: Batch, loss: Loss, settings: Settings
) -> Iterator[float]:
    """AdamW with cosine decay on `W_n, W_p, W_v` (section 4), up to `max_iter` steps.

    Yields the loss before each step, after the step.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(settings.max_iter, 1))
    n_classes = len(network.nodes["positive"])
    for step in range(settings.max_iter):
        value, _ = loss(network, batch.part(step, n_classes) if loss.by_row else batch)
        if not value.requires_grad:  # every path into P has weight 0: nothing to learn
            return
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        yield float(value.detach())


def has_converged(curve: list[float], tol: float) -> bool:
    """The loss changed by less than `tol` in the last `N_ITER_NO_CHANGE` steps.

    A rise is no reason to stop: the first steps may overshoot until the learning rate decays.
    """
    last = curve[-N_ITER_NO_CHANGE - 1 :]
    return len(last) > N_ITER_NO_CHANGE and max(last) - min(last) < tol
