"""A folder of images as it is found on disks."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skhegraph import CLIPFeatures, load_image_folder
from skhegraph.clip.image_files import REFUSED_FORMATS

IMAGES = [
    "tabby_cat/IMG_1.Jpg", "tabby_cat/b.JPEG", "tabby_cat/deeper/c.png", "hat/d.webp",
    "hat/e.tif", "hat/f.bmp", "hat/g.GIF",
]  # fmt: skip
JUNK = [
    ".ipynb_checkpoints/a-checkpoint.png", "tabby_cat/.ipynb_checkpoints/b-checkpoint.jpg",
    "tabby_cat/._IMG_1.Jpg", "hat/.DS_Store", "hat/Thumbs.db", "__MACOSX/hat/d.png",
    ".git/e.png", "desktop.ini", "README.txt",
]  # fmt: skip


def fill(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in Image.registered_extensions() and not path.name.startswith("."):
            Image.new("RGB", (8, 8), (len(name), 0, 0)).save(path)
        else:
            path.write_bytes(b"\0")


def test_images_of_every_spelling_and_nothing_else(tmp_path: Path) -> None:
    """Issue 17.27: `.ipynb_checkpoints` is no class, `.Jpg` and `.webp` are images."""
    fill(tmp_path, IMAGES + JUNK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths, names = load_image_folder(tmp_path)
    relative = [Path(path).relative_to(tmp_path).as_posix() for path in paths]
    assert sorted(relative) == sorted(IMAGES)
    want = {"tabby cat" if name.startswith("tabby") else "hat" for name in IMAGES}
    assert set(names) == want
    for path, name in zip(relative, names, strict=True):
        assert path.split("/")[0].replace("_", " ") == name
    assert list(names) == sorted(names)
    assert np.isfinite(CLIPFeatures("skhegraph-tiny").fit_transform(paths, names)).all()


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    """Issue 17.27: nothing is dropped unseen."""
    fill(tmp_path, [*IMAGES, "hat/notes.txt", "hat/raw.cr2", "loose.png", "empty/readme.md"])
    with pytest.warns(UserWarning) as caught:
        paths, _ = load_image_folder(str(tmp_path))
    (warning,) = caught
    assert warning.filename == __file__
    message = str(warning.message)
    assert "4 files in no class or no image (loose.png, " in message
    for name in ("notes.txt", "raw.cr2", "readme.md", "1 subfolder without an image ('empty')"):
        assert name in message
    assert len(paths) == len(IMAGES)


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ([], ValueError, "No subfolder of .* holds an image"),
        (["a.png", "b.png"], ValueError, "No subfolder of .* holds an image"),
        (["red_hat/a.png", "red hat/b.png"], ValueError, "Two subfolders .* class 'red hat'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Left out")
def test_folders_without_classes(
    tmp_path: Path, names: list[str], error: type[Exception], message: str
) -> None:
    fill(tmp_path, names)
    with pytest.raises(error, match=message):
        load_image_folder(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", Path(__file__), "~nobody-of-that-name", "a\0b"):
        with pytest.raises(NotADirectoryError, match="is no folder on this machine"):
            load_image_folder(path)


@pytest.mark.filterwarnings("ignore:Left out")
def test_formats_that_are_refused_are_no_images(tmp_path: Path) -> None:
    fill(tmp_path, ["a/a.png"])
    refused = [e for e, name in Image.registered_extensions().items() if name in REFUSED_FORMATS]
    for extension in refused:
        (tmp_path / "a" / f"a{extension}").write_bytes(b"")
    assert len(load_image_folder(tmp_path)[0]) == 1
