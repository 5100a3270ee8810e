"""Large problems: BLAS on one thread, blocks of rows on several, precision by size.

The threads of a BLAS wait for each other by spinning. Where other processes run, that costs many
times what a second thread gains, and small problems gain nothing. So products run on one BLAS
thread, and large problems go through their rows in blocks, several at a time. Blocks and the order
in which their results are joined do not depend on the number of threads, so neither do results.
(Of fits in several Python threads at once the last bits may: see :func:`one_blas_thread`.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from sklearn.utils import gen_batches

from skhegraph._sklearn import effective_n_threads, get_threadpool_controller
from skhegraph.support import Floats

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Rows of a block, and numbers that a block of them holds, at most: bounds the memory.
ROWS_AT_ONCE, LOGITS_AT_ONCE = 1024, 2**20
#: Logits above which a fit computes in single precision: half the time and memory, and the rounding
#: is far below what the support set can tell.
LOGITS_IN_DOUBLE = 100_000


def precision_of(n_logits: int) -> type[np.floating[Any]]:
    """Precision of a computation on that many logits."""
    return np.float32 if n_logits > LOGITS_IN_DOUBLE else np.float64


_setting, _torch_setting = Lock(), Lock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run products on one BLAS thread, and restore what was set before.

    The setting is of the process, and threadpoolctl lets only the Python thread that made it change
    it. So of several threads the first sets and restores it; the others leave it alone, have one
    thread as long as the first is within, and then what was set before. Nothing is left behind,
    whoever ends first.
    """
    if not _setting.acquire(blocking=False):
        yield
        return
    try:
        with get_threadpool_controller().limit(limits=1, user_api="blas"):
            yield
    finally:
        _setting.release()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Run torch's products on one thread, likewise; imports torch."""
    import torch

    if not _torch_setting.acquire(blocking=False):
        yield
        return
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
        _torch_setting.release()


def in_turn(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Results for items, in their order; several at a time.

    As many as scikit-learn's own loops use threads: the CPUs of the process, less where
    ``OMP_NUM_THREADS`` or a joblib worker says so. What NumPy does about underflow is what it does
    here (:func:`numpy.errstate`).
    """
    n_threads = min(len(items), effective_n_threads())
    if n_threads < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        running: deque[Future[Result]] = deque()
        for item in items:
            running.append(pool.submit(copy_context().run, function, item))
            if len(running) > 2 * n_threads:  # results that nobody has taken fill the memory
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def map_rows(function: Callable[[slice], Result], n_rows: int, width: int) -> Iterator[Result]:
    """Results of blocks of rows, likewise.

    Parameters
    ----------
    function : callable
        Maps a slice of the rows to its result.
    n_rows : int
        Number of rows.
    width : int
        Width of what the function holds of a block: a block has at most `LOGITS_AT_ONCE` numbers.
    """
    rows_at_once = max(1, min(ROWS_AT_ONCE, LOGITS_AT_ONCE // width))
    return in_turn(function, list(gen_batches(n_rows, rows_at_once)) if n_rows else [])


def for_rows(function: Callable[[slice], None], n_rows: int, width: int) -> None:
    """Call a function on blocks of rows, likewise."""
    for _ in map_rows(function, n_rows, width):
        pass


def sum_rows(function: Callable[[slice], Floats], n_rows: int, width: int) -> Floats:
    """Sum of the results of blocks of rows, likewise."""
    parts = map_rows(function, n_rows, width)
    total = next(parts)
    for part in parts:
        total += part
    return total
