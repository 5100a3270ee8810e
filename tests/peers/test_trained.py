"""CLIP-Adapter and TaskRes: their starts and first steps."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose

from skhegraph.peers import (
    CLIPAdapterClassifier,
    TaskResClassifier,
)


def test_first_step_of_taskres_follows_the_gradient_sign(problem, hand):
    """Adam's first step is the learning rate times the sign of the gradient."""
    _, _, text, _ = problem
    X, y = problem[:2]
    clf, _ = hand.fitted(TaskResClassifier, problem, alpha=1.0, learning_rate=0.01, n_epochs=1)
    gradient = hand.numeric_gradient(
        lambda R: hand.mean_loss(hand.TAU * X @ hand.unit(10 * text + R).T, y), 0 * text
    )
    clear = np.abs(gradient) > 1e-4
    assert clear.mean() > 0.5
    R = np.where(clear, -0.01 * np.sign(gradient), 0.0)
    assert_allclose(clf.coef_, hand.TAU * hand.unit(10 * text + R), atol=hand.TAU * 2.5e-3)
    moved = clf.coef_ - hand.TAU * text
    expected = hand.TAU * (hand.unit(10 * text + R) - text)
    assert np.corrcoef(moved[clear], expected[clear])[0, 1] > 0.99


def test_taskres_at_rate_zero_is_zero_shot(problem, hand):
    _, _, text, Z = problem
    _, got = hand.fitted(TaskResClassifier, problem, learning_rate=0.0, n_epochs=1)
    assert_allclose(got, hand.TAU * Z @ text.T, atol=2e-5)


def test_clip_adapter_at_rate_zero_is_its_random_bottleneck(problem, hand):
    _, _, text, Z = problem
    clf, got = hand.fitted(CLIPAdapterClassifier, problem, learning_rate=0.0, n_epochs=1)
    hidden = np.maximum(Z @ clf.down_.T, 0)
    mixed = 0.2 * np.maximum(hidden @ clf.up_.T, 0) + 0.8 * Z
    assert_allclose(got, hand.TAU * hand.unit(mixed) @ text.T, atol=2e-5)
    clf.set_params(ratio=0.9)  # waits for the next fit
    assert_allclose(clf.decision_function(0.5 * Z), got)
