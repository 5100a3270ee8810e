"""Compare HeGraph with its peers: same features, support sets and selection budget.

Every method with hyper-parameters chooses among at most six candidates by log-loss on stratified
folds of the support set (as many folds as the smallest class has rows, five at most; with one
row a class its authors' defaults stand). With `--select log_loss accuracy` each peer is reported
for either criterion. HeGraph gets no grid: its defaults select within `fit`.
The test split is used once, after selection.

Examples::

    python examples/benchmarks/few_shot.py --features cifar10.npz pets.npz --out results
    python examples/benchmarks/few_shot.py --images FOLDER --model ViT-B-32
    python examples/benchmarks/few_shot.py --torchvision DTD --root DATA --download
    python examples/benchmarks/few_shot.py --standard-11 --root DATA --download --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from few_shot_data import (
    Encoder,
    Problem,
    few_rows,
    from_features,
    from_images,
    from_torchvision,
)
from few_shot_report import (
    BY_ACCURACY,
    METRICS,
    OURS,
    Row,
    difference_table,
    markdown_table,
    plot,
    published_table,
    scores,
    summary,
    time_table,
    write_csv,
)
from joblib import Parallel, delayed, parallel_config
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, make_scorer
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from standard_11 import standard_11

from skhegraph import (
    HeGraphAdapterClassifier,
    HeGraphClassifier,
    ZeroShotCLIPClassifier,
    peers,
)

MAX_FOLDS = 5


@dataclass(frozen=True)
class Method:
    """How to build an estimator for a problem, and its candidates.

    Attributes
    ----------
    build : callable
        Maps a problem to an unfitted estimator with its authors' defaults.
    grid : list of dict
        Candidates for `GridSearchCV`; empty where there is nothing to choose.
    """

    build: Callable[[Problem], BaseEstimator]
    grid: list[dict[str, list[Any]]] = field(default_factory=list)


def with_text(cls: type, **params: Any) -> Callable[[Problem], BaseEstimator]:
    """Build an estimator of this package with the problem's text."""
    return lambda problem: cls(**problem.text_source, **params)


def pairs(first: str, second: str, *values: tuple[Any, Any]) -> list[dict[str, list[Any]]]:
    """Candidates that are pairs of values, in the form `GridSearchCV` takes."""
    return [{first: [a], second: [b]} for a, b in values]


_CACHE = pairs(
    "alpha", "beta", (1.17, 1.0), (0.3, 5.5), (1.17, 5.5), (5.0, 5.5), (20.0, 5.5), (20.0, 10.0)
)
METHODS: dict[str, Method] = {
    "Zero-shot": Method(with_text(ZeroShotCLIPClassifier)),
    "Tip-Adapter": Method(with_text(peers.TipAdapterClassifier), _CACHE),
    "Tip-Adapter-F": Method(with_text(peers.TipAdapterFClassifier, random_state=0), _CACHE),
    "GDA": Method(with_text(peers.GDAClassifier), [{"alpha": [0.01, 0.1, 0.3, 1.0, 3.0, 10.0]}]),
    "CLIP-Adapter": Method(
        with_text(peers.CLIPAdapterClassifier, random_state=0),
        pairs(
            "ratio",
            "learning_rate",
            (0.2, 3e-4),
            (0.2, 1e-3),
            (0.2, 3e-3),
            (0.6, 1e-3),
            (0.6, 3e-3),
            (0.6, 1e-2),
        ),
    ),
    "TaskRes": Method(
        with_text(peers.TaskResClassifier, random_state=0),
        [{"alpha": [0.1, 0.5, 1.5, 5.0, 15.0, 50.0]}],
    ),
    "LP++": Method(
        with_text(peers.LPPlusPlusClassifier),
        pairs(
            "init_scale",
            "max_iter",
            (2.5, 300),
            (2.5, 10),
            (1.0, 10),
            (1.0, 30),
            (1.0, 100),
            (0.3, 30),
        ),
    ),
    "CLAP": Method(
        with_text(peers.CLAPClassifier),
        [{"penalty": [3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]}],
    ),
    "GraphAdapter": Method(
        with_text(peers.GraphAdapterClassifier, random_state=0),
        pairs(
            "beta",
            "learning_rate",
            (0.97, 1e-3),
            (0.9, 1e-3),
            (0.7, 1e-3),
            (0.3, 1e-3),
            (0.3, 5e-3),
            (0.3, 2e-2),
        ),
    ),
    "Text-started LR": Method(
        with_text(peers.TextStartedLogisticRegression),
        [{"C": [0.1, 1.0, 3.0, 10.0, 30.0, 100.0]}],
    ),
    "SS-Text": Method(with_text(peers.SSTextClassifier)),
    "ProKeR": Method(with_text(peers.ProKeRClassifier), [{"beta": [0.5, 1.0, 1.5, 2.0, 3.0, 5.5]}]),
    "MAP-LR": Method(
        with_text(peers.MAPLogisticRegression),
        pairs(
            "alpha",
            "penalty",
            (0.2, 1e-2),
            (0.2, 1e-3),
            (0.2, 1e-4),
            (0.4, 1e-2),
            (0.4, 1e-3),
            (0.4, 1e-4),
        ),
    ),
    "LogisticRegression": Method(
        lambda problem: LogisticRegression(max_iter=2000),
        [{"C": [0.1, 1.0, 3.0, 10.0, 30.0, 100.0]}],
    ),
    "HeGraphAdapter": Method(with_text(HeGraphAdapterClassifier, random_state=0)),
    OURS: Method(with_text(HeGraphClassifier)),
}


