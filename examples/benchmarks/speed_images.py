"""From image files to features, searches and clusters: sections of speed.py."""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from timing import image_files, median_time, peak_memory, report, time_once

from skhegraph import CLIPFeatures, HeGraphClassifier, make_hegraph_pipeline
from skhegraph.clip.model import load_backbone

PATHS = {
    "visual_to_positive": [0.0, 0.1, 0.24, 0.5],
    "negative_to_positive": [0.0, 0.1, 0.2],
    "positive_to_positive": [0.0, 0.06],
}


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


SECTIONS = {"features": features_section, "search": search_section}
