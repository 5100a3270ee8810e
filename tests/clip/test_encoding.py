"""The one way from images to rows: read once, stored as they come, the same with a store."""

from __future__ import annotations

import io
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from skhegraph.clip import image_files
from skhegraph.clip.features import CLIPFeatures
from skhegraph.clip.model import Backbone

TINY = "skhegraph-tiny"


def tiny(**params) -> CLIPFeatures:
    return CLIPFeatures(TINY, device="cpu", **params)


def png(grey: int, size: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("L", (size, size), grey).save(file, "PNG")
    return file.getvalue()


def rows_of(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "features.sqlite")) as db:
        return int(db.execute("SELECT COUNT(*) FROM features").fetchone()[0])


@pytest.fixture
def images() -> list[np.ndarray]:
    return list(load_digits().images[:30] / 16)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of views of each forward pass."""
    counts: list[int] = []
    encode = Backbone.encode_pixels
    monkeypatch.setattr(
        Backbone, "encode_pixels", lambda self, p: counts.append(len(p)) or encode(self, p)
    )
    return counts


# --- 4: one reading ------------------------------------------------------------------------------


def test_item_4_file_changed_between_digest_and_decoding(monkeypatch, tmp_path):
    """Issue 17.4."""
    path, store = tmp_path / "photo.png", tmp_path / "store"
    path.write_bytes(png(20))
    old, new = tiny().transform([png(20)]), tiny().transform([png(240)])
    assert np.abs(old - new).max() > 0.01
    identify = image_files._identify

    def saved_meanwhile(file):
        path.write_bytes(png(240))
        return identify(file)

    with monkeypatch.context() as patch:
        patch.setattr(image_files, "_identify", saved_meanwhile)
        np.testing.assert_allclose(tiny(cache_dir=store).transform([path]), old, atol=1e-6)
    for source, row in [(path, new), (png(20), old), (png(240), new)]:
        np.testing.assert_allclose(tiny(cache_dir=store).transform([source]), row, atol=1e-6)


def test_item_4_a_file_is_read_once(tmp_path):
    """Issue 17.4: an audit hook sees every file that the interpreter opens."""
    path = tmp_path / "photo.png"
    path.write_bytes(png(20))
    code = (
        "import sys\n"
        "from skhegraph import CLIPFeatures\n"
        "clip = CLIPFeatures('skhegraph-tiny', device='cpu', cache_dir=sys.argv[2])\n"
        "clip.fit([b'']).set_params(on_error='nan')\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: event == 'open' and opened.append(args[0]))\n"
        "clip.transform([sys.argv[1]])\n"
        "print(opened.count(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path, tmp_path / "store"], capture_output=True, text=True
    )
    assert done.stdout == "1\n", done.stderr


class Stream(io.RawIOBase):
    """A file that cannot seek, such as a pipe or a response from the net."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def read(self, *args: int) -> bytes:
        return self.data.read(*args)

    def seekable(self) -> bool:
        return False


def test_item_4_a_stream_that_cannot_seek_works_with_a_store(tmp_path):
    """Issue 17.4."""
    expected = tiny().transform([Stream(png(20))])
    for _ in range(2):
        got = tiny(cache_dir=tmp_path).transform([Stream(png(20))])
        np.testing.assert_allclose(got, expected, atol=1e-6)
    assert rows_of(tmp_path) == 1


def test_item_4_max_pixels_holds_on_a_warm_store(passes, tmp_path):
    """Issue 17.4."""
    path = tmp_path / "photo.png"
    path.write_bytes(png(20, size=11))
    then = time.time() - 100
    os.utime(path, (then, then))
    sources = [path, png(30, size=11), io.BytesIO(png(40, size=11))]
    messages = []
    for folder in ("cold", "warm"):
        clip = tiny(cache_dir=tmp_path / folder)
        if folder == "warm":
            clip.transform(sources)
            clip.transform(sources)  # digests are known
        with pytest.raises(
            ValueError, match=r"3 of 3 .*(?s:.*)11 x 11 = 121 .*max_pixels=100"
        ) as e:
            clip.set_params(max_pixels=100).transform(sources)
        messages.append(str(e.value))
        passes.clear()
        clip.set_params(max_pixels=121).transform(sources)
        assert sum(passes) == (3 if folder == "cold" else 0)
    assert messages[0] == messages[1]
    array = np.zeros((11, 11))  # the bound is on files
    for _ in range(2):
        tiny(cache_dir=tmp_path / "warm", max_pixels=100).transform([array])


# --- 12: no pass exceeds the batch ---------------------------------------------------------------


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("n_views", [3, 8, 10, 50])
def test_item_12_no_pass_has_more_views_than_a_batch(n_views, stored, images, passes, tmp_path):
    """Issue 17.12."""
    clip = tiny(batch_size=8, n_views=n_views, cache_dir=tmp_path if stored else None)
    X = clip.fit_transform(images[:5])
    assert max(passes) <= 8 and sum(passes) == 5 * n_views
    by_hand = tiny(batch_size=500, n_views=n_views).fit_transform(images[:5])
    np.testing.assert_allclose(X, by_hand, atol=1e-6)


# --- 30: finished batches are kept ---------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
def test_item_30_finished_batches_are_kept_whatever_ends_the_call(
    error, images, monkeypatch, tmp_path
):
    """Issue 17.30."""
    encode, calls = Backbone.encode_pixels, itertools.count(1)

    def interrupted(self, pixels):
        if next(calls) == 4:
            raise error
        return encode(self, pixels)

    clip = tiny(batch_size=4, cache_dir=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "encode_pixels", interrupted)
        with pytest.raises(error):
            clip.transform(images)
    assert rows_of(tmp_path) == 12
    np.testing.assert_allclose(clip.transform(images), tiny().transform(images), atol=1e-6)
    assert rows_of(tmp_path) == 30


