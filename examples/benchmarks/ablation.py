"""Switch one part of HeGraph at a time: what does each earn?

Every row changes one thing of the defaults, or of the described method, on the same support sets
as few_shot.py. The table (mean accuracy and log-loss over data sets and seeds,
with the paired difference in accuracy to the first row of its block) is kept in ablation.md.

    python examples/benchmarks/ablation.py --features *.npz --out examples/benchmarks/ablation.md
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from few_shot_data import Problem, few_rows, from_features
from few_shot_report import scores
from joblib import Parallel, delayed

from skhegraph import HeGraphAdapterClassifier, HeGraphClassifier

NO_PATHS = {
    "positive_to_positive": 0.0,
    "visual_to_positive": 0.0,
    "negative_to_positive": 0.0,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no p->v (text to visual nodes)": {"positive_to_visual": 0.0},
    "no v->v (among visual nodes)": {"visual_to_visual": 0.0},
    "neither": {"positive_to_visual": 0.0, "visual_to_visual": 0.0},
    "no p->p": {"positive_to_positive": 0.0},
    "no v->p": {"visual_to_positive": 0.0},
    "no n->p, p->n, v->n (no negatives)": {"negative_to_positive": 0.0},
    "no matrix (residuals alone)": NO_PATHS,
    "v->p x 2": {"visual_to_positive": 3.0},
    "all three x 2": {
        "positive_to_positive": 0.5,
        "visual_to_positive": 3.0,
        "negative_to_positive": 0.2,
    },
    "nothing trained": {"penalty": 1e6},
    "training x 3 (penalty 1/3)": {"penalty": 1.0},
    "training / 3 (penalty x 3)": {"penalty": 9.0},
    "no visual branch": {"visual_weight": 0.0},
    "no text branch": {"text_weight": 0.0},
    "text at CLIP's scale": {"text_weight": 1.0},
    "no text at all": {"text_features": "prototypes", "logit_scale": None},
}
DESCRIBED: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no p->n": {"positive_to_negative": 0.0},
    "no v->n": {"visual_to_negative": 0.0},
    "no p->p": {"positive_to_positive": 0.0},
    "no v->p": {"visual_to_positive": 0.0},
    "no n->p (no negatives)": {"negative_to_positive": 0.0},
    "nodes of length 1": {"node_norm": 1.0},
    "all edges (top_k None)": {"top_k": None},
    "nothing trained": {"n_epochs": 0},
    "no pull to zero-shot": {"penalty": 0.0},
    "no cache": {"visual_weight": 0.0},
    "sharpness 1": {"sharpness": 1.0},
    "probabilities averaged, as described": {
        "fusion": "probabilities",
        "top_k": None,
        "n_epochs": 100,
        "learning_rate": 5e-3,
        "batch_size": 32,
    },
    "the same, no cache shift": {
        "fusion": "probabilities",
        "top_k": None,
        "n_epochs": 100,
        "learning_rate": 5e-3,
        "batch_size": 32,
        "visual_to_visual": 0.0,
    },
    "the same, no joint loss": {
        "fusion": "probabilities",
        "top_k": None,
        "n_epochs": 100,
        "learning_rate": 5e-3,
        "batch_size": 32,
        "loss_weight": 0.0,
    },
}


def run(
    estimator: type, problem: Problem, shots: int, seed: int, params: dict[str, Any]
) -> tuple[float, float]:
    """Test accuracy (%) and log-loss of one fit."""
    torch.set_num_threads(1)
    rows = few_rows(problem.y_train, shots, seed)
    clf = estimator(**{**problem.text_source, "device": "cpu", **params})
    if "random_state" in clf.get_params():
        clf.set_params(random_state=0)
    clf.fit(problem.X_train[rows], problem.y_train[rows])
    result = scores(clf.predict_proba(problem.X_test), problem.y_test)
    return result["accuracy"], result["log_loss"]


def block(
    estimator: type,
    variants: dict[str, dict[str, Any]],
    problems: list[Problem],
    shots: list[int],
    seeds: list[int],
    jobs: int,
) -> list[str]:
    """Markdown rows of one block."""
    tasks = [(p, k, s) for k in shots for p in problems for s in seeds]
    lines, first = [], None
    for name, params in variants.items():
        runs = Parallel(jobs)(delayed(run)(estimator, *task, params) for task in tasks)
        values = np.array(runs).reshape(len(shots), len(problems), len(seeds), 2).mean(axis=1)
        first = values if first is None else first
        gain = values[..., 0] - first[..., 0]  # (shots, seeds), over data sets
        error = gain.std(axis=1, ddof=1) / np.sqrt(len(seeds)) if len(seeds) > 1 else gain[:, 0]
        cells = [
            f"{values[i, :, 0].mean():.1f} ({gain[i].mean():+.1f} ± {error[i]:.1f}), "
            f"{values[i, :, 1].mean():.3f}"
            for i in range(len(shots))
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Run both blocks and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", nargs="+", required=True)
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    problems = [from_features(path) for path in options.features]
    head = [
        f"{datetime.date.today()}; {', '.join(p.name for p in problems)}; seeds "
        f"{' '.join(map(str, options.seeds))}. Cells: accuracy in % (paired difference to the "
        "first row of the block ± its standard error over seeds), log-loss in nats; means over "
        "data sets. Test splits; nothing is selected on them by a fit.\n"
    ]
    columns = "".join(f" {k} shot{'s' * (k > 1)} |" for k in options.shots)
    lines = head
    for title, estimator, variants in (
        ("HeGraphClassifier", HeGraphClassifier, DEFAULTS),
        ("HeGraphAdapterClassifier", HeGraphAdapterClassifier, DESCRIBED),
    ):
        lines += [f"\n| {title} |{columns}", "|---|" + "---|" * len(options.shots)]
        lines += block(estimator, variants, problems, options.shots, options.seeds, options.jobs)
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
