"""The shrunk discriminant against its formula, repetition and scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from skhegraph.hegraph.visual import BETWEEN_SHARE, ShrunkDiscriminant
from skhegraph.support import unit_rows


def data(n: int, d: int, n_classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return unit_rows(rng.normal(size=(n, d)) + 2 * rng.normal(size=(n_classes, d))[y]), y


def by_formula(X: np.ndarray, y: np.ndarray, nu: float, Z: np.ndarray) -> np.ndarray:
    """Logits by the class docstring, with an explicit inverse."""
    n, d = X.shape
    classes = range(y.max() + 1)
    means = np.stack([X[y == c].mean(axis=0) for c in classes])
    mu = means.mean(axis=0)
    R = np.zeros((d, d))
    for x, c in zip(X, y, strict=True):
        R += np.outer(x - means[c], x - means[c])
    t = np.trace(np.cov(X, rowvar=False)) / d
    S = (R + nu * d * t * np.eye(d)) / (n - len(means) + nu * d)
    precision = np.linalg.inv(S)
    shots = np.bincount(y)
    s = np.mean(BETWEEN_SHARE * shots / (1 + BETWEEN_SHARE * shots))
    logits = np.empty((len(Z), len(means)))
    for c, m in enumerate(means):
        for i, z in enumerate(Z):
            logits[i, c] = s * (z - mu) @ precision @ (m - mu)
        logits[:, c] -= s * (m - mu) @ precision @ (m - mu) / 2
    return logits


@pytest.mark.parametrize("shrinkage", [0.003, 0.1, 3.0])
@pytest.mark.parametrize(
    ("n", "d"), [(30, 5), (5, 5), (7, 20), (4, 20)], ids=["n>>d", "n=d", "n<d", "almost-one-shot"]
)
def test_equals_the_formula(n: int, d: int, shrinkage: float) -> None:
    X, y = data(n, d)
    Z = data(8, d, seed=1)[0]
    ours, want = ShrunkDiscriminant(X, y, np.ones(len(y))), by_formula(X, y, shrinkage, Z)
    np.testing.assert_allclose(ours.at(shrinkage)(Z), want, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(ours.logits(Z, shrinkage), want, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("d", [4, 40])
def test_weights_equal_repetition(d: int) -> None:
    X, y = data(9, d)
    weight = np.array([1, 2, 3, 1, 1, 4, 2, 1, 1])
    weighted = ShrunkDiscriminant(X, y, weight.astype(float)).at(0.1)
    again = np.repeat(np.arange(9), weight)
    repeated = ShrunkDiscriminant(X[again], y[again], np.ones(len(again))).at(0.1)
    np.testing.assert_allclose(weighted.coef, repeated.coef, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(weighted.intercept, repeated.intercept, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("d", [4, 30])
def test_agrees_with_scikit_learn_up_to_scale(d: int) -> None:
    """With equal shots, `LinearDiscriminantAnalysis` shrinks to the same metric."""
    X, y = data(18, d)
    Z = data(10, d, seed=1)[0]
    ours = ShrunkDiscriminant(X, y, np.ones(len(y)))
    nu = 0.2
    ratio = nu * d * ours.variance / (ours.scatter.sum() / d)  # gamma / (1 - gamma)
    gamma = ratio / (1 + ratio)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=gamma).fit(X, y)
    scale = ours.mean_shrinkage * (ours.df + nu * d) * (1 - gamma) / len(X)
    ours_logits, lda_logits = ours.at(nu)(Z), lda.decision_function(Z)
    ours_logits -= ours_logits.mean(axis=1, keepdims=True)
    lda_logits -= lda_logits.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(ours_logits, scale * lda_logits, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("weight", [1.0, 3.0, 0.1])
def test_one_shot_is_the_nearest_mean(weight: float) -> None:
    """Without residuals the metric is a multiple of the identity."""
    X, y = data(4, 7, n_classes=4)
    linear = ShrunkDiscriminant(X, y, np.full(4, weight)).at(1.0)
    assert np.isfinite(linear.coef).all()
    Z = data(25, 7, seed=1)[0]
    distance = ((Z[:, None] - X) ** 2).sum(axis=2)
    np.testing.assert_array_equal(linear(Z).argmax(axis=1), distance.argmin(axis=1))


def test_equal_rows_stay_finite() -> None:
    linear = ShrunkDiscriminant(np.ones((4, 3)), np.array([0, 0, 1, 1]), np.ones(4)).at(0.003)
    np.testing.assert_allclose(linear(np.ones((1, 3))), 0, atol=1e-12)
