"""A support set: unit rows, class indices and weights, and the text node of each class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

Floats: TypeAlias = NDArray[np.floating[Any]]
Ints: TypeAlias = NDArray[np.intp]

#: Bounds of a positive weight of a row or class: products and ratios of a few stay in range.
LEAST_WEIGHT, LARGEST_WEIGHT = 1e-50, 1e50


@dataclass(frozen=True)
class Named:
    """Classes of a support set that have a name and no image.

    Attributes
    ----------
    mask : ndarray of shape (n_all_classes,), bool
        Which of all classes these are.
    positive, negative : ndarray of shape (n_named, n_features), float64
        Their unit text nodes.
    """

    mask: NDArray[np.bool_]
    positive: Floats
    negative: Floats

    def merge(self, with_rows: Floats, named: ArrayLike) -> Floats:
        """Join values of the classes with rows and of these, in the order of all classes."""
        merged: Floats = np.empty((len(self.mask), *with_rows.shape[1:]), with_rows.dtype)
        merged[~self.mask], merged[self.mask] = with_rows, named
        return merged


@dataclass(frozen=True)
class Mixture:
    """Rows without a label, as parts of all classes.

    Attributes
    ----------
    counts : ndarray of shape (n_classes,)
        How many rows of each class they count for.
    sums : ndarray of shape (n_classes, n_features), float64
        Sum of the unit rows, each as much as it counts.
    """

    counts: Floats
    sums: Floats


@dataclass(frozen=True)
class Summed:
    """Rows of the classes that are not kept as rows, as what they add up to.

    Attributes
    ----------
    counts, squares : ndarray of shape (n_classes,)
        Sum of their weights, and of the squares of these, equal rows of a class being one.
    sums : ndarray of shape (n_classes, n_features), float64
        Weighted sum of the unit rows.
    scatter : ndarray of shape (n_features, n_features), float64
        Their weighted scatter about the means of these rows in each class, over all classes.
    """

    counts: Floats
    squares: Floats
    sums: Floats
    scatter: Floats

    def each(self, change: Callable[[Floats], Floats]) -> Summed:
        """The same with a change of what there is of each class."""
        counts, squares, sums = (change(part) for part in (self.counts, self.squares, self.sums))
        return Summed(counts, squares, sums, self.scatter)

    def class_rows(self, X: Floats, y: Ints, weight: Floats) -> tuple[Floats, Ints, Floats]:
        """One row for each class, the mean of these rows and those that are kept; its weight."""
        counts = np.bincount(y, weight) + self.counts
        means = (class_sums(X, y, weight, len(counts)) + self.sums) / counts[:, None]
        return means, np.arange(len(counts)), counts


@dataclass(frozen=True)
class Support:
    """A validated support set with the text nodes of its classes.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features), float64
        Unit rows.
    y : ndarray of shape (n_samples,), intp
        Class indices into `classes_`; every class has a row.
    sample_weight : ndarray of shape (n_samples,), float64
        Positive weights.
    positive, negative : ndarray of shape (n_classes, n_features), float64
        Unit text nodes `P` and `N`.
    logit_scale : float
        CLIP's frozen `exp(logit_scale)`, `tau`.
    named : Named
        Classes without a row; all else leaves them out.
    mixture : Mixture
        Rows without a label; then classes of a name alone are among all others.
    summed : Summed
        More rows of the classes (:mod:`skhegraph.many_rows`).
    """

    X: Floats
    y: Ints
    sample_weight: Floats
    positive: Floats
    negative: Floats
    logit_scale: float
    named: Named | None = None
    mixture: Mixture | None = None
    summed: Summed | None = None

    @property
    def n_classes(self) -> int:
        """Number of classes C that have rows."""
        return len(self.positive)

    @cached_property
    def kept_shots(self) -> Floats:
        """Weighted number of rows in `X` of each class, shape (n_classes,)."""
        return np.bincount(self.y, self.sample_weight, self.n_classes).astype(np.float64)

    @cached_property
    def shots(self) -> Floats:
        """The same with rows that are summed."""
        return self.kept_shots if self.summed is None else self.kept_shots + self.summed.counts

    @property
    def n_rows(self) -> float:
        """Sum of the weights."""
        summed = 0.0 if self.summed is None else self.summed.counts.sum()
        return float(self.sample_weight.sum() + summed)

    @cached_property
    def mass(self) -> Floats:
        """The same with rows without a label too."""
        return self.shots if self.mixture is None else self.shots + self.mixture.counts

    @cached_property
    def visual(self) -> Floats:
        """Visual nodes `V`: the weighted class means, shape (n_classes, n_features)."""
        if not self.beside:
            return class_means(self.X, self.y, self.sample_weight)
        if self.summed is None:
            own = self.onehot.T @ self.X
        else:
            own = class_sums(self.X, self.y, self.sample_weight, self.n_classes)
        for part in self.beside:
            own = own + part.sums
        return own / self.mass[:, None]

    @property
    def beside(self) -> list[Mixture | Summed]:
        """What counts beside the rows in `X`."""
        return [part for part in (self.summed, self.mixture) if part is not None]

    def without_text(self) -> Support:
        """The same with class means for positive nodes, as where there is no text."""
        means = self.visual
        P, N = unit_rows(means), unit_rows(mean_of_others(means))
        return replace(self, positive=P, negative=N)

    @cached_property
    def onehot(self) -> Floats:
        """Weighted one-hot labels `L`, shape (n_samples, n_classes)."""
        labels = np.zeros((len(self.y), self.n_classes))
        labels[np.arange(len(self.y)), self.y] = self.sample_weight
        return labels


def unit_rows(X: ArrayLike) -> Floats:
    """Scale each row to unit L2 length; a zero row stays zero. Keeps single precision."""
    X = np.asarray(X)
    if X.dtype != np.float32:
        X = np.asarray(X, dtype=np.float64)
    with np.errstate(all="ignore"):
        squares = np.einsum("...i,...i->...", X, X)
        Z: Floats = X / np.sqrt(squares)[..., None]
        # Where squares leave the range of the precision, the largest entry is divided out first.
        least = np.finfo(X.dtype).tiny ** 0.75
        extreme = ~((squares > least) & (squares < 1 / least))
        if extreme.any():
            rows = X[extreme]
            largest = np.abs(rows).max(axis=-1, keepdims=True, initial=0)
            rows = rows / np.where(largest > 0, largest, 1)
            Z[extreme] = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1)
    return Z


def class_sums(X: Floats, y: Ints, weight: Floats, n_classes: int) -> Floats:
    """Weighted sum of the rows of each class."""
    sums: Floats = csr_array((weight, (y, np.arange(len(y)))), shape=(n_classes, len(y))) @ X
    return sums


def class_means(X: Floats, y: Ints, weight: Floats) -> Floats:
    """Weighted mean row of each class, of which every one has a row."""
    counts = np.bincount(y, weights=weight)
    return class_sums(X, y, weight, len(counts)) / counts[:, None]


def mean_of_others(nodes: Floats) -> Floats:
    """Mean of the other classes' nodes for each class: negatives where no text gives any."""
    return (nodes.sum(axis=0) - nodes) / (len(nodes) - 1)


