"""Saved and loaded, fitted or not: the same answer to the last bit, and old pickles load."""

from __future__ import annotations

import io
import pickle
import warnings
from copy import deepcopy
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pytest
import skops.io
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline

import skhegraph
from skhegraph import CLIPFeatures, FewShotSplit
from skhegraph.clip import model as backbone
from skhegraph.versioned import InconsistentVersionWarning, VersionedEstimator

FIXTURES = Path(__file__).with_name("fixtures")


def load_make():
    spec = spec_from_file_location("make_fixtures", FIXTURES / "make.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = load_make()
NAMES = list(make.unfitted())


@pytest.fixture(scope="module")
def fitted():
    with warnings.catch_warnings():  # the tiny CLIP does not know scikit-learn's digits
        warnings.filterwarnings("ignore", ".*better than chance.*")
        return {name: make.fit(estimator) for name, estimator in make.unfitted().items()}


def by_joblib(estimator):
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    return joblib.load(file)


def by_skops(estimator):
    """Trusting nothing but our own classes."""
    data = skops.io.dumps(estimator)
    types = skops.io.get_untrusted_types(data=data)
    assert all(name.startswith("skhegraph.") for name in types), types
    return skops.io.loads(data, trusted=types)


TOOLS = {
    "pickle": lambda estimator: pickle.loads(pickle.dumps(estimator)),
    "oldest pickle": lambda estimator: pickle.loads(pickle.dumps(estimator, protocol=2)),
    "joblib": by_joblib,
    "cloudpickle": lambda estimator: pickle.loads(cloudpickle.dumps(estimator)),
    "skops": by_skops,
    "deepcopy": deepcopy,
}


@pytest.mark.filterwarnings("ignore:.*better than chance")
@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", NAMES)
def test_fitted_estimators(name, tool, fitted):
    again = TOOLS[tool](fitted[name])
    np.testing.assert_array_equal(make.answer(again), make.answer(fitted[name]))
    assert type(again) is type(fitted[name])
    if name != "CLIPFeatures":
        assert again.classes_.tolist() == fitted[name].classes_.tolist()
    assert vars(again).keys() == vars(fitted[name]).keys()


@pytest.mark.filterwarnings("ignore:.*better than chance")
@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", NAMES)
def test_unfitted_estimators(name, tool, fitted):
    again = TOOLS[tool](make.unfitted()[name])
    assert repr(again) == repr(clone(fitted[name]))
    if name != "CLIPFeatures":
        with pytest.raises(NotFittedError):
            make.answer(again)
    np.testing.assert_array_equal(make.answer(make.fit(again)), make.answer(fitted[name]))


@pytest.mark.parametrize("tool", TOOLS)
def test_splits(tool):
    y = np.repeat([0, 1], 6)
    splits = FewShotSplit(2, n_splits=3, random_state=0)
    for (train, test), (again, rest) in zip(
        splits.split(y, y), TOOLS[tool](splits).split(y, y), strict=True
    ):
        assert train.tolist() == again.tolist() and test.tolist() == rest.tolist()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "CLIPFeatures"])
def test_a_device_that_is_not_there_is_not_needed_to_predict(name, fitted):
    clf = fitted[name]["clf"] if name == "pipeline" else fitted[name]
    if "device" not in clf.get_params():
        return
    moved = deepcopy(clf).set_params(device="cuda:7")
    Z = np.random.default_rng(0).normal(size=(5, clf.n_features_in_))
    for tool in TOOLS.values():
        np.testing.assert_array_equal(tool(moved).predict_proba(Z), clf.predict_proba(Z))


def test_a_transformer_says_which_device_is_not_there(fitted):
    moved = deepcopy(fitted["CLIPFeatures"]).set_params(device="cuda:7")
    again = pickle.loads(pickle.dumps(moved))
    with pytest.raises(ValueError, match=r"device='cuda:7'.*use 'auto' or 'cpu'"):
        make.answer(again)
    again.set_params(device="auto")
    np.testing.assert_array_equal(make.answer(again), make.answer(fitted["CLIPFeatures"]))


def test_no_weights_are_saved_and_none_are_loaded(fitted, monkeypatch):
    data = {name: pickle.dumps(estimator) for name, estimator in fitted.items()}
    assert len(data["CLIPFeatures"]) < 1000
    assert max(map(len, data.values())) < 100_000
    monkeypatch.setattr(backbone, "load_backbone", lambda *args: pytest.fail("loaded"))
    for name in NAMES:
        again = pickle.loads(data[name])
        if not make.takes_images(again):
            make.answer(again)


# Versions


def estimators_of(estimator):
    return [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]


@pytest.mark.parametrize("name", NAMES)
def test_another_version_is_warned_of(name, fitted, monkeypatch):
    assert all(isinstance(step, VersionedEstimator) for step in estimators_of(fitted[name]))
    data = pickle.dumps(fitted[name])
    monkeypatch.setattr("skhegraph.versioned.__version__", "99.0")
    with pytest.warns(InconsistentVersionWarning, match="saved by skhegraph 0.*loaded by 99.0"):
        again = pickle.loads(data)
    np.testing.assert_array_equal(make.answer(again), make.answer(fitted[name]))


def test_a_pickle_without_a_version_is_warned_of():
    estimator = CLIPFeatures.__new__(CLIPFeatures)
    with pytest.warns(InconsistentVersionWarning, match="saved by skhegraph unknown"):
        estimator.__setstate__(vars(CLIPFeatures("skhegraph-tiny")))
    assert estimator.get_params() == CLIPFeatures("skhegraph-tiny").get_params()


VERSIONS = sorted(path.parent.name for path in FIXTURES.glob("*/answers.npz"))


def test_there_are_pickles_of_this_version():
    assert skhegraph.__version__ in VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_pickles_of_each_version_load_and_answer_as_recorded(version):
    answers = np.load(FIXTURES / version / "answers.npz")
    files = sorted((FIXTURES / version).glob("*.pickle"))
    assert {file.stem for file in files} == set(answers.files)
    for file in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of versions, also scikit-learn's
            estimator = pickle.loads(file.read_bytes())
        got = make.answer(estimator)
        tolerance = 1e-5 if make.takes_images(estimator) else 1e-10
        np.testing.assert_allclose(got, answers[file.stem], atol=tolerance, err_msg=file.stem)
