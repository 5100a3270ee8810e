"""Names of classes become text nodes, alone and in meta-estimators."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.multiclass import OneVsRestClassifier

from skhegraph import CLIPFeatures, HeGraphClassifier, ZeroShotCLIPClassifier
from skhegraph.clip.model import load_backbone
from skhegraph.clip.prompts import text_nodes

TINY = "skhegraph-tiny"
Y = np.array(["ant", "bee", "cat"])
WIDE = np.random.default_rng(0).normal(size=(12, 128))


@pytest.mark.parametrize("estimator", [HeGraphClassifier, ZeroShotCLIPClassifier])
def test_other_width_than_the_text(estimator: Any) -> None:
    message = (
        r"X has 6 features.*skhegraph-tiny.*have 128.*"
        r"CLIPFeatures.*make_hegraph_pipeline.*text_features='prototypes'"
    )
    with pytest.raises(ValueError, match=message):
        estimator(TINY, device="cpu").fit(np.eye(3, 6), Y)


@pytest.mark.parametrize("name", ["templates", "negative_templates"])
def test_template_without_braces(name: str) -> None:
    with pytest.raises(ValueError, match=r"no '?\{"):
        HeGraphClassifier(TINY, device="cpu", **{name: ["a photo"]}).fit(WIDE, np.repeat(Y, 4))


# --- from names to text nodes ---------------------------------------------------------------------

WORDS = np.array(["zero", "one", "two"])
NAMES = {"zero": "the digit zero", "one": "the digit one", "two": "the digit two"}
AS_LIST = [NAMES[word] for word in sorted(WORDS)]


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Features of twelve images of each of three digits, and their names."""
    images, target = load_digits(n_class=3, return_X_y=True)
    few = np.concatenate([np.flatnonzero(target == c)[:12] for c in range(3)])
    squares = [image.reshape(8, 8) / 16 for image in images[few]]
    return CLIPFeatures(TINY).transform(squares), WORDS[target[few]]


def named(names: Any) -> HeGraphClassifier:
    return HeGraphClassifier(TINY, class_names=names, device="cpu")


def test_names_with_spaces_and_any_letters(digits: tuple[np.ndarray, np.ndarray]) -> None:
    X, words = digits
    letters = np.array(["a round zero", "Größe eins", "数字二"])
    y = letters[[list(WORDS).index(word) for word in words]]
    few = np.arange(len(y)) % 12 < 4
    clf = named(None).fit(X[few], y[few])
    assert set(clf.predict(X)) == set(letters)
    assert clf.score(X[~few], y[~few]) > 0.8
    backbone = load_backbone(TINY, device="cpu")
    for kind, negative in (("positive", False), ("negative", True)):
        want = text_nodes(backbone, sorted(letters), "photo", negative=negative)
        np.testing.assert_allclose(clf.graph_[kind], want, atol=1e-6)


def test_integer_labels_with_names(digits: tuple[np.ndarray, np.ndarray]) -> None:
    X, words = digits
    y = 10 * np.array([list(WORDS).index(word) for word in words])
    in_order = [NAMES[word] for word in WORDS]
    by_list = named(in_order).fit(X, y)
    mapping = {20: in_order[2], 0: in_order[0], 10: in_order[1], 99: "not in y"}
    by_mapping = named(mapping).fit(X, y)
    assert by_list.classes_.tolist() == [0, 10, 20]
    assert by_list.predict(X).dtype == y.dtype
    np.testing.assert_array_equal(by_mapping.predict_proba(X), by_list.predict_proba(X))
    swapped = named(in_order[::-1]).fit(X, y)
    np.testing.assert_allclose(swapped.graph_["positive"], by_list.graph_["positive"][::-1])


class Animal(str, Enum):
    """Labels as programs have them."""

    CAT = "tabby cat"
    ANT = "ant"


@pytest.mark.parametrize("container", [list, lambda y: np.array(y, dtype=object), pd.Series])
def test_members_of_enumerations_give_their_text(container: Any) -> None:
    """Issue 17.25: NumPy makes 'Animal.CAT' of a list of these."""
    y = container([Animal.CAT, Animal.ANT] * 6)
    clf = HeGraphClassifier(TINY, device="cpu").fit(WIDE, y)
    want = [["a photo of a ant."], ["a photo of a tabby cat."]]
    assert clf.prompts_ == want
    assert HeGraphClassifier(TINY, device="cpu").partial_fit(WIDE, y).prompts_ == want
    scores = cross_val_score(clf, WIDE, y, cv=2)
    codes = [str(label) for label in y]
    np.testing.assert_array_equal(
        scores, cross_val_score(clf.set_params(class_names=["ant", "tabby cat"]), WIDE, codes, cv=2)
    )
    zero = ZeroShotCLIPClassifier(TINY, class_names={Animal.CAT: "a {}"}).fit(None, y)
    named = ZeroShotCLIPClassifier(TINY).fit(None, ["ant", "tabby cat"])
    np.testing.assert_array_equal(zero.coef_[0], named.coef_[0])


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_members_without_an_image_give_their_text(method: str) -> None:
    labels = Enum("Pet", {"CAT": "tabby cat", "DOG": "hot dog", "ANT": "ant"}, type=str)
    y = [labels.CAT, labels.DOG] * 6
    clf = HeGraphClassifier(TINY, device="cpu")
    getattr(clf, method)(WIDE, y, classes=list(labels))
    want = ["a photo of a ant.", "a photo of a tabby cat.", "a photo of a hot dog."]
    assert [prompts[0] for prompts in clf.prompts_] == want


