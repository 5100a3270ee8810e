"""Scores, tables and plot of the few-shot benchmark."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

OURS = "HeGraph"
BY_ACCURACY = ", by accuracy"
METRICS = {"accuracy": "Accuracy (%)", "log_loss": "Log-loss", "ece": "ECE (%)"}
Row = dict[str, Any]

# Averages over the eleven data sets as their authors published them (RN50; protocols differ, and
# most select on a full validation split). They were not computed here.
PUBLISHED_SHOTS = (1, 2, 4, 8, 16)
PUBLISHED = {
    "Zero-shot": (58.9, 58.9, 58.9, 58.9, 58.9),
    "Tip-Adapter-F": (64.6, 66.7, 69.7, 72.5, 75.8),
    "GDA": (62.2, 66.2, 69.8, 73.3, 76.1),
    "TIMO-S": (66.8, 68.7, 71.6, 74.2, 76.8),
    "APE-T": (67.2, 69.4, 72.3, 74.5, 77.3),
    "GraphAdapter": (64.8, 67.7, 70.3, 73.4, 76.2),
}
PUBLISHED_VIT_B_16 = {"GDA": {16: 81.9}}


def expected_calibration_error(proba: np.ndarray, y: np.ndarray, n_bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of confidence."""
    confidence = proba.max(axis=1)
    right = proba.argmax(axis=1) == y
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(y))


