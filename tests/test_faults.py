"""Kills, full disks, missing memory, many threads, forks: what was finished is there and right."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.util import module_from_spec, spec_from_file_location
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from skhegraph import CLIPFeatures, cluster, make_hegraph_pipeline
from skhegraph.clip import model as backbone
from skhegraph.clip.feature_cache import FeatureStore, _remedy
from skhegraph.clip.model import Backbone, load_backbone

TINY = "skhegraph-tiny"
SERVER = Path(__file__).with_name("fault_server.py")
KILLS = {"extract": 80, "store": 60, "save": 60}  # 200 in all
JOURNAL = "features.sqlite-journal"  # there while a transaction is


@pytest.fixture(scope="module")
def work():
    """The module of the server: what its children do."""
    spec = spec_from_file_location("fault_server", SERVER)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server():
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(SERVER)], env=env, **pipes) as process:
        yield process
        process.stdin.close()
        process.wait(timeout=60)


@pytest.fixture
def kill(server):
    """Function that starts work, kills it at some time, and tells which units it finished."""

    def kill(
        job: str, folder: Path, unit: int, *, first: bool, writing: bool, after: float
    ) -> list[int]:
        server.stdin.write(f"{job} {folder} {unit}\n")
        server.stdin.flush()
        said: dict[str, list[int]] = {"pid": [], "done": [], "dead": []}

        def listen() -> None:
            word, *number = server.stdout.readline().split()
            said[word].extend(map(int, number or [0]))

        while not said["pid"] or (first and not said["done"]):
            listen()
        if writing and job != "save":  # in the middle of a transaction
            until = time.monotonic() + 10
            while not (folder / JOURNAL).exists() and time.monotonic() < until:
                pass
        else:
            time.sleep(after)
        os.kill(said["pid"][0], signal.SIGKILL)
        while not said["dead"]:
            listen()
        return said["done"]

    return kill


def moments(job: str) -> list[dict[str, float]]:
    """When to kill: within 50 ms after the start or the first unit, or at the next write."""
    times = np.random.default_rng(0).uniform(0, 0.05, KILLS[job])
    return [
        {"first": i % 4 > 0, "writing": i % 4 == 3, "after": after} for i, after in enumerate(times)
    ]


def stored_units(folder: Path, per_unit: int) -> int:
    """Number of whole units in a store; no unit may be there in part."""
    if not (folder / "features.sqlite").exists():
        return 0
    with closing(sqlite3.connect(folder / "features.sqlite")) as db:
        tables = db.execute("SELECT name FROM sqlite_master").fetchall()
        n = db.execute("SELECT COUNT(*) FROM features").fetchone()[0] if tables else 0
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    units, torn = divmod(n, per_unit)
    assert torn == 0
    return units


@pytest.mark.parametrize("job", ["extract", "store"])
def test_killed_while_extracting_and_storing(job, kill, work, tmp_path, monkeypatch):
    units = at_work = 0
    for moment in moments(job):
        done = kill(job, tmp_path, units, **moment)
        at_work += (tmp_path / JOURNAL).exists()
        before, units = units, stored_units(tmp_path, work.PER_UNIT[job])
        assert done == list(range(before, before + len(done)))
        assert before + len(done) <= units <= before + len(done) + 1
    assert units > KILLS[job] / 2 and at_work > KILLS[job] / 10
    if job == "store":
        with FeatureStore(tmp_path) as store:
            for unit in range(units):
                kept = [store.find(key, work.WIDTH).row for key in work.keys_of(unit)]
                np.testing.assert_array_equal(kept, work.rows(unit))
        return
    expected = [work.transformer(None).transform(work.images(unit)) for unit in range(units)]
    monkeypatch.setattr(Backbone, "encode_pixels", lambda *args: pytest.fail("encoded again"))
    for unit in range(units):
        kept = work.transformer(tmp_path).transform(work.images(unit))
        np.testing.assert_allclose(kept, expected[unit], atol=1e-6)


def test_killed_while_saving(kill, work, tmp_path):
    made = left_over = 0
    for moment in moments("save"):
        done = kill("save", tmp_path, made, **moment)
        before, made = made, len(list(tmp_path.glob("part-*.parquet")))
        assert done == list(range(before, before + len(done)))
        assert before + len(done) <= made <= before + len(done) + 1
        left_over = len(list(tmp_path.glob(".*.tmp")))
    assert made > KILLS["save"] / 2 and left_over > 1
    for unit in range(made):
        assert (tmp_path / cluster.part_name(unit)).read_bytes() == work.content(unit)


def in_fork(function, *args):
    """Result of a function in a forked child, whose limits and rights may be changed there."""
    context = get_context("fork")
    here, there = context.Pipe()

    def run() -> None:
        try:
            there.send(function(*args))
        except Exception as error:
            there.send(f"{type(error).__name__}: {error}")

    child = context.Process(target=run)
    child.start()
    try:
        assert here.poll(60), "the child hangs"
        return here.recv()
    finally:
        child.kill()
        child.join()


def test_disk_full(work, tmp_path):
    """Files may grow to 300 kB, as on a disk with no more room."""

    def fill() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        for unit in range(100):
            work.store(str(tmp_path), unit)
        return unit

    said = in_fork(fill)
    assert said.startswith(f"OSError: cache_dir: the feature store {tmp_path}")
    assert "What was stored before is safe: make room" in said
    assert "Delete" not in said and "cache_max_bytes" not in said
    units = stored_units(tmp_path, work.PER_UNIT["store"])
    assert units == 1 or units == 2
    work.store(str(tmp_path), units)  # with room again
    assert stored_units(tmp_path, work.PER_UNIT["store"]) == units + 1


def test_disk_full_while_saving(work, tmp_path):
    def save() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        work.save(str(tmp_path), 0)

    assert "File too large" in in_fork(save)
    assert not list(tmp_path.glob("part-*"))


@pytest.fixture
def read_only(digits, tmp_path_factory):
    """A store of three images that this process, in a fork, cannot write even if it is root's."""
    folder = tmp_path_factory.mktemp("read_only")
    clip = CLIPFeatures(TINY, device="cpu", cache_dir=folder)
    rows = clip.transform(digits[0][:3])
    (folder / "features.sqlite").chmod(0o444)
    folder.chmod(0o555)
    for parent in [folder, *folder.parents][1:4]:  # nobody may pass
        parent.chmod(parent.stat().st_mode | 0o011)
    yield clip, rows
    folder.chmod(0o755)


