"""Class names and templates to prompts, and prompts to text nodes.

Templates are plain format strings with one ``{}`` for the class name, so they pickle, print and
compare. Positive prompts say what is in the image, negative ones what is not; their nodes are
the two kinds of text nodes of the heterogeneous graph of Zhao et al. 2024, arXiv 2410.07854.
"""

from __future__ import annotations

import difflib
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from skhegraph.clip.presets import DEFAULT, PRESETS, Preset

if TYPE_CHECKING:
    from skhegraph.clip.model import Backbone

__all__ = ["DEFAULT", "PRESETS", "Preset", "Templates", "build_prompts", "text_nodes"]

Templates = str | Sequence[str] | Mapping[str, str | Sequence[str]]
"""A preset's name, a format string, several of them, or descriptions by class name."""


_FORMS = (
    "a preset's name, a format string with one '{}', a sequence of format strings, or a mapping "
    "from class name to descriptions"
)


def build_prompts(
    class_names: Sequence[str], templates: Templates, *, negative: bool = False
) -> list[list[str]]:
    """Make the prompts of every class.

    Parameters
    ----------
    class_names : sequence of str
        Names as they go into the prompts; they are not altered (an underscore stays one).
    templates : str, sequence of str, or mapping
        The name of a preset (see :data:`PRESETS`); a format string with one ``{}``; a sequence
        of these; or a mapping from each class name to one whole description or several (a
        ``{}`` in one is the place of the name), which may hold more names.
    negative : bool, default=False
        Whether a preset gives its negative templates. Other forms are used as they are.

    Returns
    -------
    list of list of str
        One list of prompts per class, in the order of `class_names`.

    Raises
    ------
    ValueError
        If there are no class names or templates, a template has not exactly one ``{}``, or the
        mapping lacks a class name.
    TypeError
        If something that has to be a str is not.

    Examples
    --------
    >>> from skhegraph.clip.prompts import build_prompts
    >>> build_prompts(["cat", "dog"], "photo", negative=True)
    [['a photo of no cat.'], ['a photo of no dog.']]
    >>> build_prompts(["cat"], ["a {}.", "a drawing of a {}."])
    [['a cat.', 'a drawing of a cat.']]
    >>> build_prompts(["cat"], {"cat": "a small animal that purrs."})
    [['a small animal that purrs.']]
    """
    names = _check_class_names(class_names)
    what = "negative_templates" if negative else "templates"  # the parameter of an estimator
    if isinstance(templates, Mapping):
        _check_keys(what, names, templates)
        return [_descriptions(what, name, templates[name]) for name in names]
    formats = _formats(what, templates, negative)
    return [[template.format(name) for template in formats] for name in names]


def text_nodes(
    backbone: Backbone,
    class_names: Sequence[str],
    templates: Templates,
    *,
    negative: bool = False,
) -> np.ndarray:
    """Compute one text node per class: the mean feature of its prompts, at unit length.

    Parameters
    ----------
    backbone : Backbone
        From :func:`skhegraph.clip.model.load_backbone`.
    class_names : sequence of C str
        See :func:`build_prompts`.
    templates : str, sequence of str, or mapping
        See :func:`build_prompts`.
    negative : bool, default=False
        See :func:`build_prompts`.

    Returns
    -------
    ndarray of shape (C, D), float32
        For each class the mean of the unit text features of its prompts, normalised again.

    Examples
    --------
    >>> from skhegraph.clip.model import load_backbone
    >>> from skhegraph.clip.prompts import text_nodes
    >>> text_nodes(load_backbone("skhegraph-tiny", device="cpu"), ["cat", "dog"], "photo").shape
    (2, 128)
    """
    return mean_of_prompts(encode_prompts(backbone, class_names, templates, negative=negative)[1])


def encode_prompts(
    backbone: Backbone,
    class_names: Sequence[str],
    templates: Templates,
    *,
    negative: bool = False,
) -> tuple[list[list[str]], list[np.ndarray]]:
    """Prompts of each class and their unit features; parameters as of :func:`text_nodes`.

    Returns
    -------
    list of list of str
        From :func:`build_prompts`.
    list of ndarray of shape (n_prompts, D), float32
        For each class.
    """
    prompts = build_prompts(class_names, templates, negative=negative)
    features = backbone.encode_text([prompt for group in prompts for prompt in group])
    return prompts, np.split(features, np.cumsum([len(group) for group in prompts])[:-1])


