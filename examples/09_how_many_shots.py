"""
How many shots do I need?
=========================

Labelling costs time: this example draws accuracy against the number of labelled images of each
class, beside the names alone (zero-shot) and the images alone (logistic regression), and reads off
it when the next image is still worth its label.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from photographs import load_pieces
from sklearn.linear_model import LogisticRegression

from skhegraph import CLIPFeatures, HeGraphClassifier
from skhegraph.inspection import ShotsDisplay

SHOTS = (1, 2, 4, 8, 16)

# %%
# Two cases
# ---------
# All eleven classes, whose names the bundled CLIP knows in part; and four that it knows well.
# Each point is the mean of five draws of the support set, with its standard error.

figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
images, names = load_pieces(n_per_class=30)
features = CLIPFeatures("skhegraph-lite").fit_transform(images)
cases = {
    "Eleven classes": np.unique(names),
    "Four that the text knows": np.array(["cat", "cup of coffee", "flower", "motorcycle"]),
}
gains = {}
for ax, (title, classes) in zip(axes, cases.items(), strict=True):
    chosen = np.isin(names, classes)
    display = ShotsDisplay.from_estimator(
        HeGraphClassifier("skhegraph-lite"),
        features[chosen],
        names[chosen],
        shots=SHOTS,
        n_draws=5,
        others={"logistic regression": LogisticRegression(max_iter=1000)},
        random_state=0,
        ax=ax,
    )
    ax.set(title=title, ylim=(0.45, 1.02))
    print(title)
    for name, scores in display.scores.items():
        print(f"{name:>20}", *(f"{100 * score:5.1f}" for score in scores.mean(axis=1)))
    gains[title] = 100 * np.diff(display.scores["HeGraphClassifier"].mean(axis=1))

# %%
# When are the names enough? Where the curve does not rise above zero-shot by more than the labels
# are worth. And when is it time to stop? What a doubling of the images gains is what the next
# labels are for.

for title, gain in gains.items():
    steps = zip(SHOTS, SHOTS[1:], gain, strict=False)
    print(f"{title}:", ", ".join(f"{a} to {b} gains {g:+.1f} points" for a, b, g in steps))
out = Path(__file__).with_suffix(".png")
figure.savefig(out, dpi=110)
print(f"saved {out}")
