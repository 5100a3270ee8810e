"""Folds, leave-one-out text and held-out visual logits: nothing a row knows of itself leaks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from skhegraph import HeGraphClassifier
from skhegraph.hegraph import fitting
from skhegraph.base import Support, prototype_text, unit_rows
from skhegraph.hegraph.visual import ShrunkDiscriminant
from skhegraph.hegraph.fitting import (
    fit_fused,
    fit_joint,
    fold_of_rows,
    held_out_cache,
    held_out_discriminant,
    own_node_shift,
    some_rows,
    support_text_logits,
)
from skhegraph.hegraph.fusion import information_gain

Y = np.array([0, 1, 2, 0, 1, 3, 0, 1, 0, 2])  # shots 4, 3, 2, 1
WEIGHT = np.array([1.0, 2.0, 1.0, 3.0, 1.0, 2.0, 1.0, 1.0, 2.0, 5.0])
D = 7


def make_support(y: np.ndarray = Y, seed: int = 0, d: int = D) -> Support:
    """Random features with the class means as text."""
    rng = np.random.default_rng(seed)
    X = unit_rows(rng.normal(size=(len(y), d)))
    weight = WEIGHT if y is Y else np.ones(len(y))
    P, N = prototype_text(X, y, weight)
    return Support(X, y, weight, unit_rows(P), unit_rows(N), 10.0)


# --- folds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_folds", [2, 3, 5, 10])
@pytest.mark.parametrize("seed", range(3))
def test_folds_are_stratified(n_folds: int, seed: int) -> None:
    y = np.repeat([0, 1, 2, 3, 4], [1, 2, 4, 7, 1])
    folds = fold_of_rows(y, n_folds, np.random.RandomState(seed))
    np.testing.assert_array_equal(folds == -1, np.isin(y, [0, 4]))  # the only row of a class
    assert set(folds) == set(range(-1, folds.max() + 1))  # no gaps
    assert folds.max() + 1 <= n_folds
    for c, shots in ((1, 2), (2, 4), (3, 7)):
        # As even as can be, so a fold never takes a whole class.
        assert np.bincount(folds[y == c]).max() == -(-shots // n_folds) < shots


def test_all_folds_are_used_where_there_are_rows() -> None:
    assert fold_of_rows(Y, 3, np.random.RandomState(0)).max() + 1 == 3
    one_class_of_many = fold_of_rows(np.array([0, 0, 0, 0, 1]), 10, np.random.RandomState(0))
    assert sorted(one_class_of_many) == [-1, 0, 1, 2, 3]
    one_shot = fold_of_rows(np.arange(4), 5, np.random.RandomState(0))
    assert (one_shot == -1).all()


def test_folds_are_shuffled_by_the_generator_alone() -> None:
    y = np.repeat([0, 1], 8)
    first, again, other = (fold_of_rows(y, 4, np.random.RandomState(s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_some_rows_bounds_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert some_rows(20, 10).tolist() == list(range(20))
    monkeypatch.setattr(fitting, "LOGITS_FOR_TRUST", 70)
    assert some_rows(20, 10).tolist() == [0, 3, 6, 9, 12, 15, 18]


# --- text -----------------------------------------------------------------------------------------


def class_mean_without(support: Support, i: int) -> np.ndarray:
    rows = [k for k in range(len(support.y)) if k != i and support.y[k] == support.y[i]]
    return np.average(support.X[rows], axis=0, weights=support.sample_weight[rows])


def test_own_node_shift_by_brute_force() -> None:
    support = make_support()
    shift = own_node_shift(support, "prototypes")
    assert shift is not None
    for i, c in enumerate(Y):
        if c == 3:  # the only row of its class
            np.testing.assert_array_equal(shift[i], 0)
            continue
        moved = support.positive[c] + shift[i]
        want = class_mean_without(support, i)
        np.testing.assert_allclose(unit_rows(moved), unit_rows(want), atol=1e-12)
        # In length as in direction: in units of the full class mean.
        length = np.linalg.norm(np.average(support.X[c == Y], axis=0, weights=WEIGHT[c == Y]))
        np.testing.assert_allclose(moved * length, want, atol=1e-12)


@pytest.mark.parametrize("source", ["clip", (np.eye(4, D), np.eye(4, D))])
def test_text_that_does_not_depend_on_the_support_needs_no_shift(source: object) -> None:
    assert own_node_shift(make_support(), source) is None


def test_support_text_logits_by_brute_force() -> None:
    support = make_support()
    got = support_text_logits(support, own_node_shift(support, "prototypes"), rows_of(support))
    for i, x in enumerate(support.X):
        for c in range(4):
            node = support.positive[c]
            if c == Y[i] and c != 3:
                node = unit_rows(class_mean_without(support, i))
            np.testing.assert_allclose(got[i, c], 10 * x @ node, atol=1e-12)
    plain = support_text_logits(support, None, rows_of(support))
    np.testing.assert_allclose(plain, 10 * support.X @ support.positive.T, atol=1e-12)


def test_class_means_as_text_tell_nothing_about_noise() -> None:
    """With its own share in the class mean every row of pure noise looks well described."""
    support = make_support(np.repeat(np.arange(5), 4), d=200)
    weight = support.sample_weight
    leaky = support_text_logits(support, None, rows_of(support))
    honest = support_text_logits(support, own_node_shift(support, "prototypes"), rows_of(support))
    assert information_gain(leaky, 1.0, support.y, weight) > 0.5
    assert information_gain(honest, 1.0, support.y, weight) < 0.05


# --- held-out visual logits -----------------------------------------------------------------------

FOLDS = np.array([0, 0, 0, 1, 1, -1, 2, 2, 0, 1])


def rows_of(support: Support) -> np.ndarray:
    return np.arange(len(support.y))


def held_out(support: Support, folds: np.ndarray = FOLDS) -> fitting.Visual:
    text = np.zeros((len(support.y), len(support.positive)))
    return held_out_discriminant(support, folds, text, rows_of(support), 1.0, 1.0)


def test_held_out_logits_come_from_the_other_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "SHRINKAGES", (0.3,))
    support = make_support()
    visual = held_out(support)
    for i, fold in enumerate(FOLDS):
        if fold < 0:
            np.testing.assert_array_equal(visual.held_out[i], 0)
            continue
        rest = fold != FOLDS
        part = ShrunkDiscriminant(support.X[rest], support.y[rest], support.sample_weight[rest]).at(
            0.3
        )
        np.testing.assert_allclose(visual.held_out[i], part(support.X[i : i + 1])[0], atol=1e-9)
    full = ShrunkDiscriminant(support.X, support.y, support.sample_weight).at(0.3)
    assert visual.classifier is not None
    np.testing.assert_allclose(visual.classifier.coef, full.coef, atol=1e-9)
    assert visual.shrinkage == 0.3


def test_a_fold_does_not_see_its_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "SHRINKAGES", (0.3,))
    support = make_support()
    before = held_out(support).held_out
    X = support.X.copy()
    X[8] = -X[8]  # of fold 0 and class 0
    after = held_out(replace(support, X=X)).held_out
    same_fold = [0, 1, 2]
    np.testing.assert_allclose(after[same_fold], before[same_fold], atol=1e-12)
    assert np.abs(after[3] - before[3]).max() > 1e-3  # other folds do see it
    y = Y.copy()
    y[8] = 1
    relabelled = held_out(replace(support, X=support.X, y=y)).held_out
    np.testing.assert_allclose(relabelled[same_fold], before[same_fold], atol=1e-12)
    np.testing.assert_allclose(relabelled[8], before[8], atol=1e-12)  # not even its own label


def test_chosen_shrinkage_has_the_lowest_penalised_loss() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 8)
    noisy_axes = rng.normal(size=(len(y), 10)) * [6, 5, 4, 3, 1, 1, 1, 1, 1, 1]
    X = unit_rows(noisy_axes + rng.normal(size=(4, 10))[y])
    support = replace(make_support(y, d=10), X=X)
    folds = fold_of_rows(y, 4, np.random.RandomState(0))
    chosen = held_out(support, folds)
    losses = {}
    for nu in fitting.SHRINKAGES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fitting, "SHRINKAGES", (nu,))
            loss = held_out(support, folds).trust.loss
        losses[nu] = loss + fitting.SHRINKAGE_PRIOR * np.log(nu) ** 2
    assert chosen.shrinkage == min(losses, key=lambda nu: losses[nu])
    assert chosen.shrinkage < 1.0  # the covariance of this data is worth knowing


def test_one_shot_takes_the_prior() -> None:
    support = make_support(np.arange(4))
    visual = held_out_discriminant(
        support, np.full(4, -1), np.zeros((4, 4)), rows_of(support), 0.7, 0.5
    )
    assert (visual.shrinkage, visual.trust.text) == (1.0, 0.7)
    np.testing.assert_array_equal(visual.held_out, 0)
    assert visual.classifier is not None
    logits = visual.classifier(support.X)
    wrong = np.array([[logits[i, c] for c in range(4) if c != i] for i in range(4)])
    spread = (wrong - wrong.mean(axis=1, keepdims=True)).std()
    np.testing.assert_allclose(visual.trust.visual, 0.5 / spread, rtol=1e-9)


def test_cache_logits_are_leave_one_out() -> None:
    support = make_support()
    got = held_out_cache(support, np.zeros((10, 4)), rows_of(support), 1.0, 1.0, 2.0).held_out
    for i, x in enumerate(support.X):
        if Y[i] == 3:
            np.testing.assert_array_equal(got[i], 0)  # nothing to hold out against
            continue
        for c in range(4):
            rows = [k for k in range(10) if k != i and Y[k] == c]
            affinity = [np.exp(-2 * (1 - x @ support.X[k])) for k in rows]
            want = 10 / 4 * np.average(affinity, weights=WEIGHT[rows])
            np.testing.assert_allclose(got[i, c], want, atol=1e-12)


@pytest.mark.parametrize("classifier", ["discriminant", "cache"])
def test_noise_is_not_trusted(classifier: str) -> None:
    """On features that carry no label the fitted visual branch stays below its prior weight."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 8)
    X = rng.normal(size=(32, 100))
    text = rng.normal(size=(2, 4, 100))
    model = HeGraphClassifier(
        text_features=tuple(text), visual_classifier=classifier, max_iter=0, random_state=0
    ).fit(X, y)
    proba = model.branch_proba(rng.normal(size=(200, 100)))
    assert proba.fused.max(axis=1).mean() < 0.5  # a leak would make it sure of itself


