"""On an accelerator, where there is one: the CPU's answers, and models that load without it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images

from skhegraph import CLIPFeatures, HeGraphAdapterClassifier, HeGraphClassifier
from skhegraph.peers import CLIPAdapterClassifier, TaskResClassifier


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    text = rng.normal(size=(5, 32))
    y = np.repeat(np.arange(5), 8)
    X = text[y] + 1.5 * rng.normal(size=(len(y), 32))
    return X.astype(np.float32), y, text


@pytest.mark.parametrize("model_name", ["skhegraph-tiny", "skhegraph-lite"])
def test_features_in_half_precision_are_those_of_the_cpu(accelerator, model_name):
    china, flower = load_sample_images().images
    images = [china, flower, china[:200, :300], flower[100:, 200:]]
    there = CLIPFeatures(model_name, device=accelerator).transform(images)
    here = CLIPFeatures(model_name, device="cpu").transform(images)
    assert there.dtype == np.float32
    assert np.einsum("ij,ij->i", there, here).min() > 0.999


@pytest.mark.parametrize(
    "estimator",
    [
        HeGraphAdapterClassifier(n_epochs=5),
        CLIPAdapterClassifier(n_epochs=5),
        TaskResClassifier(n_epochs=5),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_fits_are_those_of_the_cpu(accelerator, problem, estimator):
    X, y, text = problem
    estimator.set_params(text_features=text, logit_scale=20.0, random_state=0)
    on_cpu = estimator.set_params(device="cpu").fit(X, y).predict_proba(X)
    estimator.set_params(device=accelerator).fit(X, y)
    np.testing.assert_allclose(estimator.predict_proba(X), on_cpu, atol=0.01)


def test_a_model_fitted_there_loads_where_it_is_not(accelerator, problem, monkeypatch):
    X, y, text = problem
    clf = HeGraphClassifier(text_features=text, device=accelerator)
    saved, expected = pickle.dumps(clf.fit(X, y)), clf.predict_proba(X)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    np.testing.assert_array_equal(pickle.loads(saved).predict_proba(X), expected)
