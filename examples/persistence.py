"""
Saving and loading a fitted classifier
======================================

A fitted classifier holds NumPy arrays and plain values, so `joblib.dump` is small and loads on
any machine; predicting on features needs neither torch nor open_clip. The transformer step
pickles without weights, which are loaded again on first use. skops saves without pickle.
"""

import tempfile
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_digits

from skhegraph import FewShotSplit, make_hegraph_pipeline

digits = load_digits()
digits.images, digits.target = digits.images[:400], digits.target[:400]
images = list(digits.images / 16)
names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
support, test = next(FewShotSplit(8, n_splits=1, random_state=0).split(images, digits.target))

pipeline = make_hegraph_pipeline("skhegraph-lite", class_names=names, random_state=0)
pipeline.fit([images[i] for i in support], digits.target[support])
queries = [images[i] for i in test[:100]]

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "digits.joblib"
    joblib.dump(pipeline, path)
    print(f"saved pipeline: {path.stat().st_size / 1e3:.0f} kB")
    loaded = joblib.load(path)
    same = np.array_equal(loaded.predict_proba(queries), pipeline.predict_proba(queries))
    print("same probabilities after loading:", same)
