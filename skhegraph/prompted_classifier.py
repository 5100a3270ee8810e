"""Classifiers whose text nodes come from the names of the classes, through a CLIP."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from skhegraph.feature_classifier import FeatureClassifier, TextFeatures
from skhegraph.labelled_rows import LabelledRows
from skhegraph.labels import (
    are_encoded,
    brief,
    by_index,
    encoded_hint,
    texts_of_members,
    values_of_labels,
)
from skhegraph.support import Floats, Ints

Templates: TypeAlias = str | Sequence[str] | Mapping[str, Any]
ClassNames: TypeAlias = Sequence[str] | Mapping[Any, str] | None

#: What to do where a meta-estimator has encoded the labels.
IN_ORDER = "set class_names to a list in the order of the sorted labels"


class PromptedClassifier(FeatureClassifier):
    """Base of the classifiers that can encode prompts of the class names with a CLIP.

    Parameters
    ----------
    model_name, pretrained : str
        The CLIP whose text tower encodes the prompts, named as in :class:`CLIPFeatures`.
    text_features : {"clip", "prototypes"}, array-like, mapping, or pair of these, default="clip"
        ``"clip"`` encodes prompts; else as in :class:`FeatureClassifier`.
    class_names : None, sequence of str, or mapping of label to str, default=None
        Names that go into the prompts; None takes string labels as they are, and so does a mapping
        those that it does not hold.
    templates, negative_templates : str, sequence of str, or mapping, default="photo", None
        See :mod:`skhegraph.clip.prompts`; None takes the negatives of the `templates` preset.
    logit_scale : float or None, default=None
        `tau`; None takes the CLIP's own, 100 where there is none.
    device : str, default="auto"
        Where the text tower (and training, if any) runs.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **FeatureClassifier._parameter_constraints,
        # The CLIP wing says what is wrong with these, and names what is near.
        "model_name": "no_validation",
        "pretrained": "no_validation",
        "class_names": "no_validation",
        "templates": "no_validation",
        "negative_templates": "no_validation",
        "device": "no_validation",
    }

    #: Whether negative prompts are encoded.
    _uses_negatives = True

    def __init__(
        self,
        model_name: str = "ViT-B-32",
        pretrained: str | None = "laion2b_s34b_b79k",
        *,
        text_features: TextFeatures = "clip",
        class_names: ClassNames = None,
        templates: Templates = "photo",
        negative_templates: Templates | None = None,
        logit_scale: float | None = None,
        device: str = "auto",
    ) -> None:
        super().__init__(text_features=text_features, logit_scale=logit_scale)
        self.model_name = model_name
        self.pretrained = pretrained
        self.class_names = class_names
        self.templates = templates
        self.negative_templates = negative_templates
        self.device = device

    def _validate_rows(
        self, X: Any, y: Any, *args: Any, reset: bool = True, **params: Any
    ) -> tuple[LabelledRows, LabelledRows]:
        self._remember_members(y, reset=reset)
        return super()._validate_rows(X, y, *args, reset=reset, **params)

    def _remember_members(self, labels: Any, *, reset: bool = False) -> None:
        """Keep the texts of enumerations' members, of which NumPy makes "Animal.CAT"."""
        earlier = vars(self).pop("_texts_of_members", {})
        texts = texts_of_members(labels) | ({} if reset else earlier)
        if texts:
            self._texts_of_members = texts

    def _text_nodes(
        self, X: Floats | None, y: Ints, weight: Floats, labels: NDArray[Any]
    ) -> tuple[Floats, Floats, float]:
        if not (isinstance(self.text_features, str) and self.text_features == "clip"):
            self._keep_prompts([], [])
            return super()._text_nodes(X, y, weight, labels)
        if texts := getattr(self, "_texts_of_members", {}):
            names_of_labels = [texts.get(str(label), label) for label in labels]
            names = resolve_class_names(np.array(names_of_labels), self.class_names)
        else:
            names = resolve_class_names(labels, self.class_names)
        kept = [names[c] for c in np.flatnonzero(np.isin(labels, self.classes_))]
        return self._encode_names(kept, None if X is None else X.shape[1])

    def _keep_prompts(self, prompts: list[list[str]], features: list[Floats]) -> None:
        """Keep the prompts of each class and their features, where an estimator wants them."""

    def _text_sources(self) -> str:
        return "'clip', 'prototypes'"

    def _text_source(self) -> str:
        """Name of the text source, for a warning; empty without text."""
        if isinstance(self.text_features, str):
            if self.text_features == "prototypes":
                return ""
            own_weights = self.model_name.startswith(("skhegraph-", "hf-hub:", "local-dir:"))
            weights = "" if own_weights else f" ({self.pretrained!r})"
            return f"The text of {self.model_name!r}{weights}"
        return "The given text_features"

    def _text_is_bundled(self) -> bool:
        """Tell whether the text is of a CLIP that comes with the package."""
        from_names = isinstance(self.text_features, str) and self.text_features == "clip"
        return from_names and self.model_name.startswith("skhegraph-")

    def _encode_names(
        self, names: list[str], n_features: int | None
    ) -> tuple[Floats, Floats, float]:
        """Text nodes of the classes, from prompts of their names and the named CLIP."""
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
                f"CLIP in CLIPFeatures and in {type(self).__name__}, or build both steps with "
                "make_hegraph_pipeline; for features that no CLIP made, set "
                "text_features='prototypes'."
            )
        prompts, features = encode_prompts(backbone, names, self.templates)
        self._keep_prompts(prompts, features)
        P = mean_of_prompts(features)
        N = text_nodes(backbone, names, negative, negative=True) if self._uses_negatives else P
        return P, N, backbone.logit_scale


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
