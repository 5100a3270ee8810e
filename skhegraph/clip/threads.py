"""Work that threads do ahead of its consumer, in order and within a bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

from joblib import cpu_count

__all__ = ["map_ahead"]

_CHUNK = 8  # items per task: few enough to share out, enough to hide the cost of the pool
_MAX_WORKERS = 8


def map_ahead(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    n_items: int,
    workers: int | None,
    ahead: int,
) -> Generator[Any, None, None]:
    """Apply a function in threads.

    Parameters
    ----------
    function : callable
        Takes one item.
    items : iterable
        What to apply it to; taken as they are needed.
    n_items : int
        How many there are.
    workers : int or None
        Number of threads; None takes the number of CPU cores, 8 at most.
    ahead : int
        About how many results may wait for the consumer.

    Yields
    ------
    object
        The results, in the order of the items.
    """
    workers = workers or min(cpu_count(), _MAX_WORKERS)
    chunk = max(1, min(_CHUNK, -(-n_items // workers)))
    waiting: deque[Future[list[Any]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="skhegraph") as pool:
        try:
            upcoming = iter(items)
            while part := list(islice(upcoming, chunk)):
                waiting.append(pool.submit(lambda part: [function(x) for x in part], part))
                if len(waiting) * chunk > ahead:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
