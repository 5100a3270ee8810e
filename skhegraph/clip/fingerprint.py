"""Digest of what image features depend on besides the image: the key of a store of features."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING

from skhegraph.clip.images import decoder_versions

if TYPE_CHECKING:
    import torch

__all__ = ["fingerprint"]

_PLAIN = (bool, int, float, str, tuple, type(None))


def fingerprint(tower: torch.nn.Module, *, preprocess: str, precision: str) -> str:
    """Digest an image tower, its preprocessing and the versions of what decodes and resizes.

    Parameters
    ----------
    tower : torch.nn.Module
        Image tower; its architecture counts as well as its weights.
    preprocess : str
        Description of the preprocessing.
    precision : str
        Description of the arithmetic.

    Returns
    -------
    str
        Hexadecimal digits, the same in every process.
    """
    import torch

    versions = f"{decoder_versions()} torchvision {version('torchvision')}"
    digest = hashlib.blake2b(f"{preprocess} {precision} {versions}".encode())
    digest.update("\n".join(_architecture(tower)).encode())
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        values = tensor.detach().cpu().contiguous().flatten()
        digest.update(values.view(torch.uint8).numpy())
    return digest.hexdigest()


def _architecture(module: torch.nn.Module) -> Iterator[str]:
    """Describe each part of a network: its class and the settings that its weights do not show.

    Those are plain attributes, such as the number of heads, and functions that act between
    layers, such as an activation.
    """
    for name, part in module.named_modules():
        yield f"{name}: {type(part).__module__}.{type(part).__qualname__}"
        for key, value in sorted(vars(part).items()):
            if isinstance(value, _PLAIN) and key != "training":
                yield f"{name}.{key} = {value!r}"
            elif inspect.isroutine(value) or inspect.isclass(value):
                yield f"{name}.{key} = {value.__module__}.{value.__qualname__}"
