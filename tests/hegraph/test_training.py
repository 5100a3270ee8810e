"""Losses, leave-one-out logits, optimiser and stopping against plain loops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from skhegraph.base import Support, unit_rows

from skhegraph.hegraph import training
from skhegraph.hegraph.network import HeteroGraphNetwork, PathWeights
from skhegraph.hegraph.training import (
    Batch,
    FusedLoss,
    JointLoss,
    Settings,
    cache_logits,
    has_converged,
    held_out_curve,
    optimise,
    text_logits,
    train_graph,
)

D = 6
Y = np.array([0, 0, 0, 0, 1, 1, 2])  # unequal shots, one class of a single row
WEIGHT = np.array([1.0, 2.0, 1.0, 3.0, 1.0, 2.0, 1.0])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def X(rng: np.random.Generator) -> np.ndarray:
    return unit_rows(rng.normal(size=(len(Y), D)))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def make_batch(
    X: np.ndarray,
    weight: np.ndarray = WEIGHT,
    own_shift: np.ndarray | None = None,
    offset: np.ndarray | None = None,
) -> Batch:
    return Batch.from_arrays(X, Y, weight, own_shift, offset, "cpu")


def fake_network(P: np.ndarray, shift: np.ndarray | None = None) -> Any:
    """Stand-in with known outputs."""
    tensors = {k: torch.as_tensor(v) for k, v in {"P": P, "shift": shift}.items() if v is not None}
    return SimpleNamespace(
        positives=lambda: tensors["P"].float(), visual_shift=lambda: tensors["shift"].float()
    )


def cache_by_hand(
    X: np.ndarray, weight: np.ndarray, shift: np.ndarray, sharpness: float
) -> np.ndarray:
    """Eq. 8 without tau for each row, from a cache that really lacks the row."""
    mean_shots = np.count_nonzero(weight) / len(shift)
    logits = np.zeros((len(Y), len(shift)))
    for i, x in enumerate(X):
        others = [k for k in range(len(Y)) if k != i and weight[k] > 0]
        for c in range(len(shift)):
            rows = [k for k in others if Y[k] == c]
            affinity = [np.exp(-sharpness * (1 - cosine(x, X[k] + shift[c]))) for k in rows]
            if rows:
                logits[i, c] = mean_shots * np.average(affinity, weights=weight[rows])
    return logits


@pytest.mark.parametrize("sharpness", [1.0, 5.5])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("zeros", [(), (1, 4)], ids=["all", "two-left-out"])
def test_cache_logits_are_leave_one_out(
    rng: np.random.Generator, X: np.ndarray, sharpness: float, shifted: bool, zeros: tuple[int, ...]
) -> None:
    shift = rng.normal(size=(3, D)) if shifted else np.zeros((3, D))
    weight = WEIGHT.copy()
    weight[list(zeros)] = 0.0
    got = cache_logits(make_batch(X, weight), torch.as_tensor(shift).float(), sharpness)
    want = cache_by_hand(X, weight, shift, sharpness)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-6)
    assert got[6, 2] == 0  # the single row of class 2 has no other row to meet


def test_text_logits_are_cosines(rng: np.random.Generator, X: np.ndarray) -> None:
    P = rng.normal(size=(3, D)) * 4
    want = [[cosine(x, p) for p in P] for x in X]
    got = text_logits(make_batch(X), torch.as_tensor(P).float())
    np.testing.assert_allclose(got.numpy(), want, atol=1e-6)


def test_text_logits_with_own_shift_lack_the_row(rng: np.random.Generator, X: np.ndarray) -> None:
    """The shift is what the class mean loses with the row; the logit is that of the rest."""

    def mean(c: int, without: int | None = None) -> np.ndarray:
        rows = [k for k in range(len(Y)) if Y[k] == c and k != without]
        return np.average(X[rows], axis=0, weights=WEIGHT[rows])

    P = np.stack([mean(c) for c in range(3)])
    own_shift = np.array(
        [mean(c, without=i) - P[c] if (c < 2) else np.zeros(D) for i, c in enumerate(Y)]
    )
    want = np.array([[cosine(x, p) for p in P] for x in X])
    for i, c in enumerate(Y[:6]):
        want[i, c] = cosine(X[i], mean(c, without=i))
    batch = make_batch(X, own_shift=own_shift)
    got = text_logits(batch, torch.as_tensor(P).float())
    np.testing.assert_allclose(got.numpy(), want, atol=1e-6)


@pytest.mark.parametrize("loss_weight", [0.0, 0.1, 2.0])
def test_joint_loss_by_hand(rng: np.random.Generator, X: np.ndarray, loss_weight: float) -> None:
    """Eq. 9; the row that is alone in its class has no visual loss."""
    tau, sharpness = 8.0, 1.5
    P, shift = rng.normal(size=(3, D)), rng.normal(size=(3, D)) * 0.3
    text = tau * np.array([[cosine(x, p) for p in P] for x in X])
    visual = tau * cache_by_hand(X, WEIGHT, shift, sharpness)
    share = WEIGHT / WEIGHT.sum()
    rows = np.arange(len(Y))
    text_rows = -log_softmax(text, axis=1)[rows, Y]
    visual_rows = -log_softmax(visual, axis=1)[rows, Y]
    want = share @ text_rows + loss_weight * (share[:6] @ visual_rows[:6])
    batch = make_batch(X)
    loss = JointLoss(batch, tau, loss_weight, sharpness)
    value, by_row = loss(fake_network(P, shift), batch)
    np.testing.assert_allclose(value.item(), want, rtol=1e-5)
    np.testing.assert_allclose(by_row.numpy(), text_rows, rtol=1e-4, atol=1e-6)


def test_joint_loss_at_one_shot_is_the_text_loss(rng: np.random.Generator) -> None:
    X, y = unit_rows(rng.normal(size=(3, D))), np.arange(3)
    batch = Batch.from_arrays(X, y, np.ones(3), None, None, "cpu")
    P = rng.normal(size=(3, D))
    value, rows = JointLoss(batch, 10.0, 5.0, 1.0)(fake_network(P, np.ones((3, D))), batch)
    np.testing.assert_allclose(value.item(), rows.mean().item(), rtol=1e-6)


@pytest.mark.parametrize("penalty", [0.0, 0.7])
@pytest.mark.parametrize("with_visual", [False, True])
def test_fused_loss_by_hand(
    rng: np.random.Generator, X: np.ndarray, penalty: float, with_visual: bool
) -> None:
    scale = 12.0
    start, P = rng.normal(size=(3, D)), rng.normal(size=(3, D))
    visual = rng.normal(size=(len(Y), 3)) if with_visual else np.zeros((len(Y), 3))
    share = WEIGHT / WEIGHT.sum()
    want, text_rows = 0.0, []
    for i, x in enumerate(X):
        new = scale * np.array([cosine(x, p) for p in P])
        old = scale * np.array([cosine(x, p) for p in start])
        text_rows.append(-log_softmax(new + visual[i])[Y[i]])
        change = new - old - np.mean(new - old)  # a common offset changes no probability
        want += share[i] * (text_rows[-1] + penalty * (change @ change))
    batch = make_batch(X, offset=visual if with_visual else None)
    loss = FusedLoss(scale, torch.as_tensor(start).float(), penalty)
    value, rows = loss(fake_network(P), batch)
    np.testing.assert_allclose(value.item(), want, rtol=1e-5)
    np.testing.assert_allclose(rows.numpy(), text_rows, rtol=1e-4, atol=1e-6)


def test_part_takes_turns_over_all_rows(X: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    offset = np.arange(21.0).reshape(7, 3)
    batch = make_batch(X, own_shift=2 * X, offset=offset)
    assert batch.part(0, 3) is batch
    monkeypatch.setattr(training, "LOGITS_PER_STEP", 8)  # 21 logits: three turns
    parts = [batch.part(step, 3) for step in range(3)]
    for step, part in enumerate(parts):
        assert len(part.y) * 3 <= 9
        np.testing.assert_allclose(part.weight, WEIGHT[step::3] / WEIGHT[step::3].sum())
        np.testing.assert_allclose(part.X, X[step::3], rtol=1e-6)
        np.testing.assert_allclose(part.own_shift, 2 * X[step::3], rtol=1e-6)
        np.testing.assert_allclose(part.offset, offset[step::3])
        np.testing.assert_array_equal(part.y, Y[step::3])
    np.testing.assert_array_equal(batch.part(3, 3).y, parts[0].y)


@pytest.mark.parametrize(
    ("curve", "tol", "expected"),
    [
        ([1.0] * 10, 0.0, False),  # too short to judge
        ([1.0] * 11, 0.0, False),  # tol=0 never stops
        ([1.0] * 11, 1e-3, True),
        ([1.0] + [1.1] * 10, 1e-3, False),  # rises
        ([5.0] + [1.0] * 10 + [0.95], 0.1, True),  # the last ten steps count
        ([5.0] + [1.0] * 10 + [0.85], 0.1, False),
    ],
)
def test_has_converged(curve: list[float], tol: float, expected: bool) -> None:
    assert has_converged(curve, tol) is expected


@pytest.fixture
def support(rng: np.random.Generator, X: np.ndarray) -> Support:
    P, N = unit_rows(rng.normal(size=(3, D))), unit_rows(rng.normal(size=(3, D)))
    return Support(X, Y, WEIGHT, P, N, 10.0)


def zeros() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((D, D)), np.zeros((D, D)), np.zeros((D, D))


def make_settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "paths": PathWeights(),
        "negative_to_positive_predict": None,
        "top_k": None,
        "learning_rate": 1e-2,
        "max_iter": 25,
        "tol": 0.0,
        "early_stopping": False,
        "device": "cpu",
        "verbose": False,
    }
    return Settings(**{**values, **changes})


def make_fused(batch: Batch, network: HeteroGraphNetwork) -> FusedLoss:
    return FusedLoss(10.0, network.nodes["positive"], 0.0)


def make_joint(batch: Batch, network: HeteroGraphNetwork) -> JointLoss:
    return JointLoss(batch, 10.0, 0.5, 1.0)


FOLDS = np.array([0, 1, 2, 0, 1, 2, -1])


@pytest.mark.parametrize("make_loss", [make_fused, make_joint])
def test_training_reduces_the_loss(support: Support, make_loss: Any) -> None:
    trained = train_graph(support, FOLDS, zeros(), None, None, make_loss, make_settings())
    assert len(trained.loss_curve) == 25
    assert trained.loss_curve[-1] < trained.loss_curve[0] - 0.1
    assert np.abs(trained.positive - support.positive).max() > 1e-2


def test_first_step_is_adamw_from_the_gradient(support: Support) -> None:
    """From zero, AdamW's first step is -lr times the sign of the gradient."""
    nodes = {"positive": support.positive, "negative": support.negative, "visual": support.X[:3]}

    def fresh() -> HeteroGraphNetwork:
        return HeteroGraphNetwork(nodes, PathWeights(), top_k=None, initial=zeros(), device="cpu")

    batch = make_batch(support.X)
    untrained = fresh()
    before, _ = make_joint(batch, untrained)(untrained, batch)
    before.backward()
    network = fresh()
    (value,) = optimise(network, batch, make_joint(batch, network), make_settings(max_iter=1))
    np.testing.assert_allclose(value, before.item(), rtol=1e-6)
    for name in ("W_p", "W_v"):
        gradient = getattr(untrained, name).grad
        strong = gradient.abs() > 1e-4
        assert strong.sum() > D
        step = getattr(network, name).detach()[strong]
        np.testing.assert_allclose(step, -1e-2 * gradient[strong].sign(), rtol=1e-2)


