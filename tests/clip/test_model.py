"""Loading CLIPs from every kind of place, and encoding against open_clip by hand."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
import time
import warnings
from contextlib import nullcontext
from copy import copy, deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip import factory
from PIL import Image
from safetensors.torch import save, save_file

from skhegraph.clip import model as backbone
from skhegraph.clip.checkpoints import find_checkpoint
from skhegraph.clip.model import TINY, load_backbone, resolve_device

PROMPTS = ["a photo of a cat.", "a photo of no dog.", "a wolf"]
REMEDIES = r"local-dir:(.|\n)*HF_HUB_OFFLINE=1(.|\n)*skhegraph-tiny"
CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {
        "context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    return load_backbone(TINY, device="cpu")


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    shapes = [(64, 64), (90, 70), (40, 100)]
    return [Image.fromarray(rng.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in shapes]


@pytest.fixture
def small_model(monkeypatch):
    """Register a small random architecture with open_clip for the duration of a test."""
    monkeypatch.setitem(factory._MODEL_CONFIGS, "test-small", CONFIG)
    monkeypatch.setattr(backbone, "_backbones", {})
    return open_clip.CLIP(**CONFIG).eval()


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Point the hub at a closed port and at an empty cache."""
    from huggingface_hub import constants

    use_hub(monkeypatch, 9)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_ETAG_TIMEOUT", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "hub"


