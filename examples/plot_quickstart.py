"""
Quickstart: a few labelled images in, a classifier out
======================================================

Runs offline: the images are the first 600 of scikit-learn's digits, the CLIP is the bundled
"skhegraph-lite". For 1, 4 and 16 shots per class and five random splits it prints the test
accuracy of zero-shot CLIP, logistic regression and HeGraph on the same features, and saves a
picture beside the script.

Splits: seed s draws the shots of each class without replacement; all other images are the test
set. Nothing is chosen on the test set. This CLIP has never seen digits, so its text is nearly
useless here, and HeGraph has to find that out from the support set.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from skhegraph import CLIPFeatures, FewShotSplit, HeGraphClassifier, ZeroShotCLIPClassifier

SHOTS, SEEDS = (1, 4, 16), range(5)
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

digits = load_digits()
images, labels = list(digits.images[:600] / 16), np.array(NAMES)[digits.target[:600]]

# The transformer step: images to unit CLIP features, encoded once.
clip = CLIPFeatures("skhegraph-lite")
features = clip.fit_transform(images)

text = {"model_name": "skhegraph-lite", "templates": "a photo of the number {}."}
methods = {
    "zero-shot": ZeroShotCLIPClassifier(**text),
    "logistic regression": LogisticRegression(max_iter=1000),
    "HeGraph": HeGraphClassifier(**text, random_state=0),
}

print(
    f"{len(images)} digits, seeds {SEEDS.start}-{SEEDS.stop - 1}, mean test accuracy +- std. error"
)
print("shots" + "".join(f"{name:>24}" for name in methods))
accuracy = {name: [] for name in methods}
for shots in SHOTS:
    scores = {name: [] for name in methods}
    for seed in SEEDS:
        splitter = FewShotSplit(shots, n_splits=1, random_state=seed)
        train, test = next(splitter.split(features, labels))
        for name, clf in methods.items():
            clf.fit(features[train], labels[train])
            scores[name].append(clf.score(features[test], labels[test]))
    row = f"{shots:5d}"
    for name, values in scores.items():
        accuracy[name].append(np.mean(values))
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        row += f"{100 * np.mean(values):16.1f} +- {100 * error:4.1f}"
    print(row)

# The picture: accuracy against shots, and what the last model says of some test images.
hegraph = methods["HeGraph"]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=[2, 3])
for name, values in accuracy.items():
    left.plot(SHOTS, 100 * np.array(values), "o-", label=name)
left.set(xscale="log", xlabel="shots per class", ylabel="test accuracy (%)", ylim=(0, 100))
left.set_xticks(SHOTS, [str(shots) for shots in SHOTS])
left.minorticks_off()
left.legend()
shown = test[:: len(test) // 18][:18]
proba = hegraph.predict_proba(features[shown])
tiles = [np.pad(images[i], ((1, 4), (2, 2))) for i in shown]
right.imshow(np.block([tiles[r : r + 6] for r in (0, 6, 12)]), cmap="gray")
for k, (i, p) in enumerate(zip(shown, proba, strict=True)):
    name = hegraph.classes_[p.argmax()]
    color = "lime" if name == labels[i] else "tomato"
    x, y = 12 * (k % 6) + 5.5, 13 * (k // 6) + 10.5
    right.text(x, y, f"{name} {p.max():.2f}", color=color, fontsize=8, ha="center", va="center")
right.set_axis_off()
right.set_title(f"HeGraph, {SHOTS[-1]} shots: predicted class and probability")
figure.tight_layout()
out = Path(__file__).with_suffix(".png")
figure.savefig(out, dpi=120)
print(f"saved {out.name}")
