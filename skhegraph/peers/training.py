"""Mini-batch training of the peers with torch, NumPy arrays in and out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from skhegraph._sklearn import Interval
from skhegraph.clip.torch_settings import own_settings
from skhegraph.descent import cosine_rates, descend, shuffled_batches
from skhegraph.feature_classifier import FeatureClassifier, non_negative
from skhegraph.support import Floats, Support

if TYPE_CHECKING:
    import torch

Seed: TypeAlias = int | np.random.RandomState | None

#: Constraints of every peer here.
SCHEDULE: dict[str, Any] = {
    **FeatureClassifier._parameter_constraints,
    "learning_rate": [non_negative()],
    "n_epochs": [Interval(Integral, 1, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "random_state": ["random_state"],
    "device": "no_validation",  # resolve_device says what is wrong
}


@own_settings()
def train(
    starts: Sequence[Floats],
    constants: Sequence[Floats],
    logits: Callable[..., torch.Tensor],
    support: Support,
    *,
    learning_rate: float,
    n_epochs: int,
    batch_size: int,
    rng: np.random.RandomState,
    device: str,
    warmup: bool = False,
    weight_decay: float = 0.0,
    eps: float = 1e-8,
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
    learning_rate, n_epochs, batch_size
        Mini-batch AdamW with cosine decay; with `warmup` the first epoch runs at 1e-5.
    rng : RandomState
        Order of the rows, where there is more than one batch.
    device : str
        See :func:`skhegraph.clip.model.resolve_device`.
    warmup, weight_decay, eps
        See :mod:`skhegraph.descent`.

    Returns
    -------
    list of ndarray
        The trained parameters, float64.
    """
    import torch

    from skhegraph.clip.model import resolve_device

    place = resolve_device(device)

    def tensor(array: Floats) -> torch.Tensor:
        return torch.tensor(array, dtype=torch.float32, device=place)

    X, y = tensor(support.X), torch.tensor(support.y, device=place)
    parameters = [tensor(start).requires_grad_() for start in starts]
    fixed = [tensor(constant) for constant in constants]

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits(X[rows], *parameters, *fixed), y[rows])

    batches = shuffled_batches(len(support.y), batch_size, n_epochs, rng)
    n_warmup = len(batches) // n_epochs if warmup else 0
    rates = cosine_rates(learning_rate, len(batches), n_warmup)
    descend(parameters, loss, batches, rates, weight_decay=weight_decay, eps=eps)
    return [parameter.detach().cpu().numpy().astype(np.float64) for parameter in parameters]