def choose(
    method: Method,
    problem: Problem,
    X: np.ndarray,
    y: np.ndarray,
    seed: int,
    select: Sequence[str] = ("log_loss",),
) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Fit a method on a support set, with its hyper-parameters chosen on folds of that set.

    Parameters
    ----------
    method : Method
        Estimator and candidates.
    problem : Problem
        Gives the text; its rows are not looked at.
    X, y : ndarray of shape (n_support, n_features), (n_support,)
        The support set.
    seed : int
        Seed of the folds.
    select : sequence of {"log_loss", "accuracy"}, default=("log_loss",)
        What the candidates are compared by.

    Returns
    -------
    dict of str to (estimator, dict)
        For each criterion the fitted estimator and the parameters chosen for it.
    """
    estimator = method.build(problem)
    folds = min(MAX_FOLDS, int(np.bincount(y).min()))
    if not method.grid or folds < 2:
        return dict.fromkeys(select, (estimator.fit(X, y), {}))
    log_loss_scorer = make_scorer(
        log_loss, greater_is_better=False, response_method="predict_proba", labels=np.unique(y)
    )
    scorers = {"log_loss": log_loss_scorer, "accuracy": "accuracy"}
    search = GridSearchCV(
        estimator,
        method.grid,
        scoring={criterion: scorers[criterion] for criterion in select},
        cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
        refit=False,
        error_score="raise",
    ).fit(X, y)
    chosen = {}
    for criterion in select:
        best = int(np.argmin(search.cv_results_[f"rank_test_{criterion}"]))
        params = search.cv_results_["params"][best]
        chosen[criterion] = clone(estimator).set_params(**params).fit(X, y), params
    return chosen


def run_one(
    problem: Problem, shots: int, seed: int, name: str, select: Sequence[str] = ("log_loss",)
) -> list[Row]:
    """Draw a support set, choose and fit a method on it, score it on the test split."""
    support = few_rows(problem.y_train, shots, seed)
    X, y = problem.X_train[support], problem.y_train[support]
    if not METHODS[name].grid:
        select = ("log_loss",)
    started = time.perf_counter()
    with warnings.catch_warnings():  # some candidates are meant to be extreme
        warnings.simplefilter("ignore", ConvergenceWarning)
        chosen = choose(METHODS[name], problem, X, y, seed, select)
    fit_seconds = time.perf_counter() - started
    rows = []
    for criterion, (model, params) in chosen.items():
        started = time.perf_counter()
        proba = model.predict_proba(problem.X_test)
        seconds = time.perf_counter() - started
        row: Row = {"dataset": problem.name, "shots": shots, "seed": seed}
        row["method"] = name if criterion == "log_loss" else name + BY_ACCURACY
        row |= scores(proba, problem.y_test)
        row |= {"fit_seconds": fit_seconds, "predict_seconds": seconds}
        rows.append(row | {"chosen": json.dumps(params)})
    return rows


def run(
    problems: Sequence[Problem],
    shots: Sequence[int],
    seeds: Sequence[int],
    methods: Sequence[str],
    jobs: int = 1,
    select: Sequence[str] = ("log_loss",),
) -> list[Row]:
    """Run every combination; rows come in the order data set, shots, seed, method."""
    tasks = [
        delayed(run_one)(problem, k, seed, name, select)
        for problem in problems
        for k in shots
        for seed in seeds
        for name in methods
    ]
    with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
        groups = Parallel(verbose=1 if len(tasks) > 100 else 0)(tasks)
    return [row for group in groups for row in group]


def report(rows: Sequence[Row], out: Path, heading: str, published: str | None = None) -> None:
    """Write the CSV files and the plot to `out` and print the tables."""
    out.mkdir(parents=True, exist_ok=True)
    lines = summary(rows)
    write_csv(out / "few_shot_runs.csv", rows)
    write_csv(out / "few_shot_summary.csv", lines)
    plot(lines, out / "few_shot.png")
    tables = [markdown_table(lines, metric) for metric in METRICS]
    tables += [difference_table(lines), time_table(lines)]
    if published is not None:
        tables.append(published_table(lines, published))
    text = "\n\n".join([heading, *(table for table in tables if table)])
    (out / "few_shot.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group("data")
    data.add_argument("--features", nargs="+", default=[], metavar="FILE.npz")
    data.add_argument("--images", nargs="+", default=[], metavar="FOLDER")
    data.add_argument("--torchvision", nargs="+", default=[], metavar="NAME")
    data.add_argument("--standard-11", action="store_true", help="the eleven usual data sets")
    data.add_argument("--root", type=Path, help="folder of the torchvision data sets")
    data.add_argument("--download", action="store_true", help="let torchvision fetch data sets")
    data.add_argument("--model", default="skhegraph-tiny", help="CLIP that encodes images")
    data.add_argument("--pretrained", default=None, help="its weights")
    data.add_argument("--templates", default=None, help="preset; default: the data set's own")
    data.add_argument("--pool", type=int, default=64, help="training images a class to encode")
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    data.add_argument(
        "--standard-models",
        nargs="+",
        default=["RN50:openai", "ViT-B-16:openai"],
        metavar="NAME:WEIGHTS",
        help="CLIPs of --standard-11",
    )
    parser.add_argument("--out", type=Path, default=Path("few_shot_results"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--select",
        nargs="+",
        choices=["log_loss", "accuracy"],
        default=["log_loss"],
        help="criterion on the folds; with both, every peer is reported for each",
    )
    options = parser.parse_args(arguments)
    if not (options.features or options.images or options.torchvision or options.standard_11):
        parser.error("give --features, --images, --torchvision or --standard-11")
    if (options.torchvision or options.standard_11) and options.root is None:
        parser.error("--torchvision and --standard-11 need --root")
    return options


def load(options: argparse.Namespace) -> list[Problem]:
    """Load what --features, --images and --torchvision name."""
    encoder = Encoder(options.model, options.pretrained, options.templates, options.pool)
    problems = [from_features(path) for path in options.features]
    problems += [from_images(folder, encoder) for folder in options.images]
    problems += [
        from_torchvision(name, options.root, encoder, options.download)
        for name in options.torchvision
    ]
    return problems


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    options = parse(arguments)
    command = shlex.join(sys.argv if arguments is None else ["few_shot.py", *arguments])
    settings = options.shots, options.seeds, options.methods, options.jobs, options.select

    def heading(what: str, seconds: float) -> str:
        date = datetime.date.today().isoformat()
        return (
            f"{what}; {date}; seeds {' '.join(map(str, options.seeds))}; mean ± standard error "
            f"over seeds; {seconds / 60:.1f} minutes\n\n    python {command}"
        )

    if options.standard_11:
        for model in options.standard_models:
            model_name, _, pretrained = model.partition(":")
            started = time.perf_counter()
            encoder = Encoder(model_name, pretrained or None, options.templates, options.pool)
            rows = run(standard_11(options.root, encoder, options.download), *settings)
            title = heading(f"{model_name}, 11 data sets", time.perf_counter() - started)
            report(rows, options.out / model_name, title, published=model_name)
    problems = load(options)
    if problems:
        started = time.perf_counter()
        rows = run(problems, *settings)
        names = ", ".join(problem.name for problem in problems)
        report(rows, options.out, heading(names, time.perf_counter() - started))


if __name__ == "__main__":
    main()
