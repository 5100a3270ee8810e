"""Scale-out on a real cluster of two worker processes, one of them killed half-way."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import cloudpickle
import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster, Status, WorkerPlugin
from distributed.utils import get_mp_context
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from skhegraph import CLIPFeatures, HeGraphClassifier, cluster, make_hegraph_pipeline
from skhegraph.clip import model as backbone

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers do not see the tests
TINY = "skhegraph-tiny"
SIZE, PARTS = 20, 12
MOMENTS = ["encoding", "written", "in place"]


class Watch(WorkerPlugin):
    """On each worker: notes model loads and parts, and stops at a moment that a test names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, worker) -> None:
        build, transform, replace = backbone._build_bundled, CLIPFeatures.transform, os.replace

        def noted_build(bundled):
            self.note("load")
            return build(bundled)

        def noted_transform(clip, X):
            self.note("encode")
            self.stop("encoding")
            return transform(clip, X)

        def stopping_replace(source, target):
            self.stop("written")
            replace(source, target)
            self.stop("in place")

        backbone._build_bundled = noted_build
        CLIPFeatures.transform = noted_transform
        os.replace = stopping_replace

    def note(self, what: str) -> None:
        with open(self.folder / "log", "a") as log:
            log.write(f"{what} {os.getpid()}\n")

    def stop(self, moment: str) -> None:
        """Once a test has asked for the moment and three parts are there, wait for the test."""
        request = self.folder / moment
        with contextlib.suppress(FileNotFoundError):  # taken back in the meantime
            if len(parts_of(Path(request.read_text()))) >= 3:
                (self.folder / "stopped" / str(os.getpid())).touch()
                while request.exists():
                    time.sleep(0.01)


def parts_of(store: Path) -> set[Path]:
    return set(store.glob("*.parquet"))


def pids(control: Path, what: str) -> Counter[str]:
    """How often each worker process has loaded the model or encoded a part."""
    lines = [line.split() for line in (control / "log").read_text().splitlines()]
    return Counter(pid for name, pid in lines if name == what)


@pytest.fixture(scope="module")
def control(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("control")
    (folder / "stopped").mkdir()
    return folder


@pytest.fixture(scope="module")
def running(control):
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True}
    # Dask gives up a worker that is away 15 s after a kill, as one killed twice may be.
    config = {"distributed.deploy.lost-worker-timeout": "10 minutes"}
    # Workers fork off a server that has imported what takes long.
    config["distributed.worker.multiprocessing-method"] = "forkserver"
    with dask.config.set(config):
        get_mp_context().set_forkserver_preload(["distributed", "open_clip", "skhegraph.cluster"])
        with LocalCluster(**options, dashboard_address=None) as local, Client(local) as client:
            client.register_plugin(Watch(control))
            yield client


def wait_for_both(client: Client) -> None:
    """Wait until both workers are up, and until those that would restart them know it.

    A worker that is killed before its nanny knows that it is up is not restarted by Dask.
    """
    client.wait_for_workers(2, timeout=60)
    until = time.monotonic() + 60
    while any(nanny.status != Status.running for nanny in client.cluster.workers.values()):
        assert time.monotonic() < until, "a worker was not restarted"
        time.sleep(0.01)


@pytest.fixture
def client(running) -> Client:
    """The cluster with both workers up, also after a test that killed one."""
    wait_for_both(running)
    return running


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> tuple[list[str], np.ndarray]:
    """Image files of scikit-learn's digits 0, 1 and 2, and their labels."""
    folder = tmp_path_factory.mktemp("digits")
    images, labels = load_digits(n_class=3, return_X_y=True)
    n = SIZE * PARTS - 5  # the last part is shorter
    paths = [str(folder / str(label) / f"{i}.png") for i, label in enumerate(labels[:n])]
    for label in range(3):
        (folder / str(label)).mkdir()
    for path, image in zip(paths, images[:n], strict=True):
        Image.fromarray((image.reshape(8, 8) * 15).astype(np.uint8)).save(path)
    return paths, labels[:n]


@pytest.fixture(scope="module")
def paths(digits) -> list[str]:
    return digits[0]


@pytest.fixture(scope="module")
def expected(paths) -> np.ndarray:
    return CLIPFeatures(TINY).transform(paths)


