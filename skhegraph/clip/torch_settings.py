"""Torch's settings of the process, held at our own while a model is built, trained or runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Held while a model is built: torch's default type is one for the process.
building = threading.RLock()


@contextmanager
def own_settings() -> Iterator[None]:
    """Build, train or run a model whatever device, autocast or inference mode the caller has."""
    import torch

    with torch.device("cpu"), torch.inference_mode(False), torch.autocast("cpu", enabled=False):
        yield


@contextmanager
def own_type() -> Iterator[None]:
    """Build a model in single precision whatever torch's default is; its random state stays."""
    import torch

    with building:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            with torch.random.fork_rng(devices=[]):  # weights that are read are drawn before
                yield
        finally:
            torch.set_default_dtype(before)
