"""Timing, memory and synthetic data that the speed benchmarks share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from skhegraph import HeGraphClassifier


def time_once(function: Callable[[], object]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def median_time(function: Callable[[], object], runs: int = 5) -> float:
    """Median seconds of a call, after one call to warm up."""
    function()
    return float(np.median([time_once(function) for _ in range(runs)]))


def medians_in_turn(functions: Sequence[Callable[[], object]], runs: int = 5) -> list[float]:
    """Median seconds of several functions, called in turn: other work disturbs all of them."""
    for function in functions:
        function()
    times = [[time_once(function) for function in functions] for _ in range(runs)]
    return [float(seconds) for seconds in np.median(times, axis=0)]


def peak_memory() -> float:
    """Peak resident memory of this process so far, MB (Linux)."""
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) / 1e3


def peak_anonymous(function: Callable[[], object]) -> float:
    """Peak of the memory of this process that is no page of a file, MB, sampled during a call."""
    sizes, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            status = Path("/proc/self/status").read_text()
            sizes.append(float(status.split("RssAnon:")[1].split()[0]) / 1e3)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        function()
    finally:
        done.set()
        watcher.join()
    return max(sizes)


def report(what: str, ours: float, reference: str, theirs: float) -> None:
    """One row of the table."""
    print(
        f"| {what} | {ours:.3g} s | {reference}: {theirs:.3g} s | {ours / theirs:.2f} |", flush=True
    )


def support(
    n_classes: int, shots: int, width: int = 512, draw: int | None = None
) -> tuple[np.ndarray, ...]:
    """Synthetic unit features, labels, and positive and negative text features.

    Variances fall with the direction, those of the classes faster, as in features of a real CLIP:
    99 % of what the residuals see lies in 251 directions for 1,000 classes (SUN397: 208). `draw`
    numbers other rows of the same classes.
    """
    rng = np.random.RandomState(0)
    spread = (1 + np.arange(width) / 16) ** -0.5
    text = rng.normal(size=(n_classes, width)) * spread**2
    centres = text + 0.6 * rng.normal(size=text.shape) * spread**2
    centre = 5 * rng.normal(size=width) * spread
    rng = rng if draw is None else np.random.RandomState(draw)
    X = np.repeat(centre + centres, shots, axis=0)
    X += 1.6 * rng.normal(size=X.shape) * spread
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    y = np.repeat(np.arange(n_classes), shots)
    return X.astype(np.float32), y, centre + text, centre - 0.1 * text


def hegraph(text: np.ndarray, negative: np.ndarray, **params: object) -> HeGraphClassifier:
    """Classifier on given text features, on the CPU."""
    return HeGraphClassifier(text_features=(text, negative), device="cpu", **params)


def image_files(folder: Path, count: int) -> list[str]:
    """JPEG files of random smooth pictures."""
    rng = np.random.RandomState(0)
    paths = []
    for i in range(count):
        small = Image.fromarray(rng.randint(0, 256, (16, 16, 3), dtype=np.uint8))
        paths.append(str(folder / f"{i}.jpg"))
        small.resize((224, 224)).save(paths[-1])
    return paths


def photographs(folder: Path, side: int, count: int) -> list[str]:
    """JPEG files of crops of scikit-learn's photographs, enlarged, with the noise of a camera."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 5, (side, side * 4 // 3, 3)).astype(np.float32)
    pictures = [Image.fromarray(image) for image in load_sample_images().images]
    paths = []
    for i in range(count):
        left, top = rng.integers(200), rng.integers(100)
        crop = pictures[i % 2].crop((left, top, left + 400, top + 300))
        values = np.asarray(crop.resize((side * 4 // 3, side)), np.float32) + noise
        paths.append(str(folder / f"{side}-{i}.jpg"))
        Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths
