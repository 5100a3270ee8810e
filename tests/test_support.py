"""Building blocks of a support set, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from skhegraph.support import (
    Support,
    class_means,
    distinct_rows,
    effective_weights,
    mean_of_others,
    unit_rows,
)


def test_unit_rows_by_hand() -> None:
    got = unit_rows([[3, 4], [0, 0], [0, -2]])
    np.testing.assert_allclose(got, [[0.6, 0.8], [0, 0], [0, -1]])
    assert got.dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_unit_rows_of_any_length_keep_their_precision(dtype: type, scale: float) -> None:
    got = unit_rows(np.array([[3, 4]], dtype=dtype) * dtype(scale))  # the square leaves the range
    np.testing.assert_allclose(got, [[0.6, 0.8]], rtol=1e-6)
    assert got.dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unit_rows_beside_rows_out_of_range_are_the_same_bits(dtype: type) -> None:
    X = np.random.default_rng(0).normal(size=(6, 40)).astype(dtype)
    want = X.astype(np.longdouble)
    want /= np.sqrt(np.square(want).sum(axis=1, keepdims=True))
    alone = unit_rows(X)
    np.testing.assert_allclose(alone, want.astype(dtype), rtol=4 * np.finfo(dtype).eps)
    most, least = np.finfo(dtype).max, np.finfo(dtype).tiny
    infinite = np.where(np.arange(40) == 3, -np.inf, X[0])
    others = [X[0] * (most / 8), X[1] * least, np.zeros(40), np.full(40, np.nan), infinite]
    with np.errstate(all="raise"):
        together = unit_rows(np.vstack([X, others]).astype(dtype))
    np.testing.assert_array_equal(together[:6], alone)
    np.testing.assert_allclose(together[6], alone[0], rtol=1e-5)
    np.testing.assert_allclose(
        together[7], alone[1], rtol=0.05
    )  # subnormal numbers have few digits
    assert not together[8].any() and np.isnan(together[9:]).all()


def test_class_means_are_weighted() -> None:
    X = np.array([[1.0, 0.0], [4.0, 6.0], [5.0, 5.0]])
    means = class_means(X, np.array([0, 0, 1]), np.array([1.0, 2.0, 7.0]))
    np.testing.assert_allclose(means, [[3, 4], [5, 5]])


def test_mean_of_others_by_hand() -> None:
    nodes = np.array([[2.5, 0], [0, 6], [8, 8]])
    np.testing.assert_allclose(mean_of_others(nodes), [[4, 7], [5.25, 4], [1.25, 3]])


def test_distinct_rows_add_weights_within_a_class_alone() -> None:
    a, b = [1.0, 2.0], [3.0, 4.0]
    X, y = np.array([a, b, a, a, b]), np.array([1, 0, 1, 0, 0])
    rows, classes, weight = distinct_rows(X, y, np.array([1.0, 2.0, 4.0, 8.0, 16.0]))
    got = {(int(c), tuple(x)): w for x, c, w in zip(rows, classes, weight, strict=True)}
    assert got == {(1, (1.0, 2.0)): 5.0, (0, (3.0, 4.0)): 18.0, (0, (1.0, 2.0)): 8.0}
    assert classes.tolist() == [0, 0, 1]


def test_zero_is_zero_whatever_its_sign() -> None:
    X = np.array([[0.0, 1.0], [-0.0, 1.0]])
    assert distinct_rows(X, np.zeros(2, dtype=int), np.ones(2))[2].tolist() == [2.0]


def test_distinct_rows_do_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 2, (30, 3)).astype(float), rng.integers(0, 3, 30)
    weight = rng.integers(1, 9, 30).astype(float)
    want = distinct_rows(X, y, weight)
    order = rng.permutation(30)
    for a, b in zip(want, distinct_rows(X[order], y[order], weight[order]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_order_of_distinct_rows_is_that_of_values_not_of_digits() -> None:
    """Rows of 250,000 logits and more are drawn by it: other last digits drew other rows."""
    rng = np.random.default_rng(0)
    X, y, weight = rng.normal(size=(30, 4)), rng.integers(0, 3, 30), np.arange(1.0, 31.0)
    want = distinct_rows(X, y, weight)[2]
    for other in (X + 1e-9 * rng.normal(size=X.shape), X[:, [2, 0, 3, 1]]):
        np.testing.assert_array_equal(distinct_rows(other, y, weight)[2], want)


@pytest.mark.parametrize("scale", [1e-300, 1 / 7, 1.0, 1e300])
def test_effective_weights_sum_to_the_effective_number_whatever_their_scale(scale: float) -> None:
    got = effective_weights(scale * np.array([1.0, 1.0, 2.0]))
    np.testing.assert_allclose(got, np.array([1, 1, 2]) * 4 / 6)  # (1 + 1 + 2)^2 / (1 + 1 + 4)
    np.testing.assert_allclose(effective_weights(np.full(5, scale)), 1.0)


def test_support_reads_off_shots_means_and_labels() -> None:
    X = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    support = Support(X, np.array([0, 1, 1]), np.array([3.0, 1.0, 0.5]), X[:2], X[1:], 100.0)
    assert support.n_classes == 2
    assert support.shots.tolist() == [3.0, 1.5]
    assert support.onehot.tolist() == [[3, 0], [0, 1], [0, 0.5]]
    np.testing.assert_allclose(support.visual, [[1, 0], [0, 1]])
