"""Threads: BLAS on one, blocks of rows on several.

The threads of a BLAS wait for each other by spinning. Where other processes run, that costs many
times what a second thread gains, and small problems gain nothing. So products run on one BLAS
thread, and large problems go through their rows in blocks, several at a time. Blocks and the order
in which their results are joined do not depend on the number of threads, so neither do results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

from sklearn.utils import gen_batches
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads
from sklearn.utils.parallel import _get_threadpool_controller

Result = TypeVar("Result")


_setting, _torch_setting = Lock(), Lock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run products on one BLAS thread, and restore what was set before.

    The setting is of the process. Of several Python threads the first sets and restores it; the
    others leave it alone, so nothing is left behind, whoever ends first.
    """
    if not _setting.acquire(blocking=False):
        yield
        return
    try:
        with _get_threadpool_controller().limit(limits=1, user_api="blas"):
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


def map_rows(function: Callable[[slice], Result], n_rows: int, rows_at_once: int) -> list[Result]:
    """Results of blocks of rows, in their order; several blocks at a time.

    As many as scikit-learn's own loops use threads: the CPUs of the process, less where
    ``OMP_NUM_THREADS`` or a joblib worker says so.
    """
    blocks = list(gen_batches(n_rows, rows_at_once))
    n_threads = min(len(blocks), _openmp_effective_n_threads())
    if n_threads < 2:
        return [function(block) for block in blocks]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(function, blocks))
