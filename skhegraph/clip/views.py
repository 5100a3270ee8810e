"""Several views of one image: itself, then random crops and flips that its pixels decide."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SMALLEST_AREA", "make_views"]

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
