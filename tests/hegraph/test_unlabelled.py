"""Rows without a label: what they add to the graph, by hand, and how they are given."""

from __future__ import annotations

import pickle
import warnings
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skhegraph import HeGraphClassifier, ZeroShotCLIPClassifier
from skhegraph.clip.model import load_backbone
from skhegraph.hegraph import classifier as classifier_module
from skhegraph.hegraph import unlabelled as unlabelled_module
from skhegraph.hegraph.adaptation import adapt
from skhegraph.hegraph.class_graph import Paths
from skhegraph.hegraph.unlabelled import (
    Guess,
    Strengths,
    Unlabelled,
    adapt_with_unlabelled,
    folds,
    median,
    mixture_of,
    of_all_classes,
    some_rows,
)
from skhegraph.hegraph.visual import VisualModel
from skhegraph.support import Mixture, Support, distinct_rows, mean_of_others, unit_rows

C, D = 4, 10
RNG = np.random.default_rng(0)
TEXT = np.eye(C, D) + RNG.normal(size=(C, D)) * 0.3
AUTO = Strengths(None, None, None, None, None, Paths(0.25, 1.5, 0.1), 3.0)
PRIOR = np.full(C, 1 / C)


def rows_of(y: np.ndarray, seed: int, noise: float = 0.35) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.eye(C, D)[y] + noise * rng.normal(size=(len(y), D))


Y = np.repeat(np.arange(C), [3, 2, 1, 4])
X = rows_of(Y, 1)
TRUTH = np.random.default_rng(2).integers(C, size=60)
OTHERS = rows_of(TRUTH, 3)
BOTH, PARTLY = np.vstack([X, OTHERS]), np.concatenate([Y, np.full(60, -1)])


def support() -> Support:
    P = unit_rows(TEXT)
    N = unit_rows(mean_of_others(TEXT))
    rows, y, weight = distinct_rows(unit_rows(X), Y.astype(np.intp), np.ones(len(Y)))
    return Support(rows, y, weight, P, N, 20.0)


def hegraph(**params: Any) -> HeGraphClassifier:
    return HeGraphClassifier(**{"text_features": TEXT, "logit_scale": 20.0, **params})


# --- by hand --------------------------------------------------------------------------------------


def test_mixture_by_hand() -> None:
    weight = np.linspace(0.5, 2, 60)
    adapted = adapt(support(), PRIOR, AUTO, True)
    guess = Guess.of(support(), adapted, PRIOR)
    mixture = mixture_of(Unlabelled(OTHERS, weight), guess)
    clf = hegraph().fit(X, Y)
    proba, score = clf.predict_proba(OTHERS), clf.score_samples(OTHERS)
    known = np.minimum(2 * norm.cdf(score - min(np.median(score), 0)), 1)
    part = weight[:, None] * known[:, None] * proba**2
    np.testing.assert_allclose(mixture.counts, part.sum(axis=0), rtol=1e-6)
    unit = OTHERS / np.linalg.norm(OTHERS, axis=1, keepdims=True)
    for c in range(C):
        want = sum(part[u, c] * unit[u] for u in range(60))
        np.testing.assert_allclose(mixture.sums[c], want, rtol=1e-5, atol=1e-7)


