"""Turn anything that holds an image into an RGB ``PIL.Image``.

:func:`as_image_list` turns the container that a user passes as ``X`` into a plain list, and
:func:`decode_image` turns one element of it into an RGB image. Neither knows anything of CLIP.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from skhegraph.clip.image_files import (
    DAMAGED,
    DARK,
    MAX_PIXELS,
    identify,
    is_damage,
    load_image,
    note_if_dark,
    turn_upright,
)
from skhegraph.clip.unreadable import FOLDER, why_unreadable

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ImageDecodeError", "as_image_list", "decode_image", "describe_source"]

# Raise it whenever `decode_image` gives other pixels than before: stored features depend on them.
_DECODING = 5

_STRIP = 2**20  # pixels that are converted at a time, which bounds the memory that it takes
# By how much a float image may leave 0..1: what a bicubic resize overshoots a little.
_ROUNDING = 0.01
_LONG = 300  # characters of a path that an error message shows
_ACCEPTED = (
    "a path, bytes, an open binary file, a PIL image, a uint8 or float array (H, W) or "
    "(H, W, channels), a torch tensor (channels, H, W), or a dictionary of bytes or path"
)
_NUMPY_FLOATS = ("torch.float16", "torch.float32", "torch.float64")


class ImageDecodeError(ValueError):
    """An input cannot be read as an image; the message gives the reason."""


class _Unreadable:
    """In place of an input that raised before it could be read."""

    def __init__(self, source: Any, error: BaseException) -> None:
        self.name = f"<{_type_name(source)}>"
        self.reason = f"it raised {type(error).__name__}: {error}"


def as_image_list(X: Any) -> list[Any]:
    """Check the container of images and return its elements as a list.

    Parameters
    ----------
    X : sequence, object array, Series, one-column frame or table, 4-D array or 4-D tensor
        One entry per item. A 4-D array is a batch (n, H, W, channels), a 4-D torch tensor a
        batch (n, channels, H, W).

    Returns
    -------
    list
        The images, undecoded, in the order of `X`; of a dictionary its bytes, or else its path.

    Raises
    ------
    TypeError
        If `X` is a single image or no container of images.
    ValueError
        If `X` is empty or has more than one column.

    Examples
    --------
    >>> from skhegraph.clip.images import as_image_list
    >>> as_image_list(("cat.png", "dog.png"))
    ['cat.png', 'dog.png']
    """
    single = isinstance(X, (str, bytes, bytearray, memoryview, os.PathLike))
    if single or _is_pil(X) or is_file(X) or _is_record(X):
        if isinstance(X, (str, os.PathLike)) and os.path.isdir(X):
            raise TypeError(f"X={os.fspath(X)!r}: {FOLDER}.")
        raise TypeError(
            f"X must be a list of images, got a single {type(X).__name__}; wrap it in a list: [X]."
        )
    if _is_tensor(X) or isinstance(X, np.ndarray):
        items = _split_array(X)
    elif isinstance(X, Sequence):
        items = list(X)
    elif hasattr(X, "to_pylist"):
        items = _only_column(X).to_pylist() if hasattr(X, "column_names") else X.to_pylist()
    elif hasattr(X, "columns") and hasattr(X, "shape"):
        items = list(_only_column(X).to_list())
    elif hasattr(X, "to_list"):
        items = list(X.to_list())
    else:
        raise TypeError(
            "X must be a list, tuple, object array, Series or one-column frame of images, or a "
            f"4-D array or tensor, got {_type_name(X)}."
        )
    if not items:
        raise ValueError(
            "Found array with 0 sample(s) (shape=(0,)) while a minimum of 1 is required: "
            "X holds no images."
        )
    return [_undressed(item) for item in items]


def decode_image(
    source: Any, least_side: int | None = None, max_pixels: int | None = MAX_PIXELS
) -> Image.Image:
    """Read one image and return it in RGB.

    The EXIF orientation is applied. Transparent pixels are composited on white. Palette, grey,
    CMYK and 16-bit images are converted by value: 16-bit grey keeps its full range (65535 is
    white, however many of the bits are in use), and a float image runs from 0 (black) to 1
    (white). Of an animation the first frame is taken.

    Parameters
    ----------
    source : path, bytes, binary file, PIL.Image.Image, numpy.ndarray, torch.Tensor or dict
        Arrays are (H, W) or (H, W, channels), tensors (H, W) or (channels, H, W), with 1, 3 or
        4 channels; uint8, uint16 (65535 is white, or 255 if no value is larger), bool, or float in
        [0, 1], where 0.01 more or less is clipped. An open file is read from its current position,
        which is restored. A dictionary holds "bytes" or "path", as in Hugging Face's data sets.
    least_side : int, default=None
        Decode a JPEG file at half its size, which is faster, if no side gets shorter than this.
        None decodes it as it is.
    max_pixels : int or None, default=2**26
        Bound on the pixels of a file, so that none fills the memory. JPEG files of more than 2**26
        pixels are decoded at half their size, unless they are progressive, and may have four times
        the bound. None sets no bound.

    Returns
    -------
    PIL.Image.Image
        An image of mode "RGB". `source` itself is never changed.

    Raises
    ------
    ImageDecodeError
        If `source` cannot be read; the message says why.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.clip.images import decode_image
    >>> image = decode_image(np.full((4, 6), 0.5))
    >>> image.mode, image.size, image.getpixel((0, 0))
    ('RGB', (6, 4), (128, 128, 128))
    """
    from PIL import Image

    source = _undressed(source)
    if is_file(source):
        source = _content(source)
    try:
        if isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)):
            with _damage_of(source):
                image = load_image(source, least_side, max_pixels)
            return _to_rgb(image)
        return _to_rgb(_image_of(source))
    except ImageDecodeError:
        raise
    except (OSError, ValueError, RuntimeError, Image.DecompressionBombError) as error:
        if not is_damage(error):
            raise
        raise ImageDecodeError(why_unreadable(source, error)) from error


def check_is_image(path: str | os.PathLike[str]) -> None:
    """Raise ImageDecodeError unless a file begins as an image; the rest of it is not read."""
    with _damage_of(path):
        identify(path)


def decoder_versions() -> str:
    """Name what decides about the pixels of a decoded file: this module and Pillow."""
    import PIL

    return f"decoding {_DECODING} Pillow {PIL.__version__}"


def describe_source(source: Any) -> str:
    """Name an input in an error message: its path if it has one, else what it is.

    Parameters
    ----------
    source : object
        One element of the user's input.

    Returns
    -------
    str
        For instance ``"cat.png"`` or ``"<bytes, 812 long>"``.

    Examples
    --------
    >>> from skhegraph.clip.images import describe_source
    >>> describe_source(b"abc")
    '<bytes, 3 long>'
    """
    if isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        path = path if path.isprintable() else repr(path)
        return path if len(path) <= _LONG else f"{path[:_LONG]}... ({len(path)} characters)"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{type(source).__name__}, {len(source)} long>"
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    if isinstance(name, str) and name:
        return describe_source(name)
    shape = getattr(source, "shape", None)
    if isinstance(shape, tuple):
        return f"<{type(source).__name__} of shape {tuple(shape)}>"
    return f"<{type(source).__name__}>"


def _is_pil(value: Any) -> bool:
    from PIL import Image

    return isinstance(value, Image.Image)


def _is_tensor(value: Any) -> bool:
    """Tell a torch tensor, of any package's class, without importing torch."""
    return any(
        base.__name__ == "Tensor" and base.__module__.split(".")[0] == "torch"
        for base in type(value).__mro__
    )


