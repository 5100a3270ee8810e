"""The classes near to a block of rows: of very many, training looks at no others.

A support set is sorted by class, so that a block of its rows has few classes, and of the others few
have a probability worth mentioning. Those that have none for any row of the block count by the sum
of their exponentials, which training leaves as it was.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skhegraph.support import Floats, Ints

#: Classes up to which all are near.
ALL_NEAR = 500
#: Ratio to the largest probability of a row from which on a class is near to its block.
LEAST_RATIO = 1e-3


class Near(NamedTuple):
    """Logits of a block of rows at the classes near to it.

    Attributes
    ----------
    classes : ndarray of shape (k,), intp, or slice
        Which classes are near, in their order; a slice where all are.
    own : ndarray of shape (n_rows,), intp
        Where among them the class of each row is.
    logits : ndarray of shape (n_rows, k)
        Their logits.
    others : ndarray of shape (n_rows,)
        Logarithm of the sum of exponentials over the others; -inf where there are none.
    """

    classes: Ints | slice
    own: Ints
    logits: Floats
    others: Floats


def near_classes(logits: Floats, y: Ints) -> Near:
    """Choose the classes near to a block of rows.

    Parameters
    ----------
    logits : ndarray of shape (n_rows, n_classes)
        Logits of the rows; they are given back where all classes are near.
    y : ndarray of shape (n_rows,)
        Class of each row.
    """
    n_rows, n_classes = logits.shape
    if n_classes <= ALL_NEAR:
        return Near(slice(None), y, logits, np.full(n_rows, -np.inf, logits.dtype))
    largest = logits.max(axis=1)
    ratio = logits - largest[:, None]
    np.exp(ratio, out=ratio)
    near = ratio.max(axis=0) > LEAST_RATIO
    near[y] = True
    classes = np.flatnonzero(near)
    with np.errstate(divide="ignore"):  # the logarithm of 0 is -inf
        others = np.log(ratio @ (~near).astype(ratio.dtype)) + largest
    return Near(classes, np.searchsorted(classes, y), logits[:, classes], others)
