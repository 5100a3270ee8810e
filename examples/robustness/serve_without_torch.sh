#!/usr/bin/env bash
# Serve in new environments without torch: a saved classifier, and a whole pipeline as ONNX.
#
#     examples/robustness/serve_without_torch.sh    # where "skhegraph[lite,onnx]" is installed
#
# Probabilities must be those of this environment. Prints sizes, and seconds to the first answer.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python -W ignore - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import joblib
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from skhegraph import make_hegraph_pipeline
from skhegraph.export import to_onnx

folder = Path(sys.argv[1])
photos = load_sample_images().images
pieces = [p[i : i + 210, j : j + 210] for p in photos for i in (0, 215) for j in (0, 215, 430)]
model = make_hegraph_pipeline("skhegraph-lite").fit(pieces, ["temple"] * 6 + ["flower"] * 6)
features = model["clip"].transform(pieces)
joblib.dump(model["clf"], folder / "classifier.joblib")
np.savez(folder / "features.npz", features=features, proba=model["clf"].predict_proba(features))
to_onnx(model, folder / "pipeline.onnx")
Image.fromarray(pieces[0]).save(folder / "image.png")
np.save(folder / "proba.npy", model.predict_proba([str(folder / "image.png")]))
PYTHON

cat > "$folder/classifier.py" <<'PYTHON'
import sys

import joblib
import numpy as np

given = np.load("features.npz")
proba = joblib.load("classifier.joblib").predict_proba(given["features"])
np.testing.assert_allclose(proba, given["proba"], rtol=0, atol=1e-12)
assert not {"torch", "PIL"} & sys.modules.keys()
print("features to probabilities, largest difference:", np.abs(proba - given["proba"]).max())
PYTHON

cat > "$folder/pipeline.py" <<'PYTHON'
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

SIDE = 224  # that the CLIP reads: its short side resized, its middle cropped
image = Image.open("image.png").convert("RGB")
short = min(image.size)
width, height = (int(SIDE * length / short) for length in image.size)
left, top = round((width - SIDE) / 2), round((height - SIDE) / 2)
image = image.resize((width, height), Image.Resampling.BICUBIC)
image = image.crop((left, top, left + SIDE, top + SIDE))
session = onnxruntime.InferenceSession("pipeline.onnx", providers=["CPUExecutionProvider"])
(proba,) = session.run(None, {"pixels": np.asarray(image)[None]})
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
np.testing.assert_allclose(proba, np.load("proba.npy"), rtol=0, atol=1e-5)
assert classes[proba[0].argmax()] == "temple"
assert not {"torch", "skhegraph"} & sys.modules.keys()
print("an image to its name, largest difference:", np.abs(proba - np.load("proba.npy")).max())
PYTHON

# Make an environment, of which pip itself is no part.
make() {
    python -m venv --without-pip "$folder/$1"
    add "$@"
}

# Install into it.
add() {
    env -u PYTHONPATH python -m pip --python "$folder/$1" install -q "${@:2}"
}

# Tell its size, and the time that its script takes: the first run, and the next.
measure() {
    du -sm "$folder/$1" | sed "s|\t.*| MB: environment of the $1|"
    for run in first next; do
        start=$(date +%s.%N)
        (cd "$folder" && env -u PYTHONPATH "$folder/$1/bin/python" "$1.py")
        echo "$start $(date +%s.%N)" | awk "{printf \"%.1f s to the answer, $run run\n\", \$2 - \$1}"
    done
}

make classifier -r examples/serve_without_torch.txt
mkdir "$folder/source" && cp -r skhegraph setup.cfg pyproject.toml README.md LICENSE "$folder/source"
add classifier --no-deps "$folder/source"
measure classifier
make pipeline numpy onnxruntime Pillow
measure pipeline
du -sm "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" |
    sed "s|\t.*| MB: packages of this environment|"
