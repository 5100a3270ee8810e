"""Names, text rows and weights by label inside meta-estimators: right, or refused.

Many of them fit clones on the integers 0 to n_classes - 1 in place of the labels.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier

from skhegraph import HeGraphClassifier, ZeroShotCLIPClassifier
from skhegraph.prompted_text import PromptedText
from skhegraph.text_source import TextNodes

RNG = np.random.default_rng(0)
CODES = np.repeat([0, 1, 2], 8)
X = RNG.normal(size=(24, 6)) + 3 * np.eye(3, 6)[CODES]
TEXT = np.eye(3, 6)
#: What names a class, whatever its label is: sorted labels get these in their order.
NAMES = ["alpha", "beta", "gamma"]
STRINGS, DIGITS, TENS, FROM_ONE = ["ant", "bee", "cat"], [0, 1, 2], [5, 10, 20], [1, 2, 3]

ENCODING = {
    "voting": lambda clf: VotingClassifier([("a", clf), ("b", clone(clf))], voting="soft"),
    "stacking": lambda clf: StackingClassifier([("a", clf)], LogisticRegression(), cv=2),
    "bagging": lambda clf: BaggingClassifier(clf, 2, bootstrap=False),
    "temperature": lambda clf: CalibratedClassifierCV(clf, method="temperature", cv=2),
}
KEEPING = {
    "alone": lambda clf: clf,
    "sigmoid": lambda clf: CalibratedClassifierCV(clf, cv=2),
    "search": lambda clf: GridSearchCV(clf, {"logit_scale": [50.0, 100.0]}, cv=2),
    "boosting": lambda clf: AdaBoostClassifier(clf, n_estimators=2),
}
BINARY = {
    "one versus rest": OneVsRestClassifier,
    "one versus one": OneVsOneClassifier,
    "output code": lambda clf: OutputCodeClassifier(clf, random_state=0),
}


def mapping(labels: list[Any], more: dict[Any, str] | None = None) -> dict[Any, str]:
    return {**dict(zip(labels, NAMES, strict=True)), **(more or {})}


def series(labels: list[Any]) -> pd.Series:
    """Names by label, the last one first."""
    return pd.Series(NAMES, index=labels)[::-1]


#: Labels, class_names, and whether each group of meta-estimators must be right or refuse.
CASES = {
    "strings, list": (STRINGS, NAMES, "right", "right"),
    "strings, mapping": (STRINGS, mapping(STRINGS), "right", "refused"),
    "strings, mapping of more": (STRINGS, mapping(STRINGS, {"elk": "delta"}), "right", "refused"),
    "strings, none": (["alpha", "beta", "gamma"], None, "right", "refused"),
    "strings, one name": (["alpha", "bee", "gamma"], {"bee": "beta"}, "right", "refused"),
    "strings, series": (STRINGS, series(STRINGS), "right", "refused"),
    "digits, series of words": (DIGITS, series(["x", "y", "z"]), "refused", "refused"),
    "tens, series": (TENS, series(TENS), "right", "refused"),
    "digits, series that is numbered": (DIGITS, series(TENS)[::-1], "right", "right"),
    "digits, list": (DIGITS, NAMES, "right", "right"),
    "digits, mapping": (DIGITS, mapping(DIGITS), "right", "right"),
    "digits, mapping as in JSON": (DIGITS, mapping(["0", "1", "2"]), "right", "right"),
    "digits, mapping of more": (DIGITS, mapping(DIGITS, {3: "delta"}), "refused", "refused"),
    "digits, mapping of words": (DIGITS, mapping(STRINGS), "refused", "refused"),
    "digits, mapping of others": (DIGITS, mapping(TENS), "refused", "refused"),
    "tens, list": (TENS, NAMES, "right", "right"),
    "tens, mapping": (TENS, mapping(TENS), "right", "refused"),
    "from one, mapping": (FROM_ONE, mapping(FROM_ONE), "right", "refused"),
    "from one, mapping of more": (
        FROM_ONE,
        mapping(FROM_ONE, {0: "zero", 4: "four"}),
        "right",
        "refused",
    ),
}


class Recorder(ZeroShotCLIPClassifier):
    """Zero-shot on made-up text, which notes the names of every fit."""

    noted: list[list[str]] = []  # noqa: RUF012 - of all clones

    def _text(self) -> Any:
        return MadeUpText(**vars(super()._text()))


class MadeUpText(PromptedText):
    """Text of which the names are noted."""

    def encode(self, names: list[str], n_features: int | None) -> Any:
        Recorder.noted.append(list(names))
        return TextNodes(TEXT[: len(names)], TEXT[: len(names)])


def outcome(wrap: Any, labels: list[Any], class_names: Any) -> str:
    """Whether all fits inside a meta-estimator had the right names, or one was refused."""
    Recorder.noted.clear()
    y = np.array(labels)[CODES]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            wrap(Recorder(class_names=class_names)).fit(X, y)
        except ValueError as error:
            assert "class_names" in str(error) or "OneVsRest" in str(error)
            return "refused"
    assert Recorder.noted
    return "right" if all(names == NAMES for names in Recorder.noted) else "WRONG"


def reads_out_of_bounds(meta: str, labels: list[Any]) -> bool:
    """scikit-learn's temperature scaling encodes strings alone, and takes 5 for the sixth class.

    What lies there in memory is sometimes not a number: no outcome to test.
    """
    return meta == "temperature" and not isinstance(labels[0], str) and labels != DIGITS


@pytest.mark.parametrize(
    ("meta", "case"),
    [
        (meta, case)
        for meta in [*KEEPING, *ENCODING, *BINARY]
        for case, (labels, *_) in CASES.items()
        if not reads_out_of_bounds(meta, labels)
    ],
)
def test_class_names_in_meta_estimators_are_right_or_refused(meta: str, case: str) -> None:
    """Issue 17.2 and 17.15."""
    labels, class_names, kept, encoded = CASES[case]
    want = kept if meta in KEEPING else encoded if meta in ENCODING else "refused"
    wrap = {**KEEPING, **ENCODING, **BINARY}[meta]
    assert outcome(wrap, labels, class_names) == want


@pytest.mark.parametrize("case", CASES)
def test_class_names_in_cross_val_predict_are_right_or_refused(case: str) -> None:
    """Issue 17.2 and 17.15: labels are encoded for probabilities alone."""
    labels, class_names, kept, encoded = CASES[case]

    class Crossed:
        def __init__(self, clf: Any, method: str) -> None:
            self.clf, self.method = clf, method

        def fit(self, X: Any, y: Any) -> None:
            cross_val_predict(self.clf, X, y, cv=2, method=self.method)

    assert outcome(lambda clf: Crossed(clf, "predict_proba"), labels, class_names) == encoded
    assert outcome(lambda clf: Crossed(clf, "predict"), labels, class_names) == kept


def test_a_mapping_of_words_is_no_guess() -> None:
    """Issue 17.2, as it was found."""
    words = ZeroShotCLIPClassifier("skhegraph-tiny", class_names={"zebra": "zebra", "ant": "ant"})
    with pytest.raises(
        ValueError, match=r"class_names has nothing for \[0, 1\].*list in the order"
    ):
        words.fit(None, [0, 1])
    numbers = {10: "cat", 20: "dog", 5: "bird"}
    with pytest.raises(ValueError, match=r"class_names has nothing for \[0, 1, 2\]"):
        ZeroShotCLIPClassifier("skhegraph-tiny", class_names=numbers).fit(None, [0, 1, 2])


# --- text rows by label ---------------------------------------------------------------------------


def test_rows_of_text_by_label_are_those_of_an_array() -> None:
    """Issue 17.20: a form that names its rows."""
    y = np.array(STRINGS)[CODES]
    rows = {label: TEXT[i] for i, label in reversed(list(enumerate(STRINGS)))}
    negatives = {label: list(-row) for label, row in rows.items()}
    rows["dog"] = np.full(6, 9.0)  # more than occur
    for by_label, array in ((rows, TEXT), ((rows, negatives), (TEXT, -TEXT))):
        named = HeGraphClassifier(text_features=by_label).fit(X, y)
        want = HeGraphClassifier(text_features=array).fit(X, y)
        np.testing.assert_array_equal(named.predict_proba(X), want.predict_proba(X))
        assert clone(named).fit(X, y).classes_.tolist() == STRINGS


def test_rows_of_a_frame_go_by_its_index_where_that_holds_labels() -> None:
    """Issue 17.2, the kind: rows of another order were taken for each other's without a word."""
    frame = pd.DataFrame(TEXT, index=["cat", "ant", "bee"])
    frame.loc["dog"] = 9.0
    clf = ZeroShotCLIPClassifier(text_features=frame).fit(X, np.array(STRINGS)[CODES])
    np.testing.assert_array_equal(clf.coef_ / clf.logit_scale_, TEXT[[1, 2, 0]])
    clf.set_params(text_features=(frame, frame)).fit(X, np.array(STRINGS)[CODES])
    for numbered in (pd.DataFrame(TEXT), pd.DataFrame(TEXT, index=[7, 8, 9])):
        clf.set_params(text_features=numbered).fit(X, np.array(STRINGS)[CODES])
        np.testing.assert_array_equal(clf.coef_ / clf.logit_scale_, TEXT)
    clf.set_params(text_features=pd.DataFrame(TEXT)).fit(X, np.array(FROM_ONE)[CODES])
    np.testing.assert_array_equal(clf.coef_ / clf.logit_scale_, TEXT)
    twice = pd.DataFrame(TEXT, index=["ant", "bee", "ant"])
    with pytest.raises(ValueError, match="names a label twice"):
        clf.set_params(text_features=twice).fit(X, np.array(STRINGS)[CODES])


