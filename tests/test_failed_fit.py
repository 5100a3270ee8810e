"""A fit that fails leaves the estimator as it was: its answers, its labels, its width."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from skhegraph import HeGraphAdapterClassifier, HeGraphClassifier, ZeroShotCLIPClassifier, peers
from skhegraph.feature_classifier import FeatureClassifier
from skhegraph.peers import __all__ as PEERS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 6)) + 3 * np.eye(3, 6)[np.repeat([0, 1, 2], 4)]
Y = np.repeat(["ant", "bee", "cat"], 4)
OTHER_Y = np.repeat(["dog", "elk", "fox"], 4)
TEXT = np.eye(3, 6)
ESTIMATORS = [HeGraphClassifier, HeGraphAdapterClassifier, ZeroShotCLIPClassifier] + [
    getattr(peers, name) for name in PEERS
]


def make(estimator: Any) -> Any:
    clf = estimator(text_features=TEXT)
    known = clf.get_params()
    few = {"n_epochs": 2, "random_state": 0, "device": "cpu"}
    return clf.set_params(**{name: value for name, value in few.items() if name in known})


class Interrupt(Exception):
    """What no estimator expects."""


@pytest.mark.parametrize("late", [False, True], ids=["text", "end"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_failed_refit_changes_nothing(
    estimator: Any, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 17.7: other labels and another width, then text that does not fit, or an interrupt."""
    clf = make(estimator).fit(X, Y)
    before = pickle.dumps({k: v for k, v in vars(clf).items() if k != "text_features"})
    answers = clf.predict_proba(X)
    if late:
        real = FeatureClassifier._validate_support

        def interrupt(self: Any, adapted: Any) -> None:
            raise Interrupt

        def interrupted(self: Any, *args: Any, **params: Any) -> Any:
            real(self, *args, **params)
            raise Interrupt

        monkeypatch.setattr(FeatureClassifier, "_validate_support", interrupted)
        monkeypatch.setattr(HeGraphClassifier, "_keep_strengths", interrupt)
        clf.set_params(text_features=np.eye(3, 5))
        with pytest.raises(Interrupt):
            clf.fit(X[:, :5], OTHER_Y)
    else:
        clf.set_params(text_features=np.eye(3, 7))
        with pytest.raises(ValueError, match="text_features"):
            clf.fit(X[:, :5], OTHER_Y)
    assert pickle.dumps({k: v for k, v in vars(clf).items() if k != "text_features"}) == before
    np.testing.assert_array_equal(clf.predict_proba(X), answers)
    assert clf.predict(X[:1]).tolist() == clf.classes_[answers[0].argmax()].reshape(1).tolist()
