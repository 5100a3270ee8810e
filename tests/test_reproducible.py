"""The same seed gives the same answer, and nothing global is left changed."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_info

from skhegraph import CLIPFeatures, HeGraphClassifier, make_hegraph_pipeline

# A large enough fit for blocks, single precision and a draw of calibration rows.
SCRIPT = """
import sys
import numpy as np
from skhegraph import HeGraphClassifier, peers

rng = np.random.default_rng(0)
text = rng.normal(size=(400, 48))
y = np.repeat(np.arange(400), 26)
X = (text[y] + rng.normal(size=(len(y), 48))).astype(np.float32)
clf = HeGraphClassifier(text_features=text).fit(X, y)
small = peers.MAPLogisticRegression(text_features=text[:9]).fit(X[y < 9], y[y < 9])
parts = clf.coef_, clf.predict_proba(X[:3000]), clf.score_samples(X[:50]), small.coef_
sys.stdout.buffer.write(b"".join(part.tobytes() for part in parts))
"""


def test_processes_and_numbers_of_threads_give_the_same_bits() -> None:
    """Where the arithmetic is NumPy's: everything but the text tower and the network."""
    settings = [("1", "1"), ("2", "7"), ("4", "random")]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            stdout=subprocess.PIPE,
            env={"OMP_NUM_THREADS": threads, "PYTHONHASHSEED": seed, "PATH": ""},
        )
        for threads, seed in settings
    ]
    bits = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(bits[0]) > 3000 * 400 * 8
    assert bits[1] == bits[0]
    assert bits[2] == bits[0]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_jobs_give_the_same_scores(n_jobs: int) -> None:
    rng = np.random.default_rng(0)
    text = rng.normal(size=(5, 20))
    y = np.repeat(np.arange(5), 8)
    X = text[y] + rng.normal(size=(40, 20))
    clf = HeGraphClassifier(text_features=text)
    grid = {"visual_to_visual": [0.0, 1.0], "penalty": [1.0, 10.0]}
    got = GridSearchCV(clf, grid, cv=3, n_jobs=n_jobs, scoring="neg_log_loss").fit(X, y)
    want = GridSearchCV(clf, grid, cv=3, scoring="neg_log_loss").fit(X, y)
    for key in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(got.cv_results_[key], want.cv_results_[key])


def state() -> list[Any]:
    return [
        random.getstate(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        np.geterr(),
        sorted((lib["filepath"], lib["num_threads"]) for lib in threadpool_info()),
    ]


def test_nothing_global_changes(tmp_path: Path) -> None:
    """Images to predictions."""
    digits = load_digits(n_class=3)
    images, y = list(digits.images[:40] / 16), digits.target[:40]
    names = ["zero", "one", "two"]
    CLIPFeatures("skhegraph-tiny").fit_transform(images[:2])  # torch and its threads are there
    before = state()
    model = make_hegraph_pipeline(
        "skhegraph-tiny",
        class_names=names,
        cache_dir=tmp_path,
        device="cpu",
    )
    model.fit(images, y)
    model.predict_proba(images)
    assert state() == before
    with pytest.raises(ValueError, match="unknown_label"):
        model.set_params(clf__unknown_label=1).fit(images, y)
    assert state() == before
