"""Very many rows: what is kept, what is summed, and what a fit makes of it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss

from skhegraph import HeGraphClassifier, many_rows
from skhegraph.hegraph import adaptation
from skhegraph.hegraph.adaptation import loss_weights
from skhegraph.hegraph.visual import VisualModel
from skhegraph.labelled_rows import LabelledRows
from skhegraph.many_rows import hash_rows, keep_some, most_rows
from skhegraph.support import Summed, Support, distinct_rows, effective_weights, unit_rows

WIDTH, KEPT = 12, 150


@pytest.fixture
def few_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of more than 150 rows are large, as those of more than 65,536 are at 512 features."""
    monkeypatch.setattr(many_rows, "NUMBERS_KEPT", WIDTH * KEPT)
    monkeypatch.setattr(many_rows, "ROWS_OF_A_CLASS", 10)


def make_data(shots: tuple[int, ...] = (400, 300, 1, 200)) -> tuple[np.ndarray, ...]:
    """Rows and labels, and positive and negative text."""
    rng = np.random.default_rng(0)
    text = rng.normal(size=(len(shots), WIDTH))
    y = rng.permutation(np.repeat(np.arange(len(shots)), shots))
    X = 3 + text[y] + 1.5 * rng.normal(size=(len(y), WIDTH))
    return X.astype(np.float32), y, 3 + text, 3 - text


def hegraph(text: np.ndarray, negative: np.ndarray, **params: Any) -> HeGraphClassifier:
    return HeGraphClassifier(text_features=(text, negative), **params)


def labelled(X: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> LabelledRows:
    weight = np.ones(len(y)) if weight is None else weight
    return LabelledRows(X, y, weight, np.arange(len(y)))


def as_support(rows: LabelledRows, text: np.ndarray) -> Support:
    X, P = unit_rows(rows.X.astype(np.float64)), unit_rows(text)
    return Support(X, rows.y.astype(np.intp), rows.weight, P, -P, 100.0, summed=rows.summed)


def test_kept_and_summed_rows_are_all_rows(few_kept: None) -> None:
    X, y, *_ = make_data()
    weight = np.random.default_rng(1).uniform(0.5, 2, len(y))
    weight[::9] = 0
    weight[y == 2] = 1.5
    chosen = np.arange(len(y)) % 7 != 3
    chosen[y == 2] = True
    X[~chosen] = np.nan
    rows = keep_some(labelled(X, np.array(list("dbac"))[y], weight), chosen)
    assert set(rows.y) == set("abcd") and chosen[rows.number].all()
    assert len(rows.y) <= KEPT and (np.diff(rows.number) > 0).all()
    # Of each class as many, but for that which has a single row.
    assert np.unique(rows.y, return_counts=True)[1].tolist() == [1, 49, 49, 49]
    np.testing.assert_array_equal(rows.X, X[rows.number])
    np.testing.assert_array_equal(rows.weight, weight[rows.number])
    left = chosen.copy()
    left[rows.number] = False
    Z, summed = X.astype(np.float64), rows.summed
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    assert isinstance(summed, Summed)
    scatter = np.zeros((WIDTH, WIDTH))
    for c, label in enumerate("abcd"):
        own = left & (y == "dbac".index(label))
        w = weight[own]
        np.testing.assert_allclose(summed.counts[c], w.sum(), rtol=1e-13)
        np.testing.assert_allclose(summed.squares[c], (w**2).sum(), rtol=1e-13)
        np.testing.assert_allclose(summed.sums[c], w @ Z[own], rtol=1e-12, atol=1e-13)
        away = Z[own] - np.average(Z[own], axis=0, weights=w) if own.any() else Z[:0]
        scatter += (w[:, None] * away).T @ away
    np.testing.assert_allclose(summed.scatter, scatter, rtol=1e-11, atol=1e-12)


def test_statistics_and_left_out_logits_are_those_of_all_rows(few_kept: None) -> None:
    """As if the others were rows: closed forms of the kept ones are of sets with all rows."""
    X, y, text, _ = make_data()
    weight = np.random.default_rng(1).uniform(0.5, 2, len(y))
    all_rows = labelled(X, y, weight)
    some = keep_some(all_rows, np.ones(len(y), dtype=bool))
    whole, part = as_support(all_rows, text), as_support(some, text)
    for name in ("shots", "mass", "visual", "n_rows"):
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name), rtol=1e-12)
    models = [VisualModel(support, support.positive) for support in (whole, part)]
    np.testing.assert_allclose(models[1].scatter, models[0].scatter, rtol=1e-10)
    assert models[1].messages.noise == pytest.approx(models[0].messages.noise, rel=1e-12)
    assert models[1].df == pytest.approx(models[0].df, rel=1e-12)
    prior = np.array([0.1, 0.2, 0.3, 0.4])  # the kept rows of a class stand for all of it
    loss = np.bincount(part.y, loss_weights(part, prior))
    np.testing.assert_allclose(loss / loss.sum(), prior, rtol=1e-12)
    want = models[0].at(0.3).leave_one_out(some.number)
    got = models[1].at(0.3).leave_one_out(np.arange(len(some.y)))
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)