def test_learning_rate_decays_as_a_cosine(support: Support) -> None:
    """Under a constant gradient AdamW's step is the learning rate itself (weight decay 1 %)."""

    class Sum:
        by_row = False

        def __call__(self, network: HeteroGraphNetwork, batch: Batch) -> tuple[Any, Any]:
            return network.W_p.sum(), batch.weight

    network = HeteroGraphNetwork(
        {"positive": support.positive, "negative": support.negative, "visual": support.X[:3]},
        PathWeights(),
        top_k=None,
        initial=zeros(),
        device="cpu",
    )
    settings = make_settings(max_iter=8)
    sums = [*optimise(network, make_batch(support.X), Sum(), settings)]  # type: ignore[arg-type]
    sums.append(network.W_p.sum().item())
    rates = -np.diff(sums) / D**2
    want = 1e-2 * (1 + np.cos(np.pi * np.arange(8) / 8)) / 2
    np.testing.assert_allclose(rates, want, atol=1e-5)


def test_zero_steps_leave_the_nodes(support: Support) -> None:
    settings = make_settings(max_iter=0)
    trained = train_graph(support, FOLDS, zeros(), None, None, make_fused, settings)
    assert trained.loss_curve == []
    np.testing.assert_allclose(trained.positive, support.positive, atol=1e-7)
    np.testing.assert_allclose(trained.negative, support.negative, atol=1e-7)
    np.testing.assert_array_equal(trained.visual_shift, 0)


