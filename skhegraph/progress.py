"""A progress bar, where there is somewhere to show it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def progress(
    items: Iterable[Item], total: int, *, shown: bool, what: str, unit: str
) -> Iterable[Item]:
    """Show how many of `total` items were taken, on the standard error if there is one.

    Under ``pythonw``, in a service or in a frozen application there is none.
    """
    if not shown or sys.stderr is None:
        return items
    from tqdm.auto import tqdm

    bar: Iterable[Item] = tqdm(items, total=total, desc=what, unit=unit)
    return bar
