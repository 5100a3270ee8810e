"""Zero-shot CLIP: scikit-learn's law and values by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from skhegraph import ZeroShotCLIPClassifier
from skhegraph.clip.model import load_backbone
from skhegraph.clip.prompts import text_nodes

TINY = "skhegraph-tiny"
TEXT = np.array([[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0]])
Z = np.array([[1.0, 0.0], [0.0, 5.0], [3.0, 4.0], [0.0, 0.0]])
COSINES = np.array([[0.6, 0.0, -1.0], [0.8, 1.0, 0.0], [1.0, 0.8, -0.6], [0.0, 0.0, 0.0]])
Y = np.array(["b", "a", "c"])


@parametrize_with_checks([ZeroShotCLIPClassifier(text_features="prototypes")])
def test_scikit_learn_checks(estimator: BaseEstimator, check: Callable[..., None]) -> None:
    check(estimator)


@pytest.mark.parametrize(("given", "tau"), [(None, 100.0), (7, 7.0)])
def test_logits_are_tau_cosine(given: float | None, tau: float) -> None:
    clf = ZeroShotCLIPClassifier(text_features=(TEXT, -TEXT), logit_scale=given)
    clf.fit(np.ones((3, 2)), Y)
    assert clf.logit_scale_ == tau
    assert clf.classes_.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(clf.decision_function(Z), tau * COSINES, atol=1e-12)
    odds = np.exp(tau * COSINES)
    want = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(clf.predict_proba(Z), want, rtol=1e-10)
    np.testing.assert_allclose(np.exp(clf.predict_log_proba(Z)), want, rtol=1e-10)
    assert clf.predict(Z[:3]).tolist() == ["a", "b", "a"]


def test_images_of_the_support_do_not_count() -> None:
    rng = np.random.default_rng(0)
    base = ZeroShotCLIPClassifier(text_features=(TEXT, TEXT))
    first, second = (clone(base).fit(rng.normal(size=(3, 2)), Y) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(Z), second.predict_proba(Z))


def test_two_classes_decide_by_the_difference() -> None:
    clf = ZeroShotCLIPClassifier(text_features=(TEXT[:2], TEXT[:2]), logit_scale=10.0)
    clf.fit(np.ones((2, 2)), [5, 3])
    np.testing.assert_allclose(clf.decision_function(Z), [-6, 2, -2, 0], atol=1e-12)
    assert clf.predict(Z[:3]).tolist() == [3, 5, 3]


def test_prototypes_are_class_means() -> None:
    X = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 3.0]])
    clf = ZeroShotCLIPClassifier(text_features="prototypes").fit(X, [0, 0, 1])
    half = np.sqrt(0.5)  # rows count by direction, not by length
    np.testing.assert_allclose(clf.coef_ / 100, [[half, half], [0, 1]], atol=1e-12)


def test_rows_of_weight_zero_name_no_class() -> None:
    clf = ZeroShotCLIPClassifier(text_features=TEXT, logit_scale=1.0)
    clf.fit(np.ones((3, 2)), Y, sample_weight=[1, 0, 1])  # text follows all labels: a, b, c
    assert clf.classes_.tolist() == ["b", "c"]
    np.testing.assert_allclose(clf.coef_, [[0, 1], [-1, 0]])


def test_text_is_that_of_the_prompts_in_the_order_of_classes() -> None:
    names = {2: "cat", 0: "großer Hund", 1: "fire truck"}
    clf = ZeroShotCLIPClassifier(TINY, class_names=names, templates="imagenet", device="cpu")
    clf.fit(np.ones((3, 128)), [2, 1, 0])
    backbone = load_backbone(TINY, device="cpu")
    want = text_nodes(backbone, ["großer Hund", "fire truck", "cat"], "imagenet")
    np.testing.assert_allclose(clf.coef_ / clf.logit_scale_, want, atol=1e-6)
    assert clf.logit_scale_ == backbone.logit_scale
    plain = text_nodes(backbone, ["großer Hund", "fire truck", "cat"], "photo")
    assert np.abs(want - plain).max() > 1e-2


def test_names_alone_make_a_classifier() -> None:
    alone = ZeroShotCLIPClassifier(TINY).fit(None, ["frog", "car", "frog"])
    given = ZeroShotCLIPClassifier(TINY).fit(np.ones((2, 128)), ["frog", "car"])
    assert alone.classes_.tolist() == ["car", "frog"]
    assert alone.n_features_in_ == 128
    np.testing.assert_array_equal(alone.coef_, given.coef_)
    arrays = ZeroShotCLIPClassifier(text_features=TEXT).fit(None, [1, 2, 3])
    np.testing.assert_allclose(arrays.decision_function(Z), 100 * COSINES, atol=1e-12)


@pytest.mark.parametrize(
    ("params", "y", "message"),
    [
        ({"text_features": "prototypes"}, ["a", "b"], "X=None.*give X"),
        (
            {"text_features": TEXT},
            ["a", "b"],
            r"shape \(3, 2\); expected \(2, n_features\): one row",
        ),
        ({"text_features": TEXT[:2]}, ["a", "a"], "one class .a.: give two names"),
        ({"text_features": TEXT[:2]}, [0.5, 1.5], "Unknown label type"),
    ],
)
def test_names_that_make_none(params: dict, y: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ZeroShotCLIPClassifier(**params).fit(None, y)


def test_many_names_alone_are_no_regression() -> None:
    """scikit-learn warns that as many classes as samples could be one."""
    names = [f"name {i:02d}" for i in range(40)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = ZeroShotCLIPClassifier(text_features=np.eye(40)).fit(None, names)
    assert clf.classes_.tolist() == names
