"""One clear error for each bad input, sound output for any good one, in bounded memory."""

from __future__ import annotations

import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from sklearn.exceptions import NotFittedError

from skhegraph import HeGraphAdapterClassifier, HeGraphClassifier, ZeroShotCLIPClassifier
from skhegraph.feature_classifier import softmax_rows
from skhegraph.given_text import given_text
from skhegraph.peers import TipAdapterClassifier

TINY = "skhegraph-tiny"


# --- bad hyper-parameters -------------------------------------------------------------------------

RNG = np.random.default_rng(0)
Y = np.repeat(["ant", "bee", "cat"], 4)
X = RNG.normal(size=(12, 6)) + 3 * np.eye(3, 6)[np.repeat([0, 1, 2], 4)]


TEXT = np.eye(3, 6)


def hegraph(**params: Any) -> HeGraphClassifier:
    return HeGraphClassifier(**{"text_features": TEXT, "device": "cpu", **params})


def adapter(**params: Any) -> HeGraphAdapterClassifier:
    return HeGraphAdapterClassifier(**{"text_features": "prototypes", "n_epochs": 1, **params})


PATHS = (
    "positive_to_negative",
    "visual_to_negative",
    "positive_to_positive",
    "visual_to_positive",
    "negative_to_positive",
)
MESSAGES = ("positive_to_visual", "visual_to_visual")
NUMBERS = [
    *((hegraph, name, True) for name in (*PATHS[2:], *MESSAGES, "text_weight", "visual_weight")),
    *((hegraph, name, False) for name in ("logit_scale", "penalty", "shrinkage")),
    *((adapter, name, True) for name in (*PATHS, "negative_to_positive_predict")),
    *((adapter, name, True) for name in ("visual_to_visual", "visual_weight", "loss_weight")),
    *((adapter, name, False) for name in ("logit_scale", "sharpness", "learning_rate")),
]
numbers = pytest.mark.parametrize(("make", "name", "zero"), NUMBERS)


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf, "0.5", [0.5], 1j])
@numbers
def test_bad_number(make: Any, name: str, zero: bool, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"The '{name}' parameter .* must be a float in"):
        make(**{name: value}).fit(X, Y)


@numbers
def test_zero_where_it_switches_off(make: Any, name: str, zero: bool) -> None:
    if zero:
        assert np.isfinite(make(**{name: 0}).fit(X, Y).predict_proba(X)).all()
    else:
        with pytest.raises(ValueError, match=f"'{name}' parameter .*Got 0 instead"):
            make(**{name: 0}).fit(X, Y)


@pytest.mark.parametrize("value", [-1, 2.5, "3", [3]])
@pytest.mark.parametrize(
    ("make", "name"),
    [(adapter, "top_k"), (adapter, "n_epochs"), (adapter, "batch_size")],
)
def test_bad_integer(make: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"The '{name}' parameter .* must be an int in"):
        make(**{name: value}).fit(X, Y)


