"""Baselines: scikit-learn's checks, independent computations, state without torch."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import logsumexp
from scipy.special import softmax as scipy_softmax
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from skhegraph import peers as B

ALL = [getattr(B, name) for name in B.__all__]
TRAINED = [
    B.CLIPAdapterClassifier,
    B.GraphAdapterClassifier,
    B.TaskResClassifier,
    B.TipAdapterFClassifier,
]
TAU = 20.0


@parametrize_with_checks([cls(text_features="prototypes") for cls in ALL])
def test_sklearn_checks(estimator, check):
    check(estimator)


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


def fitted(cls, problem, **params):
    X, y, text, Z = problem
    clf = cls(text_features=(text, -text), logit_scale=TAU, device="cpu", **params)
    return clf.fit(3.0 * X, y), clf.decision_function(0.5 * Z)


def mean_loss(logits, y):
    return float(np.mean(logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]))


def test_tip_adapter_by_loops(problem):
    X, y, text, Z = problem
    _, got = fitted(B.TipAdapterClassifier, problem, alpha=1.5, beta=3.0)
    expected = TAU * Z @ text.T
    for i, z in enumerate(Z):
        for x, label in zip(X, y, strict=True):
            expected[i, label] += 1.5 * np.exp(-3.0 * (1.0 - z @ x))
    assert_allclose(got, expected, rtol=1e-10)


def test_gda_by_the_authors_formula(problem):
    X, y, text, Z = problem
    _, got = fitted(B.GDAClassifier, problem, alpha=0.3)
    means = np.stack([X[y == c].mean(axis=0) for c in range(4)])
    cov = np.cov((X - means[y]).T)
    S = 6 * np.linalg.pinv((len(X) - 1) * cov + np.trace(cov) * np.eye(6))
    offsets = -np.log(4) - np.array([m @ S @ m for m in means]) / 2
    assert_allclose(got, TAU * Z @ text.T + 0.3 * (Z @ S @ means.T + offsets), rtol=1e-8)


def test_gda_with_one_shot_uses_the_total_scatter(problem):
    X, y, text, Z = problem
    first = np.array([np.flatnonzero(y == c)[0] for c in range(4)])
    one = (X[first], y[first], text, Z)
    _, got = fitted(B.GDAClassifier, one, alpha=0.3)
    cov = np.cov(X[first].T)
    S = 6 * np.linalg.inv(3 * cov + np.trace(cov) * np.eye(6))
    offsets = -np.log(4) - np.einsum("cd,de,ce->c", X[first], S, X[first]) / 2
    assert_allclose(got, TAU * Z @ text.T + 0.3 * (Z @ S @ X[first].T + offsets), rtol=1e-8)


def text_lr_loss(W, problem, C):
    X, y, text, _ = problem
    return C * len(y) * mean_loss(X @ W.T, y) + 0.5 * np.sum((W - TAU * text) ** 2)


def clap_loss(W, problem, penalty):
    X, y, text, _ = problem
    proba = scipy_softmax(TAU * X @ text.T, axis=1)
    a = np.array([proba[y == c, c].mean() for c in range(4)])
    return mean_loss(TAU * X @ unit(W).T, y) + penalty * np.mean(a * ((W - text) ** 2).sum(axis=1))


def numeric_gradient(function, W, eps=1e-5):
    gradient = np.zeros_like(W)
    for index in np.ndindex(*W.shape):
        step = np.zeros_like(W)
        step[index] = eps
        gradient[index] = (function(W + step) - function(W - step)) / (2 * eps)
    return gradient


def test_text_started_regression_is_at_the_minimum(problem):
    clf, _ = fitted(B.TextStartedLogisticRegression, problem, C=5.0, tol=1e-9)
    gradient = numeric_gradient(lambda W: text_lr_loss(W, problem, 5.0), clf.coef_)
    assert_allclose(gradient, 0.0, atol=1e-5)


def test_text_started_regression_stays_at_the_text_for_small_c(problem):
    _, _, text, Z = problem
    _, got = fitted(B.TextStartedLogisticRegression, problem, C=1e-9)
    assert_allclose(got, TAU * Z @ text.T, atol=1e-5)


def test_text_started_regression_matches_sklearn_without_text(problem):
    from sklearn.linear_model import LogisticRegression

    X, y, _, Z = problem
    clf = B.TextStartedLogisticRegression(
        text_features=(np.zeros((4, 6)), np.zeros((4, 6))), logit_scale=TAU, C=2.0, tol=1e-9
    ).fit(X, y)
    reference = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-9, max_iter=1000).fit(X, y)
    assert_allclose(clf.predict_proba(Z), reference.predict_proba(Z), atol=1e-5)


def test_clap_is_at_the_minimum(problem):
    clf, _ = fitted(B.CLAPClassifier, problem, penalty=3.0, tol=1e-9)
    _, _, text, _ = problem
    # coef_ keeps the direction only; the length follows from the minimum along each row.
    from scipy.optimize import minimize

    W = minimize(
        lambda w: clap_loss(w.reshape(4, 6), problem, 3.0), text.ravel(), tol=1e-12
    ).x.reshape(4, 6)
    assert_allclose(clf.coef_, TAU * unit(W), atol=1e-3)
    assert_allclose(numeric_gradient(lambda V: clap_loss(V, problem, 3.0), W), 0.0, atol=1e-4)


def test_clap_with_a_huge_penalty_is_zero_shot(problem):
    _, _, text, Z = problem
    _, got = fitted(B.CLAPClassifier, problem, penalty=1e6)
    assert_allclose(got, TAU * Z @ text.T, atol=1e-4)


@pytest.mark.parametrize("max_iter", [1, 10, 23])
def test_lp_plus_plus_by_its_steps(problem, max_iter):
    X, y, text, Z = problem
    clf, got = fitted(B.LPPlusPlusClassifier, problem, max_iter=max_iter)
    onehot, n = np.eye(4)[y], len(y)
    own = [np.mean(X[y == c] @ text[c]) for c in range(4)]
    alpha, w, v = np.full(4, 2.5 * TAU * np.mean(own)), onehot.T @ X, 0.0
    for step in range(1, max_iter + 1):
        residual = (scipy_softmax(X @ w.T + alpha * (X @ text.T), axis=1) - onehot) / n
        slope = (residual * (X @ text.T)).sum(axis=0)
        v = 0.9 * v + residual.T @ X
        w = w - 4 * n / np.linalg.eigvalsh(X.T @ X)[-1] * v
        if step % 10 == 0:
            alpha = alpha - n / (4 * ((X @ text.T) ** 2).sum(axis=0).max()) * slope
    assert_allclose(got, Z @ w.T + alpha * (Z @ text.T), rtol=1e-7)
    assert_allclose(clf.multipliers_, alpha)


def test_lp_plus_plus_lowers_the_loss(problem):
    X, y, _, _ = problem
    short, _ = fitted(B.LPPlusPlusClassifier, problem, max_iter=1)
    long, _ = fitted(B.LPPlusPlusClassifier, problem, max_iter=300)
    assert mean_loss(long.decision_function(X), y) < mean_loss(short.decision_function(X), y)


@pytest.mark.parametrize("cls", TRAINED)
def test_a_rate_of_zero_leaves_the_start(problem, cls):
    X, y, text, Z = problem
    clf, got = fitted(cls, problem, learning_rate=0.0, n_epochs=1)
    if cls is B.TipAdapterFClassifier:
        _, expected = fitted(B.TipAdapterClassifier, problem)
    elif cls is B.TaskResClassifier:
        expected = TAU * Z @ text.T
    elif cls is B.CLIPAdapterClassifier:
        hidden = np.maximum(Z @ clf.down_.T, 0)
        mixed = 0.2 * np.maximum(hidden @ clf.up_.T, 0) + 0.8 * Z
        expected = TAU * unit(mixed) @ text.T
    else:
        expected = TAU * Z @ unit(graph_adapter_start(X, y, text)).T
    assert_allclose(got, expected, atol=2e-5)


def graph_adapter_start(X, y, text):
    """The refined text before training, with the star graphs written out as matrices."""
    bound = 1 / np.sqrt(6)
    rng = np.random.RandomState(0)
    weights = [rng.uniform(-bound, bound, (6, 6)) for _ in range(2)]
    means = np.stack([X[y == c].mean(axis=0) for c in range(4)])
    outs = []
    for leaves, W in zip((text, means), weights, strict=True):
        rows = []
        for t in text:
            nodes = np.vstack([t, leaves])
            A = np.maximum(unit(nodes) @ unit(nodes).T, 0) + np.eye(5)
            scale = A.sum(axis=1) ** -0.5
            rows.append(np.tanh((scale[:, None] * A * scale @ (10 * nodes) @ W)[0]))
        outs.append(np.stack(rows))
    return 0.7 * 10 * text + 0.3 * (0.7 * outs[0] + 0.3 * outs[1])


def test_first_step_of_taskres_follows_the_gradient_sign(problem):
    """Adam's first step is the learning rate times the sign of the gradient."""
    _, _, text, _ = problem
    X, y = problem[:2]
    clf, _ = fitted(B.TaskResClassifier, problem, alpha=1.0, learning_rate=0.01, n_epochs=1)
    gradient = numeric_gradient(lambda R: mean_loss(TAU * X @ unit(10 * text + R).T, y), 0 * text)
    clear = np.abs(gradient) > 1e-4
    assert clear.mean() > 0.5
    R = np.where(clear, -0.01 * np.sign(gradient), 0.0)
    assert_allclose(clf.coef_, TAU * unit(10 * text + R), atol=TAU * 2.5e-3)
    moved = clf.coef_ - TAU * text
    expected = TAU * (unit(10 * text + R) - text)
    assert np.corrcoef(moved[clear], expected[clear])[0, 1] > 0.99


