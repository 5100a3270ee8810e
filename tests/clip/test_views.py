"""Views of images, and rows that average over them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits, load_sample_images
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skhegraph.clip.features import CLIPFeatures
from skhegraph.clip.model import load_backbone
from skhegraph.clip.views import SMALLEST_AREA, make_views


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(load_sample_images().images[0][:200, :300])


@pytest.fixture
def images() -> list[np.ndarray]:
    return list(load_digits().images[:12] / 16)


def tiny(**params) -> CLIPFeatures:
    return CLIPFeatures("skhegraph-tiny", device="cpu", **params)


def pixels(views: list[Image.Image]) -> list[bytes]:
    return [view.tobytes() for view in views]


def test_the_image_comes_first_and_its_pixels_decide_the_rest(image):
    views = make_views(image, 6)
    assert len(views) == 6 and views[0] is image
    assert len(set(pixels(views))) == 6
    assert pixels(make_views(image.copy(), 6)) == pixels(views)
    assert pixels(make_views(image, 3)) == pixels(views[:3])
    other = image.copy()
    other.putpixel((0, 0), (1, 2, 3))
    assert [view.size for view in make_views(other, 6)] != [view.size for view in views]


def test_views_are_squares_of_the_image_some_flipped(image):
    array = np.asarray(image)
    flips = 0
    for view in make_views(image, 30)[1:]:
        width, height = view.size
        assert width == height <= 200 and width**2 >= 0.98 * SMALLEST_AREA * 200**2
        windows = np.lib.stride_tricks.sliding_window_view(array[..., 0], (4, 4))
        corner = np.asarray(view)[:4, :4, 0]
        straight = (windows == corner).all(axis=(2, 3)).any()
        mirrored = (windows == corner[:, ::-1]).all(axis=(2, 3)).any()
        assert straight or mirrored
        flips += not straight
    assert 5 < flips < 25


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 1)])
def test_the_smallest_images_have_views(size):
    assert len(make_views(Image.new("RGB", size), 5)) == 5


def test_a_row_is_the_unit_mean_over_views(image):
    clip = load_backbone("skhegraph-tiny", device="cpu")
    rows = clip.encode_pixels([clip.resize(view) for view in make_views(image, 4)])
    expected = rows.mean(axis=0) / np.linalg.norm(rows.mean(axis=0))
    for batch_size in (1, 4, 64):
        X = tiny(n_views=4, batch_size=batch_size).fit_transform([image])
        assert X.dtype == np.float32
        np.testing.assert_allclose(X[0], expected, atol=1e-6)


def test_training_rows_have_views_and_others_have_not(images):
    plain = tiny().transform(images)
    np.testing.assert_array_equal(tiny().fit_transform(images), plain)
    estimator = tiny(n_views=3)
    with_views = estimator.fit_transform(images)
    assert np.abs(with_views - plain).max() > 0.01
    np.testing.assert_array_equal(estimator.transform(images), plain)
    np.testing.assert_array_equal(estimator.fit(images).transform(images), plain)
    model = make_pipeline(clone(estimator), LogisticRegression()).fit(images, [0, 1] * 6)
    by_hand = LogisticRegression().fit(with_views, [0, 1] * 6)
    np.testing.assert_allclose(model[-1].coef_, by_hand.coef_, atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(images), by_hand.predict_proba(plain), atol=1e-5)


def test_order_batches_and_company_do_not_matter(images):
    X = tiny(n_views=3).fit_transform(images)
    order = np.random.default_rng(0).permutation(len(images))
    permuted = tiny(n_views=3, batch_size=4, num_workers=3).fit_transform(
        [images[i] for i in order]
    )
    np.testing.assert_allclose(permuted, X[order], atol=1e-6)
    np.testing.assert_allclose(tiny(n_views=3).fit_transform(images[:1]), X[:1], atol=1e-6)


def test_stored_rows_are_kept_apart_by_their_views(images, tmp_path):
    cached = tiny(cache_dir=tmp_path)
    for n_views in (1, 3, 2, 3):
        plain = tiny(n_views=n_views).fit_transform(images)
        X = cached.set_params(n_views=n_views).fit_transform(images)
        np.testing.assert_allclose(X, plain, atol=1e-6)
        np.testing.assert_allclose(cached.transform(images), tiny().transform(images), atol=1e-6)


def test_unreadable_images_and_bad_numbers_of_views(images):
    X = [images[0], b"no image"]
    with pytest.warns(UserWarning, match="1 of 2 images") as caught:
        out = tiny(n_views=3, on_error="nan").fit_transform(X)
    assert np.isnan(out).all(axis=1).tolist() == [False, True]
    assert caught[0].filename == __file__
    for bad, error in ((0, ValueError), (2.5, TypeError)):
        with pytest.raises(error, match="n_views"):
            tiny(n_views=bad).transform(images)


def test_output_in_a_frame(images):
    frame = tiny(n_views=2).set_output(transform="pandas").fit_transform(images)
    assert list(frame.columns) == list(tiny().get_feature_names_out())


@pytest.mark.parametrize("size", [(1, 900), (900, 1), (3, 500), (2_001, 40), (70, 4_001)])
def test_item_16_the_middle_of_a_long_image_is_as_of_the_whole(size):
    """Issue 17.16."""
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    backbone = load_backbone("skhegraph-tiny", None, "cpu")
    whole = np.asarray(backbone._geometry(Image.fromarray(noise)), dtype=int)
    assert np.abs(backbone.resize(Image.fromarray(noise)) - whole).max() <= 2


def test_item_16_a_long_image_is_not_resized_whole(monkeypatch):
    """Issue 17.16."""
    backbone = load_backbone("skhegraph-tiny", None, "cpu")
    made = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, size, *a, **k: made.append(size) or resize(self, size, *a, **k),
    )
    for size in [(1, 20_000), (20_000, 1), (20, 1_000)]:
        assert backbone.resize(Image.new("RGB", size, "red")).shape == (64, 64, 3)
    assert made == [(64, 64)] * 3
    backbone.resize(Image.new("RGB", (100, 200)))
    assert made[3:] == [(64, 128)]


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 900), (1, 128), (40, 90)])
def test_item_16_a_long_image_and_a_model_that_reads_all_of_it(
    size, small_model, make_folder, tmp_path
):
    """Issue 17.16: it pads what is beside; open_clip's transform rounds a short side to none."""
    make_folder(tmp_path / "model", small_model, size=32, resize_mode="longest")
    backbone = load_backbone(f"local-dir:{tmp_path / 'model'}", device="cpu")
    pixels = backbone.resize(Image.new("RGB", size, (200, 100, 50)))
    assert pixels.shape == (32, 32, 3)
    inside = (pixels == [200, 100, 50]).all(axis=2)
    expected = sorted(max(1, round(length * 32 / max(size))) for length in size)
    assert sorted([inside.any(axis=0).sum(), inside.any(axis=1).sum()]) == expected
    ordinary = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (9, 40, 3), dtype=np.uint8)
    )
    np.testing.assert_array_equal(
        backbone.resize(ordinary), np.asarray(backbone._geometry(ordinary))
    )
