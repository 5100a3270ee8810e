"""
Two sources: photographs and numbers
====================================

Beside each photograph there are numbers, such as a length and a weight. Columns glued to the image
features would no longer fit the text features, and the names of the classes were lost. So each
source gets a classifier of its own, and the two opinions are multiplied. The numbers here are made
up: what each thing measures, with a large error.
"""

import tempfile
from operator import itemgetter
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from photographs import load_pieces
from scipy.special import softmax
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skhegraph import CLIPFeatures, FewShotSplit, HeGraphClassifier

# %%
# A frame with an image column
# ----------------------------
# Typical lengths and weights, and a measurement of each photograph that is off by a factor of 2.5
# in length and of 6 in weight (one standard deviation).

TYPICAL = {  # length in cm, weight in kg
    "astronaut": (175, 150),
    "brick wall": (300, 2_000),
    "cat": (45, 4),
    "coins": (2.5, 0.01),
    "cup of coffee": (15, 0.4),
    "flower": (12, 0.02),
    "grass": (8, 0.002),
    "gravel": (3, 0.05),
    "motorcycle": (210, 200),
    "rocket": (6_000, 500_000),
    "temple": (3_000, 1_000_000),
}
images, names = load_pieces(n_per_class=24)
classes = np.unique(names)
errors = np.random.RandomState(0).standard_normal((len(names), 2)) * [0.4, 0.8]
measured = np.log10([TYPICAL[name] for name in names]) + errors
frame = pd.DataFrame({"image": images, "length": measured[:, 0], "weight": measured[:, 1]})

# %%
# A pipeline for each source
# --------------------------
# ``itemgetter`` picks the columns of a frame. ``class_names`` is for the stacking below, which
# hands numbers in place of labels to its parts.

cache = tempfile.TemporaryDirectory()
from_image = make_pipeline(
    FunctionTransformer(itemgetter("image")),
    CLIPFeatures("skhegraph-lite", cache_dir=cache.name),
    HeGraphClassifier("skhegraph-lite", class_names=list(classes)),
)
from_numbers = make_pipeline(
    FunctionTransformer(itemgetter(["length", "weight"])),
    StandardScaler(),
    LogisticRegression(C=10, class_weight="balanced", max_iter=1000),
)

# %%
# Two opinions, multiplied
# ------------------------
# Where the errors of the sources are independent given the class, and all classes are equally
# likely beforehand, the probability of a class is in proportion to the product of the two. That
# needs nothing to be learned, only parts whose probabilities can be trusted. (With unequal priors,
# subtract their logarithm once.)


def multiplied(frame):
    """Probabilities by both sources."""
    logs = [part.predict_log_proba(frame) for part in (from_image, from_numbers)]
    return softmax(sum(logs), axis=1)


# %%
# Beside it, what scikit-learn has: ``StackingClassifier`` learns from held-out folds how to combine
# the two. With few images it has little to learn from, and every class needs as many as there are
# folds.
# The numbers hardly change which class comes first, for the images are right already; what they
# change is how sure the answer is, and the log-loss shows it.

stacked = StackingClassifier(
    [("image", from_image), ("numbers", from_numbers)],
    LogisticRegression(C=10, max_iter=1000),
    stack_method="predict_proba",
    cv=4,
)
results = {name: [] for name in ("numbers", "image", "stacked", "multiplied")}
for train, test in FewShotSplit(4, n_splits=3, random_state=0).split(frame, names):
    few, rest = frame.iloc[train], frame.iloc[test]
    for model in (from_image, from_numbers, stacked):
        model.fit(few, names[train])
    proba = {
        "numbers": from_numbers.predict_proba(rest),
        "image": from_image.predict_proba(rest),
        "stacked": stacked.predict_proba(rest),
        "multiplied": multiplied(rest),
    }
    for name, values in proba.items():
        right = np.mean(classes[values.argmax(axis=1)] == names[test])
        results[name].append((100 * right, log_loss(names[test], values, labels=classes)))
for name, values in results.items():
    accuracy, loss = np.mean(values, axis=0)
    print(f"{name:>11}: {accuracy:.1f} % right, log-loss {loss:.3f}")

# %%
# The picture
# -----------

figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained", sharey=True)
means = np.array([np.mean(values, axis=0) for values in results.values()])
titles = ("right (%)", "log-loss (nats, lower is better)")
for ax, values, label, fmt in zip(axes, means.T, titles, ("%.1f", "%.3f"), strict=True):
    bars = ax.barh(list(results), values, color=["0.6", "C0", "C1", "C2"])
    ax.bar_label(bars, fmt=fmt, padding=3)
    ax.set(xlabel=label, xlim=(0, 1.15 * values.max()))
figure.suptitle("4 labelled rows per class, mean of three draws")
out = Path(__file__).with_suffix(".png")
figure.savefig(out, dpi=120)
print(f"saved {out}")
