"""Numbers from strangers: any finite features, labels and weights give sound probabilities."""

from __future__ import annotations

import copy
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from skhegraph import (
    HeGraphAdapterClassifier,
    HeGraphClassifier,
    ZeroShotCLIPClassifier,
    peers,
)
from skhegraph.peers import GDAClassifier, MAPLogisticRegression

CLASSIFIERS = {
    "hegraph": lambda text: HeGraphClassifier(text_features=text),
    "zero-shot": lambda text: ZeroShotCLIPClassifier(text_features=text),
    "gda": lambda text: GDAClassifier(text_features=text),
    "map-lr": lambda text: MAPLogisticRegression(text_features=text),
}
#: Sums in another order: eigenvectors of near-equal eigenvalues, and scalars searched on them.
ATOL = 1e-6
LABELS = {
    "integers": lambda codes: codes * 3 - 8,  # none is -1, of rows without a label
    "unsigned": lambda codes: codes.astype(np.uint16),
    "strings": lambda codes: np.array([f"class {c:03d}" for c in codes]),
    "objects": lambda codes: np.array([f"class {c:03d}" for c in codes], dtype=object),
}


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    """A support set, queries and text, with the peculiarities of data found in the wild."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_classes = draw(st.sampled_from([2, 2, 3, 4, 7, 20, 60]))
    width = draw(st.integers(1, 40))
    most = draw(st.sampled_from([1, 2, 5, 40]))
    shots = rng.integers(1, most + 1, n_classes)
    if draw(st.booleans()):
        shots[0] = 60  # one class has nearly all
    y = rng.permutation(np.repeat(np.arange(n_classes), shots))
    centres = rng.normal(size=(n_classes, width))
    kind = draw(st.sampled_from(["clusters", "noise", "near-identical", "one point", "sparse"]))
    spread = {"clusters": 0.3, "noise": 1.0, "near-identical": 1e-9}.get(kind, 0.5)
    if kind in ("near-identical", "one point"):
        centres[:] = centres[0]
    X = centres[y] + spread * rng.normal(size=(len(y), width)) * (kind != "one point")
    if kind == "sparse":
        X *= rng.random(X.shape) < 0.2
    if draw(st.booleans()):
        X[:, rng.integers(width)] = 1.0  # a constant column
    if draw(st.booleans()):
        X[rng.integers(len(X), size=len(X) // 2)] = X[0]  # copies, some under another label
    Z = np.vstack([X[:5], rng.normal(size=(5, width)), np.zeros((1, width))])
    scale = 10.0 ** draw(st.integers(-30, 30))
    weight = rng.random(len(y)) * 10.0 ** draw(st.integers(-12, 12))
    weight[np.unique(y, return_index=True)[1]] += weight.max()
    text = centres + draw(st.sampled_from([0.0, 0.3, 3.0])) * rng.normal(size=centres.shape)
    if draw(st.booleans()):
        text[-1] = text[0]  # two classes of one name
    return {
        "X": X * scale,
        "y": y,
        "Z": Z * scale,
        "weight": weight if draw(st.booleans()) else None,
        "text": draw(st.sampled_from(["prototypes", text])),
        "labels": draw(st.sampled_from(sorted(LABELS))),
        "kind": kind,
    }


def fit(name: str, problem: dict[str, Any], **changes: Any) -> Any:
    given = {**problem, **changes}
    clf = CLASSIFIERS[name](given["text"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no overflow, no division by zero
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        warnings.filterwarnings("ignore", ".*better than chance.*")
        warnings.filterwarnings("ignore", ".*cannot tell them apart.*")  # of one feature
        if given["weight"] is None or name not in ("hegraph", "zero-shot"):
            return clf.fit(given["X"], given["y"])
        return clf.fit(given["X"], given["y"], sample_weight=given["weight"])


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=problems())
def test_probabilities_are_sound(name: str, problem: dict[str, Any]) -> None:
    labels = LABELS[problem["labels"]](problem["y"])
    before = {key: np.copy(problem[key]) for key in ("X", "y", "Z")}
    clf = fit(name, problem, y=labels)
    proba = clf.predict_proba(problem["Z"])
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    assert np.isin(clf.predict(problem["Z"]), labels).all()
    assert np.isfinite(clf.predict_log_proba(problem["Z"])).all()
    if name == "hegraph":
        assert np.isfinite(clf.score_samples(problem["Z"])).all()
    for key, value in before.items():
        np.testing.assert_array_equal(problem[key], value, err_msg=f"{key} was changed")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=problems(), seed=st.integers(0, 1000))
def test_order_does_not_count(problem: dict[str, Any], seed: int) -> None:
    """Of rows, classes and features."""
    rng = np.random.default_rng(seed)
    X, y, Z, text = (problem[key] for key in ("X", "y", "Z", "text"))
    with_text = not isinstance(text, str)
    want = fit("hegraph", problem).predict_proba(Z)

    rows = rng.permutation(len(y))
    weight = None if problem["weight"] is None else problem["weight"][rows]
    got = fit("hegraph", problem, X=X[rows], y=y[rows], weight=weight).predict_proba(Z)
    np.testing.assert_allclose(got, want, atol=ATOL)

    # Classes that differ in the ninth digit: what parts them is the rounding of sums.
    assume(problem["kind"] != "near-identical")
    names = rng.permutation(y.max() + 1)  # class c is called names[c]
    renamed = text[np.argsort(names)] if with_text else text
    got = fit("hegraph", problem, y=names[y], text=renamed).predict_proba(Z)
    np.testing.assert_allclose(got[:, names], want, atol=ATOL)

    columns = rng.permutation(X.shape[1])
    turned = text[:, columns] if with_text else text
    got = fit("hegraph", problem, X=X[:, columns], text=turned).predict_proba(Z[:, columns])
    np.testing.assert_allclose(got, want, atol=ATOL)


def arrays_of(X: np.ndarray, path: Any) -> dict[str, Any]:
    """The same numbers in other containers."""
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(X.shape[1])])
    mapped = np.memmap(path, dtype=X.dtype, mode="w+", shape=X.shape)
    mapped[:] = X
    mapped.flush()
    frozen = X.copy()
    frozen.flags.writeable = False
    wide = np.zeros((len(X), 2 * X.shape[1]), X.dtype)
    wide[:, ::2] = X
    return {
        "read-only": frozen,
        "Fortran": np.asfortranarray(X),
        "memory-mapped": np.memmap(path, dtype=X.dtype, mode="r", shape=X.shape),
        "strided": wide[:, ::2],
        "big-endian": X.astype(X.dtype.newbyteorder(">")),
        "list": X.tolist(),
        "pandas": frame,
        "polars": pl.from_pandas(frame),
        "torch": torch.from_numpy(X.copy()),
    }


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, bool])
def test_containers_and_types(dtype: type, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 5)
    X = (3 * np.eye(4, 9)[y] + rng.normal(size=(20, 9))).round(1)
    X = (X > 0.5 if dtype is bool else 10 * X if dtype is np.int8 else X).astype(dtype)
    text = np.eye(4, 9)
    want = HeGraphClassifier(text_features=text).fit(X.astype(np.float64), y)
    for name, given_X in arrays_of(X, tmp_path / "X").items():
        before = copy.deepcopy(given_X)
        clf = HeGraphClassifier(text_features=text).fit(given_X, y)
        # float32 in, float32 products.
        np.testing.assert_allclose(clf.coef_, want.coef_, atol=1e-9, err_msg=name)
        proba = clf.predict_proba(given_X)
        np.testing.assert_allclose(
            proba, want.predict_proba(X.astype(np.float64)), atol=1e-5, err_msg=name
        )
        assert proba.dtype == np.float64
        np.testing.assert_array_equal(np.asarray(given_X), np.asarray(before))


def test_boolean_labels() -> None:
    X = np.vstack([np.eye(2, 5)] * 4) + np.random.default_rng(0).normal(scale=0.1, size=(8, 5))
    y = np.array([True, False] * 4)
    assert HeGraphClassifier(text_features="prototypes").fit(X, y).predict(X).tolist() == y.tolist()
    assert ZeroShotCLIPClassifier(text_features="prototypes").fit(X, y).classes_.dtype == bool


def test_three_hundred_classes_of_wildly_unequal_shots() -> None:
    rng = np.random.default_rng(0)
    text = rng.normal(size=(300, 24))
    y = np.repeat(
        np.arange(300), rng.permutation(np.r_[np.ones(150, int), rng.integers(1, 60, 150)])
    )
    X = text[y] + rng.normal(size=(len(y), 24))
    clf = HeGraphClassifier(text_features=text).fit(X, y)
    proba = clf.predict_proba(text)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    assert (proba.argmax(axis=1) == np.arange(300)).mean() > 0.9


WEIGHTED = [
    HeGraphClassifier,
    ZeroShotCLIPClassifier,
    HeGraphAdapterClassifier,
    partial(HeGraphAdapterClassifier, fusion="probabilities"),
    peers.CLAPClassifier,
    peers.GDAClassifier,
    peers.LPPlusPlusClassifier,
    peers.MAPLogisticRegression,
    peers.SSTextClassifier,
    peers.TextStartedLogisticRegression,
    peers.TipAdapterClassifier,
]
CODES = np.repeat([0, 1, 2], 6)
ROWS = np.eye(3, 8)[CODES] + 0.3 * np.random.default_rng(0).normal(size=(18, 8))


@pytest.mark.parametrize("make", WEIGHTED)
def test_wild_weights_of_rows_are_refused_and_others_give_numbers(make: Any) -> None:
    """`1e300` gave NaN, or a wrong answer, in some of the estimators."""
    clf = make(text_features=np.eye(3, 8))
    for value in (1e300, 1e-320, 1e51):
        with pytest.raises(ValueError, match=r"sample_weight holds .*: give weights from 1e-50 to"):
            clf.fit(ROWS, CODES, np.where(np.arange(18) == 3, value, 1.0))
    rng = np.random.default_rng(0)
    wild = [10.0 ** rng.uniform(-50, 50, 18), 10.0 ** (50 * rng.choice([-1, 0, 1], 18))]
    wild += [np.where(mask, 1e50, 1e-50) for mask in (CODES == 0, CODES != 0, np.arange(18) == 0)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in (ConvergenceWarning, FutureWarning, DeprecationWarning):  # torch's too
            warnings.filterwarnings("ignore", category=kind)
        for weight in [*wild, np.full(18, 1e50), np.full(18, 1e-50), rng.permutation(wild[0])]:
            proba = clf.fit(ROWS, CODES, weight).predict_proba(ROWS)
            np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)


def test_wild_weights_of_classes_are_refused_and_others_give_their_prior() -> None:
    """`1e308` gave a prior of NaN."""
    clf = HeGraphClassifier(text_features="prototypes")
    for value in (1e308, 1e-320, 10**400, np.nan):
        with pytest.raises(ValueError, match=r"class_weight=.*: expected for each label"):
            clf.set_params(class_weight={0: value, 1: value, 2: 1.0}).fit(ROWS, CODES)
    for values in ([1e50, 1e-50, 1.0], [np.float32(3), np.int8(2), True]):
        clf.set_params(class_weight=dict(enumerate(values))).fit(ROWS, CODES)
        want = np.log(np.array(values, dtype=float)) - np.log(float(sum(values)))
        np.testing.assert_allclose(clf.log_prior_, want, rtol=1e-6)
        assert np.isfinite(clf.predict_proba(ROWS)).all()


def test_the_cache_weighs_rows_within_their_class_in_single_precision_too() -> None:
    """A class whose rows all weigh `1e-50` had no cache for queries of float32."""
    weight = np.where(CODES == 0, 1e-50, 1.0)
    equal = HeGraphAdapterClassifier(text_features=np.eye(3, 8), visual_weight=1.0)
    clf = equal.fit(ROWS, CODES, weight)
    np.testing.assert_allclose(
        clf.decision_function(ROWS.astype(np.float32)), clf.decision_function(ROWS), atol=1e-4
    )
