"""Results that a search asks for again, kept in memory by the content of the arguments.

A grid over graph hyper-parameters fits every candidate on the same folds of the same features:
the trust in the branches and the edges do not change between candidates, only the training does.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import Any, ParamSpec, TypeVar

import joblib

#: Bytes kept a process; the results used longest ago go first.
MAX_BYTES = 2**29

P = ParamSpec("P")
T = TypeVar("T")
_kept: OrderedDict[str, bytes] = OrderedDict()
_lock = Lock()


def reused(function: Callable[P, T]) -> Callable[P, T]:
    """Keep the results of a pure function of arrays, dataclasses and plain values.

    Results are kept pickled, so that every caller gets a copy of its own.
    """
    name = f"{function.__module__}.{function.__qualname__}"

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        key = joblib.hash((name, args, kwargs))
        with _lock:
            kept = _kept.get(key)
            if kept is not None:
                _kept.move_to_end(key)
        if kept is not None:
            result: Any = pickle.loads(kept)
            return result
        result = function(*args, **kwargs)
        _keep(key, pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL))
        return result

    return wrapper


def _keep(key: str, value: bytes) -> None:
    """Add a result and let the oldest go, as far as the bound asks for."""
    with _lock:
        _kept[key] = value
        while sum(map(len, _kept.values())) > MAX_BYTES:
            _kept.popitem(last=False)


def forget() -> None:
    """Give the memory back."""
    with _lock:
        _kept.clear()
