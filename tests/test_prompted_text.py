"""Names of classes: where they come from and what is refused; prompts as a source of text."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from skhegraph.clip.model import load_backbone
from skhegraph.prompted_text import PromptedText, resolve_class_names
from skhegraph.text_source import Asked

TINY = "skhegraph-tiny"
Y = np.array(["ant", "bee", "cat"])


@pytest.mark.parametrize(
    ("labels", "given", "want"),
    [
        (Y, None, ["ant", "bee", "cat"]),
        (Y, ["Ant", "Bee", "Cat"], ["Ant", "Bee", "Cat"]),
        (Y, ("ant", "bee", "cat"), ["ant", "bee", "cat"]),
        (Y, {"cat": "C", "ant": "A", "bee": "B", "dog": "D"}, ["A", "B", "C"]),
        ([7, 8, 9], ["x", "y", "z"], ["x", "y", "z"]),
        ([7, 8, 9], {9: "z", 7: "x", 8: "y"}, ["x", "y", "z"]),
        ([7, 8, 9], pd.Series({9: "z", 7: "x", 8: "y"}), ["x", "y", "z"]),
        ([7, 8, 9], pd.Series(["x", "y", "z"]), ["x", "y", "z"]),
        ([0, 1, 2], pd.Series(["x", "y", "z"])[::-1], ["x", "y", "z"]),  # a range backwards
        (Y, {"bee": "B"}, ["ant", "B", "cat"]),  # issue 17.33: the others have their own
        ([0, 1, 2], {0: "A", 2: "C", 1: "B"}, ["A", "B", "C"]),
        ([1, 2, 3], {0: "z", 1: "A", 3: "C", 2: "B"}, ["A", "B", "C"]),
        ([False, True], {False: "no", True: "yes"}, ["no", "yes"]),
        (range(10), {str(i): f"n{i}" for i in range(10)}, [f"n{i}" for i in range(10)]),  # JSON
        (range(5, 12), {str(i): f"n{i}" for i in range(15)}, [f"n{i}" for i in range(5, 12)]),
    ],
)
def test_names_follow_the_sorted_labels(labels: Any, given: Any, want: list[str]) -> None:
    assert resolve_class_names(np.array(list(labels)), given) == want


ENCODED = "Meta-estimators that encode y"


@pytest.mark.parametrize(
    ("labels", "given", "message"),
    [
        ([7, 8, 9], None, r"labels \(7, ...\) are not strings.*class_names"),
        ([0, 1, 2], None, rf"labels \(0, ...\) are not strings.*{ENCODED}"),
        (
            [0, 1, 2],
            {"ant": "a", "bee": "b"},
            rf"class_names has nothing for \[0, 1, 2\].*{ENCODED}",
        ),
        ([0, 1, 2], {1: "one", 2: "two", 3: "three"}, r"nothing for \[0\]"),  # off by one
        ([0, 1], {"0": "a", 1: "b"}, r"nothing for \[0\]"),
        (["0", "1"], {0: "a", 1: "b"}, r"nothing for \['0', '1'\].*of the type .* \(str"),
        # Encoded labels "0" to "11" have another order: "10" comes before "2".
        (
            range(12),
            {str(i): f"n{i}" for i in range(12)},
            r"keys of class_names are strings, \['0', .* the integers 0 to 11.*make the keys "
            r"integers, \{int\(key\): value .*labels are strings.*'10' is before '2': give "
            "class_names as a list in the order of the sorted labels",
        ),
        ([*range(11)], {0: "a", **dict.fromkeys(map(str, range(11)), "n")}, r"nothing for \[1, 2"),
        ([0, 1], {0: "a", 1: "b", 2: "c"}, "holds 3 labels, and y the integers 0 to 1.*a list in"),
        (Y, ["ant", "bee"], "holds 2 names for 3 classes"),
        (Y, ["ant", "bee", "cat", "dog"], "holds 4 names for 3 classes"),
        ([0, 1], ["ant", "bee", "cat"], rf"holds 3 names for 2 classes.*{ENCODED}.*OneVsRest"),
        (Y, "dog", "class_names='dog' is one string: give a list"),
        ([7, 8, 9], {"x", "y", "z"}, "is a set, which has no order: give a list"),
        ([7, 8], pd.Series(["x", "y"], index=[7, 7]), "its index names a label twice"),
        ([0, 1, 2], pd.Series(list("wxyz"))[1:], r"nothing for \[0\]"),  # a range from 1
        (Y, ["ant", " ", "cat"], r"Class 'bee' has no name \(got ' '\)"),
        (Y, {"ant": "ant", "bee": None, "cat": "c"}, r"Class 'bee' has no name \(got None\)"),
        (Y, ["bee", "ant", "cat"], "the labels themselves in another order"),
        (Y[::-1], ["ant", "bee", "cat"], "the labels themselves in another order"),  # columns of y
        (Y, 5, "class_names=5 holds 0 names"),
    ],
)
def test_names_that_are_refused(labels: Any, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_class_names(np.array(list(labels)), given)


def test_names_of_other_labels_warn_where_some_have_none() -> None:
    """Issue 17.33: a misspelt key is not passed over in silence; one name of a fold is no fault."""
    with pytest.warns(UserWarning, match=r"names \['be'\], not among the labels; \['ant', 'bee'\]"):
        assert resolve_class_names(Y, {"be": "B", "cat": "C"}) == ["ant", "bee", "C"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_class_names(Y, {"cat": "C"}) == ["ant", "bee", "C"]


def prompted(model_name: str = TINY, pretrained: str | None = None, **changes: Any) -> PromptedText:
    values = {
        "class_names": None,
        "templates": "a {} here",
        "negative_templates": "no {}",
        "device": "cpu",
        "with_negatives": True,
        "asked_by": "Some",
        "texts_of_members": {},
    }
    return PromptedText(model_name, pretrained, **{**values, **changes})


@pytest.mark.parametrize(
    ("model_name", "name", "bundled"),
    [
        (TINY, "The text of 'skhegraph-tiny'", True),
        ("hf-hub:org/clip", "The text of 'hf-hub:org/clip'", False),
        ("local-dir:clip", "The text of 'local-dir:clip'", False),
        ("ViT-B-32", "The text of 'ViT-B-32' ('openai')", False),
    ],
)
def test_what_a_message_calls_it(model_name: str, name: str, bundled: bool) -> None:
    source = prompted(model_name, "openai")
    assert (source.name, source.bundled) == (name, bundled)


@pytest.mark.parametrize("with_negatives", [True, False])
def test_nodes_are_of_the_classes_among_the_labels(with_negatives: bool) -> None:
    names = {"ant": "red ant", "bee": "bee", "cat": "grey cat"}
    source = prompted(class_names=names, with_negatives=with_negatives)
    none = np.empty(0, dtype=np.intp), np.empty(0)
    nodes = source.nodes(Asked(Y, Y[[0, 2]], None, *none))
    prompts = [["a red ant here"], ["a grey cat here"]]
    assert list(nodes.prompts) == prompts
    backbone = load_backbone(TINY, None, "cpu")
    want = backbone.encode_text([text for group in prompts for text in group])
    np.testing.assert_allclose(nodes.positive, want, atol=1e-6)
    np.testing.assert_allclose(np.vstack(nodes.prompt_features), want, atol=1e-6)
    negative = backbone.encode_text(["no red ant", "no grey cat"]) if with_negatives else want
    np.testing.assert_allclose(nodes.negative, negative, atol=1e-6)
    assert nodes.logit_scale == backbone.logit_scale
