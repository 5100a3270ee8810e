"""The public face: light import, complete and honest docstrings."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from numpydoc.validate import validate

import skhegraph
import skhegraph.inspection

NAMES = [name for name in skhegraph.__all__ if callable(getattr(skhegraph, name))]
INSPECTION = [f"skhegraph.inspection.{name}" for name in skhegraph.inspection.__all__]
# numpydoc's rules of taste that the package does not follow: layout of the first and last line,
# extended summary, See Also, imperative mood, capitals and full stops in lists.
IGNORED = {"GL01", "GL02", "GL03", "ES01", "SA01", "SA04", "SS05", "SS06", "PR08", "PR09"}
IGNORED |= {"RT02", "RT03", "RT04", "RT05", "YD01", "PR06", "GL08"}


def problems(target: str, *, example: bool) -> list[str]:
    ignored = IGNORED if example else IGNORED | {"EX01"}
    return [f"{code}: {text}" for code, text in validate(target)["errors"] if code not in ignored]


@pytest.mark.parametrize("name", NAMES)
def test_docstring_of_the_object(name: str) -> None:
    module = inspect.getmodule(getattr(skhegraph, name))
    assert module is not None
    assert problems(f"{module.__name__}.{name}", example=True) == []


@pytest.mark.parametrize("target", INSPECTION)
def test_docstrings_of_the_inspection_module(target: str) -> None:
    thing = getattr(skhegraph.inspection, target.rpartition(".")[2])
    target = f"{thing.__module__}.{thing.__name__}"
    assert problems(target, example=True) == []
    for method in ("from_estimator", "plot"):
        if inspect.isclass(thing):
            assert problems(f"{target}.{method}", example=False) == []


def test_presets_are_at_the_top() -> None:
    assert skhegraph.PRESETS["photo"].templates == ("a photo of a {}.",)


@pytest.mark.parametrize("name", [n for n in NAMES if inspect.isclass(getattr(skhegraph, n))])
def test_docstrings_of_own_methods(name: str) -> None:
    cls = getattr(skhegraph, name)
    own = [
        (method, function)
        for method, function in inspect.getmembers(cls, inspect.isfunction)
        if not method.startswith("_") and function.__module__.startswith("skhegraph")
    ]
    assert own
    for method, function in own:
        assert function.__doc__, f"{name}.{method} has no docstring"
        assert problems(f"{cls.__module__}.{name}.{method}", example=False) == [], method


@pytest.mark.parametrize("name", NAMES)
def test_every_public_parameter_is_typed(name: str) -> None:
    target = getattr(skhegraph, name)
    signature = inspect.signature(target)
    untyped = [
        p.name for p in signature.parameters.values() if p.annotation is inspect.Parameter.empty
    ]
    assert untyped == []


def test_import_is_light_and_names_resolve() -> None:
    code = (
        "import sys, skhegraph\n"
        "heavy = {'torch', 'open_clip', 'torch_geometric', 'sklearn', 'scipy', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "from skhegraph import HeGraphClassifier, CLIPFeatures\n"
        "HeGraphClassifier(), CLIPFeatures()\n"
        "print(sorted({'torch', 'open_clip', 'torch_geometric'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]
    assert set(dir(skhegraph)) == set(skhegraph.__all__)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        skhegraph.nothing_of_the_kind  # noqa: B018
