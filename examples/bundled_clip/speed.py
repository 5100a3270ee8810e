"""Images per second of skhegraph-lite against a plain timm loop, and what loading takes.

Pass image files, or none to make JPEG files of scikit-learn's sample photographs: 256 pixels on
the shorter side, as few-shot data sets are kept, and 3,024, as telephones make them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from skhegraph import CLIPFeatures
from skhegraph.clip.bundled import LITE, image_weights

BATCH = 64
ROUNDS = 3


def main() -> None:
    """Print both rates, their ratio and how alike the features are."""
    print(f"{torch.get_num_threads()} threads of torch; best of {ROUNDS} rounds in turn")
    if len(sys.argv) > 1:
        compare("given files", sys.argv[1:])
    else:
        with tempfile.TemporaryDirectory() as folder:
            for side, n in ((256, 2 * BATCH), (3024, BATCH // 8)):
                compare(f"{side} px", sample_files(Path(folder), side, n))
    cold = [
        seconds(lambda code=code: subprocess.run([sys.executable, "-c", code], check=True))
        for code in (
            "import open_clip",
            "from skhegraph.clip.model import load_backbone; load_backbone('skhegraph-lite')",
        )
    ]
    print(f"a process that loads it: {cold[1]:.1f} s, {cold[0]:.1f} s of it importing open_clip")


def compare(what: str, paths: list[str]) -> None:
    """Encode the same files both ways."""
    clip, plain = CLIPFeatures(LITE, device="cpu", batch_size=BATCH), plain_loop()
    ours, theirs = clip.transform(paths), plain(paths)
    times = [
        (seconds(lambda: clip.transform(paths)), seconds(lambda: plain(paths)))
        for _ in range(ROUNDS)
    ]
    here, there = (len(paths) / min(column) for column in zip(*times, strict=True))
    whole = theirs - center()
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    print(
        f"{what}: {here:.1f} images/s, timm {there:.1f}, ratio {here / there:.2f}, "
        f"least cosine {np.einsum('ij,ij->i', ours, whole).min():.4f}"
    )


def plain_loop() -> Callable[[list[str]], np.ndarray]:
    """Build what one writes without this package: timm's network, its transform, batches."""
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(dict(zip(network.state_dict(), image_weights().values(), strict=True)))
    network.reset_classifier(0)
    transform = timm.data.create_transform(
        (3, 224, 224), interpolation="bicubic", crop_pct=1.0, mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )  # fmt: skip

    def encode(paths: list[str]) -> np.ndarray:
        rows = []
        with torch.inference_mode():
            for start in range(0, len(paths), BATCH):
                images = [Image.open(p).convert("RGB") for p in paths[start : start + BATCH]]
                rows.append(network(torch.stack([transform(image) for image in images])).numpy())
        return np.concatenate(rows)

    return encode


def center() -> np.ndarray:
    """Mean feature that skhegraph-lite takes away."""
    from skhegraph.clip.model import load_backbone

    bias: np.ndarray = (
        load_backbone(LITE, device="cpu")._model.visual.head.proj.bias.detach().numpy()
    )
    return -bias


def sample_files(folder: Path, side: int, n: int) -> list[str]:
    """JPEG files of crops of scikit-learn's photographs, enlarged."""
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    paths = []
    for i in range(n):
        left, top = rng.integers(200), rng.integers(100)
        crop = photographs[i % 2].crop((left, top, left + 400, top + 300))
        paths.append(str(folder / f"{side}_{i}.jpg"))
        crop.resize((side * 4 // 3, side)).save(paths[-1], quality=90)
    return paths


def seconds(call: Callable[[], object]) -> float:
    """Wall time of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
