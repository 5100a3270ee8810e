"""A folder of images, one subfolder a class, as people and programs leave it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: Formats that Pillow learns by an extra package, and those of that name which it knows by itself.
_HEIF = (".heic", ".heif", ".avif")
#: Files that file managers leave in every folder.
_LEFT_BY_FILE_MANAGERS = ("thumbs.db", "desktop.ini")


def load_image_folder(
    folder: str | os.PathLike[str],
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """List the images of a folder that has a subfolder for each class, and name their classes.

    Images are the files, at any depth, whose extension is that of an image, in upper or lower
    case. What is hidden (``.ipynb_checkpoints``, ``._cat.jpg``) or starts with two underscores
    (``__MACOSX``) is passed over. Other files of the subfolders, and images that are in none, are
    left out and named in a warning. Nothing is opened.

    Parameters
    ----------
    folder : path
        The folder.

    Returns
    -------
    paths : ndarray of shape (n_images,), str
        Paths of the images, sorted by class.
    names : ndarray of shape (n_images,), str
        Names of their subfolders, with spaces in place of underscores, since they go into prompts.

    Raises
    ------
    NotADirectoryError
        If `folder` is no folder.
    ValueError
        If no subfolder holds an image, or two subfolders give one name.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from skhegraph import load_image_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("tabby_cat/a.JPG", "tabby_cat/.b.jpg", "dog/c.webp", ".git/d.png"):
    ...         path = pathlib.Path(folder, name)
    ...         path.parent.mkdir(exist_ok=True)
    ...         path.touch()
    ...     paths, names = load_image_folder(folder)
    >>> [pathlib.Path(path).name for path in paths], names.tolist()
    (['c.webp', 'a.JPG'], ['dog', 'tabby cat'])
    """
    top = Path(os.path.expanduser(os.fsdecode(folder)))
    if not top.is_dir():
        raise NotADirectoryError(f"folder={str(folder)!r} is no folder on this machine.")
    extensions = _extensions()
    inside = sorted(path for path in top.iterdir() if not _is_passed_over(path.name))
    left_out = [path for path in inside if path.is_file() and path.suffix.lower() in extensions]
    images: dict[str, list[Path]] = {}
    for subfolder in filter(Path.is_dir, inside):
        name = subfolder.name.replace("_", " ")
        if name in images:
            raise ValueError(
                f"Two subfolders of {top} give the class {name!r}: join them, or rename one."
            )
        images[name] = []
        for path in _files(subfolder):
            (images[name] if path.suffix.lower() in extensions else left_out).append(path)
    _warn_of(top, left_out, [name for name, paths in images.items() if not paths])
    paths = [str(path) for part in images.values() for path in part]
    if not paths:
        raise ValueError(
            f"No subfolder of {top} holds an image: expected one subfolder for each class, named "
            "as what its images show."
        )
    names = [name for name, part in images.items() for _ in part]
    return np.array(paths), np.array(names)


def _extensions() -> set[str]:
    """Extensions of the formats that are read, in lower case."""
    from PIL import Image

    from skhegraph.clip.image_files import REFUSED_FORMATS

    known = Image.registered_extensions()  # loads Pillow's formats
    read = (e for e, name in known.items() if name in Image.OPEN and name not in REFUSED_FORMATS)
    return {extension.lower() for extension in (*read, *_HEIF)}


def _is_passed_over(name: str) -> bool:
    return name.startswith((".", "__")) or name.lower() in _LEFT_BY_FILE_MANAGERS


def _files(folder: Path) -> Iterator[Path]:
    """Files of a folder at any depth, sorted, without what is hidden."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_passed_over(name))
        yield from (Path(parent, name) for name in sorted(files) if not _is_passed_over(name))


def _warn_of(top: Path, left_out: list[Path], empty: list[str]) -> None:
    """Name what is left out, the first five of each."""
    parts = []
    if left_out:
        shown = ", ".join(str(path.relative_to(top)) for path in left_out[:5])
        parts.append(
            f"{len(left_out)} file{'s' * (len(left_out) > 1)} in no class or no image ({shown}"
            f"{', ...' if len(left_out) > 5 else ''})"
        )
    if empty:
        shown = ", ".join(map(repr, empty[:5])) + (", ..." if len(empty) > 5 else "")
        parts.append(f"{len(empty)} subfolder{'s' * (len(empty) > 1)} without an image ({shown})")
    if parts:
        warnings.warn(f"Left out of {top}: {'; '.join(parts)}.", UserWarning, stacklevel=3)
