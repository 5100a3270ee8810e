"""A loaded CLIP is the one its path leads to now."""

from __future__ import annotations

import threading

import numpy as np
import open_clip
import pytest
import torch

from skhegraph import CLIPFeatures
from skhegraph.clip import model as backbone
from skhegraph.clip.model import TINY, load_backbone

IMAGES = list(np.random.default_rng(0).random((3, 40, 40)))


def test_item_3_a_relative_folder_is_another_one_after_chdir(
    small_model, small_config, make_folder, tmp_path, monkeypatch
):
    """Issue 17.3."""
    make_folder(tmp_path / "a" / "clip", small_model)
    make_folder(tmp_path / "b" / "clip", open_clip.CLIP(**small_config))
    rows = {}
    for name in ("a", "b"):
        monkeypatch.chdir(tmp_path / name)
        rows[name] = CLIPFeatures("local-dir:clip", device="cpu").transform(IMAGES)
        whole = CLIPFeatures(f"local-dir:{tmp_path / name / 'clip'}", device="cpu")
        np.testing.assert_array_equal(rows[name], whole.transform(IMAGES))
    assert np.abs(rows["a"] - rows["b"]).max() > 0.01


def test_item_3_an_overwritten_checkpoint_is_loaded_again(small_model, small_config, tmp_path):
    """Issue 17.3."""
    path = tmp_path / "weights.pt"
    loaded = []
    for model in (small_model, open_clip.CLIP(**small_config)):
        torch.save(model.state_dict(), path)
        loaded.append(load_backbone("test-small", str(path), "cpu"))
        assert load_backbone("test-small", str(path), "cpu") is loaded[-1]
    assert loaded[0] is not loaded[1]
    assert loaded[0].fingerprint() != loaded[1].fingerprint()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("visual.proj", float("nan"), "image tower gives features that are not finite"),
        ("text_projection", float("nan"), "text tower gives features that are not finite"),
        ("logit_scale", 100.0, "logit_scale is 100, which has to be the logarithm"),
        ("logit_scale", float("nan"), "logit_scale is nan"),
    ],
)
def test_item_19_weights_that_are_not_finite_are_one_error(
    name, value, message, small_model, tmp_path
):
    """Issue 17.19."""
    state = small_model.state_dict()
    state[name] = torch.full_like(state[name], value)
    torch.save(state, tmp_path / "weights.pt")
    clip = CLIPFeatures("test-small", tmp_path / "weights.pt", device="cpu", on_error="nan")
    with pytest.raises(OSError, match=rf"test-small.*weights\.pt.*{message}"):
        clip.transform(IMAGES)


def test_item_11_a_cached_model_does_not_wait_for_another_that_loads(small_model, monkeypatch):
    """Issue 17.11."""
    tiny = load_backbone(TINY, device="cpu")
    started, go = threading.Event(), threading.Event()
    monkeypatch.setattr(backbone, "_load", lambda *args: started.set() or (go.wait(30) and tiny))
    loader = threading.Thread(target=load_backbone, args=("skhegraph-lite", None, "cpu"))
    loader.start()
    assert started.wait(30)
    got = []
    taker = threading.Thread(target=lambda: got.append(load_backbone(TINY, device="cpu")))
    taker.start()
    taker.join(5)
    go.set()
    loader.join()
    assert got == [tiny]


def test_item_28_a_folder_given_as_a_name_is_told_local_dir(tmp_path):
    """Issue 17.28."""
    with pytest.raises(ValueError, match="It is a folder on this machine: model_name='local-dir:"):
        load_backbone(str(tmp_path), "openai", "cpu")