def test_visual_nodes_with_a_mixture_by_hand() -> None:
    """Without text: `V_c = m0 + v / (v + s / n_c) (m_c - m0)`, with all rows in `m_c` and `n_c`."""
    alone = VisualModel(support(), None)
    counts = np.array([0.5, 3.0, 7.0, 1e-9])
    U = unit_rows(rows_of(np.arange(C), 5))
    whole = Support(**{**vars_of(support()), "mixture": Mixture(counts, counts[:, None] * U)})
    model = VisualModel(whole, None, alone=alone)

    k = np.bincount(Y)
    unit = unit_rows(X)
    m_rows = np.stack([unit[c == Y].mean(axis=0) for c in range(C)])
    n = k + counts
    m = (k[:, None] * m_rows + counts[:, None] * U) / n[:, None]
    scatter = np.zeros((D, D))
    for x, c in zip(unit, Y, strict=True):
        scatter += np.outer(x - m[c], x - m[c])
    for c in range(C):
        scatter += counts[c] * np.outer(U[c] - m[c], U[c] - m[c])
    df = (k - k / n).sum()
    _, _, delta, inverse = alone.messages.scales
    assert inverse == pytest.approx(np.mean(1 / k))
    expected = 5 * delta / (1 + 5 * inverse)
    s = (np.trace(scatter) + 2 * expected) / (df + 2)
    v = max(delta - s * inverse, 0.05 * delta)
    assert (model.messages.noise, model.messages.freedom) == pytest.approx((s, v))
    share = 1 / (v + s / n)
    m0 = share @ m / share.sum()
    discriminant = model.at(1.0)
    covariance = (scatter + s * np.eye(D)) / (df + D)
    np.testing.assert_allclose(
        model.axes @ np.diag(model.scatter) @ model.axes.T, scatter, atol=1e-9
    )
    s_shrunk = np.trace(covariance)
    gain = v / (v + s / n)
    want = m0 + gain[:, None] * (m - m0)
    np.testing.assert_allclose(discriminant.visual_nodes(), want, atol=1e-9)
    assert discriminant.noise == pytest.approx(s_shrunk)


def vars_of(some: Support) -> dict[str, Any]:
    return {name: getattr(some, name) for name in some.__dataclass_fields__}


def test_parts_hold_rows_of_a_class_apart() -> None:
    whole = support()
    fold = folds(whole, np.arange(len(Y)), True)
    for c in range(C):
        assert len(set(fold[c == Y])) == min((c == Y).sum(), 3)
    assert (folds(whole, np.arange(len(Y)), False)[Y == 2] == -1).all()  # its only row
    rest = some_rows(whole, Y != 2)
    assert rest.named is not None
    assert rest.named.mask.tolist() == [False, False, True, False]
    np.testing.assert_array_equal(of_all_classes(rest).positive, whole.positive)
    np.testing.assert_array_equal(of_all_classes(rest).y, Y[Y != 2])


def test_rows_of_other_classes_count_for_little() -> None:
    y = np.repeat(np.arange(C), 8)
    known = Support(
        unit_rows(rows_of(y, 10, 0.2)), y, np.ones(len(y)), unit_rows(TEXT), -TEXT, 20.0
    )
    guess = Guess.of(known, adapt(known, PRIOR, AUTO, True), PRIOR)
    foreign = np.eye(C + 2, D)[C + 1] + 0.2 * np.random.default_rng(6).normal(size=(40, D))
    own_rows = rows_of(TRUTH, 3, 0.2)
    mixed = np.vstack([own_rows, foreign])
    own = mixture_of(Unlabelled(own_rows, np.ones(60)), guess).counts.sum()
    both = mixture_of(Unlabelled(mixed, np.ones(100)), guess).counts.sum()
    assert own > 20
    assert (both - own) / 40 < 0.3 * own / 60  # of own rows, too, that seem less odd now


# --- what they are good for -----------------------------------------------------------------------


@pytest.mark.parametrize("text", [True, False])
def test_unlabelled_digits_teach(text: bool) -> None:
    """Seeds 0 to 2, three rows a class: accuracy and log-loss on rows that no fit has seen."""
    digits, y = load_digits(return_X_y=True)
    names = np.stack([digits[y == c][0] for c in range(10)])
    gain = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(y))
        train, test = order[:900], order[900:]
        few = np.concatenate([train[y[train] == c][:3] for c in range(10)])
        partly = np.where(np.isin(train, few), y[train], -1)
        source = {"text_features": names if text else "prototypes"}
        alone = HeGraphClassifier(**source).fit(digits[few], y[few])
        more = HeGraphClassifier(**source).fit(digits[train], partly)
        gain.append(more.score(digits[test], y[test]) - alone.score(digits[test], y[test]))
    assert np.mean(gain) > 0.01


