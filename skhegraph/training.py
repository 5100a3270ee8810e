"""Loss, optimiser and stopping of the graph network (method, section 4), full batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skhegraph.base import Floats
from skhegraph.network import HeteroGraphNetwork

#: Steps without an improvement of `tol` after which training stops.
N_ITER_NO_CHANGE = 10


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
    offset : Tensor of shape (n_samples, n_classes) or float
        Held-out visual logits, already scaled by their trust.
    """

    X: Tensor
    y: Tensor
    weight: Tensor
    own_shift: Tensor | None
    offset: Tensor | float

    @classmethod
    def from_arrays(
        cls,
        X: Floats,
        y: Floats,
        weight: Floats,
        own_shift: Floats | None,
        offset: Floats | float,
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
            offset if isinstance(offset, float) else tensor(offset),
        )


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

    def __init__(self, batch: Batch, text_scale: float, start: Tensor, penalty: float) -> None:
        self.text_scale = text_scale
        self.penalty = penalty
        self.start = text_logits(batch, start).detach() if penalty else None

    def __call__(self, network: HeteroGraphNetwork, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss to minimise, and the log-loss of each row."""
        cosine = text_logits(batch, network.positives())
        rows = F.cross_entropy(self.text_scale * cosine + batch.offset, batch.y, reduction="none")
        loss = batch.weight @ rows
        if self.start is not None:
            change = self.text_scale * (cosine - self.start)
            change = change - change.mean(dim=1, keepdim=True)
            loss = loss + self.penalty * (batch.weight @ change.square().sum(dim=1))
        return loss, rows


class JointLoss:
    """Eq. 9: `CE(text) + lambda CE(visual)`, the visual classifier leave-one-out.

    Rows whose class has no other row have no visual loss (trap 1, one shot).
    """

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


Loss = Callable[[HeteroGraphNetwork, Batch], tuple[Tensor, Tensor]]


def train(
    network: HeteroGraphNetwork,
    batch: Batch,
    loss: Loss,
    *,
    learning_rate: float,
    max_iter: int,
    tol: float,
    held_out: Tensor | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[list[float], list[float]]:
    """Full-batch AdamW on `W_n, W_p, W_v`.

    Returns
    -------
    list of float
        Training loss before each step.
    list of float
        Mean log-loss of the rows in `held_out` before each step and after the last; empty
        without `held_out`.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate)
    curve: list[float] = []
    outside: list[float] = []
    for step in range(max_iter + (held_out is not None)):
        value, rows = loss(network, batch)
        if held_out is not None:
            outside.append(float(rows.detach()[held_out].mean()))
            if step == max_iter:
                break
        curve.append(float(value.detach()))
        if progress is not None:
            progress(step, curve[-1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if has_converged(curve, tol):
            break
    return curve, outside


def has_converged(curve: list[float], tol: float) -> bool:
    """No gain of `tol` over the best of all but the last `N_ITER_NO_CHANGE` losses."""
    if len(curve) <= N_ITER_NO_CHANGE:
        return False
    best_before = np.min(curve[:-N_ITER_NO_CHANGE])
    return bool(np.min(curve[-N_ITER_NO_CHANGE:]) > best_before - tol)
