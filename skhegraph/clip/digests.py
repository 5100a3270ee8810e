"""Digests that tell one image from another, for the keys of stored features.

A file that was read before and did not change since is not read again.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

from skhegraph.clip.image_files import check_regular
from skhegraph.clip.images import ImageDecodeError, decode_image, is_file, read_all
from skhegraph.clip.unreadable import why_unreadable

__all__ = ["image_digest", "known_digest"]

# A file that changed so recently may change again within one tick of its time stamps.
_UNSETTLED_NS = 2 * 10**9
_MAX_DIGESTS = 2**17
_CHUNK = 2**20  # bytes read at a time
_digests: dict[tuple[int, ...], bytes] = {}


def image_digest(source: Any) -> bytes:
    """Digest that tells one image from another: of the file's bytes, or of the decoded pixels.

    Parameters
    ----------
    source : path, bytes, binary file, PIL.Image.Image, numpy.ndarray or torch.Tensor
        As in :func:`decode_image`; files are read, not decoded.

    Returns
    -------
    bytes
        20 bytes, equal for equal images of one kind.

    Raises
    ------
    ImageDecodeError
        If `source` cannot be read.
    """
    try:
        if isinstance(source, (str, os.PathLike)):
            return _file_digest(os.fspath(source))
        if isinstance(source, (bytes, bytearray, memoryview)):
            return _digest(source)
        if is_file(source):
            return _digest(read_all(source))
    except ImageDecodeError:
        raise
    except (OSError, ValueError) as error:
        raise ImageDecodeError(why_unreadable(source, error)) from error
    image = decode_image(source)
    return _digest(f"RGB {image.size} ".encode() + image.tobytes())


def known_digest(source: Any) -> bytes | None:
    """Digest of a file that was read before and did not change, without reading; else None."""
    if not isinstance(source, (str, os.PathLike)):
        return None
    try:
        return _digests.get(_stamp(os.fspath(source)))
    except (OSError, ValueError):  # image_digest says why
        return None


def _digest(content: bytes | bytearray | memoryview) -> bytes:
    return hashlib.blake2b(content, digest_size=20).digest()


def _read_digest(path: str) -> bytes:
    """Digest of a file's content, the same as of its bytes, in little memory."""
    check_regular(path)
    digest = hashlib.blake2b(digest_size=20)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()


def _file_digest(path: str) -> bytes:
    """Digest of a file, kept under its stamp unless it may change within a tick of the clock."""
    stamp = _stamp(path)
    digest = _digests.get(stamp)
    if digest is None:
        digest = _read_digest(path)
        if time.time_ns() - max(stamp[-2:]) > _UNSETTLED_NS:
            if len(_digests) >= _MAX_DIGESTS:
                _digests.clear()
            _digests[stamp] = digest
    return digest


def _stamp(path: str) -> tuple[int, ...]:
    """What changes whenever a file does."""
    s = os.stat(path)
    return (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
