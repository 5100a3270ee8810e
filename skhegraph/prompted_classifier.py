"""Classifiers whose text nodes come from the names of the classes, through a CLIP."""

from __future__ import annotations

from typing import Any, ClassVar

from skhegraph.feature_classifier import FeatureClassifier, TextFeatures
from skhegraph.labelled_rows import LabelledRows
from skhegraph.labels import texts_of_members
from skhegraph.prompted_text import ClassNames, PromptedText, Templates
from skhegraph.text_source import Prototypes, TextSource, text_source


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

    def _text(self) -> TextSource:
        prompts = PromptedText(
            self.model_name,
            self.pretrained,
            self.class_names,
            self.templates,
            self.negative_templates,
            self.device,
            self._uses_negatives,
            type(self).__name__,
            getattr(self, "_texts_of_members", {}),
        )
        return text_source(self.text_features, {"clip": prompts, "prototypes": Prototypes()})
