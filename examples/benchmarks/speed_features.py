"""Imports, predictions and fits on features: sections of speed.py."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from timing import (
    hegraph,
    median_time,
    medians_in_turn,
    peak_anonymous,
    peak_memory,
    report,
    support,
    time_once,
)

from skhegraph import parallel

TRAINED_PEERS = (
    "Tip-Adapter-F",
    "CLIP-Adapter",
    "TaskRes",
    "LP++",
    "CLAP",
    "GraphAdapter",
    "Text-started LR",
    "MAP-LR",
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


def predict_section() -> None:
    """10,000 queries, 1,000 classes: against the one product it needs, and logistic regression.

    `predict` and its product are called in turn, so that other work disturbs both.
    """
    X, y, *text = support(1000, 16)
    linear = LogisticRegression(max_iter=1).fit(X[::16], y[::16])
    clf = hegraph(*text).fit(X, y)
    for dtype in (np.float32, np.float64):
        queries = X[:10_000].astype(dtype)
        weights = clf.coef_.T.astype(dtype)
        calls = [partial(clf.predict, queries), lambda q=queries, w=weights: q @ w]
        ours, bare = medians_in_turn(calls, 9)
        report(f"predict, {queries.dtype}", ours, "its bare product", bare)
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
        print(f"| {what} | peak {peak:.0f} MB | of it the output: {output:.0f} MB | |")


def query_section() -> None:
    """One query, 100 classes, against the bare NumPy lines of the same answer."""
    X, y, *text = support(100, 4)
    clf = hegraph(*text).fit(X, y)
    query, weights, offsets = X[:1].copy(), clf.coef_.T, clf.intercept_

    def bare() -> np.ndarray:
        unit = query / np.linalg.norm(query, axis=1, keepdims=True)
        logits = (unit @ weights + offsets).astype(np.float64)
        proba = np.exp(logits - logits.max(axis=1, keepdims=True))
        return proba / proba.sum(axis=1, keepdims=True)

    linear = LogisticRegression(max_iter=1).fit(X, y)
    ours = microseconds(lambda: clf.predict_proba(query))
    theirs, numpy_cost = microseconds(lambda: linear.predict_proba(query)), microseconds(bare)
    for name, other in (("NumPy", numpy_cost), ("LogisticRegression", theirs)):
        print(f"| one query | {ours:.0f} us | {name}: {other:.0f} us | {ours / other:.2f} |")


def microseconds(function: object, calls: int = 1000) -> float:
    """Microseconds of a call, the best of seven means."""

    def many() -> None:
        for _ in range(calls):
            function()

    many()
    return min(time_once(many) for _ in range(7)) / calls * 1e6


def many_section() -> None:
    """A million float16 rows in a file, predicted without a copy, against reading the file."""
    X, y, *text = support(100, 16)
    clf = hegraph(*text).fit(X, y)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "features.npy")
        rows = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=(1_000_000, 512))
        for start in range(0, len(rows), len(X)):
            rows[start : start + len(X)] = X[: len(rows) - start]
        rows.flush()
        del rows
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            seconds, read, memory = pool.submit(predict_file, file, clf).result()
    report("predict, 1,000,000 rows of a file", seconds, "reading the file", read)
    print(f"| the same | {memory:.0f} MB over the file's pages and the labels | | |")


def predict_file(file: str, clf: object) -> tuple[float, float, float]:
    """Seconds of `predict` on a memory-mapped file and of reading it, and the heap at its peak."""
    read = time_once(lambda: sum(block.sum() for block in blocks_of(file)))
    read = min(read, time_once(lambda: sum(block.sum() for block in blocks_of(file))))
    rows = np.load(file, mmap_mode="r")
    seconds = time_once(lambda: clf.predict(rows))
    tracemalloc.start()
    labels = clf.predict(rows)
    peak = tracemalloc.get_traced_memory()[1]
    return seconds, read, (peak - labels.nbytes) / 1e6


def blocks_of(file: str) -> Iterator[np.ndarray]:
    """Read a file from start to end, 64 MB at a time."""
    with open(file, "rb") as stream:
        while block := stream.read(1 << 26):
            yield np.frombuffer(block, np.uint8)[::4096]


def large_section() -> None:
    """10 classes x 100,000 rows of a file: against reading it, and three iterations of saga."""
    X, y, *text = support(10, 1000)
    parts = 100
    with tempfile.TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < 2 * parts * X.nbytes:
            raise SystemExit(f"large: {folder} has less room than 4 GB, set TMPDIR to another.")
        file = str(Path(folder) / "features.npy")
        shape = (parts * len(X), X.shape[1])
        rows = np.lib.format.open_memmap(file, mode="w+", dtype=X.dtype, shape=shape)
        for part in range(parts):
            rows[part * len(X) :][: len(X)] = support(10, 1000, draw=1 + part)[0]
        rows.flush()
        del rows
        costs = []
        for clf in (hegraph(*text), LogisticRegression(solver="saga", max_iter=3)):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                costs.append(pool.submit(large_cost, file, np.tile(y, parts), clf).result())
        read = min(time_once(lambda: sum(b.sum() for b in blocks_of(file))) for _ in range(2))
    (ours, *of_ours), (theirs, *of_theirs) = costs
    report("fit, 10 classes x 100,000 of a file", ours, "saga, 3 iterations", theirs)
    report("the same", ours, "reading the file", read)
    for what, one, other in zip(("MB", "accuracy", "log-loss"), of_ours, of_theirs, strict=True):
        print(f"| the same | {one:.4g} {what} | saga: {other:.4g} {what} | |", flush=True)


def large_cost(file: str, y: np.ndarray, clf: object) -> tuple[float, ...]:
    """Seconds and peak memory of a fit on a file, accuracy and log-loss on 20,000 other rows.

    Memory is over that of before, without pages of the file, which the system may take back.
    """
    warnings.simplefilter("ignore")
    clf.fit(*support(10, 4)[:2])
    before, seconds = peak_anonymous(partial(time.sleep, 0.1)), []
    rows = np.load(file, mmap_mode="r")
    peak = peak_anonymous(lambda: seconds.append(time_once(lambda: clf.fit(rows, y))))
    queries, labels, *_ = support(10, 2000, draw=200)
    loss = log_loss(labels, clf.predict_proba(queries))
    return seconds[0], peak - before, clf.score(queries, labels), loss


def cost_of(function: object) -> tuple[float, float]:
    """Seconds and peak memory over what was there before, MB."""
    before = peak_memory()
    seconds = time_once(function)
    return seconds, peak_memory() - before


def unlabelled_section() -> None:
    """100 classes x 16 and rows without a label, against the labelled ones alone."""
    spawn, costs = get_context("spawn"), []
    for extra in (0, 1, 10, 100, 1000):
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            costs.append((extra, *pool.submit(unlabelled_cost, extra).result()))
    _, alone, before = costs[0]
    for extra, seconds, memory in costs[1:]:
        report(f"fit, {100 * extra:,} rows without a label", seconds, "100 x 16 with one", alone)
        print(f"| the same | {memory:.0f} MB | without: {before:.0f} MB | |", flush=True)


def unlabelled_cost(extra: int) -> tuple[float, float]:
    """Seconds and peak memory (MB) of a fit with `extra` rows without a label for each class."""
    X, y, *text = support(100, 16 + extra)
    fit_hegraph(*support(10, 4))
    partly = np.where(np.arange(len(y)) % (16 + extra) < 16, y, -1)
    return cost_of(lambda: fit_hegraph(X, partly, *text))


def fit_section() -> None:
    """Fit at 10 to 1,000 classes, 16 shots, against logistic regression, plain and with its C."""
    warnings.simplefilter("ignore")
    for n_classes, runs in ((10, 5), (30, 5), (100, 3), (300, 1), (1000, 1)):
        X, y, *text = support(n_classes, 16)
        ours = median_time(partial(fit_hegraph, X, y, *text), runs)
        standardised = StandardScaler().fit_transform(X)
        linear = LogisticRegression()
        theirs = median_time(partial(linear.fit, standardised, y), 1)
        reference = f"LogisticRegression on standardised rows, {linear.n_iter_[0]} iterations"
        report(f"fit, {n_classes} classes", ours, reference, theirs)
        search = GridSearchCV(linear, {"C": [0.01, 0.1, 1.0, 10.0]}, cv=5)
        reference = "the same, C of four chosen on five folds"
        report(
            f"fit, {n_classes} classes",
            ours,
            reference,
            time_once(partial(search.fit, standardised, y)),
        )


def peers_section() -> None:
    """Fit at 100 classes, 16 shots, against trained peers that select on five folds."""
    from few_shot import METHODS, choose
    from few_shot_data import Problem

    warnings.simplefilter("ignore")
    X, y, text, negative = support(100, 16)
    problem = Problem("synthetic", X, y, X, y, (text, negative), 100.0)
    ours = median_time(partial(fit_hegraph, X, y, text, negative), 3)
    for name in TRAINED_PEERS:
        chosen = partial(choose, METHODS[name], problem, X, y, seed=0)
        report("fit, 100 classes", ours, f"{name}, one of six on five folds", time_once(chosen))


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Let processes run beside, each as busy as it can be on one thread."""
    others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(count)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def spin() -> None:
    """Multiply matrices for ever, on one thread."""
    with threadpool_limits(1):
        A = np.random.RandomState(0).normal(size=(300, 300))
        while True:
            A @ A


