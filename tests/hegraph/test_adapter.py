"""HeGraphAdapterClassifier: the described method by hand (what both classifiers share is tested
in test_classifier.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from skhegraph import HeGraphAdapterClassifier
from skhegraph.hegraph.cache import fuse_cache, leave_one_out_cache, zero_shot_logits
from skhegraph.hegraph.graph import build_graph
from skhegraph.hegraph.network import HeteroGraphNetwork, PathWeights
from skhegraph.hegraph.training import own_node_shift
from skhegraph.support import Support, unit_rows

C, D, TAU, NORM = 3, 6, 12.0, 3.0
RNG = np.random.default_rng(0)
Y = np.array([0, 0, 0, 1, 1, 2])  # class 2 has one row
X = unit_rows(2 * np.eye(C, D)[Y] + RNG.normal(size=(len(Y), D)))
PAIR = (unit_rows(np.eye(C, D) + 0.3 * RNG.normal(size=(C, D))), unit_rows(RNG.normal(size=(C, D))))
QUERIES = unit_rows(RNG.normal(size=(9, D)))


def adapter(**params: Any) -> HeGraphAdapterClassifier:
    return HeGraphAdapterClassifier(
        **{
            "text_features": PAIR,
            "logit_scale": TAU,
            "random_state": 0,
            "n_epochs": 4,
            "batch_size": 32,
            "device": "cpu",
            "fusion": "probabilities",
            "node_norm": NORM,
            "top_k": None,
            **params,
        }
    )


def start(paths: PathWeights) -> HeteroGraphNetwork:
    """The untrained network: uniform matrices from the seed, W_n first."""
    W_n, W_p, W_v = np.random.RandomState(0).uniform(-1, 1, (3, D, D)) / np.sqrt(D)
    means = np.stack([X[c == Y].mean(axis=0) for c in range(C)])
    nodes = {"positive": PAIR[0], "negative": PAIR[1], "visual": unit_rows(means)}
    nodes = {kind: NORM * array for kind, array in nodes.items()}
    return HeteroGraphNetwork(build_graph(nodes), paths, (W_n, W_p, W_v), "cpu")


PATHS = PathWeights(0.5, 0.5, 0.06, 0.24, 0.2, 0.5)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sharpness", [1.0, 5.5])
def test_prediction_by_hand(weight: float, sharpness: float) -> None:
    clf = adapter(visual_weight=weight, sharpness=sharpness).fit(X, Y)
    text = TAU * QUERIES @ clf.positive_nodes_.T
    visual = np.zeros((len(QUERIES), C))
    for c in range(C):
        keys = clf.cache_keys_[clf.cache_labels_ == c].astype(float)
        affinity = np.exp(-sharpness * (1 - QUERIES @ keys.T))
        visual[:, c] = TAU * len(X) / C * affinity.mean(axis=1)
    want = (softmax(text, axis=1) + weight * softmax(visual, axis=1)) / (1 + weight)
    np.testing.assert_allclose(clf.predict_proba(QUERIES), want, rtol=1e-5, atol=1e-9)


def test_without_training_the_nodes_are_those_of_one_pass() -> None:
    clf = adapter(n_epochs=0).fit(X, Y)
    P, N, shift = start(PATHS).adapted(0.1)
    np.testing.assert_allclose(clf.positive_nodes_, unit_rows(P), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(clf.negative_nodes_, N, rtol=1e-5, atol=1e-7)
    order = np.argsort(clf.cache_labels_, kind="stable")
    got = {tuple(np.round(key, 4)) for key in clf.cache_keys_[order].tolist()}
    assert got == {tuple(np.round(key, 4)) for key in unit_rows(NORM * X + shift[Y]).tolist()}
    trained = adapter(n_epochs=0, negative_to_positive_predict=0.2).fit(X, Y)
    P = start(PATHS).adapted()[0]
    np.testing.assert_allclose(trained.positive_nodes_, unit_rows(P), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss_weight", [0.0, 0.1, 2.0])
def test_first_loss_is_equation_9_leave_one_out(loss_weight: float) -> None:
    clf = adapter(loss_weight=loss_weight, n_epochs=1, sharpness=1.5).fit(X, Y)
    network = start(PATHS)
    P, _, shift = network.adapted()
    text = TAU * X @ unit_rows(P).T
    keys = unit_rows(NORM * X + shift[Y])
    visual = np.zeros((len(X), C))
    for i, x in enumerate(X):
        for c in range(C):
            others = (c == Y) & (np.arange(len(Y)) != i)
            if others.any():
                affinity = np.exp(-1.5 * (1 - keys[others] @ x))
                visual[i, c] = TAU * len(X) / C * affinity.mean()
    rows = np.arange(len(Y))
    text_loss = -log_softmax(text, axis=1)[rows, Y].mean()
    visual_loss = -log_softmax(visual, axis=1)[rows, Y][:5].sum() / len(Y)  # not the only row
    np.testing.assert_allclose(clf.loss_curve_, [text_loss + loss_weight * visual_loss], rtol=1e-5)


def test_one_shot_per_class_trains_on_the_text_alone() -> None:
    few = np.array([0, 3, 5])
    first = adapter(loss_weight=0.0).fit(X[few], Y[few])
    second = adapter(loss_weight=5.0).fit(X[few], Y[few])
    np.testing.assert_array_equal(first.loss_curve_, second.loss_curve_)


def test_schedule_is_mini_batches_after_a_warm_up_epoch() -> None:
    clf = adapter(n_epochs=5, batch_size=4, learning_rate=0.01).fit(X, Y)
    assert len(clf.loss_curve_) == 5 * 2
    warm = adapter(n_epochs=2, batch_size=6, learning_rate=1.0).fit(X, Y)
    np.testing.assert_allclose(warm.loss_curve_[0], warm.loss_curve_[1], rtol=1e-3)  # at 1e-5


def test_training_lowers_the_loss() -> None:
    curve = adapter(n_epochs=40, batch_size=6).fit(X, Y).loss_curve_
    assert curve[-1] < 0.9 * curve[0]


def test_no_paths_is_zero_shot_and_the_plain_cache() -> None:
    paths = dict.fromkeys(PathWeights._fields, 0.0)
    clf = adapter(**paths, negative_to_positive_predict=None).fit(X, Y)
    np.testing.assert_allclose(clf.positive_nodes_, PAIR[0], atol=1e-6)
    np.testing.assert_allclose(sorted(clf.cache_keys_.tolist()), sorted(X.tolist()), atol=1e-6)
    np.testing.assert_allclose(clf.loss_curve_, clf.loss_curve_[0])


# --- logits that are added ------------------------------------------------------------------------


def added(**params: Any) -> HeGraphAdapterClassifier:
    return adapter(**{"fusion": "logits", "top_k": 2, "batch_size": None, **params})


def test_added_logits_by_hand() -> None:
    clf = added().fit(X, Y)
    text = clf.text_weight_ * TAU * QUERIES @ clf.positive_nodes_.T
    cache = np.zeros((len(QUERIES), C))
    for c in range(C):
        keys = X[c == Y]
        cache[:, c] = len(X) / C * np.exp(-clf.sharpness_ * (1 - QUERIES @ keys.T)).mean(axis=1)
    want = text + clf.visual_weight_ * cache
    got = clf.decision_function(QUERIES)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_it_starts_at_zero_shot_and_training_moves_the_text() -> None:
    start, trained = added(n_epochs=0).fit(X, Y), added(n_epochs=50, learning_rate=0.01).fit(X, Y)
    np.testing.assert_allclose(start.positive_nodes_, unit_rows(PAIR[0]), atol=1e-6)
    assert trained.loss_curve_[-1] < trained.loss_curve_[0]
    assert np.abs(trained.positive_nodes_ - start.positive_nodes_).max() > 1e-3
    held = added(n_epochs=50, learning_rate=0.01, penalty=1e5).fit(X, Y)
    moved, free = (np.abs(c.positive_nodes_ - start.positive_nodes_).max() for c in (held, trained))
    assert moved < 0.3 * free


def test_the_cache_by_loops_does_not_meet_itself() -> None:
    weight = np.array([1.0, 2.0, 1.0, 0.5, 1.0, 1.0])
    support = Support(X, Y, weight, *PAIR, TAU)
    got = leave_one_out_cache(support, 2.0)
    for i in range(len(X)):
        for c in range(C):
            others = [j for j in range(len(X)) if Y[j] == c and j != i]
            votes = sum(weight[j] * np.exp(-2.0 * (1 - X[i] @ X[j])) for j in others)
            mean = votes / sum(weight[j] for j in others) if others else 0.0
            assert got[i, c] == pytest.approx(len(X) / C * mean)


def test_one_shot_takes_text_alone_and_the_median_of_the_cache() -> None:
    few = np.array([0, 3, 5])
    clf = added().fit(X[few], Y[few])
    assert clf.sharpness_ == 3.0 and clf.visual_weight_ > 0
    support = Support(X[few], Y[few], np.ones(3), *PAIR, TAU)
    fusion = fuse_cache(support, TAU * X[few] @ PAIR[0].T)
    assert not fusion.held_out.any()
    assert clf.text_weight_ == pytest.approx(fusion.text)
    assert added(visual_weight=0.7).fit(X[few], Y[few]).visual_weight_ == 0.7


def test_class_means_as_text_do_not_see_their_own_row() -> None:
    means = unit_rows(np.stack([X[c == Y].mean(axis=0) for c in range(C)]))
    support = Support(X, Y, np.ones(len(Y)), means, means, TAU)
    got = zero_shot_logits(support, own_node_shift(support))
    for i in range(5):
        rest = (Y[i] == Y) & (np.arange(len(Y)) != i)
        assert got[i, Y[i]] == pytest.approx(TAU * X[i] @ unit_rows(X[rest].mean(axis=0)))


def test_what_only_probabilities_use_warns() -> None:
    with pytest.warns(UserWarning, match="loss_weight: ignored, since fusion='logits'"):
        added(loss_weight=0.3).fit(X, Y)
