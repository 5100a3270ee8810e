"""A CLIP that is loaded when it has to encode, where a store knows the rest of it."""

from __future__ import annotations

import json
import sys
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from skhegraph._version import __version__
from skhegraph.clip.checkpoints import full_name, weights_in, weights_name
from skhegraph.clip.feature_cache import FeatureStore
from skhegraph.clip.fingerprint import is_settled
from skhegraph.clip.images import decoder_versions
from skhegraph.clip.model import load_backbone, resolve_device

if TYPE_CHECKING:
    from skhegraph.clip.model import Backbone

__all__ = ["KnownModel"]

# Packages whose versions decide, beside the files of a model, about what it makes of an image.
_PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm")
# Raise it whenever the same files give another model than before under the same version.
_MAKING = 1
# One of these is there where torch can find an accelerator on Linux: CUDA, Jetson, ROCm, WSL.
_DEVICES = Path("/dev")
_ACCELERATORS = ("nvidia*", "nvhost*", "kfd", "dxg")


class KnownModel:
    """A CLIP with its width, the side for drafts and, for a store, its fingerprint.

    Parameters
    ----------
    model_name, pretrained, device
        As in :func:`skhegraph.clip.model.load_backbone`.
    store : FeatureStore or None
        Where what is known of models is kept. Without one the model is loaded at once.

    Attributes
    ----------
    n_features, least_side : int
        As of :class:`skhegraph.clip.model.Backbone`.
    fingerprint : str
        As of its method; empty without a store.
    """

    def __init__(
        self, model_name: str, pretrained: str | None, device: str, store: FeatureStore | None
    ) -> None:
        self._names = (model_name, pretrained, device)
        self._store = store
        self._backbone: Backbone | None = None
        self._lock = threading.Lock()
        self._checked = False
        self._name = "" if store is None else _name(*self._names)
        known = None if store is None else store.find_model(self._name)
        if known is None:
            self._backbone = backbone = load_backbone(*self._names)
            fingerprint = "" if store is None else backbone.fingerprint()
            known = [fingerprint, backbone.n_features, backbone.least_side]
            stamps = backbone.files.values()
            if store is not None and stamps and all(map(is_settled, stamps)):
                store.add_model(self._name, backbone.files, known)
        self.fingerprint, self.n_features, self.least_side = known

    def load(self) -> Backbone:
        """The model itself, for what the store lacks.

        Raises
        ------
        OSError
            If the store cannot be written, or if the model's files changed since they were looked
            at.
        """
        with self._lock:
            if self._store is not None and not self._checked:
                self._store.check_writable()
                self._checked = True
            if self._backbone is None:
                backbone = load_backbone(*self._names)
                if self._store is not None and backbone.fingerprint() != self.fingerprint:
                    self._store.drop_model(self._name)
                    raise OSError(
                        f"model_name={self._names[0]!r} is another model than the store knew "
                        "under its name, as if its files had changed just now: run again."
                    )
                self._backbone = backbone
            return self._backbone


def _name(model_name: str, pretrained: str | None, device: str) -> str:
    """All that decides which model it is, but for the content of its files, without torch."""
    model, weights = full_name(model_name, weights_name(model_name, pretrained))
    folder = Path(model.removeprefix("local-dir:")) if model.startswith("local-dir:") else None
    files = [] if folder is None else [path.name for path in weights_in(folder)]
    precision = "full" if _on_cpu(device) else "half"
    versions = [f"{package} {_version(package)}" for package in _PACKAGES]
    made = [f"skhegraph {__version__} {_MAKING}", decoder_versions(), *versions]
    return json.dumps([model, weights, files, precision, made])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _on_cpu(device: str) -> bool:
    """Tell whether a device means the CPU, without torch where that is sure."""
    if "torch" not in sys.modules and sys.platform == "linux" and device == "auto":
        found = any(any(_DEVICES.glob(name)) for name in _ACCELERATORS)
        return not found or resolve_device(device) == "cpu"
    return device == "cpu" or resolve_device(device) == "cpu"
