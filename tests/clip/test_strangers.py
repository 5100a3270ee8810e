"""Files that hypothesis damages: each is read or refused, nothing else happens."""

from __future__ import annotations

import io
import warnings
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from PIL import Image

from skhegraph.clip.features import CLIPFeatures
from skhegraph.clip.image_files import REFUSED_FORMATS
from skhegraph.clip.images import ImageDecodeError, decode_image

KINDS = {
    "AVIF": ["RGB", "RGBA"],
    "BMP": ["RGB", "L", "P", "1", "RGBA"],
    "DDS": ["RGB", "RGBA", "L"],
    "EPS": ["RGB"],
    "GIF": ["P", "L"],
    "ICNS": ["RGBA"],
    "ICO": ["RGBA", "P"],
    "JPEG": ["RGB", "L", "CMYK"],
    "JPEG2000": ["RGB", "L"],
    "MPO": ["RGB"],
    "PCX": ["RGB", "P", "1"],
    "PNG": ["RGB", "RGBA", "P", "LA", "I;16", "1"],
    "PPM": ["RGB", "L", "1", "F"],
    "QOI": ["RGB", "RGBA"],
    "SGI": ["RGB", "L"],
    "SPIDER": ["F"],
    "TGA": ["RGB", "P"],
    "TIFF": ["RGB", "CMYK", "F", "I;16", "YCbCr"],
    "WEBP": ["RGB", "RGBA"],
}
NUMBERS = st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\1\0"])


@cache
def encoded(kind: str, mode: str, size: tuple[int, int], animated: bool) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert("L" if mode == "I;16" else "RGB").convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **({"save_all": True, "append_images": [image]} if animated else {}))
    return file.getvalue()


@st.composite
def whole_files(draw, kinds=tuple(KINDS)) -> bytes:
    """A file of any format, of one frame or several."""
    kind = draw(st.sampled_from(kinds))
    sizes = [(16, 16)] if kind == "ICO" else [(1, 1), (16, 16), (23, 5), (1, 300)]
    animated = kind in ("GIF", "PNG", "TIFF", "WEBP", "AVIF") and draw(st.booleans())
    mode = draw(st.sampled_from(KINDS[kind]))
    return encoded(kind, mode, draw(st.sampled_from(sizes)), animated)


@st.composite
def strangers_files(draw) -> bytes:
    """A whole file, or one with bytes changed, moved, left out or cut off."""
    data = bytearray(draw(whole_files()))
    for _ in range(draw(st.integers(0, 3))):
        reach = draw(st.sampled_from([64, len(data)]))
        at = draw(st.integers(0, min(reach, len(data))))
        match draw(st.sampled_from(["bytes", "number", "drop", "repeat", "cut"])):
            case "bytes":
                data[at : at + 4] = draw(st.binary(min_size=1, max_size=4))
            case "number":
                data[at : at + 4] = draw(NUMBERS)
            case "drop":
                del data[at : at + draw(st.integers(1, 40))]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
            case "cut":
                del data[at:]
    return bytes(data)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strangers_files())
def test_a_file_is_read_or_refused(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damage that it can live with
        try:
            image = decode_image(data, None, 2**24)
        except ImageDecodeError as error:
            assert str(error)
        else:
            assert image.mode == "RGB" and min(image.size) >= 1
            image.load()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(whole_files(kinds=[kind for kind in KINDS if kind not in REFUSED_FORMATS]))
def test_a_whole_file_is_read_if_pillow_reads_what_it_wrote(data):
    try:
        Image.open(io.BytesIO(data)).load()
    except OSError:  # Pillow 11.3 of an odd width in PCX, and of one pixel in YCbCr
        reject()
    try:
        assert decode_image(data).mode == "RGB"
    except ImageDecodeError as error:
        assert "float images run from 0 to 1" in str(error)


@settings(max_examples=10, deadline=None)
@given(st.lists(strangers_files(), min_size=20, max_size=20))
@pytest.mark.filterwarnings("ignore")
def test_a_batch_has_a_row_for_each_file(batch):
    clip = CLIPFeatures("skhegraph-tiny", device="cpu", on_error="nan", max_pixels=2**24)
    X = clip.transform(batch)
    readable = np.isfinite(X).all(axis=1)
    np.testing.assert_allclose(np.linalg.norm(X[readable], axis=1), 1, atol=1e-5)
    assert np.isnan(X[~readable]).all()
