"""A store knows a model by its files: nothing is loaded for what it holds, nothing stale found."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from skhegraph.clip import known_model
from skhegraph.clip import model as backbone
from skhegraph.clip.feature_cache import FeatureStore
from skhegraph.clip.features import CLIPFeatures
from skhegraph.clip.known_model import KnownModel

TINY = "skhegraph-tiny"
SCRIPT = """
import sys, numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from skhegraph import CLIPFeatures
paths = sys.argv[2:]
clip = CLIPFeatures("skhegraph-tiny", cache_dir=sys.argv[1]).set_output(transform="pandas")
X = clip.transform(paths)
make_pipeline(clip, LogisticRegression()).fit(paths, [0, 1] * (len(paths) // 2)).predict(paths)
print(sorted({"torch", "open_clip", "torchvision", "timm"} & set(sys.modules)))
np.save(sys.argv[1] + "/rows.npy", X)
"""


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    names = [str(tmp_path / f"{i}.png") for i in range(20)]
    for i, name in enumerate(names):
        Image.new("L", (8, 8), 10 * i).save(name)
    return names


def settle(folder: Path) -> None:
    """Make files look as if they had not changed for long, as far as a user can."""
    for path in folder.iterdir():
        os.utime(path, (time.time() - 1000,) * 2)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch is asked for the device")
def test_a_fully_cached_call_imports_neither_torch_nor_open_clip(paths, tmp_path):
    if backbone.resolve_device("auto") != "cpu":
        pytest.skip("torch is asked where there may be an accelerator")
    expected = CLIPFeatures(TINY).transform(paths)
    store = str(tmp_path / "store")
    CLIPFeatures(TINY, cache_dir=store).transform(paths)
    command = [sys.executable, "-c", SCRIPT, store, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    np.testing.assert_allclose(np.load(f"{store}/rows.npy"), expected, atol=1e-6)


def test_the_model_is_loaded_at_the_first_image_that_is_not_stored(paths, monkeypatch, tmp_path):
    clip = CLIPFeatures(TINY, device="cpu", cache_dir=tmp_path / "store")
    expected = CLIPFeatures(TINY, device="cpu").transform(paths)
    clip.transform(paths[:10])
    loaded, load = [], known_model.load_backbone
    monkeypatch.setattr(
        known_model, "load_backbone", lambda *args: loaded.append(args) or load(*args)
    )
    assert clip.fit(paths).n_features_out_ == 128
    clip.transform(paths[:10])
    with pytest.warns(UserWarning, match="1 of 1"):
        CLIPFeatures(TINY, device="cpu", cache_dir=tmp_path / "store", on_error="nan").transform(
            ["missing.png"]
        )
    assert loaded == []
    np.testing.assert_allclose(clip.transform(paths), expected, atol=1e-6)
    assert len(loaded) == 1


@pytest.fixture
def folder(tmp_path, small_config):
    """A local model whose weights a function makes anew."""
    path = tmp_path / "model"
    path.mkdir()
    config = {"model_cfg": small_config, "preprocess_cfg": {}}
    (path / "open_clip_config.json").write_text(json.dumps(config))

    def make(seed: int, name: str = "open_clip_model.safetensors") -> str:
        torch.manual_seed(seed)
        save_file(open_clip.CLIP(**small_config).state_dict(), path / name)
        return f"local-dir:{path}"

    return make


def test_a_model_whose_files_change_is_looked_at_again(folder, paths, monkeypatch, tmp_path):
    """At once after each other, as no one saves weights, and with stamps that have settled."""
    clip = CLIPFeatures(device="cpu", cache_dir=tmp_path / "store")
    for settled in (True, False):
        if settled:
            monkeypatch.setattr(known_model, "is_settled", lambda stamp: True)
        for seed in (0, 1, 0):
            clip.set_params(model_name=folder(seed))
            expected = CLIPFeatures(clip.model_name, device="cpu").transform(paths)
            np.testing.assert_allclose(clip.transform(paths), expected, atol=1e-5)
        monkeypatch.undo()
    with FeatureStore(tmp_path / "store") as store:
        assert len(store) == 40


def test_weights_that_are_added_to_a_folder_are_seen(folder, paths, monkeypatch, tmp_path):
    monkeypatch.setattr(known_model, "is_settled", lambda stamp: True)
    clip = CLIPFeatures(folder(0), device="cpu", cache_dir=tmp_path / "store")
    clip.transform(paths)
    with FeatureStore(tmp_path / "store") as store:
        name = known_model._name(clip.model_name, None, "cpu")
        assert store.find_model(name) is not None
        folder(1, "another.safetensors")
        assert store.find_model(known_model._name(clip.model_name, None, "cpu")) is None


def test_what_decides_is_in_the_name(monkeypatch):
    def name(device: str = "cpu") -> str:
        return known_model._name(TINY, None, device)

    before = name()
    assert before == name() == known_model._name(TINY, "ignored", "cpu")
    monkeypatch.setattr(known_model, "resolve_device", lambda device: "cuda:0")
    assert name("cuda") != before
    monkeypatch.setattr(known_model, "version", lambda package: "99")
    assert name() != before
    monkeypatch.undo()
    monkeypatch.setattr("skhegraph.clip.images._DECODING", -1)
    assert name() != before


def test_a_store_that_knew_another_model_forgets_it(paths, tmp_path):
    """Should the name not tell all that decides about a model."""
    clip = CLIPFeatures(TINY, device="cpu", cache_dir=tmp_path / "store")
    loaded = backbone.load_backbone(TINY, device="cpu")
    with FeatureStore(tmp_path / "store") as store:
        store.add_model(known_model._name(TINY, None, "cpu"), loaded.files, ["other", 128, 256])
    with pytest.raises(OSError, match=r"model_name='skhegraph-tiny' is another model.*run again"):
        clip.transform(paths)
    np.testing.assert_allclose(
        clip.transform(paths), CLIPFeatures(TINY, device="cpu").transform(paths), atol=1e-6
    )


@pytest.mark.parametrize("facts", ["", '["a', '["a", "b", 1]', "[1]", "null"])
def test_damaged_facts_are_found_out_anew(facts, paths, tmp_path):
    clip = CLIPFeatures(TINY, device="cpu", cache_dir=tmp_path / "store")
    expected = clip.transform(paths[:5])
    with closing(sqlite3.connect(tmp_path / "store" / "features.sqlite")) as db, db:
        before = db.execute("SELECT * FROM models").fetchall()
        db.execute("UPDATE models SET facts = ?", (facts,))
    np.testing.assert_array_equal(clip.transform(paths[:5]), expected)
    with closing(sqlite3.connect(tmp_path / "store" / "features.sqlite")) as db:
        assert db.execute("SELECT * FROM models").fetchall() == before
        assert db.execute("SELECT COUNT(*) FROM features").fetchone() == (5,)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_the_device_is_known_without_torch_where_that_is_sure(device, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        known_model, "resolve_device", lambda device: asked.append(device) or "cuda:0"
    )
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(known_model, "_DEVICES", tmp_path)
    assert known_model._on_cpu(device) and asked == []
    (tmp_path / "nvidia0").touch()
    assert known_model._on_cpu(device) == (device == "cpu") and asked == ["auto"] * (
        device == "auto"
    )
    assert not known_model._on_cpu("cuda") and asked[-1] == "cuda"


def test_without_a_store_the_model_is_loaded_and_not_digested(monkeypatch):
    monkeypatch.setattr(backbone.Backbone, "fingerprint", lambda self: pytest.fail("digested"))
    model = KnownModel(TINY, None, "cpu", None)
    assert (model.fingerprint, model.n_features, model.least_side) == ("", 128, 256)
    assert model.load() is backbone.load_backbone(TINY, device="cpu")
