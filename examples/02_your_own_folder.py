"""
Your own folder: from files to names, and to the ones it gets wrong
===================================================================

The usual case is a folder with one subfolder per class, in which the operating system has left
files of its own. This example writes such a folder, learns from half of it, names the rest, shows
the three likeliest names of one photo, and lists the files that it gets wrong. With your own
folder, start at the second step.
"""

import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from photographs import load_pieces, show_pieces
from PIL import Image
from sklearn.metrics import classification_report
from sklearn.model_selection import train_test_split

from skhegraph import load_image_folder, make_hegraph_pipeline

# %%
# A folder as one finds it
# ------------------------
# Subfolders are named with underscores; ``.DS_Store``, ``Thumbs.db`` and the copies of a notebook
# server lie among the images, and some extensions are in upper case.

scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name) / "photos"
images, labels = load_pieces(n_per_class=16)
for number, (image, label) in enumerate(zip(images, labels, strict=True)):
    subfolder = folder / label.replace(" ", "_")
    subfolder.mkdir(parents=True, exist_ok=True)
    image.save(subfolder / f"{number:03d}.{'Jpg' if number % 2 else 'webp'}", quality=92)
(folder / ".ipynb_checkpoints").mkdir()
images[0].save(folder / ".ipynb_checkpoints" / "000-checkpoint.jpg")
(folder / "cat" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
(folder / "temple" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")

# %%
# Read the folder
# ---------------
# The names of the subfolders become the names of the classes: spaces for underscores, since they
# go into prompts. A warning would name files that are left out and not hidden.

paths, names = load_image_folder(folder)
print(f"{len(paths)} images of {len(set(names))} classes")

# %%
# Learn from half, name the rest
# ------------------------------
# ``stratify`` gives every class its share. ``cache_dir`` keeps the features on disk: a second run
# with other settings encodes nothing again.

train, test, y_train, y_test = train_test_split(
    paths, names, train_size=0.5, stratify=names, random_state=0
)
model = make_hegraph_pipeline("skhegraph-lite", cache_dir=Path(scratch.name) / "features")
model.fit(train, y_train)
proba = model.predict_proba(test)
predicted = model.classes_[proba.argmax(axis=1)]
print(classification_report(y_test, predicted, zero_division=0))

# %%
# One photo, three names
# ----------------------
# The columns of ``predict_proba`` are in the order of ``classes_``.

least_sure = proba.max(axis=1).argmin()
print(f"{Path(test[least_sure]).relative_to(folder)} is")
for c in np.argsort(-proba[least_sure])[:3]:
    print(f"  {model.classes_[c]:>14}  {100 * proba[least_sure, c]:5.1f} %")

# %%
# What it gets wrong
# ------------------
# The list to look at first: often it is the label that is wrong, or the photo shows two things.

wrong = np.flatnonzero(predicted != y_test)
print(f"{len(wrong)} of {len(test)} are wrong:")
for i in wrong:
    path = Path(test[i]).relative_to(folder)
    print(f"  {path!s:24} predicted {predicted[i]} ({100 * proba[i].max():.0f} %)")

# %%
# Left, the three names of the least certain photo; right, the misclassified ones, the surest
# mistakes first.

surest = wrong[np.argsort(-proba[wrong].max(axis=1))][:10]
figure, axes = plt.subplot_mosaic(
    [["photo", "bars", "wrong"]],
    figsize=(12, 3.0),
    width_ratios=[1.7, 1.7, 6],
    layout="constrained",
)
axes["photo"].imshow(plt.imread(test[least_sure]))
axes["photo"].set(xticks=[], yticks=[], xlabel=f"truly: {y_test[least_sure]}")
axes["photo"].set_title("The least certain")
top = np.argsort(proba[least_sure])[-3:]
axes["bars"].barh(range(3), 100 * proba[least_sure, top], color="C2")
axes["bars"].set_yticks(range(3), model.classes_[top])
axes["bars"].set(xlabel="probability (%)", xlim=(0, 100))
show_pieces(
    axes["wrong"],
    [Image.open(path) for path in test[surest]],
    [f"{y_test[i]}\ntaken for {predicted[i]}" for i in surest],
    n_columns=5,
)
axes["wrong"].set_title(f"Misclassified: {len(wrong)} of {len(test)}")
out = Path(__file__).with_suffix(".png")
figure.savefig(out, dpi=120)
print(f"saved {out}")
