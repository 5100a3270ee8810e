"""Constants of HeGraph on sets that they were not chosen on: leave one set out.

One constant at a time takes values around today's. For each set the value is the one of least mean
log-loss over the other sets, and is judged on that set. All draws are from the training pools; the
test splits are left alone. Sections: whole sets and subsets of few classes, with text and without.

    python examples/benchmarks/constants.py --features *.npz --images FOLDER ... --out constants.md
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from few_shot_data import Encoder, Problem, from_features, from_images
from few_shot_report import scores
from regimes import draw

from skhegraph import HeGraphClassifier

#: Factors of today's value; finer for what scales the logits themselves.
WIDE, FINE = (0.25, 0.5, 1.0, 2.0, 4.0), (0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)
NO_TEXT, QUERIES = ", no text", 2000
PARAMETERS = HeGraphClassifier().get_params()


class Constant(NamedTuple):
    """Factors of today's value, and where it acts: with text (None: either), from shots on."""

    factors: tuple[float, ...] = WIDE
    text: bool | None = None
    shots: int = 1
    classes: int = 2

    def acts(self, problem: Problem, shots: int) -> bool:
        """Whether it may change a fit."""
        n_classes, has_text = int(problem.y_train.max()) + 1, problem.text is not None
        enough = shots >= self.shots and n_classes >= self.classes
        return enough and self.text in (None, has_text)


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


def holders(name: str) -> list[ModuleType]:
    """Modules of the method that hold a constant."""
    keys = sorted(key for key in sys.modules if key.startswith("skhegraph.hegraph"))
    return [sys.modules[key] for key in keys if hasattr(sys.modules[key], name)]


@contextmanager
def changed(name: str, factor: float) -> Iterator[dict[str, float]]:
    """A constant times a factor wherever it is read; yields it where it is a parameter."""
    value = np.multiply(factor, today(name))
    parameter = name.lower() in PARAMETERS
    with ExitStack() as stack:
        for module in () if parameter else holders(name):
            stack.enter_context(mock.patch.object(module, name, value))
        yield {name.lower(): float(value)} if parameter else {}


def run(problem: Problem, rows: np.ndarray, **params: float) -> tuple[float, float]:
    """Log-loss and accuracy of a fit."""
    clf = HeGraphClassifier(**problem.text_source, **params)
    with warnings.catch_warnings():  # of text that tells nothing, of values that are extreme
        warnings.simplefilter("ignore", UserWarning)
        clf.fit(problem.X_train[rows], problem.y_train[rows])
    result = scores(clf.predict_proba(problem.X_test), problem.y_test)
    return result["log_loss"], result["accuracy"]


def measure(problem: Problem, section: str, shots: int, seed: int, names: Sequence[str]) -> list:
    """Rows of all values of the constants on a draw; empty where there are too few images."""
    dataset, bare = problem.name, section.removesuffix(NO_TEXT)
    problem = problem if section == bare else replace(problem, text=None)
    drawn = draw(problem, bare, shots, seed, develop=True)
    if drawn is None or (section == bare and problem.text is None):
        return []
    problem, rows = drawn
    some = np.random.RandomState(seed).permutation(len(problem.y_test))[:QUERIES]
    problem = replace(problem, X_test=problem.X_test[some], y_test=problem.y_test[some])
    default, found = run(problem, rows), []
    for name in names:
        values = [default] * len(CONSTANTS[name].factors)
        for i, factor in enumerate(CONSTANTS[name].factors):
            if factor != 1 and CONSTANTS[name].acts(problem, shots):
                with changed(name, factor) as params:
                    values[i] = run(problem, rows, **params)
        found.append((dataset, section, shots, seed, name, values))
    return found


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
    shown = [", ".join(f"{v:.3g}" for v in np.atleast_1d(np.multiply(f, value))) for f in factors]
    now = factors.index(1.0)
    away = means - means[:, [now]]  # sets, values, (log-loss, accuracy)
    everywhere, chosen = choose(means[..., 0], now)
    out, total = away[np.arange(len(names)), chosen], away[..., 0].mean(axis=0)
    bad, span = int(out[:, 0].argmax()), [shown[i] for i in sorted({min(chosen), max(chosen)})]
    i, j = np.unravel_index(away[..., 0].argmin(), away.shape[:2])
    gain, cost = away[i, j], np.delete(away[:, j], i, axis=0).mean(axis=0)
    both = "{0[0]:+.4f} / {0[1]:+.2f}".format
    left_out = [shown[everywhere], f"{total[everywhere]:+.4f}", " to ".join(span)]
    left_out += [both(out.mean(axis=0)), f"{names[bad]} {out[bad, 0]:+.4f}", f"{np.ptp(total):.4f}"]
    worst = [names[i], shown[j], both(gain), both(cost)]
    return [constant, shown[now], *left_out], [constant, shown[now], *worst]


HEADS = {
    "One set left out": "constant | today | chosen on all | gain there | chosen with one set out "
    "| on the sets left out | worst of them | spread over the values",
    "Where today's value is worst": "constant | today | set | value | gain | on the other sets",
}


def report(rows: Sequence[Row]) -> str:
    """Both tables: log-loss, or log-loss / accuracy, less today's."""
    lines: list[str] = []
    tables = zip(*(cells_of(rows, name) for name in dict.fromkeys(r[4] for r in rows)), strict=True)
    for (title, head), table in zip(HEADS.items(), tables, strict=True):
        lines += ["", f"### {title}", "", f"| {head} |", "|---" * (head.count("|") + 1) + "|"]
        lines += ["| " + " | ".join(cells) + " |" for cells in table]
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
    parser.add_argument(
        "--whole", type=int, default=2, help="of whole sets the first so many seeds"
    )
    parser.add_argument("--raw", type=Path, help="JSON file for the scores of every fit")
    parser.add_argument("--out", type=Path, default=Path("constants.md"))
    options = parser.parse_args(arguments)
    problems = [from_features(path) for path in options.features]
    problems += [from_images(folder, Encoder("skhegraph-lite", None)) for folder in options.images]
    rows: list[Row] = []
    for i, seed in enumerate(options.seeds):
        sections = [s for s in options.sections if s != "whole" or i < options.whole]
        for problem in problems:
            for section in (part + text for part in sections for text in ("", NO_TEXT)):
                for shots in options.shots:
                    rows += measure(problem, section, shots, seed, options.constants)
            print(f"seed {seed}: {problem.name}", flush=True)
            if options.raw:
                options.raw.write_text(json.dumps(rows), encoding="utf-8")
    command = shlex.join(sys.argv if arguments is None else ["constants.py", *arguments])
    seeds = " ".join(map(str, options.seeds))
    text = f"{datetime.date.today()}; seeds {seeds}\n\n    python {command}\n{report(rows)}\n"
    options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