def test_first_step_of_tip_adapter_f(problem):
    """AdamW: decay by rate times 0.01, then rate times g / (|g| + 1e-4)."""
    X, y, text, _ = problem
    clf, _ = fitted(B.TipAdapterFClassifier, problem, learning_rate=0.01, n_epochs=1)

    def loss(keys):
        cache = 1.17 * np.exp(X @ keys.T - 1.0) @ np.eye(4)[y]
        return mean_loss(TAU * X @ text.T + cache, y)

    g = numeric_gradient(loss, X)
    assert_allclose(clf.keys_, X * (1 - 1e-4) - 0.01 * g / (np.abs(g) + 1e-4), atol=1e-5)


@pytest.mark.parametrize("cls", TRAINED)
def test_training_lowers_the_loss_and_is_deterministic(problem, cls):
    X, y, _, Z = problem
    start, _ = fitted(cls, problem, learning_rate=0.0, n_epochs=1)
    state = np.random.get_state()[1].copy()
    clf, got = fitted(cls, problem, learning_rate=0.01, n_epochs=30, batch_size=5)
    assert np.array_equal(np.random.get_state()[1], state)
    assert mean_loss(clf.decision_function(X), y) < mean_loss(start.decision_function(X), y)
    assert_allclose(clone(clf).fit(X, y).decision_function(Z), got, rtol=1e-6, atol=1e-6)