@pytest.fixture
def extract(client, paths, tmp_path):
    """Extraction into a store of this test."""

    def run(**params) -> int:
        params = {"paths": paths, "clip": CLIPFeatures(TINY), "images_per_part": SIZE, **params}
        return cluster.extract(client, folder=tmp_path / "store", **params)

    return run


def pipeline(**clip_params):
    return make_hegraph_pipeline(TINY, class_names=["zero", "one", "two"], **clip_params)


@pytest.mark.parametrize("moment", MOMENTS)
def test_nothing_lost_and_nothing_twice_when_a_worker_is_killed(
    moment, client, control, extract, paths, expected, tmp_path
):
    store, stopped, request = tmp_path / "store", control / "stopped", control / moment
    for old in stopped.iterdir():
        old.unlink()
    encoded = pids(control, "encode").total() if (control / "log").exists() else 0
    request.write_text(str(store))
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(extract)
        try:
            while not (victims := list(stopped.iterdir())) and not run.done():
                time.sleep(0.01)
            assert victims and 3 <= len(parts_of(store)) <= PARTS / 2
            assert moment != "written" or any(store.glob(".*.tmp"))
            os.kill(int(victims[0].name), signal.SIGKILL)
        finally:
            request.unlink()
        run.result(timeout=120)
    table = cluster.read(store).to_table()
    assert table["path"].to_pylist() == paths
    np.testing.assert_allclose(cluster.features_of(table), expected, atol=1e-5)
    assert {path.name for path in store.iterdir()} == {
        "manifest.json", *map(cluster.part_name, range(PARTS))
    }  # fmt: skip
    # The part in the victim's hands is encoded again, unless it was in place already.
    again = moment != "in place"
    assert pids(control, "encode").total() - encoded == PARTS + again
    client.wait_for_workers(2, timeout=60)
    assert int(victims[0].name) not in client.run(os.getpid).values()


@pytest.fixture
def faultless(client, paths, tmp_path):
    """Table of a run without faults on the same cluster."""
    cluster.extract(client, paths, tmp_path / "whole", CLIPFeatures(TINY), images_per_part=SIZE)
    return cluster.read(tmp_path / "whole").to_table()


def test_one_worker_killed_at_ten_random_moments(client, control, faultless, paths, tmp_path):
    for number, after in enumerate(np.random.default_rng(0).uniform(0, 0.2, 10)):
        wait_for_both(client)
        store, encoded = tmp_path / str(number), pids(control, "encode").total()
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(
                cluster.extract, client, paths, store, CLIPFeatures(TINY), images_per_part=SIZE
            )
            while pids(control, "encode").total() == encoded and not run.done():
                time.sleep(0.005)
            time.sleep(after)
            last = (control / "log").read_text().split()[-1]  # who loads or encodes
            os.kill(int(last), signal.SIGKILL)
            run.result(timeout=120)
        assert cluster.read(store).to_table().equals(faultless)
        assert len(list(store.iterdir())) == PARTS + 1


