"""The report names what is installed, in the version that is installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import skhegraph
from skhegraph._show_versions import dependencies


def test_report():
    command = [sys.executable, "-c", "import skhegraph; skhegraph.show_versions()"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert f"skhegraph: {skhegraph.__version__}" in lines
    for name in ("scikit-learn", "torch", "open_clip_torch", "numpy", "matplotlib"):
        assert f"{name}: {version(name)}" in lines
    assert any(line.startswith("devices: cpu") for line in lines)
    assert done.stderr == ""


def test_packages_are_those_of_the_metadata():
    packages = dependencies()
    assert {"numpy", "scipy", "joblib"} <= set(packages["Python dependencies"])
    assert "pytest" not in packages["Optional"]
    assert "distributed" in packages["Optional"]


def test_a_missing_package_is_said(capsys, monkeypatch):
    found = {"Python dependencies": ["no-such-package-of-this-name"]}
    monkeypatch.setattr("skhegraph._show_versions.dependencies", lambda: found)
    skhegraph.show_versions()
    assert "no-such-package-of-this-name: not installed" in capsys.readouterr().out
