"""Mini-batch training of the baselines with torch, NumPy arrays in and out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from skhegraph.peers._tools import check_count
from skhegraph.base import Floats, Support, check_number

if TYPE_CHECKING:
    import torch

Seed = int | np.random.RandomState | None
WARMUP_RATE = 1e-5


@dataclass(frozen=True)
class Schedule:
    """Mini-batch Adam with cosine decay, as the authors of these methods train.

    Attributes
    ----------
    learning_rate : float
        Rate at the first step; the cosine ends at zero.
    n_epochs, batch_size : int
        Passes over the support set and rows a step.
    random_state : int, RandomState or None
        Order of the rows, where there is more than one batch.
    device : str
        See :func:`skhegraph.clip.model.resolve_device`.
    warmup : bool, default=False
        Whether the first epoch runs at a rate of 1e-5.
    weight_decay, eps : float, default=0.0, 1e-8
        Decoupled weight decay and the term in Adam's denominator.
    """

    learning_rate: float
    n_epochs: int
    batch_size: int
    random_state: Seed
    device: str
    warmup: bool = False
    weight_decay: float = 0.0
    eps: float = 1e-8

    def check(self) -> None:
        """Raise ValueError where a setting cannot be used."""
        check_number("learning_rate", self.learning_rate, 0)
        check_count("n_epochs", self.n_epochs)
        check_count("batch_size", self.batch_size)

    def rate(self, step: int, steps_an_epoch: int) -> float:
        """Learning rate of a step."""
        if self.warmup and step < steps_an_epoch and self.n_epochs > 1:
            return WARMUP_RATE
        done = step / (steps_an_epoch * self.n_epochs)
        return 0.5 * self.learning_rate * (1.0 + math.cos(math.pi * done))


def train(
    starts: Sequence[Floats],
    constants: Sequence[Floats],
    logits: Callable[..., torch.Tensor],
    support: Support,
    schedule: Schedule,
) -> list[Floats]:
    """Descend on the cross-entropy of `logits(rows, *parameters, *constants)`.

    Parameters
    ----------
    starts : sequence of ndarray
        Start of each parameter.
    constants : sequence of ndarray
        Arrays that `logits` needs besides; they do not change.
    logits : callable
        Maps unit rows and the above, all float32 tensors, to logits (n_rows, n_classes).
    support : Support
        Rows and labels.
    schedule : Schedule
        How to descend.

    Returns
    -------
    list of ndarray
        The trained parameters, float64.
    """
    import torch

    from skhegraph.clip.model import resolve_device

    device = resolve_device(schedule.device)

    def tensor(array: Floats) -> torch.Tensor:
        return torch.tensor(array, dtype=torch.float32, device=device)

    X, y = tensor(support.X), torch.tensor(support.y, device=device)
    rng = check_random_state(schedule.random_state)
    n, size = len(y), schedule.batch_size
    step, steps = 0, math.ceil(n / size)
    with torch.inference_mode(False), torch.enable_grad():
        parameters = [tensor(start).requires_grad_() for start in starts]
        fixed = [tensor(constant) for constant in constants]
        optimizer = torch.optim.AdamW(
            parameters, eps=schedule.eps, weight_decay=schedule.weight_decay
        )
        for _ in range(schedule.n_epochs):
            order: NDArray[Any] = rng.permutation(n) if steps > 1 else np.arange(n)
            for first in range(0, n, size):
                rows = slice(None) if steps == 1 else torch.from_numpy(order[first : first + size])
                optimizer.param_groups[0]["lr"] = schedule.rate(step, steps)
                loss = torch.nn.functional.cross_entropy(
                    logits(X[rows], *parameters, *fixed), y[rows]
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
    return [parameter.detach().cpu().numpy().astype(np.float64) for parameter in parameters]
