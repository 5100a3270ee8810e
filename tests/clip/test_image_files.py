"""Files from strangers: bounded, refused without waiting, and nothing else opened."""

from __future__ import annotations

import errno
import io
import os
import resource
import socket
import struct
import subprocess
import sys
import warnings
import zlib
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageFile

from skhegraph.clip.digests import read_image
from skhegraph.clip.features import CLIPFeatures
from skhegraph.clip.image_files import REFUSED_FORMATS
from skhegraph.clip.images import ImageDecodeError, decode_image


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@cache
def photo(kind: str, **options) -> bytes:
    """14,000 x 14,000 grey pixels that take few bytes."""
    return encoded(Image.linear_gradient("L").resize((14_000, 14_000)), kind, **options)


def test_a_huge_jpeg_photo_is_read():
    image = decode_image(photo("JPEG"))
    assert image.size == (7_000, 7_000)
    column = np.asarray(image.resize((4, 256)))[:, 0, 0].astype(int)
    assert np.abs(column - np.arange(256)).max() <= 2


def test_a_huge_photo_of_another_kind_names_its_bound():
    data = photo("PNG")
    with pytest.raises(
        ImageDecodeError, match=r"14000 x 14000 = 196,000,000 pixels.*max_pixels=67,108,864"
    ) as got:
        decode_image(data)
    assert "repair" not in str(got.value) and "MAX_IMAGE_PIXELS" not in str(got.value)
    assert decode_image(data, None, 200_000_000).size == (14_000, 14_000)


def test_a_progressive_jpeg_counts_in_full():
    with pytest.raises(ImageDecodeError, match="max_pixels=10"):
        decode_image(encoded(Image.new("L", (8, 8)), "JPEG", progressive=True), None, 10)
    assert decode_image(encoded(Image.new("L", (2, 2)), "JPEG", progressive=True), None, 10)


def test_the_bound_is_a_parameter_of_the_transformer():
    clip = CLIPFeatures("skhegraph-tiny", device="cpu", max_pixels=99)
    image = encoded(Image.new("RGB", (10, 10)), "PNG")
    with pytest.raises(ValueError, match=r"10 x 10 = 100 pixels, more than max_pixels=99"):
        clip.transform([image])
    for bound in (100, None):
        assert clip.set_params(max_pixels=bound).transform([image]).shape == (1, 128)
    with pytest.raises(ValueError, match="max_pixels"):
        clip.set_params(max_pixels=0).transform([image])


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory: Linux alone")
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "I;16", "CMYK"])
def test_memory_is_at_most_eight_bytes_a_pixel(mode, tmp_path):
    """Beside what an interpreter with Pillow and NumPy takes."""
    code = (
        "import sys\n"
        "from skhegraph.clip.images import decode_image\n"
        "def peak():\n"  # getrusage would tell of the parent before the child was another program
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return 1024 * int(next(x for x in lines if x.startswith('VmHWM')).split()[1])\n"
        "decode_image(sys.argv[1])\n"
        "before = peak()\n"
        "decode_image(sys.argv[2])\n"
        "print(peak() - before)\n"
    )
    side, paths = 5_000, []
    for n in (8, side):
        paths.append(tmp_path / f"{n}.tif")
        Image.new(mode, (n, n)).save(paths[-1])
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True
    )
    most = 4 if mode == "RGB" else 8
    assert 0.9 * most / 2 * side**2 <= int(done.stdout) <= most * side**2 + 2**25  # and strips


@pytest.fixture(params=["pipe", "socket", "device"])
def special(request, tmp_path):
    """A file that is none: reading it waits for ever, or never ends."""
    path = tmp_path / "photo.jpg"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("read", [decode_image, read_image])
def test_special_files_are_refused_without_reading(read, special):
    for source in (special, str(special)):
        with pytest.raises(ImageDecodeError, match="a pipe, a socket or a device"):
            read(source)


