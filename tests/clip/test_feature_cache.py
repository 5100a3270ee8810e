"""The on-disk feature store: once only, safe under kills, writers and damage."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skhegraph.clip.feature_cache import FeatureStore
from skhegraph.clip.features import CLIPFeatures
from skhegraph.clip.model import Backbone

TINY = "skhegraph-tiny"


@pytest.fixture
def images() -> list[np.ndarray]:
    return list(load_digits().images[:30] / 16)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of images of each forward pass in this process."""
    counts: list[int] = []
    encode = Backbone.encode_pixels

    def counting(self: Backbone, pixels: list[np.ndarray]) -> np.ndarray:
        counts.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(Backbone, "encode_pixels", counting)
    return counts


def rows_of(folder: Path) -> int:
    with sqlite3.connect(folder / "features.sqlite") as db:
        return int(db.execute("SELECT COUNT(*) FROM features").fetchone()[0])


def test_same_features_and_no_second_pass(
    images: list[np.ndarray], encoded: list[int], tmp_path: Path
) -> None:
    plain = CLIPFeatures(TINY).transform(images)
    encoded.clear()
    cached = CLIPFeatures(TINY, cache_dir=tmp_path)
    np.testing.assert_allclose(cached.transform(images), plain, atol=1e-6)
    np.testing.assert_array_equal(cached.transform(images[::-1]), cached.transform(images)[::-1])
    assert sum(encoded) == len(images) == rows_of(tmp_path)


def test_content_decides_not_the_name(encoded: list[int], tmp_path: Path) -> None:
    from PIL import Image

    def save(name: str, grey: int) -> str:
        Image.new("L", (8, 8), grey).save(tmp_path / name)
        return str(tmp_path / name)

    clip = CLIPFeatures(TINY, cache_dir=tmp_path / "cache")
    first = clip.transform([save("a.png", 10)])
    np.testing.assert_array_equal(clip.transform([save("b.png", 10)]), first)  # a copy
    assert sum(encoded) == 1
    changed = clip.transform([save("a.png", 200)])
    assert sum(encoded) == 2
    assert not np.allclose(changed, first)


def test_unreadable_images_are_reported_and_not_stored(
    images: list[np.ndarray], tmp_path: Path
) -> None:
    mixed = [images[0], b"no image", "missing.png", images[1]]
    cached = CLIPFeatures(TINY, cache_dir=tmp_path, on_error="nan")
    with pytest.warns(UserWarning, match="2 of 4 images"):
        out = cached.transform(mixed)
    assert np.isnan(out).all(axis=1).tolist() == [False, True, True, False]
    assert rows_of(tmp_path) == 2
    with pytest.raises(ValueError, match=r"(?s)\[1\].*\[2\] .*missing.png"):
        cached.set_params(on_error="raise").transform(mixed)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_encodes_every_image_once(
    n_jobs: int, encoded: list[int], tmp_path: Path
) -> None:
    digits = load_digits()
    few = digits.target < 3
    images = np.empty(60, dtype=object)
    images[:] = list(digits.images[few][:60] / 16)
    pipe = make_pipeline(CLIPFeatures(TINY, cache_dir=tmp_path), LogisticRegression())
    grid = {"logisticregression__C": [0.1, 1.0, 10.0]}
    search = GridSearchCV(pipe, grid, cv=3, n_jobs=n_jobs, error_score="raise")
    search.fit(images, digits.target[few][:60])
    assert rows_of(tmp_path) == 60
    if n_jobs == 1:
        assert sum(encoded) == 60


def test_two_processes_share_a_store(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from sklearn.datasets import load_digits\n"
        "from skhegraph.clip.features import CLIPFeatures\n"
        f"clip = CLIPFeatures('{TINY}', cache_dir={str(tmp_path)!r}, batch_size=int(sys.argv[1]))\n"
        "np.save(sys.argv[2], clip.transform(list(load_digits().images[:200] / 16)))\n"
    )
    outputs = [tmp_path / "a.npy", tmp_path / "b.npy"]
    workers = [
        subprocess.Popen([sys.executable, "-c", code, str(batch_size), str(path)])
        for batch_size, path in zip((1, 3), outputs, strict=True)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    first, second = map(np.load, outputs)
    np.testing.assert_array_equal(first, second)
    assert rows_of(tmp_path) == 200


def test_writers_compute_at_the_same_time(tmp_path: Path) -> None:
    computing = threading.Barrier(4)

    def store_one(i: int) -> float:
        store = FeatureStore(tmp_path, "n", 4, None)

        def compute(missing: list[int]) -> np.ndarray:
            computing.wait(timeout=30)  # passes only when all four are here
            return np.full((1, 4), i)

        return float(store.get_or_compute([store.key(bytes([i]))], compute)[0, 0])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(store_one, range(4))) == [0, 1, 2, 3]
    assert rows_of(tmp_path) == 4


