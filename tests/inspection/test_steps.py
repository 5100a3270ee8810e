"""A pipeline is taken apart as its last step and what comes before."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhegraph import HeGraphClassifier
from skhegraph.inspection.steps import features_of, final_classifier


def test_classifier_alone_and_in_a_pipeline(make_classifier):
    clf = make_classifier()
    assert final_classifier(clf) is clf
    X = np.arange(24.0).reshape(2, 12)
    assert features_of(clf, X) is X
    scaler = StandardScaler().fit(X)
    pipe = make_pipeline(scaler, clf)
    assert final_classifier(pipe) is clf
    np.testing.assert_array_equal(features_of(pipe, X), scaler.transform(X))
    assert features_of(make_pipeline(clf), X) is X


def test_what_is_refused():
    with pytest.raises(TypeError, match="LogisticRegression; expected a fitted HeGraphClassifier"):
        final_classifier(make_pipeline(StandardScaler(), LogisticRegression()))
    with pytest.raises(NotFittedError):
        final_classifier(HeGraphClassifier())