def _is_record(value: Any) -> bool:
    """Tell an image as Hugging Face's data sets store it: a dictionary of bytes or path."""
    return isinstance(value, Mapping) and len(value) > 0 and value.keys() <= {"bytes", "path"}


def _undressed(item: Any) -> Any:
    """What an item holds; in place of one that raises at once, why it cannot be read."""
    if _is_record(item):
        found = [item[key] for key in ("bytes", "path") if item.get(key) is not None]
        return found[0] if found else item
    try:
        if isinstance(item, os.PathLike):
            os.fspath(item)
        if isinstance(item, memoryview) and not item.c_contiguous:
            return item.tobytes()
    except DAMAGED as error:
        return _Unreadable(item, error)
    return item


def _type_name(value: Any) -> str:
    """Name of a type with its package, "zipfile.Path"."""
    module = type(value).__module__.split(".")[0]
    return f"{'' if module == 'builtins' else module + '.'}{type(value).__name__}"


def is_file(value: Any) -> bool:
    """Tell an open file."""
    return callable(getattr(value, "read", None))


def _content(file: Any) -> bytes:
    """Content of an open file; what reading it raises is not the image's fault, but OSError."""
    try:
        return read_all(file)
    except ImageDecodeError:
        raise
    except (OSError, ValueError) as error:
        if not is_damage(error):
            raise
        raise ImageDecodeError(why_unreadable(file, error)) from error


