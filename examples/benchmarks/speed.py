"""Ratios of time and memory to named references, measured in one run on the same threads.

Predict and fit against bare NumPy products and scikit-learn's `LogisticRegression`, feature
extraction against a plain open_clip loop, a grid search against "encode once plus the fits", and
imports. Each figure is the median of several runs; the features are synthetic (class centres plus
noise), since values do not change the arithmetic.

    python examples/benchmarks/speed.py                 # all sections
    python examples/benchmarks/speed.py predict import  # some of them
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from skhegraph import CLIPFeatures, HeGraphClassifier, make_hegraph_pipeline


def median_time(function: Callable[[], object], runs: int = 5) -> float:
    """Median seconds of a call, after one call to warm up."""
    function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def report(what: str, ours: float, reference: str, theirs: float) -> None:
    """One row of the table."""
    print(
        f"| {what} | {ours:.3g} s | {reference}: {theirs:.3g} s | {ours / theirs:.2f} |", flush=True
    )


def support(n_classes: int, shots: int, width: int = 512) -> tuple[np.ndarray, ...]:
    """Synthetic unit features, labels, and positive and negative text features."""
    rng = np.random.RandomState(0)
    centres = rng.normal(size=(n_classes, width)) + rng.normal(size=width) * 2
    X = np.repeat(centres, shots, axis=0) + 2 * rng.normal(size=(n_classes * shots, width))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    text = centres + 2 * rng.normal(size=centres.shape)
    negative = rng.normal(size=width) * 4 - 0.1 * text
    return X.astype(np.float32), np.repeat(np.arange(n_classes), shots), text, negative


def hegraph(text: np.ndarray, negative: np.ndarray, **params: object) -> HeGraphClassifier:
    """Classifier on given text features, on the CPU."""
    return HeGraphClassifier(text_features=(text, negative), device="cpu", random_state=0, **params)


def predict_section() -> None:
    """10,000 queries, 1,000 classes, support of 16,000."""
    X, y, text, negative = support(1000, 16)
    queries = X[:10_000].astype(np.float64)
    linear = LogisticRegression(max_iter=1).fit(X[::16], y[::16])
    clf = hegraph(text, negative, max_iter=1).fit(X, y)
    product = median_time(lambda: queries @ clf.coef_.T)
    ours = median_time(lambda: clf.predict_proba(queries))
    report("predict_proba, discriminant", ours, "its bare product", product)
    other = median_time(lambda: linear.predict_proba(queries))
    report("predict_proba, discriminant", ours, "LogisticRegression", other)
    cache = hegraph(text, negative, max_iter=1, visual_classifier="cache", visual_weight=1.0)
    cache.fit(X[::4], y[::4])
    cache.cache_keys_, cache.cache_labels_ = (
        np.tile(cache.cache_keys_, (4, 1)),
        np.tile(cache.cache_labels_, (4, 1)),
    )
    keys = cache.cache_keys_.astype(np.float64)

    def bare() -> None:
        for start in range(0, len(queries), 1024):
            part = queries[start : start + 1024]
            part @ cache.positive_nodes_.T.astype(np.float64)
            (part @ keys.T) @ cache.cache_labels_

    report(
        "predict_proba, cache",
        median_time(lambda: cache.predict_proba(queries), 3),
        "its bare products",
        median_time(bare, 3),
    )
    for name, model in (("discriminant", clf), ("cache", cache)):
        tracemalloc.start()
        proba = model.predict_proba(queries)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        output = proba.nbytes / 1e6
        print(f"| peak memory, {name} | {peak:.0f} MB | of it the output: {output:.0f} MB | |")


def fit_section() -> None:
    """Fit at 10 and 1,000 classes, against LogisticRegression at its defaults and converged."""
    warnings.simplefilter("ignore")
    for n_classes, runs in ((10, 5), (1000, 1)):
        data = support(n_classes, 16)
        ours = median_time(partial(fit_hegraph, *data), runs)
        for params in ({}, {"C": 100, "tol": 1e-6}):
            linear = LogisticRegression(**params)
            theirs = median_time(partial(linear.fit, *data[:2]), runs)
            reference = f"{linear!r}, {linear.n_iter_[0]} iteration(s)"
            report(f"fit, {n_classes} classes", ours, reference, theirs)


def fit_hegraph(X: np.ndarray, y: np.ndarray, text: np.ndarray, negative: np.ndarray) -> None:
    """Fit with the defaults."""
    hegraph(text, negative).fit(X, y)


def growth_section() -> None:
    """Time against C (16 shots) and against shots (100 classes), with the fitted exponent."""
    fit_hegraph(*support(10, 4))  # the first fit of a process imports torch
    points = {}
    for label, grid in (
        ("classes", [(10, 16), (30, 16), (100, 16), (300, 16), (1000, 16), (3000, 16)]),
        ("classes, top_k=32", [(100, 16), (1000, 16), (3000, 16), (10_000, 4)]),
        ("shots", [(100, k) for k in (1, 4, 16, 64)]),
    ):
        params = {"top_k": 32} if "top_k" in label else {}
        rows = []
        for n_classes, shots in grid:
            X, y, text, negative = support(n_classes, shots)
            start = time.perf_counter()
            hegraph(text, negative, **params).fit(X, y)
            rows.append((shots if label == "shots" else n_classes, time.perf_counter() - start))
        sizes, seconds = np.array(rows).T
        exponent = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
        points[label] = sizes, seconds, exponent
        listed = ", ".join(f"{int(n)}: {t:.2f} s" for n, t in rows)
        print(f"| fit against {label} | {listed} | | exponent {exponent:.2f} |", flush=True)
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for label, (sizes, seconds, exponent) in points.items():
        axes.loglog(sizes, seconds, "o-", label=f"{label}: exponent {exponent:.2f}")
    axes.set(xlabel="classes or shots a class", ylabel="fit (s)", title="HeGraph fit, D = 512")
    axes.legend()
    figure.savefig(Path(__file__).with_name("speed.png"), dpi=120, bbox_inches="tight")


def image_files(folder: Path, count: int) -> list[str]:
    """JPEG files of random smooth pictures."""
    from PIL import Image

    rng = np.random.RandomState(0)
    paths = []
    for i in range(count):
        small = Image.fromarray(rng.randint(0, 256, (16, 16, 3), dtype=np.uint8))
        paths.append(str(folder / f"{i}.jpg"))
        small.resize((224, 224)).save(paths[-1])
    return paths


def features_section() -> None:
    """Image files to features, against the plain open_clip loop, for the tiny model."""
    import torch

    from skhegraph.backbone import load_backbone

    backbone = load_backbone("skhegraph-tiny", device="cpu")

    class Files(torch.utils.data.Dataset):
        def __init__(self, paths: list[str]) -> None:
            self.paths = paths

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, i: int) -> torch.Tensor:
            from PIL import Image

            return backbone.preprocess(Image.open(self.paths[i]).convert("RGB"))

    def loop(workers: int) -> None:
        loader = torch.utils.data.DataLoader(Files(paths), batch_size=64, num_workers=workers)
        with torch.inference_mode():
            for batch in loader:
                torch.nn.functional.normalize(backbone._model.encode_image(batch), dim=1)

    with tempfile.TemporaryDirectory() as folder:
        paths = image_files(Path(folder), 1000)
        ours = median_time(lambda: CLIPFeatures("skhegraph-tiny", device="cpu").transform(paths), 3)
        for workers in (0, 2):
            theirs = median_time(partial(loop, workers), 3)
            report(
                "1,000 JPEG files to features", ours, f"open_clip loop, {workers} workers", theirs
            )


def search_section() -> None:
    """24 candidates and 5 folds with the feature store, against encode once plus the fits."""
    with tempfile.TemporaryDirectory() as folder:
        paths = np.array(image_files(Path(folder), 400), dtype=object)
        y = np.arange(len(paths)) % 5
        grid = {
            "visual_to_positive": [0.0, 0.1, 0.24, 0.5],
            "negative_to_positive": [0.0, 0.1, 0.2],
            "positive_to_positive": [0.0, 0.06],
        }
        cv = StratifiedKFold(5)
        params = {"class_names": list("abcde"), "random_state": 0}
        clip = CLIPFeatures("skhegraph-tiny").fit(paths)
        start = time.perf_counter()
        features = clip.transform(paths)
        clf = HeGraphClassifier("skhegraph-tiny", **params)
        GridSearchCV(clf, grid, cv=cv).fit(features, y)
        reference = time.perf_counter() - start
        for cache in (True, False):
            clip_params = {"cache_dir": Path(folder) / "cache"} if cache else {}
            pipe = make_hegraph_pipeline("skhegraph-tiny", clip_params=clip_params, **params)
            piped = {f"clf__{name}": values for name, values in grid.items()}
            start = time.perf_counter()
            GridSearchCV(pipe, piped, cv=cv).fit(paths, y)
            what = "with" if cache else "without"
            report(
                f"search 24 x 5, {what} cache_dir",
                time.perf_counter() - start,
                "encode once + the fits",
                reference,
            )


def import_section() -> None:
    """Imports and load-and-predict in new processes."""

    def process(code: str) -> float:
        return median_time(lambda: subprocess.run([sys.executable, "-c", code], check=True))

    ours, theirs = process("import skhegraph"), process("import sklearn.base, numpy")
    report("import skhegraph", ours, "import sklearn.base, numpy", theirs)
    X, y, text, negative = support(10, 16)
    with tempfile.TemporaryDirectory() as folder:
        times = []
        for name, clf in (("ours", hegraph(text, negative)), ("lr", LogisticRegression())):
            path = str(Path(folder) / name)
            joblib.dump(clf.fit(X, y), path)
            code = f"import joblib, numpy; joblib.load({path!r}).predict(numpy.ones((1, 512)))"
            times.append(process(code))
        report("load and predict", times[0], "LogisticRegression", times[1])


SECTIONS = {
    "import": import_section,
    "predict": predict_section,
    "features": features_section,
    "search": search_section,
    "fit": fit_section,
    "growth": growth_section,
}


def main() -> None:
    """Print the table of the sections asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="all by default")
    wanted = parser.parse_args().sections or list(SECTIONS)
    print("| what | ours | reference | ratio |\n|---|---|---|---|")
    for name in wanted:
        SECTIONS[name]()


if __name__ == "__main__":
    main()
