"""ONNX files give the probabilities of the classifier that they were made of."""

from __future__ import annotations

import json
import resource
import signal
import sys

import numpy as np
import pytest
from sklearn.datasets import load_sample_images
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhegraph import (
    CLIPFeatures,
    HeGraphAdapterClassifier,
    HeGraphClassifier,
    ZeroShotCLIPClassifier,
    make_hegraph_pipeline,
    peers,
)
from skhegraph.clip.images import decode_image
from skhegraph.clip.model import load_backbone
from skhegraph.export import to_onnx
from skhegraph.feature_classifier import LinearFeatureClassifier

ort = pytest.importorskip("onnxruntime")
LINEAR = [
    HeGraphClassifier,
    ZeroShotCLIPClassifier,
    *(p for n in peers.__all__ if issubclass(p := getattr(peers, n), LinearFeatureClassifier)),
]


def session(model, folder):
    to_onnx(model, folder / "model.onnx")
    return ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def proba(running, values):
    return running.run(["probabilities"], {running.get_inputs()[0].name: values})[0]


def support(n_classes, n_features=64, shots=4):
    rng = np.random.default_rng(n_classes)
    P = rng.normal(size=(n_classes, n_features))
    y = np.repeat(np.arange(n_classes), shots)
    X = P[y] + 2 * rng.normal(size=(len(y), n_features))
    return X, y, P, rng.normal(size=(200, n_features)).astype(np.float32)


def fitted(cls, n_classes):
    X, y, P, Z = support(n_classes)
    clf = cls(text_features=P)
    small = {"n_epochs": 2, "random_state": 0}
    clf.set_params(**{k: v for k, v in small.items() if k in clf.get_params()})
    return clf.fit(X, np.array([f"class {i}" for i in range(n_classes)])[y]), Z


@pytest.mark.parametrize("n_classes", [2, 3, 30])
@pytest.mark.parametrize("cls", LINEAR)
def test_equal_to_predict_proba(cls, n_classes, tmp_path):
    clf, Z = fitted(cls, n_classes)
    got = proba(session(clf, tmp_path), Z)
    assert got.dtype == np.float32 and got.shape == (200, n_classes)
    np.testing.assert_allclose(got, clf.predict_proba(Z), atol=1e-5)


def test_rows_of_any_length_zero_and_nan(tmp_path):
    clf, Z = fitted(HeGraphClassifier, 3)
    Z[0], Z[1], Z[2], Z[3] = 0, np.nan, Z[2] * 1e30, Z[3] * 1e-30
    got = proba(session(clf, tmp_path), Z)
    assert np.isnan(got[1]).all() and np.isfinite(np.delete(got, 1, axis=0)).all()
    np.testing.assert_allclose(got, clf.predict_proba(Z), atol=1e-5)


@pytest.mark.parametrize("labels", [["cat", "dog"], [3, 7], [False, True], [0.0, 1.0]])
def test_labels_are_in_the_metadata(labels, tmp_path):
    clf = HeGraphClassifier(text_features="prototypes").fit(np.eye(2, 5), labels)
    running = session(clf, tmp_path)
    assert json.loads(running.get_modelmeta().custom_metadata_map["classes"]) == labels
    assert running.get_inputs()[0].shape == ["n", 5]


@pytest.mark.parametrize("model_name", ["skhegraph-tiny", "skhegraph-lite"])
def test_from_pixels_to_probabilities(model_name, tmp_path):
    images = [
        photo[i : i + 200, j : j + 300]
        for photo in load_sample_images().images
        for i in (0, 220)
        for j in (0, 330)
    ]
    pipeline = make_hegraph_pipeline(model_name, device="cpu")
    pipeline.fit(images, ["temple"] * 4 + ["flower"] * 4)
    running = session(pipeline, tmp_path)
    clip = load_backbone(model_name, device="cpu")
    pixels = np.stack([clip.resize(decode_image(image)) for image in images])
    for n in (1, 2, 8):
        got = proba(running, pixels[:n])
        np.testing.assert_allclose(got, pipeline.predict_proba(images[:n]), atol=1e-5)
    assert json.loads(running.get_modelmeta().custom_metadata_map["classes"]) == [
        "flower", "temple",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "model",
    [
        HeGraphAdapterClassifier(),
        peers.TipAdapterClassifier(),
        make_pipeline(StandardScaler(), HeGraphClassifier()),
        CLIPFeatures(),
        make_pipeline(CLIPFeatures(), StandardScaler(), HeGraphClassifier()),
    ],
)
def test_what_cannot_be_exported(model, tmp_path):
    with pytest.raises(TypeError, match="only a classifier that is linear in its features"):
        to_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_unfitted(tmp_path):
    for model in (HeGraphClassifier(), make_hegraph_pipeline("skhegraph-tiny")):
        with pytest.raises(NotFittedError):
            to_onnx(model, tmp_path / "model.onnx")


@pytest.mark.parametrize("path", ["", ".", "missing/model.onnx", "~nobody-of-that-name/x.onnx"])
def test_a_path_that_cannot_be_written(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"path='{path}': give a file, in a folder"):
        to_onnx(fitted(HeGraphClassifier, 2)[0], path)
    assert not list(tmp_path.iterdir())


def test_a_path_in_the_home_folder(tmp_path, monkeypatch):
    """Issue 17.26, the kind."""
    monkeypatch.setenv("HOME", str(tmp_path))
    to_onnx(fitted(HeGraphClassifier, 2)[0], "~/model.onnx")
    assert (tmp_path / "model.onnx").exists()


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "skhegraph\[onnx\]"'):
        to_onnx(fitted(HeGraphClassifier, 2)[0], tmp_path / "model.onnx")


def test_item_26_a_full_disk_leaves_no_file(tmp_path):
    """Issue 17.26: files may grow to 1 kB, as on a disk with no more room."""
    clf = fitted(HeGraphClassifier, 3)[0]
    path = tmp_path / "model.onnx"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for before in (None, "an older model"):
        if before:
            path.write_text(before)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                to_onnx(clf, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [file.read_text() for file in tmp_path.iterdir()] == [before] * bool(before)
    signal.signal(signal.SIGXFSZ, ignored)
    to_onnx(clf, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_weights_in_a_second_file(tmp_path, monkeypatch):
    clf, Z = fitted(HeGraphClassifier, 9)
    monkeypatch.setattr("skhegraph.export._LARGEST_FILE", 100)
    monkeypatch.chdir(tmp_path)
    to_onnx(clf, "model.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.weights"]
    running = ort.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(proba(running, Z), clf.predict_proba(Z), atol=1e-5)
