"""
Searching the hyper-parameters of the graph
===========================================

``HeGraphClassifier`` estimates the strengths of its messages from the support set, so that a
search is seldom needed. Where you want one, ``GridSearchCV`` does it: on the support set alone, on
the pipeline from images, and with ``cache_dir``, so that every image is encoded once and not once
for each fold and candidate.
"""

import tempfile
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from photographs import load_pieces
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from skhegraph import FewShotSplit, make_hegraph_pipeline

images, names = load_pieces(n_per_class=20)
support, test = next(FewShotSplit(4, n_splits=1, random_state=0).split(images, names))

# %%
# The grid
# --------
# ``positive_to_visual`` says how far the text of a class pulls its visual node,
# ``visual_to_visual`` how far classes with similar text move together, and ``visual_to_positive``
# how much the text nodes hear from the visual ones; 0 switches a message off. The score is the
# log-loss: with few images it tells more than the accuracy does.

grid = {
    "clf__positive_to_visual": [0.0, 0.1, 0.3, 1.0],
    "clf__visual_to_visual": [0.0, 0.3, 1.0, 3.0],
    "clf__visual_to_positive": [0.0, 1.0, 3.0],
}
scratch = tempfile.TemporaryDirectory()
pipeline = make_hegraph_pipeline("skhegraph-lite", cache_dir=scratch.name)
search = GridSearchCV(
    pipeline,
    grid,
    scoring="neg_log_loss",
    cv=StratifiedKFold(4, shuffle=True, random_state=0),
)
start = time.perf_counter()
search.fit([images[i] for i in support], names[support])
print(
    f"{len(search.cv_results_['params'])} candidates, 4 folds: {time.perf_counter() - start:.0f} s"
)
print("best:", search.best_params_)

# %%
# Beside the estimated strengths
# ------------------------------
# The pipeline as it is, without a search. Both are fitted on the support set; the test images
# are looked at once.

queries = [images[i] for i in test]
plain = pipeline.fit([images[i] for i in support], names[support])
clf = plain["clf"]
print(
    f"estimated: positive_to_visual {clf.positive_to_visual_:.2f}, visual_to_visual "
    f"{clf.visual_to_visual_:.2f}; visual_to_positive {clf.visual_to_positive:.2f} by default"
)
for label, model in {"searched": search, "estimated": plain}.items():
    proba = model.predict_proba(queries)
    score = np.mean(model.classes_[proba.argmax(axis=1)] == names[test])
    print(
        f"{label:>10}: {100 * score:.1f} %, log-loss {log_loss(names[test], proba):.3f} on the test"
    )

# %%
# The picture
# -----------
# Lower is better. Four folds of 44 images are a small sample: the best candidate of the search need
# not be better on the test than the strengths that were estimated.

losses = np.moveaxis(-search.cv_results_["mean_test_score"].reshape(4, 3, 4), 1, 0)
figure, axes = plt.subplots(1, 3, figsize=(12, 4.6), layout="constrained", sharey=True)
best = np.unravel_index(losses.argmin(), losses.shape)
for k, (ax, loss) in enumerate(zip(axes, losses, strict=True)):
    shown = ax.imshow(loss, cmap="viridis_r", vmin=losses.min(), vmax=losses.max())
    for (i, j), value in np.ndenumerate(loss):
        shade = "white" if shown.norm(value) > 0.5 else "black"
        ax.text(j, i, f"{value:.3f}", ha="center", va="center", color=shade)
    if k == best[0]:
        corner = best[2] - 0.5, best[1] - 0.5
        ax.add_patch(plt.Rectangle(corner, 1, 1, fill=False, ec="red", lw=2.5))
    ax.set_xticks(range(4), grid["clf__visual_to_visual"])
    ax.set_yticks(range(4), grid["clf__positive_to_visual"])
    ax.set(
        xlabel="visual_to_visual",
        title=f"visual_to_positive = {grid['clf__visual_to_positive'][k]}",
    )
axes[0].set_ylabel("positive_to_visual")
figure.suptitle("Held-out log-loss on the support set (44 images, 4 folds; red: least)")
figure.colorbar(shown, ax=axes, label="log-loss (nats)")
out = Path(__file__).with_suffix(".png")
figure.savefig(out, dpi=120)
print(f"saved {out}")
