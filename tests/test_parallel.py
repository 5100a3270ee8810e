"""One BLAS thread, several blocks: settings restored, results the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, get_ident
from time import sleep

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from skhegraph import HeGraphClassifier, parallel
from skhegraph.descent import descend
from skhegraph.parallel import in_turn, map_rows, one_blas_thread, one_torch_thread, sum_rows


def blas_threads() -> set[int]:
    return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}


def test_the_setting_is_restored() -> None:
    with threadpool_limits(2, user_api="blas"):
        with one_blas_thread():
            assert blas_threads() == {1}
            with one_blas_thread():
                assert blas_threads() == {1}
            assert blas_threads() == {1}
        assert blas_threads() == {2}
        with pytest.raises(KeyError), one_blas_thread():
            raise KeyError
        assert blas_threads() == {2}


def test_several_users_leave_nothing_behind() -> None:
    """Also where the first ends before the second."""
    first_in, both_in = Barrier(2, timeout=20), Barrier(2, timeout=20)

    def first() -> None:
        with one_blas_thread():
            first_in.wait()
            both_in.wait()

    before = blas_threads()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(first)
        first_in.wait()
        with one_blas_thread():
            assert blas_threads() == {1}
            both_in.wait()
            waiting.result()
    assert blas_threads() == before


def test_torch_threads_are_restored() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_torch_thread():
            assert torch.get_num_threads() == 1
            with one_torch_thread():
                pass
            assert torch.get_num_threads() == 1
        with pytest.raises(KeyError), one_torch_thread():
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_training_runs_on_one_thread() -> None:
    seen = []
    weight = torch.zeros(3, requires_grad=True)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return ((weight - rows) ** 2).sum()

    descend([weight], loss, [np.array([1])] * 2, [0.1, 0.1])
    assert seen == [1, 1]


@pytest.mark.parametrize("n_threads", [1, 3])
def test_blocks_come_in_order(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "effective_n_threads", lambda: n_threads)
    monkeypatch.setattr(parallel, "ROWS_AT_ONCE", 4)
    workers = set()

    def block(rows: slice) -> tuple[int, int]:
        workers.add(get_ident())
        return rows.start, rows.stop

    assert list(map_rows(block, 10, 3)) == [(0, 4), (4, 8), (8, 10)]
    assert (get_ident() in workers) == (n_threads == 1)

    def fail(rows: slice) -> None:
        raise ValueError(f"block {rows.start}")

    with pytest.raises(ValueError, match="block 0"):
        list(map_rows(fail, 10, 3))

    values = np.arange(10.0)
    assert sum_rows(lambda rows: values[rows].sum(), 10, 3) == 45
    monkeypatch.setattr(parallel, "LOGITS_AT_ONCE", 15)
    assert list(map_rows(block, 5, 6)) == [(0, 2), (2, 4), (4, 5)]


def test_few_results_wait_for_their_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "effective_n_threads", lambda: 2)
    done: list[int] = []
    results = in_turn(done.append, range(100))
    next(results)
    sleep(0.2)
    assert len(done) <= 5
    results.close()
    assert len(done) <= 5


@pytest.mark.parametrize("precision", ["single", "double"])
def test_results_do_not_depend_on_the_number_of_threads(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, with blocks so small that there are many."""
    monkeypatch.setattr(parallel, "ROWS_AT_ONCE", 16)
    if precision == "single":  # and the candidates for the shrinkage at the same time
        monkeypatch.setattr(parallel, "LOGITS_IN_DOUBLE", 0)
    rng = np.random.default_rng(0)
    text = rng.normal(size=(9, 40))
    y = np.repeat(np.arange(9), 12)
    X = (text[y] + rng.normal(size=(108, 40))).astype(np.float32)
    queries = rng.normal(size=(3000, 40)).astype(np.float32)
    results = []
    for n_threads in (1, 2, 5):
        monkeypatch.setattr(parallel, "effective_n_threads", lambda n=n_threads: n)
        with threadpool_limits(n_threads, user_api="blas"):
            clf = HeGraphClassifier(text_features=text).fit(X, y)
            results.append((clf.coef_, clf.predict_proba(queries), clf.score_samples(queries)))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)
