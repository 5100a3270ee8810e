"""What a type checker sees: names, parameters and attributes, though the names are lazy."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import skhegraph
from skhegraph import CLIPFeatures, HeGraphClassifier
from skhegraph.pipeline import StepParams

PROGRAM = """
from skhegraph import CLIPFeatures, FewShotSplit, HeGraphAdapterClassifier, HeGraphClassifier
from skhegraph import PRESETS, ZeroShotCLIPClassifier, make_hegraph_pipeline, show_versions
from skhegraph import MultiLabelHeGraphClassifier, load_image_folder
from skhegraph.inspection import explain, report
from skhegraph.peers import TipAdapterClassifier

HeGraphClassifier(unknown_threshold="x")  # arg-type
clf = HeGraphClassifier(text_features={"cat": [1.0]}, unknown_threshold=-2)
clf.fiit([[1.0]], [1])  # attr-defined
clf.set_params(penalty=1).fit([[1.0]], [1]).predict([[1.0]]).shape
clf.score([[1.0]], [1]) + 1.0
HeGraphClassifier(penaltee=1.0)  # call-arg
HeGraphAdapterClassifier(top_k="x")  # arg-type
MultiLabelHeGraphClassifier("ViT-B-32")  # arg-type
MultiLabelHeGraphClassifier(clf).fit([[1.0]], [[1]]).predict([[1.0]]).shape
MultiLabelHeGraphClassifier(clf).fiit()  # attr-defined
ZeroShotCLIPClassifier().fiit()  # attr-defined
TipAdapterClassifier(alpha="x")  # arg-type
TipAdapterClassifier().fiit()  # attr-defined
CLIPFeatures(batch_size="x")  # arg-type
CLIPFeatures().transfrom([])  # attr-defined
CLIPFeatures().fit_transform([]).shape
FewShotSplit(n_shots="x")  # arg-type
FewShotSplit().splits([])  # attr-defined
make_hegraph_pipeline(unknown_threshold="x")  # arg-type
make_hegraph_pipeline(unknown=1.0)  # call-arg
make_hegraph_pipeline("ViT-B-16", "openai", class_names={0: "cat"}, n_views=2).fit([], [])
make_hegraph_pipeline().fit([], []).partial_fit([], []).predict([]).shape
make_hegraph_pipeline().partial_fitt([], [])  # attr-defined
make_hegraph_pipeline(memory=None, pretrained=3)  # arg-type
PRESETS["photo"].templates.fiit  # attr-defined
load_image_folder(1)  # arg-type
show_versions(1)  # call-arg
explain()  # call-arg
report(1)  # call-arg
report(1, [], n_shown="x")  # arg-type
from skhegraph import NothingOfTheKind  # attr-defined
"""


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="needs mypy")
def test_mypy_rejects_wrong_types_and_misspelt_names(tmp_path: Path) -> None:
    """Issue 17.29; without other packages, whose types are theirs."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nignore_missing_imports = true\nfollow_imports = silent\nno_site_packages = true\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", str(program)],
        cwd=tmp_path,
        env={"MYPYPATH": str(Path(skhegraph.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    errors = re.findall(r"program.py:(\d+): error: .*\[([a-z-]+)\]", done.stdout)
    lines = enumerate(PROGRAM.splitlines(), 1)
    want = [(str(i), line.partition("  # ")[2]) for i, line in lines if "  # " in line]
    assert errors == want, done.stdout + done.stderr


def test_types_of_the_lazy_names_are_those_of_their_list() -> None:
    source = inspect.getsource(skhegraph)
    lines = re.findall(r"\n    from skhegraph\.(\S+) import (.+)", source)
    seen = {name: module for module, names in lines for name in names.split(", ")}
    assert seen == skhegraph._PUBLIC


def test_parameters_of_the_pipeline_are_those_of_its_steps() -> None:
    """The types of its keywords say what `__init__` of the steps says."""
    want = {}
    for step in (CLIPFeatures, HeGraphClassifier):
        parameters = inspect.signature(step).parameters.values()
        want.update({p.name: p.annotation for p in parameters})
    named = {"model_name", "pretrained"}
    got = {name: hint.__forward_arg__ for name, hint in StepParams.__annotations__.items()}
    assert got == {name: hint for name, hint in want.items() if name not in named}
