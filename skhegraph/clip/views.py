"""Several views of one image: itself, then random crops and flips that its pixels decide.

And the view that a model reads of an image so long that resizing it whole would fill the memory.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SMALLEST_AREA", "keep_a_pixel", "make_views", "resize_middle"]

# Long by short side from which only the middle is resized; whole, it takes at most 32 squares.
_EXTREME = 32
_MARGIN = 8  # pixels beside the middle: more than what the widest filter (Lanczos) reaches, 3

SMALLEST_AREA = 0.8
"""Least share of the largest square in the image that a crop covers."""


def make_views(image: Image.Image, n_views: int) -> list[Image.Image]:
    """Make views of an image that depend on its pixels and on nothing else.

    Parameters
    ----------
    image : PIL.Image.Image
        An RGB image.
    n_views : int
        Number of views, at least 1.

    Returns
    -------
    list of n_views PIL.Image.Image
        The image itself, then square crops anywhere in it, half of them flipped left to right.
        The first views of more are the views of fewer.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.clip.images import decode_image
    >>> from skhegraph.clip.views import make_views
    >>> image = decode_image(np.eye(8))
    >>> len(make_views(image, 3)), make_views(image, 3)[0] is image
    (3, True)
    """
    if n_views == 1:
        return [image]
    content = hashlib.blake2b(f"{image.size}".encode() + image.tobytes()).digest()
    rng = np.random.default_rng(list(content))
    return [image, *(_random_view(image, rng) for _ in range(n_views - 1))]


def _random_view(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    from PIL import ImageOps

    width, height = image.size
    side = max(1, round(min(width, height) * rng.uniform(SMALLEST_AREA, 1) ** 0.5))
    left, top = rng.integers(width - side + 1), rng.integers(height - side + 1)
    view = image.crop((left, top, left + side, top + side))
    return ImageOps.mirror(view) if rng.random() < 0.5 else view


def keep_a_pixel(image: Image.Image, geometry: Any) -> Image.Image:
    """Resize an image so long that a model which reads all of it would be left without a width.

    Parameters
    ----------
    image : PIL.Image.Image
        An RGB image.
    geometry : torchvision.transforms.Compose
        What the model does to an image.

    Returns
    -------
    PIL.Image.Image
        The image itself unless `geometry` begins with the resize of the long side and rounds the
        short one to nothing; then one whose sides are the model's and 1.
    """
    if type(geometry.transforms[0]).__name__ != "ResizeKeepRatio":  # open_clip's
        return image
    side = max(geometry.transforms[0].size)
    sides = [round(length * side / max(image.size)) for length in image.size]
    return image if min(sides) else image.resize((max(sides[0], 1), max(sides[1], 1)))


def resize_middle(image: Image.Image, geometry: Any) -> Image.Image | None:
    """Resize an image of an extreme ratio and crop its middle, without resizing the rest.

    Parameters
    ----------
    image : PIL.Image.Image
        An RGB image.
    geometry : torchvision.transforms.Compose
        What the model does to an image.

    Returns
    -------
    PIL.Image.Image or None
        What `geometry` makes of it, up to rounding. None if the ratio is ordinary, or if `geometry`
        is anything but the resize of the short side and a crop of the middle.
    """
    from PIL import Image
    from torchvision.transforms import CenterCrop, Resize
    from torchvision.transforms.functional import pil_modes_mapping

    short, long = sorted(image.size)
    steps = geometry.transforms
    if long < _EXTREME * short or [type(step) for step in steps] != [Resize, CenterCrop]:
        return None
    size = steps[0].size if isinstance(steps[0].size, int) else 0
    crop = tuple(steps[1].size)
    if crop != (size, size) or steps[0].max_size is not None:
        return None
    resized = int(size * long / short)  # as torchvision rounds it, and the start of the crop
    start = round((resized - size) / 2)
    scale = long / resized
    left, right = start * scale, (start + size) * scale
    margin = _MARGIN * max(1.0, short / size)
    first, last = max(0, int(left - margin)), min(long, int(right + margin) + 1)
    # Pillow holds a box in single precision: its numbers are small in the window.
    near, far = left - first, min(right - first, last - first)
    box: tuple[float, float, float, float]
    if image.width >= image.height:
        window, box = image.crop((first, 0, last, short)), (near, 0, far, short)
    else:
        window, box = image.crop((0, first, short, last)), (0, near, short, far)
    resample = Image.Resampling(pil_modes_mapping[steps[0].interpolation])
    return window.resize(crop, resample, box=box)
