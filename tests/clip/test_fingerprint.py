"""What keys stored features besides the image: another model never finds its rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from skhegraph.clip.features import CLIPFeatures
from skhegraph.clip.model import Backbone, load_backbone

TINY = "skhegraph-tiny"


@pytest.fixture
def images() -> list[np.ndarray]:
    return list(load_digits().images[:8] / 16)


SMALL = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}


def small_models(folder: Path, *overrides: dict[str, object]) -> list[str]:
    """Models of equal weights whose configurations differ."""
    weights = open_clip.CLIP(**SMALL).state_dict()
    names = []
    for i, override in enumerate(overrides):
        model = folder / f"model{i}"
        model.mkdir()
        save_file(weights, model / "open_clip_model.safetensors")
        config = {"model_cfg": {**SMALL, **override}, "preprocess_cfg": {}}
        (model / "open_clip_config.json").write_text(json.dumps(config))
        names.append(f"local-dir:{model}")
    return names


@pytest.mark.parametrize(
    "override",
    [
        pytest.param({"quick_gelu": True}, id="activation"),
        pytest.param({"vision_cfg": {**SMALL["vision_cfg"], "head_width": 32}}, id="heads"),
    ],
)
def test_equal_weights_in_another_architecture_share_no_rows(
    override: dict[str, object], images: list[np.ndarray], tmp_path: Path
) -> None:
    one, other = small_models(tmp_path, {}, override)
    expected = [CLIPFeatures(name).transform(images) for name in (one, other)]
    assert np.abs(expected[0] - expected[1]).max() > 1e-4
    for name, rows in zip((one, other), expected, strict=True):
        cached = CLIPFeatures(name, cache_dir=tmp_path / "cache").transform(images)
        np.testing.assert_allclose(cached, rows, atol=1e-6)


def test_fingerprint_is_the_same_in_every_process_and_for_equal_models(tmp_path: Path) -> None:
    one, copy, other = small_models(tmp_path, {}, {}, {"quick_gelu": True})
    here = [load_backbone(name, device="cpu").fingerprint() for name in (one, copy, other)]
    assert here[0] == here[1] != here[2]
    code = f"from skhegraph.clip.model import load_backbone as b; print(b({one!r}).fingerprint())"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here[0]


def test_fingerprint_names_what_decodes_and_resizes(monkeypatch: pytest.MonkeyPatch) -> None:
    import PIL

    def fingerprint() -> str:
        tiny = load_backbone(TINY, device="cpu")
        return Backbone(
            tiny._model,
            tiny.preprocess,
            tiny._tokenizer,
            model_name=TINY,
            pretrained=None,
            device="cpu",
        ).fingerprint()

    before = fingerprint()
    assert fingerprint() == before
    monkeypatch.setattr(PIL, "__version__", "99.0")
    assert fingerprint() != before