def test_names_alone_adapt_zero_shot() -> None:
    y = np.random.default_rng(7).integers(C, size=400)
    rows = rows_of(y, 8, noise=0.2) + np.roll(np.eye(C, D), 2, axis=1)[y]  # not as text has it
    zero = ZeroShotCLIPClassifier(text_features=TEXT, logit_scale=20.0).fit(
        rows, np.arange(400) % C
    )
    clf = hegraph().fit(rows, np.full(400, -1), classes=range(C))
    assert clf.classes_.tolist() == list(range(C))
    assert clf.score(rows, y) > zero.score(rows, y)
    assert not clf.score_samples(rows).any()  # nothing tells how they scatter
    uneven = hegraph(class_weight={0: 3.0, 1: 1.0, 2: 1.0, 3: 1.0})
    uneven.fit(rows, np.full(400, -1), classes=range(C))
    np.testing.assert_allclose(np.exp(uneven.log_prior_), np.array([3, 1, 1, 1]) / 6)
    one = hegraph().fit(rows, np.where(y == 1, 1, -1), classes=range(C))
    assert one.score(rows, y) > zero.score(rows, y)


def test_a_row_without_a_label_changes_little_and_none_nothing() -> None:
    alone = hegraph().fit(X, Y)
    weightless = hegraph().fit(BOTH, PARTLY, np.repeat([1.0, 0.0], [len(Y), 60]))
    np.testing.assert_array_equal(alone.coef_, weightless.coef_)
    assert weightless.n_unlabelled_ == 0
    one = hegraph().fit(BOTH[: len(Y) + 1], PARTLY[: len(Y) + 1])
    assert one.n_unlabelled_ == 1
    assert one.unlabelled_index_.tolist() == [len(Y)]
    assert np.abs(one.predict_proba(OTHERS) - alone.predict_proba(OTHERS)).mean() < 0.15


def test_order_copies_and_scale_of_weights() -> None:
    want = hegraph().fit(BOTH, PARTLY).predict_proba(OTHERS)
    order = np.random.default_rng(9).permutation(len(PARTLY))
    np.testing.assert_allclose(
        hegraph().fit(BOTH[order], PARTLY[order]).predict_proba(OTHERS), want, atol=1e-8
    )
    weight = np.repeat([3.0, 6.0], [len(Y), 60])
    twice = np.vstack([BOTH, OTHERS]), np.concatenate([PARTLY, np.full(60, -1)])
    np.testing.assert_allclose(
        hegraph().fit(BOTH, PARTLY, weight).predict_proba(OTHERS),
        hegraph().fit(*twice).predict_proba(OTHERS),
        atol=1e-8,
    )


def test_length_of_rows_order_of_features_and_rounding() -> None:
    """Folds followed digests of the rows: another last digit gave other probabilities."""
    want = hegraph().fit(BOTH, PARTLY).predict_proba(OTHERS)
    rng = np.random.default_rng(9)
    longer = BOTH * rng.uniform(0.1, 9, (len(BOTH), 1))
    np.testing.assert_allclose(hegraph().fit(longer, PARTLY).predict_proba(OTHERS), want, atol=1e-7)
    near = BOTH + 1e-7 * rng.normal(size=BOTH.shape)
    np.testing.assert_allclose(hegraph().fit(near, PARTLY).predict_proba(OTHERS), want, atol=1e-4)
    order = rng.permutation(D)
    other = hegraph(text_features=TEXT[:, order]).fit(BOTH[:, order], PARTLY)
    np.testing.assert_allclose(other.predict_proba(OTHERS[:, order]), want, atol=1e-7)


