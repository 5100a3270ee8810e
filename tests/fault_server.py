"""Process that test_faults.py starts once: it forks children that work until they are killed.

A line "job folder unit" on its input starts a child at that unit of work. Its output has lines
"pid N", "done N" for each unit that is finished, and "dead" when the child is no more.
"""

from __future__ import annotations

import os
import sys
from itertools import count
from pathlib import Path

import numpy as np

from skhegraph import cluster
from skhegraph.clip import features
from skhegraph.clip.feature_cache import Entry, FeatureStore

PER_UNIT = {"extract": 2, "store": 500}
WIDTH = 64


def images(unit: int) -> list[np.ndarray]:
    return list(np.random.default_rng(unit).random((PER_UNIT["extract"], 8, 8)))


def transformer(folder: str | None) -> features.CLIPFeatures:
    size = PER_UNIT["extract"]
    return features.CLIPFeatures("skhegraph-tiny", device="cpu", batch_size=size, cache_dir=folder)


def extract(folder: str, unit: int) -> None:
    transformer(folder).transform(images(unit))


def rows(unit: int) -> np.ndarray:
    return np.random.default_rng(unit).random((PER_UNIT["store"], WIDTH), dtype=np.float32)


def keys_of(unit: int) -> list[bytes]:
    return [b"%d %d" % (unit, i) for i in range(PER_UNIT["store"])]


def store(folder: str, unit: int) -> None:
    with FeatureStore(folder) as open_:
        entries = (Entry(row, unit) for row in rows(unit))
        open_.add(dict(zip(keys_of(unit), entries, strict=True)))


def content(unit: int) -> bytes:
    return np.random.default_rng(unit).bytes(400_000)


def save(folder: str, unit: int) -> None:
    whole = content(unit)

    def write(file) -> None:
        for start in range(0, len(whole), 10_000):
            file.write(whole[start : start + 10_000])

    cluster.put(Path(folder) / cluster.part_name(unit), write)


def main() -> None:
    transformer(None).transform(images(0))  # the model is loaded before any fork
    jobs = {"extract": extract, "store": store, "save": save}
    for line in sys.stdin:
        job, folder, unit = line.split()
        child = os.fork()
        if not child:
            for number in count(int(unit)):
                jobs[job](folder, number)
                os.write(1, b"done %d\n" % number)
        os.write(1, b"pid %d\n" % child)
        os.waitpid(child, 0)
        os.write(1, b"dead\n")


if __name__ == "__main__":
    main()
