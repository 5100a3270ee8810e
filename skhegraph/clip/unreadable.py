"""Why an input cannot be read as an image, in words that say what to do about it."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from typing import Any

__all__ = ["FOLDER", "HEIF_PACKAGE", "RefusedFormat", "TooManyPixels", "is_heif", "why_unreadable"]

FOLDER = (
    "it is a folder: pass the paths of its images, those of load_image_folder(folder) where it has "
    "a subfolder for each class, else "
    "[p for p in pathlib.Path(folder).iterdir() if p.suffix.lower() in {'.jpg', '.png'}]"
)
HEIF_PACKAGE = "pillow_heif"
_HEIF_BRANDS = b"heic heix heim heis hevc hevx hevm hevs heif mif1 msf1 avif avis".split()
_HOW_TO_FETCH = {
    "data": "base64.b64decode(url.partition(',')[2])",
    **dict.fromkeys(["http", "https", "ftp", "file"], "urllib.request.urlopen(url).read()"),
}
_URL = re.compile(r"data:|[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class RefusedFormat(ValueError):
    """A file is of a format that Pillow knows and that is not read here."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} files are not read ({reason}): convert it to PNG or JPEG")


class TooManyPixels(ValueError):
    """A file has more pixels than the bound."""

    def __init__(self, width: int, height: int, bound: int) -> None:
        super().__init__(
            f"it has {width} x {height} = {width * height:,} pixels, more than max_pixels="
            f"{bound:,}, a guard against files made to fill the memory: resize it, or, if you "
            "trust it, raise max_pixels of CLIPFeatures"
        )


def why_unreadable(source: Any, error: Exception) -> str:
    """Word the reason why an image cannot be read.

    Parameters
    ----------
    source : path, bytes or other object
        What was to be read.
    error : Exception
        What reading it raised.

    Returns
    -------
    str
        The reason and, where one is known, the remedy.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, (TooManyPixels, RefusedFormat)):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return _too_large()
    if isinstance(source, (str, os.PathLike)) and (reason := _no_file(os.fspath(source))):
        return reason
    if isinstance(error, UnidentifiedImageError):
        return _unknown_format(_first_bytes(source))
    return f"{type(error).__name__}: {error}"


def is_heif(source: Any) -> bool:
    """Tell whether a file is HEIC, HEIF or AVIF by its first bytes.

    Parameters
    ----------
    source : path or bytes
        The file.

    Returns
    -------
    bool
        Whether Pillow needs a decoder for HEIF to read it.
    """
    return _is_heif(_first_bytes(source))


def _is_heif(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _first_bytes(source: Any) -> bytes:
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return file.read(12)
    return bytes(source[:12])


def _too_large() -> str:
    from PIL import Image

    bound = Image.MAX_IMAGE_PIXELS or 0
    return (
        f"it has more pixels than Pillow's bound of {2 * bound:,}, a guard against files made to "
        "fill the memory: resize it, or, if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS (now "
        f"{bound:,}; the bound is twice that)"
    )


def _no_file(path: str | bytes) -> str | None:
    if isinstance(path, str) and _URL.match(path):
        how = _HOW_TO_FETCH.get(path.partition(":")[0].lower(), "fsspec.open(url).open().read()")
        return f"it is a URL, and nothing is fetched: pass the bytes, for instance {how}"
    if os.path.isdir(path):
        return FOLDER
    if not os.path.exists(path):
        if path[:1] in ("~", b"~"):
            return "no such file: '~' is not expanded, os.path.expanduser(path) does it"
        return "a broken link" if os.path.islink(path) else "no such file"
    if not os.path.isfile(path):
        return "it is a pipe, a socket or a device, which is not opened: pass a file or its bytes"
    return None


def _unknown_format(head: bytes) -> str:
    if _is_heif(head) and find_spec(HEIF_PACKAGE) is None:
        return (
            "it is a HEIC, HEIF or AVIF image, which Pillow cannot decode here: "
            "pip install pillow-heif (it is then used by itself), or convert it to JPEG or PNG"
        )
    reason = f"cannot identify the image format; the data start with {head!r}"
    if head.lstrip().startswith(b"<"):
        return f"{reason}, as SVG, HTML and XML do: save a picture of it as PNG or JPEG"
    return reason