def start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", *arguments, "--no-dashboard"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def separate_processes():
    """A scheduler and two workers as processes of their own; its process and a client."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    address = f"tcp://127.0.0.1:{port}"
    options = ["--host", "127.0.0.1", "--port", port]
    scheduler = start("distributed.cli.dask_scheduler", *options)
    options = ["--nworkers", "2", "--nthreads", "1"]
    workers = start("distributed.cli.dask_worker", address, *options)
    try:
        with Client(address, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            yield scheduler, client
    finally:
        for process in (workers, scheduler):
            process.terminate()
            process.wait(timeout=60)


def test_the_scheduler_is_killed_and_another_one_started(faultless, paths, tmp_path):
    def extract(client: Client) -> int:
        clip = CLIPFeatures(TINY)
        return cluster.extract(client, paths, tmp_path / "store", clip, images_per_part=SIZE)

    with separate_processes() as (scheduler, client), ThreadPoolExecutor(1) as pool:
        run = pool.submit(extract, client)
        while not parts_of(tmp_path / "store") and not run.done():
            time.sleep(0.005)
        scheduler.kill()
        with pytest.raises((OSError, CancelledError)):
            run.result(timeout=60)
    made = len(parts_of(tmp_path / "store"))
    assert 1 <= made < PARTS
    with separate_processes() as (_, client):
        assert extract(client) == len(paths) - made * SIZE
    assert cluster.read(tmp_path / "store").to_table().equals(faultless)


def test_a_restart_makes_what_is_missing(extract, control, paths, tmp_path):
    store = tmp_path / "store"
    assert extract() == len(paths)
    encoded = pids(control, "encode").total()
    times = {path.name: path.stat().st_mtime_ns for path in parts_of(store)}
    assert extract() == 0
    lost = store / cluster.part_name(4)
    lost.unlink()
    with pytest.raises(ValueError, match="11 of 12 parts: run `extract` again"):
        cluster.read(store)
    assert extract() == SIZE
    assert pids(control, "encode").total() == encoded + 1
    after = {path.name: path.stat().st_mtime_ns for path in parts_of(store)}
    assert {name for name in times if after[name] != times[name]} == {lost.name}
    assert cluster.read(store).to_table()["path"].to_pylist() == paths


def test_a_worker_loads_the_model_once(extract, client, control, paths):
    client.run(CLIPFeatures(TINY).transform, paths[:1])  # on each worker, whoever gets the parts
    before = pids(control, "encode")
    extract()
    loads = pids(control, "load")
    assert {str(pid) for pid in client.run(os.getpid).values()} <= set(loads)
    assert set(pids(control, "encode") - before) <= set(loads)  # others were killed while loading
    assert set(loads.values()) == {1}


def test_predictions(extract, digits, tmp_path):
    paths, labels = digits
    fitted = pipeline().fit(paths[:30], labels[:30])
    extract(classifier=fitted["clf"])
    table = cluster.read(tmp_path / "store").to_table()
    assert table["label"].to_pylist() == fitted.predict(paths).tolist()
    best = fitted.predict_proba(paths).max(axis=1)
    np.testing.assert_allclose(table["probability"], best, atol=1e-5)


def test_unreadable_images(extract, digits, expected, tmp_path):
    paths, labels = digits
    words = np.array(["zero", "one", "two"])[labels[:30]]
    fitted = pipeline().set_params(clf__class_names=None).fit(paths[:30], words)
    mixed = [paths[0], "missing.png", paths[1], "other.png", "third.png"]
    # Both parts fail; which one is heard first is the cluster's affair.
    with pytest.raises(ValueError, match=r"(missing|other)\.png: no such file"):
        extract(paths=mixed, classifier=fitted["clf"], images_per_part=3)
    clip = CLIPFeatures(TINY, on_error="nan")
    extract(paths=mixed, clip=clip, classifier=fitted["clf"], images_per_part=3)
    table = cluster.read(tmp_path / "store").to_table()
    assert table["path"].to_pylist() == mixed
    want = np.full((5, 128), np.nan)
    want[[0, 2]] = expected[:2]
    np.testing.assert_allclose(cluster.features_of(table), want, atol=1e-5)
    none = [False, True, False, True, True]
    assert table["label"].is_null().to_pylist() == none
    assert table["probability"].is_null().to_pylist() == none


def test_another_extraction_in_the_folder(extract, paths):
    extract(paths=paths[:20])
    with pytest.raises(ValueError, match=r"(?s)images is 20 there and 40 now; paths.*Choose"):
        extract(paths=paths[:40])
    with pytest.raises(ValueError, match="images_per_part is 20 there and 10 now"):
        extract(paths=paths[:20], images_per_part=10)
    with pytest.raises(ValueError, match="model_name is 'skhegraph-tiny' there and 'ViT-B-16'"):
        extract(paths=paths[:20], clip=CLIPFeatures("ViT-B-16"))


@pytest.mark.parametrize(
    ("clip", "differs"),
    [
        (CLIPFeatures(TINY, draft=False), {"draft"}),
        (CLIPFeatures(TINY, max_pixels=9), {"max_pixels"}),
        (CLIPFeatures("RN50", "openai"), {"model_name", "pretrained"}),
        (CLIPFeatures(TINY, "ignored", batch_size=3, num_workers=2, verbose=1), set()),
    ],
)
def test_item_8_a_manifest_holds_all_that_rows_depend_on(clip, differs, paths):
    """Issue 17.8."""
    one = cluster.manifest_of(paths, CLIPFeatures(TINY), None, SIZE)
    other = cluster.manifest_of(paths, clip, None, SIZE)
    assert {key for key in one if one[key] != other[key]} == differs


def test_item_8_a_manifest_names_a_model_by_its_whole_path(paths, monkeypatch, tmp_path):
    """Issue 17.8."""
    manifests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        manifests.append(cluster.manifest_of(paths, CLIPFeatures("local-dir:clip"), None, SIZE))
    assert manifests[0] != manifests[1]


def test_item_14_a_part_without_a_readable_image(extract, digits, tmp_path):
    """Issue 17.14."""
    paths, labels = digits
    fitted = pipeline().fit(paths[:30], labels[:30])
    clip = CLIPFeatures(TINY, on_error="nan", cache_dir=tmp_path / "features")
    mixed = [paths[0], "missing.png", "other.png", "third.png", paths[1]]
    assert extract(paths=mixed, clip=clip, classifier=fitted["clf"], images_per_part=2) == 5
    table = cluster.read(tmp_path / "store").to_table()
    none = [False, True, True, True, False]
    assert np.isnan(cluster.features_of(table)).all(axis=1).tolist() == none
    assert table["label"].is_null().to_pylist() == none


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64, object, str])
def test_item_26_labels_and_a_label_for_unknowns_of_a_wider_type(dtype):
    """Issue 17.26: in every part the column has one type, whether an unknown is in it or not."""
    X = np.eye(6) + 0.01
    y = np.array([0, 0, 1, 1, 2, 2]).astype(str if dtype is object else dtype).astype(dtype)
    unknown = "none" if dtype in (object, str) else 200 if dtype is np.int8 else -1
    clf = HeGraphClassifier(text_features="prototypes", unknown_label=unknown).fit(X, y)
    known = cluster.predict(clf, X)["label"]
    clf.set_params(unknown_threshold=1e300)
    turned_away = cluster.predict(clf, X)["label"]
    assert known.to_pylist() == y.tolist() and turned_away.to_pylist() == [unknown] * 6
    assert known.type == turned_away.type


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"images_per_part": 0}, ValueError, "images_per_part == 0, must be >= 1"),
        ({"images_per_part": 1.5}, TypeError, "images_per_part must be an instance of int"),
        ({"paths": "a.png"}, TypeError, "paths is a str: give a list"),
        ({"paths": iter(["a.png"])}, TypeError, "give a list of paths"),
        ({"paths": [["a.png", "b.png"]]}, TypeError, r"paths\[0\] is a list: .*of one file"),
        ({"clip": pipeline()}, TypeError, "clip is a HeGraphPipeline: give a CLIPFeatures, and"),
        ({"classifier": HeGraphClassifier()}, NotFittedError, "not fitted"),
    ],
)
def test_what_cannot_be_extracted_leaves_no_folder(given, error, message, tmp_path):
    """Issue 17.33, the kind: workers found it out, and the folder was of that extraction then."""
    params = {"paths": ["a.png"], "clip": CLIPFeatures(TINY), **given}
    with pytest.raises(error, match=message):
        cluster.extract(None, params.pop("paths"), tmp_path / "store", params.pop("clip"), **params)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("content", [None, "", "{bad", "[]", '{"images": 3}', "null"])
def test_a_folder_without_a_sound_manifest_is_one_clear_error(content, tmp_path):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match="holds no extraction, or its manifest"):
        cluster.read(tmp_path)
    if content is not None:
        with pytest.raises(ValueError, match="holds no extraction"):
            cluster.extract(None, ["a.png"], tmp_path, CLIPFeatures(TINY))
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file: choose a folder"):
        cluster.extract(None, ["a.png"], tmp_path / "file", CLIPFeatures(TINY))


def test_search(client, digits, tmp_path):
    paths, labels = np.array(digits[0][:60]), digits[1][:60]
    grid = {"clf__visual_to_positive": [0.0, 0.2, 0.5]}
    params = {"scoring": "neg_log_loss", "cv": 3, "error_score": "raise"}
    plain = GridSearchCV(pipeline(), grid, **params).fit(paths, labels)
    cached = pipeline(cache_dir=tmp_path)
    found = cluster.search(client, cached, grid, paths, labels, **params)
    assert found.best_params_ == plain.best_params_
    for name in ["mean_test_score", "std_test_score"]:
        np.testing.assert_allclose(found.cv_results_[name], plain.cv_results_[name], atol=1e-6)
    with sqlite3.connect(tmp_path / "features.sqlite") as db:
        assert db.execute("SELECT COUNT(*) FROM features").fetchone() == (60,)
