"""Edges, precisions and strengths of the messages against explicit matrices."""

from __future__ import annotations

import numpy as np
import pytest

from skhegraph.hegraph.messages import (
    Edges,
    Precision,
    estimate_messages,
    n_directions,
    principal_axes,
)
from skhegraph.hegraph.priors import MESSAGE_PRIOR, MESSAGE_RATIOS
from skhegraph.support import Support, unit_rows


def make_support(n_classes: int, shots: int, width: int = 5) -> tuple[Support, np.ndarray]:
    """Rows about the text of their class, and the centred text."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(n_classes), shots)
    text = unit_rows(rng.normal(size=(n_classes, width)))
    centres = text + 0.4 * rng.normal(size=text.shape)
    X = unit_rows(centres[y] + 0.5 * rng.normal(size=(len(y), width)))
    return Support(X, y, np.ones(len(y)), text, -text, 100.0), text - text.mean(axis=0)


def dense(edges: Edges) -> np.ndarray:
    return (edges.vectors * edges.values) @ edges.vectors.T


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5)], ids=str)
def test_principal_axes(shape: tuple[int, int]) -> None:
    A = np.random.default_rng(0).normal(size=shape)
    A[-1] = A[0]
    values, axes = principal_axes(A)
    assert axes.shape == (shape[1], min(shape[0] - 1, shape[1]))
    np.testing.assert_allclose((axes * values) @ axes.T, A.T @ A, atol=1e-12)
    np.testing.assert_allclose(axes.T @ axes, np.eye(len(values)), atol=1e-7)
    assert principal_axes(np.zeros(shape))[1].shape == (shape[1], 0)


def test_edges_are_centred_similarities_of_mean_diagonal_one() -> None:
    text = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    want = np.array([[1.0, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 4, -4], [0, 0, -4, 4]]) / 2.5
    edges = Edges.of_text(text)
    np.testing.assert_allclose(dense(edges), want, atol=1e-12)
    np.testing.assert_allclose(edges.scale * text @ text.T, want)
    np.testing.assert_array_equal(dense(Edges.of_text(np.zeros((3, 2)))), 0)


@pytest.mark.parametrize("n_classes", [4, 9])
def test_precision_is_the_inverse(n_classes: int) -> None:
    _, text = make_support(n_classes, 1)
    edges, d = Edges.of_text(text), np.linspace(0.1, 2, n_classes)
    want = np.linalg.inv(0.7 * dense(edges) + np.diag(d))
    precision = Precision(edges, 0.7, d)
    np.testing.assert_allclose(precision.times(np.eye(n_classes)), want, atol=1e-10)
    np.testing.assert_allclose(precision.diagonal(), want.diagonal(), atol=1e-10)


@pytest.mark.parametrize("n_classes", [4, 9])
def test_messages_maximise_the_likelihood_of_the_class_means(n_classes: int) -> None:
    support, text = make_support(n_classes, 3)
    K = dense(Edges.of_text(text))
    messages = estimate_messages(support, text)
    one = np.column_stack([np.ones(n_classes), np.eye(n_classes)[:, 1:]])
    contrasts = np.linalg.qr(one)[0][:, 1:]
    M, T = contrasts.T @ support.visual, contrasts.T @ text
    values = np.linalg.eigvalsh(M.T @ M)  # as many times as the means have directions
    observed = (values**2).sum() / values.sum() ** 2
    directions = 1 / max(observed - 1 / (n_classes - 1), observed / 4)

    def loss(rho: float, ratio: float) -> float:
        covariance = contrasts.T @ (ratio * K + np.eye(n_classes)) @ contrasts
        R = M - rho * T
        delta = np.trace(R.T @ np.linalg.solve(covariance, R)) / (n_classes - 1)
        fit = np.linalg.slogdet(covariance)[1] / (n_classes - 1) + np.log(delta)
        prior = MESSAGE_PRIOR * np.log(ratio) ** 2 / (n_classes - 1)
        return float(0.5 * directions * fit + prior)

    best = loss(messages.positive_to_visual, messages.visual_to_visual)
    for ratio in MESSAGE_RATIOS:
        assert best <= loss(messages.positive_to_visual, ratio) + 1e-9
        for rho in np.linspace(0, 2, 41):
            assert best <= loss(rho, ratio) + 1e-9
    deviation = support.X - support.visual[support.y]
    n_pairs = len(support.y) - n_classes  # noise: two more rows of the prior
    assert messages.noise > (deviation**2).sum() / (n_pairs + 2)
    # m0 is the generalised least-squares mean of what the text leaves over.
    prior = messages.prior() + messages.noise / 3 * np.eye(n_classes)
    weight = np.linalg.inv(prior).sum(axis=0)
    left = support.visual - messages.positive_to_visual * text
    np.testing.assert_allclose(messages.centre, weight @ left / weight.sum(), atol=1e-10)
    np.testing.assert_allclose(messages.left_over, left - messages.centre, atol=1e-12)


def test_given_messages_are_kept_and_no_text_sends_none() -> None:
    support, text = make_support(4, 2)
    given = estimate_messages(support, text, 0.3, 0.7)
    assert (given.positive_to_visual, given.visual_to_visual) == (0.3, 0.7)
    none = estimate_messages(support, np.zeros_like(text))
    assert none.visual_to_visual == 0
    np.testing.assert_allclose(none.prior(), none.freedom * np.eye(4))


def test_directions_are_counted_from_few_rows_and_from_many() -> None:
    rng = np.random.default_rng(0)
    deviations = np.array([3.0] * 4 + [1.0] * 16)
    want = (deviations**2).sum() ** 2 / (deviations**4).sum()
    few = [n_directions(rng.normal(size=(30, 20)) * deviations) for _ in range(200)]
    assert 1 / np.mean(1 / np.array(few)) == pytest.approx(want, rel=0.1)  # 8, not 6
    assert n_directions(np.eye(3)) == pytest.approx(8)  # four times the two that three rows have
    assert n_directions(rng.normal(size=(5000, 20)) * deviations) == pytest.approx(want, rel=0.05)
    assert n_directions(np.outer(rng.normal(size=50), np.ones(20))) == pytest.approx(1.0, rel=0.05)
    assert n_directions(np.ones((4, 20))) == 1.0


def test_directions_are_counted_once_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[int, ...]] = []

    def count(A: np.ndarray) -> float:
        counted.append(A.shape)
        return 3.0

    monkeypatch.setattr("skhegraph.hegraph.messages.n_directions", count)
    estimate_messages(*make_support(6, 2))
    assert counted == [(6, 5)]