# --- both fits ------------------------------------------------------------------------------------


def spy(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Record what the network is trained on, without training it."""
    seen: dict[str, object] = {}

    def train(model: object, support: object, *args: object) -> str:
        seen.update(zip(("rng", "folds", "own_shift", "offset", "make_loss"), args, strict=True))
        return "trained"

    monkeypatch.setattr(fitting, "_train", train)
    return seen


def test_fused_fit_trains_on_the_held_out_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy(monkeypatch)
    support = make_support()
    model = HeGraphClassifier(text_features="prototypes", n_folds=3)
    fit = fit_fused(model, support, np.random.RandomState(0))
    folds = fold_of_rows(Y, 3, np.random.RandomState(0))
    np.testing.assert_array_equal(seen["folds"], folds)
    shift = own_node_shift(support, "prototypes")
    np.testing.assert_array_equal(seen["own_shift"], shift)
    text = support_text_logits(support, shift, rows_of(support))
    alone = fitting.fit_trust(text, None, Y, WEIGHT)
    information = information_gain(text, alone.text, Y, WEIGHT)
    shots = WEIGHT.sum() / 4
    prior = shots**fitting.SHOTS_POWER / (1 + fitting.TEXT_FIRST * information)
    visual = held_out_discriminant(support, folds, text, rows_of(support), alone.text, prior)
    assert (fit.text_weight, fit.visual_weight) == visual.trust[:2]
    assert fit.shrinkage == visual.shrinkage
    np.testing.assert_allclose(seen["offset"], fit.visual_weight * visual.held_out, rtol=1e-6)


def test_given_weights_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy(monkeypatch)
    model = HeGraphClassifier(
        text_features="prototypes", text_weight=0.25, visual_weight=0.0, visual_classifier="cache"
    )
    fit = fit_fused(model, make_support(), np.random.RandomState(0))
    assert (fit.text_weight, fit.visual_weight, fit.discriminant) == (0.25, 0.0, None)
    np.testing.assert_array_equal(seen["offset"], 0)


@pytest.mark.parametrize(("given", "w"), [(None, 1.0), (0.25, 0.25)])
def test_joint_fit_has_no_held_out_logits(
    monkeypatch: pytest.MonkeyPatch, given: float | None, w: float
) -> None:
    seen = spy(monkeypatch)
    model = HeGraphClassifier(text_features="prototypes", visual_weight=given)
    fit = fit_joint(model, make_support(), np.random.RandomState(0))
    assert (fit.text_weight, fit.visual_weight) == (1.0, w)
    assert seen["offset"] is None
    assert seen["own_shift"] is not None


def test_trust_region_penalty_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy(monkeypatch)
    support = make_support()
    model = HeGraphClassifier(text_features=(support.positive, support.negative), trust_region=0.6)
    fit = fit_fused(model, support, np.random.RandomState(0))
    text = support_text_logits(support, None, rows_of(support))
    alone = fitting.fit_trust(text, None, Y, WEIGHT)
    information = information_gain(text, alone.text, Y, WEIGHT)
    assert information > 0.1
    network = type("Network", (), {"nodes": {"positive": support.positive}})
    loss = seen["make_loss"](None, network)  # type: ignore[operator]
    np.testing.assert_allclose(loss.penalty, 0.6 * information / (WEIGHT.sum() / 4), rtol=1e-9)
    np.testing.assert_allclose(loss.text_scale, fit.text_weight * 10.0)


def test_start_matrices_follow_init_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    support, seen = make_support(), {}
    monkeypatch.setattr(
        "skhegraph.hegraph.training.train_graph",
        lambda support, folds, initial, *rest: seen.setdefault("initial", initial),
    )
    model = HeGraphClassifier(text_features="prototypes", init_scale=2.0)
    fit_joint(model, support, np.random.RandomState(0))
    matrices = np.stack(seen["initial"])
    assert matrices.shape == (3, D, D)
    bound = 2.0 / np.sqrt(D)
    assert 0.9 * bound < matrices.max() <= bound
    assert -bound <= matrices.min() < -0.9 * bound
    assert len(np.unique(matrices)) == 3 * D * D
