"""Loading CLIPs from every kind of place, and encoding against open_clip by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from copy import copy, deepcopy
from importlib.resources import files

import numpy as np
import open_clip
import pytest
import torch
from open_clip import factory
from PIL import Image

from skhegraph.clip import model as backbone
from skhegraph.clip.model import TINY, load_backbone, resolve_device

PROMPTS = ["a photo of a cat.", "a photo of no dog.", "a wolf"]


@pytest.fixture(scope="module")
def tiny():
    return load_backbone(TINY, device="cpu")


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    shapes = [(64, 64), (90, 70), (40, 100)]
    return [Image.fromarray(rng.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in shapes]


def unit(rows: torch.Tensor) -> np.ndarray:
    values = rows.double().numpy()
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_tiny_is_what_open_clip_makes_of_its_files(tiny, images):
    assets = files("skhegraph.clip") / "assets"
    model = open_clip.CLIP(**json.loads((assets / "tinyclip.json").read_text()))
    factory.load_checkpoint(model, str(assets / "tinyclip.safetensors"))
    model.eval()
    tokens = open_clip.SimpleTokenizer(str(assets / "bpe_tiny.txt.gz"), context_length=16)(PROMPTS)
    with torch.inference_mode():
        batch = torch.stack([tiny.preprocess(image) for image in images])
        expected_images = unit(model.encode_image(batch))
        expected_text = unit(model.encode_text(tokens))
    np.testing.assert_allclose(tiny.encode_images(batch), expected_images, atol=1e-6)
    np.testing.assert_allclose(tiny.encode_images(list(batch)), expected_images, atol=1e-6)
    np.testing.assert_allclose(tiny.encode_text(PROMPTS), expected_text, atol=1e-6)
    assert tiny.logit_scale == pytest.approx(model.logit_scale.exp().item(), rel=1e-6)
    assert tiny.n_features == 128
    assert TINY not in open_clip.list_models() and "tinyclip" not in open_clip.list_models()


def test_resized_pixels_are_the_preprocessing_in_two_halves(tiny, images):
    whole = tiny.encode_images([tiny.preprocess(image) for image in images])
    halves = tiny.encode_pixels([tiny.resize(image) for image in images])
    np.testing.assert_allclose(halves, whole, atol=1e-6)
    assert halves.dtype == whole.dtype == np.float32


def test_evaluation_mode_and_no_gradients(tiny):
    assert not any(module.training for module in tiny._model.modules())
    assert isinstance(tiny.encode_text(["x"]), np.ndarray)


def test_loading_leaves_global_state_alone(monkeypatch):
    monkeypatch.setattr(backbone, "_backbones", {})
    threads, state = torch.get_num_threads(), torch.get_default_dtype()
    models = open_clip.list_models()
    load_backbone(TINY, device="cpu")
    assert torch.get_num_threads() == threads and torch.get_default_dtype() == state
    assert open_clip.list_models() == models and torch.is_grad_enabled()


def test_one_backbone_a_process(tiny):
    assert load_backbone(TINY, device="cpu") is tiny
    assert load_backbone(TINY, "laion2b_s34b_b79k", "cpu") is tiny, "pretrained is ignored"


def test_concurrent_callers_load_once(monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr(backbone, "_backbones", {})
    built, original = [], open_clip.CLIP
    monkeypatch.setattr(open_clip, "CLIP", lambda **c: built.append(1) or original(**c))
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: load_backbone(TINY, device="cpu"), range(8)))
    assert len(built) == 1 and len(set(map(id, loaded))) == 1


def test_each_prompt_is_encoded_once(monkeypatch):
    monkeypatch.setattr(backbone, "_backbones", {})
    fresh = load_backbone(TINY, device="cpu")
    seen = []
    original = fresh._encode_prompts
    monkeypatch.setattr(fresh, "_encode_prompts", lambda p: seen.extend(p) or original(p))
    first = fresh.encode_text(["b", "a", "b"])
    second = fresh.encode_text(["a", "c"])
    assert seen == ["b", "a", "c"]
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(first[1], second[0])
    first[:] = 0
    assert fresh.encode_text(["a"]).any(), "callers get copies"


def test_text_batches_do_not_matter(tiny, monkeypatch):
    prompts = [f"a photo of {i} cats." for i in range(9)]
    expected = tiny.encode_text(prompts)
    monkeypatch.setattr(backbone, "_TEXT_BATCH", 2)
    tiny._text.clear()
    np.testing.assert_allclose(tiny.encode_text(prompts), expected, atol=1e-6)


def test_long_prompts_warn(tiny):
    with pytest.warns(UserWarning, match="1 prompts are longer than the 16 tokens"):
        tiny.encode_text(["short.", "a very " + "long " * 20 + "prompt."])
    assert tiny.encode_text([]).shape == (0, 128)
    with pytest.raises(TypeError, match="one str"):
        tiny.encode_text("a cat.")


def test_local_checkpoint_file(small_model, tmp_path, images):
    path = tmp_path / "weights.pt"
    torch.save(small_model.state_dict(), path)
    loaded = load_backbone("test-small", str(path), "cpu")
    tokens = open_clip.SimpleTokenizer(context_length=12)(PROMPTS)
    with torch.inference_mode():
        batch = torch.stack([loaded.preprocess(image) for image in images])
        np.testing.assert_allclose(
            loaded.encode_images(batch), unit(small_model.encode_image(batch)), atol=1e-6
        )
        np.testing.assert_allclose(
            loaded.encode_text(PROMPTS), unit(small_model.encode_text(tokens)), atol=1e-6
        )
    assert loaded.n_features == 24 and batch.shape[-1] == 32
    assert (loaded.model_name, loaded.pretrained) == ("test-small", str(path))


def test_local_folder_with_its_own_preprocessing(small_model, make_folder, tmp_path, images):
    folder = tmp_path / "clip"
    make_folder(folder, small_model, mean=[0.5] * 3, std=[0.25] * 3, resize_mode="squash")
    loaded = load_backbone(f"local-dir:{folder}", "ignored", "cpu")
    pixels = np.asarray(images[2].resize((32, 32), Image.Resampling.BICUBIC))
    expected = (pixels.transpose(2, 0, 1) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(loaded.preprocess(images[2]), expected, atol=1e-6)
    with torch.inference_mode():
        rows = unit(small_model.encode_image(torch.from_numpy(expected[None]).float()))
    np.testing.assert_allclose(loaded.encode_pixels([loaded.resize(images[2])]), rows, atol=1e-6)


def test_hub_model_from_the_cache_without_network(small_model, make_folder, no_network, images):
    root = no_network / "models--org--clip"
    make_folder(root / "snapshots" / "abc", small_model)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc")
    loaded = load_backbone("hf-hub:org/clip", "ignored", "cpu")
    with torch.inference_mode():
        batch = torch.stack([loaded.preprocess(image) for image in images])
        expected = unit(small_model.encode_image(batch))
    np.testing.assert_allclose(loaded.encode_images(batch), expected, atol=1e-6)


def test_bundled_model_names_no_pretrained(tiny):
    assert repr(tiny) == "Backbone('skhegraph-tiny', device='cpu')"


def test_resolve_device(monkeypatch):
    assert resolve_device("cpu") == "cpu"
    for bad in ("gpu", "cuda:x", "", None, 0, "cpu0"):
        with pytest.raises(ValueError, match="device must be"):
            resolve_device(bad)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(ValueError, match="0 CUDA devices"):
        resolve_device("cuda")
    with pytest.raises(ValueError, match="not available here"):
        resolve_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert resolve_device("auto") == resolve_device("cuda") == "cuda:1"
    assert resolve_device("cuda:0") == "cuda:0"
    with pytest.raises(ValueError, match="2 CUDA devices"):
        resolve_device("cuda:2")


def test_importing_the_module_imports_no_model_library():
    code = "import sys, skhegraph.clip.model; print({'torch', 'open_clip'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_inputs_go_to_the_device(tiny, images, monkeypatch):
    """On the meta device all goes well up to the copy back, and nothing meets a CPU tensor."""
    monkeypatch.setattr(torch, "autocast", lambda kind, **options: nullcontext())
    meta = copy(tiny)
    meta.device, meta._model, meta._text = "meta", deepcopy(tiny._model).to("meta"), {}
    pixels = [meta.resize(image) for image in images]
    batch = torch.stack([meta.preprocess(image) for image in images])
    for encode, inputs in (
        (meta.encode_pixels, pixels),
        (meta.encode_images, batch),
        (meta.encode_text, PROMPTS),
    ):
        with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
            encode(inputs)
