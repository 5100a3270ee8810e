"""Containers and decoding: pixel values against what they must be."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image

from skhegraph.clip.images import ImageDecodeError, as_image_list, decode_image, describe_source


def pixels(source) -> np.ndarray:
    image = decode_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_every_kind_of_source_gives_the_same_pixels(rgb, tmp_path):
    image = Image.fromarray(rgb)
    data = encoded(image)
    path = tmp_path / "päth.png"
    path.write_bytes(data)
    floats = rgb.astype(np.float64) / 255
    sources = [
        str(path), path, data, bytearray(data), memoryview(data), io.BytesIO(data), image, rgb,
        floats, floats.astype(np.float32), torch.from_numpy(rgb).permute(2, 0, 1),
        torch.from_numpy(floats).permute(2, 0, 1), rgb.astype(np.uint16) * 257,
        Image.open(path),
    ]  # fmt: skip
    for source in sources:
        np.testing.assert_array_equal(pixels(source), rgb, err_msg=describe_source(source))
    with open(path, "rb") as file:
        np.testing.assert_array_equal(pixels(file), rgb)


def test_an_open_file_keeps_its_position(rgb):
    file = io.BytesIO(b"head" + encoded(Image.fromarray(rgb)))
    file.seek(4)
    for _ in range(2):
        np.testing.assert_array_equal(pixels(file), rgb)
        assert file.tell() == 4


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1)])
def test_grey_arrays(shape):
    grey = np.linspace(0, 1, 24).reshape(shape)
    expected = np.rint(grey.reshape(4, 6, 1) * 255).repeat(3, axis=2)
    np.testing.assert_array_equal(pixels(grey), expected)
    tensor = torch.from_numpy(grey.reshape(1, 4, 6))
    np.testing.assert_array_equal(pixels(tensor), expected)
    np.testing.assert_array_equal(pixels(tensor[0]), expected)
    np.testing.assert_array_equal(pixels(grey > 0.5), (expected > 127) * 255)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_float_tensors_of_any_width(dtype):
    tensor = torch.tensor([0.0, 0.25, 1.0]).view(3, 1, 1).expand(3, 2, 2).to(dtype)
    np.testing.assert_array_equal(pixels(tensor)[0, 0], [0, 64, 255])


def test_alpha_is_composited_on_white():
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = [0, 128, 255]
    half = round(200 * 128 / 255 + 255 * 127 / 255), round(255 * 127 / 255)
    expected = [[255, 255, 255], [half[0], half[1], half[1]], [200, 0, 0]]
    for source in (rgba, Image.fromarray(rgba), torch.from_numpy(rgba).permute(2, 0, 1)):
        np.testing.assert_allclose(pixels(source)[0], expected, atol=1)


def test_grey_with_alpha_and_transparent_palette():
    grey_alpha = Image.new("LA", (2, 1), (10, 255))
    grey_alpha.putpixel((1, 0), (10, 0))
    np.testing.assert_array_equal(pixels(grey_alpha)[0], [[10] * 3, [255] * 3])
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 8, 7, 1, 2, 3])
    palette.putpixel((1, 0), 1)
    np.testing.assert_array_equal(pixels(palette)[0], [[9, 8, 7], [1, 2, 3]])
    data = encoded(palette, transparency=0)
    np.testing.assert_array_equal(pixels(data)[0], [[255] * 3, [1, 2, 3]])


def test_transparent_colour_of_an_rgb_file(rgb):
    rgb[0, 0] = (1, 2, 3)
    data = encoded(Image.fromarray(rgb), transparency=(1, 2, 3))
    np.testing.assert_array_equal(pixels(data)[0, 0], [255] * 3)


def png(bits: int, colour: int, clear: bytes, row: bytes) -> bytes:
    """PNG file of 2 x 1 pixels with a transparent value."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, colour, 0, 0, 0)),
        (b"tRNS", clear), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b""),
    ]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize(
    ("data", "other"),
    [
        (png(16, 0, b"\x10\x20", b"\x10\x20\x10\x21"), [16] * 3),
        (png(16, 2, b"\0\x10\x20\x30\x40\x50", b"\0\x10\x20\x30\x40\x50" + b"\x09\0" * 3), [9] * 3),
        (png(4, 0, b"\0\x03", b"\x35"), [85] * 3),
        (png(2, 0, b"\0\x01", b"\x60"), [170] * 3),
        (png(1, 0, b"\0\x00", b"\x40"), [255] * 3),
        (png(8, 0, b"\0\x07", b"\x07\x08"), [8] * 3),
    ],
)  # fmt: skip
def test_item_22_transparent_value_of_a_png_of_any_depth(data, other):
    """Issue 17.22."""
    np.testing.assert_array_equal(pixels(data)[0], [[255] * 3, other])


