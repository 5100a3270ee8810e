"""Ready-made prompt templates, by the name of the data set that they suit.

The positive templates are those in common use since CoOp (for ImageNet its seven selected ones
and "a photo of a {}."); the negative ones are this package's, one for each positive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["DEFAULT", "PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """Templates that suit one data set.

    Parameters
    ----------
    templates : tuple of str
        Format strings for positive prompts.
    negative_templates : tuple of str
        Format strings for negative prompts.
    """

    templates: tuple[str, ...]
    negative_templates: tuple[str, ...]


_PHOTO = Preset(("a photo of a {}.",), ("a photo of no {}.",))

DEFAULT = "photo"
"""Name of the preset that is used when none is given."""

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "photo": _PHOTO,
        "imagenet": Preset(
            (
                "itap of a {}.",
                "a bad photo of the {}.",
                "a origami {}.",
                "a photo of the large {}.",
                "a {} in a video game.",
                "art of the {}.",
                "a photo of the small {}.",
                "a photo of a {}.",
            ),
            (
                "itap of no {}.",
                "a bad photo without the {}.",
                "no origami {}.",
                "a photo without the large {}.",
                "no {} in a video game.",
                "art without the {}.",
                "a photo without the small {}.",
                "a photo of no {}.",
            ),
        ),
        "caltech101": _PHOTO,
        "oxford_pets": Preset(
            ("a photo of a {}, a type of pet.",), ("a photo of a pet that is not a {}.",)
        ),
        "stanford_cars": Preset(("a photo of a {}.",), ("a photo of a car that is not a {}.",)),
        "oxford_flowers": Preset(
            ("a photo of a {}, a type of flower.",), ("a photo of a flower that is not a {}.",)
        ),
        "food101": Preset(
            ("a photo of {}, a type of food.",), ("a photo of food that is not {}.",)
        ),
        "fgvc_aircraft": Preset(
            ("a photo of a {}, a type of aircraft.",),
            ("a photo of an aircraft that is not a {}.",),
        ),
        "sun397": _PHOTO,
        "dtd": Preset(("{} texture.",), ("not {} texture.",)),
        "eurosat": Preset(
            ("a centered satellite photo of {}.",), ("a centered satellite photo without {}.",)
        ),
        "ucf101": Preset(
            ("a photo of a person doing {}.",), ("a photo of a person not doing {}.",)
        ),
    }
)
"""Presets by name: ``"photo"`` and the eleven usual few-shot data sets."""
