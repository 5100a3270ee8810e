"""Several labels: each column as a two-class HeGraphClassifier by hand, and scikit-learn's law."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, average_precision_score
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from skhegraph import CLIPFeatures, HeGraphClassifier, MultiLabelHeGraphClassifier

TINY = "skhegraph-tiny"
RNG = np.random.default_rng(0)
D = 10
NAMES = ["cup", "ant", "bee"]  # not sorted
Y = RNG.integers(0, 2, size=(30, 3))
TEXT = np.eye(3, D) + 0.1 * RNG.normal(size=(3, D)), RNG.normal(size=(3, D))  # present, absent
X = Y @ (2 * np.eye(3, D)) + RNG.normal(size=(30, D))
WEIGHT = RNG.uniform(0.5, 2, size=30)
WIDE = np.hstack([X, np.zeros((30, 118))])  # as wide as the features of the tiny CLIP
ONE_NAN = np.vstack([np.full(D, np.nan), X])


def model(**params: Any) -> MultiLabelHeGraphClassifier:
    return MultiLabelHeGraphClassifier(HeGraphClassifier(**{"text_features": TEXT, **params}))


# --- scikit-learn's law ---------------------------------------------------------------------------

_VALUES = "y holds other numbers than 0 and 1"
_ONE = "y is no indicator matrix"
REFUSED = {
    "check_estimators_dtypes": _VALUES,
    "check_sample_weights_pandas_series": _VALUES,
    "check_sample_weights_not_an_array": _VALUES,
    "check_sample_weights_shape": _VALUES,
    "check_sample_weights_not_overwritten": _VALUES,
    "check_classifier_data_not_an_array": _VALUES,
    "check_fit2d_1feature": _VALUES,
    "check_classifiers_classes": _ONE,
    "check_classifiers_train": _ONE,
    "check_decision_proba_consistency": _ONE,
    "check_classifier_not_supporting_multiclass": _ONE,
}


@parametrize_with_checks(
    [model(text_features="prototypes")], expected_failed_checks=lambda estimator: REFUSED
)
def test_scikit_learn_checks(estimator: BaseEstimator, check: Callable[..., None]) -> None:
    check(estimator)


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_each_column_is_a_classifier_of_presence_and_absence(n_jobs: int | None) -> None:
    clf = model(logit_scale=20.0, class_weight=None).set_params(n_jobs=n_jobs)
    before = {**clf.estimator.get_params()}
    clf.fit(X, Y, sample_weight=WEIGHT)
    assert clf.estimator.get_params() == before
    assert clf.classes_.tolist() == [0, 1, 2] and clf.n_features_in_ == D
    for k in range(3):
        by_hand = HeGraphClassifier(
            text_features=np.stack([TEXT[1][k], TEXT[0][k]]), logit_scale=20.0, class_weight=None
        ).fit(X, Y[:, k], WEIGHT)
        want = by_hand.predict_proba(X)[:, 1]
        np.testing.assert_allclose(clf.predict_proba(X)[:, k], want, atol=1e-12)
        np.testing.assert_allclose(clf.decision_function(X)[:, k], by_hand.decision_function(X))
        np.testing.assert_array_equal(clf.predict(X)[:, k], by_hand.predict(X))
        assert clf.estimators_[k].classes_.tolist() == [0, 1]
    assert clf.predict(X).dtype == np.int64
    assert clf.score(X, Y) == accuracy_score(Y, clf.predict_proba(X) > 0.5)


@pytest.mark.filterwarnings("ignore:.*better than chance")
def test_the_texts_are_those_of_a_loop_over_the_labels() -> None:
    """Names of a frame's columns, or a list in their order; the CLIP's own logit scale."""
    named = MultiLabelHeGraphClassifier(HeGraphClassifier(TINY)).fit(
        WIDE, pd.DataFrame(Y, columns=NAMES)
    )
    assert named.classes_.tolist() == NAMES
    listed = MultiLabelHeGraphClassifier(HeGraphClassifier(TINY, class_names=NAMES)).fit(WIDE, Y)
    proba = named.predict_proba(WIDE)
    np.testing.assert_array_equal(listed.predict_proba(WIDE), proba)
    for k, name in enumerate(NAMES):
        there, not_there = f"a photo of a {name}.", f"a photo of no {name}."
        by_hand = HeGraphClassifier(
            TINY,
            templates={"yes": there, "no": not_there},
            negative_templates={"yes": not_there, "no": there},
        ).fit(WIDE, np.where(Y[:, k], "yes", "no"))
        np.testing.assert_allclose(proba[:, k], by_hand.predict_proba(WIDE)[:, 1], atol=1e-6)


def test_texts_of_presence_alone_take_the_mean_of_the_others_for_absence() -> None:
    others = np.stack([np.delete(TEXT[0], k, axis=0).mean(axis=0) for k in range(3)])
    want = model(text_features=(TEXT[0], others)).fit(X, Y).predict_proba(X)
    by_name = dict(zip(NAMES, TEXT[0], strict=True))
    for texts, y in ((TEXT[0], Y), (by_name, pd.DataFrame(Y, columns=NAMES))):
        got = model(text_features=texts).fit(X, y).predict_proba(X)
        np.testing.assert_allclose(got, want, atol=1e-12)
    with pytest.raises(ValueError, match=r"one label.*give a pair"):
        model(text_features=TEXT[0][:1]).fit(X, Y[:, :1])


@pytest.mark.parametrize(
    "make",
    [
        sparse.csr_matrix,
        sparse.coo_array,
        lambda y: y.astype(bool),
        lambda y: y.astype(float).tolist(),
        lambda y: pl.DataFrame(y, schema=NAMES),
        lambda y: pd.DataFrame(y).astype({0: bool}),
    ],
)
def test_kinds_of_indicator_matrices(make: Any) -> None:
    want = model().fit(X, Y)
    got = model().fit(X, make(Y))
    np.testing.assert_array_equal(got.predict_proba(X), want.predict_proba(X))
    assert isinstance(got.predict(X), np.ndarray)


@pytest.mark.parametrize("value", [0, 1])
def test_a_label_of_all_rows_or_of_none_is_told_by_its_text(value: int) -> None:
    y = Y.copy()
    y[:, 1] = value
    clf = model(text_features=TEXT).fit(X, y)
    queries = np.stack([TEXT[0][1], TEXT[1][1]])  # the thing, and its absence
    assert clf.predict(queries)[:, 1].tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"Of \[1\] y has one class alone.*give images of both"):
        model(text_features="prototypes").fit(X, y)
    weight = np.where(Y[:, 2] == value, 1.0, 0.0)  # in effect
    assert model().fit(X, Y, weight).predict(queries).shape == (2, 3)
    with pytest.raises(ValueError, match=r"Of \[2\] y has one class"):
        model(text_features="prototypes").fit(X, Y, weight)


def test_unreadable_images_are_left_out() -> None:
    y = np.vstack([[1, 1, 1], Y])
    with pytest.warns(UserWarning, match="left out of the fit: row 0") as caught:
        clf = model().fit(ONE_NAN, y)
    assert len(caught) == 1
    proba = clf.predict_proba(ONE_NAN)
    np.testing.assert_array_equal(proba[1:], model().fit(X, Y).predict_proba(X))
    assert np.isnan(proba[0]).all()
    with pytest.raises(ValueError, match="NaN throughout: row 0"):
        clf.predict(ONE_NAN)
    with pytest.raises(ValueError, match="No row of X is left"):
        model().fit(ONE_NAN[:1], y[:1])


# --- what is refused, what is warned of -----------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([["ant"], ["ant", "bee"], []], r"several lengths.*MultiLabelBinarizer"),
        (["ant", "bee", "ant"], r"shape \(3,\) \(multiclass|binary\).*HeGraphClassifier"),
        ([[0, 1], [2, 1], [0, 0]], "y holds 2; expected 0 and 1"),
        ([[0, 1], [np.nan, 1], [0, 0]], "y holds nan; expected"),
        ([[0, 1], [None, 1], [0, 0]], "y holds None; expected"),
        ([["0", "1"], ["0", "1"], ["1", "0"]], "y holds '0'; expected"),
        (np.zeros((3, 0)), r"shape \(3, 0\)"),
        ([[0, 1], [1, 0]], r"inconsistent numbers of samples: \[3, 2\]"),
    ],
)
def test_targets_that_are_refused(y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model().fit(X[:3], y)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["ant", None, "cat"], r"columns of y has no label \(None, NaN or NA\) in row 1"),
        ([1, "bee", "cat"], r"columns of y holds labels of several types \(int, str\)"),
        (pd.MultiIndex.from_product([["ant"], [1, 2, 3]]), "one name for each column"),
        (["ant", "bee", "ant"], r"twice: \['ant'\]"),
    ],
)
def test_columns_that_name_no_labels(columns: Any, message: str) -> None:
    """Of None and of 1 beside names NumPy made the names 'nan', 'None' and '1'."""
    with pytest.raises(ValueError, match=message):
        model().fit(X, pd.DataFrame(Y, columns=columns))


def test_parameters_that_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown_label='\?'.*leave it None"):
        model(unknown_label="?").fit(X, Y)
    with pytest.raises(ValueError, match="'estimator' parameter of MultiLabelHeGraph"):
        MultiLabelHeGraphClassifier("skhegraph-tiny").fit(X, Y)
    with pytest.raises(ValueError, match=r"y names no labels.*set class_names"):
        MultiLabelHeGraphClassifier(HeGraphClassifier(TINY)).fit(WIDE, Y)
    with pytest.raises(TypeError, match="X holds images"):
        model().fit(["a.png", "b.png"], Y[:2])


def test_warnings_name_their_labels_once() -> None:
    with pytest.warns(UserWarning, match=r"Of the labels \[0, 1, 2\]: text_weight: ign") as caught:
        model(text_features="prototypes", text_weight=0.5).fit(X, Y)
    assert len(caught) == 1
    right = np.stack([TEXT[0][:2], -TEXT[0][:2]])  # of the first two; that of the third is wrong
    texts = np.concatenate([right, np.stack([-TEXT[0][2:], TEXT[0][2:]])], axis=1)
    centred = (2 * Y - 1) @ np.eye(3, D) + 0.1 * RNG.normal(size=(30, D))
    with pytest.warns(UserWarning, match=r"Of the labels \[2\]: .*better than chance") as caught:
        model(text_features=tuple(texts)).fit(centred, Y)


def test_text_that_is_wrong_of_a_label() -> None:
    """Worse than chance is not hardly better; of presence and absence none is named as alike."""
    y = np.arange(30) % 2
    rows = np.outer(2 * y - 1, np.eye(D)[0]) + 0.1 * RNG.normal(size=(30, D))
    swapped = np.eye(D)[:1]  # the text of the label where it is absent
    with pytest.warns(UserWarning, match="classifies 0 of 30") as caught:
        model(text_features=(-swapped, swapped)).fit(rows, y[:, None])
    (message,) = (str(warning.message) for warning in caught)
    assert "right, no better than chance (15): it tells nothing of these images. Give" in message


# --- beside other tools ---------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*better than chance")
def test_in_a_pipeline_with_a_search_and_folds() -> None:
    digits = load_digits()
    images, values = list(digits.images[:40] / 16), digits.target[:40]
    y = np.column_stack([values < 5, values % 2 == 0, values == 3]).astype(int)
    pipe = make_pipeline(
        CLIPFeatures(TINY),
        MultiLabelHeGraphClassifier(HeGraphClassifier(TINY, class_names=["few", "even", "three"])),
    )
    name = "multilabelhegraphclassifier__estimator__penalty"
    search = GridSearchCV(pipe, {name: [1.0, 3.0]}, cv=2, error_score="raise").fit(images, y)
    assert search.predict(images[:3]).shape == (3, 3)
    proba = cross_val_predict(pipe, images, y, cv=2, method="predict_proba")
    assert proba.shape == (40, 3)
    precision = average_precision_score(y, proba, average="macro")
    assert precision > y.mean()  # what chance gives
    scores = cross_val_score(pipe, images, y, cv=2, scoring="average_precision")
    assert np.isfinite(scores).all()
