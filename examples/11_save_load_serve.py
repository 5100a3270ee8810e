"""
Save, load, and serve without torch
===================================

A fitted classifier holds NumPy arrays and plain values. Saved, it is small; loaded, it predicts on
features with NumPy, SciPy and scikit-learn alone. So the machine that encodes images may have torch
and a GPU, and the one that answers needs neither.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import joblib
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from photographs import load_pieces

from skhegraph import FewShotSplit, make_hegraph_pipeline

images, names = load_pieces(n_per_class=8)
support, test = next(FewShotSplit(4, n_splits=1, random_state=0).split(images, names))
model = make_hegraph_pipeline("skhegraph-lite")
model.fit([images[i] for i in support], names[support])

# %%
# The whole pipeline
# ------------------
# The image tower is not saved: the loaded pipeline reads its weights again when it first needs
# them. Load only files that you trust: joblib, like pickle, runs what they say.

scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name)
joblib.dump(model, folder / "pipeline.joblib")
loaded = joblib.load(folder / "pipeline.joblib")
queries = [images[i] for i in test]
proba = model.predict_proba(queries)
print(f"pipeline: {(folder / 'pipeline.joblib').stat().st_size / 1e3:.0f} kB")
print("same probabilities after loading:", np.array_equal(loaded.predict_proba(queries), proba))

# %%
# The classifier alone, in a process without torch
# ------------------------------------------------
# ``pip install skhegraph`` brings torch along. A machine that only predicts from features does
# without: ``pip install -r serve_without_torch.txt`` (a file beside this one: NumPy, SciPy,
# scikit-learn, joblib), then ``pip install --no-deps skhegraph``. That made an environment of
# 292 MB, where torch with CUDA takes more than 6 GB; ``robustness/serve_without_torch.sh`` makes it
# and compares the answers.
#
# The process below stops at any import of torch, torchvision, open_clip, torch_geometric or
# Pillow. It loads the classifier, predicts, and reports how long it took.

SERVER = """
import sys, time
start = time.perf_counter()
HEAVY = {"torch", "torchvision", "open_clip", "torch_geometric", "PIL"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ImportError(name + " is not installed here")

model_file, queries_file, out, bare = sys.argv[1:]
if bare == "bare":
    sys.meta_path.insert(0, Absent())
import joblib, numpy as np
proba = joblib.load(model_file).predict_proba(joblib.load(queries_file))
assert bare != "bare" or not HEAVY & set(sys.modules)
np.save(out, proba)
print(time.perf_counter() - start)
"""


def serve(model, queries, kind):
    """Predict in a new process; return the probabilities and the seconds it took."""
    joblib.dump(model, folder / "model.joblib")
    joblib.dump(queries, folder / "queries.joblib")
    files = [str(folder / name) for name in ("model.joblib", "queries.joblib", "proba.npy")]
    command = [sys.executable, "-c", SERVER, *files, kind]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return np.load(folder / "proba.npy"), float(done.stdout)


features = model["clip"].transform(queries)
served, light = serve(model["clf"], features, "bare")
print(f"classifier: {(folder / 'model.joblib').stat().st_size / 1e3:.0f} kB")
print("same probabilities without torch:", np.allclose(served, proba, atol=1e-6))
_, full = serve(model, queries[:1], "full")

# %%
# Two other formats
# -----------------
# skops needs no pickle: it loads a file only where you trust the classes that it names. Trust those
# you expect, not whatever a file asks for. ONNX needs no Python on the other
# side; it is one linear layer and a softmax (``pip install "skhegraph[onnx]"``). Of the whole
# pipeline ``to_onnx`` writes the image tower too: NumPy, Pillow and onnxruntime (176 MB, without
# skhegraph) then turn images into names; the same script shows how.

try:
    import skops.io
except ImportError:
    print("skops is not installed: pip install skops")
else:
    skops.io.dump(model["clf"], folder / "classifier.skops")
    unknown = skops.io.get_untrusted_types(file=folder / "classifier.skops")
    print("skops has to trust:", unknown)
    trusted = ["skhegraph.hegraph.classifier.HeGraphClassifier"]
    again = skops.io.load(folder / "classifier.skops", trusted=trusted)
    print("same after skops:", np.array_equal(again.coef_, model["clf"].coef_))

try:
    import onnxruntime

    from skhegraph.export import to_onnx
except ImportError:
    print('onnxruntime is not installed: pip install "skhegraph[onnx]"')
else:
    to_onnx(model["clf"], folder / "classifier.onnx")
    session = onnxruntime.InferenceSession(folder / "classifier.onnx")
    (answer,) = session.run(None, {"features": features})
    print(f"ONNX differs by at most {np.abs(answer - proba).max():.0e}")

# %%
# The picture
# -----------
# From the start of Python to the answer: features to names in the process without torch, one image
# to its name in the one with all of it. Seconds depend on the machine and on what else it does.

figure, ax = plt.subplots(figsize=(7, 2.4), layout="constrained")
labels = [
    "whole pipeline with torch,\n1 image",
    f"classifier without torch,\n{len(features)} images' features",
]
bars = ax.barh(labels, [full, light], color=["C0", "C2"])
ax.bar_label(bars, fmt="%.1f s", padding=3)
ax.set(xlabel="time from start to answer (s)", xlim=(0, 1.15 * max(full, light)))
ax.set_title("A new process that answers once")
out = Path(__file__).with_suffix(".png")
figure.savefig(out, dpi=120)
print(f"saved {out}")
