"""Eq. 7 and Eq. 8, for NumPy arrays and for torch tensors alike."""

from __future__ import annotations

from typing import Any


def text_logits(Z: Any, nodes: Any, scale: float) -> Any:
    """Eq. 7: `tau cos(z, P')` of unit queries and unit nodes, shape (n_queries, n_classes)."""
    return scale * (Z @ nodes.T)


def cache_logits(cosine: Any, labels: Any, shots: Any, sharpness: float, exp: Any) -> Any:
    """Eq. 8 without tau, `sum_k exp(-beta (1 - cos(z, X'_k))) L_k`, free of the class sizes.

    The mean affinity to a class times the mean number of shots: the sum at equal shots, and no
    vote for a class because it has more of them.

    Parameters
    ----------
    cosine : array of shape (n_queries, n_keys)
        Cosines of queries and cache keys; -inf leaves a key out (a row does not vote for itself).
    labels : array of shape (n_keys, n_classes)
        One-hot labels `L`, times the weights of the keys.
    shots : array of shape (n_classes,) or (n_queries, n_classes)
        Weight of each class, without the keys left out; 0 where none is left.
    sharpness : float
        `beta`.
    exp : callable
        ``numpy.exp`` or ``torch.exp``.
    """
    votes = exp(sharpness * (cosine - 1)) @ labels
    mean_shots = labels.shape[0] / labels.shape[1]
    return mean_shots * votes / (shots + (shots == 0))
