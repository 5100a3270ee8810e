"""Encoding and fits on an accelerator, against the plain loop and against the CPU.

Encoding: CLIPs of random weights, images decoded beforehand, against open_clip's model under
autocast to half precision; then from files, decoding included. Fits: the described method,
which are what trains on the device, alone and in a small search. Results are compared with the
CPU's, and the script fails where they differ by more than the stated tolerance.

    python examples/benchmarks/gpu.py               # on the accelerator, if there is one
    python examples/benchmarks/gpu.py --device cpu  # small sizes, to see that it runs
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from sklearn.model_selection import GridSearchCV
from timing import median_time, photographs, report, support, time_once

from skhegraph import CLIPFeatures, HeGraphAdapterClassifier
from skhegraph.clip.model import Backbone, load_backbone, resolve_device

BATCH = 64
LARGEST_SEARCH = 20_000  # rows: the CPU takes minutes for more
LEAST_COSINE = 0.999  # of features in half precision to the CPU's
LARGEST_DIFFERENCE = 0.01  # of a probability to the CPU's
FULL = {
    "models": ["ViT-B-32", "ViT-L-14"],
    "images": 2048,
    "fits": [(10, 16), (1000, 16), (10_000, 4)],
}
SMALL = {"models": ["ViT-B-32"], "images": 8, "fits": [(5, 4), (20, 4)]}


def main() -> None:
    """Print the table; exit with an error where the device and the CPU disagree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="auto", help="'auto', 'cuda', 'cuda:1', 'mps' or 'cpu'")
    wanted = parser.parse_args().device
    device = resolve_device(wanted)
    if device == "cpu" and wanted == "auto":
        print("No accelerator found: nothing to measure. --device cpu runs it at small sizes.")
        return
    sizes = SMALL if device == "cpu" else FULL
    print(f"{card(device)}, torch {torch.__version__}, {torch.get_num_threads()} CPU threads\n")
    print("| what | ours | reference | ratio |\n|---|---|---|---|")
    agree = [encode(name, device, sizes["images"]) for name in sizes["models"]]
    agree += [fits(*size, device) for size in sizes["fits"]]
    if not all(agree):
        raise SystemExit("Results on the device differ from the CPU's by more than the tolerance.")


def card(device: str) -> str:
    """Name of a device."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()


def encode(name: str, device: str, n_images: int) -> bool:
    """Time the encoding of decoded images and of files; compare features with the CPU's."""
    with tempfile.TemporaryDirectory() as folder:
        weights = str(Path(folder) / "random.pt")
        torch.manual_seed(0)
        torch.save(open_clip.create_model(name).state_dict(), weights)
        paths = photographs(Path(folder), 256, n_images)
        backbone = load_backbone(name, weights, device)
        images = [Image.open(path).convert("RGB") for path in paths]
        pixels = [backbone.resize(image) for image in images]
        floats = torch.stack([backbone.preprocess(image) for image in images])
        reset_peak(device)
        ours = median_time(lambda: in_batches(backbone.encode_pixels, pixels), 3)
        peak = peak_of(device)
        theirs = median_time(lambda: in_batches(partial(plain, backbone), floats), 3)
        clip = CLIPFeatures(name, weights, device=device)
        from_files = median_time(lambda: clip.transform(paths), 3)
        few = pixels[:8]
        on_cpu = load_backbone(name, weights, "cpu").encode_pixels(few)
        cosine = float(np.einsum("ij,ij->i", backbone.encode_pixels(few), on_cpu).min())
    for what, seconds, reference, other in (
        ("decoded images", ours, "plain loop", theirs),
        ("files", from_files, "decoded beforehand", ours),
    ):
        rate = f"{n_images / seconds:.0f} images/s"
        report(f"{n_images} {what}, {name}, {rate}", seconds, reference, other)
    agrees = cosine >= LEAST_COSINE
    print(f"| the same | {peak} | least cosine to the CPU: {cosine:.5f} | {agrees} |", flush=True)
    return agrees


def in_batches(function: Callable[[Any], np.ndarray], images: Any) -> np.ndarray:
    """Encode images, some at a time."""
    starts = range(0, len(images), BATCH)
    return np.concatenate([function(images[start : start + BATCH]) for start in starts])


def plain(backbone: Backbone, batch: torch.Tensor) -> np.ndarray:
    """Encode as one does without this package: half precision on an accelerator."""
    kind = torch.device(backbone.device).type
    half = torch.autocast(kind, dtype=torch.float16, enabled=kind != "cpu")
    with torch.inference_mode(), half:
        features = backbone._model.encode_image(batch.to(backbone.device))
    return torch.nn.functional.normalize(features.float(), dim=1).cpu().numpy()


def described(text: list[np.ndarray], device: str) -> HeGraphAdapterClassifier:
    """The described method, which trains with torch."""
    return HeGraphAdapterClassifier(text_features=tuple(text), random_state=0, device=device)


def fits(n_classes: int, shots: int, device: str) -> bool:
    """Time a fit of the network and a search of four on two folds; compare with the CPU's."""
    X, y, *text = support(n_classes, shots)
    models = [described(text, where) for where in (device, "cpu")]

    def search(model: HeGraphAdapterClassifier) -> None:
        grid = {"visual_to_positive": [0.0, 0.1, 0.24, 0.5]}
        GridSearchCV(model, grid, cv=2, refit=False).fit(X, y)

    what = f"{n_classes} classes x {shots}"
    few = described([part[:4] for part in text], device)
    few.fit(X[: 4 * shots], y[: 4 * shots])  # starts the device
    reset_peak(device)
    ours, theirs = [time_once(partial(model.fit, X, y)) for model in models]
    peak = peak_of(device)
    report(f"fit of the network, {what}", ours, "CPU", theirs)
    if n_classes * shots <= LARGEST_SEARCH:
        ours, theirs = [time_once(partial(search, model)) for model in models]
        report(f"search 4 x 2, {what}", ours, "CPU", theirs)
    queries = X[:: max(1, len(X) // 1000)]
    here, there = (model.predict_proba(queries) for model in models)
    difference = float(np.abs(here - there).max())
    agrees = difference <= LARGEST_DIFFERENCE
    print(
        f"| the same | {peak} | probabilities differ from the CPU's by {difference:.1e} at most "
        f"| {agrees} |",
        flush=True,
    )
    return agrees


def reset_peak(device: str) -> None:
    """Start counting a device's memory anew."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def peak_of(device: str) -> str:
    """Peak memory of a device since `reset_peak`; of MPS, what its driver holds now."""
    if device.startswith("cuda"):
        return f"{torch.cuda.max_memory_allocated(device) / 1e6:.0f} MB at the peak"
    if device == "mps":
        return f"{torch.mps.driver_allocated_memory() / 1e6:.0f} MB held"
    return "no device memory"


if __name__ == "__main__":
    main()
