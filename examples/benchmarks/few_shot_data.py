"""Data sets of the few-shot benchmark: feature files, image folders, torchvision classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_files
from sklearn.model_selection import train_test_split

from skhegraph import CLIPFeatures
from skhegraph.clip.model import load_backbone
from skhegraph.clip.prompts import text_nodes

CHUNK = 256
EUROSAT_NAMES = [
    "Annual Crop Land",
    "Forest",
    "Herbaceous Vegetation Land",
    "Highway or Road",
    "Industrial Buildings",
    "Pasture Land",
    "Permanent Crop Land",
    "Residential Buildings",
    "River",
    "Sea or Lake",
]


@dataclass(frozen=True)
class Problem:
    """One data set as features.

    Attributes
    ----------
    name : str
        Name of the data set.
    X_train, X_test : ndarray of shape (n_rows, n_features), float32
        Image features.
    y_train, y_test : ndarray of shape (n_rows,), int
        Labels from 0 to C - 1.
    text : ndarray of shape (C, n_features), pair of such, or None
        Positive text features, with negative ones where there are any; None without text.
    logit_scale : float or None
        CLIP's `tau`.
    """

    name: str
    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    text: np.ndarray | tuple[np.ndarray, np.ndarray] | None = None
    logit_scale: float | None = None

    @property
    def text_source(self) -> dict[str, Any]:
        """Parameters that give an estimator this text."""
        if self.text is None:
            return {"text_features": "prototypes"}
        return {"text_features": self.text, "logit_scale": self.logit_scale}


def from_features(path: str | Path) -> Problem:
    """Read a feature file (arrays train_features, train_labels, ..., text_pos and,
    where there are any, text_neg)."""
    with np.load(path, allow_pickle=False) as data:
        text = data["text_pos"].astype(np.float32) if "text_pos" in data else None
        if "text_neg" in data:
            text = text, data["text_neg"].astype(np.float32)
        return Problem(
            Path(path).stem,
            data["train_features"].astype(np.float32),
            data["train_labels"],
            data["test_features"].astype(np.float32),
            data["test_labels"],
            text,
            None if text is None else float(data["logit_scale"]),
        )


@dataclass(frozen=True)
class Encoder:
    """A CLIP and the templates for the class names.

    Attributes
    ----------
    model_name, pretrained : str
        The CLIP, as in `CLIPFeatures`.
    templates : str or None
        Preset of :mod:`skhegraph.clip.prompts`; None takes the data set's own, else "photo".
    pool : int
        Most training images per class to encode.
    """

    model_name: str
    pretrained: str | None
    templates: str | None = None
    pool: int = 64

    def problem(
        self,
        name: str,
        images: Callable[[np.ndarray, bool], list[Any]],
        labels: tuple[np.ndarray, np.ndarray],
        class_names: Sequence[str],
        preset: str = "photo",
    ) -> Problem:
        """Encode a data set; `images(rows, train)` returns the images of some rows."""
        features = CLIPFeatures(self.model_name, self.pretrained)
        backbone = load_backbone(self.model_name, self.pretrained)
        names = [clean_name(class_name) for class_name in class_names]
        templates = self.templates or preset
        rows = few_rows(labels[0], self.pool, seed=0), np.arange(len(labels[1]))
        X = []
        for part, train in zip(rows, (True, False), strict=True):
            chunks = [part[first : first + CHUNK] for first in range(0, len(part), CHUNK)]
            X.append(np.vstack([features.transform(images(chunk, train)) for chunk in chunks]))
        text = (
            text_nodes(backbone, names, templates),
            text_nodes(backbone, names, templates, negative=True),
        )
        return Problem(name, X[0], labels[0][rows[0]], X[1], labels[1], text, backbone.logit_scale)


def few_rows(y: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Row numbers of `shots` rows per class without replacement (all where there are fewer)."""
    rng = np.random.RandomState(seed)
    picked = [rng.permutation(np.flatnonzero(y == label))[:shots] for label in np.unique(y)]
    return np.concatenate(picked)


def clean_name(name: str) -> str:
    """Class name as it reads in a prompt."""
    return " ".join(name.replace("_", " ").replace("/", " ").split())


