"""Draw the two pictures of README: the graph of a fit, and accuracy against shots.

The graph is that of a fit on six classes of the guide's photographs, drawn by `GraphDisplay`; the
accuracies are those of the tables of few_shot.md, DTD and Pets, mean of both.

    python examples/benchmarks/readme_pictures.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
PICTURES = HERE.parents[1] / ".github"
SHOTS = [1, 2, 4, 8, 16]
CLASSES = ["cat", "coins", "flower", "grass", "gravel", "rocket"]


def draw_graph(path: Path) -> None:
    """Graph of six classes, four images each."""
    from photographs import load_pieces

    from skhegraph import FewShotSplit, make_hegraph_pipeline
    from skhegraph.inspection import GraphDisplay

    images, names = load_pieces(n_per_class=8)
    chosen = np.flatnonzero(np.isin(names, CLASSES))
    images, names = [images[i] for i in chosen], names[chosen]
    support, _ = next(FewShotSplit(4, n_splits=1, random_state=0).split(images, names))
    model = make_hegraph_pipeline("skhegraph-lite")
    model.fit([images[i] for i in support], names[support])
    figure, ax = plt.subplots(figsize=(7, 7))
    GraphDisplay.from_estimator(model, n_edges=12, ax=ax)
    figure.savefig(path, dpi=90, bbox_inches="tight")


def accuracies(text: str, data: str) -> dict[str, list[float]]:
    """Rows of a table of few_shot.md without gaps."""
    table = text.split(f"| {data}: accuracy (%) |")[1].split("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    means = {
        name: [float(re.sub(r"[^\d.]", "", cell.split("±")[0])) for cell in cells]
        for name, *cells in rows
        if "–" not in cells
    }
    return {name: values for name, values in means.items() if len(values) == len(SHOTS)}


def draw_accuracy(path: Path) -> None:
    """Accuracy against shots, mean over DTD and Pets."""
    text = (HERE / "few_shot.md").read_text(encoding="utf-8")
    tables = [accuracies(text, data) for data in ("DTD", "Pets")]
    figure, ax = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    shown = {"HeGraph": "#D55E00", "LogisticRegression": "#009E73", "Zero-shot": "black"}
    for name in tables[0]:
        if name.endswith("by accuracy") or name not in tables[1]:
            continue
        mean = np.mean([table[name] for table in tables], axis=0)
        color = shown.get(name, "0.75")
        width = 2.5 if name == "HeGraph" else 1.2
        label = name if name in shown else None
        order = 3 if name in shown else 2
        ax.plot(SHOTS, mean, color=color, lw=width, marker="o", ms=3, label=label, zorder=order)
    ax.plot([], [], color="0.75", label="other adapters")
    ax.set_xscale("log", base=2)
    ax.set_xticks(SHOTS, SHOTS)
    ax.set(
        xlabel="images per class", ylabel="test accuracy (%), mean of DTD and Pets", ylim=(35, 85)
    )
    ax.grid(alpha=0.3)
    ax.legend()
    figure.savefig(path, dpi=90, bbox_inches="tight")


if __name__ == "__main__":
    draw_graph(PICTURES / "graph.png")
    draw_accuracy(PICTURES / "accuracy.png")
