"""
Searching graph hyper-parameters
================================

`GridSearchCV` over the path weights of the graph, on image inputs, with the few-shot folds taken
from the support set only. Offline: scikit-learn's digits and the bundled lite CLIP.
"""

import tempfile

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from skhegraph import FewShotSplit, make_hegraph_pipeline

digits = load_digits()
digits.images, digits.target = digits.images[:400], digits.target[:400]
images = np.empty(len(digits.images), dtype=object)
images[:] = list(digits.images / 16)
names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
support, test = next(FewShotSplit(8, n_splits=1, random_state=0).split(images, digits.target))

# Every image is encoded once, and kept in the folder for the other folds and candidates.
folder = tempfile.TemporaryDirectory()
pipeline = make_hegraph_pipeline(
    "skhegraph-lite", class_names=names, cache_dir=folder.name, random_state=0
)
search = GridSearchCV(
    pipeline,
    {"clf__visual_to_visual": [0.0, 1.0, None], "clf__visual_to_positive": [0.0, 0.24]},
    scoring="neg_log_loss",
    cv=StratifiedKFold(4, shuffle=True, random_state=0),
)
search.fit(images[support], digits.target[support])
print("best parameters:", search.best_params_)
print(f"held-out log-loss on the support set: {-search.best_score_:.3f}")
print(f"test accuracy: {search.best_estimator_.score(images[test], digits.target[test]):.3f}")
