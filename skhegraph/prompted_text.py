"""Text nodes from prompts of the class names, through a CLIP."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from skhegraph.labels import are_encoded, brief, by_index, encoded_hint, values_of_labels
from skhegraph.text_source import Asked, TextNodes

Templates: TypeAlias = str | Sequence[str] | Mapping[str, Any]
ClassNames: TypeAlias = Sequence[str] | Mapping[Any, str] | None

#: What to do where a meta-estimator has encoded the labels.
IN_ORDER = "set class_names to a list in the order of the sorted labels"


@dataclass(frozen=True)
class PromptedText:
    """Prompts of the class names, encoded with a CLIP.

    Attributes
    ----------
    model_name, pretrained, class_names, templates, negative_templates, device
        As in :class:`skhegraph.prompted_classifier.PromptedClassifier`.
    with_negatives : bool
        Whether negative prompts are encoded; the positive nodes stand for theirs where not.
    asked_by : str
        Name of the estimator, for an error.
    texts_of_members : mapping of str to str
        Texts of the members of an enumeration, by what NumPy makes of them.
    """

    model_name: str
    pretrained: str | None
    class_names: ClassNames
    templates: Templates
    negative_templates: Templates | None
    device: str
    with_negatives: bool
    asked_by: str
    texts_of_members: Mapping[str, str]

    @property
    def bundled(self) -> bool:
        """Whether the CLIP comes with the package."""
        return self.model_name.startswith("skhegraph-")

    @property
    def name(self) -> str:
        """What a message calls the text."""
        own_weights = self.model_name.startswith(("skhegraph-", "hf-hub:", "local-dir:"))
        weights = "" if own_weights else f" ({self.pretrained!r})"
        return f"The text of {self.model_name!r}{weights}"

    def nodes(self, asked: Asked) -> TextNodes:
        """Nodes of the classes, from prompts of their names."""
        labels = asked.labels
        if texts := self.texts_of_members:
            labels = np.array([texts.get(str(label), label) for label in labels])
        names = resolve_class_names(labels, self.class_names)
        return self.encode([names[c] for c in np.flatnonzero(asked.kept)], asked.n_features)

    def encode(self, names: list[str], n_features: int | None) -> TextNodes:
        """Nodes of names, as wide as images with `n_features`; None is any width."""
        from skhegraph.clip.model import load_backbone
        from skhegraph.clip.prompts import PRESETS, encode_prompts, mean_of_prompts, text_nodes

        negative = self.negative_templates
        if negative is None:
            preset = isinstance(self.templates, str) and self.templates in PRESETS
            negative = self.templates if preset else "photo"
        backbone = load_backbone(self.model_name, self.pretrained, self.device)
        if n_features not in (None, backbone.n_features):
            raise ValueError(
                f"X has {n_features} features, but the text features of {backbone} have "
                f"{backbone.n_features}: image and text must come from one CLIP. Name the same "
                f"CLIP in CLIPFeatures and in {self.asked_by}, or build both steps with "
                "make_hegraph_pipeline; for features that no CLIP made, set "
                "text_features='prototypes'."
            )
        prompts, features = encode_prompts(backbone, names, self.templates)
        P = mean_of_prompts(features)
        N = text_nodes(backbone, names, negative, negative=True) if self.with_negatives else P
        return TextNodes(P, N, backbone.logit_scale, tuple(prompts), tuple(features))


def resolve_class_names(labels: NDArray[Any], given: Any) -> list[str]:
    """One name per label, in the order of the sorted labels.

    Parameters
    ----------
    labels : ndarray of shape (n_classes,)
        Sorted labels.
    given : None, sequence of str, or mapping of label to str
        None takes string labels as they are, and so does a mapping those that it does not hold.

    Raises
    ------
    ValueError
        If there is not exactly one name per label, if a list holds the labels in another order, or
        if the keys of a mapping may be other labels than these (:func:`values_of_labels`).
    """
    given = by_index(given, labels, "class_names")
    if given is None:
        names = _names_of_labels(labels)
    elif isinstance(given, Mapping):
        names = _names_of_mapping(labels, given)
    else:
        names = _names_of_list(labels, given)
    for label, name in zip(labels, names, strict=True):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(
                f"Class {str(label)!r} has no name (got {name!r}): every class needs a "
                "non-empty string in class_names."
            )
    return names


def _are_strings(labels: Iterable[Any]) -> bool:
    return all(isinstance(label, str) for label in labels)


def _names_of_labels(labels: NDArray[Any]) -> list[str]:
    if not _are_strings(labels):
        raise ValueError(
            f"The labels ({labels[0]}, ...) are not strings, so they give no prompts: pass the "
            "names as y (numpy.array(names)[y]), set class_names to a list of names in the order "
            "of the sorted labels or to a mapping from label to name, or "
            "text_features='prototypes' to use no text." + encoded_hint(labels, IN_ORDER)
        )
    return [str.__str__(label) for label in labels]


def _names_of_mapping(labels: NDArray[Any], given: Mapping[Any, Any]) -> list[Any]:
    if not (_are_strings(labels) and _are_strings(given)):
        return values_of_labels(given, labels, "class_names", "a list")
    own = [label for label in labels if label not in given]
    unknown = given.keys() - set(labels.tolist())
    if own and unknown:
        warnings.warn(
            f"class_names names {brief(sorted(unknown))}, not among the labels; {brief(own)} have "
            "no name there and are taken as their own.",
            UserWarning,
            stacklevel=7,
        )
    return [given.get(label, str.__str__(label)) for label in labels]


def _names_of_list(labels: NDArray[Any], given: Any) -> list[Any]:
    if isinstance(given, str):
        raise ValueError(
            f"class_names={given!r} is one string: give a list with one name per class, in the "
            "order of the sorted labels, or a mapping from label to name; to change the prompt, "
            "set templates."
        )
    if isinstance(given, (set, frozenset)):
        raise ValueError(
            f"class_names={_shown(given)} is a set, which has no order: give a list in the order "
            "of the sorted labels, or a mapping from label to name."
        )
    names = list(given) if isinstance(given, Iterable) else []
    if len(names) != len(labels):
        raise ValueError(
            f"class_names={_shown(given)} holds {len(names)} names for {len(labels)} classes: give "
            "one per class, in the order of the sorted labels, or a mapping from label to name."
            + encoded_hint(labels, "the list must name exactly the classes that occur")
            + (
                " OneVsRestClassifier hides which class a binary problem is about; "
                "the classifier is multiclass by itself."
                if are_encoded(labels) and len(labels) == 2
                else ""
            )
        )
    expected = [str(label) for label in labels]
    if _are_strings(labels) and names != expected and sorted(map(str, names)) == sorted(expected):
        raise ValueError(
            f"class_names={_shown(given)} holds the labels themselves in another order than "
            f"theirs ({', '.join(expected[:5])}, ...), which would give classes each other's "
            "names: leave class_names None, or give a mapping from label to name."
        )
    return names


def _shown(given: Any) -> str:
    """Show a list of names, the first five at most."""
    return brief(map(str, given)) if isinstance(given, Iterable) else repr(given)