def test_texts_of_members_are_forgotten_by_another_fit() -> None:
    """They stayed: later labels of the same letters were taken for members."""
    y = [Animal.CAT, Animal.ANT] * 6
    clf = HeGraphClassifier(TINY, device="cpu").fit(WIDE, y)
    later = HeGraphClassifier(TINY, device="cpu").partial_fit(WIDE, y)
    ant, cat = clf.classes_.tolist()  # as NumPy makes them, "Animal.CA"
    strings = [cat, ant] * 6
    assert clf.fit(WIDE, strings).prompts_[1] == [f"a photo of a {cat}."]
    assert later.partial_fit(WIDE, strings).prompts_[1] == ["a photo of a tabby cat."]
    zero = ZeroShotCLIPClassifier(TINY).fit(None, y)
    named = ZeroShotCLIPClassifier(TINY).fit(None, strings)
    np.testing.assert_array_equal(zero.fit(None, strings).coef_, named.coef_)


def test_members_of_enumerations_that_numpy_makes_one_label_of_are_refused() -> None:
    """Issue 17.25: 'Anim.RED' and 'Anim.REA', cut to the three characters of their texts."""
    alike = Enum("Anim", {"RED": "red", "REA": "rea"}, type=str)
    with pytest.raises(ValueError, match=r"2 members .* NumPy makes 1 labels.*: give their"):
        HeGraphClassifier(TINY, device="cpu").fit(WIDE, list(alike) * 6)


# --- meta-estimators that encode y ----------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda clf: StackingClassifier([("a", clf)], LogisticRegression(), cv=2),
        lambda clf: VotingClassifier([("a", clf), ("b", clone(clf))], voting="soft"),
        lambda clf: BaggingClassifier(clf, 3, random_state=0),
        lambda clf: CalibratedClassifierCV(clf, method="temperature", cv=2),
    ],
    ids=["stacking", "voting", "bagging", "temperature"],
)
def test_names_reach_the_text_through_meta_estimators(
    digits: tuple[np.ndarray, np.ndarray], wrap: Any
) -> None:
    X, y = digits
    assert wrap(named(AS_LIST)).fit(X, y).score(X, y) > 0.9


def test_encoded_labels_give_the_same_model(digits: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = digits
    direct = np.empty((len(y), 3))
    for fold in range(2):
        out = np.arange(len(y)) % 2 == fold
        direct[out] = named(AS_LIST).fit(X[~out], y[~out]).predict_proba(X[out])
    folds = [(np.flatnonzero(np.arange(len(y)) % 2 != f), np.arange(f, len(y), 2)) for f in (0, 1)]
    crossed = cross_val_predict(named(AS_LIST), X, y, cv=folds, method="predict_proba")
    np.testing.assert_allclose(crossed, direct, atol=1e-6)


def test_one_versus_rest_of_two_classes_works_and_of_three_says_why_not(
    digits: tuple[np.ndarray, np.ndarray],
) -> None:
    X, y = digits
    two = y != "two"
    ovr = OneVsRestClassifier(named(["the digit one", "the digit zero"])).fit(X[two], y[two])
    assert ovr.score(X[two], y[two]) > 0.9
    with pytest.raises(ValueError, match="OneVsRestClassifier hides which class"):
        OneVsRestClassifier(named(AS_LIST)).fit(X, y)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("fotos", "negative_templates='fotos' is no preset.*Nearest: photo"),
        ([], "negative_templates is empty"),
        (3, "negative_templates must be a preset's name"),
        ({"ant": "no ant"}, "the negative_templates mapping must be .*: missing 'bee'"),
        ({"ant": [], "bee": "x"}, "the negative_templates mapping has no description of class 'a"),
        ({"ant": 3, "bee": "x"}, "the negative_templates mapping has a int"),
    ],
)
def test_errors_name_the_parameter_that_was_given(given: Any, message: str) -> None:
    """Issue 17.28, the kind: they named `templates`."""
    clf = HeGraphClassifier("skhegraph-tiny", negative_templates=given)
    with pytest.raises((TypeError, ValueError), match=message):
        clf.fit(np.eye(2, 128), ["ant", "bee"])
