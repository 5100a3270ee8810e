"""Items of several photographs: their rows by hand, what is cached, and what is no such item."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_predict, train_test_split

from skhegraph import CLIPFeatures, make_hegraph_pipeline
from skhegraph.clip import encoding
from skhegraph.clip.feature_cache import FeatureStore
from skhegraph.clip.items import Items, one_image_each, split_items


def tiny(**params) -> CLIPFeatures:
    return CLIPFeatures("skhegraph-tiny", device="cpu", **params)


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[str]:
    """Six files."""
    folder = tmp_path_factory.mktemp("items")
    names = [str(folder / f"{i}.png") for i in range(6)]
    for name, image in zip(names, load_digits().images, strict=False):
        Image.fromarray((image * 15).astype(np.uint8)).save(name)
    return names


def by_hand(rows: np.ndarray, *, of: list[list[int]]) -> np.ndarray:
    """Unit means of some rows each, in double precision."""
    means = np.stack([rows[some].astype(np.float64).mean(axis=0) for some in of])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


RAGGED = [[0, 1, 2], [3], [4, 5], [0, 0, 5]]


@pytest.mark.parametrize("n_views", [1, 3])
def test_the_row_of_an_item_is_the_unit_mean_of_its_photographs(paths, n_views):
    clip = tiny(n_views=n_views)
    X = [[paths[i] for i in some] for some in RAGGED]
    rows = clip.fit_transform(paths)
    out = clip.fit_transform(X)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, by_hand(rows, of=RAGGED), atol=1e-6)
    np.testing.assert_array_equal(clip.transform([[path] for path in paths]), clip.transform(paths))
    mixed = clip.fit_transform([X[0], paths[3], tuple(X[2])])
    np.testing.assert_array_equal(mixed, out[:3])
    np.testing.assert_array_equal(mixed[1], rows[3])  # one alone, to the last bit


def test_containers_of_items(paths):
    X = [paths[:3], paths[3:4], paths[4:]]
    want = tiny().transform(X)
    arrays = np.empty(3, dtype=object)
    arrays[:] = [np.array(item) for item in X]
    pictures = [[np.asarray(Image.open(path)) for path in item] for item in X]
    tensors = [[torch.from_numpy(image.copy()) for image in item] for item in pictures]
    records = [[{"path": path} for path in item] for item in X]
    for given in (
        tuple(map(tuple, X)), pd.Series(X), pd.DataFrame({"photos": X}), pl.Series(X),
        pl.DataFrame({"photos": X}), pa.array(X), arrays, pictures, tuple(map(tuple, pictures)),
        tensors, records,
    ):  # fmt: skip
        np.testing.assert_allclose(tiny().transform(given), want, atol=1e-6)


def test_a_tuple_of_arrays_and_a_batch_are_items_of_one_photograph(paths):
    pictures = [np.asarray(Image.open(path)) for path in paths]
    rows = tiny().transform(paths)
    np.testing.assert_allclose(tiny().transform(tuple(pictures)), rows, atol=1e-6)
    batch = np.stack(pictures)[..., None]
    np.testing.assert_allclose(tiny().transform(batch), rows, atol=1e-6)
    items = split_items(list(batch))
    assert len(items) == 6 and not items.several.any()


def test_batches_are_full_and_each_photograph_is_stored_by_itself(paths, tmp_path, monkeypatch):
    sizes = []
    encode = encoding.Encoding._encode
    monkeypatch.setattr(
        encoding.Encoding, "_encode", lambda self, new: sizes.append(len(new)) or encode(self, new)
    )
    clip = tiny(batch_size=4, cache_dir=tmp_path)
    first = clip.transform([paths[:3], paths[3:5]])
    assert sizes == [4, 1]
    with FeatureStore(tmp_path) as store:
        assert len(store) == 5
    again = clip.transform([paths[4:2:-1], paths[5], paths[2::-1]])
    assert sizes == [4, 1, 1]
    np.testing.assert_allclose(again[[2, 0]], first, atol=1e-7)


# --- what cannot be read --------------------------------------------------------------------------


def test_an_item_keeps_the_photographs_that_can_be_read(paths):
    rows = tiny().transform(paths)
    X = [[paths[0], "gone.png", paths[1]], [None, "lost.png"], ["gone.png", paths[2]], paths[3]]
    with pytest.raises(ValueError, match=r"4 of 8 images \(of 4 items\) cannot be read") as caught:
        tiny().transform(X)
    named = re.findall(r"^  (\S+) (\S+): ", str(caught.value), re.MULTILINE)
    assert named == [
        ("[0][1]", "gone.png"),
        ("[1][0]", "<NoneType>"),
        ("[1][1]", "lost.png"),
        ("[2][0]", "gone.png"),
    ]
    with pytest.warns(UserWarning) as caught:
        out = tiny(on_error="nan").transform(X)
    assert len(caught) == 1 and caught[0].filename == __file__
    message = str(caught[0].message)
    assert "[1][1] lost.png: no such file" in message
    assert "keep the images that can be read; without one is row 1, NaN: HeGraphClass" in message
    np.testing.assert_allclose(out[[0, 2, 3]], by_hand(rows, of=[[0, 1], [2], [3]]), atol=1e-6)
    np.testing.assert_array_equal(out[2:], rows[2:4])
    assert np.isnan(out[1]).all()
    with pytest.warns(UserWarning) as caught:
        out = tiny(on_error="nan").transform(X[:1])
    assert str(caught[0].message).endswith("can be read, and each has one.")
    assert np.isfinite(out).all()


@pytest.mark.parametrize("method", ["fit", "transform"])
@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ([["a.png"], []], ValueError, r"X\[1\] holds no image: give one"),
        ([["a.png"], ()], ValueError, r"X\[1\] holds no image"),
        ([(np.zeros((8, 8)), 3)], TypeError, r"X\[0\] holds a number \(int\) at 1: .*for image, l"),
        ([("a.png", np.int64(3))], TypeError, r"X\[0\] holds a number \(int64\) at 1"),
        ([(b"a", torch.tensor(3))], TypeError, r"X\[0\] holds a number \(Tensor\) at 1"),
        ([(b"a", True)], TypeError, r"X\[0\] holds a number \(bool\) at 1"),
        ([[0.1, 0.2], [0.3, 0.4]], TypeError, r"X\[0\] holds a number \(float\) at 0"),
        ([[[0, 0], [0, 0]]], TypeError, r"X\[0\]\[0\] is a list within a list: .*numpy.asarray"),
        ([["a.png", ["b.png"]]], TypeError, r"X\[0\]\[1\] is a list within a list"),
        (
            np.array([["a.png", "b.png"]]),
            TypeError,
            r"2-D ndarray.*list of images, or of li",
        ),
        (pd.DataFrame({"a": [["a.png"]], "b": ["c"]}), ValueError, r"2 columns \(a, b\)"),
    ],
)
def test_what_is_no_item(method, X, error, message):
    """Also with `on_error="nan"`: the structure is wrong, not an image."""
    with pytest.raises(error, match=message):
        getattr(tiny(on_error="nan"), method)(X)


def test_what_is_no_item_but_looks_like_one(paths):
    """A dictionary of other keys is one unreadable photograph, and a name of a class a path."""
    X = [[paths[0], {"image": paths[1]}], (paths[0], "cat")]
    with pytest.raises(
        ValueError, match=r"(?s)2 of 4 .*\[0\]\[1\] <dict>: got dict.*\[1\]\[1\] cat: no"
    ):
        tiny().transform(X)


def test_labels_are_of_items(paths):
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[2, 3\]"):
        tiny().fit([paths[:2], paths[2:]], [0, 1, 1])


# --- in scikit-learn ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*better than chance")
def test_ragged_items_in_folds_and_searches():
    digits = load_digits()
    of = [np.flatnonzero(digits.target == c)[:30] for c in range(3)]
    items, labels = [], []
    for c, rows in enumerate(of):
        for k in range(8):
            items.append([digits.images[i] / 16 for i in rows[3 * k : 3 * k + 1 + k % 3]])
            labels.append(["zero", "one", "two"][c])
    pipe = make_hegraph_pipeline("skhegraph-tiny")
    found = cross_val_predict(pipe, items, labels, cv=4)
    rows = pipe["clip"].transform(items)
    want = cross_val_predict(pipe["clf"], rows, labels, cv=4)
    assert found.tolist() == want.tolist()
    assert np.mean(found == labels) > 0.6
    train, test, names, truth = train_test_split(items, labels, random_state=0, stratify=labels)
    search = GridSearchCV(pipe, {"clf__penalty": [1.0, 3.0]}, cv=2).fit(train, names)
    assert search.score(test, truth) > 0.6
    as_series = cross_val_predict(pipe, pd.Series(items), labels, cv=4)
    assert as_series.tolist() == found.tolist()


# --- Items ----------------------------------------------------------------------------------------


def test_index_names_what_was_given():
    items = split_items(["a", ["b", "c"], ["d"], "e"])
    assert [items.index(i) for i in range(5)] == ["[0]", "[1][0]", "[1][1]", "[2][0]", "[3]"]
    assert items.photographs == list("abcde") and len(items) == 4


def test_opposite_rows_have_no_direction():
    items = Items(["a", "b"], np.array([0]), np.array([True]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = items.unit_means(np.array([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32))
    assert row.tolist() == [[0.0, 0.0]]


def test_one_image_each(tmp_path: Path):
    assert one_image_each((tmp_path, "a"), "images") == [tmp_path, "a"]
    with pytest.raises(TypeError, match=r"images\[1\] is a list of .*images=\[item\[0\] for item"):
        one_image_each(["a", ["b"]], "images")