def test_order_of_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many some stand for all: each second one was of one class where two take turns."""
    monkeypatch.setattr(unlabelled_module, "SOME_ROWS", 30)
    turns = np.vstack([X, OTHERS[np.argsort(TRUTH % 2, kind="stable").reshape(2, 30).T.ravel()]])
    want = hegraph().fit(BOTH, PARTLY).predict_proba(OTHERS)
    np.testing.assert_allclose(hegraph().fit(turns, PARTLY).predict_proba(OTHERS), want, atol=1e-8)


@pytest.mark.parametrize("names", [False, True])
def test_a_weight_is_that_many_copies(names: bool) -> None:
    times = np.random.default_rng(3).integers(0, 4, size=60)
    few, y = (X[:0], Y[:0]) if names else (X, Y)
    both, partly = np.vstack([few, OTHERS]), np.concatenate([y, np.full(60, -1)])
    weight = np.concatenate([np.ones(len(y)), times])
    row = np.repeat(np.arange(len(both)), weight.astype(int))
    np.testing.assert_allclose(
        hegraph().fit(both, partly, weight, classes=range(C)).predict_proba(OTHERS),
        hegraph().fit(both[row], partly[row], classes=range(C)).predict_proba(OTHERS),
        atol=1e-8,
    )


@pytest.mark.parametrize("text", ["prototypes", TEXT])
def test_what_classes_are_called_does_not_matter(text: Any) -> None:
    other_way = text if isinstance(text, str) else text[::-1]
    reverse = np.where(PARTLY >= 0, C - 1 - PARTLY, -1)
    want = HeGraphClassifier(text_features=text).fit(BOTH, PARTLY).predict_proba(OTHERS)
    found = HeGraphClassifier(text_features=other_way).fit(BOTH, reverse).predict_proba(OTHERS)
    np.testing.assert_allclose(found[:, ::-1], want, atol=1e-8)


def test_weighted_median() -> None:
    values, times = np.array([3.0, -1.0, 0.5, 9.0, 2.0]), np.array([2, 1, 3, 1, 1])
    for weight in (times, 0.1 * times):
        assert median(values, weight) == np.median(np.repeat(values, times))
    assert median(values[:4], np.full(4, 0.1)) == np.median(values[:4])


def test_a_copy_of_a_row_of_weight_0_stays() -> None:
    rows, y = np.vstack([X, X[:1], OTHERS]), np.concatenate([Y, [-1], np.full(60, -1)])
    weight = (np.arange(len(y)) > 0).astype(float)
    clf = hegraph().fit(rows, y, weight)
    assert clf.n_unlabelled_ == 61
    np.testing.assert_array_equal(clf.coef_, hegraph().fit(rows[1:], y[1:]).coef_)


def test_classes_with_a_name_alone_and_large_rows_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = hegraph().fit(BOTH, np.where(PARTLY < 2, PARTLY, -1), classes=range(C))
        large = hegraph().fit(np.vstack([X, 1e300 * OTHERS]), PARTLY)
    assert clf.n_unlabelled_ == 65
    np.testing.assert_allclose(large.coef_, hegraph().fit(BOTH, PARTLY).coef_, atol=1e-8)


# --- how they are given ---------------------------------------------------------------------------

NAMES = np.array(["ant", "bee", "cat", "dog"])
NAMED = [NAMES[c] if c >= 0 else -1 for c in PARTLY]


@pytest.mark.parametrize("container", [list, lambda y: np.array(y, dtype=object), pd.Series])
def test_names_and_minus_one(container: Any) -> None:
    clf = hegraph().fit(BOTH, container(NAMED))
    assert clf.classes_.tolist() == NAMES.tolist()
    np.testing.assert_array_equal(clf.coef_, hegraph().fit(BOTH, PARTLY).coef_)
    assert set(clf.predict(OTHERS)) <= set(NAMES)
    assert clf.unlabelled_proba_.shape == (60, C)
    np.testing.assert_allclose(clf.unlabelled_proba_.sum(axis=1), 1, rtol=1e-5)


def test_minus_one_as_text_is_refused() -> None:
    texts = np.array(NAMED)
    for y in (texts, texts.astype(object), pd.Series(texts), pd.Series(texts, dtype="category")):
        with pytest.raises(ValueError, match=r"text '-1' among names.*dtype=object"):
            hegraph(text_features=np.eye(C + 1, D)).fit(BOTH, y)
    with pytest.raises(ValueError, match="text '-1' among names"):
        hegraph(text_features=np.eye(C + 1, D)).fit(BOTH, NAMED, classes=np.unique(texts))
    numbers = hegraph(text_features=TEXT[:2]).fit(X, np.where(Y < 2, "-1", "1"))
    assert numbers.classes_.tolist() == ["-1", "1"]


def test_classes_that_are_called_minus_one() -> None:
    two = hegraph(text_features=TEXT[:2]).fit(X, np.where(Y < 2, -1, 1))
    assert two.classes_.tolist() == [-1, 1]
    three = hegraph(text_features=TEXT[:3])
    y = np.minimum(Y, 2) - 1
    with pytest.warns(UserWarning, match=r"y holds -1 beside 0 and 1: 3 rows .* classes=\[-1, 0"):
        hegraph(text_features=TEXT[:2]).fit(X, y)
    assert three.fit(X, y, classes=[-1, 0, 1]).classes_.tolist() == [-1, 0, 1]
    stream = hegraph(text_features=TEXT[:3]).partial_fit(X, y, classes=[-1, 0, 1])
    assert stream.partial_fit(X[:4], y[:4]).n_unlabelled_ == 0


def test_where_minus_one_may_be_a_class_or_not() -> None:
    """What is decided by the other labels is told, but for -1 and 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hegraph(text_features=TEXT[:2]).fit(X, np.where(Y < 2, -1, 1))
        hegraph(text_features=TEXT[:2]).fit(X, np.minimum(Y, 2) - 1, classes=[0, 1])
    with pytest.warns(UserWarning, match="y holds -1 and 0 alone, .* two classes") as caught:
        hegraph(text_features=TEXT[:2]).fit(X, np.where(Y < 2, -1, 0))
    assert caught[0].filename == __file__
    with pytest.warns(
        UserWarning, match=r"beside \[-2, 0, 1\]: 2 rows .* classes=\[-2, -1, 0, 1\]"
    ):
        hegraph(text_features=TEXT[:3]).fit(X, Y - 2)
    with pytest.raises(ValueError, match=r"one class \(ant\).*names of all in classes="):
        hegraph().fit(X, ["ant" if c == 0 else -1 for c in Y])
    stream = hegraph(text_features=TEXT[:2]).partial_fit(X, np.where(Y < 2, -1, 1))
    with pytest.raises(ValueError, match=r"y holds \[0, 2\], and before .* -1 was taken for a cl"):
        stream.set_params(text_features=TEXT).partial_fit(X, Y - 1)


