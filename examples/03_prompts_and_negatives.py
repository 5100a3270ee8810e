"""
Prompts and negatives, and what they do
=======================================

The name of a class reaches the classifier as prompts. This example compares templates, a whole
description for each class, and both together; then it looks at the negative prompts, and at what
they do once their paths in the graph are switched on.

What holds for the bundled ``"skhegraph-lite"`` need not hold for your CLIP: its text tower reads
the nouns of a prompt and little else. The recipe for finding out is the same.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from photographs import load_pieces
from sklearn.metrics import log_loss

from skhegraph import PRESETS, CLIPFeatures, FewShotSplit, HeGraphClassifier, ZeroShotCLIPClassifier
from skhegraph.clip.prompts import build_prompts

images, names = load_pieces(n_per_class=20)
features = CLIPFeatures("skhegraph-lite").fit_transform(images)

# %%
# Three ways to write prompts
# ---------------------------
# A preset or a format string puts the name into a sentence; a mapping gives each class whole
# descriptions, one or several. Their text features are averaged. Presets put the same words around
# every name, as the authors of CLIP do ("a photo of a coins."); a mapping need not.

print("presets:", ", ".join(PRESETS))
described = {
    "astronaut": "a photo of a spacesuit and a helmet.",
    "brick wall": "a photo of bricks and mortar.",
    "cat": "a photo of a tabby cat.",
    "coins": "a photo of old money.",
    "cup of coffee": "a photo of an espresso, a saucer and a spoon.",
    "flower": "a photo of a daisy.",
    "grass": "a photo of a lawn.",
    "gravel": "a photo of pebbles.",
    "motorcycle": "a photo of a motorbike, an engine and a wheel.",
    "rocket": "a photo of a missile and a launch tower.",
    "temple": "a photo of a pagoda and a roof.",
}
choices = {
    "the name\nalone": "{}",
    '"a photo\nof a {}."': "photo",
    "eight\ntemplates": "imagenet",
    "a\ndescription": described,
    "name and\ndescription": {name: ["{}", described[name]] for name in described},
}
for prompts in build_prompts(list(described), choices["name and\ndescription"])[:3]:
    print(prompts)

# %%
# What they are worth
# -------------------
# Zero-shot, and with one and four images of each class (three draws). With four images
# the words hardly matter any more: the weight of the text is estimated on the support set. The
# descriptions were written with the photographs in view, and still the one that is best with an
# image is not the one that is best without: measure on labelled images of your own.

accuracy = {}
for label, templates in choices.items():
    zero_shot = ZeroShotCLIPClassifier("skhegraph-lite", templates=templates).fit(features, names)
    accuracy[label] = [100 * zero_shot.score(features, names)]
    for shots in (1, 4):
        clf = HeGraphClassifier("skhegraph-lite", templates=templates)
        scores = [
            clf.fit(features[train], names[train]).score(features[test], names[test])
            for train, test in FewShotSplit(shots, n_splits=3, random_state=0).split(
                features, names
            )
        ]
        accuracy[label].append(100 * np.mean(scores))
    print(label.replace("\n", " ").rjust(22), np.round(accuracy[label], 1))

# %%
# Negative prompts
# ----------------
# Each class has a negative text node too: "a photo of no cat.". In the bundled CLIP it points away
# from the positive one, which its text tower was made to do; CLIPs learned from captions hardly
# tell the two apart, and there the picture on the right is nearly the same as that of the
# positives with themselves. ``negative_to_positive`` is the weight of what they tell the positive
# nodes, from two images per class on.

train_and_test = list(FewShotSplit(2, n_splits=3, random_state=0).split(features, names))
paths = {
    "negatives off": {"negative_to_positive": 0.0},
    "by default": {},
    "ten times that": {"negative_to_positive": 1.0},
}
for label, weights in paths.items():
    clf = HeGraphClassifier("skhegraph-lite", **weights)
    scores, losses = [], []
    for train, test in train_and_test:
        proba = clf.fit(features[train], names[train]).predict_proba(features[test])
        scores.append(100 * np.mean(clf.classes_[proba.argmax(axis=1)] == names[test]))
        losses.append(log_loss(names[test], proba, labels=clf.classes_))
    print(f"{label:>16}: {np.mean(scores):.1f} %, log-loss {np.mean(losses):.3f}")

# %%
# The picture
# -----------

figure, (left, right) = plt.subplots(
    1, 2, figsize=(12, 4.8), width_ratios=[1.25, 1], layout="constrained"
)
place = np.arange(len(choices))
for k, (label, color) in enumerate(
    {"no image": "0.6", "1 image per class": "C0", "4 images per class": "C2"}.items()
):
    values = [row[k] for row in accuracy.values()]
    bars = left.bar(place + 0.27 * (k - 1), values, 0.25, label=label, color=color)
    left.bar_label(bars, fmt="%.0f", fontsize=8)
left.set_xticks(place, choices, fontsize=9)
left.set(ylabel="test accuracy (%)", ylim=(0, 112), yticks=range(0, 101, 20))
left.legend(loc="upper center", ncols=3, frameon=False, fontsize=9)
cosines = clf.graph_["positive"] @ clf.graph_["negative"].T
shown = right.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1)
right.set_xticks(range(len(clf.classes_)), [f"no {c}" for c in clf.classes_], rotation=90)
right.set_yticks(range(len(clf.classes_)), clf.classes_)
right.set(xlabel="negative node", ylabel="positive node")
figure.colorbar(shown, ax=right, label="cosine of the text features")
out = Path(__file__).with_suffix(".png")
figure.savefig(out, dpi=120)
print(f"saved {out}")
