"""Digests: by content, and a settled file is read once."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skhegraph.clip import digests, fingerprint
from skhegraph.clip.digests import known_digest, read_image
from skhegraph.clip.images import ImageDecodeError


def test_the_digest_of_a_settled_file_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"first")
    content, digest = read_image(path)
    assert content == b"first" and digest == read_image(b"first")[1]
    assert known_digest(path) is None  # it might change within a tick of the clock
    monkeypatch.setattr(fingerprint, "_UNSETTLED_NS", 0)
    assert read_image(str(path)) == (b"first", digest)
    assert known_digest(path) == known_digest(str(path)) == digest
    then = path.stat()
    time.sleep(0.02)
    path.write_bytes(b"other")  # of the same size, and with the old modification time
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert known_digest(path) is None
    assert read_image(path)[1] == read_image(b"other")[1] == known_digest(path)
    assert known_digest(b"first") is known_digest(tmp_path / "missing") is None


def test_what_is_no_file_is_digested_by_its_pixels() -> None:
    grey = np.full((4, 6), 0.5)
    image, digest = read_image(grey)
    assert image.mode == "RGB" and image.size == (6, 4)
    assert read_image(Image.fromarray(np.full((4, 6), 128, dtype=np.uint8)))[1] == digest
    assert read_image(grey.T)[1] != digest


def test_a_large_file_that_is_no_image_is_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    film, image = tmp_path / "film.mp4", tmp_path / "image.png"
    film.write_bytes(b"no image" * 100)
    Image.new("L", (40, 40)).save(image)
    monkeypatch.setattr(digests, "_LARGE", 50)
    with pytest.raises(ImageDecodeError, match="cannot identify the image format"):
        read_image(film)
    assert read_image(image)[0] == image.read_bytes()


def test_a_file_in_text_mode_is_one_clear_error() -> None:
    with pytest.raises(ImageDecodeError, match=r"^the file is open in text mode"):
        read_image(io.StringIO("text"))
