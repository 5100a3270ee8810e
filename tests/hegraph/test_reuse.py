"""Results kept by content: the same to the last bit, copied, bounded, and truly reused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skhegraph import HeGraphClassifier
from skhegraph.hegraph import fitting, graph, reuse
from skhegraph.hegraph.reuse import forget, reused


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[int]:
    """Calls of a function or constructor from now on."""
    calls: list[int] = []
    original = getattr(owner, name)

    def counting(*args: object, **kwargs: object) -> object:
        calls.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counting)
    return calls


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(3), 8)
    return rng.normal(size=(24, 10)) + 2 * rng.normal(size=(3, 10))[y], y


def model(**params: object) -> HeGraphClassifier:
    defaults = {"text_features": "prototypes", "n_folds": 3, "max_iter": 3, "random_state": 0}
    return HeGraphClassifier(**{**defaults, "device": "cpu", **params})


def test_equal_content_is_computed_once_and_copied() -> None:
    calls = []

    @reused
    def double(x: np.ndarray, times: int = 2) -> dict[str, np.ndarray]:
        calls.append(times)
        return {"out": times * x}

    x = np.arange(4.0)
    first = double(x)
    first["out"][:] = -1  # a caller may do as it likes with its result
    np.testing.assert_array_equal(double(x.copy())["out"], 2 * x)
    assert calls == [2]
    x[0] = 7
    assert double(x)["out"][0] == 14  # changed in place: other content
    assert double(x, times=3)["out"][0] == 21
    assert calls == [2, 2, 3]


def test_functions_do_not_mix() -> None:
    @reused
    def plus(x: int) -> int:
        return x + 1

    @reused
    def minus(x: int) -> int:
        return x - 1

    assert (plus(1), minus(1), plus(1)) == (2, 0, 2)


def test_bound_lets_the_longest_unused_go(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    @reused
    def zeros(i: int) -> np.ndarray:
        calls.append(i)
        return np.zeros(1000)

    monkeypatch.setattr(reuse, "MAX_BYTES", 20_000)  # two results of 8 kB
    for i in (0, 1, 0, 2, 0, 1):
        zeros(i)
    assert calls == [0, 1, 2, 1]
    monkeypatch.setattr(reuse, "MAX_BYTES", 100)  # larger than the bound: not kept
    zeros(3), zeros(3)
    assert calls[-2:] == [3, 3]


def test_a_search_estimates_the_trust_once_a_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    discriminants = counted(monkeypatch, fitting, "ShrunkDiscriminant")
    edges = counted(monkeypatch, graph, "build_edges")
    grid = {"visual_to_positive": [0.0, 0.2, 0.4], "learning_rate": [0.01, 0.1]}
    search = GridSearchCV(model(), grid, cv=2).fit(*data())
    # Two splits and the refit, each on three folds and the whole.
    assert len(discriminants) == 3 * (3 + 1)
    assert len(edges) == 3
    assert len(search.cv_results_["params"]) == 6


@pytest.mark.parametrize("visual_classifier", ["discriminant", "cache"])
def test_a_reused_fit_is_the_same_to_the_last_bit(visual_classifier: str) -> None:
    X, y = data()
    clf = model(visual_classifier=visual_classifier)
    alone = clone(clf).fit(X, y).predict_proba(X)
    forget()
    clone(clf).set_params(visual_to_positive=0.9).fit(X, y)
    np.testing.assert_array_equal(clone(clf).fit(X, y).predict_proba(X), alone)


def test_what_the_trust_depends_on_is_not_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch, fitting, "ShrunkDiscriminant")
    X, y = data()
    model().fit(X, y)
    once = len(calls)
    for changed in (
        {"n_folds": 4},
        {"random_state": 1},
        {"text_weight": 0.5},
        {"logit_scale": 5.0},
    ):
        before = len(calls)
        model(**changed).fit(X, y)
        assert len(calls) > before, changed
    before = len(calls)
    model().fit(X, y, sample_weight=np.r_[2.0, np.ones(23)])
    assert len(calls) == before + once
