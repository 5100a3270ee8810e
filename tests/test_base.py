"""Building blocks by hand, one clear error for each bad input, sound output for any good one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.exceptions import NotFittedError

from skhegraph import PAPER_SETTINGS, HeGraphClassifier, ZeroShotCLIPClassifier
from skhegraph.base import (
    check_number,
    class_means,
    distinct_rows,
    log_softmax,
    prototype_text,
    softmax,
    unit_rows,
)

TINY = "skhegraph-tiny"


# --- building blocks ------------------------------------------------------------------------------


def test_unit_rows_by_hand() -> None:
    got = unit_rows([[3, 4], [0, 0], [0, -2]])
    np.testing.assert_allclose(got, [[0.6, 0.8], [0, 0], [0, -1]])
    assert got.dtype == np.float64
    long = unit_rows(np.array([[3e30, 4e30]], dtype=np.float32))  # its square overflows
    np.testing.assert_allclose(long, [[0.6, 0.8]], rtol=1e-6)
    assert long.dtype == np.float64


def test_class_means_are_weighted() -> None:
    X = np.array([[1.0, 0.0], [4.0, 6.0], [5.0, 5.0]])
    means = class_means(X, np.array([0, 0, 1]), np.array([1.0, 2.0, 7.0]))
    np.testing.assert_allclose(means, [[3, 4], [5, 5]])


def test_distinct_rows_add_weights_within_a_class_alone() -> None:
    a, b = [1.0, 2.0], [3.0, 4.0]
    X, y = np.array([a, b, a, a, b]), np.array([1, 0, 1, 0, 0])
    rows, classes, weight = distinct_rows(X, y, np.array([1.0, 2.0, 4.0, 8.0, 16.0]))
    got = {(int(c), tuple(x)): w for x, c, w in zip(rows, classes, weight, strict=True)}
    assert got == {(1, (1.0, 2.0)): 5.0, (0, (3.0, 4.0)): 18.0, (0, (1.0, 2.0)): 8.0}
    assert classes.tolist() == [0, 0, 1]


def test_distinct_rows_do_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 2, (30, 3)).astype(float), rng.integers(0, 3, 30)
    weight = rng.integers(1, 9, 30).astype(float)
    want = distinct_rows(X, y, weight)
    order = rng.permutation(30)
    for a, b in zip(want, distinct_rows(X[order], y[order], weight[order]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_prototype_text_by_hand() -> None:
    X = np.array([[2.0, 0.0], [4.0, 0.0], [0.0, 6.0], [8.0, 8.0]])
    P, N = prototype_text(X, np.array([0, 0, 1, 2]), np.array([3.0, 1.0, 1.0, 5.0]))
    np.testing.assert_allclose(P, [[2.5, 0], [0, 6], [8, 8]])
    # The mean of the other classes' means: each class counts once, whatever its shots.
    np.testing.assert_allclose(N, [[4, 7], [5.25, 4], [1.25, 3]])


def test_softmax_by_hand_and_at_extremes() -> None:
    logits = np.array([[0.0, np.log(3)], [1e4, -1e4], [-1e300, -1e300]])
    want = [[0.25, 0.75], [1, 0], [0.5, 0.5]]
    np.testing.assert_allclose(softmax(logits), want)
    np.testing.assert_allclose(np.exp(log_softmax(logits)), want)
    assert log_softmax(logits)[1, 1] == -2e4  # no underflow to -inf


def test_check_number_bounds() -> None:
    for value in (0.5, 2, np.float32(1), np.int64(1), 1e6):
        check_number("x", value, 0.5)
    for value in (0.4, 1.1e6, np.nan, np.inf, -np.inf, "1", None, True, 1j, [1]):
        with pytest.raises(ValueError, match=r"x=.*expected a number in \[0.5, 1e\+06\]"):
            check_number("x", value, 0.5)
    check_number("x", 0, 0)
    with pytest.raises(ValueError, match=r"x=1.1: expected a number in \[0, 1\]"):
        check_number("x", 1.1, 0, 1)
    with pytest.raises(ValueError, match=r"x=0: expected a number in \(0, 1e\+06\]"):
        check_number("x", 0, 0, closed=False)


# --- bad hyper-parameters -------------------------------------------------------------------------

RNG = np.random.default_rng(0)
Y = np.repeat(["ant", "bee", "cat"], 4)
X = RNG.normal(size=(12, 6)) + 3 * np.eye(3, 6)[np.repeat([0, 1, 2], 4)]


def hegraph(**params: Any) -> HeGraphClassifier:
    return HeGraphClassifier(**{"text_features": "prototypes", "max_iter": 1, **params})


NOT_NEGATIVE = (
    "positive_to_negative",
    "visual_to_negative",
    "positive_to_positive",
    "visual_to_positive",
    "negative_to_positive",
    "negative_to_positive_predict",
    "visual_to_visual",
    "text_weight",
    "visual_weight",
    "loss_weight",
    "trust_region",
    "init_scale",
    "tol",
)
POSITIVE = ("logit_scale", "sharpness", "learning_rate")
PAPER = {"visual_classifier": "cache", "fusion": "probabilities"}
INTEGERS = {"max_iter": -1, "n_folds": 1, "top_k": 0}


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf, "0.5", True, [0.5], 1j])
@pytest.mark.parametrize("name", [*NOT_NEGATIVE, *POSITIVE])
def test_bad_number(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=.*expected a number in [\[(]0, 1e\+06\]"):
        hegraph(**{name: value}).fit(X, Y)


@pytest.mark.parametrize("name", POSITIVE)
def test_zero_where_it_makes_no_sense(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=0"):
        hegraph(**{name: 0}).fit(X, Y)


@pytest.mark.parametrize("name", sorted(set(NOT_NEGATIVE)))
def test_zero_is_fine_where_it_switches_off(name: str) -> None:
    assert np.isfinite(hegraph(**{name: 0}).fit(X, Y).predict_proba(X)).all()


@pytest.mark.parametrize("value", [-3, 2.0, np.nan, "3", True, [3], None])
@pytest.mark.parametrize("name", INTEGERS)
def test_bad_integer(name: str, value: Any) -> None:
    if (name, value) == ("top_k", None):
        return
    with pytest.raises(ValueError, match=rf"^{name}=.*expected an integer of at least"):
        hegraph(**{name: value}).fit(X, Y)


@pytest.mark.parametrize("name", INTEGERS)
def test_integer_just_below_the_least(name: str) -> None:
    least = INTEGERS[name] + 1
    with pytest.raises(ValueError, match=f"{name}={least - 1}: expected an integer of at least"):
        hegraph(**{name: least - 1}).fit(X, Y)
    hegraph(**{name: np.int64(least)}).fit(X, Y)


@pytest.mark.parametrize(
    ("name", "value"),
    [("fusion", "logit"), ("fusion", None), ("visual_classifier", "knn"), ("fusion", 1)],
)
def test_unknown_choice_lists_the_choices(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}={value!r}: expected one of \('"):
        hegraph(**{name: value}).fit(X, Y)


@pytest.mark.parametrize("value", ["no", np.nan, [True], -1])
@pytest.mark.parametrize("name", ["early_stopping", "verbose"])
def test_bad_switch(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}="):
        hegraph(**{name: value}).fit(X, Y)


@pytest.mark.parametrize(("name", "value"), [("device", "tpu"), ("random_state", "x")])
def test_unknown_device_and_seed(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}.*{value}|{value}.*RandomState"):
        hegraph(**{name: value}).fit(X, Y)


def test_probabilities_need_the_cache() -> None:
    with pytest.raises(ValueError, match="set visual_classifier='cache'"):
        hegraph(fusion="probabilities").fit(X, Y)


def test_top_k_above_the_class_count() -> None:
    with pytest.raises(ValueError, match=r"top_k=4 is above the number of classes \(3\)"):
        hegraph(top_k=4).fit(X, Y)


@pytest.mark.parametrize(
    "params",
    [
        {"learning_rate": 1e300},
        *({name: 1e6} for name in (*NOT_NEGATIVE, *POSITIVE)),
        *({name: 1e6, **PAPER} for name in (*NOT_NEGATIVE, *POSITIVE)),
        {"learning_rate": 1e10, **PAPER},
        {"init_scale": 1e300, **PAPER},
        {"sharpness": 1e300, **PAPER},
        {"logit_scale": 1e300},
        {"visual_weight": 1e300},
        {"positive_to_positive": 1e300},
    ],
    ids=str,
)
def test_absurd_values_raise_or_give_probabilities(params: dict[str, Any]) -> None:
    try:
        clf = hegraph(random_state=0, max_iter=3, **params).fit(X, Y)
    except ValueError as error:
        assert next(iter(params)) in str(error)
        return
    np.testing.assert_allclose(clf.predict_proba(X).sum(axis=1), 1)


# --- bad text -------------------------------------------------------------------------------------

GOOD = np.eye(3, 6)
WITH_NAN = np.where(np.eye(3, 6) == 1, np.nan, 0.0)
ESTIMATORS = [HeGraphClassifier, ZeroShotCLIPClassifier]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("value", ["CLIP", None, 3, (GOOD,), (GOOD, GOOD, GOOD), GOOD])
def test_unknown_text_source(estimator: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=r"text_features=(.|\n)*'clip', 'prototypes', or a pair"):
        estimator(text_features=value).fit(X, Y)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((GOOD[:2], GOOD), r"positive array has shape \(2, 6\).* shape \(3, 6\)"),
        ((GOOD, GOOD[:, :5]), r"negative array has shape \(3, 5\).* shape \(3, 6\)"),
        ((GOOD[0], GOOD), r"positive array has shape \(6,\)"),
        ((GOOD, WITH_NAN), "negative array has NaN or infinite values"),
        ((np.full((3, 6), np.inf), GOOD), "positive array has NaN or infinite values"),
        (("ant", "bee"), "text_features: the positive array"),
        (([[1.0] * 6, [1.0] * 6, [1.0]], GOOD), "text_features: the positive array"),
    ],
    ids=["classes", "width", "1-D", "nan", "inf", "words", "ragged"],
)
def test_bad_text_arrays(pair: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeGraphClassifier(text_features=pair).fit(X, Y)


WIDE = np.hstack([X] * 22)[:, :128]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_other_width_than_the_text(estimator: Any) -> None:
    message = (
        r"X has 6 features.*model_name='skhegraph-tiny'.*have 128.*"
        r"CLIPFeatures.*make_hegraph_pipeline.*text_features='prototypes'"
    )
    with pytest.raises(ValueError, match=message):
        estimator(TINY, device="cpu").fit(X, Y)


@pytest.mark.parametrize(
    ("y", "names", "message"),
    [
        (np.repeat([7, 8, 9], 4), None, r"labels \(7, ...\) are not strings.*class_names"),
        (Y, {"ant": "ant", "cat": "cat"}, r"class_names has no name for \['bee'\]"),
        (Y, ["ant", "bee"], "holds 2 names for 3 classes"),
        (Y, ["ant", "bee", "cat", "dog"], "holds 4 names for 3 classes"),
        (Y, "abc", "holds 0 names for 3 classes"),
        (Y, ["ant", " ", "cat"], r"Class 'bee' has no name \(got ' '\)"),
        (Y, {"ant": "ant", "bee": None, "cat": "c"}, r"Class 'bee' has no name \(got None\)"),
    ],
)
def test_classes_without_names(y: np.ndarray, names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeGraphClassifier(TINY, class_names=names, device="cpu").fit(WIDE, y)


@pytest.mark.parametrize("names", [5, 0.5])
def test_class_names_of_another_type(names: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=f"class_names={names}"):
        HeGraphClassifier(TINY, class_names=names, device="cpu").fit(WIDE, Y)


@pytest.mark.parametrize("name", ["templates", "negative_templates"])
def test_template_without_braces(name: str) -> None:
    with pytest.raises(ValueError, match=r"no '?\{"):
        HeGraphClassifier(TINY, device="cpu", **{name: ["a photo"]}).fit(WIDE, Y)


# --- bad data -------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("bad", "word"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_features_that_are_not_finite(estimator: Any, bad: float, word: str) -> None:
    broken = X.copy()
    broken[3, 2] = bad
    clf = estimator(text_features="prototypes")
    with pytest.raises(ValueError, match=word):
        clf.fit(broken, Y)
    clf.fit(X, Y)
    with pytest.raises(ValueError, match=word):
        clf.predict(broken)


def test_one_class() -> None:
    with pytest.raises(ValueError, match=r"one class \(ant\).*at least two classes"):
        hegraph().fit(X[:4], Y[:4])


def test_one_class_of_positive_weight() -> None:
    with pytest.raises(ValueError, match=r"one class \(bee\)"):
        hegraph().fit(X, Y, sample_weight=(Y == "bee").astype(float))


def test_all_weights_zero() -> None:
    with pytest.raises(ValueError, match=r"(?i)sample.weight.*zero"):
        hegraph().fit(X, Y, sample_weight=np.zeros(12))


@pytest.mark.parametrize(
    ("value", "word"), [(-1.0, "(?i)negative"), (np.nan, "NaN"), (np.inf, "infinity")]
)
def test_bad_sample_weight(value: float, word: str) -> None:
    weight = np.ones(12)
    weight[5] = value
    with pytest.raises(ValueError, match=word):
        hegraph().fit(X, Y, sample_weight=weight)


def test_sample_weight_of_another_length() -> None:
    with pytest.raises(ValueError, match=r"\(11,\)"):
        hegraph().fit(X, Y, sample_weight=np.ones(11))


@pytest.mark.parametrize("empty", [[], np.empty((0, 6))])
def test_no_samples(empty: Any) -> None:
    with pytest.raises(ValueError, match=r"0 sample|Expected 2D"):
        hegraph().fit(empty, [])


def test_no_labels() -> None:
    with pytest.raises(ValueError, match="requires y to be passed"):
        hegraph().fit(X, None)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_not_fitted(estimator: Any, method: str) -> None:
    with pytest.raises(NotFittedError, match=estimator.__name__):
        getattr(estimator(), method)(X)


@pytest.mark.parametrize("method", ["branch_proba", "to_hetero_data"])
def test_own_methods_not_fitted(method: str) -> None:
    with pytest.raises(NotFittedError):
        getattr(HeGraphClassifier(), method)(*([X] if method == "branch_proba" else []))


def test_queries_of_another_width() -> None:
    with pytest.raises(ValueError, match=r"X has 5 features.*expecting 6"):
        hegraph().fit(X, Y).predict(X[:, :5])


# --- any well-formed input ------------------------------------------------------------------------

VALUES = st.floats(-1e6, 1e6, width=32)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    data=st.integers(3, 8).flatmap(lambda n: arrays(np.float64, (n, 3), elements=VALUES)),
    labels=st.lists(st.integers(0, 3), min_size=6, max_size=6),
    params=st.sampled_from([{}, {"visual_classifier": "cache"}, PAPER_SETTINGS]),
    top_k=st.sampled_from([None, 1, 2]),
)
def test_probabilities_are_finite_and_sum_to_one(
    data: np.ndarray, labels: list[int], params: Mapping[str, Any], top_k: int | None
) -> None:
    y = np.array([0, 1, *labels])[: len(data)]
    clf = hegraph(**{**params, "max_iter": 2, "top_k": top_k, "random_state": 0})
    proba = clf.fit(data, y).predict_proba(data[::-1])
    assert np.isfinite(clf.predict_log_proba(data)).all()
    assert (proba >= 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)
