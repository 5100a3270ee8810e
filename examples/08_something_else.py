"""
Something else entirely
=======================

A classifier of seven things is shown an eighth. Probabilities sum to one over the classes it
knows, so that they cannot say "none of these"; ``score_samples`` can, and with
``unknown_threshold`` so does ``predict``.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from photographs import load_pieces, show_pieces
from PIL import Image
from sklearn.metrics import roc_auc_score

from skhegraph import CLIPFeatures, FewShotSplit, HeGraphClassifier

# %%
# Seven classes that it knows, and others
# ---------------------------------------
# Pieces of four more photographs are the others, and with them a black image and one of noise.

KNOWN = ["brick wall", "cat", "coins", "cup of coffee", "flower", "grass", "motorcycle"]
OTHERS = ["astronaut", "gravel", "rocket", "temple"]
images, names = load_pieces(n_per_class=28, names=KNOWN)
strange, strange_names = load_pieces(n_per_class=28, names=OTHERS)
noise = np.random.RandomState(0).randint(0, 256, (96, 96, 3), dtype=np.uint8)
strange += [Image.new("RGB", (96, 96)), Image.fromarray(noise)]
strange_names = np.append(strange_names, ["black", "noise"])

clip = CLIPFeatures("skhegraph-lite")
features, strange_features = clip.fit_transform(images), clip.transform(strange)
support, test = next(FewShotSplit(8, n_splits=1, random_state=0).split(features, names))

# %%
# A label for what it does not know
# ---------------------------------
# The score is measured in standard deviations of support images that were left out of the fit:
# -2 turns away few images of the classes. Lower it, and fewer are turned away.

clf = HeGraphClassifier("skhegraph-lite", unknown_label="something else", unknown_threshold=-2.0)
clf.fit(features[support], names[support])
familiar = clf.score_samples(features[test])
foreign = clf.score_samples(strange_features)
print(f"known images turned away: {100 * np.mean(familiar < -2):.0f} %")
for name in dict.fromkeys(strange_names):
    found = clf.predict(strange_features[strange_names == name]) == "something else"
    print(f"{name:>10} recognised as something else: {100 * found.mean():.0f} %")

# %%
# Against the largest probability
# -------------------------------
# AUROC: how often an image of a known class scores above one of something else. 0.5 is chance.

is_known = np.repeat([True, False], [len(familiar), len(foreign)])
largest = [clf.predict_proba(Z).max(axis=1) for Z in (features[test], strange_features)]
for name, scores in {"score_samples": (familiar, foreign), "probability": largest}.items():
    print(f"{name:>14}: AUROC {roc_auc_score(is_known, np.concatenate(scores)):.3f}")
proba = clf.predict_proba(strange_features[-2:])
for name, row in zip(("black", "noise"), proba, strict=True):
    print(f'the {name} image is "{clf.classes_[row.argmax()]}" with {100 * row.max():.0f} %')

# %%
# The picture
# -----------
# Left, the scores. Right, the strange images that look most familiar to it, with the class that it
# takes them for: what a threshold does not catch.

figure, (left, right) = plt.subplots(
    1, 2, figsize=(12, 4.2), width_ratios=[1, 1.15], layout="constrained"
)
bins = np.linspace(foreign.min(), familiar.max(), 40)
left.hist(familiar, bins, alpha=0.75, label=f"images of the {len(KNOWN)} classes")
left.hist(foreign, bins, alpha=0.75, label="something else")
left.axvline(-2, color="black", linestyle="--", label="unknown_threshold")
left.set(xlabel="familiarity (standard deviations of left-out support images)", ylabel="images")
left.legend(fontsize=9)
most = np.argsort(-foreign)[:10]
taken_for = clf.classes_[clf.predict_proba(strange_features[most]).argmax(axis=1)]
show_pieces(
    right,
    [strange[i] for i in most],
    [
        f"{strange_names[i]}, {foreign[i]:.1f}\ntaken for {name}"
        for i, name in zip(most, taken_for, strict=True)
    ],
    ["crimson" if foreign[i] >= -2 else "black" for i in most],
    n_columns=5,
)
right.set_title("Something else that looks familiar (red: above the threshold)")
out = Path(__file__).with_suffix(".png")
figure.savefig(out, dpi=110)
print(f"saved {out}")