@pytest.mark.parametrize("read", [decode_image, read_image])
def test_links(read, tmp_path):
    (tmp_path / "photo.png").write_bytes(encoded(Image.new("RGB", (2, 2)), "PNG"))
    (tmp_path / "link.png").symlink_to("photo.png")
    (tmp_path / "broken.png").symlink_to("nowhere.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert read(tmp_path / "link.png")
    for name in ("broken.png", "loop.png"):
        with pytest.raises(ImageDecodeError, match="broken link"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "as SVG, HTML and XML do"),
        (b"\n <!DOCTYPE html><html></html>", "as SVG, HTML and XML do"),
        (b"", r"cannot identify.*start with b''"),
        (b"\xff\xd8\xff", "cannot identify"),
        (encoded(Image.new("RGB", (9, 9)), "EPS"), "EPS files are not read .another program"),
        (encoded(Image.new("RGB", (9, 9)), "DDS"), "DDS files are not read .its decoder"),
        (encoded(Image.new("F", (9, 9)), "SPIDER"), "cannot identify"),
    ],
)
def test_no_images(data, message, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(ImageDecodeError, match=message):
            decode_image(source)


def test_content_decides_and_not_the_name(tmp_path):
    for kind in ("PNG", "GIF", "TIFF", "WEBP", "TGA"):
        path = tmp_path / "photo.jpg"
        path.write_bytes(encoded(Image.new("RGB", (3, 2), "red"), kind))
        np.testing.assert_allclose(np.asarray(decode_image(path))[0, 0], [255, 0, 0], atol=3)


def test_refused_formats_are_names_that_pillow_knows():
    Image.init()
    assert set(Image.ID) >= set(REFUSED_FORMATS)


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_extreme_shapes_have_features(size):
    image = encoded(Image.new("RGB", size, "green"), "PNG")
    row = CLIPFeatures("skhegraph-tiny", device="cpu").transform([image])
    np.testing.assert_allclose(np.linalg.norm(row), 1, atol=1e-5)


def test_strips_do_not_show(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (50, 40, 4), dtype=np.uint8)
    image = Image.fromarray(noise)
    sources = [image, image.convert("RGB").quantize(9), image.convert("CMYK")]
    sources.append(Image.fromarray(noise[..., 0].astype(np.uint16) * 257))
    sources.append(Image.fromarray(noise[..., 0].astype(np.float32) / 255))
    whole = [np.asarray(decode_image(source)) for source in sources]
    monkeypatch.setattr("skhegraph.clip.images._STRIP", 1)
    for source, expected in zip(sources, whole, strict=True):
        np.testing.assert_array_equal(np.asarray(decode_image(source)), expected)


def test_nothing_is_fetched_and_no_other_file_is_opened(tmp_path):
    """An audit hook sees every file that the interpreter opens, and every connection."""
    photo = tmp_path / "photo.png"
    photo.write_bytes(encoded(Image.new("RGB", (9, 9), "red"), "PNG"))
    (tmp_path / "photo.eps").write_bytes(encoded(Image.new("RGB", (9, 9)), "EPS"))
    (tmp_path / "photo.svg").write_text('<svg><image href="file:///etc/passwd"/></svg>')
    code = (
        "import sys, warnings\n"
        "from PIL import Image\n"
        "from skhegraph import CLIPFeatures\n"
        "warnings.simplefilter('ignore')\n"
        "paths, seen = sys.argv[1:], []\n"
        "clip = CLIPFeatures('skhegraph-tiny', device='cpu', on_error='nan',\n"
        "    num_workers=1)\n"
        "clip.transform(paths[:1])\n"  # what is imported is imported
        "watched = ('open', 'socket.connect', 'socket.getaddrinfo', 'subprocess.Popen')\n"
        "sys.addaudithook(lambda event, args: event in watched and seen.append((event, args[0])))\n"
        "clip.transform([*paths, 'https://example.org/a.jpg', 'data:image/png;base64,AA==',\n"
        "                'file://' + paths[0], 'ftp://example.org/a.jpg', '//example.org/a.jpg'])\n"
        "watched = ()\n"
        "print([entry for entry in seen if entry not in [('open', p) for p in paths]])\n"
        "print(sorted({p for event, p in seen}))\n"
    )
    paths = [str(tmp_path / f"photo.{kind}") for kind in ("png", "eps", "svg")]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True
    )
    other, opened = done.stdout.splitlines()
    assert other == "[]"
    assert opened == repr(sorted(paths))


def raise_in(module, error):
    """Raise an error from a frame of a module of this name."""
    exec("raise error('damaged')", {"__name__": module, "error": error})


@pytest.mark.parametrize(
    ("module", "error", "damage"),
    [
        ("PIL.Plugin", TypeError, True), ("pillow_heif.heif", AttributeError, True),
        ("mine", TypeError, False), ("mine", AttributeError, False), ("PILLOW", TypeError, False),
        ("mine", ValueError, True), ("PIL.Plugin", MemoryError, False),
    ],
)  # fmt: skip
def test_item_10_mistakes_and_a_full_memory_are_no_bad_image(module, error, damage, monkeypatch):
    """Issue 17.10."""
    data = encoded(Image.new("RGB", (2, 2)), "PNG")
    sources = [data, Image.open(io.BytesIO(data))]
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: raise_in(module, error))
    monkeypatch.setattr(
        "PIL.PngImagePlugin.PngImageFile.load", lambda self: raise_in(module, error)
    )
    clip = CLIPFeatures("skhegraph-tiny", device="cpu", on_error="nan")
    for source in sources:
        with pytest.raises(ImageDecodeError if damage else error, match="damaged"):
            decode_image(source)
        if not damage:
            with pytest.raises(error, match="damaged"):
                clip.transform([source])


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="limits of files: Linux alone")
@pytest.mark.parametrize("read", [decode_image, read_image])
def test_item_10_too_many_open_files_are_no_bad_images(read, tmp_path):
    """Issue 17.10."""
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(Image.new("RGB", (2, 2)), "PNG"))
    read(path)  # what is imported is imported
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            read(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE, errno.ENFILE])
def test_item_10_a_machine_without_room_is_no_bad_image(number):
    """Issue 17.10."""

    class File(io.BytesIO):
        def read(self, *args):
            raise OSError(number, "no room")

    for read in (decode_image, read_image):
        with pytest.raises(OSError, match="no room"):
            read(File())


