"""Schedules and steps of AdamW against the formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skhegraph.descent import (
    balanced_order,
    cosine_rates,
    descend,
    shuffled_batches,
)


def test_rates_are_half_a_cosine_after_the_warm_up() -> None:
    rates = cosine_rates(0.1, 8, n_warmup=2)
    assert rates[:2] == [1e-5, 1e-5]
    np.testing.assert_allclose(rates[2:], 0.05 * (1 + np.cos(np.pi * np.arange(2, 8) / 8)))
    assert cosine_rates(0.1, 1, n_warmup=1) == [0.1]  # a warm-up of all steps would teach nothing
    assert cosine_rates(0.1, 0) == []


def test_every_epoch_sees_each_row_once_in_a_new_order() -> None:
    batches = shuffled_batches(10, 4, 3, np.random.RandomState(0))
    assert [len(rows) for rows in batches] == [4, 4, 2] * 3
    epochs = np.concatenate(batches).reshape(3, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 3
    whole = shuffled_batches(10, 10, 2, np.random.RandomState(0))
    assert [rows.tolist() for rows in whole] == [list(range(10))] * 2


@pytest.mark.parametrize("shots", [[3, 3, 3], [5, 1, 2]])
def test_any_start_of_a_balanced_order_holds_the_classes_equally(shots: list[int]) -> None:
    y = np.repeat(np.arange(3), shots)
    order = balanced_order(y, np.random.RandomState(0))
    assert np.sort(order).tolist() == list(range(len(y)))
    for size in range(len(y) + 1):
        counts = np.bincount(y[order[:size]], minlength=3)
        full = counts == shots
        if not full.all():
            assert counts[~full].max() - counts[~full].min() <= 1
            assert not full.any() or counts[full].max() <= counts[~full].max() + 1
    other = balanced_order(y, np.random.RandomState(1))
    assert order.tolist() != other.tolist()


def test_three_thousand_classes_are_all_seen_in_the_first_3000_rows() -> None:
    y = np.repeat(np.arange(3000), 16)
    order = balanced_order(y, np.random.RandomState(0))
    assert len(np.unique(y[order[:3000]])) == 3000


def test_steps_are_adamw_by_hand() -> None:
    target = torch.tensor([1.0, -2.0])
    start = np.array([0.5, 0.5])
    parameter = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    rates, decay, eps = [0.1, 0.05], 0.3, 1e-4

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return ((parameter - target)[rows] ** 2).sum()

    both = np.arange(2)
    curve = descend([parameter], loss, [both, both], rates, weight_decay=decay, eps=eps)
    theta, m, v = start.copy(), 0.0, 0.0
    losses = []
    for t, rate in enumerate(rates, 1):
        losses.append(((theta - target.numpy()) ** 2).sum())
        gradient = 2 * (theta - target.numpy())
        theta *= 1 - rate * decay
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        theta -= rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps)
    np.testing.assert_allclose(parameter.detach().numpy(), theta, rtol=1e-5)
    np.testing.assert_allclose(curve, losses, rtol=1e-5)


def test_a_loss_without_parameters_in_it_makes_no_step() -> None:
    parameter = torch.ones(2, requires_grad=True)
    constant = descend([parameter], lambda rows: torch.tensor(1.0), [np.arange(2)], [0.1])
    assert constant == []
    assert parameter.tolist() == [1, 1]


def test_a_loss_that_is_not_finite_is_an_error_that_says_what_to_change() -> None:
    parameter = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match=r"became inf at step 1 of 3: lower learning_rate"):
        descend([parameter], lambda rows: parameter.sum() / 0, [np.arange(2)] * 3, [0.1] * 3)