def from_images(folder: str | Path, encoder: Encoder, preset: str = "photo") -> Problem:
    """Encode `folder/class/image`, or `folder/{train,test}/class/image`.

    Without train and test subfolders half of each class, drawn with seed 0, is for testing.
    """
    folder = Path(folder)
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        parts = [load_files(folder / part, load_content=False) for part in ("train", "test")]
        if parts[0].target_names != parts[1].target_names:
            raise ValueError(f"{folder}: train and test hold different classes.")
        files = [part.filenames for part in parts]
        y_train, y_test = (part.target for part in parts)
        names = parts[0].target_names
    else:
        whole = load_files(folder, load_content=False)
        *files, y_train, y_test = train_test_split(
            whole.filenames, whole.target, test_size=0.5, stratify=whole.target, random_state=0
        )
        names = whole.target_names

    def images(rows: np.ndarray, train: bool) -> list[Any]:
        return [str(path) for path in files[0 if train else 1][rows]]

    return encoder.problem(folder.name, images, (y_train, y_test), names, preset)


# Arguments that select the training and the test images of torchvision's classes, and the preset
# of templates. An empty pair: the class has no splits, half of each class is for testing.
TORCHVISION: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "ImageNet": ({"split": "train"}, {"split": "val"}, "imagenet"),
    "Caltech101": ({}, {}, "caltech101"),
    "OxfordIIITPet": ({"split": "trainval"}, {"split": "test"}, "oxford_pets"),
    "StanfordCars": ({"split": "train"}, {"split": "test"}, "stanford_cars"),
    "Flowers102": ({"split": "train"}, {"split": "test"}, "oxford_flowers"),
    "Food101": ({"split": "train"}, {"split": "test"}, "food101"),
    "FGVCAircraft": ({"split": "trainval"}, {"split": "test"}, "fgvc_aircraft"),
    "SUN397": ({}, {}, "sun397"),
    "DTD": ({"split": "train"}, {"split": "test"}, "dtd"),
    "EuroSAT": ({}, {}, "eurosat"),
}


def split_arguments(name: str, cls: type) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Arguments for the training and the test images of a torchvision class, and a preset."""
    if name in TORCHVISION:
        return TORCHVISION[name]
    parameters = inspect.signature(cls).parameters
    if "train" in parameters:
        return {"train": True}, {"train": False}, "photo"
    if "split" in parameters:
        return {"split": "train"}, {"split": "test"}, "photo"
    return {}, {}, "photo"


def dataset_labels(dataset: Any) -> np.ndarray:
    """Labels of a torchvision data set, if possible without decoding its images."""
    for attribute in ("targets", "_labels", "labels", "y"):
        if hasattr(dataset, attribute):
            return np.asarray(getattr(dataset, attribute))
    if hasattr(dataset, "_samples"):
        return np.asarray([sample[-1] for sample in dataset._samples])
    return np.asarray([dataset[row][1] for row in range(len(dataset))])


def dataset_names(name: str, dataset: Any) -> list[str]:
    """Class names of a torchvision data set, in the order of its labels."""
    if name == "EuroSAT":
        return EUROSAT_NAMES
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if names is None:
        raise ValueError(
            f"torchvision.datasets.{name} does not tell its class names: put the images into a "
            "folder with one subfolder a class and give that with --images."
        )
    return [entry if isinstance(entry, str) else entry[0] for entry in names]


def from_torchvision(name: str, root: str | Path, encoder: Encoder, download: bool) -> Problem:
    """Encode a class of `torchvision.datasets`."""
    from torchvision import datasets

    cls = getattr(datasets, name, None)
    if cls is None:
        raise ValueError(f"--torchvision {name!r}: torchvision.datasets has no such class.")
    train_arguments, test_arguments, preset = split_arguments(name, cls)
    fetch = {"download": download} if "download" in inspect.signature(cls).parameters else {}
    parts = [cls(root, **train_arguments, **fetch)]
    labels = [dataset_labels(parts[0])]
    rows = [np.arange(len(labels[0]))]
    if test_arguments:
        parts.append(cls(root, **test_arguments, **fetch))
        labels.append(dataset_labels(parts[1]))
        rows.append(np.arange(len(labels[1])))
    else:
        parts.append(parts[0])
        rows = train_test_split(rows[0], test_size=0.5, stratify=labels[0], random_state=0)
        labels = [labels[0][part] for part in rows]

    def images(chosen: np.ndarray, train: bool) -> list[Any]:
        part = 0 if train else 1
        return [parts[part][row][0] for row in rows[part][chosen]]

    names = dataset_names(name, parts[0])
    return encoder.problem(name, images, (labels[0], labels[1]), names, preset)