def test_rows_of_text_by_label_are_right_or_refused_in_meta_estimators() -> None:
    """Issue 17.2: the kind."""
    for labels, more in ((STRINGS, {}), (TENS, {}), (FROM_ONE, {0: TEXT[0], 4: TEXT[0]})):
        rows = {**dict(zip(labels, TEXT, strict=True)), **more}
        clf = ZeroShotCLIPClassifier(text_features=rows)
        clf.fit(X, np.array(labels)[CODES])
        np.testing.assert_allclose(clf.coef_ / clf.logit_scale_, TEXT)
        for name, wrap in ENCODING.items():
            if reads_out_of_bounds(name, labels):
                continue
            with pytest.raises(ValueError, match=r"text_features \(positive\).*array with one row"):
                wrap(clone(clf)).fit(X, np.array(labels)[CODES])


def test_a_label_without_a_row_of_text_is_named() -> None:
    message = r"text_features \(negative\) has nothing for \['bee'\]"
    rows = dict(zip(STRINGS, TEXT, strict=True))
    lacking = {label: row for label, row in rows.items() if label != "bee"}
    with pytest.raises(ValueError, match=message):
        HeGraphClassifier(text_features=(rows, lacking)).fit(X, np.array(STRINGS)[CODES])


def test_classes_of_fit_tell_which_labels_a_mapping_is_about() -> None:
    """Issue 17.15 and 17.20: integers 0 to 2, of which a mapping holds more, may be encoded."""
    rows = dict(enumerate(np.eye(4, 6)))
    clf = HeGraphClassifier(text_features=rows)
    with pytest.raises(ValueError, match=r"holds 4 labels, and y the integers 0 to 2.*`classes`"):
        clf.fit(X, CODES)
    clf.fit(X, CODES, classes=range(4))
    np.testing.assert_array_equal(clf.graph_["positive"], np.eye(4, 6))
    stream = HeGraphClassifier(text_features=rows)
    stream.partial_fit(X[:16], CODES[:16], classes=range(4)).partial_fit(X[16:], CODES[16:])
    np.testing.assert_array_equal(stream.predict_proba(X), clf.predict_proba(X))


