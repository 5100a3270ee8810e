"""AdamW with cosine decay over mini-batches: how everything in the package that trains does so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skhegraph.clip.torch_settings import own_settings
from skhegraph.parallel import one_torch_thread
from skhegraph.progress import progress
from skhegraph.support import Ints

if TYPE_CHECKING:
    import torch

#: Rate of the warm-up steps of CoOp's training code, from which few-shot adapters took it.
WARMUP_RATE = 1e-5


def cosine_rates(learning_rate: float, n_steps: int, n_warmup: int = 0) -> list[float]:
    """Learning rate of each step: half a cosine from `learning_rate` to 0.

    The first `n_warmup` steps run at 1e-5, unless they would be all.
    """
    rates = [
        0.5 * learning_rate * (1.0 + math.cos(math.pi * step / n_steps)) for step in range(n_steps)
    ]
    if n_warmup < n_steps:
        rates[:n_warmup] = [WARMUP_RATE] * n_warmup
    return rates


def shuffled_batches(
    n_rows: int, batch_size: int, n_epochs: int, rng: np.random.RandomState
) -> list[Ints]:
    """Rows of each step: every row once per epoch, in a new order each time."""
    if n_rows <= batch_size:
        return [np.arange(n_rows)] * n_epochs
    orders = (rng.permutation(n_rows) for _ in range(n_epochs))
    return [o[first : first + batch_size] for o in orders for first in range(0, n_rows, batch_size)]


def balanced_order(y: Ints, rng: np.random.RandomState) -> Ints:
    """Random order of the rows in which every start holds the classes equally, as far as it can.

    The first C rows hold one of each class, the next C another one of each class that has it.
    """
    shuffled = rng.permutation(len(y))
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    first = np.searchsorted(y[by_class], np.arange(y.max() + 1))
    turn = np.arange(len(y)) - first[y[by_class]]
    return by_class[np.lexsort((rng.permutation(len(y)), turn))]


def descend(
    parameters: Sequence[torch.Tensor],
    loss: Callable[[torch.Tensor], torch.Tensor],
    batches: Sequence[Ints],
    rates: Sequence[float],
    *,
    weight_decay: float = 0.0,
    eps: float = 1e-8,
    verbose: bool = False,
) -> list[float]:
    """Descend on a loss by AdamW; return the loss before each step.

    Parameters
    ----------
    parameters : sequence of torch.Tensor
        Leaf tensors that require a gradient; changed in place.
    loss : callable
        Maps row numbers, a tensor on the device of the parameters, to the loss of a step.
    batches : sequence of ndarray of int
        Row numbers of each step.
    rates : sequence of float
        Learning rate of each step.
    weight_decay, eps : float, default=0.0, 1e-8
        Decoupled weight decay, and the term in Adam's denominator.
    verbose : bool, default=False
        Show a progress bar.

    Raises
    ------
    ValueError
        If the loss is no longer finite.
    """
    import torch

    curve: list[float] = []
    if not parameters:
        return curve
    optimizer = torch.optim.AdamW(parameters, eps=eps, weight_decay=weight_decay)
    device = parameters[0].device
    steps: Iterator[tuple[NDArray[Any], float]] = zip(batches, rates, strict=True)
    with one_torch_thread(), own_settings():
        for rows, rate in progress(steps, len(rates), shown=verbose, what="training", unit="step"):
            value = loss(torch.as_tensor(rows, device=device))
            if not value.requires_grad:  # no parameter acts: nothing to learn
                return curve
            curve.append(float(value.detach()))
            if not math.isfinite(curve[-1]):
                raise ValueError(
                    f"The training loss became {curve[-1]} at step {len(curve)} of {len(rates)}: "
                    "lower learning_rate where the estimator has it, or logit_scale."
                )
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return curve
