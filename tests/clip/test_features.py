"""CLIPFeatures: values against open_clip by hand, input errors, and scikit-learn's contract."""

from __future__ import annotations

import inspect
import io
import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits, load_sample_images
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted

from skhegraph.clip import encoding
from skhegraph.clip import model as backbone_module
from skhegraph.clip.features import CLIPFeatures
from skhegraph.clip.model import load_backbone


def tiny(**params) -> CLIPFeatures:
    return CLIPFeatures("skhegraph-tiny", device="cpu", **params)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Eleven photographs: scikit-learn's two, and crops of them."""
    china, flower = load_sample_images().images
    crops = [
        image[i : i + 150, i : i + 200] for i in range(0, 250, 50) for image in (china, flower)
    ]
    return [china, flower, *crops[:9]]


@pytest.fixture(scope="module")
def expected(images) -> np.ndarray:
    """Their features by hand: open_clip's model and preprocessing, one image at a time."""
    clip = load_backbone("skhegraph-tiny", device="cpu")
    with torch.inference_mode():
        rows = [
            clip._model.encode_image(clip.preprocess(Image.fromarray(image))[None])[0]
            for image in images
        ]
    matrix = torch.stack(rows).double().numpy()
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def paths(images, tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("images")
    names = [str(folder / f"{i}.png") for i in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(name)
    return names


def test_values(images, expected):
    X = tiny().transform(images)
    assert X.dtype == np.float32 and X.shape == (11, 128)
    np.testing.assert_allclose(X, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 10, 11, 500])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_batch_size_and_workers_do_not_matter(images, expected, batch_size, num_workers):
    X = tiny(batch_size=batch_size, num_workers=num_workers).transform(images)
    np.testing.assert_allclose(X, expected, atol=1e-5, rtol=0)


def test_mixed_input(images, paths, expected):
    with open(paths[0], "rb") as file:
        mixed = [
            file, paths[1], Image.fromarray(images[2]), images[3],
            torch.tensor(images[4]).permute(2, 0, 1), images[5] / 255.0,
            Path(paths[6]).read_bytes(), Image.open(paths[7]),
        ]  # fmt: skip
        for _ in range(2):
            np.testing.assert_allclose(tiny().transform(mixed), expected[:8], atol=1e-5)


def test_containers(paths, expected):
    for X in (
        paths, tuple(paths), np.array(paths), np.array(paths, dtype=object)[:, None],
        pd.Series(paths), pd.DataFrame({"path": paths}), pl.Series(paths),
        pl.DataFrame({"path": paths}),
    ):  # fmt: skip
        np.testing.assert_allclose(tiny().transform(X), expected, atol=1e-5)


def test_batches_as_arrays_and_tensors():
    batch = (load_digits().images[:20] / 16).astype(np.float32)
    one_by_one = tiny().transform(list(batch))
    np.testing.assert_allclose(tiny().transform(batch[..., None]), one_by_one, atol=1e-6)
    tensor = torch.from_numpy(batch)[:, None]
    np.testing.assert_allclose(tiny().transform(tensor), one_by_one, atol=1e-6)


def test_repeated_inputs_are_encoded_once(images, paths, monkeypatch):
    decoded = []
    original = encoding.decode_image
    monkeypatch.setattr(
        encoding, "decode_image", lambda s, *args: decoded.append(s) or original(s, *args)
    )
    data = Path(paths[2]).read_bytes()
    X = [paths[0], images[1], paths[0], bytes(bytearray(data)), images[1], data]
    out = tiny().transform(X)
    assert len(decoded) == 3
    np.testing.assert_array_equal(out[[0, 1, 3]], out[[2, 4, 5]])
    assert np.abs(out[0] - out[1]).max() > 0.01


@pytest.fixture
def broken(paths, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    return [paths[0], str(tmp_path / "gone.png"), paths[1], bad, None, bad]


def test_one_error_names_every_unreadable_input(broken, monkeypatch):
    with pytest.raises(ValueError, match="4 of 6 images cannot be read") as caught:
        tiny().transform(broken)
    text = str(caught.value)
    for position, path, reason in [
        (1, broken[1], "no such file"), (3, broken[3], "cannot identify"),
        (4, "<NoneType>", "got NoneType"), (5, broken[5], "cannot identify"),
    ]:  # fmt: skip
        assert any(
            f"[{position}] {path}: " in line and reason in line for line in text.splitlines()
        ), text
    assert "[0]" not in text and "[2]" not in text


@pytest.mark.parametrize("batch_size", [1, 64])
def test_on_error_nan_keeps_the_row_count(broken, expected, batch_size):
    with pytest.warns(UserWarning, match="4 of 6 images cannot be read") as caught:
        X = tiny(on_error="nan", batch_size=batch_size).transform(broken)
    assert len(caught) == 1 and caught[0].filename == __file__
    np.testing.assert_allclose(X[[0, 2]], expected[:2], atol=1e-5)
    assert np.isnan(X[[1, 3, 4, 5]]).all() and X.dtype == np.float32
    with pytest.warns(UserWarning, match="1 of 1"):
        assert np.isnan(tiny(on_error="nan").transform([None])).all()


def test_one_unsupported_file_does_not_end_a_batch(paths, expected, tmp_path):
    unsupported = tmp_path / "texture.dds"
    header = [124, 0x1007, 4, 4, 16, 0, 0, *[0] * 11, 32, 2, 0, 8, *[0] * 9]
    unsupported.write_bytes(b"DDS " + struct.pack("<31I", *header))
    X = [paths[0], unsupported, paths[1]]
    with pytest.raises(ValueError, match=r"(?s)1 of 3 .*\[1\] .*texture.dds: DDS files"):
        tiny().transform(X)
    for params in ({}, {"cache_dir": tmp_path / "cache"}):
        with pytest.warns(UserWarning) as caught:
            out = tiny(on_error="nan", **params).transform(X)
        assert len(caught) == 1
        text = str(caught[0].message)
        assert "texture.dds" in text and text.endswith(
            "Their rows are NaN: HeGraphClassifier leaves them out of fit, and predicts its "
            "unknown_label for them, which must be set."
        )
        np.testing.assert_allclose(out[[0, 2]], expected[:2], atol=1e-5)
        assert np.isnan(out[1]).all()


def test_interrupts_and_bugs_propagate():
    class File(io.BytesIO):
        def __init__(self, error):
            super().__init__()
            self.error = error

        def read(self, *args):
            raise self.error

    for error in (KeyboardInterrupt, AttributeError):
        with pytest.raises(error):
            tiny(on_error="nan").transform([File(error)])


@pytest.mark.parametrize("method", ["fit", "transform", "fit_transform"])
def test_bad_containers_and_parameters(method, paths):
    with pytest.raises(TypeError, match="wrap it in a list"):
        getattr(tiny(), method)(paths[0])
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        getattr(tiny(), method)([])
    for params, error, message in [
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"batch_size": 2.5}, TypeError, "batch_size"),
        ({"num_workers": 0}, ValueError, "num_workers"),
        ({"on_error": "ignore"}, ValueError, "on_error must be 'raise' or 'nan'"),
        ({"device": "gpu"}, ValueError, "device must be"),
        ({"model_name": "skhegraph-tony"}, ValueError, "skhegraph-tiny"),
    ]:
        with pytest.raises(error, match=message):
            getattr(tiny().set_params(**params), method)(paths)