def test_tol_stops_the_training(support: Support) -> None:
    settings = make_settings(max_iter=100, tol=10.0)  # no ten steps change that much
    trained = train_graph(support, FOLDS, zeros(), None, None, make_fused, settings)
    assert len(trained.loss_curve) == training.N_ITER_NO_CHANGE + 1


def test_early_stopping_takes_the_lowest_mean_curve(
    support: Support, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves = {0: [3.0, 1.0, 2.0, 5.0], 1: [3.0, 2.0, 0.5, 5.0], 2: [3.0, 1.5, 1.5, 0.0]}
    held_out_rows = []

    def given_curve(
        network: object, batch: Batch, loss: object, held_out: np.ndarray, settings: object
    ) -> np.ndarray:
        held_out_rows.append(np.flatnonzero(held_out).tolist())
        assert (batch.weight.numpy()[held_out] == 0).all()
        return np.array(curves[len(held_out_rows) - 1])

    monkeypatch.setattr(training, "held_out_curve", given_curve)
    settings = make_settings(early_stopping=True, max_iter=3)
    trained = train_graph(support, FOLDS, zeros(), None, None, make_fused, settings)
    assert held_out_rows == [[0, 3], [1, 4], [2, 5]]  # row 6 is never held out
    assert len(trained.loss_curve) == 2  # means 3, 1.5, 1.33, 3.33


def test_early_stopping_without_held_out_rows_makes_all_steps(support: Support) -> None:
    settings = make_settings(early_stopping=True, max_iter=4)
    never = np.full(len(Y), -1)
    trained = train_graph(support, never, zeros(), None, None, make_fused, settings)
    assert len(trained.loss_curve) == 4


@pytest.mark.parametrize("make_loss", [make_fused, make_joint])
def test_held_out_rows_do_not_train(support: Support, make_loss: Any) -> None:
    held_out = FOLDS == 0
    trained, curves = [], []
    for sign in (1.0, -1.0):
        X = support.X.copy()
        X[held_out] *= sign
        visual = np.stack([X[~held_out & (c == Y)].mean(axis=0) for c in range(3)])
        nodes = {"positive": support.positive, "negative": support.negative, "visual": visual}
        network = HeteroGraphNetwork(
            nodes, PathWeights(), top_k=None, initial=zeros(), device="cpu"
        )
        batch = make_batch(X, np.where(held_out, 0.0, WEIGHT))
        loss = make_loss(batch, network)
        curves.append(held_out_curve(network, batch, loss, held_out, make_settings(max_iter=5)))
        trained.append(network.W_p.detach().numpy().copy())
        # The last entry is the loss of the held-out rows after the last step.
        cosine = text_logits(batch, network.positives()).detach().numpy()[held_out]
        want = -log_softmax(10 * cosine, axis=1)[np.arange(2), Y[held_out]].mean()
        np.testing.assert_allclose(curves[-1][-1], want, rtol=1e-5)
    np.testing.assert_array_equal(*trained)
    assert len(curves[0]) == 6
    assert np.abs(curves[0] - curves[1]).max() > 0.1


def test_no_tensor_is_left_on_the_cpu(support: Support) -> None:
    """On the meta device an operation that meets a CPU tensor raises."""
    nodes = {"positive": support.positive, "negative": support.negative, "visual": support.X[:3]}
    network = HeteroGraphNetwork(nodes, PathWeights(), top_k=None, initial=zeros(), device="meta")
    batch = Batch.from_arrays(support.X, Y, WEIGHT, support.X, np.zeros((len(Y), 3)), "meta")
    value, rows = FusedLoss(10.0, network.nodes["positive"], 0.5)(network, batch)
    cached = cache_logits(batch, network.visual_shift(), 1.0)
    (value + cached.sum()).backward()
    torch.optim.AdamW(network.parameters()).step()
    made = (value, rows, cached, network.W_p, network.W_p.grad, network.W_v.grad)
    assert all(tensor is not None and tensor.device.type == "meta" for tensor in made)