@contextmanager
def _damage_of(source: Any) -> Iterator[None]:
    """Turn whatever a decoder raises into the reason: the file is what is wrong."""
    from PIL import Image

    try:
        yield
    except (*DAMAGED, Image.DecompressionBombError) as error:
        if not is_damage(error):
            raise
        raise ImageDecodeError(why_unreadable(source, error)) from error


def _image_of(source: Any) -> Image.Image:
    """Image of what is in memory: a PIL image, a tensor or an array."""
    if _is_pil(source):
        with _damage_of(source):
            source.load()  # if it was only opened
            upright = turn_upright(source)
            return upright.copy() if upright is source else upright
    if _is_tensor(source):
        return _from_array(_tensor_to_hwc(source))
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, _Unreadable):
        raise ImageDecodeError(source.reason)
    if hasattr(source, "read_bytes"):
        raise ImageDecodeError(
            f"got {_type_name(source)}, which is not a path of the file system: pass its bytes, "
            "path.read_bytes()"
        )
    raise ImageDecodeError(f"got {_type_name(source)}, expected {_ACCEPTED}")


def _only_column(frame: Any) -> Any:
    names = frame.column_names if hasattr(frame, "column_names") else frame.columns
    if frame.shape[1] != 1:
        raise ValueError(
            f"X has {frame.shape[1]} columns ({_first_five(names)}); images come in "
            "one column. Select it, for instance X[['path']], or use a ColumnTransformer."
        )
    if hasattr(frame, "column_names"):
        return frame.column(0)
    return frame.iloc[:, 0] if hasattr(frame, "iloc") else frame.to_series(0)


def _first_five(names: Any) -> str:
    shown = ", ".join(map(str, list(names)[:5]))
    return f"{shown}, ..." if len(names) > 5 else shown


def _split_array(X: Any) -> list[Any]:
    if getattr(X, "is_nested", False):
        return list(X.unbind())
    if X.ndim == 4 or (X.ndim and len(X) == 0):
        return list(X)
    is_object = isinstance(X, np.ndarray) and X.dtype.kind in "OUS"
    if is_object and X.ndim == 2 and X.shape[1] == 1:
        return list(X[:, 0].tolist())
    if is_object and X.ndim == 1:
        return list(X.tolist())
    if X.ndim == 3:
        raise TypeError(
            f"X is a 3-D {type(X).__name__} of shape {tuple(X.shape)}: a single image goes into "
            "a list ([X]), a stack of grey images as list(X)."
        )
    raise TypeError(
        f"X is a {X.ndim}-D {type(X).__name__} of type {X.dtype}, which holds no images; pass a "
        "list of images, or of lists of them, or a 4-D array (n, H, W, channels)."
    )


def read_all(file: Any) -> bytes:
    """Read an open binary file from its current position, which is restored."""
    position = file.tell() if hasattr(file, "seekable") and file.seekable() else None
    data = file.read()
    if position is not None:
        file.seek(position)
    if position and data in (b"", ""):
        raise ImageDecodeError(
            f"the file is at its end (position {position}), where nothing is left to read: call "
            "file.seek(0)"
        )
    if isinstance(data, str):
        raise ImageDecodeError("the file is open in text mode; open it with mode 'rb'")
    if not isinstance(data, (bytes, bytearray)):
        raise ImageDecodeError(f"its read() gave {_type_name(data)}, expected bytes")
    return bytes(data)


