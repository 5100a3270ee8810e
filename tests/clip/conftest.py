"""A small CLIP of random weights, folders that hold it, and a hub that is not there."""

from __future__ import annotations

import json

import open_clip
import pytest
from open_clip import factory
from safetensors.torch import save_file

from skhegraph.clip import model as backbone

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {
        "context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1,
    },
}  # fmt: skip


@pytest.fixture
def small_config():
    """Architecture of `small_model`."""
    return CONFIG


@pytest.fixture
def small_model(monkeypatch):
    """Register a small random architecture with open_clip for the duration of a test."""
    monkeypatch.setitem(factory._MODEL_CONFIGS, "test-small", CONFIG)
    monkeypatch.setattr(backbone, "_backbones", {})
    return open_clip.CLIP(**CONFIG).eval()


@pytest.fixture
def make_folder():
    """Function that makes a local folder of open_clip of a model."""

    def make_folder(folder, model, **preprocess):
        folder.mkdir(parents=True)
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        config = {"model_cfg": CONFIG, "preprocess_cfg": preprocess}
        (folder / "open_clip_config.json").write_text(json.dumps(config))

    return make_folder


@pytest.fixture
def use_hub(monkeypatch):
    """Function that points the hub at a port of this machine."""
    from huggingface_hub import constants

    def use_hub(port):
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        template = constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    return use_hub


@pytest.fixture
def no_network(monkeypatch, use_hub, tmp_path):
    """Point the hub at a closed port and at an empty cache."""
    from huggingface_hub import constants

    use_hub(9)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_ETAG_TIMEOUT", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "hub"
