"""Prompts: forms, presets, errors, and the text nodes against open_clip by hand."""

from __future__ import annotations

from enum import Enum

import numpy as np
import pytest
import torch

from skhegraph.clip.model import load_backbone
from skhegraph.clip.prompts import DEFAULT, PRESETS, build_prompts, text_nodes

NAMES = ["cat", "sunflower", "école"]


@pytest.fixture(scope="module")
def tiny():
    return load_backbone("skhegraph-tiny", device="cpu")


def test_every_form_of_templates():
    assert build_prompts(["cat", "dog"], "photo") == [["a photo of a cat."], ["a photo of a dog."]]
    assert build_prompts(["cat"], "a {}!") == [["a cat!"]]
    assert build_prompts(["cat"], ("a {}.", "no {}.")) == [["a cat.", "no cat."]]
    mapping = {"dog": "it barks.", "cat": ["it purrs.", "it has nine lives."]}
    assert build_prompts(["cat", "dog"], mapping) == [
        ["it purrs.", "it has nine lives."],
        ["it barks."],
    ]


def test_class_names_are_not_altered():
    assert build_prompts(["sea_lion {x}"], "a {}.") == [["a sea_lion {x}."]]


def test_negative_selects_the_negative_templates_of_a_preset_only():
    assert build_prompts(["cat"], DEFAULT, negative=True) == [["a photo of no cat."]]
    assert build_prompts(["dots"], "dtd", negative=True) == [["not dots texture."]]
    assert build_prompts(["cat"], "a {}.", negative=True) == [["a cat."]]


def test_presets_cover_the_usual_data_sets():
    eleven = (
        "imagenet caltech101 oxford_pets stanford_cars oxford_flowers food101 fgvc_aircraft "
        "sun397 dtd eurosat ucf101"
    )
    assert set(PRESETS) == {"photo", *eleven.split()}
    assert len(PRESETS["imagenet"].templates) == 8


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_are_well_formed(name):
    preset = PRESETS[name]
    assert len(preset.templates) == len(preset.negative_templates)
    positive = build_prompts(["XYZ"], preset.templates)[0]
    negative = build_prompts(["XYZ"], preset.negative_templates)[0]
    assert not set(positive) & set(negative)
    for prompt in negative:
        words = prompt.rstrip(".").replace(",", "").split()
        assert {"no", "not", "without"} & set(words), prompt
        assert "a no" not in prompt and "the no" not in prompt
    for prompt in positive:
        assert not {"no", "not", "without"} & set(prompt.split())


def test_presets_cannot_be_changed():
    with pytest.raises(TypeError):
        PRESETS["photo"] = None  # type: ignore[index]


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ("imagenett", "Nearest: imagenet"),
        ("a photo", "no '{}'"),
        (["a {}.", "a photo."], "'a photo.' must have exactly one .* no '{}'.*imagenet"),
        ("a {} and a {}.", "exactly one"),
        ("a {name}.", r"\['name'\]"),
        ("a {0}.", r"\['0'\]"),
        ("a {:>8}.", "exactly one"),
        ("a {", "no format string"),
        ([], "empty"),
        ({"cat": "x"}, "missing 'dog'"),
        ({"cat": "x", "dig": "y"}, "missing 'dog'; not a class 'dig'"),
        ({"cat": [], "dog": "y"}, "no description of class 'cat'"),
        ({"cat": "a {name}.", "dog": "y"}, r"'a \{name\}.' must have exactly one"),
        ({"cat": "a } {", "dog": "y"}, "no format string"),
    ],
)
def test_bad_templates(templates, message):
    with pytest.raises(ValueError, match=message):
        build_prompts(["cat", "dog"], templates)


@pytest.mark.parametrize(
    ("class_names", "templates", "message"),
    [
        ("cat", "photo", "got one str"),
        (["cat", 3], "photo", r"class_names\[1\]"),
        (["cat"], 7, "got int"),
        (["cat"], [7], "got int"),
        (["cat"], {"cat": [7]}, "non-blank str"),
        # Issue 17.25: open_clip's own templates are functions.
        (["cat"], {"cat": str.upper}, r"a method_descriptor for class 'cat': give a description"),
        (["cat"], {"cat": lambda name: f"a {name}."}, "a function for class 'cat'"),
        (["cat"], [lambda name: f"a {name}."], "got function"),
    ],
)
def test_wrong_types(class_names, templates, message):
    with pytest.raises(TypeError, match=message):
        build_prompts(class_names, templates)


def test_descriptions_in_a_mapping_take_the_name_in_braces():
    """Issue 17.25."""
    mapping = {"cat": ["a small {}.", "it purrs."], "dog": "a {} that barks."}
    assert build_prompts(["dog", "cat"], mapping) == [
        ["a dog that barks."],
        ["a small cat.", "it purrs."],
    ]


def test_members_of_enumerations_stand_for_their_text():
    """Issue 17.25."""
    animal = Enum("animal", {"CAT": "cat", "DOG": "dog"}, type=str)
    assert build_prompts(list(animal), "photo") == [["a photo of a cat."], ["a photo of a dog."]]


@pytest.mark.parametrize(("class_names", "message"), [([], "empty"), (["a", " "], "blank")])
def test_bad_class_names(class_names, message):
    with pytest.raises(ValueError, match=message):
        build_prompts(class_names, "photo")


@pytest.mark.parametrize("negative", [False, True])
def test_text_nodes_are_unit_means_of_unit_features(tiny, negative):
    preset = PRESETS["imagenet"]
    templates = preset.negative_templates if negative else preset.templates
    expected = []
    with torch.inference_mode():
        for name in NAMES:
            tokens = tiny._tokenizer([t.format(name) for t in templates])
            rows = tiny._model.encode_text(tokens).double().numpy()
            mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
            expected.append(mean / np.linalg.norm(mean))
    nodes = text_nodes(tiny, NAMES, "imagenet", negative=negative)
    assert nodes.dtype == np.float32
    np.testing.assert_allclose(nodes, expected, atol=2e-6)


def test_text_nodes_with_unequal_numbers_of_descriptions(tiny):
    mapping = {"cat": ["a cat.", "a small cat.", "a cat on a mat."], "dog": "a dog."}
    nodes = text_nodes(tiny, ["dog", "cat"], mapping)
    rows = tiny.encode_text(mapping["cat"]).mean(axis=0)
    np.testing.assert_allclose(nodes[1], rows / np.linalg.norm(rows), atol=1e-6)
    np.testing.assert_allclose(nodes[0], tiny.encode_text(["a dog."])[0], atol=1e-6)


def test_shared_text_features(tiny, shared_data):
    archives = [
        path
        for path in sorted((shared_data / "features").glob("*.npz"))
        if "train_files" in np.load(path)  # others are of another CLIP
    ]
    assert archives
    for archive in archives:
        data = np.load(archive)
        names = [str(name) for name in data["class_names"]]
        for key, negative in (("text_pos", False), ("text_neg", True)):
            nodes = text_nodes(tiny, names, "photo", negative=negative)
            np.testing.assert_allclose(nodes, data[key], atol=2.5e-4)
        assert tiny.logit_scale == pytest.approx(float(data["logit_scale"]), rel=1e-3)