def test_item_31_a_read_only_store_is_noticed_before_anything_is_encoded(
    read_only, digits, monkeypatch
):
    """Issue 17.31."""
    clip, rows = read_only

    def transform(n: int):
        if os.geteuid() == 0:
            os.setuid(65534)
        monkeypatch.setattr(Backbone, "encode_pixels", lambda *args: os._exit(1))
        return clip.transform(digits[0][:n])

    np.testing.assert_array_equal(in_fork(transform, 3), rows)
    clip.set_params(cache_max_bytes=1)  # which cannot be kept
    np.testing.assert_array_equal(in_fork(transform, 3), rows)
    said = in_fork(transform, 4)
    assert said.startswith("OSError: cache_dir") and "Make the folder writable" in said


@pytest.mark.parametrize("statement", ["PRAGMA user_version = 3", "PRAGMA user_version = 99"])
def test_a_store_of_another_version(statement, tmp_path):
    clip = CLIPFeatures(TINY, device="cpu", cache_dir=tmp_path)
    clip.transform([np.zeros((8, 8))])
    with closing(sqlite3.connect(tmp_path / "features.sqlite")) as db:
        db.execute(statement)
    with pytest.raises(OSError, match=r"from another version of skhegraph.*Choose another"):
        clip.transform([np.zeros((8, 8))])


def test_features_made_in_another_way_are_not_found(tmp_path, monkeypatch):
    clip = CLIPFeatures(TINY, device="cpu", cache_dir=tmp_path)
    clip.transform([np.zeros((8, 8))])
    monkeypatch.setattr("skhegraph.clip.images._DECODING", -1)
    monkeypatch.setattr(backbone, "_backbones", {})
    clip.transform([np.zeros((8, 8))])
    assert stored_units(tmp_path, 1) == 2


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("SQLITE_PROTOCOL", "no locks that work: choose a cache_dir on a local one"),
        ("SQLITE_IOERR_LOCK", "no locks that work"),
        ("SQLITE_FULL", "make room"),
        ("SQLITE_BUSY", "Another process has been writing for 60 s"),
        ("SQLITE_CORRUPT", "Delete it"),
        ("SQLITE_READONLY_DIRECTORY", "Make the folder writable"),
    ],
)
def test_advice_about_errors_of_the_store(name, advice):
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = name
    assert advice in _remedy(error)


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(n_class=3, return_X_y=True)
    return list(images[:60].reshape(-1, 8, 8) / 16), labels[:60]


@pytest.fixture(scope="module")
def fitted(digits):
    names = ["zero", "one", "two"]
    model = make_hegraph_pipeline(TINY, device="cpu", class_names=names)
    return model.fit(*digits)