@pytest.mark.parametrize("kind", ["PIL", "PNG", "TGA"])
def test_item_22_palette_that_holds_alpha(kind):
    """Issue 17.22."""
    image = Image.new("RGBA", (8, 2), (0, 0, 0, 0))
    image.paste((200, 10, 20, 255), (4, 0, 8, 2))
    palette = image.quantize(2)
    assert palette.palette.mode == "RGBA"
    colours = palette.getpalette("RGBA")
    entry = b"".join(
        bytes([b, g, r, a]) for r, g, b, a in zip(*[iter(colours[:8])] * 4, strict=True)
    )
    header = struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 0, 2, 32, 0, 0, 8, 2, 8, 0x20)
    source = {
        "PIL": palette, "PNG": encoded(palette), "TGA": header + entry + palette.tobytes()
    }[kind]  # fmt: skip
    np.testing.assert_array_equal(pixels(source)[0], [[255] * 3] * 4 + [[200, 10, 20]] * 4)


def test_sixteen_bit_grey_keeps_its_range():
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    expected = [[0] * 3, [100] * 3, [255] * 3]
    image = Image.fromarray(values)
    for source in (encoded(image), encoded(image, "TIFF"), image, values):
        np.testing.assert_array_equal(pixels(source)[0], expected)
    wide = Image.fromarray(values.astype(np.int32))
    np.testing.assert_array_equal(pixels(wide)[0], expected)
    small = Image.fromarray(np.array([[0, 100, 255]], dtype=np.int32))
    np.testing.assert_array_equal(pixels(small)[0], expected)
    floats = Image.fromarray(np.array([[0, 100 / 255, 1]], dtype=np.float32))
    np.testing.assert_array_equal(pixels(floats)[0], expected)


def test_float_images_of_pil_are_as_arrays():
    """0.5 is 128 in both."""
    values = (np.arange(511, dtype=np.float32) / 510)[None]
    np.testing.assert_array_equal(pixels(Image.fromarray(values)), pixels(values))


def test_other_modes():
    clear = Image.new("LA", (1, 1), (100, 128))
    np.testing.assert_array_equal(pixels(clear.convert("La")), pixels(clear))
    np.testing.assert_array_equal(pixels(Image.new("CMYK", (1, 1), (0, 0, 0, 0))), [[[255] * 3]])
    np.testing.assert_array_equal(pixels(Image.new("CMYK", (1, 1), (0, 255, 255, 0)))[0, 0, 1], 0)
    np.testing.assert_array_equal(pixels(Image.new("1", (1, 1), 1)), [[[255] * 3]])
    np.testing.assert_array_equal(pixels(Image.new("L", (1, 1), 7)), [[[7] * 3]])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(rgb, orientation):
    image = Image.fromarray(rgb)
    exif = image.getexif()
    exif[0x0112] = orientation
    turned = {
        1: rgb, 2: rgb[:, ::-1], 3: rgb[::-1, ::-1], 4: rgb[::-1],
        5: rgb.transpose(1, 0, 2), 6: np.rot90(rgb, -1),
        7: rgb[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(rgb),
    }[orientation]  # fmt: skip
    data = encoded(image, exif=exif)
    np.testing.assert_array_equal(pixels(data), turned)
    np.testing.assert_array_equal(pixels(Image.open(io.BytesIO(data))), turned)


def test_sources_are_not_changed(rgb):
    rgb.setflags(write=False)
    pixels(rgb)
    rgba = Image.new("RGBA", (2, 2), (1, 2, 3, 4))
    pixels(rgba)
    assert rgba.mode == "RGBA" and rgba.getpixel((0, 0)) == (1, 2, 3, 4)
    image = Image.fromarray(rgb)
    decode_image(image).paste((0, 0, 0), (0, 0, 5, 5))
    np.testing.assert_array_equal(np.asarray(image), rgb)


def test_animations_give_their_first_frame():
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(pixels(data)[0, 0], [255, 0, 0])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.png", "no such file"),
        (b"not an image", "cannot identify"),
        (b"", "cannot identify"),
        (np.full((2, 2), 16.0), "0 to 1, got values from 16 to 16"),
        (np.full((2, 2), -0.1), "0 to 1"),
        (np.full((2, 2), np.nan), "0 to 1"),
        (torch.full((3, 2, 2), 2.0), "0 to 1"),
        (np.zeros((2, 2), dtype=np.int64), "int64"),
        (np.zeros((3, 8, 9), dtype=np.uint8), "moveaxis"),
        (np.zeros((2, 2, 2), dtype=np.uint8), "1, 3 or 4 channels"),
        (np.zeros(5, dtype=np.uint8), "shape"),
        (np.zeros((0, 4, 3), dtype=np.uint8), "empty"),
        (torch.zeros(8, 9, 3), "permute"),
        (io.StringIO("text"), "text mode"),
        (None, "got NoneType"),
        (float("nan"), "got float"),
        (3, "got int"),
        (Image.fromarray(np.array([[1 << 20]], dtype=np.int32)), "32-bit grey"),
    ],
)
def test_unreadable_sources(source, message):
    with pytest.raises(ImageDecodeError, match=message):
        decode_image(source)


