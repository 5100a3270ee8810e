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
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skhegraph.clip.feature_cache import Entry, FeatureStore
from skhegraph.clip.features import CLIPFeatures
from skhegraph.clip.fingerprint import stamp_files
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


def entries(numbers: range | list[int], width: int = 4, value: float | None = None) -> dict:
    """Entries whose key and row are a number, of as many pixels."""
    rows = {i: np.full(width, i if value is None else value, dtype=np.float32) for i in numbers}
    return {str(i).encode(): Entry(row, i) for i, row in rows.items()}


def test_what_is_added_is_found(tmp_path: Path) -> None:
    with FeatureStore(tmp_path) as store:
        assert store.find(b"3", 4) is None
        added = store.add(entries(range(5)))
        assert [row[0] for row in added.values()] == list(range(5))
    with FeatureStore(str(tmp_path)) as store:
        found = store.find(b"3", 4)
        assert found is not None and found.row.tolist() == [3] * 4 and found.pixels == 3
        assert found.row.dtype == np.float32
        assert store.find(b"3", 5) is None  # of another width
        assert len(store) == 5 and store.size() == store.path.stat().st_size > 5 * 16


def test_the_first_row_stored_counts(tmp_path: Path) -> None:
    with FeatureStore(tmp_path) as store, FeatureStore(tmp_path) as other:
        other.add(entries([1], value=7.0))
        rows = store.add(entries([1, 2]))
        assert [row[0] for row in rows.values()] == [7, 2]
        assert [store.find(key, 4).row[0] for key in (b"1", b"2")] == [7, 2]


def test_a_new_store_opened_by_many_at_once(tmp_path: Path) -> None:
    def store_one(folder: Path, i: int) -> float:
        start.wait()
        with FeatureStore(folder) as store:
            return store.add(entries([i]))[str(i).encode()][0]

    start = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        for round_ in range(60):  # a lock that is not waited for shows once in 20 rounds
            folder = tmp_path / str(round_)
            out = list(pool.map(store_one, [folder] * 8, range(8)))
            assert out == list(range(8))
            assert rows_of(folder) == 8


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.02])
def test_a_killed_writer_leaves_whole_transactions_only(delay: float, tmp_path: Path) -> None:
    code = (
        "import itertools, numpy as np\n"
        "from skhegraph.clip.feature_cache import Entry, FeatureStore\n"
        f"store = FeatureStore({str(tmp_path)!r})\n"
        "for piece in itertools.count():\n"
        "    entry = Entry(np.full(64, piece, dtype=np.float32), 0)\n"
        "    store.add({b'%d %d' % (piece, i): entry for i in range(2000)})\n"
        "    print(piece, flush=True)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None and worker.stdout.readline() == "0\n"
    time.sleep(delay)
    os.kill(worker.pid, signal.SIGKILL)
    announced = 1 + len(worker.communicate()[0].splitlines())
    pieces, torn = divmod(rows_of(tmp_path), 2000)
    assert torn == 0 and pieces >= announced
    started = time.monotonic()
    with FeatureStore(tmp_path) as store:
        for piece in range(pieces):
            for i in range(2000):
                found = store.find(b"%d %d" % (piece, i), 64)
                assert found is not None and (found.row == piece).all()
        store.add(entries([1]))
    assert time.monotonic() - started < 30  # the dead writer's lock is gone


def test_a_damaged_row_is_stored_again(tmp_path: Path) -> None:
    with FeatureStore(tmp_path) as store:
        store.add(entries([1, 2, 3]))
        with sqlite3.connect(store.path) as db:
            db.execute("UPDATE features SET row = zeroblob(16) WHERE key = ?", (b"2",))
            db.execute("UPDATE features SET pixels = 0 WHERE key = ?", (b"3",))
        assert store.find(b"1", 4) is not None
        assert store.find(b"2", 4) is store.find(b"3", 4) is None
        store.add(entries([1, 2, 3], value=9.0))
        assert [store.find(key, 4).row[0] for key in (b"1", b"2", b"3")] == [1, 9, 9]


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "features.sqlite").write_bytes(b"garbage" * 1000)
    with pytest.raises(OSError, match=r"cache_dir.*features.sqlite.*Delete it"):
        CLIPFeatures(TINY, cache_dir=tmp_path).transform([np.zeros((8, 8))])


