"""Eq. 7 and Eq. 8 by loops, for NumPy arrays and for torch tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from skhegraph.hegraph.logits import cache_logits, text_logits

RNG = np.random.default_rng(0)
Z, KEYS = RNG.normal(size=(4, 3)), RNG.normal(size=(6, 3))
Z /= np.linalg.norm(Z, axis=1, keepdims=True)
KEYS /= np.linalg.norm(KEYS, axis=1, keepdims=True)
Y, WEIGHT = np.array([0, 0, 0, 1, 1, 2]), np.array([1.0, 2.0, 0.5, 1.0, 1.0, 3.0])
ONEHOT = np.eye(3)[Y] * WEIGHT[:, None]


def test_text_logits_are_scaled_cosines() -> None:
    want = [[7.0 * sum(z * k) for k in KEYS] for z in Z]
    np.testing.assert_allclose(text_logits(Z, KEYS, 7.0), want)
    np.testing.assert_allclose(text_logits(torch.tensor(Z), torch.tensor(KEYS), 7.0), want)


@pytest.mark.parametrize(
    ("cosine", "labels", "exp"),
    [
        (Z @ KEYS.T, ONEHOT, np.exp),
        (Z @ KEYS.T, csr_array(ONEHOT), np.exp),
        (torch.tensor(Z @ KEYS.T), torch.tensor(ONEHOT), torch.exp),
    ],
    ids=["numpy", "sparse", "torch"],
)
def test_cache_logits_are_mean_affinities_times_the_mean_shots(
    cosine: Any, labels: Any, exp: Any
) -> None:
    want = np.zeros((4, 3))
    for i, z in enumerate(Z):
        for c in range(3):
            own = c == Y
            affinity = np.exp(-1.5 * (1 - KEYS[own] @ z))
            want[i, c] = 2 * np.average(affinity, weights=WEIGHT[own])
    shots = torch.tensor(ONEHOT.sum(axis=0)) if exp is torch.exp else ONEHOT.sum(axis=0)
    np.testing.assert_allclose(cache_logits(cosine, labels, shots, 1.5, exp), want)


def test_a_key_of_cosine_minus_infinity_is_left_out() -> None:
    cosine = Z @ KEYS.T
    cosine[:, 4] = -np.inf
    shots = ONEHOT.sum(axis=0) - ONEHOT[4]
    kept = np.delete(np.arange(6), 4)
    want = cache_logits(Z @ KEYS[kept].T, ONEHOT[kept], ONEHOT[kept].sum(axis=0), 1.5, np.exp)
    got = cache_logits(cosine, ONEHOT, shots, 1.5, np.exp)
    np.testing.assert_allclose(got / (6 / 3), want / (5 / 3))
    cosine[:, 5] = -np.inf  # the only key of class 2: no votes, no division by zero
    assert (cache_logits(cosine, ONEHOT, shots - ONEHOT[5], 1.5, np.exp)[:, 2] == 0).all()
