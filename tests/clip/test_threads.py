"""Threads that work ahead: in order, within a bound, and no longer than someone listens."""

from __future__ import annotations

import threading
import time

from skhegraph.clip.threads import map_ahead


def test_work_ahead_is_bounded():
    lock, running, peak = threading.Lock(), [0], [0]

    def produce(item):
        with lock:
            running[0] += 1
            peak[0] = max(peak[0], running[0])
        return item

    got = []
    for item in map_ahead(produce, range(500), 500, workers=2, ahead=20):
        got.append(item)
        time.sleep(0.0002)
        with lock:
            running[0] -= 1
    assert got == list(range(500))
    assert peak[0] <= 20 + 2 * 8 + 1


def test_work_stops_when_the_consumer_does():
    done = []
    results = map_ahead(lambda item: done.append(item), range(1000), 1000, workers=2, ahead=20)
    next(results)
    results.close()
    assert len(done) < 100
