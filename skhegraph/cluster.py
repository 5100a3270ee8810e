"""Out of one machine: search, encoding and prediction on a Dask cluster.

Needs ``pip install "skhegraph[cluster]"`` on the client, the scheduler and the workers, which see
images and stores under the same paths. :func:`search` runs the fits of a `GridSearchCV` on the
workers through joblib's Dask backend; :func:`extract` encodes (and classifies) any number of
images, one Dask task and one Parquet file per part.

**Restart.** Call :func:`extract` again: parts that are there are not made again. A part is written
under a name of its own and renamed, so it is whole or absent, and a worker that is killed loses
the part in its hands; Dask gives it to another one. A part that was in place but not reported is
not encoded again, and should two workers make the same part, the later one replaces it with the
same rows. Thus every path is in the store once. A manifest keeps extractions with other images,
model, classifier or part size out of the folder; it does not notice that an image file changed.
If the scheduler is killed, :func:`extract` raises (``CommClosedError``, an OSError, or
``CancelledError``): start another one with its workers and call again. A `LocalCluster` gives up
a worker that is away 15 s after a kill (``distributed.deploy.lost-worker-timeout``); the others go
on, and without any the run waits for one.

**Workers.** The model is loaded once per process, under a lock, and never sent. Start workers with
one thread each: a worker per core with ``num_workers=1`` (Dask sets OMP_NUM_THREADS=1), or a
worker per GPU with as many decoding threads (`num_workers`) as it has cores.

100 million images: time and cost
---------------------------------

Measured on 2026-11-24 with :func:`extract`, two workers on two virtual CPU cores that other work
was using too, so "a core" is a second of CPU time (while the cores were idle, the clock agreed
within 10 %). JPEG files are 500 x 375 pixels, 55 kB; ViT-B-32 has random weights, as fast as any.
The price is an assumption: 0.04 per core-hour. N = 100,000,000.

==================================  ============  ============  ==============
.                                   tiny, 8 x 8   tiny, JPEG    ViT-B-32, JPEG
==================================  ============  ============  ==============
measured: images/s per core         400           180           7
measured: bytes per image, stored   520           520           2,070
core-hours = N / rate / 3600        69            154           3,970
hours on 100 cores                  0.7           1.5           40
hours on 1,000 cores                0.07          0.15          4.0
cost = core-hours * price           2.8           6.2           159
store = N * bytes per image         52 GB         52 GB         207 GB
==================================  ============  ============  ==============

Also measured: 6 ms of Dask per part of 1,000 (tasks that do nothing, client and scheduler
included); 0.05 to 0.15 s to write and sync 10,000 rows of 512; 4 to 12 s to start a worker
(importing torch, tiny CLIP), 4 to 6 s more for ViT-B-32. The rest is arithmetic:

- Parts: 1,000 images make 100,000 files (2 MB for ViT-B-32), 143 s of a core each: that is what a
  killed worker loses and how long the last part keeps the others waiting. Take what a worker does
  in two to ten minutes, 10,000 images and more where a GPU is fast.
- Dask: 100,000 parts at 6 ms are 10 minutes of the client, spread over the run. It can hand out
  160 parts a second; 1,000 cores of ViT-B-32 ask for 7. Writing takes 0.01 % of the time, starting
  1,000 workers 5 core-hours.
- Reading: 1,000 cores of ViT-B-32 read 7,000 images or 390 MB a second, 5.5 TB in all. Files far
  away or larger images can make this the limit.
- Memory: the list of 100 million paths of 60 characters takes 12 GB in the client. Ten runs of 10
  million, a folder each, take 1.2 GB.
- Not measured: a GPU, more than two workers, a network file system.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import joblib
import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.model_selection import GridSearchCV
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted

from skhegraph.clip.checkpoints import full_name, weights_name
from skhegraph.clip.features import CLIPFeatures
from skhegraph.labels import and_another

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from distributed import Client, Future, as_completed
    from pyarrow.dataset import Dataset, dataset
except ImportError as error:
    raise ImportError(
        f"skhegraph.cluster needs Dask's distributed and pyarrow ({error}): "
        'pip install "skhegraph[cluster]".'
    ) from error

#: Parts that are handed out at a time, for each thread of the workers.
WINDOW = 3


def extract(
    client: Client,
    paths: Sequence[str],
    folder: str | os.PathLike[str],
    clip: CLIPFeatures,
    *,
    classifier: ClassifierMixin | None = None,
    images_per_part: int = 1_000,
) -> int:
    """Encode images on the workers into one Parquet file per part; go on where a run stopped.

    Parameters
    ----------
    client : distributed.Client
        Its workers see `folder` and the images under the same paths.
    paths : sequence of str
        Image files; anything with a length and slices.
    folder : path
        The store; one run at a time.
    clip : CLIPFeatures
        With ``on_error="nan"`` an unreadable image gets features of NaN and no label; with
        "raise" it ends the run.
    classifier : classifier of features or None, default=None
        Fitted; adds the columns ``label`` and ``probability``.
    images_per_part : int, default=1_000
        Rows of a file, and the work that a killed worker loses.

    Returns
    -------
    int
        Number of images that this run encoded.
    """
    check_arguments(paths, clip, classifier, images_per_part)
    folder = Path(folder).absolute()
    open_store(folder, manifest_of(paths, clip, classifier, images_per_part))
    made = {path.name for path in folder.glob("part-*.parquet")}
    numbers = range(math.ceil(len(paths) / images_per_part))
    missing = (number for number in numbers if part_name(number) not in made)
    # A task's result, not scattered data: it is made again if all its holders are killed.
    steps = client.submit(tuple, (clip, classifier), pure=False)

    def submit(number: int) -> Future:
        start = number * images_per_part
        images = [os.fspath(path) for path in paths[start : start + images_per_part]]
        return client.submit(make_part, folder / part_name(number), images, steps, pure=False)

    def next_parts(running: int) -> list[Future]:
        window = WINDOW * max(1, sum(client.nthreads().values()))
        return [submit(number) for number in islice(missing, max(0, window - running))]

    running = as_completed(next_parts(0))
    encoded = 0
    for future in running:
        encoded += future.result()
        running.update(next_parts(running.count()))
    for left_by_killed_worker in folder.glob(".*.tmp"):
        left_by_killed_worker.unlink(missing_ok=True)
    return encoded


def check_arguments(paths: Any, clip: Any, classifier: Any, images_per_part: Any) -> None:
    """Raise on the client, before work is handed out, for what every worker would raise."""
    check_scalar(images_per_part, "images_per_part", Integral, min_val=1)
    if isinstance(paths, (str, bytes)) or not hasattr(paths, "__len__"):
        raise TypeError(f"paths is a {type(paths).__name__}: give a list of paths.")
    for path in paths[:1]:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                f"paths[0] is a {type(path).__name__}: each row is of one file, give its path."
            )
    if not isinstance(clip, CLIPFeatures):
        raise TypeError(
            f"clip is a {type(clip).__name__}: give a CLIPFeatures, and a classifier of its "
            "features as `classifier` (of a pipeline, its steps)."
        )
    if classifier is not None:
        check_is_fitted(classifier)


def make_part(
    path: Path, images: list[str], steps: tuple[CLIPFeatures, ClassifierMixin | None]
) -> int:
    """Encode one part and put it in place; return how many images were encoded."""
    if path.exists():  # its worker was killed before it could report
        return 0
    clip, classifier = steps
    X = clip.transform(images)
    columns = {
        "path": pa.array(images),
        "features": pa.FixedSizeListArray.from_arrays(X.ravel(), X.shape[1]),
    }
    if classifier is not None:
        columns |= predict(classifier, X)
    put(path, partial(pq.write_table, pa.table(columns), use_dictionary=False))
    return len(images)


def predict(classifier: Any, X: np.ndarray) -> dict[str, pa.Array]:
    """Most probable class and its probability; null where the features are NaN."""
    readable = np.isfinite(X).all(axis=1)
    label = np.full(len(X), None, dtype=object)
    probability = np.full(len(X), np.nan, dtype=np.float32)
    if readable.any():
        label[readable] = classifier.predict(X[readable])
        probability[readable] = classifier.predict_proba(X[readable]).max(axis=1)
    labels = classifier.classes_
    if (unknown := getattr(classifier, "unknown_label", None)) is not None:
        labels = and_another(labels, unknown)  # which may need a wider type, in every part alike
    return {
        "label": pa.array(label, type=pa.array(labels).type),
        "probability": pa.array(probability, mask=~readable),
    }


def put(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write under a name of its own, then rename: the file is whole or absent."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def part_name(number: int) -> str:
    """File name of a part."""
    return f"part-{number:06d}.parquet"


def manifest_of(
    paths: Sequence[str],
    clip: CLIPFeatures,
    classifier: ClassifierMixin | None,
    images_per_part: int,
) -> dict[str, Any]:
    """What the parts of a store depend on."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(os.fsencode(path) + b"\0")
    model_name, pretrained, _ = clip._names()
    model_name, pretrained = full_name(model_name, weights_name(model_name, pretrained))
    return {
        "model_name": model_name,
        "pretrained": pretrained,
        "draft": bool(clip.draft),
        "max_pixels": clip.max_pixels,
        "classifier": None if classifier is None else joblib.hash(classifier),
        "images": len(paths),
        "images_per_part": images_per_part,
        "paths": digest.hexdigest(),
    }


