"""Settings of the process, torch's and NumPy's, change nothing in a fit or in what comes of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from skhegraph import HeGraphAdapterClassifier, HeGraphClassifier, ZeroShotCLIPClassifier, peers

CODES = np.repeat([0, 1, 2], 6)
TEXT = np.eye(3, 16)
X = TEXT[CODES] + 0.2 * np.random.default_rng(0).normal(size=(18, 16))
TRAINED: list[Callable[..., Any]] = [
    partial(HeGraphAdapterClassifier, top_k=2),
    HeGraphAdapterClassifier,
    partial(HeGraphAdapterClassifier, fusion="probabilities"),
    peers.CLIPAdapterClassifier,
    peers.GraphAdapterClassifier,
    peers.TaskResClassifier,
    peers.TipAdapterFClassifier,
]
SETTINGS = ["float64", "float16", "meta", "autocast", "inference", "no_grad", "deterministic"]


@contextmanager
def setting(name: str) -> Iterator[None]:
    """A setting of torch."""
    before = torch.get_default_dtype()
    try:
        if name.startswith("float"):
            torch.set_default_dtype(getattr(torch, name))
        torch.use_deterministic_algorithms(name == "deterministic")
        with (
            torch.device("meta" if name == "meta" else "cpu"),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=name == "autocast"),
            torch.inference_mode(name == "inference"),
            torch.set_grad_enabled(name not in ("no_grad", "inference")),
        ):
            yield
    finally:
        torch.set_default_dtype(before)
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("make", TRAINED)
def test_training_is_the_same_under_any_setting_of_torch(make: Any, name: str) -> None:
    """Issue 17.18."""
    clf = make(text_features=TEXT, n_epochs=3, random_state=0, device="cpu")
    want = clf.fit(X, CODES).predict_proba(X)
    with setting(name):
        got = clf.fit(X, CODES).predict_proba(X)
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_graph_has_its_numbers_under_any_setting_of_torch(name: str) -> None:
    """Issue 17.18, the kind: of a default device "meta" the graph had shapes alone."""
    clf = HeGraphClassifier(text_features=TEXT).fit(X, CODES)
    want = clf.to_hetero_data()
    with setting(name):
        got = clf.to_hetero_data()
    assert got.edge_types == want.edge_types
    for relation in want.edge_types:
        assert got[relation].edge_weight.tolist() == want[relation].edge_weight.tolist()
    got["visual"].x.add_(1)  # no inference tensor


@pytest.mark.parametrize("name", ["float64", "meta", "inference"])
def test_an_exported_pipeline_under_any_setting_of_torch(name: str, tmp_path: Path) -> None:
    """Issue 17.18, the kind."""
    runtime = pytest.importorskip("onnxruntime")
    from skhegraph import make_hegraph_pipeline
    from skhegraph.export import to_onnx

    images = list(np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8))
    model = make_hegraph_pipeline("skhegraph-tiny", text_features="prototypes", device="cpu")
    model.fit(images, ["a", "b", "a", "b"])
    with setting(name):
        to_onnx(model, tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    (got,) = session.run(None, {"pixels": np.stack(images)})
    np.testing.assert_allclose(got, model.predict_proba(images), atol=1e-4)


@pytest.mark.parametrize(
    "make", [HeGraphClassifier, ZeroShotCLIPClassifier, *TRAINED[:3], peers.CLAPClassifier]
)
def test_numpy_that_raises_on_small_numbers(make: Any) -> None:
    """A probability of `exp(-1000)` is 0, and no FloatingPointError."""
    params = {"random_state": 0, "n_epochs": 3} if make in TRAINED else {}
    clf = make(text_features=TEXT, logit_scale=2000.0, **params)
    want = clf.fit(X, CODES).predict_proba(X)
    with np.errstate(all="raise"):
        got = clf.fit(X, CODES).predict_proba(X)
        clf.predict_log_proba(X)
    np.testing.assert_array_equal(got, want)


FIRST = """
import numpy as np
from skhegraph import HeGraphAdapterClassifier, HeGraphClassifier
X, y = np.eye(6) + 0.1, [0, 0, 1, 1, 2, 2]
HeGraphAdapterClassifier(text_features="prototypes", n_epochs=1).fit(X, y)
HeGraphClassifier(text_features="prototypes").fit(X, y).to_hetero_data()
"""


def test_warnings_that_are_errors_in_a_new_process() -> None:
    """torch_geometric compiles with what new versions of torch deprecate."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", FIRST], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
