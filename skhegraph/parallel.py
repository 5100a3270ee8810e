"""Large problems: BLAS on one thread, blocks of rows on several, precision by size.

The threads of a BLAS wait for each other by spinning. Where other processes run, that costs many
times what a second thread gains, and small problems gain nothing. So products run on one BLAS
thread, and large problems go through their rows in blocks, several at a time. Blocks and the order
in which their results are joined do not depend on the number of threads, so neither do results.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from sklearn.utils import gen_batches
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads
from sklearn.utils.parallel import _get_threadpool_controller

from skhegraph.support import Floats

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Rows of a block, and numbers that a block of them holds, at most: bounds the memory.
ROWS_AT_ONCE, LOGITS_AT_ONCE = 1024, 2**22
#: Logits above which a fit computes in single precision: half the time and memory, and the rounding
#: is far below what the support set can tell.
LOGITS_IN_DOUBLE = 100_000


def precision_of(n_logits: int) -> type[np.floating[Any]]:
    """Precision of a computation on that many logits."""
    return np.float32 if n_logits > LOGITS_IN_DOUBLE else np.float64


class Held:
    """A setting of the process: made by the first thread that needs it, undone by the last.

    Parameters
    ----------
    make : callable
        Makes the setting and returns a function that undoes it.
    """

    def __init__(self, make: Callable[[], Callable[[], object]]) -> None:
        self._make, self._lock, self._users = make, Lock(), 0
        self._undo: Callable[[], object] = make

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Hold the setting."""
        with self._lock:
            if not self._users:
                self._undo = self._make()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._undo()


def _limit_blas() -> Callable[[], object]:
    """Set BLAS to one thread."""
    limit: Any = _get_threadpool_controller().limit(limits=1, user_api="blas")
    restore: Callable[[], object] = limit.restore_original_limits
    return restore


def _limit_torch() -> Callable[[], object]:
    """Set torch to one thread; imports torch."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    return partial(torch.set_num_threads, before)


#: Run products on one BLAS thread, and training on one thread of torch.
one_blas_thread, one_torch_thread = Held(_limit_blas), Held(_limit_torch)


def in_turn(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Results for items, in their order; several at a time.

    As many as scikit-learn's own loops use threads: the CPUs of the process, less where
    ``OMP_NUM_THREADS`` or a joblib worker says so.
    """
    n_threads = min(len(items), _openmp_effective_n_threads())
    if n_threads < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        running: deque[Future[Result]] = deque()
        for item in items:
            running.append(pool.submit(function, item))
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
    return in_turn(function, list(gen_batches(n_rows, rows_at_once)))


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