def use_hub(monkeypatch, port):
    """Point the hub at a port of this machine."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    template = constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def unit(rows: torch.Tensor) -> np.ndarray:
    values = rows.double().numpy()
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def make_folder(folder, model, **preprocess):
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": CONFIG, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))


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


def test_local_folder_with_its_own_preprocessing(small_model, tmp_path, images, monkeypatch):
    folder = tmp_path / "clip"
    make_folder(folder, small_model, mean=[0.5] * 3, std=[0.25] * 3, resize_mode="squash")
    loaded = load_backbone(f"local-dir:{folder}", "ignored", "cpu")
    pixels = np.asarray(images[2].resize((32, 32), Image.Resampling.BICUBIC))
    expected = (pixels.transpose(2, 0, 1) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(loaded.preprocess(images[2]), expected, atol=1e-6)
    with torch.inference_mode():
        rows = unit(small_model.encode_image(torch.from_numpy(expected[None]).float()))
    np.testing.assert_allclose(loaded.encode_pixels([loaded.resize(images[2])]), rows, atol=1e-6)


def test_hub_model_from_the_cache_without_network(small_model, no_network, images):
    root = no_network / "models--org--clip"
    make_folder(root / "snapshots" / "abc", small_model)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc")
    loaded = load_backbone("hf-hub:org/clip", "ignored", "cpu")
    with torch.inference_mode():
        batch = torch.stack([loaded.preprocess(image) for image in images])
        expected = unit(small_model.encode_image(batch))
    np.testing.assert_allclose(loaded.encode_images(batch), expected, atol=1e-6)


def test_tag_from_the_cache_keeps_the_metadata_of_the_tag(no_network):
    root = no_network / "models--timm--vit_base_patch32_clip_224.openai"
    (root / "snapshots" / "abc").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc")
    weights = root / "snapshots" / "abc" / "open_clip_model.safetensors"
    weights.touch()
    found = find_checkpoint("ViT-B/32", "openai")
    assert (found.model_name, found.path) == ("ViT-B-32", str(weights))
    assert found.options["force_quick_gelu"] is True
    assert found.options["image_mean"] == open_clip.OPENAI_DATASET_MEAN


def test_bare_file_takes_the_preprocessing_of_the_published_weights(tmp_path):
    path = tmp_path / "weights.pt"
    path.touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find_checkpoint("ViT-H-14-378-quickgelu", str(path))
    assert found.options["image_resize_mode"] == "squash"
    with pytest.warns(UserWarning, match="published weights of ViT-L-14 differ"):
        assert find_checkpoint("ViT-L-14", str(path)).options == {}


@pytest.mark.parametrize(
    ("model_name", "pretrained", "message"),
    [
        ("ViT-B-23", "openai", "Unknown model_name='ViT-B-23'. Nearest: .*ViT-B-32"),
        ("skhegraph-tony", None, "Nearest: skhegraph-tiny"),
        ("ViT-B-32", "laion2b_s34b", "Nearest: laion2b_s34b_b79k"),
        ("ViT-B-32", "/no/such/file.pt", "neither a file on this machine nor a tag"),
        ("ViT-B-32", None, "random weights. Name a tag .openai,"),
        ("hf-hub:nothing", None, "organisation/repository"),
        ("", None, "non-empty str"),
    ],
)
def test_unknown_names(model_name, pretrained, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(model_name, pretrained, "cpu")


def test_bad_local_weights(small_model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"open_clip_config\.json"):
        load_backbone(f"local-dir:{tmp_path}", device="cpu")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}))
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        load_backbone(f"local-dir:{tmp_path}", device="cpu")


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


WRONG_SHAPES = {
    name: torch.zeros(tensor.shape[0] + 1, *tensor.shape[1:]) if name.endswith("proj") else tensor
    for name, tensor in open_clip.CLIP(**CONFIG).state_dict().items()
}
BAD_WEIGHTS = {
    "garbage.pt": (b"abc" * 1000, "is no checkpoint.*starts with b'abcabcabc'"),
    "empty.pt": (b"", "empty.pt is empty"),
    "empty.safetensors": (b"", "empty.safetensors is empty"),
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
    "other-shapes.pt": (saved(WRONG_SHAPES), "size mismatch"),
    "other-shapes.safetensors": (save(WRONG_SHAPES), "size mismatch"),
    "garbage.npz": (b"abc" * 1000, "is no checkpoint"),
}


@pytest.mark.parametrize("in_folder", [False, True])
@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_bad_weights_are_one_clear_error(name, in_folder, small_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, reason = BAD_WEIGHTS[name]
    if in_folder:  # where open_clip takes three kinds of names
        name = str(Path(name).with_suffix(".safetensors" if "safetensors" in name else ".bin"))
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}))
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(OSError, match=r"do not load into the model") as caught:
        if in_folder:
            load_backbone(f"local-dir:{tmp_path}", device="cpu")
        else:
            load_backbone("test-small", str(file), "cpu")
    text = str(caught.value)
    assert re.search(reason.replace(Path(name).stem + ".pt", name), text), text
    assert str(tmp_path if in_folder else file) in text
    assert "weights_only" not in text and "allow_pickle" not in text and len(text) < 1000
    assert not (tmp_path / "code-has-run").exists()


@pytest.mark.parametrize("model_name", ["ViT-B-32", "hf-hub:org/clip"])
def test_unreachable_weights_fail_fast_with_the_remedies(no_network, model_name):
    start = time.perf_counter()
    with pytest.raises(OSError, match=REMEDIES) as caught:
        load_backbone(model_name, "laion2b_s34b_b79k", "cpu")
    assert time.perf_counter() - start < 5
    assert "http://127.0.0.1:9/" in str(caught.value)


def test_a_hub_that_never_answers_is_given_up(no_network, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        use_hub(monkeypatch, server.getsockname()[1])
        start = time.perf_counter()
        with pytest.raises(OSError, match=REMEDIES):
            load_backbone("ViT-B-32", "openai", "cpu")
        assert time.perf_counter() - start < 10
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
        start = time.perf_counter()
        with pytest.raises(OSError, match=REMEDIES):
            load_backbone("ViT-B-32", "openai", "cpu")
        assert time.perf_counter() - start < 3


@pytest.mark.parametrize(("status", "reason"), [(503, "503"), (401, "401"), (404, "404")])
def test_a_hub_that_refuses_is_asked_once(no_network, monkeypatch, status, reason):
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        use_hub(monkeypatch, server.server_port)
        with pytest.raises(OSError, match=REMEDIES) as caught:
            load_backbone("ViT-B-32", "openai", "cpu")
        server.shutdown()
    assert reason in str(caught.value) and len(asked) == 1


def test_offline_mode_is_respected(no_network, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        use_hub(monkeypatch, server.getsockname()[1])
        with pytest.raises(OSError, match="HF_HUB_OFFLINE is set"):
            load_backbone("ViT-B-32", "openai", "cpu")
        with pytest.raises(BlockingIOError):  # nobody knocked
            server.accept()


@pytest.mark.parametrize(
    ("model_name", "suggestion"),
    [
        ("openai/clip-vit-base-patch32", "Nearest: model_name='ViT-B-32' with pretrained='openai'"),
        ("openai/clip-vit-large-patch14-336", "'ViT-L-14-336' with pretrained='openai'"),
        ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "'hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K'"),
        ("google/vit-base-patch99", "'hf-hub:google/vit-base-patch99'"),
    ],
)
def test_names_of_repositories_get_a_suggestion(model_name, suggestion):
    with pytest.raises(ValueError, match=re.escape(suggestion)):
        load_backbone(model_name, "openai", "cpu")


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


def test_hub_model_is_downloaded_then_cached(small_model, tmp_path):
    """Serve a small model the way the hub does, to a process that has HF_ENDPOINT set."""
    make_folder(tmp_path / "served", small_model)

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            path = tmp_path / "served" / self.path.rsplit("/", 1)[-1]
            body = path.read_bytes() if path.is_file() else b""
            self.send_response(200 if body or self.path == "/" else 404)
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("ETag", f'"{path.name}"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    code = (
        "import os, numpy as np;"
        "from skhegraph.clip.model import load_backbone;"
        "clip = load_backbone('hf-hub:org/clip', device='cpu');"
        "np.save(os.environ['OUT'], clip.encode_text(['a photo of a cat.']))"
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tokens = open_clip.SimpleTokenizer(context_length=12)(PROMPTS[:1])
    with torch.inference_mode():
        expected = unit(small_model.encode_text(tokens))
    for offline in ("0", "1"):
        out = tmp_path / f"out{offline}.npy"
        env = {
            **os.environ, "HF_HOME": str(tmp_path / "home"), "no_proxy": "127.0.0.1",
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "OUT": str(out),
            "HF_HUB_OFFLINE": offline,
        }  # fmt: skip
        env.pop("HF_HUB_CACHE", None)
        subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)
        np.testing.assert_allclose(np.load(out), expected, atol=1e-6)
        server.shutdown() if offline == "0" else server.server_close()


def test_inputs_go_to_the_device(tiny, images, monkeypatch):
    """On the meta device all goes well up to the copy back, and nothing meets a CPU tensor."""
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype: nullcontext())
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
