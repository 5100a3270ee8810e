"""Private names of scikit-learn: in one module alone, and there with this version."""

from __future__ import annotations

import re
from numbers import Integral
from pathlib import Path

import numpy as np
import pytest

import skhegraph
from skhegraph import _sklearn

FILES = sorted(Path(skhegraph.__file__).parent.rglob("*.py"))
PRIVATE = re.compile(
    r"(?:from sklearn[\w.]*\._\w+[\w.]* import|import sklearn[\w.]*\._|sklearn[\w.]*\._[a-z]\w+"
    r"|from sklearn[\w.]* import (?:\([^)]*|[^\n]*)\b_[a-z])"
)


def test_no_other_module_imports_private_names_of_scikit_learn() -> None:
    """Issue 17.13; scikit-learn moves them between versions."""
    found = [path.name for path in FILES if PRIVATE.search(path.read_text("utf-8"))]
    assert found == ["_sklearn.py"]


@pytest.mark.parametrize(
    "line",
    [
        "from sklearn.utils._param_validation import Interval",
        "from sklearn.utils import check_array, _safe_indexing",
        "from sklearn.utils.validation import (\n    check_array,\n    _num_samples,\n)",
        "sklearn.utils._show_versions._get_sys_info()",
    ],
)
def test_the_search_finds_private_names(line: str) -> None:
    assert PRIVATE.search(line)
    assert not PRIVATE.search("from sklearn.utils import check_array, check_is_fitted")


def test_private_names_do_what_the_package_needs_of_them() -> None:
    """Issue 17.13: run at the lowest and the newest version."""
    for name in _sklearn.__all__:
        assert getattr(_sklearn, name) is not None
    assert _sklearn.Interval(Integral, 0, 1, closed="both").is_satisfied_by(1)
    assert not _sklearn.Interval(Integral, 0, 1, closed="left").is_satisfied_by(1)
    assert _sklearn.StrOptions({"a"}).is_satisfied_by("a")
    assert _sklearn.safe_indexing(["a", "b", "c"], np.array([2, 0])) == ["c", "a"]
    assert _sklearn.num_samples(["a", "b"]) == 2
    assert _sklearn.effective_n_threads() >= 1
    assert {"python", "executable", "machine"} <= set(_sklearn.get_sys_info())
    with _sklearn.get_threadpool_controller().limit(limits=1, user_api="blas"):
        pass
    with pytest.raises(ValueError, match="Negative"):
        _sklearn.check_sample_weight([-1.0], np.ones((1, 1)), ensure_non_negative=True)