class Animal(str, Enum):
    ANT = "ant of the wood"
    BEE = "bee of the hive"


@pytest.mark.parametrize("container", [list, lambda y: np.array(y, dtype=object), pd.Series])
def test_names_of_enumerations_and_minus_one(container: Any) -> None:
    """A list gave the prompt "a photo of a Animal.ANT"."""
    y = [Animal.ANT, Animal.BEE, Animal.BEE, -1, -1]
    rows = np.random.default_rng(0).normal(size=(5, load_backbone("skhegraph-tiny").n_features))
    clf = HeGraphClassifier("skhegraph-tiny", templates="{}").fit(rows, container(y))
    assert clf.prompts_ == [["ant of the wood"], ["bee of the hive"]]
    assert clf.n_unlabelled_ == 2
    right = clf.predict(rows[:3]) == clf.classes_[[0, 1, 1]]
    assert clf.score(rows[:3], container(y[:3])) == right.mean()


def test_no_label_at_all_needs_names_and_text() -> None:
    none = np.full(60, -1)
    with pytest.raises(ValueError, match=r"y holds -1 alone.*classes="):
        hegraph().fit(OTHERS, none)
    with pytest.raises(ValueError, match=r"No row of X is left .* none has a label"):
        hegraph(text_features="prototypes").fit(OTHERS, none, classes=range(C))
    with pytest.raises(ValueError, match=r"No row of X is left .* sample_weight of zero"):
        hegraph().fit(BOTH, PARTLY, np.repeat([0.0, 1.0], [len(Y), 60]))


