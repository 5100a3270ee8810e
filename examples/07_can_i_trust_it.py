"""
Can I trust the probability?
============================

Three ways to use a probability, and to check it: is it as often right as it says (reliability),
may the classifier keep silent where it is unsure (abstaining), and which set of classes holds the
true one nine times out of ten (conformal sets, with MAPIE).
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from mapie.classification import SplitConformalClassifier
from photographs import load_pieces
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from skhegraph import CLIPFeatures, FewShotSplit, HeGraphClassifier

images, names = load_pieces(n_per_class=36)
features = CLIPFeatures("skhegraph-lite").fit_transform(images)

# %%
# As often right as it says?
# --------------------------
# Two images of each class, ten draws of the support set; the predictions on all other images are
# pooled. The expected calibration error (ECE) is the mean distance between the probability of the
# predicted class and how often it is right, over ten bins with as many predictions each. Beside it
# stands logistic regression on the same two images, with the `C` that has the least log-loss on two
# folds of them (at its default, `C=1` on rows of unit length, it is far too timid).


def confidence_and_hits(clf):
    """Probability of the predicted class, and whether it is right, over draws."""
    confidence, hits = [], []
    for train, test in FewShotSplit(2, n_splits=10, random_state=0).split(features, names):
        proba = clf.fit(features[train], names[train]).predict_proba(features[test])
        confidence.append(proba.max(axis=1))
        hits.append(clf.classes_[proba.argmax(axis=1)] == names[test])
    return np.concatenate(confidence), np.concatenate(hits)


def calibration_error(confidence, hits, n_bins=10):
    """Expected calibration error, bins of equal size."""
    order = np.argsort(confidence)
    bins = np.array_split(order, n_bins)
    gaps = [abs(confidence[b].mean() - hits[b].mean()) * len(b) for b in bins]
    return sum(gaps) / len(order)


methods = {
    "HeGraph": HeGraphClassifier("skhegraph-lite"),
    "logistic regression": GridSearchCV(
        LogisticRegression(max_iter=1000), {"C": [1, 10, 100, 1000]}, scoring="neg_log_loss", cv=2
    ),
}
pooled = {name: confidence_and_hits(clf) for name, clf in methods.items()}
for name, (confidence, hits) in pooled.items():
    error = 100 * calibration_error(confidence, hits)
    print(
        f"{name:>20}: {100 * hits.mean():.1f} % right, says {100 * confidence.mean():.1f} %, "
        f"ECE {error:.1f} points"
    )

# %%
# Keep silent where unsure
# ------------------------
# Answer only where the probability is above a threshold, and hand the rest to a person. What
# counts is the order of the probabilities, not their level.


def accuracy_of_answered(confidence, hits):
    """Share answered and accuracy among these, for every threshold, the surest first."""
    order = np.argsort(-confidence)
    n_answered = np.arange(1, len(order) + 1)
    return n_answered / len(order), np.cumsum(hits[order]) / n_answered


for name, pair in pooled.items():
    share, accuracy = accuracy_of_answered(*pair)
    print(f"{name:>20}: {100 * accuracy[int(0.8 * len(share))]:.1f} % right on the surest 80 %")

# %%
# Sets that hold the true class
# -----------------------------
# Split conformal prediction needs labelled images that the fit has not seen, here 110, and then
# promises on average over such draws that the set misses the true class no more often than asked
# for, whatever the classifier. A good classifier shows in small sets.

rng = np.random.RandomState(0)
train, rest = next(FewShotSplit(2, n_splits=1, random_state=1).split(features, names))
rest = rng.permutation(rest)
calibration, test = rest[:110], rest[110:]
LEVELS = (0.8, 0.9, 0.95)
clf = methods["HeGraph"].fit(features[train], names[train])
conformal = SplitConformalClassifier(
    clf, confidence_level=LEVELS, conformity_score="lac", prefit=True
)
conformal.conformalize(features[calibration], names[calibration])
_, sets = conformal.predict_set(features[test])
truth = np.searchsorted(clf.classes_, names[test])
held = sets[np.arange(len(test)), truth].mean(axis=0)
sizes = sets.sum(axis=1)
for k, level in enumerate(LEVELS):
    print(
        f"asked {100 * level:.0f} %: holds the class {100 * held[k]:.1f} % of the time, "
        f"{sizes[:, k].mean():.2f} classes on average"
    )

# %%
# The picture
# -----------

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
left.plot([0, 100], [0, 100], "k:", label="as often right as it says")
for name, (confidence, hits) in pooled.items():
    frequency, mean = calibration_curve(hits, confidence, n_bins=10, strategy="quantile")
    left.plot(100 * mean, 100 * frequency, "o-", label=name)
    share, accuracy = accuracy_of_answered(confidence, hits)
    few = len(share) // 20
    middle.plot(100 * share[few:], 100 * accuracy[few:], label=name)
left.set(xlabel="probability of the predicted class (%)", ylabel="how often it is right (%)")
left.set_title("Reliability, 2 images per class")
left.legend(fontsize=9)
middle.set(xlabel="answered (%)", ylabel="right among the answered (%)")
middle.set_title("Abstaining where unsure")
middle.legend(fontsize=9)
largest = sizes.max()
for k, level in enumerate(LEVELS):
    counts = 100 * np.bincount(sizes[:, k], minlength=largest + 1) / len(test)
    label = f"asked {100 * level:.0f} %, held {100 * held[k]:.0f} %"
    right.bar(np.arange(largest + 1) + 0.27 * (k - 1), counts, 0.25, label=label)
right.set(xlabel="classes in the set", ylabel="test images (%)", xticks=range(largest + 1))
right.set_title("Conformal sets of HeGraph")
right.legend(fontsize=9, loc="center right")
for ax in (left, middle, right):
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
out = Path(__file__).with_suffix(".png")
figure.savefig(out, dpi=110)
print(f"saved {out}")