# --- folds that lack a class ----------------------------------------------------------------------

FOLDS = [(np.flatnonzero(c != CODES), np.flatnonzero((c + 1) % 3 != CODES)) for c in range(3)]


@pytest.mark.parametrize(
    "params",
    [
        {"class_weight": dict(zip(STRINGS, [1.0, 2.0, 3.0], strict=True))},
        {"text_features": dict(zip(STRINGS, TEXT, strict=True))},
        {
            "text_features": "clip",
            "class_names": dict(zip(STRINGS, NAMES, strict=True)),
            "templates": {name: f"something {name}" for name in NAMES},
            "negative_templates": {name: [f"nothing {name}", "no"] for name in NAMES},
        },
        {"text_features": "clip", "class_names": {"bee": "a bee"}},
    ],
    ids=["class_weight", "text_features", "templates", "class_names"],
)
def test_folds_that_lack_a_class_score(params: dict[str, Any]) -> None:
    """Issue 17.20: a mapping may hold more than the fold needs."""
    clf = HeGraphClassifier("skhegraph-tiny", **{"text_features": "prototypes", **params})
    wide = np.hstack([X, np.zeros((24, 122))]) if clf.text_features == "clip" else X
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = cross_val_score(clf, wide, np.array(STRINGS)[CODES], cv=FOLDS, error_score="raise")
    assert np.isfinite(scores).all()


def test_class_weights_of_more_labels_act_as_those_of_the_fold() -> None:
    """Issue 17.20."""
    y, some = np.array(STRINGS)[CODES], CODES != 1
    more = {"ant": 1.0, "bee": 5.0, "cat": 2.0}
    clf = HeGraphClassifier(text_features="prototypes", class_weight=more).fit(X[some], y[some])
    np.testing.assert_allclose(np.exp(clf.log_prior_), [1 / 3, 2 / 3])
    two = {"ant": 1.0, "cat": 2.0}
    want = clone(clf).set_params(class_weight=two).fit(X[some], y[some])
    np.testing.assert_array_equal(clf.predict_proba(X), want.predict_proba(X))


