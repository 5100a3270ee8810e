"""Explanations: against numbers worked by hand, and against the probabilities they explain."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from skhegraph import HeGraphClassifier
from skhegraph.hegraph.evidence import PARTS


@pytest.fixture
def by_hand():
    """A classifier of three classes and two features whose fitted arrays are small numbers."""
    clf = HeGraphClassifier(text_features=np.eye(3, 2), logit_scale=10.0)
    clf.classes_ = np.array(["ape", "bee", "cat"])
    clf.n_features_in_, clf.logit_scale_, clf.text_weight_ = 2, 10.0, 0.5
    clf.graph_ = {"positive": np.array([[1, 0], [0, 1], [-1, 0]], dtype=np.float32)}
    residual = np.array([[0.0, 2.0], [0.0, 0.0], [1.0, 0.0]])
    clf.text_coef_ = 5.0 * clf.graph_["positive"] + residual
    clf.text_intercept_ = np.array([0.0, 0.5, 0.0])
    clf.visual_coef_ = np.array([[3.0, 0.0], [1.0, 1.0], [0.0, -2.0]])
    clf.visual_intercept_ = np.array([-1.0, 0.0, 0.0])
    clf.log_prior_ = np.log([0.5, 0.25, 0.25])
    clf.coef_ = clf.text_coef_ + clf.visual_coef_
    clf.intercept_ = clf.text_intercept_ + clf.visual_intercept_ + clf.log_prior_
    # Rows 7, 4 and 2 of fit's X are of "ape", row 0 of "bee"; "cat" has a name alone.
    clf.support_features_ = np.array([[2.0, 0], [0, 3], [-1, 0], [0, 1]], dtype=np.float32)
    clf.support_labels_, clf.support_index_ = np.array([0, 0, 0, 1]), np.array([7, 4, 2, 0])
    clf.support_share_, clf.visual_weight_ = np.array([0.25, 0.5, 0.25, 1.0]), 2.0
    clf.visual_whitener_ = np.array([[2.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    clf.visual_centre_ = np.array([0.5, 0.0], dtype=np.float32)
    clf.prompts_, clf.prompt_features_ = [], np.empty((0, 2), dtype=np.float32)
    clf.support_whole_ = True
    return clf


def fitted(n_classes=4, seed=0, **params):
    rng = np.random.RandomState(seed)
    text = rng.standard_normal((n_classes, 12))
    y = np.repeat([f"c{c}" for c in range(n_classes)], 5)
    X = np.repeat(text, 5, axis=0) + 0.8 * rng.standard_normal((len(y), 12))
    return HeGraphClassifier(text_features=text, **params).fit(X, y), X, y


def test_parts_of_the_logits_worked_by_hand(by_hand):
    # z = (1, 0): text 5, 0, -5; visual 2, 1, 0; residual 0, 0.5, 1; each less its mean.
    frame = by_hand.explain([[4.0, 0.0]], n_classes=3)
    assert list(frame["class"]) == ["ape", "bee", "cat"]
    assert list(frame["rank"]) == [1, 2, 3]
    np.testing.assert_allclose(frame["text"], [5, 0, -5], atol=1e-12)
    np.testing.assert_allclose(frame["visual"], [1, 0, -1], atol=1e-12)
    np.testing.assert_allclose(frame["residual"], [-0.5, 0, 0.5], atol=1e-12)
    prior = np.log(2) * np.array([2, -1, -1]) / 3
    np.testing.assert_allclose(frame["prior"], prior, atol=1e-12)
    np.testing.assert_allclose(frame["text_share"][0], 5 / (6.5 + prior[0]))
    np.testing.assert_allclose(frame["visual_share"][2], -1 / (6.5 - prior[2]))
    e = np.exp([7 + np.log(2), 1.5, -4])
    np.testing.assert_allclose(frame["probability"], e / e.sum(), rtol=1e-12)


def test_support_rows_worked_by_hand(by_hand):
    # W(z - m0) = (1, 0); W(x - m0) = (1, 0), (-1, 1), (-3, 0) for the rows 7, 4, 2 of "ape".
    frame = by_hand.explain([[4.0, 0.0]], n_classes=3, n_support=2)
    assert frame["support"][0] == (7, 4)
    np.testing.assert_allclose(frame["support_parts"][0], (0.5, -1.0))
    assert frame["support"][1] == (0,)
    np.testing.assert_allclose(frame["support_parts"][1], (-2.0,))
    assert frame["support"][2] == () and frame["support_parts"][2] == ()


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("params", [{}, {"text_weight": 0.0}, {"class_weight": {"c0": 3.0}}])
def test_evidence_differs_by_the_log_odds(n_classes, params):
    if "class_weight" in params:
        params = {"class_weight": {f"c{c}": c + 1.0 for c in range(n_classes)}}
    clf, X, _ = fitted(n_classes, **params)
    frame = clf.explain(X, n_classes=n_classes)
    total = frame[list(PARTS)].sum(axis=1).to_numpy().reshape(len(X), n_classes)
    proba = frame["probability"].to_numpy().reshape(len(X), n_classes)
    np.testing.assert_allclose(
        total[:, :1] - total, np.log(proba[:, :1] / proba), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(proba, -np.sort(-clf.predict_proba(X), axis=1), rtol=1e-6)
    assert list(frame["class"][frame["rank"] == 1]) == list(clf.predict(X))


def test_shares_are_parts_of_the_whole():
    clf, X, _ = fitted()
    frame = clf.explain(X)
    whole = frame[list(PARTS)].abs().sum(axis=1)
    np.testing.assert_allclose(frame["text_share"] * whole, frame["text"])
    assert (frame["text_share"].abs() + frame["visual_share"].abs() <= 1 + 1e-12).all()


def test_a_support_row_speaks_most_for_itself():
    clf, X, y = fitted()
    frame = clf.explain(X, n_classes=1, n_support=1)
    first = [rows[0] for rows in frame["support"]]
    assert np.mean(np.array(first) == np.arange(len(y))) > 0.5  # chance: 0.2
    assert (y[first] == frame["class"]).all()


def test_late_rows_are_named_where_fit_keeps_a_part():
    """Issue 17.6: of rows 64 to 99 themselves none was named."""
    rng = np.random.RandomState(0)
    X, y = rng.standard_normal((200, 64)), np.repeat(["a", "b"], 100)
    X[y == "b"] += 1
    clf = HeGraphClassifier(text_features="prototypes").fit(X, y)
    frame = clf.explain(X[64:100], n_classes=2, n_support=1)
    own = frame[frame["class"] == "a"]
    named = np.array([rows[0] for rows in own["support"]]) == np.arange(64, 100)
    np.testing.assert_array_equal(named, np.isin(np.arange(64, 100), clf.support_index_))
    assert named.sum() >= 18
    assert list(frame["support_of"].unique()) == ["the kept rows"]
    few = HeGraphClassifier(text_features="prototypes").fit(X[::2], y[::2]).explain(X[:2])
    assert list(few["support_of"].unique()) == ["all rows"]


def test_parts_of_support_rows_make_the_visual_logit():
    """Without text, and with as many rows in each class, nothing else speaks."""
    clf, X, y = fitted()
    clf.set_params(text_features="prototypes").fit(X, y)
    z = X[:1] / np.linalg.norm(X[:1])
    frame = clf.explain(X[:1], n_classes=4, n_support=5)
    assert [len(rows) for rows in frame["support"]] == [5] * 4
    total = np.array([sum(parts) for parts in frame["support_parts"]])
    order = [list(clf.classes_).index(label) for label in frame["class"]]
    linear = ((z - clf.visual_centre_) @ clf.visual_coef_.T)[0][order]
    np.testing.assert_allclose(total, linear, rtol=1e-4, atol=1e-4)


def test_chunks_change_nothing(monkeypatch):
    clf, X, _ = fitted()
    whole = clf.explain(X)
    monkeypatch.setattr("skhegraph.hegraph.evidence.QUERIES_PER_CHUNK", 3)
    parts = clf.explain(X)
    assert list(parts["support"]) == list(whole["support"])
    np.testing.assert_allclose(parts[list(PARTS)], whole[list(PARTS)], atol=1e-10)


def test_prompts_worked_by_hand(by_hand):
    by_hand.prompts_ = [["one ape", "two apes"], ["a bee"], ["a cat"]]
    by_hand.prompt_features_ = np.array([[0.6, 0.8], [0.8, -0.6], [0, 1], [-1, 0]], np.float32)
    frame = by_hand.explain([[4.0, 0.0]], n_classes=3)
    # a tau = 5; the sum of the two prompts of "ape" has length sqrt(1.4^2 + 0.2^2) = sqrt(2).
    assert frame["prompts"][0] == ("two apes", "one ape")
    np.testing.assert_allclose(frame["prompt_parts"][0], np.array([4, 3]) / np.sqrt(2), rtol=1e-6)
    assert frame["prompts"][1:].tolist() == [("a bee",), ("a cat",)]
    np.testing.assert_allclose(frame["prompt_parts"][2], (-5,))


def test_parts_of_prompts_add_up_to_the_text_logit():
    rng = np.random.RandomState(0)
    X, y = rng.standard_normal((6, 128)), np.repeat(["cat", "dog"], 3)
    clf = HeGraphClassifier("skhegraph-tiny", templates=["a {}.", "{} art."], device="cpu")
    frame = clf.fit(X, y).explain(X[:1])
    assert {c: set(p) for c, p in zip(frame["class"], frame["prompts"], strict=True)} == {
        "cat": {"a cat.", "cat art."},
        "dog": {"a dog.", "dog art."},
    }
    total = frame["prompt_parts"].map(sum)
    np.testing.assert_allclose(total - total.mean(), frame["text"], atol=1e-4)
    clf.set_params(templates="photo")  # what was fitted counts
    assert set(clf.explain(X[:1])["prompts"][0]) == set(frame["prompts"][0])


@pytest.mark.parametrize("names", [None, {"cat": "cat", "dog": "dog", "cow": "cow"}, "list"])
def test_prompts_where_a_class_has_no_weight(names):
    rng = np.random.RandomState(0)
    X, y = rng.standard_normal((6, 128)), np.repeat(["cat", "cow", "dog"], 2)
    templates = {name: f"one {name}." for name in ("cat", "cow", "dog")}
    given = sorted(templates) if names == "list" else names
    clf = HeGraphClassifier("skhegraph-tiny", class_names=given, templates=templates, device="cpu")
    frame = clf.fit(X, y, sample_weight=[1, 1, 0, 0, 1, 1]).explain(X[:1])
    assert set(frame["prompts"]) == {("one cat.",), ("one dog.",)}


def test_a_class_with_a_name_alone_has_no_rows():
    rng = np.random.RandomState(0)
    X, y = rng.standard_normal((6, 12)), np.repeat(["a", "b"], 3)
    clf = HeGraphClassifier(text_features=np.eye(3, 12)).fit(X, y, classes=["a", "b", "c"])
    frame = clf.explain(X[:1])
    rows = dict(zip(frame["class"], frame["support"], strict=True))
    assert rows["c"] == () and sorted(rows["a"]) == [0, 1, 2]


def test_more_classes_than_there_are_gives_all(by_hand):
    assert len(by_hand.explain([[1.0, 0.0], [0.0, 1.0]], n_classes=99)) == 6


def test_what_is_refused(by_hand):
    with pytest.raises(ValueError, match="n_classes"):
        by_hand.explain([[1.0, 0.0]], n_classes=0)
    with pytest.raises(TypeError, match="n_support"):
        by_hand.explain([[1.0, 0.0]], n_support=1.5)
    with pytest.raises(ValueError, match="row 1"):
        by_hand.explain([[1.0, 0.0], [np.nan, np.nan]])
    with pytest.raises(ValueError, match="features"):
        by_hand.explain([[1.0, 0.0, 2.0]])


def test_without_pandas(by_hand, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="explain requires pandas"):
        by_hand.explain([[1.0, 0.0]])