@pytest.mark.parametrize(("name", "value"), [("device", "tpu"), ("random_state", "x")])
def test_unknown_device_and_seed(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        adapter(**{name: value}).fit(X, Y)


@numbers
def test_the_largest_accepted_value_gives_probabilities(make: Any, name: str, zero: bool) -> None:
    with warnings.catch_warnings():  # some act through others alone
        warnings.filterwarnings("ignore", ".*: ignored, since", UserWarning)
        clf = make(**{name: 1e6}).fit(X, Y)
    np.testing.assert_allclose(clf.predict_proba(X).sum(axis=1), 1)


@pytest.mark.parametrize("value", ["other", {"ant": 1.0, "bee": -1.0, "cat": 1.0}, {"ant": 0.0}, 3])
def test_bad_class_weight(value: Any) -> None:
    with pytest.raises(ValueError, match="class_weight"):
        hegraph(class_weight=value).fit(X, Y)


# --- bad text -------------------------------------------------------------------------------------

GOOD = np.eye(3, 6)
WITH_NAN = np.where(np.eye(3, 6) == 1, np.nan, 0.0)
ESTIMATORS = [HeGraphClassifier, ZeroShotCLIPClassifier, HeGraphAdapterClassifier]


@pytest.mark.parametrize("value", ["CLIP", "word"])
def test_unknown_text_source(value: str) -> None:
    expected = rf"text_features='{value}': expected 'clip', 'prototypes', an array .* or a pair"
    with pytest.raises(ValueError, match=expected):
        HeGraphClassifier(text_features=value).fit(X, Y)
    with pytest.raises(ValueError, match=rf"text_features='{value}': expected 'prototypes', an"):
        TipAdapterClassifier(text_features=value).fit(X, Y)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD[:2], r"positive array has shape \(2, 6\); expected \(3, 6\)"),
        ((GOOD[:2], GOOD), r"positive array has shape \(2, 6\); expected \(3, 6\)"),
        ((GOOD, GOOD[:, :5]), r"negative array has shape \(3, 5\); expected \(3, 6\)"),
        (GOOD[0], "Expected 2D array"),
        (None, "Expected"),
        (3, "Expected"),
        ({}, r"nothing for \['ant', 'bee', 'cat'\]"),
        (
            {label: [1.0] * 5 for label in Y},
            r"positive array has shape \(3, 5\); expected \(3, 6\)",
        ),
        (dict(zip(["ant", "bee", "cat"], [[1.0] * 6, [1.0] * 6, [1.0]], strict=True)), "positive"),
        (([[1, 2], [1]], GOOD), "positive array"),
        ((GOOD, WITH_NAN), "negative array cannot be used (.|\\n)*NaN"),
        ((np.full((3, 6), np.inf), GOOD), "positive array cannot be used (.|\\n)*infinity"),
        (("ant", "bee"), "Expected"),
        ([[1.0] * 6, [1.0] * 6, [1.0]], "inhomogeneous|positive array"),
        ((GOOD, GOOD, GOOD), "positive array|Found array with dim 3"),
    ],
    ids=str,
)
def test_bad_text_arrays(text: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"text_features(.|\n)*({message})"):
        HeGraphClassifier(text_features=text).fit(X, Y)


@pytest.mark.parametrize("as_pair", [tuple, list, np.array])
def test_a_pair_of_arrays_in_any_container(as_pair: Any) -> None:
    P, N = given_text(as_pair([GOOD, -GOOD]), np.arange(3), 6)
    np.testing.assert_array_equal(P, GOOD)
    np.testing.assert_array_equal(N, -GOOD)


@pytest.mark.parametrize("container", [np.asarray, np.ndarray.tolist])
def test_positive_text_alone_derives_the_negatives(container: Any) -> None:
    clf = hegraph(text_features=container(GOOD + 1.0)).fit(X, Y)
    P = (GOOD + 1.0) / np.linalg.norm(GOOD + 1.0, axis=1, keepdims=True)
    np.testing.assert_allclose(clf.graph_["positive"], P, rtol=1e-6)
    others = np.stack([GOOD[1] + GOOD[2], GOOD[0] + GOOD[2], GOOD[0] + GOOD[1]]) / 2 + 1.0
    N = others / np.linalg.norm(others, axis=1, keepdims=True)
    np.testing.assert_allclose(clf.graph_["negative"], N, rtol=1e-6)


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
    broken[5] = np.nan  # a whole row of NaN beside it
    with pytest.raises(ValueError, match=word):
        clf.predict(broken)


