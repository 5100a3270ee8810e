"""Digests: by content, and a settled file is read once."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest

from skhegraph.clip import digests
from skhegraph.clip.digests import image_digest, known_digest
from skhegraph.clip.images import ImageDecodeError


def test_a_settled_file_is_read_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, reads, read = tmp_path / "image", [], digests._read_digest
    monkeypatch.setattr(digests, "_read_digest", lambda path: reads.append(path) or read(path))
    path.write_bytes(b"first")
    fresh = image_digest(path), image_digest(path)
    assert fresh[0] == fresh[1] == image_digest(b"first")
    assert len(reads) == 2  # it might change within a tick of the clock
    assert known_digest(path) is None
    monkeypatch.setattr(digests, "_UNSETTLED_NS", 0)
    assert image_digest(path) == image_digest(str(path)) == fresh[0]
    assert len(reads) == 3
    assert known_digest(path) == fresh[0]
    then = path.stat()
    time.sleep(0.02)
    path.write_bytes(b"other")  # of the same size, and with the old modification time
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert known_digest(path) is None
    assert image_digest(path) == image_digest(b"other") == known_digest(path)
    assert known_digest(b"first") is known_digest(tmp_path / "missing") is None


def test_a_file_in_text_mode_is_one_clear_error() -> None:
    with pytest.raises(ImageDecodeError, match=r"^the file is open in text mode"):
        image_digest(io.StringIO("text"))