def scores(proba: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Accuracy and calibration error in percent, log-loss in nats."""
    own = np.clip(proba[np.arange(len(y)), y], 1e-15, 1.0)
    return {
        "accuracy": 100.0 * float((proba.argmax(axis=1) == y).mean()),
        "log_loss": float(-np.log(own).mean()),
        "ece": 100.0 * expected_calibration_error(proba, y),
    }


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error (NaN for one value)."""
    n = len(values)
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else np.nan


def seed_means(rows: Iterable[Row], method: str, shots: int, metric: str) -> dict[int, float]:
    """Mean over the data sets, for each seed."""
    values: dict[int, list[float]] = {}
    for row in rows:
        if row["method"] == method and row["shots"] == shots:
            values.setdefault(row["seed"], []).append(row[metric])
    return {seed: float(np.mean(group)) for seed, group in sorted(values.items())}


def distinct(rows: Iterable[Row], key: str) -> list[Any]:
    """Distinct values of a column, in order of appearance."""
    return list(dict.fromkeys(row[key] for row in rows))


def summary(rows: Sequence[Row]) -> list[Row]:
    """Mean and standard error over seeds for each data set, and for their average.

    Adds the paired difference to HeGraph (method minus HeGraph on the same seeds).
    """
    result = []
    for dataset in [*distinct(rows, "dataset"), "average"]:
        part = [row for row in rows if dataset in ("average", row["dataset"])]
        for shots in distinct(part, "shots"):
            for method in distinct(part, "method"):
                line: Row = {"dataset": dataset, "shots": shots, "method": method}
                for metric in [*METRICS, "fit_seconds", "predict_seconds"]:
                    mine = seed_means(part, method, shots, metric)
                    line[metric], line[f"{metric}_se"] = mean_and_error(list(mine.values()))
                    ours = seed_means(part, OURS, shots, metric) if metric in METRICS else {}
                    paired = [mine[seed] - ours[seed] for seed in mine if seed in ours]
                    if paired and method != OURS:
                        names = f"{metric}_minus_hegraph", f"{metric}_minus_hegraph_se"
                        line.update(zip(names, mean_and_error(paired), strict=True))
                result.append(line)
    return result


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows; the columns are the union of theirs, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def markdown_table(lines: Sequence[Row], metric: str, dataset: str = "average") -> str:
    """Markdown table, methods by shots, mean ± standard error over seeds; best mean in bold."""
    lines = [line for line in lines if line["dataset"] == dataset]
    shots, methods = distinct(lines, "shots"), distinct(lines, "method")
    cells = {(line["method"], line["shots"]): line for line in lines}
    pick = max if metric == "accuracy" else min
    digits = 3 if metric == "log_loss" else 1
    best = {k: pick(f"{line[metric]:09.{digits}f}" for line in lines if line["shots"] == k)
            for k in shots}  # fmt: skip
    out = [f"| {METRICS[metric]} | " + " | ".join(f"{k} shot{'s' * (k > 1)}" for k in shots) + " |"]
    out.append("|---|" + "---|" * len(shots))
    for method in methods:
        row = []
        for k in shots:
            line = cells[method, k]
            text = f"{line[metric]:.{digits}f}"
            bold = "**" if f"{line[metric]:09.{digits}f}" == best[k] else ""
            error = line[f"{metric}_se"]
            row.append(
                f"{bold}{text}{bold}" + ("" if np.isnan(error) else f" ± {error:.{digits}f}")
            )
        out.append(f"| {method} | " + " | ".join(row) + " |")
    return "\n".join(out)


def difference_table(lines: Sequence[Row]) -> str:
    """Markdown table of accuracy minus HeGraph's, paired by seed; empty without HeGraph."""
    lines = [line for line in lines if line["dataset"] == "average"]
    key = "accuracy_minus_hegraph"
    methods = distinct([line for line in lines if key in line], "method")
    if not methods:
        return ""
    shots = distinct(lines, "shots")
    cells = {(line["method"], line["shots"]): line for line in lines}
    out = [f"| Accuracy minus {OURS}'s | " + " | ".join(f"{k}" for k in shots) + " |"]
    out.append("|---|" + "---|" * len(shots))
    for method in methods:
        row = [f"{cells[method, k][key]:+.1f} ± {cells[method, k][f'{key}_se']:.1f}" for k in shots]
        out.append(f"| {method} | " + " | ".join(row) + " |")
    return "\n".join(out)


def time_table(lines: Sequence[Row]) -> str:
    """Markdown table of fit time (with selection) and predict time at the most shots."""
    lines = [line for line in lines if line["dataset"] == "average"]
    most = max(line["shots"] for line in lines)
    out = [f"| Seconds a data set, {most} shots | fit with selection | predict |", "|---|---|---|"]
    out += [
        f"| {line['method']} | {line['fit_seconds']:.2f} | {line['predict_seconds']:.4f} |"
        for line in lines
        if line["shots"] == most
    ]
    return "\n".join(out)


def published_table(lines: Sequence[Row], model_name: str) -> str:
    """Our averages beside the published ones, which are labelled as such."""
    lines = [line for line in lines if line["dataset"] == "average"]
    here = {(line["method"], line["shots"]): f"{line['accuracy']:.1f}" for line in lines}
    published = {
        (method, k): f"{value:.1f}"
        for method, values in PUBLISHED.items()
        for k, value in zip(PUBLISHED_SHOTS, values, strict=True)
    }
    if model_name == "ViT-B-16":
        published = {
            (method, k): f"{value:.1f}"
            for method, values in PUBLISHED_VIT_B_16.items()
            for k, value in values.items()
        }
    out = [f"| {model_name}, average of 11 | " + " | ".join(map(str, PUBLISHED_SHOTS)) + " |"]
    out.append("|---|" + "---|" * len(PUBLISHED_SHOTS))
    for label, cells in (("run here", here), ("published", published)):
        for method in dict.fromkeys(method for method, _ in cells):
            row = [cells.get((method, k), "") for k in PUBLISHED_SHOTS]
            out.append(f"| {method} ({label}) | " + " | ".join(row) + " |")
    return "\n".join(out)


def plot(lines: Sequence[Row], path: Path) -> None:
    """Plot accuracy against shots, one panel a data set and one for the average."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = distinct(lines, "dataset")
    methods = distinct(lines, "method")
    columns = min(3, len(panels))
    height = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns + 2.2, 3.4 * height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(height, columns, squeeze=False).ravel()
    bases = list(dict.fromkeys(method.removesuffix(BY_ACCURACY) for method in methods))
    colours = [*(f"C{i}" for i in range(10)), "navy", "gold", "teal"]
    for axis, dataset in zip(axes, panels, strict=False):
        part = [line for line in lines if line["dataset"] == dataset]
        for method in methods:
            i = bases.index(method.removesuffix(BY_ACCURACY))
            own = sorted((ln for ln in part if ln["method"] == method), key=lambda ln: ln["shots"])
            axis.errorbar(
                [line["shots"] for line in own],
                [line["accuracy"] for line in own],
                yerr=[np.nan_to_num(line["accuracy_se"]) for line in own],
                label=method,
                color="black" if method == OURS else colours[i % 13],
                linestyle="--" if method.endswith(BY_ACCURACY) else "-",
                linewidth=2.4 if method == OURS else 1.2,
                marker="os^Dv<>Pph*X"[i % 12],
                markersize=4,
                zorder=3 if method == OURS else 2,
            )
        axis.set_xscale("log", base=2)
        axis.set_xticks(distinct(part, "shots"), labels=[str(k) for k in distinct(part, "shots")])
        axis.set(title=dataset, xlabel="shots a class", ylabel="accuracy (%)")
        axis.grid(alpha=0.3)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path, dpi=130)
