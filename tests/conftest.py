"""Pytest options and fixtures shared by all test modules."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

# scikit-learn's array-API check is skipped unless this is set before SciPy is imported.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

from skhegraph.clip.model import resolve_device

# The same examples in each run; HYPOTHESIS_PROFILE=default looks for new ones.
settings.register_profile("steady", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shared-data",
        type=Path,
        default=None,
        help="folder with `images/` and `features/`; without it the tests that need it do not run",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    missing = set() if config.getoption("--shared-data") else {"shared_data"}
    if any("accelerator" in getattr(item, "fixturenames", ()) for item in items):
        missing |= {"accelerator"} if resolve_device("auto") == "cpu" else set()
    needy = [item for item in items if missing & set(getattr(item, "fixturenames", ()))]
    if needy:
        config.hook.pytest_deselected(items=needy)
        items[:] = [item for item in items if item not in needy]


@pytest.fixture
def feature_file(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes a problem of the benchmarks as a feature file."""

    def write(problem: Any, name: str = "made.npz") -> Path:
        np.savez(
            tmp_path / name,
            train_features=problem.X_train,
            train_labels=problem.y_train,
            test_features=problem.X_test,
            test_labels=problem.y_test,
            text_pos=problem.text[0] if isinstance(problem.text, tuple) else problem.text,
            logit_scale=10.0,
        )
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def accelerator() -> str:
    """Device that is not the CPU; without one the tests that need it do not run."""
    return resolve_device("auto")


@pytest.fixture(scope="session")
def shared_data(request: pytest.FixtureRequest) -> Path:
    """Folder with the shared images and features (given by `--shared-data`)."""
    return request.config.getoption("--shared-data")
