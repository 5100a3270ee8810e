"""
Several labels for one image
============================

An image may show a cat and a cup of coffee at once. ``MultiLabelHeGraphClassifier`` fits a
classifier per label, with two classes: the thing, and its absence. Both have a text: "a photo of a
cat." and "a photo of no cat.".
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from photographs import load_photographs, show_pieces
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score
from sklearn.multiclass import OneVsRestClassifier

from skhegraph import CLIPFeatures, HeGraphClassifier, MultiLabelHeGraphClassifier

NAMES = ["cat", "coins", "cup of coffee", "flower", "motorcycle", "temple"]

# %%
# Images with one to three labels
# -------------------------------
# Each is put together from four pieces of one, two or three photographs.


def make_collages(n_images, random_state):
    """Collages of four pieces, and which of the names each shows."""
    rng = np.random.RandomState(random_state)
    photographs = load_photographs()
    collages, shown = [], np.zeros((n_images, len(NAMES)), dtype=bool)
    for i in range(n_images):
        chosen = rng.choice(len(NAMES), rng.randint(1, 4), replace=False)
        shown[i, chosen] = True
        collage = Image.new("RGB", (256, 256))
        for k, label in enumerate(rng.permutation(np.resize(chosen, 4))):
            photograph = photographs[NAMES[label]]
            height, width = photograph.shape[:2]
            side = int(min(height, width) * rng.uniform(0.35, 0.6))
            top, left = rng.randint(height - side + 1), rng.randint(width - side + 1)
            piece = Image.fromarray(photograph[top : top + side, left : left + side])
            collage.paste(piece.convert("RGB").resize((128, 128)), (128 * (k % 2), 128 * (k // 2)))
        collages.append(collage)
    return collages, shown


collages, shown = make_collages(240, random_state=0)
features = CLIPFeatures("skhegraph-lite").fit_transform(collages)
test = np.arange(80, 240)

# %%
# One classifier per label
# ------------------------
# It takes what scikit-learn's classifiers of several labels take: a matrix of 0 and 1, a row per
# image and a column per label. (The columns of a frame name the labels by themselves. Of lists such
# as ``["cat", "temple"]``, ``MultiLabelBinarizer`` makes the matrix, and its ``classes_`` the
# ``class_names``.) The ``templates`` of the classifier within say what is there, its
# ``negative_templates`` what is not. From images to labels it is a pipeline:
# ``make_pipeline(CLIPFeatures("skhegraph-lite"), hegraph)``.

hegraph = MultiLabelHeGraphClassifier(HeGraphClassifier("skhegraph-lite", class_names=NAMES))

# %%
# Beside one logistic regression per label
# ----------------------------------------
# The mean average precision counts the order of the images under each label; F1 counts the
# decisions at 50 %. (`C=100` does better here than the default.)

SIZES = (20, 40, 80)
logistic = LogisticRegression(C=100, class_weight="balanced", max_iter=2000)
models = {"HeGraph": hegraph, "logistic regression": OneVsRestClassifier(logistic)}
scores = {name: [] for name in models}
for n_images in SIZES:
    for name, model in models.items():
        model.fit(features[:n_images], shown[:n_images].astype(int))
        proba = model.predict_proba(features[test])
        precision = average_precision_score(shown[test], proba, average="macro")
        f1 = f1_score(shown[test], model.predict(features[test]), average="macro")
        scores[name].append((100 * precision, 100 * f1))
        print(f"{n_images} images, {name:>19}: mean average precision {precision:.3f}, F1 {f1:.3f}")

# %%
# The picture
# -----------
# Right, the first images of the test set with the labels that have more than 50 %, after learning
# from 80 images; red where the list is not exactly right.

figure, (left, right) = plt.subplots(
    1, 2, figsize=(12, 4.6), width_ratios=[1, 1.5], layout="constrained"
)
for name, values in scores.items():
    left.plot(SIZES, np.array(values)[:, 1], "o-", label=name)
left.set(xlabel="labelled images in all", ylabel="F1, mean over six labels (%)")
left.set_xticks(SIZES)
left.grid(alpha=0.3)
left.legend(loc="lower right")
decided = hegraph.predict(features[test[:10]]).astype(bool)
show_pieces(
    right,
    [collages[i] for i in test[:10]],
    ["\n".join(np.array(NAMES)[row]) or "nothing" for row in decided],
    [
        "black" if (row == shown[i]).all() else "crimson"
        for i, row in zip(test[:10], decided, strict=True)
    ],
    n_columns=5,
)
left.set_title("Test images")
right.set_title("Labels above 50 %, from 80 images (red: not exactly right)")
out = Path(__file__).with_suffix(".png")
figure.savefig(out, dpi=110)
print(f"saved {out}")
