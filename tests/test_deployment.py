"""Where there is what examples/serve_without_torch.txt lists alone, a fitted classifier predicts.

The environment is a real one: an interpreter whose site-packages hold links to these packages as
they are installed here, to what they require, and to skhegraph. So it needs no package index, runs
the versions that the other tests run, and there is nothing else that could be imported.
"""

from __future__ import annotations

import configparser
import re
import subprocess
import venv
from importlib.metadata import distribution
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import joblib
import numpy as np
import pytest

import skhegraph

ROOT = Path(__file__).parents[1]
LISTED = (ROOT / "examples" / "serve_without_torch.txt").read_text().splitlines()
NEEDED = [line for line in LISTED if not line.startswith("#")]


def required(names: list[str]) -> set[str]:
    """Names of distributions and of all that they require without an extra."""
    found: set[str] = set()
    while names:
        name = names.pop()
        if name not in found:
            found.add(name)
            requirements = distribution(name).requires or []
            names += [
                re.split(r"[^\w.-]", line)[0] for line in requirements if "extra ==" not in line
            ]
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Interpreter of the environment."""
    folder = tmp_path_factory.mktemp("deployed")
    venv.create(folder, symlinks=True, with_pip=False)
    packages = next(folder.glob("lib/python*/site-packages"))
    for name in required([line.partition(">=")[0] for line in NEEDED]):
        there = distribution(name)
        tops = {file.parts[0] for file in there.files or [] if file.parts[0] != ".."}
        for top in tops - {"__pycache__"}:
            (packages / top).symlink_to(Path(str(there.locate_file(top))).resolve())
    (packages / "skhegraph").symlink_to(Path(skhegraph.__file__).resolve().parent)
    return folder / "bin" / "python"


def test_the_list_has_the_versions_of_the_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = config["options"]["install_requires"].split()
    assert len(NEEDED) == 4 and set(NEEDED) < set(wanted)


def test_the_environment_has_nothing_else(python):
    code = (
        "import importlib.util as u\n"
        "names = 'torch torchvision open_clip torch_geometric PIL tqdm safetensors "
        "huggingface_hub'.split()\n"
        "print([name for name in names if u.find_spec(name)])"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_fitted_classifiers_load_and_predict(python, tmp_path):
    path = Path(__file__).with_name("fixtures") / "make.py"
    spec = spec_from_file_location("make_fixtures", path)
    make = module_from_spec(spec)
    spec.loader.exec_module(make)
    models = {
        name: make.fit(estimator)
        for name, estimator in make.unfitted().items()
        if not make.takes_images(estimator)
    }
    pipeline = make.fit(make.unfitted()["pipeline"])
    models["last step"] = pipeline["clf"]
    queries = {name: make.problem()[3] for name in models}
    queries["last step"] = pipeline["clip"].transform(make.digits()[0])
    expected = {name: model.predict_proba(queries[name]) for name, model in models.items()}
    # The whole pipeline loads as well: it needs a CLIP for images, and its last step does not.
    joblib.dump((models, queries, pipeline), tmp_path / "models.joblib")
    code = (
        "import sys, joblib, numpy as np\n"
        "models, queries, pipeline = joblib.load(sys.argv[1])\n"
        "for name, model in models.items():\n"
        "    assert len(model.predict(queries[name])) == len(queries[name])\n"
        "out = {name: model.predict_proba(queries[name]) for name, model in models.items()}\n"
        "out['from the pipeline'] = pipeline[-1].predict_proba(queries['last step'])\n"
        "np.savez(sys.argv[2], **out)\n"
    )
    out = tmp_path / "out.npz"
    subprocess.run([python, "-W", "error", "-c", code, tmp_path / "models.joblib", out], check=True)
    got = np.load(out)
    assert len(got.files) == len(expected) + 1 > 10
    expected["from the pipeline"] = expected["last step"]
    for name in got.files:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
