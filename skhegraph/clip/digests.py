"""Content of an image and its digest, which tells one from another: the key of stored features.

A file is read once: what is decoded is what the digest is of, whatever happens to the file.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from skhegraph.clip.fingerprint import file_stamp, is_settled, stamp_of
from skhegraph.clip.image_files import check_regular, is_damage
from skhegraph.clip.images import (
    ImageDecodeError,
    check_is_image,
    decode_image,
    is_file,
    read_all,
)
from skhegraph.clip.unreadable import why_unreadable

__all__ = ["known_digest", "read_image"]

_MAX_DIGESTS = 2**17
# Bytes from which on a file, such as a film, is not read whole unless it begins as an image.
_LARGE = 2**26
_digests: dict[tuple[int, ...], bytes] = {}


def read_image(source: Any) -> tuple[Any, bytes]:
    """Read an image once, and digest what was read.

    Parameters
    ----------
    source : path, bytes, binary file, PIL.Image.Image, numpy.ndarray or torch.Tensor
        As in :func:`decode_image`; files are read, not decoded.

    Returns
    -------
    bytes or PIL.Image.Image
        Content of a file, or the RGB image of what is none: what :func:`decode_image` takes.
    bytes
        20 bytes, equal for equal images of one kind.

    Raises
    ------
    ImageDecodeError
        If `source` cannot be read.
    """
    try:
        if isinstance(source, (str, os.PathLike)):
            return _read_file(os.fspath(source))
        if is_file(source):
            source = read_all(source)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return source, _digest(source)
    except ImageDecodeError:
        raise
    except (OSError, ValueError) as error:
        if not is_damage(error):
            raise
        raise ImageDecodeError(why_unreadable(source, error)) from error
    image = decode_image(source)
    return image, _digest(f"RGB {image.size} ".encode() + image.tobytes())


def known_digest(source: Any) -> bytes | None:
    """Digest of a file that was read before and did not change, without reading; else None."""
    if not isinstance(source, (str, os.PathLike)):
        return None
    try:
        return _digests.get(file_stamp(source))
    except (OSError, ValueError):  # read_image says why
        return None


def _digest(content: bytes | bytearray | memoryview) -> bytes:
    return hashlib.blake2b(content, digest_size=20).digest()


def _read_file(path: str) -> tuple[bytes, bytes]:
    """Read a file; keep its digest under its stamp unless it may change within a tick."""
    check_regular(path)
    if os.stat(path).st_size > _LARGE:
        check_is_image(path)
    with open(path, "rb") as file:
        before = stamp_of(os.fstat(file.fileno()))
        content = file.read()
        stamp = stamp_of(os.fstat(file.fileno()))
    digest = _digest(content)
    if stamp == before and is_settled(stamp):
        if len(_digests) >= _MAX_DIGESTS:
            _digests.clear()
        _digests[stamp] = digest
    return content, digest