def mean_of_prompts(features: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of each class's prompt features at unit length, shape (C, D), float32."""
    nodes = np.stack([group.mean(axis=0, dtype=np.float64) for group in features])
    nodes /= np.linalg.norm(nodes, axis=1, keepdims=True)
    return nodes.astype(np.float32)


def _check_class_names(class_names: Sequence[str]) -> list[str]:
    if isinstance(class_names, str):
        raise TypeError(f"class_names must be a sequence of str, got one str: {class_names!r}.")
    names = list(class_names)
    if not names:
        raise ValueError("class_names is empty; at least one class name is needed.")
    for position, name in enumerate(names):
        if not isinstance(name, str):
            raise TypeError(
                f"class_names[{position}] must be a str, got {type(name).__name__}: {name!r}."
            )
        if not name.strip():
            raise ValueError(f"class_names[{position}] is blank: {name!r}.")
    return [str.__str__(name) for name in names]  # of an enumeration's member its text


def _formats(what: str, templates: str | Sequence[str], negative: bool) -> tuple[str, ...]:
    """Return the format strings of a preset or of the user, checked."""
    if isinstance(templates, str) and templates in PRESETS:
        preset = PRESETS[templates]
        return preset.negative_templates if negative else preset.templates
    if isinstance(templates, str):
        _check_is_no_misspelt_preset(what, templates)
        templates = (templates,)
    elif not isinstance(templates, (Sequence, np.ndarray)):
        raise TypeError(f"{what} must be {_FORMS}, got {type(templates).__name__}.")
    if len(templates) == 0:
        raise ValueError(f"{what} is empty. Accepted: {_FORMS}.")
    for template in templates:
        _check_template(template)
    return tuple(templates)


def _check_is_no_misspelt_preset(what: str, template: str) -> None:
    if "{" in template:
        return
    close = difflib.get_close_matches(template.lower(), PRESETS, n=3, cutoff=0.5)
    hint = f"Nearest: {', '.join(close)}." if close else f"Presets: {', '.join(PRESETS)}."
    raise ValueError(
        f"{what}={template!r} is no preset and has no '{{}}' for the class name. "
        f"{hint} Accepted: {_FORMS}."
    )


def _check_template(template: str) -> None:
    if not isinstance(template, str):
        raise TypeError(f"a template must be a str, got {type(template).__name__}: {template!r}.")
    try:
        fields = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"template {template!r} is no format string: {error}.") from error
    if fields != [("", "", None)]:
        found = "no '{}'" if not fields else f"the fields {[str(field[0]) for field in fields]}"
        raise ValueError(
            f"template {template!r} must have exactly one '{{}}', the place of the class name, "
            f"and no other field; it has {found}. Ready-made presets (each by its name alone): "
            f"{', '.join(PRESETS)}."
        )


def _check_keys(what: str, names: list[str], mapping: Mapping[str, str | Sequence[str]]) -> None:
    """Refuse a mapping that lacks a name; it may hold more, as folds may lack a class."""
    missing = [name for name in names if name not in mapping]
    if missing:
        extra = [key for key in mapping if key not in set(names)]
        raise ValueError(
            f"the keys of the {what} mapping must be the class names: missing "
            + _shown(missing)
            + (f"; not a class {_shown(extra)}" if extra else "")
            + "."
        )


def _shown(keys: list[str]) -> str:
    """The first five keys."""
    return ", ".join(map(repr, keys[:5])) + (", ..." if len(keys) > 5 else "")


def _descriptions(what: str, name: str, value: str | Sequence[str]) -> list[str]:
    """Return the descriptions of one class, checked; a '{}' in one is the place of its name."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (Sequence, np.ndarray)):
        raise TypeError(
            f"the {what} mapping has a {type(value).__name__} for class {name!r}: give a "
            "description or a list of them (of a function, what it returns for the name)."
        )
    if len(value) == 0:
        raise ValueError(f"the {what} mapping has no description of class {name!r}.")
    for text in value:
        if not isinstance(text, str) or not text.strip():
            raise TypeError(
                f"a description of class {name!r} must be a non-blank str, got {text!r}."
            )
        if "{" in text or "}" in text:
            _check_template(text)
    return [text.format(name) if "{" in text else text for text in value]
