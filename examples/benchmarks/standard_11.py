"""The eleven usual few-shot data sets, in the folders and with the splits that CoOp made usual.

Zhou et al., "Learning to Prompt for Vision-Language Models" (IJCV 2022), keep the sets below one
root, each in a folder of its own, nine of them with a file `split_zhou_*.json` of
[image, label, class name] triples. A set whose folder is not there is taken from
`torchvision.datasets`, which can fetch it; its splits are then torchvision's own, and numbers
differ from those on the usual splits.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from few_shot_data import Encoder, Problem, from_images, from_torchvision


@dataclass(frozen=True)
class Standard:
    """Where a data set is.

    Attributes
    ----------
    folder, images : str
        Folder below the root, and folder of the images in it.
    split : str or None
        Split file of CoOp, if the set has one.
    preset : str
        Preset of templates.
    torchvision : str or None
        Class of `torchvision.datasets`.
    """

    folder: str
    images: str
    split: str | None
    preset: str
    torchvision: str | None


STANDARD_11 = {
    "ImageNet": Standard("imagenet", "images", None, "imagenet", "ImageNet"),
    "Caltech101": Standard(
        "caltech-101",
        "101_ObjectCategories",
        "split_zhou_Caltech101.json",
        "caltech101",
        "Caltech101",
    ),
    "OxfordPets": Standard(
        "oxford_pets", "images", "split_zhou_OxfordPets.json", "oxford_pets", "OxfordIIITPet"
    ),
    "StanfordCars": Standard(
        "stanford_cars", "", "split_zhou_StanfordCars.json", "stanford_cars", "StanfordCars"
    ),
    "OxfordFlowers": Standard(
        "oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json", "oxford_flowers", "Flowers102"
    ),
    "Food101": Standard("food-101", "images", "split_zhou_Food101.json", "food101", "Food101"),
    "FGVCAircraft": Standard("fgvc_aircraft", "images", None, "fgvc_aircraft", "FGVCAircraft"),
    "SUN397": Standard("sun397", "SUN397", "split_zhou_SUN397.json", "sun397", "SUN397"),
    "DTD": Standard("dtd", "images", "split_zhou_DescribableTextures.json", "dtd", "DTD"),
    "EuroSAT": Standard("eurosat", "2750", "split_zhou_EuroSAT.json", "eurosat", "EuroSAT"),
    "UCF101": Standard("ucf101", "UCF-101-midframes", "split_zhou_UCF101.json", "ucf101", None),
}
Entries = list[tuple[str, int, str]]  # path, label, class name


def standard_11(root: str | Path, encoder: Encoder, download: bool) -> list[Problem]:
    """Encode the eleven data sets below `root`, fetching what torchvision can with `download`."""
    return [load(name, Path(root), encoder, download) for name in STANDARD_11]


def load(name: str, root: Path, encoder: Encoder, download: bool) -> Problem:
    """Encode one of the eleven: from CoOp's folder if it is there, else from torchvision."""
    standard = STANDARD_11[name]
    folder = root / standard.folder
    if standard.split is not None and (folder / standard.split).is_file():
        train, test = from_split_file(folder, standard)
    elif name == "FGVCAircraft" and (folder / "images_variant_train.txt").is_file():
        train, test = from_variant_files(folder)
    elif name == "ImageNet" and (folder / "classnames.txt").is_file():
        train, test = from_synset_folders(folder / standard.images, folder / "classnames.txt")
    elif standard.torchvision is not None:
        return from_torchvision(standard.torchvision, root, encoder, download)
    elif (folder / "train").is_dir():
        return from_images(folder, encoder, standard.preset)
    else:
        raise FileNotFoundError(
            f"{name}: {folder} has neither {standard.split} (beside {standard.images}/) nor "
            "train/ and test/ folders with a subfolder per class, and torchvision does not have "
            "its images."
        )
    return encode(name, train, test, encoder, standard.preset)


def encode(name: str, train: Entries, test: Entries, encoder: Encoder, preset: str) -> Problem:
    """Encode the images of two lists of entries."""
    parts = train, test
    names = dict(sorted({label: class_name for _, label, class_name in train}.items()))
    if list(names) != list(range(len(names))):
        raise ValueError(f"{name}: the labels of the training images are not 0 to C - 1.")

    def images(rows: np.ndarray, is_train: bool) -> list[Any]:
        part = parts[0 if is_train else 1]
        return [part[row][0] for row in rows]

    labels = tuple(np.array([label for _, label, _ in part]) for part in parts)
    return encoder.problem(name, images, (labels[0], labels[1]), list(names.values()), preset)


def from_split_file(folder: Path, standard: Standard) -> tuple[Entries, Entries]:
    """Training and test entries of a split file."""
    split = json.loads((folder / str(standard.split)).read_text(encoding="utf-8"))

    def entries(part: str) -> Entries:
        base = folder / standard.images
        return [(str(base / path), int(label), name) for path, label, name in split[part]]

    return entries("train"), entries("test")


def from_variant_files(folder: Path) -> tuple[Entries, Entries]:
    """Training and test entries of FGVC Aircraft's own lists."""
    names = (folder / "variants.txt").read_text(encoding="utf-8").splitlines()
    labels = {name: label for label, name in enumerate(names)}

    def entries(part: str) -> Entries:
        lines = (folder / f"images_variant_{part}.txt").read_text(encoding="utf-8").splitlines()
        pairs = (line.split(" ", 1) for line in lines)
        return [(str(folder / "images" / f"{i}.jpg"), labels[name], name) for i, name in pairs]

    return entries("train"), entries("test")


def from_synset_folders(images: Path, class_names: Path) -> tuple[Entries, Entries]:
    """Training and test entries of ImageNet; the lines of `class_names` are "synset name"."""
    lines = class_names.read_text(encoding="utf-8").splitlines()
    synsets = [line.split(" ", 1) for line in lines if line.strip()]

    def entries(part: str) -> Entries:
        return [
            (str(path), label, name)
            for label, (synset, name) in enumerate(synsets)
            for path in sorted((images / part / synset).iterdir())
        ]

    return entries("train"), entries("val")