def test_rows_of_unreadable_images_are_left_out_of_a_fit_with_a_warning() -> None:
    broken = X.copy()
    broken[[1, 6]] = np.nan
    with pytest.warns(UserWarning, match=r"left out of the fit: rows 1, 6 \(2 in all\) of X") as w:
        clf = hegraph().fit(broken, Y)
        TipAdapterClassifier(text_features=TEXT).fit(broken, Y)
    assert {warning.filename for warning in w} == {__file__}
    kept = np.delete(np.arange(12), [1, 6])
    want = hegraph().fit(X[kept], Y[kept])
    np.testing.assert_array_equal(clf.predict_proba(X), want.predict_proba(X))


def test_a_class_without_a_readable_image_is_named() -> None:
    broken = np.where((Y == "bee")[:, None], np.nan, X)
    with pytest.raises(ValueError, match="Class 'bee' has no readable image"):
        hegraph().fit(broken, Y)


def test_predictions_of_unreadable_images() -> None:
    queries = X.copy()
    queries[[2, 9]] = np.nan
    clf = hegraph().fit(X, Y)
    proba = clf.predict_proba(queries)
    assert np.isnan(proba[[2, 9]]).all()
    kept = np.delete(np.arange(12), [2, 9])
    np.testing.assert_array_equal(proba[kept], clf.predict_proba(X[kept]))
    with pytest.raises(ValueError, match=r"rows 2, 9 \(2 in all\) of X.*set unknown_label"):
        clf.predict(queries)
    named = hegraph(unknown_label="nothing").fit(X, Y).predict(queries)
    assert named[[2, 9]].tolist() == ["nothing", "nothing"]
    np.testing.assert_array_equal(named[kept], clf.predict(X[kept]))
    numbers = hegraph(unknown_label=-1).fit(X, np.repeat([3, 4, 5], 4))
    assert numbers.predict(queries)[[2, 9]].tolist() == [-1, -1]
    assert numbers.predict(queries).dtype.kind == "i"


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"])
@pytest.mark.parametrize("label", [-1, 200, 2**31, 2**63 - 1, 2**63, -(2**63), np.int8(-1)])
def test_labels_and_one_for_unknowns_stay_integers(dtype: str, label: int) -> None:
    """NumPy makes floating-point numbers of uint64 and -1."""
    y = np.repeat([3, 4, 5], 4).astype(dtype)
    got = (
        hegraph(unknown_label=label).fit(X, y).predict(np.vstack([X[:1], np.full((1, 6), np.nan)]))
    )
    assert got.dtype.kind in "iu" and got.tolist() == [3, label]


@pytest.mark.parametrize("label", [-1, 2**64, 10**30])
def test_an_unknown_label_that_no_integer_type_holds_beside_the_labels(label: int) -> None:
    y = np.repeat(np.array([3, 4, 2**63], dtype=np.uint64), 4)
    with pytest.raises(ValueError, match=f"unknown_label={label} and .*fit into no type"):
        hegraph(unknown_label=label).fit(X, y)


@pytest.mark.parametrize(("label", "word"), [("bee", "one of the classes"), (-1, "type")])
def test_bad_unknown_label(label: Any, word: str) -> None:
    with pytest.raises(ValueError, match=f"unknown_label={label!r}.*{word}"):
        hegraph(unknown_label=label).fit(X, Y)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    "images",
    [
        ["a.png"] * 12,
        np.array(["a.png"] * 12),
        np.array([["a.png"]] * 12, dtype=object),
        np.zeros((12, 8, 8, 3)),
        [np.zeros((8, 8))] * 12,
        "a.png",
        [["a.png", "b.png"], ["c.png"]] * 6,
    ],
    ids=["list", "array", "column", "4-D", "arrays", "path", "several"],
)
def test_forgotten_clip_features(estimator: Any, images: Any) -> None:
    message = rf"X holds images.*put CLIPFeatures before it, make_pipeline.*{estimator.__name__}"
    with pytest.raises(TypeError, match=message):
        estimator().fit(images, Y)
    with pytest.raises(TypeError, match="X holds images"):
        estimator(text_features="prototypes").fit(X, Y).predict(images)


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


