"""From image files to features, stores, searches and clusters: sections of speed.py.

The plain loop is what one writes without this package: open_clip's model and preprocessing, batches
of 64, with or without worker processes that load. Measurements of both are made in turn.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from timing import (
    image_files,
    medians_in_turn,
    peak_memory,
    photographs,
    report,
    time_once,
)

from skhegraph import CLIPFeatures, HeGraphClassifier, make_hegraph_pipeline
from skhegraph.clip.bundled import BUNDLED, LITE, TINY
from skhegraph.clip.model import load_backbone

BATCH = 64
ALONE = "half of it in one process alone on a core"
AT_ONCE = "in two processes at once, a core each"  # what the cores can do together
PATHS = {
    "visual_to_positive": [0.0, 0.1, 0.24, 0.5],
    "negative_to_positive": [0.0, 0.1, 0.2],
    "positive_to_positive": [0.0, 0.06],
}


def features_section() -> None:
    """Image files to features against the plain loop, repeats, and memory."""
    import open_clip
    import torch

    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder), 256, 2 * BATCH)
        compare_loops("128 photographs of 256 px", CLIPFeatures(LITE, device="cpu"), paths)
        paths = image_files(Path(folder), 1000)
        tiny = CLIPFeatures(TINY, device="cpu")
        compare_loops("1,000 pictures of 224 px", tiny, paths)
        weights = str(Path(folder) / "random.pt")
        torch.save(open_clip.create_model("ViT-B-32").state_dict(), weights)
        clip = CLIPFeatures("ViT-B-32", weights, device="cpu")
        compare_loops("64 pictures of 224 px", clip, paths[:BATCH])
        ours, once = medians_in_turn(
            [lambda: tiny.transform(paths * 4), lambda: tiny.transform(paths)]
        )
        report("1,000 files, each given 4 times", ours, "once", once)
        links = [Path(folder) / f"link-{i}.jpg" for i in range(60_000)]
        for i, link in enumerate(links):
            link.hardlink_to(paths[i % len(paths)])
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            seconds, peaks = pool.submit(memory_of_transform, [str(p) for p in links]).result()
        print(
            f"| 60,000 files, tiny CLIP: {seconds:.0f} s | peak {peaks[1]:.0f} MB | "
            f"of 6,000 files: {peaks[0]:.0f} MB | {peaks[1] / peaks[0]:.2f} |",
            flush=True,
        )


def photographs_section() -> None:
    """JPEG files of 4,000 x 3,000 pixels: drafted, whole, and the plain loop."""
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder), 3000, 16)
        megabytes = sum(os.path.getsize(path) for path in paths) / len(paths) / 1e6
        for name in (LITE, TINY):
            drafted = CLIPFeatures(name, device="cpu")
            whole = CLIPFeatures(name, device="cpu", draft=False)
            what = f"16 photographs of 12 megapixels, {megabytes:.1f} MB"
            compare_loops(what, drafted, paths)
            cosines = np.einsum("ij,ij->i", drafted.transform(paths), whole.transform(paths))
            ours, theirs = medians_in_turn(
                [partial(drafted.transform, paths), partial(whole.transform, paths)]
            )
            report(f"{what}, {name}", ours, "the same, draft=False", theirs)
            print(f"| the same | | least cosine to whole files {cosines.min():.5f} | |", flush=True)


def memory_of_transform(paths: list[str]) -> tuple[float, list[float]]:
    """Seconds for all paths, and the process's peak memory (MB) after a tenth and after all."""
    clip, peaks = CLIPFeatures(TINY, device="cpu"), []
    for part in (paths[: len(paths) // 10], paths):
        seconds = time_once(partial(clip.transform, part))
        peaks.append(peak_memory())
    return seconds, peaks


def compare_loops(what: str, clip: CLIPFeatures, paths: list[str]) -> None:
    """Time `transform` and the plain loop over the same files."""
    loops = [partial(plain_loop, clip, plain_model(clip), paths, workers) for workers in (0, 2)]
    ours, *theirs = medians_in_turn([partial(clip.transform, paths), *loops])
    for workers, seconds in zip((0, 2), theirs, strict=True):
        report(f"{what}, {clip.model_name}", ours, f"open_clip loop, {workers} workers", seconds)


def plain_model(clip: CLIPFeatures) -> Any:
    """Model as open_clip makes it: bundled ones without what :mod:`skhegraph.clip` changes."""
    import open_clip

    bundled = BUNDLED.get(clip.model_name)
    if bundled is None:
        return load_backbone(clip.model_name, clip.pretrained, device="cpu")._model
    model = open_clip.CLIP(**bundled.read_config())
    model.load_state_dict(bundled.read_weights(model))
    return model.eval()


class Files:
    """Data set of preprocessed images for torch's loader."""

    def __init__(self, paths: list[str], preprocess: Callable[[Image.Image], Any]) -> None:
        self.paths, self.preprocess = paths, preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Any:
        return self.preprocess(Image.open(self.paths[i]).convert("RGB"))


def plain_loop(clip: CLIPFeatures, model: Any, paths: list[str], workers: int) -> np.ndarray:
    """Encode files with the loop that a careful user writes."""
    import torch

    preprocess = load_backbone(clip.model_name, clip.pretrained, device="cpu").preprocess
    files = Files(paths, preprocess)
    loader = torch.utils.data.DataLoader(files, batch_size=BATCH, num_workers=workers)
    rows = []
    with torch.inference_mode():
        for batch in loader:
            rows.append(torch.nn.functional.normalize(model.encode_image(batch), dim=1).numpy())
    return np.concatenate(rows)


def on_own_cores(function: Callable[..., object], jobs: Sequence[tuple[Any, ...]]) -> float:
    """Seconds of the slowest of calls that start at once, each in a process with its own core.

    Each process calls the function once before, with the argument ``warm_up=True``.
    """
    context = get_context("spawn")
    barrier, results = context.Barrier(len(jobs)), context.SimpleQueue()
    processes = [
        context.Process(target=on_one_core, args=(core, barrier, results, function, job))
        for core, job in zip(sorted(os.sched_getaffinity(0)), jobs, strict=False)
    ]
    if len(processes) < len(jobs):
        raise RuntimeError(f"{len(jobs)} processes need as many cores, {len(processes)} are there")
    for process in processes:
        process.start()
    seconds = max(results.get() for _ in jobs)
    for process in processes:
        process.join()
    return seconds


def on_one_core(
    core: int, barrier: Any, results: Any, function: Callable[..., object], job: tuple[Any, ...]
) -> None:
    """Call a function on one core, once to warm up and once, with the others, to time it."""
    import torch

    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    function(*job, warm_up=True)
    barrier.wait()
    results.put(time_once(partial(function, *job)))


def fill_store(paths: list[str], folder: str, warm_up: bool = False) -> None:
    """Encode files into a store, or one file without it."""
    if warm_up:
        CLIPFeatures(TINY, device="cpu").transform(paths[:1])
    else:
        CLIPFeatures(TINY, device="cpu", num_workers=1, cache_dir=folder).transform(paths)


def store_section() -> None:
    """Two processes that fill one store at once, against each alone, and against two stores."""
    together, alone, apart = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        paths = image_files(Path(folder), 3000)
        halves = paths[::2], paths[1::2]

        def stores(n: int) -> list[str]:
            return [tempfile.mkdtemp(dir=folder) for _ in range(n)]

        for _ in range(3):
            one = stores(1)[0]
            together.append(on_own_cores(fill_store, [(half, one) for half in halves]))
            alone.append(on_own_cores(fill_store, [(halves[0], *stores(1))]))
            apart.append(on_own_cores(fill_store, list(zip(halves, stores(2), strict=True))))
    ours = float(np.median(together))
    what = "two processes, 1,500 files each, one cache_dir"
    report(what, ours, ALONE, float(np.median(alone)))
    report(what, ours, f"{AT_ONCE}, a cache_dir each", float(np.median(apart)))


def search_section() -> None:
    """24 candidates and 5 folds from files, with a warm store and with a new one."""
    warnings.simplefilter("ignore")  # of text that does not fit: the pictures show nothing
    with tempfile.TemporaryDirectory() as folder:
        paths = np.array(image_files(Path(folder), 200), dtype=object)
        y = np.arange(len(paths)) % 5
        cv = StratifiedKFold(5)
        params = {"class_names": list("abcde"), "random_state": 0}
        clip = CLIPFeatures(TINY, device="cpu", cache_dir=tempfile.mkdtemp(dir=folder))
        features = clip.transform(paths)

        def fits() -> None:
            clf = HeGraphClassifier(TINY, device="cpu", **params)
            GridSearchCV(clf, PATHS, cv=cv).fit(features, y)

        def search(cache_dir: str) -> None:
            pipe = make_hegraph_pipeline(TINY, device="cpu", cache_dir=cache_dir, **params)
            piped = {f"clf__{name}": values for name, values in PATHS.items()}
            GridSearchCV(pipe, piped, cv=cv).fit(paths, y)

        warm, new, reference = medians_in_turn(
            [
                partial(search, clip.cache_dir),
                lambda: search(tempfile.mkdtemp(dir=folder)),
                fits,
            ],
            runs=3,
        )
        for what, seconds in (("a warm store", warm), ("a new store", new)):
            report(f"search 24 x 5 on 200 files, {what}", seconds, "the fits", reference)


def extract_alone(paths: list[str], size: int, folder: str, warm_up: bool = False) -> None:
    """Make the parts of an extraction in this process."""
    from skhegraph import cluster

    clip = CLIPFeatures(TINY, device="cpu", num_workers=1)
    target = Path(tempfile.mkdtemp(dir=folder))
    for number, start in enumerate(range(0, 1 if warm_up else len(paths), size)):
        part = paths[start : start + size]
        cluster.make_part(target / cluster.part_name(number), part, (clip, None))


def cluster_section() -> None:
    """Two workers against one process alone that does half of it, and against two processes."""
    from distributed import Client, LocalCluster

    from skhegraph import cluster

    clip = CLIPFeatures(TINY, device="cpu", num_workers=1)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(**options) as local,
        Client(local) as client,
    ):
        paths = image_files(Path(folder), 1000)
        client.run(lambda: clip.transform(paths[:1]))

        def on_workers(images: list[str], size: int) -> None:
            target = tempfile.mkdtemp(dir=folder)
            cluster.extract(client, images, target, clip, images_per_part=size)

        for size, images in ((500, paths * 4), (1, paths[:200])):
            half = images[: len(images) // 2]
            times = [
                (
                    time_once(partial(on_workers, images, size)),
                    *(on_own_cores(extract_alone, [(half, size, folder)] * n) for n in (1, 2)),
                )
                for _ in range(3)
            ]
            ours, alone, at_once = np.median(times, axis=0)
            parts = len(images) // size
            what = f"cluster, two workers, {parts} parts of {size}"
            report(what, ours, ALONE, alone)
            report(what, ours, AT_ONCE, at_once)
        overhead = 1e3 * (ours - at_once) / (parts / 2)
        print(f"| the same, Dask takes {overhead:.1f} ms of a worker's time a part | | | |")
        search_on_cluster(client)


def search_on_cluster(client: Any) -> None:
    """Fits of a search on two workers, through joblib's backend, against half of them alone."""
    from skhegraph import cluster

    X, y = search_problem()
    clf = HeGraphClassifier(text_features="prototypes", device="cpu")
    grid = {"penalty": np.geomspace(1, 100, 24).tolist()}

    def on_workers() -> None:
        cluster.search(client, clf, grid, X, y, cv=5, refit=False)

    on_workers()
    times = [
        (time_once(on_workers), *(on_own_cores(search_alone, [()] * n) for n in (1, 2)))
        for _ in range(3)
    ]
    ours, alone, at_once = np.median(times, axis=0)
    report("search 24 x 5, features, two workers", ours, ALONE, alone)
    report("search 24 x 5, features, two workers", ours, AT_ONCE, at_once)


def search_alone(warm_up: bool = False) -> None:
    """Half the candidates of `search_on_cluster`."""
    clf = HeGraphClassifier(text_features="prototypes", device="cpu")
    grid = {"penalty": np.geomspace(1, 100, 24).tolist()[: 1 if warm_up else 12]}
    GridSearchCV(clf, grid, cv=5, refit=False).fit(*search_problem())


def search_problem() -> tuple[np.ndarray, np.ndarray]:
    """Features of 10 classes, 16 rows each, and their labels."""
    from timing import support

    return support(10, 16)[:2]


SECTIONS = {
    "features": features_section,
    "photographs": photographs_section,
    "store": store_section,
    "search": search_section,
    "cluster": cluster_section,
}
