"""Constants of HeGraph on sets that they were not chosen on: leave one set out.

One constant at a time takes values around today's. For each set the value is the one of least mean
log-loss over the other sets, and is judged on that set. All draws are from the training pools; the
test splits are left alone. Sections: whole sets and subsets of few classes, with text and without.

    python examples/benchmarks/constants.py --features *.npz --images FOLDER ...
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from few_shot_data import Encoder, Problem, from_features, from_images
from few_shot_report import scores
from regimes import draw

from skhegraph import HeGraphClassifier

#: Factors of today's value; finer for what scales the logits themselves.
WIDE, FINE = (0.25, 0.5, 1.0, 2.0, 4.0), (0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)
TEXTS, QUERIES = ("", ", no text"), 2000
PARAMETERS = HeGraphClassifier().get_params()


class Constant(NamedTuple):
    """Factors of today's value, and where it acts: with text (None: either), from shots on."""

    factors: tuple[float, ...] = WIDE
    text: bool | None = None
    shots: int = 1
    classes: int = 2

    def acts(self, problem: Problem, shots: int) -> bool:
        """Whether it may change a fit."""
        right = self.text in (None, problem.text is not None)
        return right and shots >= self.shots and problem.y_train.max() + 1 >= self.classes


GROUPS = {
    Constant(): "NOISE_RATIO NOISE_ROWS LEAST_FREEDOM PENALTY BIAS",
    Constant(text=True, classes=3): "MESSAGE_PRIOR",
    Constant(shots=3): "SHRINKAGE_PRIOR RIDGE_POWER",
    Constant(text=True): "TEXT_ALONE_WIDTH",
    Constant(FINE, text=True): "TEXT_MEDIAN",
    Constant(shots=2): "SHOTS_POWER VISUAL_TO_POSITIVE",
    Constant(FINE): "VISUAL_MEDIAN FUSION_WIDTH",
    Constant(FINE, text=False): "VISUAL_MEDIAN_ALONE LIKELIHOOD_SHARE",
    Constant(text=True, shots=2): "POSITIVE_TO_POSITIVE NEGATIVE_TO_POSITIVE",
}
CONSTANTS = {name: constant for constant, names in GROUPS.items() for name in names.split()}
#: Set, section, shots, seed, constant, then log-loss and accuracy of each of its values.
Row = tuple[str, str, int, int, str, list[tuple[float, float]]]


def today(name: str) -> Any:
    """Value of a constant, or default of a parameter."""
    return PARAMETERS.get(name.lower()) or getattr(holders(name)[0], name)


def holders(name: str) -> list[Any]:
    """Modules of the method that hold a constant."""
    keys = sorted(key for key in sys.modules if key.startswith("skhegraph.hegraph"))
    return [sys.modules[key] for key in keys if hasattr(sys.modules[key], name)]


@contextmanager
def changed(name: str, factor: float) -> Iterator[dict[str, float]]:
    """A constant times a factor wherever it is read; yields it where it is a parameter."""
    value, parameter = np.multiply(factor, today(name)), name.lower() in PARAMETERS
    with ExitStack() as patches:
        for module in () if parameter else holders(name):
            patches.enter_context(mock.patch.object(module, name, value))
        yield {name.lower(): float(value)} if parameter else {}


def run(problem: Problem, rows: np.ndarray, **params: float) -> tuple[float, float]:
    """Log-loss and accuracy of a fit."""
    clf = HeGraphClassifier(**problem.text_source, **params)
    with warnings.catch_warnings():  # of text that tells nothing, of values that are extreme
        warnings.simplefilter("ignore", UserWarning)
        clf.fit(problem.X_train[rows], problem.y_train[rows])
    found = scores(clf.predict_proba(problem.X_test), problem.y_test)
    return found["log_loss"], found["accuracy"]


def measure(problem: Problem, section: str, shots: int, seed: int, names: Sequence[str]) -> list:
    """Rows of all values of the constants on a draw; empty where there are too few images."""
    dataset, bare = problem.name, section.removesuffix(TEXTS[1])
    drawn = draw(problem, bare, shots, seed, develop=True)
    if drawn is None or (section == bare and problem.text is None):
        return []
    problem, rows = drawn
    some = np.random.RandomState(seed).permutation(len(problem.y_test))[:QUERIES]
    problem = replace(problem, X_test=problem.X_test[some], y_test=problem.y_test[some])
    problem = problem if section == bare else replace(problem, text=None)
    default = run(problem, rows)
    found = {name: [default] * len(CONSTANTS[name].factors) for name in names}
    for name in (name for name in names if CONSTANTS[name].acts(problem, shots)):
        for i, factor in enumerate(CONSTANTS[name].factors):
            if factor != 1:
                with changed(name, factor) as params:
                    found[name][i] = run(problem, rows, **params)
    return [(dataset, section, shots, seed, *item) for item in found.items()]


