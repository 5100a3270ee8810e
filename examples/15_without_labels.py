"""
Photographs without a label
===========================

Labels cost time, photographs do not. Rows of the label -1 join the graph: they say where images
are, though not of what. Then: which photographs to label next, and how to score a model whose
training set has photographs without a label.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from photographs import load_pieces, show_pieces
from sklearn.metrics import log_loss
from sklearn.model_selection import cross_val_score

from skhegraph import CLIPFeatures, FewShotSplit, HeGraphClassifier, KeepUnlabelled
from skhegraph.inspection import next_to_label

MODEL = "skhegraph-lite"

# %%
# One label of each of eleven classes
# -----------------------------------
# Half of the other pieces have no label; the other half is for testing, and no fit sees it.

images, names = load_pieces(n_per_class=40)
features = CLIPFeatures(MODEL).fit_transform(images)
labelled, rest = next(FewShotSplit(1, n_splits=1, random_state=0).split(features, names))
pool, test = np.array_split(np.random.RandomState(0).permutation(rest), 2)


def scores(model):
    """Accuracy (%) and log-loss on the test pieces."""
    loss = log_loss(names[test], model.predict_proba(features[test]), labels=model.classes_)
    return 100 * model.score(features[test], names[test]), loss


alone = HeGraphClassifier(MODEL).fit(features[labelled], names[labelled])
partly = np.full(len(names), -1, dtype=object)  # of objects: a list of names and -1 would do, too
partly[labelled] = names[labelled]
seen = np.concatenate([labelled, pool])
both = HeGraphClassifier(MODEL).fit(features[seen], partly[seen])
print("one label a class:           {:.1f} %, log-loss {:.3f}".format(*scores(alone)))
print(
    f"and {both.n_unlabelled_} pieces without one:  {{:.1f}} %, log-loss {{:.3f}}".format(
        *scores(both)
    )
)

# %%
# Names, and no label at all
# --------------------------

none = HeGraphClassifier(MODEL).fit(features[pool], [-1] * len(pool), classes=np.unique(names))
print("names, and these, no label:   {:.1f} %, log-loss {:.3f}".format(*scores(none)))

# %%
# Which to label next
# -------------------
# Those that are like many others of which the model is not sure. Four times ten labels, beside the
# ten whose two best classes are closest, and ten drawn at random (mean of five draws).


def curve(choose):
    """Accuracy after each ten labels."""
    known, accuracy = labelled, []
    for _ in range(5):
        model = HeGraphClassifier(MODEL).fit(features[known], names[known])
        accuracy.append(scores(model)[0])
        left = np.setdiff1d(pool, known)
        known = np.concatenate([known, left[choose(model, left)]])
    return accuracy


def margin(model, left):
    """The ten whose two best classes are closest."""
    proba = np.sort(model.predict_proba(features[left]), axis=1)
    return np.argsort(proba[:, -1] - proba[:, -2])[:10]


def at_random(seed):
    """Ten at random."""
    rng = np.random.RandomState(seed)
    return lambda model, left: rng.choice(len(left), 10, replace=False)


curves = {
    "next_to_label": curve(lambda model, left: next_to_label(model, features[left])),
    "least margin": curve(margin),
    "random": np.mean([curve(at_random(seed)) for seed in range(5)], axis=0),
}
for name, accuracy in curves.items():
    print(f"{name:>14}: " + "  ".join(f"{value:.1f}" for value in accuracy))

# %%
# Scores of cross-validation count labelled pieces alone
# ------------------------------------------------------
# ``KeepUnlabelled`` makes such folds. A plain ``cv=4`` stops with "'<' not supported", as
# scikit-learn sorts the labels, and names and the number -1 have no order.

several, _ = next(FewShotSplit(4, n_splits=1, random_state=0).split(features, names))
partly = np.full(len(names), -1, dtype=object)
partly[several] = names[several]
seen = np.union1d(several, pool)
folds = KeepUnlabelled(cv=4)
accuracy = cross_val_score(HeGraphClassifier(MODEL), features[seen], partly[seen], cv=folds)
print(f"cross-validated: {100 * accuracy.mean():.1f} %")

# %%
# The next ten
# ------------

fig, (left_ax, right_ax) = plt.subplots(
    1, 2, figsize=(11, 4.5), layout="constrained", width_ratios=(1, 1.2)
)
for name, values in curves.items():
    left_ax.plot(11 + 10 * np.arange(5), values, "o-", label=name)
left_ax.set(
    xlabel="labels given", ylabel="accuracy on test pieces (%)", title="Ten labels at a time"
)
left_ax.legend()
chosen = pool[next_to_label(alone, features[pool])]
show_pieces(right_ax, [images[i] for i in chosen], [f"{k + 1}." for k in range(10)], n_columns=5)
right_ax.set_title("With one label a class: the ten to label next")
out = Path(__file__).with_suffix(".png")
fig.savefig(out, dpi=100)
print(f"saved {out}")