def test_the_first_row_stored_counts(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, "n", 4, None)
    keys = [store.key(b"both"), store.key(b"mine")]

    def compute_while_another_stores(missing: list[int]) -> np.ndarray:
        store.get_or_compute(keys[:1], lambda missing: np.full((1, 4), 1.0))
        return np.full((len(missing), 4), 2.0)

    out = store.get_or_compute(keys, compute_while_another_stores)
    assert out[:, 0].tolist() == [1.0, 2.0]
    again = store.get_or_compute(keys, lambda missing: pytest.fail("all is stored"))
    np.testing.assert_array_equal(again, out)


def test_a_new_store_opened_by_many_at_once(tmp_path: Path) -> None:
    def store_one(folder: Path, i: int) -> np.ndarray:
        store = FeatureStore(folder, "n", 4, None)
        start.wait()
        return store.get_or_compute([store.key(bytes([i]))], lambda missing: np.full((1, 4), i))

    start = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        for round_ in range(60):  # a lock that is not waited for shows once in 20 rounds
            folder = tmp_path / str(round_)
            out = list(pool.map(store_one, [folder] * 8, range(8)))
            assert [row[0, 0] for row in out] == list(range(8))
            assert rows_of(folder) == 8


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.02])
def test_a_killed_writer_leaves_whole_transactions_only(delay: float, tmp_path: Path) -> None:
    code = (
        "import itertools, numpy as np\n"
        "from skhegraph.clip.feature_cache import FeatureStore\n"
        f"store = FeatureStore({str(tmp_path)!r}, 'n', 64, None)\n"
        "for piece in itertools.count():\n"
        "    keys = [store.key(b'%d %d' % (piece, i)) for i in range(2000)]\n"
        "    store.get_or_compute(keys, lambda missing: np.full((len(missing), 64), piece))\n"
        "    print(piece, flush=True)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None and worker.stdout.readline() == "0\n"
    time.sleep(delay)
    os.kill(worker.pid, signal.SIGKILL)
    announced = 1 + len(worker.communicate()[0].splitlines())
    pieces, torn = divmod(rows_of(tmp_path), 2000)
    assert torn == 0 and pieces >= announced
    store = FeatureStore(tmp_path, "n", 64, None)
    started = time.monotonic()
    for piece in range(pieces + 1):
        keys = [store.key(b"%d %d" % (piece, i)) for i in range(2000)]
        rows = store.get_or_compute(keys, lambda missing: np.full((len(missing), 64), -1.0))
        assert (rows == (piece if piece < pieces else -1)).all()
    assert time.monotonic() - started < 30  # the dead writer's lock is gone


def test_a_damaged_row_is_computed_again(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, "n", 4, None)
    keys = [store.key(b"a"), store.key(b"b")]
    store.get_or_compute(keys, lambda missing: np.ones((len(missing), 4)))
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE features SET row = zeroblob(16) WHERE key = ?", (keys[1],))
    asked: list[list[int]] = []

    def compute(missing: list[int]) -> np.ndarray:
        asked.append(missing)
        return np.full((len(missing), 4), 3.0)

    assert store.get_or_compute(keys, compute)[:, 0].tolist() == [1.0, 3.0]
    assert asked == [[1]]


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "features.sqlite").write_bytes(b"garbage" * 1000)
    with pytest.raises(OSError, match=r"cache_dir.*features.sqlite.*Delete it"):
        CLIPFeatures(TINY, cache_dir=tmp_path).transform([np.zeros((8, 8))])


def test_bound_evicts_the_oldest(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, "n", 4, max_bytes=3 * 16)
    keys = [store.key(bytes([i])) for i in range(5)]
    for key in keys:
        store.get_or_compute([key], lambda missing: np.ones((1, 4)))
    with sqlite3.connect(store.path) as db:
        kept = {key for (key,) in db.execute("SELECT key FROM features")}
    assert kept == set(keys[2:])


def test_namespaces_do_not_mix(tmp_path: Path) -> None:
    one, other = (FeatureStore(tmp_path, name, 4, None) for name in ("one", "other"))
    assert one.key(b"same") != other.key(b"same")
