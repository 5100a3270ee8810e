"""
Quick start: a few labelled photographs in, a classifier out
=============================================================

Four labelled images of each class and the names of the classes are enough for a first model. It
runs offline: the images are pieces of photographs that come with scikit-learn and scikit-image
(:mod:`photographs` beside this file cuts them out), and the CLIP is the bundled
``"skhegraph-lite"``.
"""

import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from photographs import load_pieces, show_pieces
from sklearn.linear_model import LogisticRegression

from skhegraph import (
    CLIPFeatures,
    FewShotSplit,
    HeGraphClassifier,
    ZeroShotCLIPClassifier,
    make_hegraph_pipeline,
)

# %%
# The images, and a support set
# -----------------------------
# Images may be paths, bytes, PIL images, arrays or tensors. Labels that are strings are the names
# of the classes, and go into the prompts of the text tower as they are. ``FewShotSplit`` draws
# four images of each class to learn from; all others are for the test.

images, names = load_pieces(n_per_class=30)
support, test = next(FewShotSplit(4, n_splits=1, random_state=0).split(images, names))
print(f"{len(support)} images to learn from, {len(test)} to test on, {len(set(names))} classes")

# %%
# Fit and predict
# ---------------
# The pipeline has two steps: ``CLIPFeatures`` turns images into rows of numbers, and
# ``HeGraphClassifier`` learns from the images and the names. ``cache_dir`` keeps the rows, so that
# no image is encoded twice.

cache = tempfile.TemporaryDirectory()
model = make_hegraph_pipeline("skhegraph-lite", cache_dir=cache.name)
model.fit([images[i] for i in support], names[support])
proba = model.predict_proba([images[i] for i in test])
predicted = model.classes_[proba.argmax(axis=1)]
print(f"right: {100 * np.mean(predicted == names[test]):.1f} %")

# %%
# Beside what else one would try
# ------------------------------
# The same features, encoded once, for three classifiers: the names alone (zero-shot), the images
# alone (logistic regression), and both. Means over five draws of the support set.

features = CLIPFeatures("skhegraph-lite", cache_dir=cache.name).fit_transform(images)
methods = {
    "zero-shot": ZeroShotCLIPClassifier("skhegraph-lite"),
    "logistic regression": LogisticRegression(max_iter=1000),
    "HeGraph": HeGraphClassifier("skhegraph-lite"),
}
SHOTS = (1, 4)
accuracy = {name: [] for name in methods}
for shots in SHOTS:
    scores = {name: [] for name in methods}
    for train, rest in FewShotSplit(shots, n_splits=5, random_state=0).split(features, names):
        for name, clf in methods.items():
            clf.fit(features[train], names[train])
            scores[name].append(100 * clf.score(features[rest], names[rest]))
    for name, values in scores.items():
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        accuracy[name].append((np.mean(values), error))
        print(f"{shots} shots, {name:>20}: {np.mean(values):5.1f} +- {error:.1f} %")

# %%
# The picture
# -----------
# Left, the comparison; right, what the pipeline says of every sixteenth test image: green is
# right, red is wrong.

figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4.4), width_ratios=[2, 3], layout="constrained"
)
for k, (name, values) in enumerate(accuracy.items()):
    mean, error = np.array(values).T
    left.bar(np.arange(len(SHOTS)) + 0.27 * (k - 1), mean, 0.25, yerr=error, capsize=3, label=name)
left.set_xticks(range(len(SHOTS)), [f"{s} image{'s' * (s > 1)} per class" for s in SHOTS])
left.set(ylabel="test accuracy (%)", ylim=(0, 115), yticks=range(0, 101, 20))
left.legend(loc="upper center", ncols=3, fontsize=8, frameon=False)
shown = np.arange(8, len(test), 16)
right_ones = predicted[shown] == names[test[shown]]
show_pieces(
    right,
    [images[i] for i in test[shown]],
    [
        f"{p}\n{100 * q:.0f} %"
        for p, q in zip(predicted[shown], proba[shown].max(axis=1), strict=True)
    ],
    ["green" if ok else "crimson" for ok in right_ones],
)
right.set_title("Predicted class and its probability, 4 images per class")
out = Path(__file__).with_suffix(".png")
figure.savefig(out, dpi=120)
print(f"saved {out}")
