"""On-disk, content-addressed store of image features, kept by SQLite.

The key is a digest of the image's bytes and of all else that its features depend on, so a renamed
or copied file is found again and a changed one is not. SQLite gives what a shared cache needs:
short transactions that take turns, a kill at any moment rolls back what was not committed, and
values are plain float32 bytes (nothing is unpickled), each with a checksum; a damaged one is as
one that is not there. It relies on the locks
of the file system: a store that several processes write must not lie on a network file system
without them.

A store that cannot be written serves what it holds; writing to it is an error, as is a full disk,
and what was stored before stays. A store of an earlier layout is emptied, and its images are
encoded once more; one of a later version of this package is refused.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skhegraph.clip.fingerprint import FileStamps, is_unchanged

# Seconds to wait for another process that is writing.
_LOCK_TIMEOUT = 60.0
# Layout of the file. Another version of the package may have another one.
_LAYOUT = 2
# Features, oldest first by their rowid, with the pixels that were decoded; what is known of models
# as JSON; and the bytes of all features, which a bound is compared with at each write.
_TABLES = (
    "CREATE TABLE features (key BLOB PRIMARY KEY, row BLOB NOT NULL, pixels INTEGER, "
    "checksum INTEGER)",
    "CREATE TABLE models (name TEXT, files TEXT, facts TEXT, PRIMARY KEY (name, files))",
    "CREATE TABLE total (bytes INTEGER)",
    "INSERT INTO total VALUES (0)",
    "CREATE TRIGGER added AFTER INSERT ON features BEGIN "
    "UPDATE total SET bytes = bytes + LENGTH(NEW.row); END",
    "CREATE TRIGGER removed AFTER DELETE ON features BEGIN "
    "UPDATE total SET bytes = bytes - LENGTH(OLD.row); END",
    f"PRAGMA user_version = {_LAYOUT}",
)

__all__ = ["Entry", "FeatureStore"]

Floats = NDArray[np.floating[Any]]


class Entry(NamedTuple):
    """What a store holds of an image: its features, and how many pixels were decoded for them."""

    row: Floats
    pixels: int


class FeatureStore:
    """Features of images under `folder`, shared by threads, processes and runs.

    :class:`CLIPFeatures` fills it, given `cache_dir`; ``len(store)`` is its number of images.

    Parameters
    ----------
    folder : path
        Made if it is missing, "~" expanded; holds one file, ``features.sqlite``, and its journal.
    max_bytes : int or None, default=None
        Bound on the stored features, kept at each write and when the store is closed; the oldest
        go first. None sets no bound.

    Attributes
    ----------
    path : Path
        The file.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_sample_images
    >>> from skhegraph import CLIPFeatures
    >>> from skhegraph.clip.feature_cache import FeatureStore
    >>> folder = tempfile.mkdtemp()
    >>> X = CLIPFeatures("skhegraph-tiny", cache_dir=folder).transform(load_sample_images().images)
    >>> with FeatureStore(folder) as store:
    ...     print(len(store), store.size() < 100_000)
    ...     store.prune(max_bytes=512)
    ...     print(len(store))
    2 True
    1
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int | None = None) -> None:
        whole = os.path.expanduser(os.fsdecode(folder))
        if whole.startswith("~") or "\0" in whole:
            why = (
                "holds a null character" if "\0" in whole else "names a user without a home folder"
            )
            raise ValueError(f"cache_dir={whole!r} {why}: give a whole path.")
        self.path = Path(whole) / "features.sqlite"
        self.max_bytes = max_bytes
        self._lock = threading.Lock()  # one connection for all threads
        _make_folder(self.path.parent)
        with self._errors():
            self._db = sqlite3.connect(
                self.path, timeout=_LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            try:
                self._lay_out(self._db)
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        with self._using() as db:
            return int(db.execute("SELECT COUNT(*) FROM features").fetchone()[0])

    def size(self) -> int:
        """Size of the file in bytes: the features, and what it takes to find them."""
        return self.path.stat().st_size

    def prune(self, max_bytes: int) -> None:
        """Drop features, the oldest first, and shrink the file.

        Parameters
        ----------
        max_bytes : int
            Bytes of features that are kept at most; 0 empties the store.
        """
        with self._using() as db:
            if _excess(db, max_bytes) > 0:
                with _transaction(db):
                    _prune(db, max_bytes)

    def close(self) -> None:
        """Keep the bound, and let go of the file."""
        try:
            if self.max_bytes is not None:
                with suppress(OSError):  # where it cannot be written
                    self.prune(self.max_bytes)
        finally:
            self._db.close()

    def find(self, key: bytes, width: int) -> Entry | None:
        """Entry of a key; None if it is missing or damaged."""
        with self._using() as db:
            return _find(db, key, width)

    def add(self, entries: Mapping[bytes, Entry]) -> dict[bytes, Floats]:
        """Store entries in one transaction, and return the rows that are there then.

        Two writers may make the same row at the same time: the first one stored counts.
        """
        rows = {}
        with self._using() as db, _transaction(db):
            for key, entry in entries.items():
                found = _find(db, key, len(entry.row))
                rows[key] = entry.row if found is None else found.row
                if found is None:
                    blob = entry.row.astype("<f4").tobytes()
                    values = (key, blob, entry.pixels, _checksum(blob, entry.pixels))
                    db.execute("DELETE FROM features WHERE key = ?", (key,))  # a damaged one
                    db.execute("INSERT INTO features VALUES (?, ?, ?, ?)", values)
            if self.max_bytes is not None:
                _prune(db, self.max_bytes)
        return rows

    def check_writable(self) -> None:
        """Raise OSError if nothing can be written, before work is done that would be lost."""
        with self._using() as db, _transaction(db):
            db.execute("UPDATE total SET bytes = bytes")

    def find_model(self, name: str) -> list[Any] | None:
        """What was added for a model whose files did not change since; None if not, or damaged."""
        with self._using() as db:
            query = "SELECT files, facts FROM models WHERE name = ?"
            known = db.execute(query, (name,)).fetchall()
        for files, signed in known:
            facts = _facts(files, signed)
            if facts is not None and is_unchanged(json.loads(files), if_gone=False):
                return facts
        return None

    def add_model(self, name: str, files: FileStamps, facts: Sequence[Any]) -> None:
        """Keep what is known of a model while its files are as they are, if the store can."""
        stamps = json.dumps(files, sort_keys=True)
        values = (name, stamps, json.dumps([*facts, _facts_checksum(stamps, facts)]))
        with suppress(OSError), self._using() as db, _transaction(db):
            db.execute("INSERT OR REPLACE INTO models VALUES (?, ?, ?)", values)

    def drop_model(self, name: str) -> None:
        """Forget a model."""
        with self._using() as db, _transaction(db):
            db.execute("DELETE FROM models WHERE name = ?", (name,))

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time."""
        with self._lock, self._errors():
            yield self._db

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OSError(
                f"cache_dir: the feature store {self.path} cannot be used ({error}). "
                f"{_remedy(error)}"
            ) from error

    def _lay_out(self, db: sqlite3.Connection) -> None:
        """Lay out a file that is new or of an earlier layout; refuse one of a later layout."""
        if (layout := _layout(db)) == _LAYOUT:
            return
        if layout > _LAYOUT:
            raise OSError(
                f"cache_dir: the feature store {self.path} has layout {layout}, from another "
                f"version of skhegraph; this one reads and writes layout {_LAYOUT}. Choose another "
                "cache_dir, or delete it (features are computed again)."
            )
        if layout:
            with _transaction(db):
                if _layout(db) == layout:
                    db.execute("DROP TABLE features")
                    db.execute("PRAGMA user_version = 0")
        db.execute("PRAGMA auto_vacuum = FULL")  # a file shrinks with its rows
        if layout:
            db.execute("VACUUM")  # without which an old file stays as it was
        with _transaction(db):
            if _layout(db) == 0:
                for statement in _TABLES:
                    db.execute(statement)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"cache_dir={str(folder)!r} is a file, or lies in one: name a folder, which is made "
            "if it is missing."
        ) from error
    except OSError as error:
        raise OSError(
            f"cache_dir={str(folder)!r} cannot be made ({error.strerror}): name a folder that you "
            "may write."
        ) from error


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Write all or nothing, alone among the writers."""
    db.execute("BEGIN IMMEDIATE")
    with db:  # commits, or rolls back
        yield


def _layout(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _find(db: sqlite3.Connection, key: bytes, width: int) -> Entry | None:
    query = "SELECT row, pixels, checksum FROM features WHERE key = ?"
    row, pixels, checksum = db.execute(query, (key,)).fetchone() or (b"", 0, None)
    if len(row) != 4 * width or _checksum(row, pixels) != checksum:
        return None
    return Entry(np.frombuffer(row, dtype="<f4"), pixels)


def _checksum(row: bytes, pixels: int) -> int:
    return zlib.crc32(row, zlib.crc32(str(pixels).encode()))


def _facts(files: str, signed: str) -> list[Any] | None:
    """What is known of a model, without its checksum; None if it is damaged."""
    try:
        *facts, checksum = json.loads(signed)
    except (TypeError, ValueError):
        return None
    return facts if checksum == _facts_checksum(files, facts) else None


def _facts_checksum(files: str, facts: Sequence[Any]) -> int:
    return zlib.crc32(f"{files}{json.dumps(list(facts))}".encode())


def _excess(db: sqlite3.Connection, max_bytes: int) -> int:
    """Bytes of features beyond a bound."""
    return int(db.execute("SELECT bytes FROM total").fetchone()[0]) - max_bytes


def _prune(db: sqlite3.Connection, max_bytes: int) -> None:
    """Drop the oldest features beyond a bound, in the open transaction."""
    excess, last = _excess(db, max_bytes), 0
    ages = db.execute("SELECT rowid, LENGTH(row) FROM features ORDER BY rowid")
    while excess > 0 and (oldest := ages.fetchone()):
        last, excess = oldest[0], excess - oldest[1]
    ages.close()
    db.execute("DELETE FROM features WHERE rowid <= ?", (last,))


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
            "again, or choose another cache_dir."
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return (
            f"Another process has been writing for {_LOCK_TIMEOUT:.0f} s: wait, or choose another "
            "cache_dir."
        )
    return "Delete it (features are computed again), or choose another cache_dir."