def test_training_leaves_torchs_random_state_alone(problem):
    import torch

    before = torch.random.get_rng_state()
    fitted(B.GraphAdapterClassifier, problem, n_epochs=2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_schedule_warms_up_and_decays():
    from skhegraph.peers._training import Schedule

    schedule = Schedule(0.1, 4, 8, 0, "cpu", warmup=True)
    rates = [schedule.rate(step, 2) for step in range(8)]
    assert rates[:2] == [1e-5, 1e-5]
    assert_allclose(rates[4], 0.05)
    assert 0 < rates[-1] < 0.01


@pytest.mark.parametrize("cls", ALL)
def test_pickle_keeps_predictions_and_plain_state(problem, cls):
    clf, got = fitted(cls, problem)
    again = pickle.loads(pickle.dumps(clf))
    assert_allclose(again.decision_function(problem[3]), got, rtol=1e-12)
    for name, value in vars(clf).items():
        if name.endswith("_"):
            assert isinstance(value, (np.ndarray, float, int, np.integer)), name


def test_prediction_imports_no_torch(problem, tmp_path):
    path = tmp_path / "models.pickle"
    path.write_bytes(pickle.dumps([fitted(cls, problem)[0] for cls in ALL]))
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
    clf = cls(text_features="prototypes", device="cpu").fit(X, ["a", "b"])
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
def test_bad_parameters_are_named(problem, cls, params, name):
    with pytest.raises(ValueError, match=f"^{name}="):
        fitted(cls, problem, **params)


@pytest.mark.parametrize("cls", ALL)
def test_docstrings_are_complete(cls):
    from inspect import signature

    assert "{" not in cls.__doc__.split("Examples")[0].replace('{"clip", "prototypes"}', "")
    for name in signature(cls).parameters:
        assert f"    {name}" in cls.__doc__ or f", {name}" in cls.__doc__, name
