"""Ratios of time and memory to named references, measured in one run on the same threads.

Predict and fit against bare NumPy products and scikit-learn's `LogisticRegression`, feature
extraction against a plain open_clip loop, a grid search against "encode once plus the fits", and
imports. Figures below some seconds are medians of several runs; the features are synthetic (class
centres plus noise) and, as CLIPFeatures gives them, in single precision.

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
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import joblib
import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import StandardScaler

from skhegraph import CLIPFeatures, HeGraphClassifier, make_hegraph_pipeline
from skhegraph.clip.model import load_backbone

PATHS = {
    "visual_to_positive": [0.0, 0.1, 0.24, 0.5],
    "negative_to_positive": [0.0, 0.1, 0.2],
    "positive_to_positive": [0.0, 0.06],
}


def time_once(function: Callable[[], object]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def median_time(function: Callable[[], object], runs: int = 5) -> float:
    """Median seconds of a call, after one call to warm up."""
    function()
    return float(np.median([time_once(function) for _ in range(runs)]))


def peak_memory() -> float:
    """Peak resident memory of this process so far, MB (Linux)."""
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) / 1e3


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
    linear = LogisticRegression(max_iter=1).fit(X[::16], y[::16])
    clf = hegraph(text, negative).fit(X, y)
    for dtype in (np.float32, np.float64):
        queries = X[:10_000].astype(dtype)
        weights = clf.coef_.T.astype(dtype)
        what = f"predict_proba, {queries.dtype}"
        ours = median_time(lambda queries=queries: clf.predict_proba(queries))
        bare = median_time(lambda queries=queries, weights=weights: queries @ weights)
        theirs = median_time(lambda queries=queries: linear.predict_proba(queries))
        report(what, ours, "its bare product", bare)
        report(what, ours, "LogisticRegression", theirs)
        tracemalloc.start()
        proba = clf.predict_proba(queries)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        output = proba.nbytes / 1e6
        print(f"| peak memory, {what} | {peak:.0f} MB | of it the output: {output:.0f} MB | |")


def fit_section() -> None:
    """Fit at 10 and 1,000 classes, against LogisticRegression at its defaults and converged."""
    warnings.simplefilter("ignore")
    for n_classes, runs in ((10, 5), (1000, 1)):
        X, y, *text = support(n_classes, 16)
        ours = median_time(partial(fit_hegraph, X, y, *text), runs)
        standardised = StandardScaler().fit_transform(X)
        for params, features in (({}, X), ({}, standardised), ({"C": 100, "tol": 1e-6}, X)):
            linear = LogisticRegression(**params)
            theirs = median_time(partial(linear.fit, features, y), runs)
            which = ", standardised" if features is standardised else ""
            reference = f"{linear!r}{which}, {linear.n_iter_[0]} iteration(s)"
            report(f"fit, {n_classes} classes", ours, reference, theirs)


def fit_hegraph(
    X: np.ndarray, y: np.ndarray, text: np.ndarray, negative: np.ndarray, top_k: int | None = None
) -> None:
    """Fit with the defaults."""
    hegraph(text, negative, top_k=top_k).fit(X, y)


def fit_cost(file: str, top_k: int | None) -> tuple[float, float]:
    """Seconds and peak memory over the inputs (MB) of a fit, in a process of its own."""
    fit_hegraph(*support(10, 4))  # the first fit of a process imports torch
    data = joblib.load(file)
    before = peak_memory()
    seconds = time_once(partial(fit_hegraph, *data, top_k))
    return seconds, peak_memory() - before


def growth_section() -> None:
    """Time and memory against C (16 shots) and against shots (100 classes), with the exponents."""
    curves = (
        ("classes", None, [(n, 16) for n in (10, 30, 100, 300, 1000, 3000)]),
        ("classes, top_k=32", 32, [(100, 16), (1000, 16), (3000, 16), (10_000, 4)]),
        ("shots", None, [(100, shots) for shots in (1, 4, 16, 64)]),
    )
    points = {}
    spawn = get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for label, top_k, grid in curves:
            costs = []
            for n_classes, shots in grid:
                file = str(Path(folder) / "support.joblib")
                joblib.dump(support(n_classes, shots), file)
                with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                    costs.append(pool.submit(fit_cost, file, top_k).result())
            sizes = [shots if label == "shots" else n_classes for n_classes, shots in grid]
            points[label] = sizes, np.array(costs).T
            for (seconds, peak), size in zip(costs, sizes, strict=True):
                print(f"| fit, {size} {label} | {seconds:.2f} s, {peak:.0f} MB | | |", flush=True)
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4))
    for axes, quantity, row in zip(panels, ("time (s)", "peak memory (MB)"), (0, 1), strict=True):
        for label, (sizes, costs) in points.items():
            seen = costs[row] > (0 if row == 0 else 10)  # less memory than that is in the noise
            exponent = np.polyfit(np.log(np.array(sizes)[seen]), np.log(costs[row][seen]), 1)[0]
            axes.loglog(sizes, costs[row], "o-", label=f"{label}: exponent {exponent:.2f}")
            print(f"| fit, {quantity} against {label} | | | exponent {exponent:.2f} |", flush=True)
        axes.set(xlabel="classes or shots per class", ylabel=quantity, title="HeGraph fit, D = 512")
        axes.legend()
    figure.savefig(Path(__file__).with_name("speed.png"), dpi=100, bbox_inches="tight")


def image_files(folder: Path, count: int) -> list[str]:
    """JPEG files of random smooth pictures."""
    rng = np.random.RandomState(0)
    paths = []
    for i in range(count):
        small = Image.fromarray(rng.randint(0, 256, (16, 16, 3), dtype=np.uint8))
        paths.append(str(folder / f"{i}.jpg"))
        small.resize((224, 224)).save(paths[-1])
    return paths


def features_section() -> None:
    """Image files to features against the plain open_clip loop, repeats, and memory."""
    import open_clip
    import torch

    with tempfile.TemporaryDirectory() as folder:
        paths = image_files(Path(folder), 1000)
        compare_loops("tiny CLIP", CLIPFeatures("skhegraph-tiny", device="cpu"), paths)
        weights = str(Path(folder) / "random.pt")
        torch.save(open_clip.create_model("ViT-B-32").state_dict(), weights)
        clip = CLIPFeatures("ViT-B-32", weights, device="cpu")
        compare_loops("random ViT-B-32", clip, paths[:128])
        tiny = CLIPFeatures("skhegraph-tiny", device="cpu")
        report(
            "1,000 files, each given 4 times",
            median_time(lambda: tiny.transform(paths * 4), 3),
            "once",
            median_time(lambda: tiny.transform(paths), 3),
        )
        links = [Path(folder) / f"link-{i}.jpg" for i in range(60_000)]
        for i, link in enumerate(links):
            link.hardlink_to(paths[i % len(paths)])
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            seconds, peaks = pool.submit(memory_of_transform, [str(p) for p in links]).result()
        print(
            f"| 60,000 files, tiny CLIP: {seconds:.0f} s | peak {peaks[1]:.0f} MB | "
            f"of 6,000 files: {peaks[0]:.0f} MB | {peaks[1] / peaks[0]:.2f} |"
        )


def memory_of_transform(paths: list[str]) -> tuple[float, list[float]]:
    """Seconds for all paths, and the process's peak memory (MB) after a tenth and after all."""
    clip, peaks = CLIPFeatures("skhegraph-tiny", device="cpu"), []
    for part in (paths[: len(paths) // 10], paths):
        seconds = time_once(partial(clip.transform, part))
        peaks.append(peak_memory())
    return seconds, peaks


def compare_loops(name: str, clip: CLIPFeatures, paths: list[str]) -> None:
    """Time `transform` and the loop a careful user writes around the same model."""
    import torch

    backbone = load_backbone(clip.model_name, clip.pretrained, device="cpu")

    class Files(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, i: int) -> torch.Tensor:
            return backbone.preprocess(Image.open(paths[i]).convert("RGB"))

    def loop(workers: int) -> None:
        loader = torch.utils.data.DataLoader(Files(), batch_size=64, num_workers=workers)
        with torch.inference_mode():
            for batch in loader:
                torch.nn.functional.normalize(backbone._model.encode_image(batch), dim=1)

    ours = median_time(lambda: clip.transform(paths), 3)
    for workers in (0, 2):
        theirs = median_time(partial(loop, workers), 3)
        report(f"{len(paths)} files, {name}", ours, f"open_clip loop, {workers} workers", theirs)


def search_section() -> None:
    """24 candidates and 5 folds with the feature store, against encode once plus the fits."""
    with tempfile.TemporaryDirectory() as folder:
        paths = np.array(image_files(Path(folder), 400), dtype=object)
        y = np.arange(len(paths)) % 5
        cv = StratifiedKFold(5)
        params = {"class_names": list("abcde"), "random_state": 0}

        def encode_once() -> None:
            features = CLIPFeatures("skhegraph-tiny").transform(paths)
            clf = HeGraphClassifier("skhegraph-tiny", **params)
            GridSearchCV(clf, PATHS, cv=cv).fit(features, y)

        def search(**clip_params: object) -> None:
            pipe = make_hegraph_pipeline("skhegraph-tiny", **clip_params, **params)
            piped = {f"clf__{name}": values for name, values in PATHS.items()}
            GridSearchCV(pipe, piped, cv=cv).fit(paths, y)

        def search_with_store() -> None:
            search(cache_dir=tempfile.mkdtemp(dir=folder))  # a new, empty one

        reference = median_time(encode_once)
        for what, seconds in (
            ("with cache_dir", median_time(search_with_store)),
            ("without cache_dir", time_once(search)),
        ):
            report(f"search 24 x 5, {what}", seconds, "encode once + the fits", reference)


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
