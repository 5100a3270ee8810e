"""The guide: numbered without gaps, written for sphinx-gallery, each with a picture of its name.

.ci/run runs the examples themselves.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skhegraph.clip.prompts import build_prompts

FOLDER = Path(__file__).parents[1] / "examples"
GUIDE = sorted(FOLDER.glob("[0-9]*.py"))


def test_numbers_have_no_gap():
    assert [int(path.name[:2]) for path in GUIDE] == list(range(1, len(GUIDE) + 1))
    assert len(GUIDE) >= 12


@pytest.mark.parametrize("path", GUIDE, ids=lambda path: path.name)
def test_prose_code_and_picture(path):
    source = path.read_text()
    title, line, *_ = (ast.get_docstring(ast.parse(source)) or "").splitlines()
    assert title and len(line) >= len(title) and set(line) == {"="}
    cells = source.split("\n# %%\n")
    assert len(cells) >= 3
    headed = [cell.splitlines() for cell in cells[1:]]
    for first, second, *_ in headed:
        assert first.startswith("# ")
        if set(second[2:]) == {"-"}:
            assert len(second) >= len(first)
    assert 'Path(__file__).with_suffix(".png")' in source and "savefig(out" in source


def test_prompts_of_the_example_are_grammatical():
    """Issue 17.34: "a photo of a astronaut"."""
    source = (FOLDER / "03_prompts_and_negatives.py").read_text()
    start, stop = source.index("described = {"), source.index("for prompts in build_prompts")
    scope: dict = {}
    exec(source[start:stop], scope)
    for templates in scope["choices"].values():
        if isinstance(templates, dict):
            prompts = build_prompts(list(scope["described"]), templates)
            assert not [p for group in prompts for p in group if re.search(r"\ba [aeiou]", p)]


def test_an_extra_that_is_missing_is_named():
    """Issue 17.34: example 12 needs one that no other example needs."""
    script = FOLDER / "12_out_of_one_machine.py"
    code = f"import sys, runpy; sys.modules['distributed'] = None; runpy.run_path({str(script)!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode != 0
    assert 'pip install "skhegraph[cluster]"' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("path", GUIDE, ids=lambda path: path.name)
def test_panels_of_photographs_have_a_title(path):
    """Issue 17.34."""
    source = path.read_text()
    for panel in re.findall(r"^ *show_pieces\(\s*(.+?),", source, re.MULTILINE):
        assert f"{panel}.set_title(" in source, panel


def test_pieces_are_cut_out_of_their_photograph():
    spec = importlib.util.spec_from_file_location("photographs", FOLDER / "photographs.py")
    photographs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(photographs)
    pieces, labels = photographs.load_pieces(2, names=["cat", "temple"])
    again, _ = photographs.load_pieces(2)
    assert list(labels) == ["cat", "cat", "temple", "temple"]
    whole = photographs.load_photographs()
    for piece, label in zip(pieces, labels, strict=True):
        pixels, photograph = np.asarray(piece), whole[label]
        windows = np.lib.stride_tricks.sliding_window_view(photograph, pixels.shape)
        corners = np.argwhere((windows[:, :, 0, 0, 0] == pixels[0, 0]).all(axis=-1))
        assert any((windows[i, j, 0] == pixels).all() for i, j in corners)
        assert any(np.array_equal(pixels, np.asarray(other)) for other in again)
