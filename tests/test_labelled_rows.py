"""Labelled rows: what is refused, what is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from skhegraph.labelled_rows import LabelledRows, all_labels


def rows(y: list[Any], X: np.ndarray | None = None, weight: Any = None) -> LabelledRows:
    X = np.arange(len(y), dtype=np.float64)[:, None] if X is None else X
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    return LabelledRows(X, np.array(y), weight, np.arange(len(y)))


def test_the_first_rows_of_each_label_are_kept() -> None:
    kept = rows(["b", "a", "b", "b", "a", "c"], weight=[1, 1, 0, 2, 1, 1]).to_keep(2)
    assert kept.y.tolist() == ["b", "a", "b", "a", "c"]
    assert kept.number.tolist() == [0, 1, 3, 4, 5]
    assert kept.weight.tolist() == [1, 1, 2, 1, 1]
    assert rows(["a"] * 5).to_keep(None).number.tolist() == [0, 1, 2, 3, 4]


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