def test_unreadable_images_without_a_label() -> None:
    rows = BOTH.copy()
    rows[[len(Y), len(Y) + 5]] = np.nan
    with pytest.warns(UserWarning, match=r"left out of the fit: rows 10, 15 \(2 in all\)"):
        clf = hegraph().fit(rows, PARTLY)
    assert clf.n_unlabelled_ == 58
    rows[np.flatnonzero(Y == 2)] = np.nan
    with pytest.raises(ValueError, match="Class '2' has no readable image"):
        hegraph().fit(rows, PARTLY)


# --- streams, files -------------------------------------------------------------------------------


def test_partial_fit_equals_a_fit_on_all() -> None:
    """In parts, in another order, and with labels that come later."""
    want = hegraph().fit(BOTH, PARTLY)
    parts = hegraph().partial_fit(BOTH[:30], PARTLY[:30]).partial_fit(BOTH[30:], PARTLY[30:])
    np.testing.assert_array_equal(parts.coef_, want.coef_)
    np.testing.assert_array_equal(parts.unlabelled_index_, want.unlabelled_index_)
    first = hegraph().partial_fit(OTHERS, np.full(60, -1), classes=range(C))
    np.testing.assert_allclose(first.partial_fit(X, Y).coef_, want.coef_, atol=1e-8)
    guessed = np.concatenate([X, OTHERS]), np.full(len(PARTLY), -1)
    later = hegraph().partial_fit(*guessed, classes=range(C)).partial_fit(X, Y)
    assert later.n_unlabelled_ == 60
    np.testing.assert_allclose(later.coef_, want.coef_, atol=1e-8)


def test_a_row_is_known_again_whatever_its_rounding_and_length() -> None:
    """Of a photograph in another batch they differ: it was a row without a label all the same."""
    first = hegraph().partial_fit(BOTH, np.full(len(BOTH), -1), classes=range(C))
    again = 3 * X * (1 + 1e-6 * RNG.normal(size=X.shape))
    later = first.partial_fit(again, Y)
    assert later.n_unlabelled_ == 60
    np.testing.assert_allclose(later.coef_, hegraph().fit(BOTH, PARTLY).coef_, atol=1e-4)
    apart = BOTH + np.where(np.arange(len(BOTH)) < len(X), 0.05, 0)[:, None]
    both = np.vstack([apart, X]), [-1] * len(BOTH) + [*Y]
    assert hegraph().fit(*both).n_unlabelled_ == len(BOTH)


def test_streams_of_names() -> None:
    """Rows without a label alone were of another type than names."""
    want = hegraph().fit(BOTH, NAMED)
    stream = hegraph().partial_fit(X, NAMES[Y]).partial_fit(OTHERS, [-1] * 60)
    np.testing.assert_array_equal(stream.coef_, want.coef_)
    assert stream.classes_.dtype == want.classes_.dtype
    first = hegraph().partial_fit(OTHERS[:9], [-1] * 9, classes=NAMES)
    first.partial_fit(OTHERS[9:], np.full(51, -1, dtype=object))
    names = hegraph().fit(OTHERS, [-1] * 60, classes=NAMES)
    np.testing.assert_allclose(first.coef_, names.coef_, atol=1e-8)
    np.testing.assert_allclose(first.partial_fit(X, NAMES[Y]).coef_, want.coef_, atol=1e-8)
    with pytest.raises(ValueError, match="labels of one type"):
        first.partial_fit(X, Y)


def test_partial_fit_after_a_fit_on_unlabelled_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="none without a label"):
        hegraph().fit(BOTH, PARTLY).partial_fit(X, Y)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier_module, "UNLABELLED_KEPT", 7)
    clf = hegraph().fit(BOTH, PARTLY)
    assert clf.unlabelled_proba_.shape == (7, C)
    assert clf.unlabelled_index_.tolist() == list(range(len(Y), len(Y) + 7))
    assert (clf.n_unlabelled_, clf.unlabelled_features_.shape) == (60, (0, D))
    stream = hegraph().partial_fit(X, Y)
    for part in np.array_split(OTHERS, 3):
        stream.partial_fit(part, np.full(len(part), -1))
    assert len(stream.unlabelled_proba_) == len(stream.unlabelled_index_) == 60
    np.testing.assert_allclose(stream.coef_, clf.coef_, atol=1e-8)
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.predict_proba(OTHERS), clf.predict_proba(OTHERS))


