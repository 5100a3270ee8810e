"""Digest of what image features depend on besides the image: the key of a store of features."""

from __future__ import annotations

import hashlib
import inspect
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

from skhegraph.clip.images import decoder_versions

if TYPE_CHECKING:
    import torch

__all__ = [
    "FileStamps",
    "file_stamp",
    "fingerprint",
    "is_settled",
    "is_unchanged",
    "stamp_files",
    "stamp_of",
]

FileStamps = Mapping[str, tuple[int, ...]]
"""Files by their paths, each with what changes whenever it does."""

# A file that changed so recently may change again within one tick of its time stamps.
_UNSETTLED_NS = 2 * 10**9
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


def file_stamp(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """What changes whenever a file, or the list of files in a folder, does."""
    return stamp_of(os.stat(path))


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """As `file_stamp`, of a file that is open."""
    return (
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )  # fmt: skip


def is_settled(stamp: tuple[int, ...]) -> bool:
    """Tell whether a stamp that was just taken will change if the file does from now on."""
    return time.time_ns() - max(stamp[-2:]) > _UNSETTLED_NS


def stamp_files(paths: Iterable[str | os.PathLike[str]]) -> FileStamps:
    """Stamp files, under their resolved paths; those that are not there are left out."""
    return {os.path.realpath(path): file_stamp(path) for path in paths if os.path.exists(path)}


def is_unchanged(files: FileStamps, *, if_gone: bool = True) -> bool:
    """Tell whether files are as they were; `if_gone` is the answer for one that is gone."""
    for path, stamp in files.items():
        try:
            if file_stamp(path) != tuple(stamp):
                return False
        except OSError:
            if not if_gone:
                return False
    return True
