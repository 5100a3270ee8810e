"""What the documents name exists, imports run one way, and tables say what they were made with."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "skhegraph"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / ".github" / "CONTRIBUTING.md",
    *sorted((ROOT / "examples").rglob("*.md")),
]
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = ("skhegraph", "tests", "examples", ".ci", ".github")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def exists(name: str) -> bool:
    """Whether a dotted name of the package is a module, or something in one."""
    head, _, tail = name.rpartition(".")
    try:
        import_module(name)
    except ModuleNotFoundError:
        return bool(head) and exists(head) and hasattr(resolve(head), tail)
    return True


def resolve(name: str) -> object:
    head, _, tail = name.rpartition(".")
    try:
        return import_module(name)
    except ModuleNotFoundError:
        return getattr(resolve(head), tail)


def missing_paths(text: str, folder: Path) -> list[str]:
    """Paths of the repository in a text, and links relative to a folder, that lead nowhere."""
    folders = "|".join(map(re.escape, FOLDERS))
    named = re.findall(rf"(?<![\w/.\]])((?:{folders})/[\w./-]*[\w/])(?!\*)", text)
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    lost = [name for name in named if not (ROOT / name).exists() and "*" not in name]
    return lost + [link for link in links if not (folder / link).exists()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_paths_and_names_in_documents_exist(path: Path) -> None:
    """Issue 17, documents that are not true."""
    text = path.read_text("utf-8")
    assert missing_paths(text, path.parent) == []
    files = {module.name for module in [*MODULES, *(ROOT / "examples").rglob("*.py")]}
    named = re.findall(r"`([a-z_]\w*\.py)`", text)
    assert [name for name in named if name not in files] == []
    names = re.findall(r"(?<![\w/-])(skhegraph(?:\.[A-Za-z_]\w*)+)(?![\w(/])", text)
    assert [name for name in names if not exists(name)] == []


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_references_in_docstrings_exist(path: Path) -> None:
    """Issue 17, documents that are not true."""
    text = path.read_text("utf-8")
    names = re.findall(r":(?:mod|class|func|data|meth):`~?(skhegraph[\w.]*)`", text)
    assert [name for name in names if not exists(name)] == []
    module = import_module(dotted(path))
    for name in re.findall(r":(?:class|func|data):`~?([A-Za-z_]\w*)`", text):
        assert hasattr(module, name) or hasattr(import_module("skhegraph"), name), name
    for name in re.findall(r":meth:`(\w+)`", text):
        assert re.search(rf"def {name}\(", text) or "HeGraphClassifier" in text, name


def test_the_reading_order_of_clip_names_every_module() -> None:
    """Issue 17, documents that are not true."""
    folder = PACKAGE / "clip"
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
    named = re.findall(r"``(\w+)``", text)
    assert sorted(named) == sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__")


def test_the_docstring_of_hegraph_names_modules_that_exist() -> None:
    text = (PACKAGE / "hegraph" / "__init__.py").read_text("utf-8")
    named = set(re.findall(r":mod:`~skhegraph\.hegraph\.(\w+)`", text))
    assert len(named) >= 5
    assert named <= {path.stem for path in (PACKAGE / "hegraph").glob("*.py")}


# --- imports --------------------------------------------------------------------------------------


def imported(path: Path) -> set[str]:
    """Modules that a module imports when it is imported: not within functions, not for types."""
    found: set[str] = set()
    queue: list[ast.stmt] = list(ast.parse(path.read_text("utf-8")).body)
    while queue:
        node = queue.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.If):
            checked = ast.unparse(node.test)
            queue += [] if checked == "TYPE_CHECKING" else node.body
            queue += [] if checked == "not TYPE_CHECKING" else node.orelse
        elif isinstance(node, ast.Try):
            queue += node.body
    return found


def test_imports_run_one_way() -> None:
    """No module imports one that imports it (`static_order` raises), as CONTRIBUTING says."""
    names = {dotted(path): path for path in MODULES}
    graph = {name: imported(path) & names.keys() - {name} for name, path in names.items()}
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("skhegraph.hegraph.adaptation") < order.index("skhegraph.hegraph.classifier")


@pytest.mark.parametrize(
    ("part", "foreign"),
    [
        ("hegraph/network.py", "sklearn"),
        ("hegraph/*.py", "open_clip"),
        ("clip/*.py", "skhegraph.feature_classifier"),
        ("clip/*.py", "skhegraph.prompted_classifier"),
        ("clip/*.py", "skhegraph.hegraph"),
        ("**/*.py", "open_clip"),
    ],
)
def test_what_no_part_imports(part: str, foreign: str) -> None:
    """As CONTRIBUTING says; open_clip where it is used alone."""
    for path in PACKAGE.glob(part):
        modules = imported(path)
        assert not [m for m in modules if m == foreign or m.startswith(foreign + ".")], path


# --- tables of results ----------------------------------------------------------------------------

TABLES = [path for path in DOCUMENTS if "benchmarks" in path.parts and "|---" in path.read_text()]
COMMIT = re.compile(r"\bcommits? `?([0-9a-f]{7,40})\b")


def git(*arguments: str) -> str:
    """What git prints; nothing where it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.parametrize("path", TABLES, ids=relative)
def test_tables_name_their_commit(path: Path) -> None:
    """Issue 17, documents that are not true: a reader can check out what made the numbers."""
    text = path.read_text("utf-8")
    assert re.search(r"\b20\d\d-\d\d-\d\d\b", text), "no date"
    hashes = COMMIT.findall(text)
    if not hashes:
        pytest.xfail("names no commit yet")
    if shutil.which("git") is None or git("rev-parse", "--is-shallow-repository") != "false":
        pytest.skip("no history at hand")
    assert [name for name in hashes if git("cat-file", "-t", name) != "commit"] == []
