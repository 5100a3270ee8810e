"""Files that are no weights of the model: one clear error, and no code runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import re

import pytest
import torch
from safetensors.torch import save

from skhegraph.clip.model import load_backbone


class RunsCode:
    """Pickles to a call of `os.system`."""

    def __reduce__(self):
        return os.system, ("touch code-has-run",)


def saved(value, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


BAD_WEIGHTS = {
    "garbage.pt": (b"abc" * 1000, "is no checkpoint.*starts with b'abcabcabc'"),
    "empty.pt": (b"", "is empty"),
    "empty.safetensors": (b"", "is empty"),
    "text.pt": (b"a note about weights\n" * 50, "is no checkpoint"),
    "text.safetensors": (b"a note about weights\n" * 50, "is no checkpoint"),
    "truncated.safetensors": (save({"a": torch.zeros(999)})[:500], "SafetensorError"),
    "truncated.pt": (saved({"a": torch.zeros(999)})[:500], "RuntimeError"),
    "code.pt": (saved({"a": RunsCode()}), "could run code.*refused"),
    "code-in-an-old-file.pt": (
        saved({"a": RunsCode()}, _use_new_zipfile_serialization=False),
        "could run code.*refused",
    ),
    "code.pkl": (pickle.dumps(RunsCode()), "could run code.*refused"),
    "scripted.pt": (scripted(), "could run code.*refused"),
    "number.pt": (saved(3), "holds no state dict"),
    "no-tensors.pt": (saved({}), "holds no state dict"),
    "other-names.pt": (saved({"visual.proj": torch.zeros(2)}), "Missing key"),
    "garbage.npz": (b"abc" * 1000, "is no checkpoint"),
}


def error_of_loading(folder, config, name, data, *, in_folder) -> str:
    """Load weights by the path of their file, or from a folder of open_clip."""
    if in_folder:
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    (folder / name).write_bytes(data)
    with pytest.raises(OSError, match="do not load into the model") as caught:
        if in_folder:
            load_backbone(f"local-dir:{folder}", device="cpu")
        else:
            load_backbone("test-small", str(folder / name), "cpu")
    text = str(caught.value)
    assert str(folder if in_folder else folder / name) in text and len(text) < 1000
    assert "weights_only" not in text and "allow_pickle" not in text
    return text


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_bad_files(name, small_model, small_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, reason = BAD_WEIGHTS[name]
    text = error_of_loading(tmp_path, small_config, name, data, in_folder=False)
    assert re.search(reason, text), text
    assert not (tmp_path / "code-has-run").exists()


@pytest.mark.parametrize("name", [name for name in BAD_WEIGHTS if not name.endswith("npz")])
def test_bad_folders(name, small_model, small_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, reason = BAD_WEIGHTS[name]
    suffix = ".safetensors" if "safetensors" in name else ".bin"  # what open_clip looks for
    text = error_of_loading(tmp_path, small_config, f"model{suffix}", data, in_folder=True)
    assert re.search(reason, text), text
    assert not (tmp_path / "code-has-run").exists()


@pytest.mark.parametrize("in_folder", [False, True])
@pytest.mark.parametrize(("name", "to_bytes"), [("model.bin", saved), ("model.safetensors", save)])
def test_weights_of_another_shape(name, to_bytes, in_folder, small_model, small_config, tmp_path):
    weights = {
        key: torch.zeros(len(tensor) + 1, *tensor.shape[1:]) if key.endswith("proj") else tensor
        for key, tensor in small_model.state_dict().items()
    }
    text = error_of_loading(tmp_path, small_config, name, to_bytes(weights), in_folder=in_folder)
    assert "size mismatch" in text