def test_in_a_pipeline_and_a_drawing() -> None:
    clf = make_pipeline(FunctionTransformer(), hegraph()).fit(BOTH, NAMED)
    assert clf.score(OTHERS, NAMES[TRUTH]) > 0.7
    data = clf[-1].to_hetero_data()
    assert data["visual"].x.shape == (C, D)
    frame = clf[-1].explain(OTHERS[:2])
    assert len(frame) == 6


def test_given_strengths_stay() -> None:
    given = {"text_weight": 0.5, "visual_weight": 0.2, "shrinkage": 2.0}
    clf = hegraph(**given).fit(BOTH, PARTLY)
    assert (clf.text_weight_, clf.visual_weight_, clf.shrinkage_) == (0.5, 0.2, 2.0)
    names = hegraph(**given).fit(OTHERS, np.full(60, -1), classes=range(C))
    assert (names.text_weight_, names.visual_weight_, names.shrinkage_) == (0.5, 0.2, 2.0)


def test_the_share_is_chosen_on_rows_that_are_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe sees which rows each part was fitted on: none that it judges."""
    import skhegraph.hegraph.unlabelled as module

    seen: list[set[bytes]] = []
    inner = module.some_rows

    def probe(whole: Support, chosen: np.ndarray) -> Support:
        part = inner(whole, chosen)
        held = {row.tobytes() for row in whole.X[~chosen]}
        assert held
        assert not held & {row.tobytes() for row in part.X}
        seen.append(held)
        return part

    monkeypatch.setattr(module, "some_rows", probe)
    whole, adapted, _ = adapt_with_unlabelled(
        support(), Unlabelled(OTHERS, np.ones(60)), PRIOR, AUTO, True
    )
    assert len(set.union(*seen)) == sum(map(len, seen)) == len(Y)
    assert whole.mixture is not None
    assert adapted.visual_weight > 0


@pytest.mark.parametrize("text", ["prototypes", TEXT[:2]])
def test_where_no_row_can_be_held_out(text: Any) -> None:
    """One image of each of two classes: the weights are what they are before any row is seen."""
    losses = []
    for seed in range(11, 17):
        truth = np.random.default_rng(seed).integers(2, size=80)
        pool, queries = rows_of(truth, seed + 20), rows_of(truth, seed + 40)
        few, labels = rows_of(np.arange(2), seed + 60), np.arange(2)
        alone = HeGraphClassifier(text_features=text, logit_scale=20.0).fit(few, labels)
        both = np.vstack([few, pool]), np.concatenate([labels, np.full(80, -1)])
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            more = HeGraphClassifier(text_features=text, logit_scale=20.0).fit(*both)
        losses.append([log_loss(truth, clf.predict_proba(queries)) for clf in (alone, more)])
    before, after = np.mean(losses, axis=0)
    assert after < before


def test_visual_weight_is_in_units_of_the_whole_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models without some rows have logits of another spread: their weight is no weight for all."""
    import skhegraph.hegraph.unlabelled as module

    monkeypatch.setattr(module, "fit_on_folds", lambda *_: module.Weights(0.5, 0.7, 1.0, 1.0, 0.0))
    rows = Unlabelled(OTHERS, np.ones(len(OTHERS)))
    whole, adapted, guess = adapt_with_unlabelled(support(), rows, PRIOR, AUTO, True)
    linear = adapted.discriminant.linear()
    left_out = adapted.discriminant.leave_one_out(np.arange(len(Y)))
    logits = np.vstack([left_out, linear(unit_rows(OTHERS) @ adapted.basis.T)])
    classes = np.concatenate([whole.y, guess(unit_rows(OTHERS))[0].argmax(axis=1)])
    wrong = [np.delete(row, c).var(ddof=1) for row, c in zip(logits, classes, strict=True)]
    assert adapted.text_weight == 0.5
    assert adapted.visual_weight == pytest.approx(
        0.7 * np.sqrt(np.log(C)) / np.sqrt(np.mean(wrong)), rel=1e-12
    )
