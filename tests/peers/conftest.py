"""A small problem that every peer is tested on, and what the tests compute by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import logsumexp

TAU = 20.0


def unit(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.fixture
def problem():
    """Four classes with unequal shots and unit text nodes."""
    rng = np.random.RandomState(7)
    y = np.repeat([0, 1, 2, 3], [3, 5, 1, 4])
    centres = rng.normal(size=(4, 6))
    X = unit(centres[y] + 0.7 * rng.normal(size=(len(y), 6)))
    text = unit(centres + 0.8 * rng.normal(size=(4, 6)))
    Z = unit(rng.normal(size=(9, 6)))
    return X, y, text, Z


@pytest.fixture
def hand():
    """Helpers: fit a peer on a problem, mean log-loss, numeric gradient, unit rows."""

    def fitted(cls, problem, **params):
        X, y, text, Z = problem
        clf = cls(text_features=text, logit_scale=TAU, **params)
        if "random_state" in clf.get_params():
            clf.set_params(random_state=0, device="cpu")
        return clf.fit(3.0 * X, y), clf.decision_function(0.5 * Z)

    def mean_loss(logits, y):
        return float(np.mean(logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]))

    def numeric_gradient(function, W, eps=1e-5):
        gradient = np.zeros_like(W)
        for index in np.ndindex(*W.shape):
            step = np.zeros_like(W)
            step[index] = eps
            gradient[index] = (function(W + step) - function(W - step)) / (2 * eps)
        return gradient

    return SimpleNamespace(
        fitted=fitted, mean_loss=mean_loss, numeric_gradient=numeric_gradient, unit=unit, TAU=TAU
    )
