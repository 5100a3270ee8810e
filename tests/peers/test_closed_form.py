"""GDA, SS-Text and ProKeR by their formulas."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from skhegraph.peers import (
    GDAClassifier,
    ProKeRClassifier,
    SSTextClassifier,
)
from skhegraph.peers.closed_form import shrunk_discriminant
from skhegraph.support import Support


def test_gda_by_the_authors_formula(problem, hand):
    X, y, text, Z = problem
    _, got = hand.fitted(GDAClassifier, problem, alpha=0.3)
    means = np.stack([X[y == c].mean(axis=0) for c in range(4)])
    cov = np.cov((X - means[y]).T)
    S = 6 * np.linalg.pinv((len(X) - 1) * cov + np.trace(cov) * np.eye(6))
    offsets = -np.log(4) - np.array([m @ S @ m for m in means]) / 2
    assert_allclose(got, hand.TAU * Z @ text.T + 0.3 * (Z @ S @ means.T + offsets), rtol=1e-8)


def test_gda_with_one_shot_uses_the_total_scatter(problem, hand):
    X, y, text, Z = problem
    first = np.array([np.flatnonzero(y == c)[0] for c in range(4)])
    one = (X[first], y[first], text, Z)
    _, got = hand.fitted(GDAClassifier, one, alpha=0.3)
    cov = np.cov(X[first].T)
    S = 6 * np.linalg.inv(3 * cov + np.trace(cov) * np.eye(6))
    offsets = -np.log(4) - np.einsum("cd,de,ce->c", X[first], S, X[first]) / 2
    assert_allclose(got, hand.TAU * Z @ text.T + 0.3 * (Z @ S @ X[first].T + offsets), rtol=1e-8)


def test_ss_text_is_one_step_from_the_text(problem, hand):
    X, y, text, Z = problem
    _, got = hand.fitted(SSTextClassifier, problem)
    W = text.copy()
    for x, label in zip(X, y, strict=True):
        W[label] += hand.TAU / len(X) * np.sum(y == label) * x
    assert_allclose(got, hand.TAU * Z @ hand.unit(W).T, rtol=1e-10)


def test_proker_solves_the_kernel_system(problem, hand):
    X, y, text, Z = problem
    clf, got = hand.fitted(ProKeRClassifier, problem, beta=1.5, ridge=0.3)
    K = np.exp(-1.5 * (1 - X @ X.T))
    A = np.linalg.solve(K + 0.3 * np.eye(len(X)), np.eye(4)[y] - X @ text.T)
    want = Z @ text.T + np.exp(-1.5 * (1 - Z @ X.T)) @ A
    assert_allclose(got, clf.temperature_ * want, rtol=1e-8)
    assert 1 <= clf.temperature_ <= hand.TAU


def test_proker_chooses_ridge_and_temperature_by_leave_one_out(problem, hand):
    X, y, text, _ = problem
    clf, _ = hand.fitted(ProKeRClassifier, problem)
    best = np.inf
    for ridge in ProKeRClassifier.RIDGES:
        scores = np.empty((len(X), 4))
        for i in range(len(X)):
            rest = np.arange(len(X)) != i
            K = np.exp(-2 * (1 - X[rest] @ X[rest].T)) + ridge * np.eye(len(X) - 1)
            A = np.linalg.solve(K, np.eye(4)[y[rest]] - X[rest] @ text.T)
            scores[i] = X[i] @ text.T + np.exp(-2 * (1 - X[i] @ X[rest].T)) @ A
        for temperature in np.geomspace(1, hand.TAU, 9):
            loss = hand.mean_loss(temperature * scores, y)
            if loss < best:
                best, want = loss, (ridge, temperature)
    assert_allclose((clf.ridge_, clf.temperature_), want, rtol=1e-10)


def test_shrunk_discriminant_agrees_with_scikit_learn_up_to_scale(hand):
    rng = np.random.RandomState(0)
    y = np.repeat([0, 1, 2], 6)
    X = hand.unit(rng.normal(size=(18, 4)) + 2 * rng.normal(size=(3, 4))[y])
    A, c = shrunk_discriminant(Support(X, y, np.ones(18), X[:3], X[:3], 1.0))
    R = X - np.stack([X[y == k].mean(axis=0) for k in range(3)])[y]
    variance = np.trace(np.cov(X.T))  # D t
    ratio = variance / (np.square(R).sum() / 4)  # gamma / (1 - gamma)
    gamma = ratio / (1 + ratio)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=gamma).fit(X, y)
    scale = 0.3 / 1.3 * (15 + 4) * (1 - gamma) / 18  # s of six shots
    Z = hand.unit(rng.normal(size=(9, 4)))
    ours, theirs = Z @ A.T + c, lda.decision_function(Z)
    ours -= ours.mean(axis=1, keepdims=True)
    theirs -= theirs.mean(axis=1, keepdims=True)
    assert_allclose(ours, scale * theirs, rtol=1e-7, atol=1e-9)
