"""Switch one part of HeGraph at a time: what does each earn?

Every row changes one thing of the defaults, or of the described method (`PAPER_SETTINGS`), on the
same support sets as few_shot.py. The table (mean accuracy and log-loss over data sets and seeds,
with the paired difference in accuracy to the first row of its block) is kept in ablation.md.

    python examples/benchmarks/ablation.py --features *.npz --out examples/benchmarks/ablation.md
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from few_shot_data import Problem, few_rows, from_features
from few_shot_report import scores
from joblib import Parallel, delayed
from torch.nn import functional as F

from skhegraph import PAPER_SETTINGS, HeGraphClassifier, graph, network, training
from skhegraph.hegraph.graph import normalise
from skhegraph.hegraph.reuse import forget
from skhegraph.hegraph.training import Batch, cache_logits

DEFAULTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no graph (0 steps)": {"max_iter": 0},
    "no p->p": {"positive_to_positive": 0.0},
    "no v->p": {"visual_to_positive": 0.0},
    "no n->p (no negatives)": {"negative_to_positive": 0.0},
    "no p->n": {"positive_to_negative": 0.0},
    "no v->n": {"visual_to_negative": 0.0},
    "path weights x 2": {
        "positive_to_positive": 0.12,
        "visual_to_positive": 0.48,
        "negative_to_positive": 0.4,
    },
    "top_k = 3": {"top_k": 3},
    "no visual branch": {"visual_weight": 0.0},
    "no text branch": {"text_weight": 0.0},
    "text at CLIP's scale": {"text_weight": 1.0},
    "cache for the discriminant": {"visual_classifier": "cache"},
    "no trust region": {"trust_region": 0.0},
    "random start": {"init_scale": 1.0},
    "10 steps": {"max_iter": 10},
    "100 steps": {"max_iter": 100},
    "early stopping, up to 60": {"max_iter": 60, "early_stopping": True},
    "learning rate 6e-4 (a third)": {"learning_rate": 6e-4},
    "learning rate 6e-3 (three times)": {"learning_rate": 6e-3},
    "2 folds": {"n_folds": 2},
    "activation: identity": {"patch": "identity"},
    "degree: rows for both": {"patch": "row_degree"},
}
PAPER: dict[str, dict[str, Any]] = {
    "described method": {},
    "no n->p (no negatives)": {"negative_to_positive": 0.0, "negative_to_positive_predict": None},
    "no v->p": {"visual_to_positive": 0.0},
    "no cache shift": {"visual_to_visual": 0.0},
    "no visual loss": {"loss_weight": 0.0},
    "no leave-one-out (self-leak)": {"patch": "self_leak"},
    "no visual branch": {"visual_weight": 0.0},
    "start at zero-shot": {"init_scale": 0.0},
    "30 steps": {"max_iter": 30},
    "300 steps": {"max_iter": 300},
    "sharpness 5.5": {"sharpness": 5.5},
    "degree: rows for both": {"patch": "row_degree"},
    "logit fusion, estimated trust": {"fusion": "logits", "visual_weight": None},
}


def row_degree(R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`normalise` with the row degree in place of the column degree."""
    d = np.abs(R).sum(axis=1)
    return R / np.sqrt(np.outer(d + 1, d + 1)), 1 / (d + 1)[:, None]


def leaking_cache_logits(batch: Batch, shift: torch.Tensor, sharpness: float) -> torch.Tensor:
    """`cache_logits` in which a row meets itself."""
    keys = F.normalize(batch.X + shift[batch.y], dim=1)
    onehot = F.one_hot(batch.y, len(shift)).to(keys.dtype) * batch.weight[:, None]
    affinity = torch.exp(-sharpness * (1 - batch.X @ keys.T))
    return len(keys) / len(shift) * (affinity @ onehot) / onehot.sum(dim=0)


@contextmanager
def patched(name: str | None) -> Iterator[None]:
    """Change what is no parameter of the estimator."""
    tanh: Callable[[torch.Tensor], torch.Tensor] = torch.tanh
    if name == "identity":
        tanh = torch.clone
    with (
        mock.patch.object(network.torch, "tanh", tanh),
        mock.patch.object(graph, "normalise", row_degree if name == "row_degree" else normalise),
        mock.patch.object(
            training, "cache_logits", leaking_cache_logits if name == "self_leak" else cache_logits
        ),
    ):
        forget()
        yield
    forget()


def run(problem: Problem, shots: int, seed: int, params: dict[str, Any]) -> tuple[float, float]:
    """Test accuracy (%) and log-loss of one fit."""
    torch.set_num_threads(1)
    params = dict(params)
    rows = few_rows(problem.y_train, shots, seed)
    with patched(params.pop("patch", None)):
        clf = HeGraphClassifier(
            text_features=problem.text,
            logit_scale=problem.logit_scale,
            device="cpu",
            random_state=0,
            **params,
        ).fit(problem.X_train[rows], problem.y_train[rows])
    result = scores(clf.predict_proba(problem.X_test), problem.y_test)
    return result["accuracy"], result["log_loss"]


def block(
    variants: dict[str, dict[str, Any]],
    base: dict[str, Any],
    problems: list[Problem],
    shots: list[int],
    seeds: list[int],
    jobs: int,
) -> list[str]:
    """Markdown rows of one block."""
    tasks = [(p, k, s) for k in shots for p in problems for s in seeds]
    lines, first = [], None
    for name, change in variants.items():
        params = {**base, **change}
        runs = Parallel(jobs)(delayed(run)(*task, params) for task in tasks)
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
    for title, variants, base in (
        ("Defaults", DEFAULTS, {}),
        ("Described method (PAPER_SETTINGS)", PAPER, dict(PAPER_SETTINGS)),
    ):
        lines += [f"\n| {title} |{columns}", "|---|" + "---|" * len(options.shots)]
        lines += block(variants, base, problems, options.shots, options.seeds, options.jobs)
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