def threads_section() -> None:
    """Default threads against the better of one and two, idle and beside two busy processes."""
    for n_classes, shots in ((5, 12), (7, 12), (100, 16), (1000, 16)):
        X, y, *text = support(n_classes, shots)
        once = partial(fit_hegraph, X, y, *text)
        for busy in (0, 2):
            with busy_processes(busy):
                fixed = [partial(fit_on_threads, n, once) for n in (1, 2)]
                runs = 2000 // (n_classes + 20)  # 80 of the small ones, where single runs scatter
                default, *fixed = medians_in_turn([once, *fixed], max(runs, 3))
            what = f"fit, {n_classes} classes x {shots}, {busy} busy processes"
            report(what, default, f"best of 1 and 2 threads ({np.argmin(fixed) + 1})", min(fixed))


def fit_on_threads(n_threads: int, once: partial) -> None:
    """Fit with that many blocks of rows at a time."""
    default = parallel.effective_n_threads
    parallel.effective_n_threads = lambda: n_threads
    try:
        once()
    finally:
        parallel.effective_n_threads = default


def fit_hegraph(X: np.ndarray, y: np.ndarray, text: np.ndarray, negative: np.ndarray) -> None:
    """Fit with the defaults."""
    hegraph(text, negative).fit(X, y)


