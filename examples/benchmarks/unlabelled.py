"""Rows without a label: HeGraph with them and without, beside scikit-learn's own ways.

Unlabelled rows are the rest of the training pool; the test split is used once. Sections: all of
them; half of the classes named and rows of all ("foreign"), beside the same without the foreign
rows; rows per class that fall from 50 to 1 ("unbalanced"); names and no label ("names"); all of
them without one part of the method or another ("parts"). Peers: `SelfTrainingClassifier` of HeGraph
(threshold 0.8), `LabelSpreading` (7 neighbours) and TransCLIP (`gamma` chosen on folds); for names
alone TransCLIP and ZLaP.
`--develop` judges rows of the training pool that are kept apart, and leaves the test split alone.

Example::

    python examples/benchmarks/unlabelled.py --features dtd.npz fgvc.npz --images FOLDER ... \
        --out unlabelled.md
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from few_shot_data import Encoder, Problem, few_rows, from_features, from_images
from few_shot_report import scores
from joblib import Parallel, delayed, parallel_config
from regimes import Scores, mean_scores, shots_name, subset, table
from scipy import special
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from transductive import TransCLIP, ZLaP

from skhegraph import HeGraphClassifier, KeepUnlabelled, ZeroShotCLIPClassifier
from skhegraph.hegraph import unlabelled as hegraph_unlabelled

SECTIONS = ("all", "foreign", "unbalanced", "names", "parts")
ALONE, OURS, OWN = "labelled alone", "with unlabelled", "with unlabelled, none foreign"
#: Rows of the class that has most, for one of the class that has fewest.
UNBALANCED = 50


def unlabelled_rows(y: np.ndarray, few: np.ndarray, section: str, seed: int) -> np.ndarray:
    """Numbers of the rows without a label: those of the pool that have none."""
    rest = np.setdiff1d(np.arange(len(y)), few)
    if section != "unbalanced":
        return rest
    rng, n_classes = np.random.RandomState(seed), int(y.max()) + 1
    share = UNBALANCED ** -rng.permutation(np.linspace(0, 1, n_classes))
    return rest[rng.uniform(size=len(rest)) < share[y[rest]]]


def run_one(problem: Problem, section: str, shots: int, seed: int, develop: bool) -> Scores:
    """Scores of all methods on a draw; empty where a class has too few rows."""
    if develop:
        X, X_test, y, y_test = train_test_split(
            problem.X_train, problem.y_train, stratify=problem.y_train, random_state=seed
        )
        problem = replace(problem, X_train=X, y_train=y, X_test=X_test, y_test=y_test)
    foreign = np.empty((0, problem.X_train.shape[1]), np.float32)
    if section == "foreign":
        classes = np.random.RandomState(seed).permutation(int(problem.y_train.max()) + 1)
        classes = np.sort(classes[: len(classes) // 2])
        foreign = problem.X_train[~np.isin(problem.y_train, classes)]
        problem = subset(problem, classes)
    X, y, text = problem.X_train, problem.y_train, problem.text_source
    if np.bincount(y).min() <= shots or (section == "names" and problem.text is None):
        return {}
    few = few_rows(y, shots, seed) if shots else np.empty(0, dtype=int)
    rest = unlabelled_rows(y, few, section, seed)
    own = np.vstack([X[few], X[rest]]), np.concatenate([y[few], np.full(len(rest), -1)])
    both = np.vstack([own[0], foreign]), np.concatenate([own[1], np.full(len(foreign), -1)])
    with warnings.catch_warnings():  # of text that tells nothing, of labels all alike
        warnings.simplefilter("ignore")
        if section == "names":
            models = {
                "zero-shot": ZeroShotCLIPClassifier(**text).fit(X, y),
                OURS: HeGraphClassifier(**text).fit(*own, classes=np.unique(y)),
            }
        else:
            models = {
                ALONE: HeGraphClassifier(**text).fit(X[few], y[few]),
                OURS: HeGraphClassifier(**text).fit(*both),
            }
        if section == "foreign":
            models[OWN] = HeGraphClassifier(**text).fit(*own)
        if section == "all":
            inner = HeGraphClassifier(**text)
            models["SelfTraining"] = SelfTrainingClassifier(inner, threshold=0.8).fit(*own)
            models["LabelSpreading"] = LabelSpreading("knn", n_neighbors=7).fit(*own)
        if section == "parts":
            models |= without_parts(text, *own)
        if section in ("all", "names") and problem.text is not None:
            P = problem.text[0] if isinstance(problem.text, tuple) else problem.text
            models["TransCLIP"] = transclip(TransCLIP(P, problem.logit_scale), shots).fit(*own)
            if section == "names":
                models["ZLaP"] = ZLaP(P).fit(own[0])
        return {
            name: scores(model.predict_proba(problem.X_test), problem.y_test)
            for name, model in models.items()
        }


def without_parts(text: dict[str, Any], X: np.ndarray, y: np.ndarray) -> dict[str, BaseEstimator]:
    """HeGraph fitted without one part of the method or another."""

    patches = {
        "r in place of r squared": {
            "parts": lambda r, f: np.minimum(2 * special.ndtr(f), 1)[:, None] * r
        },
        "no familiarity": {"parts": lambda r, f: np.square(r)},
        "share always 1": {"UNLABELLED_SHARES": (1.0,)},
        "share always 0.1": {"UNLABELLED_SHARES": (0.1,)},
    }
    models = {}
    for name, patched in patches.items():
        with mock.patch.multiple(hegraph_unlabelled, **patched):
            models[name] = HeGraphClassifier(**text).fit(X, y)
    alone = HeGraphClassifier(**text).fit(X[y >= 0], y[y >= 0])
    given = {
        name: getattr(alone, f"{name}_") for name in ("text_weight", "visual_weight", "shrinkage")
    }
    models["weights of labelled rows alone"] = HeGraphClassifier(**text, **given).fit(X, y)
    still = {"positive_to_visual": 0.0, "visual_to_visual": 0.0}
    models["no messages into visual nodes"] = HeGraphClassifier(**text, **still).fit(X, y)
    return models


def transclip(peer: TransCLIP, shots: int) -> BaseEstimator:
    """TransCLIP with `gamma` chosen on folds of the labelled rows, where there are several."""
    if shots < 2:
        return peer
    gammas = {"gamma": [0.002, 0.01, 0.02, 0.2]}
    folds = KeepUnlabelled(min(shots, 4))
    return GridSearchCV(peer, gammas, cv=folds, scoring="neg_log_loss")


def gains(results: dict[tuple[str, str, int], list[Scores]]) -> list[str]:
    """What unlabelled rows add to each cell: points of accuracy and nats."""
    shots = sorted({key[2] for key in results})
    lines = ["| section | set | " + " | ".join(map(shots_name, shots)) + " |"]
    lines[0] = lines[0].replace("1 to 20 shots", "names alone")
    lines.append("|---|---|" + "---|" * len(shots))
    for section, name in dict.fromkeys(key[:2] for key in results):
        shown = []
        for k in shots:
            if (section, name, k) not in results:
                shown.append("–")
                continue
            cell = mean_scores(results[section, name, k])
            before = cell[ALONE] if ALONE in cell else cell["zero-shot"]
            accuracy, loss = (cell[OURS] - before)[:2]
            shown.append(f"{accuracy:+.1f} / {loss:+.3f}")
        lines.append(f"| {section} | {name} | " + " | ".join(shown) + " |")
    return lines


def report(results: dict[tuple[str, str, int], list[Scores]]) -> str:
    """What is gained, then the tables of each section and set."""
    lines = ["", "### Gain over labelled rows alone (accuracy / log-loss)", "", *gains(results)]
    for section, name in dict.fromkeys(key[:2] for key in results):
        rows = {k: draws for (s, n, k), draws in results.items() if (s, n) == (section, name)}
        lines += ["", f"### {section}: {name}", "", *table(rows)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", nargs="+", default=[], metavar="FILE.npz")
    parser.add_argument("--images", nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--model", default="skhegraph-lite", help="CLIP of the image folders")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--develop", action="store_true", help="query rows from the training pool")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("unlabelled.md"))
    options = parser.parse_args(arguments)
    problems = [from_features(path) for path in options.features]
    problems += [from_images(folder, Encoder(options.model, None)) for folder in options.images]
    keys = [
        (section, problem, shots)
        for section in options.sections
        for problem in problems
        for shots in ([0] if section == "names" else options.shots)
    ]
    with parallel_config("loky", n_jobs=options.jobs, inner_max_num_threads=1):
        drawn = Parallel(verbose=1)(
            delayed(run_one)(problem, section, shots, seed, options.develop)
            for section, problem, shots in keys
            for seed in options.seeds
        )
    results: dict[tuple[str, str, int], list[Scores]] = {}
    for i, (section, problem, shots) in enumerate(keys):
        part = [d for d in drawn[i * len(options.seeds) : (i + 1) * len(options.seeds)] if d]
        if part:
            results[section, problem.name, shots] = part
    command = shlex.join(sys.argv if arguments is None else ["unlabelled.py", *arguments])
    date, seeds = datetime.date.today().isoformat(), " ".join(map(str, options.seeds))
    text = f"{date}; seeds {seeds}\n\n    python {command}\n{report(results)}"
    options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