def set_means(rows: Sequence[Row], constant: str) -> tuple[list[str], np.ndarray]:
    """Names of sets, and means (sets, values, 2) over sections and shots of means over seeds."""
    cells: dict[str, dict[tuple[str, int], list]] = {}
    for dataset, section, shots, _, name, values in rows:
        if name == constant:
            cells.setdefault(dataset, {}).setdefault((section, shots), []).append(values)
    means = [np.mean([np.mean(v, axis=0) for v in of.values()], axis=0) for of in cells.values()]
    return list(cells), np.array(means)


def choose(losses: np.ndarray, now: int) -> tuple[int, list[int]]:
    """Value of least mean loss over all sets, and with each set left out; today's where equal."""

    def best(kept: np.ndarray) -> int:
        gain = (kept - kept[:, [now]]).mean(axis=0)
        return int(gain.argmin()) if gain.min() < -1e-9 else now

    return best(losses), [best(np.delete(losses, i, axis=0)) for i in range(len(losses))]


def cells_of(rows: Sequence[Row], constant: str) -> tuple[list[str], list[str]]:
    """Cells of a constant in the table of left-out sets, and in that of where today's is worst."""
    names, means = set_means(rows, constant)
    factors, value = CONSTANTS[constant].factors, today(constant)
    now = factors.index(1.0)
    shown = [", ".join(f"{v:.3g}" for v in np.atleast_1d(np.multiply(f, value))) for f in factors]
    away, (everywhere, chosen) = means - means[:, [now]], choose(means[..., 0], now)
    out, total = away[np.arange(len(names)), chosen], away[..., 0].mean(axis=0)
    bad, span = int(out[:, 0].argmax()), [shown[i] for i in sorted({min(chosen), max(chosen)})]
    i, j = np.unravel_index(away[..., 0].argmin(), away.shape[:2])
    others = np.delete(away[:, j], i, axis=0).mean(axis=0)
    both = "{0[0]:+.4f} / {0[1]:+.2f}".format
    first = [constant, shown[now], shown[everywhere], f"{total[everywhere]:+.4f}"]
    first.append(" to ".join(span))
    first += [both(out.mean(axis=0)), f"{names[bad]} {out[bad, 0]:+.4f}", f"{np.ptp(total):.4f}"]
    return first, [*first[:2], names[i], shown[j], both(away[i, j]), both(others)]


HEADS = {
    "One set left out": "constant | today | chosen on all sets | its mean there | chosen with one "
    "set left out | mean on the sets left out | worst of them | spread over the values",
    "Where today's value is worst": "constant | today | set | best there | gain | other sets",
}


def report(rows: Sequence[Row]) -> str:
    """Both tables: log-loss, or log-loss / accuracy, less today's."""
    names, lines = dict.fromkeys(row[4] for row in rows), []
    for table, (title, head) in enumerate(HEADS.items()):
        lines += ["", f"### {title}", "", f"| {head} |", "|---" * (head.count("|") + 1) + "|"]
        lines += ["| " + " | ".join(cells_of(rows, name)[table]) + " |" for name in names]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", nargs="+", default=[], metavar="FILE.npz")
    parser.add_argument("--images", nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--constants", nargs="+", choices=CONSTANTS, default=list(CONSTANTS))
    parser.add_argument("--sections", nargs="+", default=["whole", "3 classes", "2 classes"])
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--seeds", nargs="+", type=int, default=[200, 201, 202, 203, 204])
    parser.add_argument("--whole", type=int, default=2, help="seeds for whole sets, the first ones")
    parser.add_argument("--out", type=Path, default=Path("constants.md"))
    options = parser.parse_args(arguments)
    problems = [from_features(path) for path in options.features]
    problems += [from_images(folder, Encoder("skhegraph-lite", None)) for folder in options.images]
    rows: list[Row] = []
    for seed, problem, section in product(options.seeds, problems, options.sections):
        if section != "whole" or seed in options.seeds[: options.whole]:
            for text, shots in product(TEXTS, options.shots):
                rows += measure(problem, section + text, shots, seed, options.constants)
    command = shlex.join(sys.argv if arguments is None else ["constants.py", *arguments])
    text = f"{datetime.date.today()}\n\n    python {command}\n{report(rows)}\n"
    options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
