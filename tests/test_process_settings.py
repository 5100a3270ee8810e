"""Settings of the process, set around fit, transform and predict: no other bits, and left alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from skhegraph import (
    CLIPFeatures,
    HeGraphAdapterClassifier,
    HeGraphClassifier,
    ZeroShotCLIPClassifier,
)
from skhegraph.clip import model as backbone
from skhegraph.peers import CLIPAdapterClassifier, MAPLogisticRegression

RNG = np.random.default_rng(0)
TEXT = RNG.normal(size=(6, 24))
Y = np.repeat(np.arange(6), 8)
X = (TEXT[Y] + 2 * RNG.normal(size=(48, 24))).astype(np.float32)
IMAGES = list(RNG.random((3, 40, 40)))
# Logits of hundreds apart: their exponentials underflow.
FAR = (100 * TEXT[:4]).astype(np.float32)


@contextmanager
def torch_setting(read: Callable[[], Any], write: Callable[[Any], None], value: Any) -> Iterator:
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)


@contextmanager
def warnings_as_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def of_dtype(dtype: torch.dtype) -> AbstractContextManager[None]:
    return torch_setting(torch.get_default_dtype, torch.set_default_dtype, dtype)


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "threads": lambda: torch_setting(torch.get_num_threads, torch.set_num_threads, 3),
    "BLAS threads": lambda: threadpool_limits(2, user_api="blas"),
    "double": lambda: of_dtype(torch.float64),
    "half": lambda: of_dtype(torch.float16),
    "meta": lambda: torch.device("meta"),
    "inference": lambda: torch.inference_mode(),
    "no grad": lambda: torch.no_grad(),
    "deterministic": lambda: torch_setting(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True),
    "errstate": lambda: np.errstate(all="raise"),
    "warnings": warnings_as_errors,
}


def settings() -> list[Any]:
    """What the process has set."""
    return [
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_anomaly_enabled(),
        torch.get_rng_state().tolist(),
        np.geterr(),
        list(warnings.filters),
        sorted((lib["filepath"], lib["num_threads"]) for lib in threadpool_info()),
    ]


def by_features(clf: Any) -> list[np.ndarray]:
    clf.fit(X, Y)
    queries = np.vstack([X, FAR])
    answers = [clf.predict(queries), clf.predict_proba(queries), clf.decision_function(queries)]
    if hasattr(clf, "score_samples"):
        answers.append(clf.score_samples(queries))
    return [clf.coef_, *answers] if hasattr(clf, "coef_") else answers


def by_images() -> list[np.ndarray]:
    backbone._backbones.clear()  # the weights are read under the setting too
    rows = CLIPFeatures("skhegraph-tiny", device="cpu").fit_transform(IMAGES)
    names = ZeroShotCLIPClassifier(
        "skhegraph-tiny", pretrained=None, class_names=["a", "b"], device="cpu"
    )
    return [rows, names.fit(rows[:2], [0, 1]).predict_proba(rows)]


WORK: dict[str, Callable[[], list[np.ndarray]]] = {
    "hegraph": lambda: by_features(HeGraphClassifier(text_features=TEXT)),
    "adapter": lambda: by_features(
        HeGraphAdapterClassifier(text_features=TEXT, n_epochs=4, device="cpu", random_state=0)
    ),
    "clip-adapter": lambda: by_features(
        CLIPAdapterClassifier(text_features=TEXT, n_epochs=4, device="cpu", random_state=0)
    ),
    "map-lr": lambda: by_features(MAPLogisticRegression(text_features=TEXT)),
    "images": by_images,
}


@pytest.fixture(scope="module")
def expected() -> dict[str, list[np.ndarray]]:
    return {name: work() for name, work in WORK.items()}


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_changes_no_bit_and_is_left_alone(
    setting: str, work: str, expected: dict[str, list[np.ndarray]]
) -> None:
    outside = settings()
    with SETTINGS[setting]():
        before = settings()
        got = WORK[work]()
        assert settings() == before
    assert settings() == outside
    for part, want in zip(got, expected[work], strict=True):
        assert part.dtype == want.dtype
        # Torch's threads sum in another order: they serve the encoder, and nothing else.
        atol = 1e-6 if (setting, work) == ("threads", "images") else 0
        np.testing.assert_allclose(part, want, rtol=0, atol=atol)
