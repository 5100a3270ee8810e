"""Open an image file that may come from anyone: bounded memory, no other file, no other program.

Pillow does the decoding. What is decided here is which of its formats are tried, how many pixels
may be decoded, that nothing but regular files is opened, and which exceptions mean "damaged".
"""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any

from skhegraph.clip.unreadable import HEIF_PACKAGE, RefusedFormat, TooManyPixels, is_heif

if TYPE_CHECKING:
    from PIL import Image, ImageFile

__all__ = [
    "DAMAGED",
    "DARK",
    "MAX_PIXELS",
    "check_regular",
    "identify",
    "is_damage",
    "load_image",
    "note_if_dark",
    "turn_upright",
]

#: Pixels that are decoded at most, unless the user says otherwise: 8192 x 8192. At the peak a pixel
#: takes 4 to 10 bytes; of WebP and JPEG 2000, up to 20.
MAX_PIXELS = 2**26

#: Entry in the ``info`` of a decoded image that tells why it is nearly black.
DARK = "skhegraph dark"

#: Formats of Pillow that are not read, and why.
REFUSED_FORMATS = {
    **dict.fromkeys(["EPS", "WMF"], "another program would draw it"),
    **dict.fromkeys(["BUFR", "GRIB", "HDF5", "MPEG"], "Pillow has no decoder for it"),
    **dict.fromkeys(["BLP", "DDS"], "its decoder can take minutes on a small file"),
    **dict.fromkeys(["IM", "IMT", "IPTC", "SPIDER"], "it has no signature, so others pass for it"),
}

#: What Pillow's decoders raise on damaged data: every kind that their Python code can raise when
#: it reads a number, an offset, a key or a size that makes no sense, and when that is too large.
DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    struct.error,
    zlib.error,
    Warning,  # where the user has made errors of warnings
)

# From here on a JPEG file is decoded at half its size, whatever the model reads. It does not follow
# the user's bound, so that features do not depend on that.
_HUGE_JPEG = 2**26
# Largest value where 12 bits of 16 are in use, as in the files of many cameras and scanners.
_TWELVE_BITS = 2**12 - 1
_MACHINE = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)  # not the image's fault
_BUGS = (TypeError, AttributeError)  # damage where a decoder raises them, else a mistake
_STRETCHED = {"1": 255, "L;2": 85, "L;4": 17}  # raw modes of grey with 1, 2 or 4 bits: 255 / most
_ORIENTATION = 0x0112  # tag of EXIF
# What undoes the orientations 2 to 8.
_TURNS = [
    "FLIP_LEFT_RIGHT",
    "ROTATE_180",
    "FLIP_TOP_BOTTOM",
    "TRANSPOSE",
    "ROTATE_270",
    "TRANSVERSE",
    "ROTATE_90",
]
_METADATA = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # may hold it


def load_image(source: Any, least_side: int | None, max_pixels: int | None) -> Image.Image:
    """Decode a file, and turn it as its EXIF orientation says.

    Parameters
    ----------
    source : path, bytes, bytearray or memoryview
        The file or its content.
    least_side : int or None
        Decode a JPEG file at half its size if no side gets shorter than this.
    max_pixels : int or None
        Bound on the pixels to decode. None sets no bound.

    Returns
    -------
    PIL.Image.Image
        First frame, in the mode of the file, in memory.

    Raises
    ------
    TooManyPixels
        If the image has more pixels than the bound.
    RefusedFormat
        If it is of a format that is not read.
    PIL.UnidentifiedImageError
        If it is of no known format.
    PIL.Image.DecompressionBombError, or one of `DAMAGED`
        What Pillow makes of damaged data.
    """
    with _binary(source) as file:
        image = _frame_of(_identify_heif_too(file, source))
        _bound_pixels(image, least_side, max_pixels)
        clear, cut = _clear_value(image), _is_cut(image)
        image.load()
        if cut:
            note_if_dark(image, 256 * _brightest(image) + 255)
        if clear is not None:
            image.info["transparency"] = clear
        return turn_upright(image)


def identify(path: str | os.PathLike[str]) -> None:
    """Raise what :func:`load_image` does where a file is of no known format; read its header."""
    with _binary(path) as file:
        _identify_heif_too(file, path)


def turn_upright(image: Image.Image) -> Image.Image:
    """Turn a decoded image as its EXIF orientation says; one that cannot be read says nothing.

    Parameters
    ----------
    image : PIL.Image.Image
        An image, which is not changed.

    Returns
    -------
    PIL.Image.Image
        The image itself, or a turned copy without the metadata that would turn it once more.
    """
    from PIL import Image

    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except DAMAGED as error:
        if not is_damage(error):
            raise
        return image
    if not isinstance(orientation, int) or not 2 <= orientation <= 8:
        return image
    turned = image.transpose(getattr(Image.Transpose, _TURNS[orientation - 2]))
    for name in _METADATA:
        turned.info.pop(name, None)
    return turned


