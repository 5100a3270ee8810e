"""
Out of one machine
==================

The search runs on the workers of a Dask cluster, and so does the encoding of many images, into a
store that a killed or repeated run completes. Here the cluster is two processes on this machine and
the images are scikit-learn's digits; give `Client` the address of a scheduler, and your own files,
for the real thing. Needs ``pip install "skhegraph[cluster]"``; `skhegraph.cluster` has the details.
"""

import tempfile
from pathlib import Path

import numpy as np
from distributed import Client
from PIL import Image
from sklearn.datasets import load_digits

from skhegraph import CLIPFeatures, FewShotSplit, make_hegraph_pipeline
from skhegraph.cluster import extract, read, search

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def main() -> None:
    digits = load_digits()
    digits.images, digits.target = digits.images[:300], digits.target[:300]
    labels = np.array(NAMES)[digits.target]
    with (
        tempfile.TemporaryDirectory() as scratch,
        Client(n_workers=2, threads_per_worker=1, dashboard_address=":0") as client,
    ):
        out = Path(scratch)
        paths = [str(out / f"{i:04d}.png") for i in range(len(labels))]
        for path, image in zip(paths, digits.images, strict=True):
            Image.fromarray((image * 15).astype(np.uint8)).save(path)
        images = np.array(paths)
        support, test = next(FewShotSplit(8, n_splits=1, random_state=0).split(images, labels))

        pipeline = make_hegraph_pipeline("skhegraph-lite", cache_dir=out / "cache", random_state=0)
        grid = {"clf__visual_to_visual": [0.0, 1.0, None]}
        found = search(client, pipeline, grid, images[support], labels[support], cv=4)
        print("best parameters:", found.best_params_)

        clip = CLIPFeatures("skhegraph-lite", num_workers=1, on_error="nan")
        classifier = found.best_estimator_["clf"]
        encoded = extract(client, paths, out / "store", clip, classifier=classifier)
        again = extract(client, paths, out / "store", clip, classifier=classifier)
        print(f"{encoded} images encoded, {again} by a second run")
        table = read(out / "store").to_table()
        right = np.array(table["label"])[test] == labels[test]
        print(f"test accuracy: {np.mean(right):.3f}")


if __name__ == "__main__":
    main()