def test_class_weights_that_may_be_of_other_labels_warn() -> None:
    """Issue 17.2, the kind: LogisticRegression takes them without a word."""
    clf = HeGraphClassifier(text_features="prototypes", class_weight=dict.fromkeys(range(4), 1.0))
    message = "names .*, and y holds the integers 0 to 2: if a meta-estimator"
    with pytest.warns(UserWarning, match=message):
        clf.fit(X, CODES)
    with pytest.warns(UserWarning, match=message):
        clone(clf).set_params(class_weight={1: 5.0}).fit(X, CODES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.fit(X, np.array([1, 2, 3])[CODES])  # not encoded
        clf.set_params(class_weight={}).fit(X, CODES)
        clf.set_params(class_weight={0: 1.0, 1: 5.0, 2: 1.0}).fit(X, CODES)  # all, and no other


class Weighed(HeGraphClassifier):
    """Notes the weight of the class of each support row, by the row's largest feature."""

    noted: list[list[float]] = []  # noqa: RUF012 - of all clones

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:  # type: ignore[override]
        super().fit(X, y, sample_weight)
        share = np.bincount(np.searchsorted(self.classes_, y)) / len(y)
        weight = np.exp(self.log_prior_) / share
        groups = [np.argmax(X[y == label].mean(axis=0)) for label in self.classes_]
        self.noted.append((weight / weight.min())[np.argsort(groups)].round(6).tolist())
        return self


#: Labels, weights of the classes in their order, and what is to be where labels are encoded.
WEIGHTS = {
    "strings, all": (STRINGS, [1.0, 5.0, 2.0], "refused"),
    "strings, some": (STRINGS, [None, 5.0, None], "refused"),
    "digits, all": (DIGITS, [1.0, 5.0, 2.0], "right"),
    "digits, some": (DIGITS, [None, 5.0, None], "right, warned"),
    "tens, all": (TENS, [1.0, 5.0, 2.0], "refused"),
    "tens, some": (TENS, [None, 5.0, None], "refused"),
    "from one, all": (FROM_ONE, [1.0, 5.0, 2.0], "refused"),
    "from one, some": (FROM_ONE, [None, 5.0, None], "warned"),
}


@pytest.mark.parametrize(
    ("meta", "case"),
    [
        (meta, case)
        for meta in [*ENCODING, "probabilities", "alone"]
        for case, (labels, *_) in WEIGHTS.items()
        if not reads_out_of_bounds(meta, labels)
    ],
)
def test_class_weights_in_meta_estimators_are_right_refused_or_warned(meta: str, case: str) -> None:
    """Issue 17.2, the kind: of the wrong class without a word."""
    labels, weights, want = WEIGHTS[case]
    given = {label: w for label, w in zip(labels, weights, strict=True) if w is not None}
    clf = Weighed(text_features="prototypes", class_weight=given)
    y = np.array(labels)[CODES]
    Weighed.noted.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if meta == "probabilities":
                cross_val_predict(clf, X, y, cv=2, method="predict_proba")
            else:
                {**KEEPING, **ENCODING}[meta](clf).fit(X, y)
        except ValueError as error:
            assert "class_weight names" in str(error) and "encode y" in str(error)
            got = ["refused"]
        else:
            assert Weighed.noted
            right = all(noted == [w or 1.0 for w in weights] for noted in Weighed.noted)
            told = any("class_weight names" in str(warning.message) for warning in caught)
            got = ["right"] * right + ["warned"] * told
    if meta == "alone":
        want = "right, warned" if case == "digits, some" else "right"
    assert ", ".join(got) == want


@pytest.mark.parametrize(
    ("labels", "given", "message"),
    [
        (
            DIGITS,
            {"0": 1.0, "1": 2.0, "2": 1.0},
            r"names \['0', '1', '2'\].*lacks \[0, 1, 2\].*int",
        ),
        (["0", "1", "2"], {0: 1.0, 1: 2.0, 2: 1.0}, r"names \[0, 1, 2\].*lacks \['0'.*str"),
        (STRINGS, {"ant": 1.0, "bea": 1.0}, r"names \['bea'\].*lacks \['bee', 'cat'\]"),
    ],
)
def test_class_weights_of_labels_that_are_none(labels: Any, given: Any, message: str) -> None:
    """Issue 17.28."""
    with pytest.raises(ValueError, match=message):
        HeGraphClassifier(text_features="prototypes", class_weight=given).fit(
            X, np.array(labels)[CODES]
        )
