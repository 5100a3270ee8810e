"""Items of one photograph or of several, as of a thing for sale: one row for each.

The row `x` of an item with photographs `p = 1..k`, whose unit rows are `f_p`, is their mean at unit
length, `x = sum_p f_p / ||sum_p f_p||`, over those that can be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import normalize

from skhegraph.clip.images import as_image_list

__all__ = ["Items", "one_image_each", "split_items"]

Floats = NDArray[np.floating[Any]]
_ACCEPTED = (
    "an item is an image or a list of images. Images as nested lists of numbers go through "
    "numpy.asarray"
)


@dataclass(frozen=True)
class Items:
    """Photographs of all items in one list, item by item; its length is the number of items.

    Attributes
    ----------
    photographs : list
        Images, undecoded.
    starts : ndarray of shape (n_items,), intp
        Where the photographs of each item start.
    several : ndarray of shape (n_items,), bool
        Which items were given as a list, of one photograph or more.
    """

    photographs: list[Any]
    starts: NDArray[np.intp]
    several: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.starts)

    def index(self, photograph: int) -> str:
        """How a photograph is found in what was given: ``"[3]"``, or ``"[3][0]"`` of several."""
        item = int(np.searchsorted(self.starts, photograph, side="right")) - 1
        within = f"[{photograph - self.starts[item]}]" if self.several[item] else ""
        return f"[{item}]{within}"

    def unit_means(self, rows: Floats) -> Floats:
        """Rows of the items from those of their photographs, of unit length or NaN throughout.

        Parameters
        ----------
        rows : ndarray of shape (n_photographs, D)
            Unit rows; NaN for photographs that cannot be read.

        Returns
        -------
        ndarray of shape (n_items, D)
            Unit rows, of the type of `rows`; NaN for items of which no photograph can be read.
        """
        if len(self) == len(rows):
            return rows
        readable = ~np.isnan(rows[:, 0])
        found = np.add.reduceat(readable, self.starts, dtype=np.intp)
        known = np.where(readable[:, None], rows, 0)
        means: Floats = np.add.reduceat(known, self.starts, axis=0, dtype=np.float64)
        if (several := found > 1).any():  # one alone stays as it is
            means[several] = normalize(means[several])
        means[found == 0] = np.nan
        return means.astype(rows.dtype)


def split_items(X: Any) -> Items:
    """Check a container of items, and list their photographs.

    Parameters
    ----------
    X : container of images, as of :func:`skhegraph.clip.images.as_image_list`
        An entry that is a list, a tuple, or a 1-D array of paths holds the photographs of one item.

    Returns
    -------
    Items
        The photographs, in the order of `X`.

    Raises
    ------
    TypeError
        If `X` is no container, or an item holds what is no image but numbers or lists.
    ValueError
        If `X` or an item is empty.

    Examples
    --------
    >>> from skhegraph.clip.items import split_items
    >>> items = split_items([["front.png", "back.png"], "cup.png"])
    >>> len(items), items.photographs, items.index(1), items.index(2)
    (2, ['front.png', 'back.png', 'cup.png'], '[0][1]', '[1]')
    """
    given = as_image_list(X)
    several = np.array([_is_several(item) for item in given])
    if not several.any():
        return Items(given, np.arange(len(given)), several)
    photographs: list[Any] = []
    starts = np.empty(len(given), dtype=np.intp)
    for i, item in enumerate(given):
        starts[i] = len(photographs)
        photographs += _photographs(item, f"X[{i}]") if several[i] else [item]
    return Items(photographs, starts, several)


def one_image_each(X: Any, name: str, also: str = "") -> list[Any]:
    """List the images of a container where one picture stands for an item.

    Parameters
    ----------
    X : container of images, as of :func:`skhegraph.clip.images.as_image_list`
        Images.
    name : str
        What it is called in an error.
    also : str, default=""
        What to give beside one image of each item.

    Returns
    -------
    list
        The images, undecoded.

    Raises
    ------
    TypeError
        If an item has several photographs; else as of `as_image_list`.
    """
    images = as_image_list(X)
    for i, item in enumerate(images):
        if _is_several(item):
            raise TypeError(
                f"{name}[{i}] is a list of photographs, and one picture stands for an item here: "
                f"give one of each, {name}=[item[0] for item in items]{also}."
            )
    return images


def _is_several(item: Any) -> bool:
    """Tell an item given as a list of photographs: an array of paths too, which is no image."""
    if isinstance(item, np.ndarray):
        return item.ndim == 1 and item.dtype.kind in "OUS"
    return isinstance(item, (list, tuple))


def _photographs(item: Any, name: str) -> list[Any]:
    """Photographs of an item, undecoded."""
    if not len(item):
        raise ValueError(f"{name} holds no image: give one at least, or leave the item out.")
    for k, part in enumerate(item):
        if _is_number(part):
            raise TypeError(
                f"{name} holds a number ({type(part).__name__}) at {k}: {_ACCEPTED}, pairs of "
                "image and label through [image for image, label in data]."
            )
        if _is_several(part):
            raise TypeError(f"{name}[{k}] is a {type(part).__name__} within a list: {_ACCEPTED}.")
    return as_image_list(item)


def _is_number(part: Any) -> bool:
    """Tell a number, also as an array or tensor without dimensions."""
    if isinstance(part, (str, bytes)):
        return False
    return isinstance(part, (Number, np.bool_)) or getattr(part, "ndim", None) == 0