@pytest.mark.parametrize(
    "error",
    [
        OSError, EOFError, ValueError, SyntaxError, RuntimeError, NotImplementedError, IndexError,
        KeyError, TypeError, AttributeError, OverflowError, ZeroDivisionError, AssertionError,
        struct.error, zlib.error, Image.DecompressionBombError,
    ],
)  # fmt: skip
def test_whatever_a_decoder_raises_the_file_is_unreadable(error, monkeypatch):
    class Decoder(ImageFile.ImageFile):
        def _open(self):
            self._size, self._mode, self.tile = (2, 2), "RGB", []

        def load(self):
            raise_in("PIL.Plugin", error)

    monkeypatch.setattr(Image, "OPEN", {**Image.OPEN, "PNG": (Decoder, lambda head: True)})
    monkeypatch.setattr(Image, "ID", ["PNG"])
    monkeypatch.setattr(Image, "init", lambda: None)
    with pytest.raises(ImageDecodeError, match=r"damaged|more pixels"):
        decode_image(b"data")
    with pytest.raises(ImageDecodeError):
        decode_image(Decoder(io.BytesIO(b"data")))


JUNK = [
    b"Exif\0\0junk", b"Exif\0\0II*\0", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(range(40)),
    b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01", b"Exif\0\0" + b"\xff" * 30,
    # orientation 6, then an entry that cannot be written again
    b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
    b"\x87\x69\0\x04\0\0\0\x01\xff\xff\xff\xff\0\0\0\0",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("number", range(len(JUNK)))
def test_item_17_junk_in_the_metadata_is_no_orientation(kind, number):
    """Issue 17.17."""
    options = {"dpi": (72, 72)} if kind == "JPEG" else {}
    data = encoded(Image.new("RGB", (8, 4), "red"), kind, exif=JUNK[number], **options)
    size = (4, 8) if number == 5 else (8, 4)
    for source in (data, Image.open(io.BytesIO(data))):
        assert decode_image(source).size == size
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(data).size in ((8, 4), size)


def test_a_warning_of_pillow_that_is_an_error_is_one_unreadable_image(monkeypatch):
    data = encoded(Image.new("RGB", (2, 2)), "PNG")
    monkeypatch.setattr(
        "PIL.PngImagePlugin.PngImageFile.load", lambda self: warnings.warn("odd", stacklevel=1)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageDecodeError, match="UserWarning: odd"):
            decode_image(data)


@pytest.mark.parametrize("error", [struct.error, SyntaxError, TypeError, ValueError, OSError])
def test_item_17_whatever_reading_the_orientation_raises(error, monkeypatch):
    """Issue 17.17."""

    def fail(self):
        raise_in("PIL.Plugin", error)

    monkeypatch.setattr(Image.Image, "getexif", fail)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.getexif", fail)
    data = encoded(Image.new("RGB", (8, 4), "red"), "PPM")
    for source in (data, Image.open(io.BytesIO(data))):
        assert decode_image(source).getpixel((0, 0)) == (255, 0, 0)


def test_item_17_nothing_turns_an_image_twice():
    """Issue 17.17."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode_image(encoded(Image.new("RGB", (8, 4)), "PNG", exif=exif))
    assert turned.size == decode_image(turned).size == (4, 8)


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA"])
@pytest.mark.parametrize("kind", ["ICO", "ICNS"])
def test_item_22_transparent_pixels_of_an_icon_are_white(kind, mode):
    """Issue 17.22."""
    pixels = np.zeros((32, 32, 4), dtype=np.uint8)
    pixels[:16] = [200, 0, 0, 255]
    image = Image.fromarray(pixels)
    image = image.quantize(8) if mode == "P" else image.convert(mode)
    got = np.asarray(decode_image(encoded(image, kind)))
    colour = [60, 60, 60] if mode == "LA" else [200, 0, 0]
    assert np.abs(got[0, 0] - np.array(colour)).max() <= 2
    assert got[-1, -1].tolist() == [255, 255, 255]


def test_item_16_an_icon_that_belies_the_size_of_its_image_is_bounded():
    """Issue 17.16."""
    large = encoded(Image.new("RGB", (500, 500)), "PNG")
    icon = bytearray(encoded(Image.new("RGB", (16, 16)), "ICO", sizes=[(16, 16)]))
    start = icon.index(b"\x89PNG")
    icon[start:] = large
    icon[14:18] = struct.pack("<I", len(large))
    assert decode_image(bytes(icon)).size == (500, 500)
    with pytest.raises(ImageDecodeError, match="500 x 500 = 250,000 pixels, more than max_pixels"):
        decode_image(bytes(icon), None, 10_000)
