"""On-disk, content-addressed store of image features, kept by SQLite.

The key is a digest of the image's bytes and of all else that its features depend on, so a renamed
or copied file is found again and a changed one is not. SQLite gives what a shared cache needs:
short transactions that take turns, a kill at any moment rolls back what was not committed, and
values are plain float32 bytes (nothing is unpickled), each with a checksum. It relies on the locks
of the file system: a store that several processes write must not lie on a network file system
without them.

A store that cannot be written serves what it holds. A row that it lacks is then an error, as is a
full disk; what was stored before stays. A store of another layout, from another version of this
package, is refused; rows of one that made features in another way are not found.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Seconds to wait for another process that is writing.
_LOCK_TIMEOUT = 60.0
# Layout of the file. Another version of the package may have another one.
_LAYOUT = 1
# Keys per statement.
_LOOKUP_CHUNK = 500

__all__ = ["FeatureStore"]

Floats = NDArray[np.floating[Any]]


class FeatureStore:
    """Features of images under `folder`, shared by threads, processes and runs.

    Parameters
    ----------
    folder : path
        Made if it is missing; holds one file, ``features.sqlite``, and its journal.
    namespace : str
        What else the features depend on, such as the fingerprint of the model.
    width : int
        Feature width.
    max_bytes : int or None
        Bound on the stored features; the oldest go first. None sets no bound.
    """

    def __init__(
        self, folder: str | os.PathLike[str], namespace: str, width: int, max_bytes: int | None
    ) -> None:
        self.path = Path(folder) / "features.sqlite"
        self.namespace = hashlib.sha256(namespace.encode()).digest()
        self.width = width
        self.max_bytes = max_bytes
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def key(self, image: bytes) -> bytes:
        """Digest of an image (or of its digest) within the namespace."""
        return hashlib.blake2b(image, digest_size=20, key=self.namespace).digest()

    def get_or_compute(
        self, keys: Sequence[bytes], compute: Callable[[list[int]], Floats]
    ) -> Floats:
        """Rows of the keys; those not stored are computed and stored.

        Two writers may compute the same row at the same time: the first one stored counts, and
        both return it.

        Parameters
        ----------
        keys : sequence of bytes
            Distinct keys.
        compute : callable
            Takes the positions of missing keys and returns their rows, shape (n_missing, width);
            rows that are not finite are not stored. It runs outside of any lock.

        Returns
        -------
        ndarray of shape (n_keys, width), float32
            One row per key.

        Raises
        ------
        OSError
            If the file is no store or cannot be read or written.
        """
        out = np.empty((len(keys), self.width), dtype=np.float32)
        with self._open() as db:
            missing = self._look_up(db, keys, range(len(keys)), out)
        if missing:
            out[missing] = compute(missing)
            done = [i for i in missing if np.isfinite(out[i]).all()]
            with self._open() as db:
                db.execute("BEGIN IMMEDIATE")
                still_missing = self._look_up(db, keys, done, out)
                self._write(db, [(keys[i], out[i]) for i in still_missing])
                db.execute("COMMIT")
        return out

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Connection that rolls back what is not committed when it closes."""
        try:
            with closing(
                sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT, isolation_level=None)
            ) as db:
                self._check_layout(db)
                yield db
        except sqlite3.Error as error:
            raise OSError(
                f"cache_dir: the feature store {self.path} cannot be used ({error}). "
                f"{_remedy(error)}"
            ) from error

    def _check_layout(self, db: sqlite3.Connection) -> None:
        """Lay out a new file; raise OSError if an old one is of another layout."""
        layout = db.execute("PRAGMA user_version").fetchone()[0]
        if layout == 0:
            db.execute(
                "CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, "
                "row BLOB NOT NULL, checksum INTEGER, written REAL)"
            )
            db.execute(f"PRAGMA user_version = {_LAYOUT}")
        elif layout != _LAYOUT:
            raise OSError(
                f"cache_dir: the feature store {self.path} has layout {layout}, from another "
                f"version of skhegraph; this one reads and writes layout {_LAYOUT}. Choose another "
                "cache_dir, or delete it (features are computed again)."
            )

    def _look_up(
        self, db: sqlite3.Connection, keys: Sequence[bytes], wanted: Sequence[int], out: Floats
    ) -> list[int]:
        """Fill the stored rows; return the positions that are missing or damaged."""
        missing = []
        for start in range(0, len(wanted), _LOOKUP_CHUNK):
            positions = wanted[start : start + _LOOKUP_CHUNK]
            chunk = [keys[i] for i in positions]
            marks = ",".join("?" * len(chunk))
            query = f"SELECT key, row, checksum FROM features WHERE key IN ({marks})"
            found = {key: (row, checksum) for key, row, checksum in db.execute(query, chunk)}
            for i in positions:
                row, checksum = found.get(keys[i], (b"", None))
                if len(row) == 4 * self.width and zlib.crc32(row) == checksum:
                    out[i] = np.frombuffer(row, dtype="<f4")
                else:
                    missing.append(i)
        return missing

    def _write(self, db: sqlite3.Connection, rows: Sequence[tuple[bytes, Floats]]) -> None:
        """Insert rows and evict the oldest beyond the bound, in the open transaction."""
        now = time.time()
        blobs = ((key, row.astype("<f4").tobytes()) for key, row in rows)
        db.executemany(
            "INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)",
            ((key, blob, zlib.crc32(blob), now) for key, blob in blobs),
        )
        if self.max_bytes is not None:
            db.execute(
                "DELETE FROM features WHERE key IN (SELECT key FROM (SELECT key, SUM(LENGTH(row)) "
                "OVER (ORDER BY written DESC, rowid DESC) AS total FROM features) "
                "WHERE total > ?)",
                (self.max_bytes,),
            )


def _remedy(error: sqlite3.Error) -> str:
    """Say what to do about an error of SQLite."""
    name = getattr(error, "sqlite_errorname", "")  # from Python 3.11 on
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return (
            "It cannot be written, and does not hold all that is asked for. Make the folder "
            "writable, or choose another cache_dir."
        )
    if name.startswith(("SQLITE_PROTOCOL", "SQLITE_NOLFS", "SQLITE_IOERR_LOCK")):
        return "The file system has no locks that work: choose a cache_dir on a local one."
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_NOMEM")):
        return (
            "The disk may be full or failing. What was stored before is safe: make room and run "
            "again, set cache_max_bytes, or choose another cache_dir."
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return (
            f"Another process has been writing for {_LOCK_TIMEOUT:.0f} s: wait, or choose another "
            "cache_dir."
        )
    return "Delete it (features are computed again), or choose another cache_dir."