def test_unreadable_files(tmp_path, rgb):
    truncated = encoded(Image.fromarray(rgb.repeat(20, axis=0)))[:-60]
    broken = bytearray(encoded(Image.fromarray(rgb)))
    broken[40:60] = b"\0" * 20
    for source in (tmp_path, truncated, bytes(broken)):
        with pytest.raises(ImageDecodeError):
            decode_image(source)


def test_a_damaged_avif_file_is_unreadable():
    data = bytearray(encoded(Image.new("RGB", (32, 32), "red"), "AVIF"))
    data[-40:] = bytes(40)
    with pytest.raises(ImageDecodeError):
        decode_image(bytes(data))


def test_normalised_values_are_recognised():
    normalised = (np.random.default_rng(0).random((3, 8, 8)) - 0.45) / 0.26
    for source in (torch.from_numpy(normalised), np.moveaxis(normalised, 0, -1)):
        with pytest.raises(ImageDecodeError, match=r"looks normalised \(mean/std\): pass") as got:
            decode_image(source)
        assert "scale" not in str(got.value)
    with pytest.raises(ImageDecodeError, match="scale them") as got:
        decode_image(np.linspace(0, 255, 16).reshape(4, 4))
    assert "normalised" not in str(got.value)


def test_item_23_floats_that_leave_the_range_by_rounding_are_clipped():
    """Issue 17.23."""
    values = np.array([[-1e-12, 0.25, 1.002]])
    for source in (values, torch.from_numpy(values), Image.fromarray(values.astype(np.float32))):
        np.testing.assert_array_equal(pixels(source)[0, :, 0], [0, 64, 255])
    for wrong in ([[0, 1.3]], [[-0.0, 1.02]]):
        with pytest.raises(ImageDecodeError, match=r"\.clip\(0, 1\)") as got:
            decode_image(np.array(wrong))
        assert "uint8" not in str(got.value)
    with pytest.raises(ImageDecodeError, match="uint8"):
        decode_image(np.array([[0.0, 254.0]]))


def test_item_23_uint16_arrays_of_8_bit_values_are_as_mode_i():
    """Issue 17.23."""
    values = np.array([[0, 100, 255]])
    expected = pixels(Image.fromarray(values.astype(np.int32)))
    np.testing.assert_array_equal(expected[0, :, 0], values[0])
    np.testing.assert_array_equal(pixels(values.astype(np.uint16)), expected)
    np.testing.assert_array_equal(pixels(np.array([[0, 257]], np.uint16))[0, :, 0], [0, 1])