def _tensor_to_hwc(tensor: Any) -> np.ndarray:
    shape = tuple(tensor.shape)
    if tensor.ndim == 3 and shape[0] not in (1, 3, 4):
        raise ImageDecodeError(
            f"a tensor image is (channels, H, W) with 1, 3 or 4 channels, got shape {shape}; "
            "use tensor.permute(2, 0, 1) if its channels come last"
        )
    dense = tensor.detach().to_dense()
    if dense.is_floating_point() and str(dense.dtype) not in _NUMPY_FLOATS:
        dense = dense.float()
    try:
        array: np.ndarray = dense.numpy(force=True)
    except TypeError as error:
        raise ImageDecodeError(
            f"a tensor of {tensor.dtype} holds no pixels that can be read: convert it to "
            "torch.uint8 from 0 to 255, or to float from 0 to 1"
        ) from error
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array


def _from_array(array: np.ndarray) -> Image.Image:
    from PIL import Image

    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ImageDecodeError(
            f"an array image is (H, W) or (H, W, channels) with 1, 3 or 4 channels, got shape "
            f"{array.shape}; use np.moveaxis(image, 0, -1) if its channels come first"
        )
    if array.size == 0:
        raise ImageDecodeError(f"the array is empty (shape {array.shape})")
    image = Image.fromarray(np.ascontiguousarray(_to_uint8(array)))
    if array.dtype == np.uint16 and array.max() > 255:
        note_if_dark(image, int(array.max()))
    return image


def _to_uint8(array: np.ndarray) -> np.ndarray:
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return array
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind == "u" and array.dtype.itemsize == 2:
        # Nobody's photograph is so dark; as of Pillow's mode "I", it holds 8-bit values.
        return _round(array.astype(np.float32) / (257 if array.max() > 255 else 1))
    if kind == "f":
        _check_range(array)
        return _round(array.astype(np.float32) * 255)
    raise ImageDecodeError(
        f"array images are uint8, uint16, bool or float in [0, 1], got {array.dtype}; convert "
        "values from 0 to 255 with .astype('uint8')"
    )


def _check_range(array: np.ndarray) -> None:
    low, high = float(array.min()), float(array.max())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise ImageDecodeError(
            f"float images run from 0 to 1, got values from {low:g} to {high:g}; "
            + _range_advice(low, high)
        )


def _range_advice(low: float, high: float) -> str:
    if low < 0 and max(-low, high) < 10:
        return "it looks normalised (mean/std): pass the image before normalisation"
    if low >= 0 and 2 < high <= 255:
        return "scale them, or convert values from 0 to 255 with .astype('uint8')"
    return "scale them, or clip what a resize or a filter overshot with .clip(0, 1)"


def _round(values: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = np.rint(values).clip(0, 255).astype(np.uint8)
    return rounded


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image that is ours, a strip at a time."""
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    scale = _scale_to_255(image)
    width, height = image.size
    rgb = Image.new("RGB", image.size)
    if DARK in image.info:
        rgb.info[DARK] = image.info[DARK]
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        rgb.paste(_strip_to_rgb(image.crop(box), scale), box)
    return rgb


def _scale_to_255(image: Image.Image) -> float:
    """255 by the value of white in an image of wide numbers, whose range is checked."""
    if image.mode == "F":
        _check_range(np.asarray(image))
        return 255.0
    if not image.mode.startswith("I"):
        return 1.0
    # Pillow clips these at 255. "I" is 32-bit: 16-bit files in older versions of Pillow.
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageDecodeError(
            f"32-bit grey image with values from {low} to {high}; scale it to 8 or 16 bits"
        )
    if not image.mode.startswith("I;16") and high <= 255:
        return 1.0
    note_if_dark(image, high)
    return 1 / 257


def _strip_to_rgb(image: Image.Image, scale: float) -> Image.Image:
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32)
        grey = _round(values * np.float32(scale))
        if isinstance(clear := image.info.get("transparency"), int):
            grey[values == clear] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
