"""The bench of constants: the choice with one set left out, patches that act and are undone."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

FOLDER = Path(__file__).parent.parent / "examples" / "benchmarks"
sys.path.insert(0, str(FOLDER))
bench = importlib.import_module("constants")
sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32)
    text = np.stack([X[y == c].mean(axis=0) for c in range(10)])
    text += np.random.RandomState(0).normal(scale=12, size=text.shape)
    return bench.Problem("digits", X[:400], y[:400], X[900:1000], y[900:1000], text, 10.0)


#: Log-loss of three sets at three values, the second being today's.
LOSSES = np.array([[1.0, 1.2, 1.5], [0.9, 0.5, 0.6], [0.4, 0.6, 0.45]])


def made_up_rows():
    """Two shots of two seeds a set, about `LOSSES`; accuracy is 90 less ten times the log-loss."""
    rows = []
    for name, losses in zip("abc", LOSSES, strict=True):
        for shots, seed, off in ((1, 0, 0.3), (1, 1, 0.1), (2, 0, -0.2)):
            values = [(x + off, 90 - 10 * (x + off)) for x in losses]
            rows.append((name, "whole", shots, seed, "PENALTY", values))
    return rows


def test_choice_with_one_set_left_out_by_hand():
    # Sums over all: 2.3, 2.3, 2.55. Without a: 1.3, 1.1, 1.05; without b: 1.4, 1.8, 1.95;
    # without c: 1.9, 1.7, 2.1. Equal sums over all leave today's.
    assert bench.choose(LOSSES, 1) == (1, [2, 0, 1])
    assert bench.choose(LOSSES, 0) == (0, [2, 0, 1])
    assert bench.choose(np.zeros((3, 3)), 2) == (2, [2, 2, 2])


def test_tables_by_hand(monkeypatch):
    monkeypatch.setitem(bench.CONSTANTS, "PENALTY", bench.Constant((0.5, 1.0, 2.0)))
    names, means = bench.set_means(made_up_rows(), "PENALTY")
    assert names == ["a", "b", "c"]
    np.testing.assert_allclose(means[..., 0], LOSSES)  # (0.3 + 0.1) / 2 - 0.2 is 0
    # Left out: a gets 2 in place of 1 (+0.3), b 0.5 (+0.4), c today's: mean 0.7 / 3.
    first, second = bench.cells_of(made_up_rows(), "PENALTY")
    assert first[:5] == ["PENALTY", "3", "3", "+0.0000", "1.5 to 6"]
    assert first[5:] == ["+0.2333 / -2.33", "b +0.4000", "0.0833"]
    # Most is gained on a or c, at 0.5 (-0.2 each, the first in floating point): b pays.
    assert second[2:4] in (["a", "1.5"], ["c", "1.5"])
    assert second[4:] == ["-0.2000 / +2.00", "+0.1000 / -1.00"]
    text = bench.report(made_up_rows())
    assert "| " + " | ".join(first) + " |" in text and "| " + " | ".join(second) + " |" in text


def values_in_use():
    """Every constant in every module that holds it."""
    names = [name for name in bench.CONSTANTS if name.lower() not in bench.PARAMETERS]
    return {(m.__name__, n): getattr(m, n) for n in names for m in bench.holders(n)}


def test_patches_reach_every_module_and_are_undone():
    before = values_in_use()
    assert ("skhegraph.hegraph.fusion", "TEXT_MEDIAN") in before
    with pytest.raises(KeyError), bench.changed("TEXT_MEDIAN", 2.0) as params:
        now = values_in_use()
        assert params == {}
        assert {key for key in now if now[key] != before[key]} == {
            key for key in before if key[1] == "TEXT_MEDIAN"
        }
        assert {now[key] for key in now if key[1] == "TEXT_MEDIAN"} == {1.3}
        raise KeyError
    assert values_in_use() == before
    with bench.changed("TEXT_ALONE_WIDTH", 2.0):
        assert tuple(bench.today("TEXT_ALONE_WIDTH")) == (6.0, 0.3)
    with bench.changed("PENALTY", 2.0) as params:
        assert params == {"penalty": 6.0} and values_in_use() == before
    assert values_in_use() == before


@pytest.fixture(scope="module")
def tasks(digits):
    """Problems of few and of all classes, with text and without, at 1, 2 and 4 shots."""
    found = []
    for section in ("whole", "2 classes"):
        for shots in (1, 2, 4):
            problem, rows = bench.draw(digits, section, shots, 0, develop=True)
            for drawn in (problem, replace(problem, text=None)):
                found.append((drawn, rows, shots, bench.run(drawn, rows)))
    return found


@pytest.mark.parametrize("name", bench.CONSTANTS)
def test_constant_acts_where_it_is_said_to(name, tasks):
    constant, moved = bench.CONSTANTS[name], []
    for problem, rows, shots, before in tasks:
        with bench.changed(name, 4.0) as params:
            after = bench.run(problem, rows, **params)
        if constant.acts(problem, shots):
            moved.append(abs(after[0] - before[0]))
        else:
            assert after == before
    assert max(moved) > 1e-6


def test_test_split_is_left_alone_and_text_may_be_dropped(digits):
    names = ["PENALTY", "TEXT_MEDIAN"]
    blind = replace(digits, X_test=digits.X_test[:0], y_test=digits.y_test[:0])
    first, second = bench.measure(blind, "3 classes, no text", 2, 0, names)
    assert np.isfinite(first[5]).all()
    assert first[:5] == ("digits", "3 classes, no text", 2, 0, "PENALTY")
    assert len({tuple(v) for v in first[5]}) > 1 and len({tuple(v) for v in second[5]}) == 1
    assert first[5][2] == second[5][3]  # both are today's
    assert bench.measure(replace(digits, text=None), "whole", 2, 0, names) == []
    assert bench.measure(digits, "whole", 60, 0, names) == []


def test_main_on_a_feature_file(digits, feature_file, tmp_path, capsys, monkeypatch):
    out = tmp_path / "constants.md"
    paths = [str(feature_file(digits, name)) for name in ("made.npz", "other.npz")]
    options = ["--features", *paths, "--shots", "2", "--out", str(out)]
    bench.main([*options, "--constants", "PENALTY", "--sections", "3 classes", "--seeds", "0"])
    text = out.read_text(encoding="utf-8")
    assert "### One set left out" in text and "### Where today's value is worst" in text
    assert text.count("| PENALTY | 3 | ") == 2
    assert text in capsys.readouterr().out
    # Of whole sets the first seeds alone, and nothing is lost on the way to the report.
    monkeypatch.setattr(bench, "measure", lambda problem, *task: [task[:3]])
    monkeypatch.setattr(bench, "report", str)
    bench.main([*options, "--sections", "whole", "3 classes", "--seeds", "5", "6", "--whole", "1"])
    few = [(f"3 classes{text}", 2) for text in bench.TEXTS]
    whole = [(f"whole{text}", 2) for text in bench.TEXTS]
    tasks = [(*task, 5) for task in 2 * [*whole, *few]] + [(*task, 6) for task in 2 * few]
    assert str(tasks) in out.read_text(encoding="utf-8")
