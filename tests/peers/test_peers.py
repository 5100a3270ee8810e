"""What every peer does: scikit-learn's checks, plain state without torch, honest errors."""

from __future__ import annotations

import pickle
import subprocess
import sys
from inspect import signature

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from skhegraph import peers as B

ALL = [getattr(B, name) for name in B.__all__]
TRAINED = [cls for cls in ALL if "n_epochs" in signature(cls).parameters]
FEW = {"n_epochs": 3}  # the checks fit hundreds of times


@parametrize_with_checks([cls(**FEW if cls in TRAINED else {}) for cls in ALL])
def test_sklearn_checks(estimator, check):
    check(estimator)


def test_peers_take_text_and_its_scale_alone_and_the_same_seed():
    for cls in ALL:
        parameters = signature(cls).parameters
        assert list(parameters)[:2] == ["text_features", "logit_scale"]
        assert not {"model_name", "pretrained", "templates"} & set(parameters)
        if "random_state" in parameters:
            assert parameters["random_state"].default is None


@pytest.mark.parametrize("cls", TRAINED)
def test_training_lowers_the_loss_and_is_deterministic(problem, hand, cls):
    X, y, _, Z = problem
    start, _ = hand.fitted(cls, problem, learning_rate=0.0, n_epochs=1)
    state = np.random.get_state()[1].copy()
    clf, got = hand.fitted(cls, problem, learning_rate=0.01, n_epochs=30, batch_size=5)
    assert np.array_equal(np.random.get_state()[1], state)
    assert hand.mean_loss(clf.decision_function(X), y) < hand.mean_loss(
        start.decision_function(X), y
    )
    assert_allclose(clone(clf).fit(X, y).decision_function(Z), got, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cls", ALL)
def test_text_that_says_nothing_gives_probabilities(problem, hand, cls):
    X, y, text, Z = problem
    few = FEW if cls in TRAINED else {}
    proba = cls(text_features=np.zeros_like(text), **few).fit(X, y).predict_proba(Z)
    assert_allclose(proba.sum(axis=1), 1.0)


def test_training_leaves_torchs_random_state_alone(problem, hand):
    before = torch.random.get_rng_state()
    hand.fitted(B.GraphAdapterClassifier, problem, n_epochs=2)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("cls", ALL)
def test_pickle_keeps_predictions_and_plain_state(problem, hand, cls):
    clf, got = hand.fitted(cls, problem)
    again = pickle.loads(pickle.dumps(clf))
    assert_allclose(again.decision_function(problem[3]), got, rtol=1e-12)
    for name, value in vars(clf).items():
        if name.endswith("_"):
            assert isinstance(value, (np.ndarray, float, int, np.integer)), name


def test_prediction_imports_no_torch(problem, hand, tmp_path):
    path = tmp_path / "models.pickle"
    path.write_bytes(pickle.dumps([hand.fitted(cls, problem)[0] for cls in ALL]))
    code = (
        "import pickle, sys, numpy as np\n"
        f"for clf in pickle.load(open({str(path)!r}, 'rb')):\n"
        "    clf.predict_proba(np.ones((2, 6)))\n"
        "assert not {'torch', 'open_clip'} & set(sys.modules), 'heavy import'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("width", [1, 2, 5])
def test_one_shot_two_classes_tiny_width_and_zero_rows(cls, width):
    X = np.zeros((2, width))
    X[0, 0] = 1.0
    clf = cls().fit(X, ["a", "b"])
    proba = clf.predict_proba(np.vstack([X, -X]))
    assert np.isfinite(proba).all()
    assert_allclose(proba.sum(axis=1), 1.0)
    assert clf.decision_function(X).shape == (2,)


@pytest.mark.parametrize(
    ("cls", "params", "name"),
    [
        (B.TipAdapterClassifier, {"alpha": -1.0}, "alpha"),
        (B.TipAdapterFClassifier, {"n_epochs": 0}, "n_epochs"),
        (B.GDAClassifier, {"alpha": "x"}, "alpha"),
        (B.CLIPAdapterClassifier, {"ratio": 1.5}, "ratio"),
        (B.TaskResClassifier, {"text_norm": 0.0}, "text_norm"),
        (B.LPPlusPlusClassifier, {"max_iter": 1.5}, "max_iter"),
        (B.CLAPClassifier, {"penalty": np.nan}, "penalty"),
        (B.GraphAdapterClassifier, {"beta": 2.0}, "beta"),
        (B.TextStartedLogisticRegression, {"C": 0.0}, "C"),
    ],
)
def test_bad_parameters_are_named(problem, hand, cls, params, name):
    with pytest.raises(ValueError, match=f"The '{name}' parameter"):
        hand.fitted(cls, problem, **params)


@pytest.mark.parametrize("cls", ALL)
def test_docstrings_are_complete(cls):
    for name in signature(cls).parameters:
        assert f"    {name}" in cls.__doc__ or f", {name}" in cls.__doc__, name
