"""Finding weights: names, folders, the hub's cache, and a hub that answers badly or not at all."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import open_clip
import pytest
import torch

from skhegraph import CLIPFeatures, ZeroShotCLIPClassifier
from skhegraph.clip.checkpoints import find_checkpoint
from skhegraph.clip.model import load_backbone

REMEDIES = r"local-dir:(.|\n)*HF_HUB_OFFLINE=1(.|\n)*skhegraph-lite"


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
        ("skhegraph-light", None, "Nearest: skhegraph-lite"),
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


def test_names_that_are_no_paths(tmp_path):
    """Issue 17.28, the kind: errors of Python's that named neither parameter."""
    for step in (CLIPFeatures, ZeroShotCLIPClassifier):
        fit = step("ViT-B-32", 5, device="cpu").fit
        with pytest.raises(TypeError, match="pretrained must be a tag, a path or None, got 5"):
            fit([np.zeros((2, 2))] * 2) if step is CLIPFeatures else fit(None, ["a cat", "a dog"])
    with pytest.raises(FileNotFoundError, match="model_name='local-dir:~nobody-there/x'"):
        load_backbone("local-dir:~nobody-there/x", device="cpu")


def test_incomplete_folders(small_config, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"open_clip_config\.json"):
        load_backbone(f"local-dir:{tmp_path}", device="cpu")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": small_config}))
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        load_backbone(f"local-dir:{tmp_path}", device="cpu")


@pytest.mark.parametrize("model_name", ["ViT-B-32", "hf-hub:org/clip"])
def test_unreachable_weights_fail_fast_with_the_remedies(no_network, model_name):
    start = time.perf_counter()
    with pytest.raises(OSError, match=REMEDIES) as caught:
        load_backbone(model_name, "laion2b_s34b_b79k", "cpu")
    assert time.perf_counter() - start < 5
    assert "http://127.0.0.1:9/" in str(caught.value)


def test_a_hub_that_never_answers_is_given_up(no_network, use_hub, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        use_hub(server.getsockname()[1])
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
def test_a_hub_that_refuses_is_asked_once(no_network, use_hub, status, reason):
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
        use_hub(server.server_port)
        with pytest.raises(OSError, match=REMEDIES) as caught:
            load_backbone("ViT-B-32", "openai", "cpu")
        server.shutdown()
    assert reason in str(caught.value) and len(asked) == 1


def test_offline_mode_is_respected(no_network, use_hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        use_hub(server.getsockname()[1])
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
        ("./models/clip", "There is no such folder on this machine"),  # issue 17.28
        ("~/clip", "There is no such folder on this machine"),
    ],
)
def test_names_of_repositories_get_a_suggestion(model_name, suggestion):
    with pytest.raises(ValueError, match=re.escape(suggestion)):
        load_backbone(model_name, "openai", "cpu")


def test_hub_model_is_downloaded_then_cached(small_model, make_folder, tmp_path):
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
    tokens = open_clip.SimpleTokenizer(context_length=12)(["a photo of a cat."])
    with torch.inference_mode():
        expected = small_model.encode_text(tokens, normalize=True).numpy()
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