def fit_cost(file: str) -> tuple[float, float]:
    """Seconds and peak memory over the inputs (MB) of a fit, in a process of its own."""
    fit_hegraph(*support(10, 4))
    data = joblib.load(file)
    return cost_of(partial(fit_hegraph, *data))


def growth_section() -> None:
    """Time and memory against classes (16 and 4 shots) and shots (100 classes), with exponents."""
    curves = (
        ("classes", [(n, 16) for n in (10, 30, 100, 300, 1000, 3000)]),
        ("classes of 4 shots", [(100, 4), (1000, 4), (3000, 4), (10_000, 4)]),
        ("shots", [(100, shots) for shots in (1, 4, 16, 64)]),
    )
    points = {}
    spawn = get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for label, grid in curves:
            costs = []
            for n_classes, shots in grid:
                file = str(Path(folder) / "support.joblib")
                joblib.dump(support(n_classes, shots), file)
                with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                    costs.append(pool.submit(fit_cost, file).result())
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


SECTIONS = {
    "import": import_section,
    "predict": predict_section,
    "query": query_section,
    "many": many_section,
    "large": large_section,
    "unlabelled": unlabelled_section,
    "fit": fit_section,
    "peers": peers_section,
    "threads": threads_section,
    "growth": growth_section,
}
