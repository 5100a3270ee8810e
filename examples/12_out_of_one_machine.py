"""
Out of one machine
==================

The search for hyper-parameters runs on the workers of a Dask cluster, and so does the encoding of
many images, into a store that a killed or repeated run completes. Here the cluster is two processes
on this machine; give ``Client`` the address of a scheduler, and your own files, for the real
thing. Needs ``pip install "skhegraph[cluster]"``; :mod:`skhegraph.cluster` has the details.
"""

import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from photographs import load_pieces

from skhegraph import CLIPFeatures, FewShotSplit, make_hegraph_pipeline
from skhegraph.cluster import extract, read, search

# %%
# Search, then encode
# -------------------
# Worker processes import this file again: what starts the cluster stands under the guard at its
# end. Image files, store and cache lie where all workers see them.


def run(client, folder):
    """Search, encode and classify on the workers; return the table and the true names."""
    images, names = load_pieces(n_per_class=12)
    paths = [str(folder / f"{i:04d}.png") for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        image.save(path)
    support, test = next(FewShotSplit(4, n_splits=1, random_state=0).split(paths, names))

    pipeline = make_hegraph_pipeline("skhegraph-lite", cache_dir=folder / "cache")
    grid = {"clf__visual_to_visual": [0.0, 0.3, None]}
    found = search(client, pipeline, grid, np.array(paths)[support], names[support], cv=4)
    print("best parameters:", found.best_params_)

    # The classifier travels with the tasks, the image tower is loaded once per worker. A second
    # call finds everything in place and encodes nothing.

    clip = CLIPFeatures("skhegraph-lite", num_workers=1, on_error="nan")
    classifier = found.best_estimator_["clf"]
    encoded = extract(
        client, paths, folder / "store", clip, classifier=classifier, images_per_part=32
    )
    again = extract(
        client, paths, folder / "store", clip, classifier=classifier, images_per_part=32
    )
    print(f"{encoded} images encoded, {again} by a second run")
    table = read(folder / "store").to_table()
    return table, names, test


# %%
# What lies in the store
# ----------------------
# A Parquet table: path, features, label and its probability. The picture compares the labels with
# the truth.


def draw(predicted, names):
    """Confusion of the predictions in the store."""
    from sklearn.metrics import ConfusionMatrixDisplay

    figure, ax = plt.subplots(figsize=(6.4, 6), layout="constrained")
    ConfusionMatrixDisplay.from_predictions(
        names, predicted, ax=ax, xticks_rotation=90, colorbar=False, cmap="Blues"
    )
    right = 100 * np.mean(predicted == names)
    ax.set_title(f"Encoded and classified on two workers: {right:.0f} % right")
    out = Path(__file__).with_suffix(".png")
    figure.savefig(out, dpi=120)
    print(f"saved {out}")


if __name__ == "__main__":
    from distributed import Client  # skhegraph.cluster says what to install if it is missing

    with (
        tempfile.TemporaryDirectory() as scratch,
        Client(n_workers=2, threads_per_worker=1, dashboard_address=":0") as client,
    ):
        table, names, test = run(client, Path(scratch))
        print("columns:", ", ".join(table.column_names))
        draw(np.array(table["label"])[test], names[test])
