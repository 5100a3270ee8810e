"""Measure the bundled CLIPs on folders of images: zero-shot, calibration, and few shots.

Each folder has ``train`` and ``test``, and in these one folder of images per class, by the
class's name, with ``_`` for a space::

    python evaluate.py pets cars --save features

With ``--calibrate`` it gives instead the logit scale that suits the training images best. That of
the lite model was chosen so, on images that neither tower had seen and that its accuracy is not
reported on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from skhegraph import CLIPFeatures
from skhegraph.clip.bundled import LITE, TINY
from skhegraph.clip.model import load_backbone
from skhegraph.clip.prompts import text_nodes

SHOTS = (1, 4, 16)
SEEDS = range(5)
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_BINS = 15


def main() -> None:
    """Print one table row per folder and model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--models", nargs="+", default=[TINY, LITE])
    parser.add_argument("--save", type=Path, help="folder to save features to, as npz")
    parser.add_argument("--cache", type=Path, help="feature store")
    parser.add_argument("--calibrate", action="store_true")
    options = parser.parse_args()
    if options.calibrate:
        calibrate([features(folder, LITE, options.cache) for folder in options.folders])
        return
    print("| set | model | zero-shot | ECE | " + " | ".join(f"{n} shots" for n in SHOTS) + " |")
    print("|---" * (4 + len(SHOTS)) + "|")
    for folder in options.folders:
        for model in options.models:
            data = features(folder, model, options.cache)
            if options.save is not None and model == LITE:
                options.save.mkdir(parents=True, exist_ok=True)
                np.savez(options.save / f"{folder.name}.npz", **data)
            figures = [*zero_shot(data), *(few_shots(data, n) for n in SHOTS)]
            print(f"| {folder.name} | {model} | " + " | ".join(f"{x:.1f}" for x in figures) + " |")


def features(folder: Path, model: str, cache: Path | None) -> dict[str, np.ndarray]:
    """Encode the images of a folder and the names of its classes."""
    clip = CLIPFeatures(model, cache_dir=cache)
    backbone = load_backbone(model)
    classes = sorted(path.name for path in (folder / "train").iterdir())
    names = [_DIGITS[int(c)] if c.isdigit() else c.replace("_", " ") for c in classes]
    data = {
        "class_names": np.array(names),
        "text_pos": text_nodes(backbone, names, "photo"),
        "text_neg": text_nodes(backbone, names, "photo", negative=True),
        "logit_scale": np.float32(backbone.logit_scale),
    }
    for part in ("train", "test"):
        paths = sorted(path for path in (folder / part).glob("*/*"))
        data[f"{part}_features"] = clip.transform(paths)
        data[f"{part}_labels"] = np.array([classes.index(path.parent.name) for path in paths])
        data[f"{part}_files"] = np.array([str(path.relative_to(folder)) for path in paths])
    return data


def zero_shot(data: dict[str, np.ndarray]) -> tuple[float, float]:
    """Accuracy and expected calibration error on the test images, in points."""
    cosines = data["test_features"] @ data["text_pos"].T
    probabilities = softmax(data["logit_scale"] * cosines, axis=1)
    right = probabilities.argmax(axis=1) == data["test_labels"]
    sure = probabilities.max(axis=1)
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, right - sure, minlength=_BINS)
    return 100 * right.mean(), 100 * np.abs(gaps).sum() / len(right)


def few_shots(data: dict[str, np.ndarray], shots: int) -> float:
    """Mean accuracy of logistic regression over draws of so many training images per class."""
    labels = data["train_labels"]
    scores = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        rows = np.concatenate(
            [rng.permutation(np.flatnonzero(labels == c))[:shots] for c in np.unique(labels)]
        )
        classifier = LogisticRegression(max_iter=2000)
        classifier.fit(data["train_features"][rows], labels[rows])
        scores.append(classifier.score(data["test_features"], data["test_labels"]))
    return 100 * float(np.mean(scores))


def calibrate(sets: list[dict[str, np.ndarray]]) -> None:
    """Print the logit scale that gives the training images of each set the best likelihood."""

    def loss(log_scale: float, data: dict[str, np.ndarray]) -> float:
        cosines = data["train_features"] @ data["text_pos"].T
        logits = log_softmax(np.exp(log_scale) * cosines, axis=1)
        return -float(logits[np.arange(len(logits)), data["train_labels"]].mean())

    for data in sets:
        best = minimize_scalar(loss, (1.0, 4.0), args=(data,))
        print(f"{len(data['class_names'])} classes: {np.exp(best.x):.1f}")
    best = minimize_scalar(lambda x: sum(loss(x, data) for data in sets), (1.0, 4.0))
    print(f"all: {np.exp(best.x):.1f}")


if __name__ == "__main__":
    main()
