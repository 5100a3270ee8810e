"""Sources of text: class means by hand, given rows, and what a parameter names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from skhegraph.text_source import Asked, GivenText, Prototypes, text_source

LABELS = np.array(["ant", "bee", "cat"])
X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [3.0, 0.0]])


def asked(classes: Any = LABELS, rows: Any = X) -> Asked:
    return Asked(LABELS, np.array(classes), rows, np.array([0, 1, 1, 2]), np.array([1, 1, 3, 1.0]))


def test_prototypes_are_weighted_means_and_the_means_of_the_others() -> None:
    nodes = Prototypes().nodes(asked())
    np.testing.assert_allclose(nodes.positive, [[1, 0], [0.75, 1], [3, 0]])
    np.testing.assert_allclose(nodes.negative, [[1.875, 0.5], [2, 0], [0.875, 0.5]])
    assert nodes.logit_scale == 100
    assert nodes.prompts == nodes.prompt_features == ()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (asked(rows=None), "X=None, and text_features='prototypes' makes the classes of X"),
        (asked([*LABELS, "dog"]), "classes names 1 classes without an image"),
    ],
)
def test_prototypes_need_rows_of_each_class(request_: Asked, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prototypes().nodes(request_)


def test_given_rows_follow_the_labels_and_those_of_the_classes_are_taken() -> None:
    P, N = np.arange(6.0).reshape(3, 2), -np.arange(6.0).reshape(3, 2)
    nodes = GivenText((P, N)).nodes(asked(["ant", "cat"]))
    np.testing.assert_array_equal(nodes.positive, P[[0, 2]])
    np.testing.assert_array_equal(nodes.negative, N[[0, 2]])


def test_what_a_parameter_names() -> None:
    prototypes = Prototypes()
    named = {"clip": GivenText(0), "prototypes": prototypes}
    assert text_source("prototypes", named) is prototypes
    assert text_source(X, named).name == "The given text_features"
    assert not prototypes.name
    with pytest.raises(ValueError, match="text_features='word': expected 'clip', 'prototypes', an"):
        text_source("word", named)