def note_if_dark(image: Image.Image, high: int) -> None:
    """Note it where an image of 16 bits, whose largest value is `high`, uses 12 of them or fewer.

    It may be a night sky, or values that should have been scaled: only the user can tell.
    """
    if high <= _TWELVE_BITS:
        image.info[DARK] = f"no value is above {high} of 65535"


def _frame_of(image: ImageFile.ImageFile) -> Any:
    """Image in an icon, whose palette, transparency and true size Pillow's icon loses."""
    if image.format == "ICO":
        return image.ico.getimage(image.size)  # type: ignore[attr-defined]
    if image.format == "ICNS":
        return image.icns.getimage(image.best_size)  # type: ignore[attr-defined]
    return image


def _is_cut(image: ImageFile.ImageFile) -> bool:
    """Tell whether Pillow cuts the 16 bits of a file's values to the upper 8."""
    tile = getattr(image, "tile", None)  # none of an icon's bitmap
    raw = tile[0][3] if tile else None
    raw = raw[0] if isinstance(raw, tuple) and raw else raw
    return isinstance(raw, str) and ";16" in raw and not image.mode.startswith("I")


def _brightest(image: Image.Image) -> int:
    """Largest value of any colour."""
    bands, extrema = image.getbands(), image.getextrema()
    each: Any = [extrema] if len(bands) == 1 else extrema
    return int(max(high for band, (_, high) in zip(bands, each, strict=True) if band != "A"))


def _clear_value(image: ImageFile.ImageFile) -> int | tuple[int, ...] | None:
    """Transparent value of a PNG file in the numbers that Pillow decodes its pixels to.

    Pillow gives it in those of the file, whose pixels it stretches to 8 bits or cuts to them.
    """
    clear = image.info.get("transparency")
    raw = image.tile[0][3] if image.format == "PNG" and image.tile else None
    if isinstance(clear, tuple) and raw == "RGB;16B":
        return tuple(value >> 8 for value in clear)
    if isinstance(clear, int) and raw in _STRETCHED:
        return clear * _STRETCHED[raw]
    return None


def is_damage(error: BaseException) -> bool:
    """Tell whether one of `DAMAGED` is the image's fault, and not a mistake in a program.

    Parameters
    ----------
    error : BaseException
        What was raised, with its traceback.

    Returns
    -------
    bool
        False for an error of type or attribute that was raised outside of the decoders, and where
        the machine has no more memory or may open no more files.
    """
    if getattr(error, "errno", None) in _MACHINE or type(error).__name__ == "OutOfMemoryError":
        return False
    if not isinstance(error, _BUGS):
        return True
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    module = last.tb_frame.f_globals.get("__name__", "") if last is not None else ""
    return module.split(".")[0] in ("PIL", HEIF_PACKAGE)


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise OSError unless a path leads to a regular file: opening a pipe would wait for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("no regular file")


@contextmanager
def _binary(source: Any) -> Iterator[IO[bytes]]:
    """Open a path or bytes for reading."""
    if isinstance(source, (str, os.PathLike)):
        check_regular(source)
        with open(source, "rb") as file:
            yield file
    else:
        yield io.BytesIO(source)


def _identify_heif_too(file: IO[bytes], source: Any) -> ImageFile.ImageFile:
    """Identify an image; one in HEIF with the package for it, where that is installed."""
    from PIL import UnidentifiedImageError

    try:
        return _identify(file)
    except UnidentifiedImageError:
        if not is_heif(source) or find_spec(HEIF_PACKAGE) is None:
            raise
    import_module(HEIF_PACKAGE).register_heif_opener()
    return _identify(file)


def _identify(file: IO[bytes]) -> ImageFile.ImageFile:
    """Read the header of an image as `PIL.Image.open` does, which has a fixed bound on pixels."""
    from PIL import Image, UnidentifiedImageError

    Image.init()
    file.seek(0)
    head = file.read(16)
    for name in sorted(Image.ID, key=lambda name: Image.OPEN[name][1] is None):  # TGA last
        factory, accept = Image.OPEN[name]
        if name in REFUSED_FORMATS:
            if accept is not None and accept(head):
                raise RefusedFormat(name, REFUSED_FORMATS[name])
            continue
        try:
            accepted = accept is None or accept(head)
            if accepted and not isinstance(accepted, str):  # a str tells what Pillow lacks
                file.seek(0)
                return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # not this format
            continue
    raise UnidentifiedImageError("cannot identify the image format")


def _bound_pixels(
    image: ImageFile.ImageFile, least_side: int | None, max_pixels: int | None
) -> None:
    """Decode a JPEG file at half its size where that is asked for or needed; check the bound.

    A progressive JPEG file is not drafted to save memory: its decoder keeps all coefficients.
    """
    width, height = image.size
    half = (width // 2, height // 2)
    huge = width * height > _HUGE_JPEG and not image.info.get("progressive")
    if least_side is not None or huge:
        least = 1 if least_side is None or huge else least_side
        image.draft(None, (max(least, half[0]), max(least, half[1])))  # acts on JPEG alone
    if max_pixels is not None and image.size[0] * image.size[1] > max_pixels:
        raise TooManyPixels(width, height, max_pixels)
