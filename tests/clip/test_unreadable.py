"""Reasons why an input is unreadable say what to do about it."""

from __future__ import annotations

import io
import re
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageFile

from skhegraph.clip.digests import read_image
from skhegraph.clip.images import ImageDecodeError, decode_image, describe_source
from skhegraph.clip.unreadable import why_unreadable


def test_a_bomb_that_only_pillow_notices_names_the_bound_and_what_to_do():
    reason = why_unreadable(b"", Image.DecompressionBombError("too large"))
    assert re.search(r"178,956,970.*resize it.*MAX_IMAGE_PIXELS", reason)


@pytest.mark.parametrize("digest", [False, True])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.org/cat.jpg", r"nothing is fetched.*urlopen\(url\).read\(\)"),
        ("HTTP://example.org/cat.jpg", "nothing is fetched"),
        ("s3://bucket/cat.jpg", "nothing is fetched"),
        ("data:image/png;base64,iVBORw0KGgo=", r"nothing is fetched.*b64decode"),
        ("data:image/png;base64," + "A" * 100_000, "nothing is fetched"),
        (".", r"it is a folder.*iterdir"),
        ("nowhere.png", "^no such file$"),
    ],
)
def test_strings_that_name_no_file(source, message, digest):
    with pytest.raises(ImageDecodeError, match=message):
        read_image(source) if digest else decode_image(source)
    assert len(describe_source(source)) < 400


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


def test_heic_without_a_decoder_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    (tmp_path / "photo.jpg").write_bytes(HEIC)
    for source in (HEIC, io.BytesIO(HEIC), tmp_path / "photo.jpg"):
        with pytest.raises(ImageDecodeError, match=r"HEIC.*pip install pillow-heif"):
            decode_image(source)


def test_heic_is_decoded_by_the_package_when_it_is_there(monkeypatch, tmp_path):
    """With a stand-in of the package, which makes every HEIC image red."""

    class Decoder(ImageFile.ImageFile):
        format = "HEIC stand-in"

        def _open(self):
            self._size, self._mode, self.tile = (2, 2), "RGB", []

        def load(self):
            self.im = Image.new("RGB", self.size, "red").im
            return super().load()

    package = ModuleType("pillow_heif")
    package.__spec__ = ModuleSpec("pillow_heif", None)
    package.register_heif_opener = lambda: Image.register_open(
        Decoder.format.upper(), Decoder, lambda head: head[8:12] == b"heic"
    )
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    (tmp_path / "photo.jpg").write_bytes(HEIC)
    for source in (HEIC, tmp_path / "photo.jpg"):
        np.testing.assert_array_equal(
            np.asarray(decode_image(source)), np.tile([255, 0, 0], (2, 2, 1))
        )


def test_heic_by_the_real_package(monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), "red")).save(file)
    image = decode_image(file.getvalue())
    np.testing.assert_allclose(np.asarray(image)[32, 32], [255, 0, 0], atol=9)
