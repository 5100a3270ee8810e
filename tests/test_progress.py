"""Progress bars: shown where there is a standard error, silent where there is none."""

from __future__ import annotations

import sys

import pytest

from skhegraph.progress import progress


def test_a_bar_with_its_total(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(iter("abc"), 3, shown=True, what="letters", unit="letter")) == list("abc")
    assert "letters: 100%" in (said := capsys.readouterr().err) and "3/3" in said
    assert list(progress(iter("abc"), 3, shown=False, what="letters", unit="letter")) == list("abc")
    assert not capsys.readouterr().err


def test_item_26_no_bar_without_a_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 17.26."""
    monkeypatch.setattr(sys, "stderr", None)
    assert list(progress("abc", 3, shown=True, what="letters", unit="letter")) == list("abc")