def test_item_30_a_signal_in_a_long_call(tmp_path):
    """Issue 17.30."""
    code = (
        "import sys, time, numpy as np\n"
        "from skhegraph import CLIPFeatures\n"
        "from skhegraph.clip.model import Backbone\n"
        "encode = Backbone.encode_pixels\n"
        "def slow(self, pixels):\n"
        "    print('batch', flush=True); time.sleep(0.1); return encode(self, pixels)\n"
        "Backbone.encode_pixels = slow\n"
        "params = {'device': 'cpu', 'batch_size': 10, 'cache_dir': sys.argv[1]}\n"
        "clip = CLIPFeatures('skhegraph-tiny', **params)\n"
        "clip.transform(list(np.random.default_rng(0).random((900, 8, 8))))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    for _ in range(4):
        assert child.stdout is not None and child.stdout.readline() == "batch\n"
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=30) != 0
    assert 30 <= rows_of(tmp_path) < 100 and rows_of(tmp_path) % 10 == 0


def test_copies_within_a_call_are_encoded_once(passes, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for i, path in enumerate(paths):
        path.write_bytes(png(100 * (i % 2)))
    X = tiny(cache_dir=tmp_path / "store", batch_size=2).transform(paths)
    assert sum(passes) == 2
    np.testing.assert_array_equal(X[2:], X[:4])
    np.testing.assert_allclose(X, tiny().transform(paths), atol=1e-6)


@pytest.mark.parametrize("n_processes", [2, 3])
def test_item_31_processes_on_one_cold_store_share_the_work(n_processes, tmp_path):
    """Issue 17.31."""
    code = (
        "import sys, time, numpy as np\n"
        "from skhegraph import CLIPFeatures\n"
        "from skhegraph.clip.model import Backbone\n"
        "encode, counts = Backbone.encode_pixels, []\n"
        "def slow(self, pixels):\n"
        "    counts.append(len(pixels)); time.sleep(0.03); return encode(self, pixels)\n"
        "Backbone.encode_pixels = slow\n"
        "images = list(np.random.default_rng(0).random((800, 8, 8)))\n"
        "params = {'device': 'cpu', 'batch_size': 8, 'num_workers': 1, 'cache_dir': sys.argv[1]}\n"
        "clip = CLIPFeatures('skhegraph-tiny', **params).fit(images)\n"
        "print('ready', flush=True); input()\n"
        "np.save(sys.argv[2], clip.transform(images)); print(sum(counts))\n"
    )
    files = [tmp_path / f"{i}.npy" for i in range(n_processes)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "store"), str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for file in files
    ]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    counts = [int(worker.communicate(timeout=100)[0]) for worker in workers]
    assert rows_of(tmp_path / "store") == 800
    assert 800 <= sum(counts) < (n_processes - 0.5) * 800 and min(counts) > 50, counts
    for file in files:
        np.testing.assert_array_equal(np.load(file), np.load(files[0]))


# --- 26, 31: the parameter and the bar -----------------------------------------------------------


def test_item_26_cache_dir_expands_the_home_folder(images, monkeypatch, tmp_path):
    """Issue 17.26."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    tiny(cache_dir="~/x").transform(images[:1])
    assert (tmp_path / "home" / "x" / "features.sqlite").exists()
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("name", ["~nobody-of-that-name/x", "a\0b"])
def test_a_cache_dir_that_cannot_be_is_refused(name, images, monkeypatch, tmp_path):
    """Issue 17.26, the kind: it made a folder of that name; a null was an error of Python's."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"cache_dir='(~nobody|a).*: give a whole path"):
        CLIPFeatures(TINY, device="cpu", cache_dir=name).transform(images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["fit", "transform", "fit_transform"])
def test_item_26_an_empty_cache_dir_is_refused(method, images, monkeypatch, tmp_path):
    """Issue 17.26."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="cache_dir='' names no folder"):
        getattr(tiny(cache_dir=""), method)(images)
    for bad in (b"x", 3, True):
        with pytest.raises(TypeError, match="cache_dir must be a path or None"):
            getattr(tiny(cache_dir=bad), method)(images)
    assert not list(tmp_path.iterdir())


def test_item_31_a_cache_dir_that_names_a_file(images, tmp_path):
    """Issue 17.31."""
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError, match=r"cache_dir='.*' is a file, or lies in one"):
            tiny(cache_dir=folder).transform(images)


def test_item_31_a_relative_cache_dir_is_of_the_working_directory(images, monkeypatch, tmp_path):
    """Issue 17.31."""
    clip = tiny(cache_dir="store")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        clip.transform(images[:2])
        assert rows_of(tmp_path / name / "store") == 2


def test_one_bar_for_all_images_of_a_call_with_a_store(images, capsys, tmp_path):
    clip = tiny(verbose=1, cache_dir=tmp_path, batch_size=1)
    clip.transform(images)
    said = capsys.readouterr().err
    assert "30/30" in said and said.count("CLIPFeatures: 100%") == 1
    clip.transform(images)
    assert "30/30" in capsys.readouterr().err


@pytest.mark.parametrize("stored", [False, True])
def test_item_26_verbose_without_a_standard_error(stored, images, monkeypatch, tmp_path):
    """Issue 17.26."""
    monkeypatch.setattr(sys, "stderr", None)
    X = tiny(verbose=1, cache_dir=tmp_path if stored else None).transform(images)
    assert X.shape == (30, 128)