def sums_of_cubes(X: Floats) -> Floats:
    """A number for each row to sort by: neither last digits nor the order of features tell."""
    sums: Floats = np.einsum("ij,ij,ij->i", X, X, X)
    return sums


def distinct_rows(X: Floats, y: Ints, weight: Floats) -> tuple[Floats, Ints, Floats]:
    """Merge equal rows of a class by adding their weights; sort rows by class, then by value."""
    first: dict[tuple[int, bytes], int] = {}
    group = [
        first.setdefault((int(c), blake2b(x + 0.0, digest_size=16).digest()), i)  # -0 is 0
        for i, (c, x) in enumerate(zip(y, X, strict=True))
    ]
    kept = np.array([first[key] for key in sorted(first)])  # by digest, where values are equal
    kept = kept[np.lexsort([sums_of_cubes(X)[kept], y[kept]])]
    total: Floats = np.zeros(len(y))
    np.add.at(total, group, weight)
    return X[kept], y[kept], total[kept]


def weights_in_range(weight: Floats) -> NDArray[np.bool_]:
    """Which weights are positive and within bounds."""
    weight = weight.astype(np.float64)
    return (weight >= LEAST_WEIGHT) & (weight <= LARGEST_WEIGHT)


def effective_weights(weight: Floats) -> Floats:
    """Scale weights to sum to Kish's effective number of rows, `(sum w)^2 / sum w^2`.

    Equal weights become 1, and a constant factor on all weights changes nothing.
    """
    weight = weight / weight.max()
    return weight * (weight.sum() / np.square(weight).sum())


def effective(weight: Floats, summed: Summed | None) -> tuple[Floats, Summed | None]:
    """The same for weights of rows that are kept, and for those that are summed, together."""
    if summed is None:
        return effective_weights(weight), None
    total = weight.sum() + summed.counts.sum()
    factor = total / (np.square(weight).sum() + summed.squares.sum())
    scaled = summed.each(lambda part: factor * part)
    squares, scatter = factor**2 * summed.squares, factor * summed.scatter
    return factor * weight, replace(scaled, squares=squares, scatter=scatter)


def with_rows_from_text(support: Support) -> Support:
    """Give each class that has a name alone a row where its text says that its images are.

    For a support set whose rows are all of one class, which leave nothing to estimate: the mean of
    that class, moved by the difference of the texts.
    """
    named = support.named
    assert named is not None and support.n_classes == 1
    guess = unit_rows(support.visual + named.positive - support.positive)
    summed = support.summed
    own, others = np.flatnonzero(~named.mask), np.flatnonzero(named.mask)
    return Support(
        np.vstack([support.X, guess]),
        np.concatenate([np.repeat(own, len(support.X)), others]),
        np.concatenate([support.sample_weight, np.ones(len(others))]),
        named.merge(support.positive, named.positive),
        named.merge(support.negative, named.negative),
        support.logit_scale,
        summed=None if summed is None else summed.each(lambda part: named.merge(part, 0)),
    )


def in_span(support: Support) -> tuple[Support, Floats]:
    """Coordinates of a support set in the span of its rows and positive nodes, and their basis.

    (And of what rows without a label add up to.)

    What lies outside changes the logits of all classes alike. Where the span is all of the
    features, or nearly, the basis is the identity.

    Returns
    -------
    Support
        The same rows and nodes in `r` coordinates; the negative nodes lose what lies outside.
    ndarray of shape (r, n_features)
        Orthonormal rows.
    """
    n_features, named, mixture = support.X.shape[1], support.named, support.mixture
    nodes = [support.positive] if named is None else [support.positive, named.positive]
    if mixture is not None:
        nodes.append(mixture.sums)
    if 2 * (len(support.X) + sum(map(len, nodes))) > n_features:
        return support, np.eye(n_features)
    basis = np.linalg.qr(np.vstack([support.X, *nodes]).T)[0].T
    parts = (array @ basis.T for array in (support.X, support.positive, support.negative))
    X, positive, negative = parts
    if named is not None:
        nodes = [array @ basis.T for array in (named.positive, named.negative)]
        named = Named(named.mask, *nodes)
    inside = replace(support, X=X, positive=positive, negative=negative, named=named)
    if mixture is not None:
        inside = replace(inside, mixture=replace(mixture, sums=mixture.sums @ basis.T))
    return inside, basis