# --- precision and memory -------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_float32_works_in_single_precision(estimator: Any) -> None:
    clf = estimator(text_features="prototypes", device="cpu").fit(X, Y)
    for method in ("predict_proba", "predict_log_proba", "decision_function"):
        single, double = (getattr(clf, method)(X.astype(t)) for t in (np.float32, np.float64))
        assert double.dtype == np.float64
        np.testing.assert_allclose(single, double, rtol=2e-3, atol=1e-3)
    assert clf.decision_function(X.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(clf.predict_proba(X.astype(np.float32)).sum(axis=1), 1, atol=1e-12)


def test_probabilities_of_single_precision_logits_do_not_underflow() -> None:
    logits = np.array([[0.0, -50.0, -500.0, -79.0, -81.0], [3.0, 3.0, 2.0, 1.0, 0.0]])
    proba = softmax_rows(logits.astype(np.float32))
    assert proba.dtype == np.float64
    np.testing.assert_allclose(proba, softmax(logits, axis=1), rtol=1e-6)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=0, atol=1e-15)
    np.testing.assert_allclose(softmax_rows(logits.copy()), softmax(logits, axis=1), rtol=1e-14)
    nothing = softmax_rows(np.array([[np.nan, np.nan], [1.0, 0.0]], np.float32))
    assert np.isnan(nothing[0]).all() and np.isfinite(nothing[1]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_memory_of_a_prediction_does_not_grow_with_the_queries(dtype: type) -> None:
    rng = np.random.default_rng(0)
    support = rng.normal(size=(30, 256))
    clf = hegraph(text_features="prototypes").fit(support, np.repeat([0, 1, 2], 10))
    queries = rng.normal(size=(30_000, 256)).astype(dtype)
    clf.predict(queries[:10])
    tracemalloc.start()
    clf.predict(queries)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < queries.nbytes / 4


@pytest.mark.parametrize("make", [hegraph, ZeroShotCLIPClassifier])
def test_classes_of_equal_text_warn(make: Any) -> None:
    """Issue 17.21: one of them would never be predicted by text."""
    same = np.array([[1.0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0]])
    with pytest.warns(UserWarning, match="text of 'ant', 'cat' is equal: it cannot tell"):
        make(text_features=same).fit(X, Y)
    with pytest.warns(UserWarning, match=r"text of \['bee'\] is a row of zeros") as caught:
        make(text_features=same * [[1], [0], [-1]]).fit(X, Y)
    assert len([w for w in caught if "equal" in str(w.message)]) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(text_features=TEXT).fit(X, Y)


def test_equal_names_warn_without_images_too() -> None:
    """Issue 17.21: for the bundled models upper case is lower case."""
    with pytest.warns(UserWarning, match="text of 'Crane', 'crane' is equal") as caught:
        ZeroShotCLIPClassifier(TINY).fit(None, ["crane", "dog", "Crane"])
    assert caught[0].filename == __file__


# --- any well-formed input ------------------------------------------------------------------------

VALUES = st.floats(-1e6, 1e6, width=32)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    data=st.integers(3, 8).flatmap(lambda n: arrays(np.float64, (n, 3), elements=VALUES)),
    labels=st.lists(st.integers(0, 3), min_size=6, max_size=6),
    make=st.sampled_from([hegraph, adapter]),
    top_k=st.sampled_from([None, 1, 2]),
)
def test_probabilities_are_finite_and_sum_to_one(
    data: np.ndarray, labels: list[int], make: Any, top_k: int | None
) -> None:
    y = np.array([0, 1, *labels])[: len(data)]
    clf = make(text_features="prototypes")
    if make is adapter:
        clf.set_params(top_k=top_k, random_state=0)
    clf.fit(data, y)
    proba = clf.predict_proba(data[::-1])
    assert np.isfinite(clf.predict_log_proba(data)).all()
    assert (proba >= 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)
