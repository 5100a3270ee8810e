"""Torch's settings of the process, held at our own while a model is built, trained or runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

#: Held while a model is built: torch's default type is one for the process.
building = threading.RLock()


@contextmanager
def own_settings() -> Iterator[None]:
    """Build, train or run a model whatever device, autocast or gradients the caller has set."""
    import torch

    with ExitStack() as stack:
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
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
