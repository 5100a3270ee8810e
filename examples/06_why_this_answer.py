"""
Why this answer
===============

What did the name of the class say, what did the images say, and which of them? ``explain`` takes
a prediction apart, from the arrays of the fitted classifier alone.
"""

import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from photographs import load_pieces

from skhegraph import FewShotSplit, make_hegraph_pipeline
from skhegraph.inspection import ExplanationDisplay, explain, report

images, names = load_pieces(n_per_class=14)
support, test = next(FewShotSplit(4, n_splits=1, random_state=0).split(images, names))
support_images = [images[i] for i in support]
model = make_hegraph_pipeline("skhegraph-lite")
model.fit(support_images, names[support])

# %%
# Which predictions to ask about
# ------------------------------
# Two that are right, and the two mistakes that were made with the highest probability.

proba = model.predict_proba([images[i] for i in test])
predicted = model.classes_[proba.argmax(axis=1)]
wrong = np.flatnonzero(predicted != names[test])
surest = wrong[np.argsort(-proba[wrong].max(axis=1))][:2]
right = np.flatnonzero(predicted == names[test])
asked = np.concatenate([right[[0, len(right) // 2]], surest])
queries = [images[i] for i in test[asked]]
print(f"{len(wrong)} of {len(test)} are wrong")

# %%
# The numbers
# -----------
# One row for each query and class. ``text``, ``visual``, ``residual`` and ``prior`` are the parts
# of the evidence for the class, over the mean of all classes; ``support`` are the images that
# speak most for it. Subtract two rows, and you have why the one class and not the other: their sum
# is the log of the ratio of the two probabilities.

frame = explain(model, queries, n_classes=2)
print(frame.drop(columns=["support_parts", "residual", "prior"]).round(2).to_string(index=False))
parts = frame[["text", "visual", "residual", "prior"]].sum(axis=1)
print(f"log-odds of the first query: {parts[0] - parts[1]:.3f} from the parts, ", end="")
print(f"{np.log(frame['probability'][0] / frame['probability'][1]):.3f} from the probabilities")
print(f"kept for this: {model['clf'].support_features_.nbytes / 1e3:.0f} kB of support features")

# %%
# For a colleague
# ---------------
# ``report`` puts the surest mistakes, explained like this, into one HTML file for a browser, with
# scores beside those of the text alone and of logistic regression, every class, and the confusion
# matrix with the pictures behind each number.

file = Path(tempfile.mkdtemp(), "report.html")
report(model, [images[i] for i in test], names[test], file, support_images=support_images)
print(f"wrote {file.name}, {file.stat().st_size / 1e6:.1f} MB")

# %%
# The picture
# -----------

display = ExplanationDisplay.from_estimator(model, queries, support_images=support_images)
for panels, i in zip(display.axes_, test[asked], strict=True):
    panels["query"].set_xlabel(f"truly: {names[i]}", fontsize=9)
out = Path(__file__).with_suffix(".png")
display.figure_.savefig(out, dpi=110)
print(f"saved {out}")
