"""Images in containers and classes of other packages, and inputs that only look like a path."""

from __future__ import annotations

import collections
import collections.abc
import io
import os
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

from skhegraph.clip.digests import read_image
from skhegraph.clip.features import CLIPFeatures
from skhegraph.clip.images import ImageDecodeError, as_image_list, decode_image


def pixels(source) -> np.ndarray:
    return np.asarray(decode_image(source))


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


class OtherTensor(torch.Tensor):
    """As other packages subclass it."""

    __module__ = "monai.data.meta_tensor"


def test_tensors_of_any_class_layout_and_width_of_float(rgb):
    """Issue 17.24: subclasses of other packages, sparse and float8 tensors."""
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    small = torch.tensor([0.0, 0.25, 1.0]).view(3, 1, 1).expand(3, 2, 2)
    for source in (tensor.as_subclass(OtherTensor), tensor.to_sparse()):
        np.testing.assert_array_equal(pixels(source), rgb)
    batch = as_image_list(torch.stack([tensor, tensor]).as_subclass(OtherTensor))
    np.testing.assert_array_equal(pixels(batch[1]), rgb)
    unequal = as_image_list(torch.nested.nested_tensor([small, small[:, :1]]))
    assert [pixels(image).shape for image in unequal] == [(2, 2, 3), (1, 2, 3)]
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        np.testing.assert_array_equal(pixels(small.to(dtype))[0, 0], [0, 64, 255])
    negative = torch.complex(small, -small).conj()  # a view with the sign turned
    np.testing.assert_array_equal(pixels(negative.imag)[0, 0], [0, 64, 255])


@pytest.mark.filterwarnings("ignore")
def test_tensors_without_pixels_are_unreadable_images():
    """Issue 17.24: also under `on_error="nan"`, which this exception is what it goes by."""
    image = torch.rand(3, 4, 4)
    for source in (
        image.to("meta"),
        torch.quantize_per_tensor(image, 0.1, 0, torch.quint8),
        torch.zeros(3, 4, 4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        torch.nested.nested_tensor([image]),
        image.to(torch.complex64),
    ):
        with pytest.raises(ImageDecodeError):
            decode_image(source)


class Photographs(collections.abc.Sequence):
    """As image data sets of other packages are."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def test_containers_of_other_packages(rgb, tmp_path):
    """Issue 17.24: sequences, tables and arrays of pyarrow, dictionaries of bytes or path."""
    data = encoded(Image.fromarray(rgb))
    path = tmp_path / "a.png"
    path.write_bytes(data)
    records = [
        {"bytes": data, "path": None},
        {"bytes": None, "path": str(path)},
        {"path": str(path)},
        {"bytes": data, "path": "in-an-archive.png"},
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for X in (
        Photographs([data, rgb]),
        collections.deque([data, rgb]),
        records,
        pa.array([data, data]),
        pa.chunked_array([[str(path)], [str(path)]]),
        pa.table({"image": [data, data]}),
        pa.table({"image": pa.array(records, kind)}),
        pa.RecordBatch.from_pydict({"image": [data, data]}),
        pd.Series(records),
    ):
        items = as_image_list(X)
        assert len(items) == len(X)
        for item in items:
            np.testing.assert_array_equal(pixels(item), rgb)
    np.testing.assert_array_equal(pixels(records[1]), rgb)
    with pytest.raises(ValueError, match=r"2 columns \(image, label\)"):
        as_image_list(pa.table({"image": [data], "label": [1]}))
    with pytest.raises(TypeError, match=r"a single dict; wrap it in a list"):
        as_image_list(records[0])
    with pytest.raises(ImageDecodeError, match=r"got dict, expected .* a dictionary of bytes or"):
        decode_image({"bytes": None, "path": None})


class BrokenPath(os.PathLike):
    def __fspath__(self):
        raise RuntimeError("not mounted")


def test_a_path_that_raises_is_one_unreadable_image(rgb, tmp_path):
    """Issue 17.24: with a store and without one."""
    images = [rgb, BrokenPath(), rgb]
    message = r"1 of 3 images cannot be read:\s+\[1\] .*BrokenPath>: it raised RuntimeError: not"
    for cache_dir in (None, tmp_path):
        clip = CLIPFeatures("skhegraph-tiny", device="cpu", cache_dir=cache_dir)
        with pytest.raises(ValueError, match=message):
            clip.transform(images)
        with pytest.warns(UserWarning, match=message):
            X = clip.set_params(on_error="nan").transform(images)
        np.testing.assert_array_equal(np.isnan(X).all(axis=1), [False, True, False])


def test_odd_files_and_views_of_memory(rgb, tmp_path):
    """Issue 17.24: each is read, or is one unreadable image with a reason that is true."""
    content = io.BytesIO()
    Image.fromarray(rgb).save(content, "PNG")
    data = content.getvalue()

    class Reads:
        def __init__(self, what):
            self.read = (lambda: what) if what != 5 else 5
            self.shape = 5  # of no array

    twice = memoryview(bytes(np.repeat(np.frombuffer(data, np.uint8), 2)))[::2]
    for source in (twice, Reads(bytearray(data)), Reads(data)):
        np.testing.assert_array_equal(decode_image(source), rgb)
    released = memoryview(data)
    released.release()
    odd = {
        "<memoryview>: it raised ValueError: .*released": released,
        r"<Reads>: its read\(\) gave NoneType, expected bytes": Reads(None),
        "<Reads>: the file is open in text mode": Reads("text"),
        "<Reads>: got .*Reads, expected a path": Reads(5),
        r"'a\\nb.png': no such file": "a\nb.png",
        "~/a.png: no such file: '~' is not expanded": "~/a.png",
    }
    for cache_dir in (None, tmp_path):
        clip = CLIPFeatures("skhegraph-tiny", device="cpu", cache_dir=cache_dir)
        for message, source in odd.items():
            with pytest.raises(ValueError, match=message):
                clip.transform([data, source])
        with pytest.warns(UserWarning, match="6 of 7 images cannot be read"):
            X = clip.set_params(on_error="nan").transform([data, *odd.values()])
        assert np.isnan(X).all(axis=1).tolist() == [False] + 6 * [True]


def test_what_to_do_with_what_is_no_path(tmp_path):
    """Issue 17.28."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", b"")
    inside = zipfile.Path(tmp_path / "a.zip", "a.png")
    with pytest.raises(ImageDecodeError, match=r"got zipfile.Path.*its bytes, path.read_bytes\(\)"):
        decode_image(inside)
    for url, how in (("s3://bucket/a.png", "fsspec.open"), ("https://a.org/a.png", "urllib")):
        with pytest.raises(ImageDecodeError, match=f"nothing is fetched: .*{how}"):
            decode_image(url)
    read = io.BytesIO(b"content")
    read.read()
    with pytest.raises(ImageDecodeError, match=r"at its end \(position 7\).*file.seek\(0\)"):
        decode_image(read)
    with pytest.raises(ImageDecodeError, match="at its end"):
        read_image(read)