def test_zero_is_zero_whatever_its_sign() -> None:
    X = np.array([[0.0, 1.0], [-0.0, 1.0], [-1.0, 0.0]])
    hashes = hash_rows(X, np.arange(3))
    assert hashes[0] == hashes[1] != hashes[2]


def test_rows_of_weight_zero_take_no_place(few_kept: None) -> None:
    X, y, *_ = make_data()
    weight = (np.random.default_rng(1).uniform(size=len(y)) < 0.1) * 1.0
    rows = keep_some(labelled(X, y, weight), np.ones(len(y), dtype=bool))
    assert rows.summed is not None and not rows.summed.counts.any()
    np.testing.assert_array_equal(rows.number[rows.weight > 0], np.flatnonzero(weight))


def test_familiarity_knows_how_many_rows_there_are(few_kept: None, monkeypatch: Any) -> None:
    known = []
    original = adaptation.familiarity_scale
    monkeypatch.setattr(
        adaptation, "familiarity_scale", lambda *args: (known.append(args[3]), original(*args))[1]
    )
    X, y, *text = make_data()
    hegraph(*text).fit(X, y)
    assert known == [pytest.approx(1 - np.mean(1 / np.bincount(y)), rel=1e-12)]


def test_weights_count_as_effective_numbers_of_all_rows(few_kept: None) -> None:
    X, y, *text = make_data()
    weight = np.random.default_rng(1).uniform(0.5, 2, len(y))
    clf = hegraph(*text)
    rows, _ = clf._validate_rows(X, y, weight, take=keep_some)
    support = clf._support(rows, distinct=True)
    assert support.n_rows == pytest.approx(effective_weights(weight).sum(), rel=1e-12)
    want = np.bincount(y, effective_weights(weight))
    np.testing.assert_allclose(support.shots, want, rtol=1e-12)


