"""Very many labelled rows: some stay rows, and the others enter a fit as sums.

A fit holds about 8 KB of a row of 512 features. Class means and covariance, which are most of what
many rows tell, are sums over them. So of a set of more than :func:`most_rows` rows some are kept,
equally many of each class as far as it has them. On these rest what is estimated on held-out rows
(weights of the branches, shrinkage, familiarity) and the training of text nodes. The others enter
by counts, sums and scatter, in double precision and a block at a time, so that a memory-mapped file
is read and never copied. Which rows are kept depends on their values, not on their order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skhegraph.labelled_rows import LabelledRows
from skhegraph.parallel import for_rows, one_blas_thread, sum_rows
from skhegraph.support import Floats, Ints, Summed, class_means, class_sums, unit_rows

#: Numbers of the rows that are kept, at most (a quarter of a GB in double precision), but for
#: `ROWS_OF_A_CLASS` of each class: training on fewer would tell.
NUMBERS_KEPT, ROWS_OF_A_CLASS = 2**25, 256


def most_rows(n_classes: int, n_features: int) -> int:
    """Rows up to which all are kept; never fewer than there are features."""
    return max(NUMBERS_KEPT // n_features, ROWS_OF_A_CLASS * n_classes, n_features)


def keep_some(rows: LabelledRows, chosen: NDArray[np.bool_]) -> LabelledRows:
    """Take the chosen rows; of more than :func:`most_rows` some, with the sums of the others.

    Then equal rows of a class become one that has the sum of their weights.

    Parameters
    ----------
    rows : LabelledRows
        Rows as given; they are read in blocks.
    chosen : ndarray of shape (n_samples,), bool
        Which of them have a label, and an image that could be read.
    """
    number = np.flatnonzero(chosen)
    labels, y = np.unique(rows.y[number], return_inverse=True)
    most = most_rows(len(labels), rows.X.shape[1])
    if len(number) <= most:
        return rows.take(chosen)
    weight = rows.weight[number]
    first, group = equal_rows(y, weight, hash_rows(rows.X, number))
    total, of_first = np.bincount(group, weight).astype(np.float64), y[first]
    rank = np.arange(len(first)) - np.searchsorted(of_first, of_first)  # within the class
    is_kept = rank < (np.partition(rank, most)[most] if len(rank) > most else most)
    kept = np.flatnonzero(is_kept)
    kept = kept[np.argsort(first[kept])]
    few = rows.take(number[first[kept]])._replace(weight=total[kept])
    if is_kept.all():
        return few
    near = class_means(unit_rows(few.X), of_first[kept], np.ones(len(kept)))
    left = np.flatnonzero(~is_kept[group])
    sums, scatter = moments(rows.X, number[left], y[left], weight[left], near)
    counts = np.bincount(y[left], weight[left], len(labels)).astype(np.float64)
    squares = np.bincount(of_first, np.where(is_kept, 0, np.square(total))).astype(np.float64)
    with_rows = np.bincount(y, weight) > 0
    summed = Summed(counts, squares, sums, scatter).each(lambda part: part[with_rows])
    return few._replace(summed=summed)


def equal_rows(y: Ints, weight: Floats, hashes: NDArray[np.uint64]) -> tuple[Ints, Ints]:
    """First row of each group of equal rows of a class, and the group of each row.

    Groups are in the order of the classes, in one those of weight 0 last, then of the hashes.
    """
    keys = hashes, weight == 0, y
    order = np.lexsort(keys)
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    group = np.empty(len(order), dtype=np.intp)
    group[order] = np.cumsum(new) - 1
    return order[new], group


def unit_rows_of(X: Floats, rows: Ints) -> Floats:
    """Unit rows of a block, in double precision, without negative zeros."""
    return unit_rows(X[rows].astype(np.float64)) + 0.0


def hash_rows(X: Floats, number: Ints) -> NDArray[np.uint64]:
    """Hash of each unit row, a sum of random multiples of its numbers' bits, modulo 2^64."""
    rng = np.random.RandomState(0)  # a fit is no lottery
    factors = rng.randint(0, 2**64, X.shape[1], dtype=np.uint64) | np.uint64(1)
    hashes: NDArray[np.uint64] = np.empty(len(number), np.uint64)

    def fill(block: slice) -> None:
        """Hash a block of rows."""
        hashes[block] = unit_rows_of(X, number[block]).view(np.uint64) @ factors

    for_rows(fill, len(number), X.shape[1])
    return hashes


def moments(
    X: Floats, number: Ints, y: Ints, weight: Floats, origin: Floats
) -> tuple[Floats, Floats]:
    """Weighted sums of the unit rows of each class, and their scatter about the class means.

    `origin` holds a point near to the rows of each class, about which they are summed: what is
    large in all of them would cost the scatter its last digits.
    """
    n_classes, width = origin.shape
    root = np.sqrt(weight)

    def of_block(block: slice) -> Floats:
        """Products of the features and, below, sums of the classes of a block of rows."""
        away = root[block, None] * (unit_rows_of(X, number[block]) - origin[y[block]])
        return np.vstack([away.T @ away, class_sums(away, y[block], root[block], n_classes)])

    with one_blas_thread():
        both = sum_rows(of_block, len(number), max(width, n_classes))
    counts = np.bincount(y, weight, n_classes)[:, None]
    products, sums = both[:width], both[width:]
    means = sums / np.where(counts > 0, counts, 1)
    return sums + counts * origin, products - sums.T @ means