def test_two_hundred_threads_predict_on_one_classifier(fitted, digits):
    X, clf = fitted["clip"].transform(digits[0]), fitted["clf"]
    expected = clf.predict_proba(X)
    state = pickle.dumps(clf)
    with ThreadPoolExecutor(200) as pool:
        for proba in pool.map(lambda i: clf.predict_proba(X), range(1000)):
            np.testing.assert_array_equal(proba, expected)
    assert pickle.dumps(clf) == state


def test_two_hundred_threads_predict_on_one_pipeline(fitted, digits):
    expected = fitted.predict_proba(digits[0][:4])
    with ThreadPoolExecutor(200) as pool:
        for proba in pool.map(lambda i: fitted.predict_proba(digits[0][:4]), range(200)):
            np.testing.assert_allclose(proba, expected, atol=1e-6)


def test_two_hundred_threads_share_one_store(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("skhegraph.clip.feature_cache._LOCK_TIMEOUT", 300.0)
    expected = CLIPFeatures(TINY, device="cpu").transform(digits[0])
    clip = CLIPFeatures(TINY, device="cpu", cache_dir=tmp_path)
    with ThreadPoolExecutor(200) as pool:
        for i, row in enumerate(
            pool.map(lambda i: clip.transform([digits[0][i % 60]]), range(200))
        ):
            np.testing.assert_allclose(row[0], expected[i % 60], atol=1e-6)
    assert stored_units(tmp_path, 1) == 60


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_use_what_the_parent_opened(method, fitted, digits, tmp_path, request):
    """The model is loaded, torch has threads, and the store is in use when the child is made."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    cached = CLIPFeatures(TINY, device="cpu", cache_dir=tmp_path).fit(digits[0])
    known = cached.transform(digits[0][:30])
    proba = fitted.predict_proba(digits[0])
    with get_context(method).Pool(1) as pool:
        result = pool.apply_async(fitted.predict_proba, (digits[0],))
        np.testing.assert_allclose(result.get(timeout=60), proba, atol=1e-6)
        X = pool.apply_async(cached.transform, (digits[0],)).get(timeout=60)
    np.testing.assert_array_equal(X[:30], known)
    np.testing.assert_array_equal(cached.transform(digits[0]), X)
    assert stored_units(tmp_path, 1) == 60


def test_a_fork_while_another_thread_holds_the_locks(digits):
    loaded = load_backbone(TINY, device="cpu")
    expected = loaded.encode_text(["a dog"])
    with backbone._lock, loaded._text_lock:
        got = in_fork(lambda: load_backbone(TINY, device="cpu").encode_text(["a dog"]))
    np.testing.assert_array_equal(got, expected)


class SmallDevice:
    """Wraps a model's image tower: no memory for more than some images."""

    def __init__(self, encode, most: int) -> None:
        self.encode, self.most, self.sizes = encode, most, []

    def __call__(self, batch, **params):
        self.sizes.append(len(batch))
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.encode(batch, **params)


@pytest.fixture
def small_device(monkeypatch):
    model = load_backbone(TINY, device="cpu")._model

    def limit(most: int) -> SmallDevice:
        device = SmallDevice(model.encode_image, most)
        monkeypatch.setattr(model, "encode_image", device)
        return device

    return limit


def test_out_of_memory_halves_the_batch_once_with_a_warning(small_device, digits):
    clip = CLIPFeatures(TINY, device="cpu", batch_size=9)
    expected = clip.transform(digits[0][:9])
    device = small_device(5)
    with pytest.warns(UserWarning, match="out of memory with 9 images.*batch_size=5 or less"):
        X = clip.transform(digits[0][:9])
    np.testing.assert_allclose(X, expected, atol=1e-6)
    assert device.sizes == [9, 5, 4]


@pytest.mark.parametrize(
    ("most", "size", "message"),
    [
        (4, 9, r"out of memory with 5 of 9 images.*Set batch_size to less than 5, or device='cpu'"),
        (0, 1, r"out of memory with 1 of 1 images.*\. Set device='cpu'"),
    ],
)
def test_out_of_memory_with_half_a_batch_says_what_to_set(
    most, size, message, small_device, digits
):
    small_device(most)
    clip = CLIPFeatures(TINY, device="cpu", batch_size=size)
    with pytest.warns(UserWarning), pytest.raises(MemoryError, match=message):
        clip.transform(digits[0][:9])


def test_out_of_memory_keeps_what_was_stored(small_device, digits, tmp_path):
    clip = CLIPFeatures(TINY, device="cpu", batch_size=4, cache_dir=tmp_path)
    clip.transform(digits[0][:8])
    small_device(1)
    with pytest.warns(UserWarning), pytest.raises(MemoryError):
        clip.transform(digits[0][:16])
    assert stored_units(tmp_path, 1) == 8