def test_the_classifier_is_nearly_that_of_all_rows_as_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """On other rows; that of the kept rows alone is worse."""
    X, y, *text = make_data((2000, 1500, 1001, 2000))
    weight = np.random.default_rng(1).integers(1, 3, len(y)).astype(np.float64)
    train = np.arange(len(y)) % 2 == 0
    data = X[train], y[train], weight[train]
    want = hegraph(*text, class_weight=None).fit(*data)
    monkeypatch.setattr(many_rows, "NUMBERS_KEPT", WIDTH * 500)
    got = hegraph(*text, class_weight=None).fit(*data)
    some = keep_some(labelled(*data), np.ones(len(data[1]), dtype=bool))
    alone = hegraph(*text, class_weight=None).fit(some.X, some.y, some.weight)
    np.testing.assert_allclose(got.graph_["visual"], want.graph_["visual"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(got.log_prior_, want.log_prior_, rtol=1e-12)
    losses = [log_loss(y[~train], clf.predict_proba(X[~train])) for clf in (want, got, alone)]
    assert losses[1] < losses[0] + 0.01 < losses[2]
    scores = [clf.score_samples(X[~train]) for clf in (want, got)]
    assert np.abs(scores[0] - scores[1]).mean() < 0.15


@pytest.mark.parametrize("source", ["text", "prototypes"])
def test_the_order_of_the_rows_does_not_matter(few_kept: None, source: str) -> None:
    X, y, *text = make_data()
    weight = np.random.default_rng(1).uniform(0.5, 2, len(y))
    params: Any = {"text_features": tuple(text) if source == "text" else source}
    order = np.random.default_rng(2).permutation(len(y))
    one = HeGraphClassifier(**params).fit(X, y, weight)
    other = HeGraphClassifier(**params).fit(X[order], y[order], weight[order])
    np.testing.assert_allclose(other.predict_proba(X), one.predict_proba(X), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(np.sort(order[other.support_index_]), np.sort(one.support_index_))
    if source == "prototypes":
        means = [unit_rows(X.astype(np.float64))[y == c] for c in range(4)]
        want = [np.average(Z, axis=0, weights=weight[y == c]) for c, Z in enumerate(means)]
        np.testing.assert_allclose(one.graph_["positive"], unit_rows(want), rtol=1e-6)


def test_equal_rows_count_as_weights(few_kept: None) -> None:
    X, y, *text = make_data()
    twice = np.concatenate([np.arange(len(y)), np.arange(0, len(y), 2)])
    weight = 1.0 + (np.arange(len(y)) % 2 == 0)
    one, other = hegraph(*text).fit(X, y, weight), hegraph(*text).fit(X[twice], y[twice])
    np.testing.assert_allclose(other.predict_proba(X), one.predict_proba(X), rtol=0, atol=1e-6)
    rows = keep_some(labelled(X[:100].repeat(9, axis=0), y[:100].repeat(9)), np.ones(900, bool))
    assert rows.summed is None and (rows.weight == 9).all()  # a hundred, and these are all
    np.testing.assert_array_equal(rows.X, X[:100])


def test_hashes_tell_rows_apart_whatever_their_precision_and_block() -> None:
    X = np.random.default_rng(0).normal(size=(3000, 65)).astype(np.float16)
    X[1::2] = X[::2]
    X[1::2, 3] += 1e-3 * np.abs(X[1::2, 3]) + 0.01  # by little
    every = np.arange(len(X))
    hashes = hash_rows(X, every)
    assert len(np.unique(hashes)) == len(np.unique(X, axis=0))
    np.testing.assert_array_equal(hash_rows(X.astype(np.float32), every), hashes)
    np.testing.assert_array_equal(hash_rows(np.asfortranarray(X, float), every[7:]), hashes[7:])
    np.testing.assert_array_equal(hash_rows(2 * X, every), hashes)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_file_is_read_in_blocks(tmp_path: Path, dtype: type, monkeypatch: Any) -> None:
    """The peak is that of the rows that are kept and of some numbers for each row."""
    monkeypatch.setattr(many_rows, "NUMBERS_KEPT", 2**18)  # 4,096 rows
    n_rows, width, rng = 100_000, 64, np.random.default_rng(0)
    file = np.lib.format.open_memmap(
        tmp_path / "X.npy", mode="w+", dtype=dtype, shape=(n_rows, width)
    )
    y = np.arange(n_rows) % 5
    for start in range(0, n_rows, 10_000):
        block = rng.normal(size=(10_000, width)) + 0.5 * np.eye(5, width)[y[:10_000]]
        file[start : start + 10_000] = block
    file[17] = np.nan  # an unreadable image
    clf = HeGraphClassifier(text_features="prototypes")
    clf.fit(file[18:100], y[18:100])
    tracemalloc.start()
    with pytest.warns(UserWarning, match="left out of the fit: row 17 of X"):
        clf.fit(file, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # in double precision the rows are 51 MB
    assert clf.coef_.dtype == (np.float32 if dtype == np.float32 else np.float64)
    assert clf.score(file[18:5000], y[18:5000]) > 0.25
    file[30_000, 3] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        clf.fit(file, y)


def test_what_goes_with_it(few_kept: None) -> None:
    """Classes of a name alone, rows without a label, one class alone, later rows."""
    X, y, *text = make_data()
    later = y != 3
    clf = hegraph(*text).fit(X[later], y[later], classes=range(4))
    assert clf.classes_.tolist() == [0, 1, 2, 3] and clf.support_whole_ is False
    np.testing.assert_allclose(clf.predict_proba(X).sum(axis=1), 1)
    with pytest.raises(ValueError, match="call partial_fit from the start"):
        clf.partial_fit(X[~later], y[~later])
    one = hegraph(*text).fit(X[y == 0], y[y == 0], classes=range(4))
    whole = hegraph(*text).partial_fit(X[y == 0], y[y == 0], classes=range(4))  # keeps all
    np.testing.assert_allclose(one.predict_proba(X), whole.predict_proba(X), rtol=0, atol=2e-2)
    np.testing.assert_allclose(one.visual_nodes_, whole.visual_nodes_, rtol=1e-4, atol=1e-5)
    partly = np.where((np.arange(len(y)) % 4 == 0) & (y != 2), -1, y)
    some, every = hegraph(*text).fit(X, partly), hegraph(*text).partial_fit(X, partly)
    guessed = hegraph(*text).fit(X, np.where(y == 0, 0, -1), classes=range(4))
    assert guessed.score(X, y) > 0.7
    assert some.n_unlabelled_ == every.n_unlabelled_ == (partly == -1).sum()
    assert np.abs(some.predict_proba(X) - every.predict_proba(X)).mean() < 0.03
    names = np.array(["ant", "bee", "cat", "dog"])[y]
    named = HeGraphClassifier(text_features=dict(zip(sorted(set(names)), text[0], strict=True)))
    weight = np.where(names == "cat", 0.0, 1.0)
    assert named.fit(X, names, weight).classes_.tolist() == ["ant", "bee", "dog"]
    assert named.labels_seen_.tolist() == ["ant", "bee", "cat", "dog"]


def test_shares_of_kept_rows_are_of_all_rows(few_kept: None) -> None:
    X, y, *text = make_data()
    some, every = hegraph(*text).fit(X, y), hegraph(*text).partial_fit(X, y)
    assert np.bincount(some.support_labels_).tolist() == [49, 49, 1, 49]
    assert every.support_whole_ and not some.support_whole_
    share = dict(zip(every.support_index_, every.support_share_, strict=True))
    want = [share[number] for number in some.support_index_]
    np.testing.assert_allclose(some.support_share_, want, rtol=0.1)


def test_how_many_rows_are_kept() -> None:
    assert most_rows(10, 512) == 65_536
    assert most_rows(1000, 512) == 256_000
    assert most_rows(2, 10_000) == 10_000  # in no span of the rows


def test_equal_rows_of_a_small_set_are_not_touched() -> None:
    """Below the bound nothing changes: the rows are taken, and merged as before."""
    X, y, _, _ = make_data()
    chosen = np.arange(len(y)) % 2 == 0
    rows = keep_some(labelled(X, y), chosen)
    np.testing.assert_array_equal(rows.X, X[chosen])
    assert rows.summed is None and len(distinct_rows(X, y, np.ones(len(y)))[1]) == len(y)
