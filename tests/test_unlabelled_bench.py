"""The bench of unlabelled rows: who is unlabelled, what each section holds, command line."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

FOLDER = Path(__file__).parent.parent / "examples" / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("unlabelled")
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def digits(bench):
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32)
    text = np.stack([X[y == c].mean(axis=0) for c in range(10)])
    return bench.Problem("digits", X[:300], y[:300], X[900:1100], y[900:1100], text, 10.0)


def test_no_row_is_both_labelled_and_unlabelled(bench, digits):
    y = digits.y_train
    few = bench.few_rows(y, 2, 0)
    rest = bench.unlabelled_rows(y, few, "all", 0)
    assert sorted([*few, *rest]) == list(range(len(y)))
    falling = bench.unlabelled_rows(y, few, "unbalanced", 0)
    assert set(falling) < set(rest)
    counts = np.bincount(y[falling], minlength=10)
    assert counts.max() > 5 * max(counts.min(), 1)


def test_methods_of_the_sections(bench, digits):
    both = {bench.ALONE, bench.OURS}
    assert set(bench.run_one(digits, "all", 2, 0, True)) == {
        *both,
        "SelfTraining",
        "LabelSpreading",
        "TransCLIP",
    }
    assert set(bench.run_one(digits, "foreign", 2, 0, False)) == {*both, bench.OWN}
    assert set(bench.run_one(digits, "unbalanced", 2, 0, False)) == both
    parts = bench.run_one(digits, "parts", 2, 0, False)
    assert len(parts) == 8
    assert len({value["log_loss"] for value in parts.values()}) >= 7  # each part acts
    names = bench.run_one(digits, "names", 0, 0, False)
    assert set(names) == {"zero-shot", bench.OURS, "TransCLIP", "ZLaP"}
    assert bench.run_one(digits, "all", 40, 0, False) == {}


def test_transclip_moves_names_to_the_images(bench, digits):
    clf = bench.TransCLIP(digits.text[::-1], 10.0)
    X, y = digits.X_train, 9 - digits.y_train
    few = bench.few_rows(y, 2, 0)
    partly = np.where(np.isin(np.arange(len(y)), few), y, -1)
    assert clf.fit(X, partly).score(digits.X_test, 9 - digits.y_test) > 0.75
    density = clf._log_density(
        digits.X_test[:2] / np.linalg.norm(digits.X_test[:2], axis=1)[:, None]
    )
    z, v = digits.X_test[0] / np.linalg.norm(digits.X_test[0]), clf.variance_
    want = [-0.5 * ((z - mean) ** 2 / v).sum() for mean in clf.means_]
    np.testing.assert_allclose(density[0], want, rtol=1e-6)
    assert clf.fit(X, np.full(len(y), -1)).score(digits.X_test, 9 - digits.y_test) > 0.75


def test_zlap_on_a_graph_worked_by_hand(bench):
    """Two texts, three images: one neighbour of each kind, the image itself being the first."""
    text = np.array([[1.0, 0.0], [0.0, 1.0]])
    images = np.array([[0.8, 0.6], [0.6, 0.8], [0.28, 0.96]])
    clf = bench.ZLaP(text, n_neighbours=2, gamma=2.0, alpha=0.5).fit(images)
    cosines = images @ images.T  # the nearest but itself: 1, 0, 1
    W = np.zeros((5, 5))
    W[2:, :2] = (images @ text.T) ** 2  # both texts are near
    for i, j in ((0, 1), (1, 0), (2, 1)):
        W[2 + i, 2 + j] = cosines[i, j]
    W += W.T
    root = np.sqrt(W.sum(axis=1))
    Z = np.linalg.inv(np.eye(5) - 0.5 * W / np.outer(root, root))[:, :2]
    np.testing.assert_allclose(clf.scores_, Z, rtol=1e-12)
    query = np.array([0.6, 0.8])  # near images 1 and 0
    scores = 0.36 * Z[0] + 0.64 * Z[1] + 1.0 * Z[3] + 0.96 * Z[2]
    np.testing.assert_allclose(clf.predict_proba(query[None])[0], scores / scores.sum())
    assert clf.predict(query[None]) == [1]


def test_command_line(bench, digits, feature_file, tmp_path):
    path = feature_file(digits, "digits.npz")
    out = tmp_path / "out.md"
    command = ["--features", str(path), "--shots", "1", "--seeds", "0"]
    bench.main([*command, "--sections", "unbalanced", "names", "--out", str(out)])
    text = out.read_text(encoding="utf-8")
    assert "### unbalanced: digits" in text
    assert "| section | set | names alone | 1 shot |" in text
    assert text.count("| with unlabelled |") == 2
