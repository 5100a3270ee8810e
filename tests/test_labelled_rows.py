"""Labelled rows: what is refused, what is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from skhegraph import CLIPFeatures, HeGraphClassifier, ZeroShotCLIPClassifier
from skhegraph import make_hegraph_pipeline as make_pipeline
from skhegraph.labelled_rows import LabelledRows, all_labels
from skhegraph.peers import TipAdapterClassifier


def rows(y: list[Any], X: np.ndarray | None = None, weight: Any = None) -> LabelledRows:
    X = np.arange(len(y), dtype=np.float64)[:, None] if X is None else X
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    return LabelledRows(X, np.array(y), weight, np.arange(len(y)))


def test_rows_of_each_label_that_cover_it_are_kept() -> None:
    """Issue 17.6."""
    angle = np.deg2rad([0, 40, 1, 90, 44, 7, 2])
    X = 3 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    y = ["b", "b", "b", "b", "b", "a", "b"]
    kept = rows(y, X, weight=[1, 2, 1, 1, 0, 1, 1]).to_keep(3)
    # Of "b" the row at 40 is nearest to the mean, that at 90 is farthest from it, then that at 0.
    assert kept.number.tolist() == [0, 1, 3, 5]
    assert (kept.y.tolist(), kept.weight.tolist()) == (["b", "b", "b", "a"], [1, 2, 1, 1])
    np.testing.assert_array_equal(kept.X, X[[0, 1, 3, 5]])
    assert rows(["a"] * 5).to_keep(None).number.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_no_row_is_far_from_those_kept(scale: float) -> None:
    """Issue 17.6: the largest distance is below that of the first rows, and of random ones."""
    rng = np.random.RandomState(0)
    centres = np.repeat(rng.standard_normal((5, 16)), 40, axis=0)  # one after another
    X = (centres + 0.3 * rng.standard_normal(centres.shape)) * scale

    def farthest(chosen: np.ndarray) -> float:
        Z = X / scale
        Z /= np.linalg.norm(Z, axis=1, keepdims=True)
        return float(np.linalg.norm(Z[:, None] - Z[chosen], axis=2).min(axis=1).max())

    kept = rows(["a"] * len(X), X).to_keep(20).number
    assert len(set(kept)) == 20
    assert farthest(kept) < 0.6 * farthest(np.arange(20))
    assert farthest(kept) < min(farthest(rng.permutation(len(X))[:20]) for _ in range(20))


def test_equal_rows_are_kept_one_after_another() -> None:
    assert rows(["a"] * 6, np.ones((6, 3))).to_keep(4).number.tolist() == [0, 1, 2, 3]
    assert len(rows(["a"] * 6, np.zeros((6, 3))).to_keep(4).y) == 4


@pytest.mark.parametrize(("value", "dtype"), [(0.5, np.float32), (0.1, np.float64)])
def test_rows_are_kept_in_single_precision_where_nothing_is_lost(value: float, dtype: type) -> None:
    kept = rows(["a", "b"], np.full((2, 3), value)).to_keep(None)
    assert kept.X.dtype == dtype
    np.testing.assert_array_equal(kept.X, value)


def test_later_rows_are_numbered_after_all_that_were_given() -> None:
    both = rows(["a", "b"]).followed_by(rows(["longer"]), n_given=7)
    assert both.number.tolist() == [0, 1, 7]
    assert both.y.tolist() == ["a", "b", "longer"]
    with pytest.raises(ValueError, match=r"y holds labels of type int64.*given before.*<U1"):
        rows(["a", "b"]).followed_by(rows([1]), n_given=2)


@pytest.mark.parametrize(
    ("first", "then"), [("u8", "i8"), ("i8", "u8"), ("u8", "u8"), ("i2", "u4")]
)
def test_integers_of_any_type_stay_integers(first: str, then: str) -> None:
    """NumPy makes floats of signed and unsigned ones, which tell no large integers apart."""
    labels = np.arange(3) if "2" in first else 2**53 + np.arange(3)
    X, y = np.random.default_rng(0).normal(size=(12, 4)), np.tile(labels, 4)
    clf = HeGraphClassifier(text_features="prototypes").partial_fit(X[:6], y[:6].astype(first))
    clf.partial_fit(X[6:], y[6:].astype(then))
    assert clf.classes_.dtype.kind in "iu" and clf.classes_.tolist() == labels.tolist()
    assert clf.labels_seen_.dtype.kind in "iu" and clf.labels_seen_.tolist() == labels.tolist()
    again = HeGraphClassifier(text_features="prototypes")
    again.fit(X, y.astype(first), classes=labels.astype(then))
    assert again.labels_seen_.dtype.kind in "iu" and again.labels_seen_.tolist() == labels.tolist()


def test_all_labels() -> None:
    labels, asked = all_labels(np.array(["b", "a", "b"]), None)
    assert (labels.tolist(), asked.tolist()) == (["a", "b"], [False, False])
    labels, asked = all_labels(np.array([3, 1]), [5, 1, 3])
    assert (labels.tolist(), asked.tolist()) == ([1, 3, 5], [True] * 3)
    labels, _ = all_labels(np.array(["a", "b"], dtype=object), ["a", "b", "c"])
    assert labels.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a"], "y holds 'b', which is not in classes"),
        ([1, 2], "list of labels.*of the type of y"),
        ("ab", "list of labels"),
        ([["a", "b"]], "list of labels"),
    ],
)
def test_bad_classes(classes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        all_labels(np.array(["a", "b"]), classes)


MISSING = [
    ["a", None, "b", "a"],
    ["a", np.nan, "b", "a"],
    ["a", pd.NA, "b", "a"],
    np.array(["a", None, "b", "a"], dtype=object),
    np.array([0.0, np.nan, 1.0, 0.0]),
    pd.Series(["a", None, "b", "a"]),
    pd.Series(["a", None, "b", "a"], dtype="category"),
    pd.Series([0, None, 1, 0], dtype="Int64"),
    pd.Series(pd.to_datetime(["2020-01-01", None, "2020-01-02", "2020-01-01"])),
    np.ma.array([0, 9, 1, 0], mask=[0, 1, 0, 0]),
    np.ma.array([0.0, 9.0, 1.0, 0.0], mask=[0, 1, 0, 0]),
    np.ma.array(list("abcd"), mask=[0, 1, 0, 0]),
    pa.array(["a", None, "b", "a"]),
]


@pytest.mark.parametrize("y", MISSING, ids=range(len(MISSING)))
def test_missing_labels_are_refused_in_one_sentence(y: Any) -> None:
    """Issue 17.33."""
    message = r"y has no label \(None, NaN or NA\) in row 1: give each image a label"
    X = np.eye(4)
    for clf in (HeGraphClassifier(), TipAdapterClassifier(), ZeroShotCLIPClassifier()):
        with pytest.raises(ValueError, match=message):
            clf.fit(X, y)
    with pytest.raises(ValueError, match=message):
        HeGraphClassifier().partial_fit(X, y)
    with pytest.raises(ValueError, match=message):
        ZeroShotCLIPClassifier("skhegraph-tiny").fit(None, y)


@pytest.mark.parametrize("y", MISSING, ids=range(len(MISSING)))
def test_missing_labels_are_refused_before_an_image_is_encoded(
    y: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 17.33."""
    images = [np.zeros((8, 8)) + shade for shade in (0.1, 0.2, 0.3, 0.4)]
    monkeypatch.setattr(CLIPFeatures, "_rows", None)  # never called
    with pytest.raises(ValueError, match="y has no label"):
        make_pipeline("skhegraph-tiny").fit(images, y)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[4, 3\]"):
        make_pipeline("skhegraph-tiny").fit(images, ["a", "b", "a"])


@pytest.mark.parametrize(
    "y",
    [["a", 1, "b", "a"], np.array(["a", 1, "b", "a"], dtype=object), pd.Series(["a", 1, "b", "a"])],
)
def test_labels_of_several_types_are_refused_in_one_sentence(y: Any) -> None:
    """Issue 17.33, the kind: a message about '<', and of a list the label '1'."""
    for clf in (HeGraphClassifier(), ZeroShotCLIPClassifier()):
        with pytest.raises(ValueError, match=r"y holds labels of several types \(int, str\)"):
            clf.fit(np.eye(4), y)
    with pytest.raises(ValueError, match="classes holds labels of several types"):
        all_labels(np.array(["a", "b"]), y)


@pytest.mark.parametrize("y", [pa.array(["a", "b", "c", "a"]), np.ma.array([1, 2, 3, 1])])
def test_labels_in_other_containers(y: Any) -> None:
    clf = HeGraphClassifier(text_features="prototypes").fit(np.eye(4) + 0.01, y)
    assert clf.predict(np.eye(4)).tolist() == np.asarray(y).tolist()


def test_a_missing_label_among_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"classes has no label .* in row 2"):
        all_labels(np.array(["a", "b"]), ["a", "b", np.nan])
