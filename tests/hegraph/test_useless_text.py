"""Text at chance is left out, with a warning; text that tells, or that is asked for, stays."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad

from skhegraph import HeGraphClassifier
from skhegraph.hegraph.useless_text import Hits, hits_of_text
from skhegraph.inspection.answers import zero_shot
from skhegraph.support import Support, unit_rows

C, D, SHOTS = 6, 24, 5
RNG = np.random.default_rng(0)
CENTRES = unit_rows(RNG.normal(size=(C, D)))
Y = np.repeat(np.arange(C), SHOTS)
X = unit_rows(CENTRES[Y] + 0.1 * RNG.normal(size=(C * SHOTS, D)))
LIE = np.roll(CENTRES, 1, axis=0)
LEFT_OUT = r"classifies 0 of 30 .*no better than chance \(5\).*prototypes', as this fit does"


@pytest.mark.parametrize("hits", [0, 1, 4, 5.5, 12, 30])
@pytest.mark.parametrize("n_classes", [2, 6, 300])
def test_probability_of_chance_by_an_integral(hits: float, n_classes: int) -> None:
    chance, misses = 1 / n_classes, 30 - hits
    area, _ = quad(lambda p: p**hits * (1 - p) ** misses, chance, 1, epsabs=0, limit=200)
    often = area / (1 - chance)
    by_chance = chance**hits * (1 - chance) ** misses
    want = by_chance / (by_chance + often)
    assert Hits(hits, 30.0, n_classes).by_chance == pytest.approx(want, rel=1e-6)


def test_extremes_are_numbers() -> None:
    assert Hits(0.0, 1e7, 10).by_chance == pytest.approx(1)
    assert Hits(9e5, 1e7, 10).by_chance == pytest.approx(1)
    below, far = (Hits(500.0, n, 10).by_chance for n in (15_000.0, 20_000.0))
    assert 0.5 < below < far < 1 and far - below < 1e-4
    assert Hits(1e7, 1e7, 10).by_chance == 0
    assert Hits(1.0, 1.0, 2).by_chance == pytest.approx(0.4)  # .5 against int 2 p dp = 3/4


def fit(text: Any, **params: Any) -> HeGraphClassifier:
    rows = params.pop("rows", (X, Y))
    classes = params.pop("classes", None)
    return HeGraphClassifier(text_features=text, **params).fit(*rows, classes=classes)


def test_a_lie_is_left_out_and_the_fit_is_that_without_text() -> None:
    with pytest.warns(UserWarning, match=LEFT_OUT) as caught:
        clf = HeGraphClassifier(text_features=LIE).fit(X, Y)
    assert [warning.filename for warning in caught] == [__file__]
    want = fit("prototypes")
    assert not clf.uses_text_ and not want.uses_text_
    for name in ("coef_", "intercept_", "visual_nodes_", "support_share_"):
        np.testing.assert_array_equal(getattr(clf, name), getattr(want, name))
    for kind, nodes in want.graph_.items():  # what is drawn is what acts
        np.testing.assert_array_equal(clf.graph_[kind], nodes)
    assert zero_shot(clf, X) is None
    assert set(clf.explain(X[:1], n_classes=1)["text"].abs() < 1e-9) == {True}


def test_text_that_tells_stays() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = fit(CENTRES)
        assert clf.uses_text_ and clf.text_weight_ > 0
        # Two rows are too few to tell that a text is right by chance.
        assert fit(LIE[:2], rows=(X[[0, SHOTS]], Y[[0, SHOTS]])).uses_text_


@pytest.mark.parametrize(
    "params",
    [
        {"text_weight": 0.5},
        {"positive_to_visual": 0.5},
        {"visual_to_visual": 0.5},
        {"classes": np.arange(C + 1)},
    ],
)
def test_text_that_is_asked_for_stays_with_the_warning(params: dict[str, Any]) -> None:
    text = np.vstack([LIE, np.eye(1, D)]) if "classes" in params else LIE
    with pytest.warns(UserWarning, match=r"no better than chance.*text_features='prototypes'\.$"):
        assert fit(text, **params).uses_text_


def test_classes_count_alike_and_weights_are_copies() -> None:
    """A weight of 4 is four rows; a class of many rows does not outvote the others."""
    y, weight = np.array([0, 0, 1, 2]), np.array([4.0, 4.0, 2.0, 1.0])
    cosines = np.array([[1, 0, 0.5], [1, 0, 0.5], [1, 0, 0.5], [1, 0, 0.5]])  # always class 0
    nodes = np.eye(3)
    support = Support(nodes[y], y, weight, nodes, nodes, 100.0)
    hits = hits_of_text(support, cosines, y, weight)
    assert hits.right / hits.rows == pytest.approx(1 / 3)
    copies = np.repeat(np.arange(4), [4, 4, 2, 1])
    many = Support(nodes[y[copies]], y[copies], np.ones(11), nodes, nodes, 100.0)
    again = hits_of_text(many, cosines[copies], y[copies], np.ones(11))
    assert again.right / again.rows == pytest.approx(1 / 3)


def test_a_text_that_favours_a_class_but_tells_is_no_chance() -> None:
    y = np.repeat(np.arange(3), 4)
    cosines = 0.1 * np.eye(3)[y] + [1.0, 0, 0]  # always class 0; without its favour always right
    support = Support(np.eye(3)[y], y, np.ones(12), np.eye(3), np.eye(3), 100.0)
    assert hits_of_text(support, cosines, y, np.ones(12)) == (12, 12, 3)