def open_store(folder: Path, manifest: dict[str, Any]) -> None:
    """Make a store, or check that the one that is there is of the same extraction."""
    file = folder / "manifest.json"
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: choose a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        put(file, lambda out: out.write(json.dumps(manifest, indent=2).encode()))
    there = read_manifest(folder)
    different = [
        f"{key} is {there.get(key)!r} there and {value!r} now"
        for key, value in manifest.items()
        if there.get(key) != value
    ]
    if different:
        raise ValueError(
            f"{folder} holds another extraction: {'; '.join(different)}. Choose another folder, "
            "or delete this one."
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the parts of a store depend on, as it was written."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
        if int(manifest["images_per_part"]) > 0 <= int(manifest["images"]):
            return manifest
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        pass
    raise ValueError(
        f"{folder} holds no extraction, or its manifest.json is damaged: choose another folder, or "
        "delete this one."
    )


def read(folder: str | os.PathLike[str]) -> Dataset:
    """Open a finished store; ``.to_table()`` or ``.to_batches()`` give the order of the paths."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    files = [str(path) for path in sorted(folder.glob("part-*.parquet"))]
    parts = math.ceil(manifest["images"] / manifest["images_per_part"])
    if len(files) != parts:
        raise ValueError(f"{folder} has {len(files)} of {parts} parts: run `extract` again.")
    return dataset(files)


def features_of(table: pa.Table) -> np.ndarray:
    """Features of a table of a store as a matrix of shape (n, D)."""
    flat = table["features"].combine_chunks().flatten()
    return flat.to_numpy().reshape(table.num_rows, -1)


def search(
    client: Client, estimator: Any, grid: Any, images: Any, labels: Any, **params: Any
) -> GridSearchCV:
    """Fit a `GridSearchCV` whose fits run on the workers.

    Give the CLIPFeatures a `cache_dir` that all workers see, and every image is encoded once.
    """
    with joblib.parallel_config(backend="dask", client=client):
        return GridSearchCV(estimator, grid, **params).fit(images, labels)
