"""
Unbalanced classes and wrong labels
===================================

Sixteen images of one class and one of another; and a tenth of the labels wrong. Two things that
happen to every folder, what they cost, and what to do.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from photographs import load_pieces, show_pieces
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, recall_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from skhegraph import CLIPFeatures, FewShotSplit, HeGraphClassifier

images, names = load_pieces(n_per_class=28)
features = CLIPFeatures("skhegraph-lite").fit_transform(images)
classes = np.unique(names)

# %%
# Unbalanced classes
# ------------------
# A support set drawn by hand says nothing about how often a class occurs, and so all classes are
# taken to be equally likely: ``class_weight="balanced"`` is the default. Where the counts are those
# of the world, ``class_weight=None`` makes frequent classes likelier. The test below is balanced:
# the mean is over the recall of each class, five draws.

COUNTS = [16, 16, 8, 8, 4, 4, 2, 2, 1, 1, 1]
methods = {
    "HeGraph, balanced": HeGraphClassifier("skhegraph-lite"),
    "HeGraph, as counted": HeGraphClassifier("skhegraph-lite", class_weight=None),
    "logistic regression, balanced": LogisticRegression(class_weight="balanced", max_iter=1000),
}
recall = {name: [] for name in methods}
for seed in range(5):
    rng = np.random.RandomState(seed)
    drawn = [
        rng.choice(np.flatnonzero(names == c), k, replace=False)
        for c, k in zip(classes, COUNTS, strict=True)
    ]
    train = np.concatenate(drawn)
    test = np.setdiff1d(np.arange(len(names)), train)
    for name, clf in methods.items():
        predicted = clf.fit(features[train], names[train]).predict(features[test])
        recall[name].append(recall_score(names[test], predicted, labels=classes, average=None))
for name, values in recall.items():
    print(f"{name:>30}: mean recall {100 * np.mean(values):.1f} %")

# %%
# Wrong labels
# ------------
# Twelve images of each class, and a tenth of the labels changed. Cross-validation gives each image
# the probability of its own label by a model that has not seen it; where that is low, look at the
# image. With ``class_names`` the pipeline knows the names, although ``cross_val_predict`` hands it
# numbers in place of labels.

rng = np.random.RandomState(0)
train, test = next(FewShotSplit(12, n_splits=1, random_state=0).split(features, names))
given = names[train].copy()
changed = rng.choice(len(train), len(train) // 10, replace=False)
for i in changed:
    given[i] = rng.choice(classes[classes != given[i]])
clf = HeGraphClassifier("skhegraph-lite", class_names=list(classes))
folds = StratifiedKFold(6, shuffle=True, random_state=0)
proba = cross_val_predict(clf, features[train], given, cv=folds, method="predict_proba")
of_label = proba[np.arange(len(train)), np.searchsorted(classes, given)]
suspects = np.argsort(of_label)[:18]
is_wrong = np.isin(np.arange(len(train)), changed)
print(f"{len(changed)} of {len(train)} labels are wrong; of the {len(changed)} most suspect images")
print(f"{is_wrong[suspects[: len(changed)]].sum()} are among them")

# %%
# What it is worth to mend them: fit on the labels as given, without the suspects, and with the
# labels that are right.

kept = np.setdiff1d(np.arange(len(train)), suspects[: len(changed)])
sets = {
    "as given": (np.arange(len(train)), given),
    "suspects left out": (kept, given),
    "all labels right": (np.arange(len(train)), names[train]),
}
for name, (rows, labels) in sets.items():
    clf.fit(features[train][rows], labels[rows])
    score = balanced_accuracy_score(names[test], clf.predict(features[test]))
    print(f"{name:>18}: {100 * score:.1f} % right")

# %%
# The picture
# -----------

figure, (left, right) = plt.subplots(
    1, 2, figsize=(13, 4.8), width_ratios=[1.1, 1], layout="constrained"
)
place = np.arange(len(classes))
for k, (name, values) in enumerate(recall.items()):
    mean = 100 * np.mean(values, axis=0)
    left.bar(place + 0.27 * (k - 1), mean, 0.25, label=f"{name} ({mean.mean():.0f} %)")
ticks = [f"{c} ({k})" for c, k in zip(classes, COUNTS, strict=True)]
left.set_xticks(place, ticks, rotation=40, ha="right", rotation_mode="anchor")
left.set(ylabel="recall (%)", ylim=(0, 134), yticks=range(0, 101, 20))
left.set_title("Unbalanced: class (images of it)")
left.legend(loc="upper center", ncols=2, fontsize=9, frameon=False)
show_pieces(
    right,
    [images[train[i]] for i in suspects],
    [f"{given[i]}\n{100 * of_label[i]:.1f} %" for i in suspects],
    ["crimson" if is_wrong[i] else "black" for i in suspects],
)
right.set_title("Most suspect labels and their probability (red: changed by us)")
out = Path(__file__).with_suffix(".png")
figure.savefig(out, dpi=110)
print(f"saved {out}")