def jpeg(image, side) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).resize((side * 3 // 2, side), Image.Resampling.BICUBIC).save(
        file, "JPEG"
    )
    return file.getvalue()


def test_large_jpeg_files_are_drafted_unless_switched_off(images):
    files = [jpeg(image, 512) for image in images]  # 64 pixels are read: the least that is drafted
    clip = load_backbone("skhegraph-tiny", device="cpu")
    whole = np.stack([clip.resize(Image.open(io.BytesIO(file))) for file in files])
    expected = clip.encode_pixels(list(whole))
    np.testing.assert_array_equal(tiny(draft=False).transform(files), expected)
    drafted = tiny().transform(files)
    cosines = np.einsum("ij,ij->i", drafted, expected)
    assert cosines.min() > 0.999 and np.abs(drafted - expected).max() > 1e-5
    smaller = [jpeg(images[0], 510)]
    np.testing.assert_array_equal(tiny().transform(smaller), tiny(draft=False).transform(smaller))


def test_a_store_keeps_drafted_and_whole_files_apart(images, tmp_path):
    files = [jpeg(images[0], 600)]
    for draft in (True, False):
        stored = tiny(draft=draft, cache_dir=tmp_path).transform(files)
        np.testing.assert_array_equal(stored, tiny(draft=draft).transform(files))
    with pytest.raises(TypeError, match="draft must be True or False, got 2"):
        tiny(draft=2).transform(files)


def test_verbose_shows_a_bar(images, capsys):
    tiny(verbose=1).transform(images)
    assert "11/11" in capsys.readouterr().err
    tiny().transform(images)
    assert not capsys.readouterr().err


# The contract of a scikit-learn transformer


@parametrize_with_checks([CLIPFeatures("skhegraph-tiny")])
def test_common_checks(estimator, check):
    check(estimator)


def test_parameters_are_stored_as_they_are():
    pretrained = object()
    estimator = CLIPFeatures(pretrained=pretrained, batch_size="x", device=3)
    assert estimator.pretrained is pretrained
    names = set(inspect.signature(CLIPFeatures).parameters)
    assert set(estimator.get_params()) == names == set(vars(estimator))
    assert (CLIPFeatures().model_name, CLIPFeatures().pretrained) == (
        "ViT-B-32", "laion2b_s34b_b79k",
    )  # fmt: skip


def test_clone_and_set_params(images):
    estimator = tiny(batch_size=3).fit(images)
    copy = clone(estimator)
    assert copy.get_params() == estimator.get_params() and not hasattr(copy, "n_features_out_")
    assert copy.set_params(batch_size=5) is copy and copy.batch_size == 5


def test_stateless(images):
    estimator = tiny()
    before = dict(vars(estimator))
    X = estimator.transform(images)
    assert vars(estimator) == before
    check_is_fitted(estimator)
    assert estimator.fit(images) is estimator
    np.testing.assert_array_equal(estimator.transform(images), X)
    assert vars(estimator) == {**before, "n_features_out_": 128}


def test_idempotent_and_fit_transform(images):
    X = tiny().fit_transform(images)
    np.testing.assert_array_equal(tiny().fit(images, y=None).transform(images), X)
    np.testing.assert_array_equal(tiny().fit_transform(images, list("abcdefghijk")), X)


def test_subset_and_order_invariance(images):
    X = tiny(batch_size=4).transform(images)
    order = np.random.default_rng(0).permutation(len(images))
    permuted = tiny(batch_size=4).transform([images[i] for i in order])
    np.testing.assert_allclose(permuted, X[order], atol=1e-6)
    single = np.concatenate([tiny().transform([image]) for image in images])
    np.testing.assert_allclose(single, X, atol=1e-6)


def test_read_only_input(images):
    batch = np.stack([image[:100, :100] for image in images])
    batch.setflags(write=False)
    copy = batch.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny().transform(batch)
    np.testing.assert_array_equal(batch, copy)


def test_feature_names():
    names = tiny().get_feature_names_out()
    assert names.dtype == object and len(names) == 128
    assert (names[0], names[99], names[127]) == ("clip000", "clip099", "clip127")
    assert list(names) == sorted(names)


def test_set_output(images):
    X = tiny().transform(images)
    frame = tiny().set_output(transform="pandas").fit_transform(images)
    assert list(frame.columns) == list(tiny().get_feature_names_out())
    np.testing.assert_array_equal(frame.to_numpy(), X)
    with_index = pd.DataFrame({"image": pd.Series(images, index=range(5, 16), dtype=object)})
    frame = tiny().set_output(transform="pandas").transform(with_index)
    assert list(frame.index) == list(range(5, 16))
    frame = tiny().set_output(transform="polars").transform(images)
    assert isinstance(frame, pl.DataFrame) and frame.columns[5] == "clip005"
    np.testing.assert_array_equal(frame.to_numpy(), X)
    with config_context(transform_output="pandas"):
        assert isinstance(tiny().transform(images), pd.DataFrame)


def test_pickle_holds_no_weights_and_loads_nothing(images, monkeypatch):
    estimator = tiny(batch_size=7).fit(images)
    data = pickle.dumps(estimator)
    assert len(data) < 1000
    monkeypatch.setattr(
        backbone_module, "load_backbone", lambda *a: pytest.fail("loaded the model")
    )
    again = pickle.loads(data)
    assert again.get_params() == estimator.get_params()
    assert len(again.get_feature_names_out()) == 128
    repr(again), again._repr_html_(), clone(again)


def test_tags():
    tags = get_tags(tiny())
    assert not tags.input_tags.two_d_array and not tags.requires_fit and tags.no_validation


def test_in_a_pipeline_and_a_column_transformer(paths):
    labels = np.array(["china", "flower"])[[0, 1] + [0, 1] * 4 + [0]]
    pipeline = make_pipeline(tiny(), LogisticRegression(C=100))
    assert pipeline.fit(paths, labels).score(paths, labels) == 1
    frame = pd.DataFrame({"path": paths, "size": np.arange(11.0)})
    for column in ("path", ["path"]):
        columns = ColumnTransformer([("clip", tiny(), column)], remainder="passthrough")
        columns.set_output(transform="pandas")
        X = columns.fit_transform(frame)
        assert X.shape == (11, 129) and X.columns[0] == "clip__clip000"


def test_constructing_imports_and_loads_nothing():
    code = (
        "import sys, pickle; from sklearn.base import clone;"
        "from skhegraph.clip.features import CLIPFeatures;"
        "e = CLIPFeatures(); clone(e); pickle.loads(pickle.dumps(e)); repr(e);"
        "print({'torch', 'open_clip', 'torchvision', 'PIL', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_shared_image_features(shared_data):
    archives = [
        path
        for path in sorted((shared_data / "features").glob("*.npz"))
        if "train_files" in np.load(path)  # others are of another CLIP
    ]
    assert archives
    for archive in archives:
        data = np.load(archive)
        for part in ("train", "test"):
            folder = shared_data / "images" / archive.stem
            X = tiny().transform([folder / str(name) for name in data[f"{part}_files"]])
            # Half a unit in the last place of a float16 below 1 is 2.4e-4.
            np.testing.assert_allclose(X, data[f"{part}_features"], atol=2.5e-4, rtol=0)


@pytest.mark.parametrize("images", [["typo.jpg"], ["typo.jpg", b"no image", None]])
def test_item_14_all_unreadable_with_a_store_is_as_without(images, tmp_path):
    """Issue 17.14."""
    plain = CLIPFeatures("skhegraph-tiny", device="cpu")
    stored = CLIPFeatures("skhegraph-tiny", device="cpu", cache_dir=tmp_path / "store")
    messages = []
    for clip in (plain, stored):
        with pytest.raises(ValueError, match="images cannot be read") as got:
            clip.transform(images)
        messages.append(str(got.value))
        with pytest.warns(UserWarning, match="images cannot be read"):
            rows = clip.set_params(on_error="nan").transform(images)
        assert rows.shape == (len(images), 128) and np.isnan(rows).all()
    assert messages[0] == messages[1]


def test_item_34_five_thousand_unreadable_files_make_a_short_message(images, tmp_path):
    """Issue 17.34."""
    missing = [f"{'x' * 5_000}-{i}.jpg" for i in range(5_000)]
    for params in ({}, {"cache_dir": tmp_path}):
        with pytest.raises(ValueError, match=r"5000 of 5001 images") as got:
            tiny(**params).transform([images[0], *missing])
        with pytest.warns(UserWarning, match=r"5000 of 5001 images") as warned:
            tiny(on_error="nan", **params).transform([images[0], *missing])
        for text in (str(got.value), str(warned[0].message)):
            assert len(text) < 20_000 and len(text.splitlines()) == 1 + 20 + 1 + 1
            assert "[1] x" in text and "[20] x" in text and "... and 4980 more." in text

    class Named(io.BytesIO):
        name = "y" * 5_000

    with pytest.raises(ValueError, match="1 of 1 images") as got:
        tiny().transform([Named(b"no image")])
    assert len(str(got.value)) < 1_000
    with pytest.raises(ValueError, match="X has 900 columns") as got:
        tiny().transform(pd.DataFrame(np.zeros((1, 900))))
    assert len(str(got.value)) < 300


def png16(values) -> bytes:
    """A PNG file of 16 bits a value, grey or RGB, written by hand."""
    height, width, channels = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_item_34_twelve_bits_of_sixteen_are_told_of(channels, tmp_path):
    """Issue 17.34."""
    values = np.random.default_rng(0).integers(0, 4096, (8, 9, channels), dtype=np.uint16)
    if channels == 4:
        values[..., 3] = 65535
    values[0, 0, 0] = 4095
    twelve, full = png16(values), png16(values << 4)
    sources = [twelve, full, png16(values * 0)]
    if channels == 1:
        array = values[..., 0]
        sources += [array, array << 4, Image.open(io.BytesIO(twelve)), array >> 4]
    for params in ({}, {"cache_dir": tmp_path}):
        with pytest.warns(UserWarning, match="come out near black") as warned:
            X = tiny(**params).transform(sources)
        assert len(warned) == 1 and warned[0].filename == __file__
        named = [line.split("]")[0] for line in str(warned[0].message).splitlines()[1:-1]]
        assert named == ["  [0", "  [2"] + (["  [3", "  [5"] if channels == 1 else [])
        assert "[0] <bytes" in str(warned[0].message) and "4095 of 65535" in str(warned[0].message)
        assert np.isfinite(X).all()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tiny(**params).transform(sources[1:2])
            if params:  # as documented: told of when they are encoded
                np.testing.assert_array_equal(tiny(**params).transform(sources), X)
