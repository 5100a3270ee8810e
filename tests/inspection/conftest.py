"""Pictures without a window, and a fitted pipeline on real photographs."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from skhegraph import HeGraphClassifier, make_hegraph_pipeline

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    """Close what a test has drawn."""
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.fixture(scope="package")
def photographs():
    """Six pieces each of two photographs, and their names."""
    photos = load_sample_images().images
    pieces = [p[i : i + 210, j : j + 210] for p in photos for i in (0, 215) for j in (0, 215, 430)]
    return pieces, np.repeat(["temple", "flower"], 6)


@pytest.fixture(scope="package")
def pipeline(photographs):
    """Pipeline on the tiny CLIP, fitted on the first four pieces of each photograph."""
    pieces, names = photographs
    few = [0, 1, 2, 3, 6, 7, 8, 9]
    pipe = make_hegraph_pipeline("skhegraph-tiny", device="cpu")
    return pipe.fit([pieces[i] for i in few], names[few])


@pytest.fixture
def make_classifier():
    """Function that fits a classifier of `n_classes` on features with text."""

    def make_classifier(n_classes=5, n_features=12, shots=4, **params):
        rng = np.random.RandomState(0)
        text = rng.standard_normal((n_classes, n_features))
        y = np.repeat([f"class {c:02d}" for c in range(n_classes)], shots)
        X = np.repeat(text, shots, axis=0) + rng.standard_normal((len(y), n_features))
        clf = HeGraphClassifier(text_features=text, device="cpu", **params)
        return clf.fit(X, y)

    return make_classifier