def test_bound_evicts_the_oldest(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, max_bytes=3 * 16) as store:
        for i in range(5):
            store.add(entries([i]))
            assert len(store) == min(i + 1, 3)
        with sqlite3.connect(store.path) as db:
            kept = {key for (key,) in db.execute("SELECT key FROM features")}
        assert kept == {b"2", b"3", b"4"}


def test_item_31_the_file_shrinks_with_its_rows(tmp_path: Path) -> None:
    """Issue 17.31."""
    with FeatureStore(tmp_path) as store:
        store.add(entries(range(2000), width=512))
        large = store.size()
        assert large > 2000 * 2048
        store.prune(max_bytes=97 * 2048 + 1)
        assert len(store) == 97 and store.size() < large / 10
        store.prune(max_bytes=97 * 2048 + 1)
        assert len(store) == 97
        store.add(entries(range(97), width=512))
        assert len(store) == 194
    with FeatureStore(tmp_path, max_bytes=2048) as store:  # nothing is added
        pass
    assert rows_of(tmp_path) == 1


def test_item_31_a_bound_on_a_store_that_is_there_shrinks_it(tmp_path: Path) -> None:
    """Issue 17.31."""
    images = list(np.random.default_rng(0).random((300, 8, 8)))
    clip = CLIPFeatures(TINY, device="cpu", cache_dir=tmp_path)
    clip.transform(images)
    before = (tmp_path / "features.sqlite").stat().st_size
    clip.set_params(cache_max_bytes=50 * 512).transform(images[:3])
    assert rows_of(tmp_path) == 50
    assert (tmp_path / "features.sqlite").stat().st_size < before / 2


def test_a_store_of_an_earlier_layout_is_emptied(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "features.sqlite")) as db, db:
        db.execute("CREATE TABLE features (key BLOB PRIMARY KEY, row BLOB, checksum, written)")
        db.execute("INSERT INTO features VALUES (x'00', zeroblob(1000000), 0, 0)")
        db.execute("PRAGMA user_version = 1")
    with FeatureStore(tmp_path) as store:
        assert len(store) == 0 and store.size() < 100_000
        store.add(entries(range(2)))
    with FeatureStore(tmp_path) as store:
        assert len(store) == 2


def test_what_is_known_of_a_model_while_its_files_do_not_change(tmp_path: Path) -> None:
    files = [tmp_path / "config", tmp_path / "weights"]
    for file in files:
        file.write_text("first")
    with FeatureStore(tmp_path) as store:
        assert store.find_model("one") is None
        store.add_model("one", stamp_files(files), ["fingerprint", 4])
        assert store.find_model("one") == ["fingerprint", 4] and store.find_model("two") is None
        files[1].write_text("second")
        assert store.find_model("one") is None
        store.add_model("one", stamp_files(files), ["other", 4])
        assert store.find_model("one") == ["other", 4]
        files[1].unlink()
        assert store.find_model("one") is None


@pytest.mark.parametrize("column", ["facts", "files"])
@pytest.mark.parametrize(
    "damage",
    ["''", "'[1, 2'", "NULL", "5", "x'00ff'", "'[]'", "'{{}}'", "substr({0}, 1, 20)",
     "replace({0}, '1', '2')"],
)  # fmt: skip
def test_damaged_facts_are_as_none(column: str, damage: str, tmp_path: Path) -> None:
    """Invalid JSON was an error of JSON in every later call."""
    weights, facts = tmp_path / "weights", ["fingerprint1", 4]
    weights.write_text("first")
    with FeatureStore(tmp_path) as store:
        store.add_model("one", stamp_files([weights]), facts)
        with closing(sqlite3.connect(store.path)) as db, db:
            db.execute(f"UPDATE models SET {column} = {damage.format(column)}")
        assert store.find_model("one") is None
        store.add_model("one", stamp_files([weights]), facts)
        assert store.find_model("one") == facts