def test_bugs_and_interrupts_are_not_swallowed():
    class Interrupting(io.BytesIO):
        def read(self, *args):
            raise KeyboardInterrupt

    class Buggy(io.BytesIO):
        def read(self, *args):
            raise AttributeError("a bug")

    with pytest.raises(KeyboardInterrupt):
        decode_image(Interrupting())
    with pytest.raises(AttributeError, match="a bug"):
        decode_image(Buggy())


def test_containers(rgb):
    names = ["a.png", "b.png"]
    objects = np.array(names, dtype=object)
    for X in (
        names, tuple(names), objects, objects[:, None], np.array(names), pd.Series(names),
        pd.Series(names, index=[5, 5]), pd.DataFrame({"p": names}), pl.Series(names),
        pl.DataFrame({"p": names}),
    ):  # fmt: skip
        assert as_image_list(X) == names
    batch = np.stack([rgb, rgb[::-1]])
    np.testing.assert_array_equal(pixels(as_image_list(batch)[1]), rgb[::-1])
    tensors = as_image_list(torch.from_numpy(batch).permute(0, 3, 1, 2))
    np.testing.assert_array_equal(pixels(tensors[1]), rgb[::-1])
    mixed = ["a.png", rgb, Path("b.png"), b"x"]
    assert all(a is b for a, b in zip(as_image_list(mixed), mixed, strict=True))


@pytest.mark.parametrize(
    "X",
    ["a.png", b"x", Path("a.png"), io.BytesIO(b"x"), Image.new("RGB", (2, 2))],
)
def test_a_single_image_is_an_error(X):
    with pytest.raises(TypeError, match="wrap it in a list"):
        as_image_list(X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((4, 4, 3)), r"single image goes into a list \(\[X\]\)"),
        (torch.zeros(3, 4, 4), "single image"),
        (np.zeros((4, 4)), "holds no images"),
        (np.zeros(4), "holds no images"),
        (3, "got int"),
        (None, "got NoneType"),
        ({"a.png"}, "got set"),
        ((x for x in "ab"), "got generator"),
    ],
)
def test_no_container(X, message):
    with pytest.raises(TypeError, match=message):
        as_image_list(X)


@pytest.mark.parametrize(
    "X", [[], (), np.array([]), np.array([], dtype=object), pd.Series([], dtype=object),
          np.zeros((0, 4, 4, 3))],
)  # fmt: skip
def test_empty(X):
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        as_image_list(X)


def test_a_folder_in_place_of_the_list(tmp_path):
    with pytest.raises(TypeError, match=r"it is a folder.*load_image_folder.*iterdir"):
        as_image_list(tmp_path)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_two_columns(frame):
    with pytest.raises(ValueError, match=r"2 columns \(path, label\)"):
        as_image_list(frame({"path": ["a"], "label": ["b"]}))


def test_describe_source(tmp_path, rgb):
    path = tmp_path / "x.png"
    Image.fromarray(rgb).save(path)
    assert describe_source(path) == str(path)
    assert describe_source(Image.open(path)) == str(path)
    with open(path, "rb") as file:
        assert describe_source(file) == str(path)
    assert describe_source(rgb) == "<ndarray of shape (5, 7, 3)>"
    assert describe_source(None) == "<NoneType>"


def jpeg(width, height):
    noise = np.random.default_rng(0).integers(
        0, 256, (height // 50, width // 50, 3), dtype=np.uint8
    )
    file = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((800, 1000), (400, 500)), ((4000, 1600), (2000, 800)), ((798, 1000), (798, 1000))],
)
def test_large_jpeg_files_are_decoded_at_half_their_size(size, expected):
    data = jpeg(*size)
    draft, whole = decode_image(data, least_side=400), decode_image(data)
    assert draft.size == expected and whole.size == size
    small = (100, 100)
    difference = np.asarray(draft.resize(small), float) - np.asarray(whole.resize(small), float)
    assert np.abs(difference).mean() < 2


def test_only_jpeg_files_are_decoded_at_half_their_size():
    assert decode_image(np.zeros((900, 900)), least_side=10).size == (900, 900)
    file = io.BytesIO()
    Image.new("RGB", (900, 900)).save(file, "PNG")
    assert decode_image(file.getvalue(), least_side=10).size == (900, 900)
