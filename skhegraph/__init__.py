"""skhegraph: the Heterogeneous Graph Adapter for CLIP as scikit-learn estimators."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skhegraph._version import __version__

if TYPE_CHECKING:
    from skhegraph._show_versions import show_versions
    from skhegraph.clip.features import CLIPFeatures
    from skhegraph.clip.presets import PRESETS
    from skhegraph.hegraph.adapter import HeGraphAdapterClassifier
    from skhegraph.hegraph.classifier import HeGraphClassifier
    from skhegraph.image_folder import load_image_folder
    from skhegraph.model_selection import FewShotSplit, KeepUnlabelled
    from skhegraph.multi_label import MultiLabelHeGraphClassifier
    from skhegraph.pipeline import make_hegraph_pipeline
    from skhegraph.zero_shot import ZeroShotCLIPClassifier

_PUBLIC = {
    "CLIPFeatures": "clip.features",
    "FewShotSplit": "model_selection",
    "HeGraphAdapterClassifier": "hegraph.adapter",
    "HeGraphClassifier": "hegraph.classifier",
    "KeepUnlabelled": "model_selection",
    "MultiLabelHeGraphClassifier": "multi_label",
    "PRESETS": "clip.presets",
    "ZeroShotCLIPClassifier": "zero_shot",
    "load_image_folder": "image_folder",
    "make_hegraph_pipeline": "pipeline",
    "show_versions": "_show_versions",
}

__all__ = [
    "PRESETS",
    "CLIPFeatures",
    "FewShotSplit",
    "HeGraphAdapterClassifier",
    "HeGraphClassifier",
    "KeepUnlabelled",
    "MultiLabelHeGraphClassifier",
    "ZeroShotCLIPClassifier",
    "__version__",
    "load_image_folder",
    "make_hegraph_pipeline",
    "show_versions",
]


if not TYPE_CHECKING:  # to a type checker every name would exist

    def __getattr__(name: str) -> Any:
        """Import a public name on first use, so that `import skhegraph` stays light."""
        if name in _PUBLIC:
            return getattr(import_module(f"skhegraph.{_PUBLIC[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names, for completion."""
    return sorted(__all__)
