"""The one way from images to rows: read, look up, decode, encode, store.

A worker thread reads an image once, digests what it read, and asks the store for it; what the
store lacks it decodes from what it read. The caller's thread gathers those into batches, encodes
them, and stores each batch as it is finished. Where it meets another process at the same work, it
goes on elsewhere, so that they share it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import normalize

from skhegraph.clip.digests import known_digest, read_image
from skhegraph.clip.feature_cache import Entry, FeatureStore
from skhegraph.clip.images import DARK, ImageDecodeError, decode_image
from skhegraph.clip.threads import map_ahead
from skhegraph.clip.views import make_views
from skhegraph.progress import progress

if TYPE_CHECKING:
    from skhegraph.clip.known_model import KnownModel

__all__ = ["Encoding"]

Floats = NDArray[np.floating[Any]]


class Decoded(NamedTuple):
    """Views of an image at the model's size, its key in the store, and the pixels of its file.

    `dark` tells why it comes out near black, where that may be a mistake.
    """

    views: list[np.ndarray]
    key: bytes
    pixels: int
    dark: str


@dataclass(frozen=True)
class Encoding:
    """How images become rows.

    Parameters
    ----------
    model : KnownModel
        What encodes.
    store : FeatureStore or None
        Where rows are kept.
    n_views : int
        Views of an image that its row is the mean of.
    batch_size, num_workers, max_pixels, draft, verbose
        As of :class:`skhegraph.clip.features.CLIPFeatures`.
    all_or_none : bool
        Whether rows are of no use once an image is unreadable, so that no more are made.
    """

    model: KnownModel
    store: FeatureStore | None
    n_views: int
    batch_size: int
    num_workers: int | None
    max_pixels: int | None
    draft: bool
    verbose: int
    all_or_none: bool

    def rows(self, sources: Sequence[Any]) -> tuple[Floats, dict[int, str], dict[int, str]]:
        """Encode distinct images.

        Parameters
        ----------
        sources : sequence of n images
            As of :func:`skhegraph.clip.images.decode_image`.

        Returns
        -------
        ndarray of shape (n, D), float32
            Rows of unit length; NaN for those unreadable.
        dict from int to str
            Positions of those, with the reasons.
        dict from int to str
            Positions of images that come out near black, with the reasons.
        """
        n = len(sources)
        features = np.full((n, self.model.n_features), np.nan, dtype=np.float32)
        errors: dict[int, str] = {}
        dark: dict[int, str] = {}
        batch: dict[int, Decoded] = {}
        first: dict[bytes, int] = {}  # where each new image comes first
        copies: dict[int, int] = {}
        todo = deque(range(n))

        def finish() -> None:
            """Encode the batch at hand."""
            if batch and not (errors and self.all_or_none):
                features[list(batch)], met_another = self._encode(list(batch.values()))
                if met_another and todo:
                    todo.rotate(-int(np.random.default_rng().integers(len(todo))))
            batch.clear()

        def read(i: int) -> tuple[int, str | Floats | Decoded]:
            """Number of an image, and what became of it."""
            return i, self._read(sources[i])

        per_batch = max(1, self.batch_size // self.n_views)
        taken = (todo.popleft() for _ in range(n))
        with closing(map_ahead(read, taken, n, self.num_workers, 2 * per_batch)) as results:
            for i, result in progress(
                results, n, shown=bool(self.verbose), what="CLIPFeatures", unit="image"
            ):
                if isinstance(result, str):
                    errors[i] = result
                elif isinstance(result, np.ndarray):
                    features[i] = result
                elif result.key and first.setdefault(result.key, i) != i:
                    copies[i] = first[result.key]
                else:
                    batch[i] = result
                if isinstance(result, Decoded) and result.dark:
                    dark[i] = result.dark
                if len(batch) == per_batch:
                    finish()
            finish()
        features[list(copies)] = features[list(copies.values())]
        return features, errors, dark

    def _read(self, source: Any) -> str | Floats | Decoded:
        """Why an image is unreadable, its row if it is stored, or what is to be encoded."""
        try:
            if self.store is None:
                return self._decoded(source, b"", is_file=False)
            digest = known_digest(source)
            if digest is not None and (row := self._stored(self._key(digest))) is not None:
                return row
            content, digest = read_image(source)
            key = self._key(digest)
            row = self._stored(key)
            is_file = isinstance(content, (bytes, bytearray, memoryview))
            return self._decoded(content, key, is_file=is_file) if row is None else row
        except ImageDecodeError as error:
            return str(error)

    def _decoded(self, content: Any, key: bytes, *, is_file: bool) -> Decoded:
        backbone = self.model.load()
        least_side = self.model.least_side if self.draft else None
        image = decode_image(content, least_side, self.max_pixels)
        views = [backbone.resize(view) for view in make_views(image, self.n_views)]
        pixels = image.width * image.height if is_file else 0
        return Decoded(views, key, pixels, image.info.get(DARK, ""))

    def _encode(self, images: Sequence[Decoded]) -> tuple[Floats, bool]:
        """Rows of a batch, in passes of `batch_size` views at most; they are stored.

        Also whether the store has got some of them from another process meanwhile.
        """
        backbone, size = self.model.load(), self.batch_size
        views = [view for image in images for view in image.views]
        passes = (views[start : start + size] for start in range(0, len(views), size))
        rows = np.concatenate([backbone.encode_pixels(part) for part in passes])
        rows = _unit_means(rows, self.n_views)
        if self.store is None:
            return rows, False
        new = {image.key: Entry(row, image.pixels) for image, row in zip(images, rows, strict=True)}
        stored = self.store.add(new)
        met_another = any(stored[key] is not entry.row for key, entry in new.items())
        return np.stack([stored[image.key] for image in images]), met_another

    def _stored(self, key: bytes) -> Floats | None:
        """Row of a key, if the bound on the pixels allows its image."""
        assert self.store is not None
        entry = self.store.find(key, self.model.n_features)
        if entry is None or (self.max_pixels is not None and entry.pixels > self.max_pixels):
            return None
        return entry.row

    def _key(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, digest_size=20, key=self._namespace).digest()

    @cached_property
    def _namespace(self) -> bytes:
        """Digest of what features depend on besides the image."""
        draft = f" least side {self.model.least_side}" if self.draft else ""
        views = f" {self.n_views} views" if self.n_views > 1 else ""
        return hashlib.sha256((self.model.fingerprint + draft + views).encode()).digest()


def _unit_means(rows: Floats, n: int) -> Floats:
    """Mean of each n rows in turn, at unit length."""
    if n == 1:
        return rows
    means: Floats = normalize(rows.reshape(-1, n, rows.shape[1]).mean(axis=1))
    return means
