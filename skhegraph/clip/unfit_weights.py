"""Why a file does not load as the weights of a model, in words that say what to do about it."""

from __future__ import annotations

import pickle
import textwrap
import zipfile
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError

__all__ = ["UNFIT_ERRORS", "why_not_loaded"]

UNFIT_ERRORS = (
    RuntimeError,
    LookupError,
    AttributeError,
    TypeError,
    ValueError,
    AssertionError,
    StopIteration,
    EOFError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    SafetensorError,
)
"""What open_clip, torch, NumPy and safetensors raise on a file without weights of the model."""


def why_not_loaded(files: Sequence[Path], error: Exception) -> str:
    """Word the reason why weights did not load, never advising to run code from a file.

    Parameters
    ----------
    files : sequence of Path
        The file, or the files one of which open_clip took.
    error : Exception
        What loading it raised.

    Returns
    -------
    str
        The reason and, where one is known, the remedy.
    """
    for file in files:
        if problem := _no_checkpoint(file):
            return f"{file.name} {problem}"
    text = str(error)
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in text:
        return (
            "it holds more than tensors, and reading that could run code from the file, so it is "
            "refused. Accepted: safetensors, or a state dict alone, saved by "
            "torch.save(model.state_dict(), path)"
        )
    if isinstance(error, (AttributeError, StopIteration)):
        return "it holds no state dict, which maps names of parameters to tensors"
    return f"{type(error).__name__}: {textwrap.shorten(text, 500)}"


def _no_checkpoint(file: Path) -> str | None:
    """Tell by its first bytes that a file is neither safetensors nor made by torch.save."""
    with file.open("rb") as opened:
        head = opened.read(9)
    if not head:
        return "is empty"
    is_saved_by_torch = head.startswith((b"PK\x03\x04", b"\x80"))
    if is_saved_by_torch or head[8:] == b"{":
        return None
    return f"is no checkpoint, neither safetensors nor made by torch.save: it starts with {head!r}"
