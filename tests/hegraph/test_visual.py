"""Visual nodes and discriminant against explicit Gaussian algebra and refits without a row."""

from __future__ import annotations

import numpy as np
import pytest

from skhegraph.hegraph.visual import Discriminant, VisualModel, along, text_share
from skhegraph.support import Support, in_span, unit_rows

D = 5


def make_support(shots: list[int], seed: int = 0, width: int = D) -> tuple[Support, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(shots)), shots)
    text = unit_rows(rng.normal(size=(len(shots), width)))
    centres = text + 0.4 * rng.normal(size=text.shape)
    X = unit_rows(centres[y] + 0.5 * rng.normal(size=(len(y), width)))
    return Support(X, y, np.ones(len(y)), text, -text, 100.0), text


def omega_of(discriminant: Discriminant) -> np.ndarray:
    H = discriminant.prior_root()
    return H @ H.T


def covariance_of(discriminant: Discriminant) -> np.ndarray:
    W = discriminant.whitener()
    return np.linalg.inv(W.T @ W)


def explicit(model: VisualModel, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
    """Posterior class means by the full Kronecker system, and the covariance `s S`."""
    support, messages = model.support, model.messages
    means, shots, width = support.visual, support.shots, support.X.shape[1]
    n, text = len(support.y), model.text
    R = support.X - means[support.y]
    scatter, df = R.T @ R, n - len(shots)
    predicted = messages.centre + messages.positive_to_visual * text
    with_text = bool(text.any())
    share = min(1.0, len(shots) / n) if with_text or df == 0 else 0.0
    middle = np.linalg.inv(messages.prior() + np.diag(messages.noise / shots))
    scatter = scatter + share * messages.noise * (means - predicted).T @ middle @ (
        means - predicted
    )
    covariance = (scatter + shrinkage * messages.noise * np.eye(width)) / (
        df + share * len(shots) + shrinkage * width
    )
    S = covariance / np.trace(covariance)
    omega = S
    if with_text:
        V = means - means.mean(axis=0)
        E = V - messages.positive_to_visual * text
        explained = 1 - np.trace(E @ text.T @ text @ E.T) / np.trace(V @ text.T @ text @ V.T)
        w = min(2 * max(explained, 0), 0.5)
        omega = (1 - w) * S + w * text.T @ text / np.trace(text.T @ text)
    if np.ptp(shots) == 0:
        prior = np.kron(messages.prior(), omega)
        noise = np.kron(np.diag(messages.noise / shots), S)
        gain = prior @ np.linalg.inv(prior + noise)
        moved = (gain @ (means - predicted).ravel()).reshape(means.shape)
        return predicted + moved, covariance
    # Direction by direction, where S and Omega are diagonal: what is shared, then what is not.
    values, axes = np.linalg.eigh(S)
    white = axes / np.sqrt(values) @ axes.T
    gammas, Q = np.linalg.eigh(white @ omega @ white)
    left = (means - predicted) @ white @ Q
    own, noise = messages.freedom, messages.noise / shots
    shared_prior = messages.prior() - own * np.eye(len(shots))
    for j, gamma in enumerate(gammas):
        part = np.mean((own * gamma + noise) / (own + noise))
        inverse = np.linalg.inv(gamma * shared_prior + part * np.diag(own + noise))
        shared = gamma * shared_prior @ inverse @ left[:, j]
        kept = own * gamma / (own * gamma + noise)
        left[:, j] = shared + kept * (left[:, j] - shared)
    return predicted + left @ Q.T @ np.linalg.inv(white), covariance


def assert_close(got: np.ndarray, want: np.ndarray, exact: bool) -> None:
    """Equal but for rounding where shots are equal, else within a tenth of the range."""
    scale = np.abs(want).max() * 1e-6 if exact else 0.1 * np.ptp(want)
    assert np.abs(got - want).max() <= scale


@pytest.mark.parametrize(
    "shots", [[1] * 4, [3] * 4, [1, 6, 2, 9], [2] * 9, [1] * 9, [1, 3, 2] * 3], ids=str
)
@pytest.mark.parametrize("with_text", [True, False])
@pytest.mark.parametrize("shrinkage", [0.1, 1.0])
def test_nodes_and_logits_equal_explicit_algebra(
    shots: list[int], with_text: bool, shrinkage: float
) -> None:
    support, text = make_support(shots)
    model = VisualModel(support, text if with_text else None)
    discriminant = model.at(shrinkage)
    V, covariance = explicit(model, shrinkage)
    np.testing.assert_allclose(discriminant.visual_nodes(), V, atol=1e-8)
    Z = unit_rows(np.random.default_rng(5).normal(size=(6, D)))
    inverse = np.linalg.inv(covariance)
    want = np.array([[-(z - v) @ inverse @ (z - v) / 2 for v in V] for z in Z])
    got = discriminant.linear()(Z)
    centre = lambda L: L - L.mean(axis=1, keepdims=True)  # noqa: E731
    np.testing.assert_allclose(centre(got), centre(want), rtol=1e-6, atol=1e-6)


def test_text_share_by_hand_and_of_other_classes() -> None:
    text = np.array([[1.0, 0.0], [-1.0, 0.0]])
    means = np.array([[2.0, 5.0], [-2.0, 5.0]])
    # Along the text 2 and -2, of which rho = 1/5 leaves 1.8: e = 1 - .81, w = 2 e = .38.
    assert text_share(means, text, means - 0.2 * text) == pytest.approx(0.38)
    assert text_share(means, text, means - text) == 0.5  # a half at most
    assert text_share(means, text, means + text) == 0.0  # never below 0
    assert text_share(np.ones((2, 2)), text, np.ones((2, 2))) == 0.0  # equal means
    support, text = make_support([2] * 8, width=20)
    right = VisualModel(support, text)
    assert right.text_share == 0.5
    wrong = VisualModel(support, np.roll(text, 1, axis=0))
    assert wrong.text_share < 0.1
    assert wrong.at(1.0).rest > 0.9


def test_along_the_text_is_the_same_from_either_side() -> None:
    rng = np.random.default_rng(0)
    A, text = rng.normal(size=(7, 5)), rng.normal(size=(7, 5))
    want = np.square((A - A.mean(axis=0)) @ text.T).sum()
    assert along(A, text) == pytest.approx(want)  # more classes than features
    assert along(A[:4], text[:4]) == pytest.approx(
        np.square((A[:4] - A[:4].mean(axis=0)) @ text[:4].T).sum()
    )


@pytest.mark.parametrize("with_text", [True, False])
@pytest.mark.parametrize("shots", [[3, 4, 3, 5], [3] * 4, [2, 3] * 4, [3] * 8], ids=str)
@pytest.mark.parametrize("weights", ["equal", "unequal"])
def test_leave_one_out_is_the_documented_removal(
    weights: str, shots: list[int], with_text: bool
) -> None:
    """Own node by the full system without the row, covariance without its part within the class."""
    support, text = make_support(shots)
    if weights == "unequal":
        weight = np.random.default_rng(1).uniform(0.5, 1.5, len(support.y))
        support = Support(support.X, support.y, weight, support.positive, support.negative, 1.0)
    model = VisualModel(support, text if with_text else None)
    shrinkage = 0.5
    discriminant = model.at(shrinkage)
    messages = model.messages
    predicted = messages.centre + messages.positive_to_visual * model.text
    R = np.sqrt(support.sample_weight)[:, None] * (support.X - support.visual[support.y])
    S = covariance_of(discriminant) / discriminant.noise  # unit trace
    for i in (0, 5, len(support.y) - 1):
        kept = np.arange(len(support.y)) != i
        X, y, w = support.X[kept], support.y[kept], support.sample_weight[kept]
        k, c = np.bincount(y, weights=w), support.y[i]
        means = np.stack(
            [np.average(X[y == j], axis=0, weights=w[y == j]) for j in range(len(shots))]
        )
        prior = np.kron(messages.prior(), omega_of(discriminant))
        noise = np.kron(np.diag(messages.noise / k), S)
        gain = prior @ np.linalg.inv(prior + noise)
        own = predicted + (gain @ (means - predicted).ravel()).reshape(means.shape)
        V = discriminant.visual_nodes()
        V[c] = own[c]
        removed = R.T @ R
        rest = np.sqrt(w)[:, None] * (X - means[y])
        covariance = discriminant.noise * S - (removed - rest.T @ rest) / discriminant.df
        inverse = np.linalg.inv(covariance)
        want = np.array([-(support.X[i] - v) @ inverse @ (support.X[i] - v) / 2 for v in V])
        got = discriminant.leave_one_out(np.array([i]))[0]
        exact = not with_text or np.ptp(support.shots) < 1e-9
        assert_close(got - got.mean(), want - want.mean(), exact)


@pytest.mark.parametrize("light", [1.0, 1e-10])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_rows_at_once_equal_one_by_one(
    dtype: type, light: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes of one row, of a heavy and a light one, and of several, in one block."""
    support, text = make_support([1, 6, 2, 3, 2, 1])
    weight = np.where(np.arange(len(support.y)) == 7, light, 1.0)
    support = Support(support.X, support.y, weight, text, text, 1.0)
    discriminant = VisualModel(support, text).at(0.3)
    rows = np.random.default_rng(0).permutation(len(support.y))
    want = np.vstack([discriminant.leave_one_out(rows[i : i + 1]) for i in rows])
    if dtype is np.float32:
        monkeypatch.setattr("skhegraph.parallel.LOGITS_IN_DOUBLE", 0)
    got = VisualModel(support, text).at(0.3).leave_one_out(rows[rows])
    assert got.dtype == dtype
    np.testing.assert_allclose(got, want, rtol=1e-4 if dtype is np.float32 else 1e-11)


@pytest.mark.parametrize("shots", [[3, 4, 2], [3, 3, 3]], ids=str)
def test_held_out_nodes_are_those_of_a_fit_without_the_row(shots: list[int]) -> None:
    """`V' + shift` by the full system without the row, other classes left alone."""
    support, text = make_support(shots)
    discriminant = VisualModel(support, text).at(0.5)
    model, messages = discriminant.model, discriminant.model.messages
    shift = discriminant.held_out_shift(np.arange(9))
    S = covariance_of(discriminant) / discriminant.noise
    for i in range(9):
        kept, c = np.arange(9) != i, support.y[i]
        X, y = support.X[kept], support.y[kept]
        means = np.stack([X[y == j].mean(axis=0) for j in range(3)])
        predicted = messages.centre + messages.positive_to_visual * model.text
        prior = np.kron(messages.prior(), omega_of(discriminant))
        noise = np.kron(np.diag(messages.noise / np.bincount(y)), S)
        moved = prior @ np.linalg.solve(prior + noise, (means - predicted).ravel())
        want = predicted[c] + moved.reshape(3, D)[c]
        got = discriminant.visual_nodes()[c] + shift[i]
        assert_close(got, want, exact=shots == [3, 3, 3])


@pytest.mark.parametrize("n_classes", [4, 9])
def test_least_share_is_that_of_the_direction_with_least(n_classes: int) -> None:
    support, text = make_support([2] * n_classes)
    discriminant = VisualModel(support, text).at(1.0)
    H = discriminant.prior_root()
    W = discriminant.whitener() * np.sqrt(discriminant.noise)
    gamma = np.linalg.eigvalsh(W @ H @ H.T @ W.T)
    prior, noise = discriminant.model.messages.prior(), discriminant.model.messages.noise / 2
    gain = gamma[0] * prior @ np.linalg.inv(gamma[0] * prior + noise * np.eye(n_classes))
    np.testing.assert_allclose(discriminant.least_share(), gain.diagonal() / 2, rtol=1e-8)


def test_leave_one_out_at_one_shot_leaves_what_the_others_say() -> None:
    support, text = make_support([1, 1, 1, 1, 1])
    model = VisualModel(support, text)
    discriminant = model.at(1.0)
    messages, keep = model.messages, np.array([0, 1, 3, 4])
    prior = messages.prior()
    predicted = messages.centre + messages.positive_to_visual * model.text
    L = (support.X - predicted)[keep]
    precision = np.linalg.inv(prior[np.ix_(keep, keep)] + messages.noise * np.eye(4))
    scatter = messages.noise * (L.T @ precision @ L)  # what class 2 adds between classes is gone
    inverse = np.linalg.inv((scatter + messages.noise * np.eye(D)) / discriminant.df)
    V = discriminant.visual_nodes()
    cross = np.kron(prior[2:3, keep], omega_of(discriminant))
    S = covariance_of(discriminant) / discriminant.noise
    inner = np.kron(prior[np.ix_(keep, keep)], omega_of(discriminant))
    inner += np.kron(messages.noise * np.eye(4), S)
    V[2] = predicted[2] + cross @ np.linalg.solve(inner, L.ravel())
    want = np.array([-(support.X[2] - v) @ inverse @ (support.X[2] - v) / 2 for v in V])
    got = discriminant.leave_one_out(np.array([2]))[0]
    np.testing.assert_allclose(got - got.mean(), want - want.mean(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("with_text", [True, False])
def test_the_span_of_rows_and_text_is_enough(with_text: bool) -> None:
    support, text = make_support([2, 3, 1], width=40)
    inside, basis = in_span(support)
    assert basis.shape[0] == 9 < 40
    full = VisualModel(support, text if with_text else None).at(0.3)
    small = VisualModel(inside, inside.positive if with_text else None, n_features=40).at(0.3)
    Z = unit_rows(np.random.default_rng(3).normal(size=(7, 40)))
    np.testing.assert_allclose(small.linear()(Z @ basis.T), full.linear()(Z), atol=1e-8)
    rows = np.arange(6)
    np.testing.assert_allclose(small.leave_one_out(rows), full.leave_one_out(rows), atol=1e-8)
    np.testing.assert_allclose(small.visual_nodes() @ basis, full.visual_nodes(), atol=1e-10)


def test_a_text_that_predicts_the_images_moves_the_nodes_to_it() -> None:
    rng = np.random.default_rng(0)
    text = unit_rows(rng.normal(size=(30, 16)))
    y = np.arange(30)
    X = unit_rows(text + 0.1 * rng.normal(size=text.shape))
    truth = unit_rows(text)
    support = Support(X, y, np.ones(30), text, -text, 100.0)
    with_text = VisualModel(support, text).at(1.0).visual_nodes()
    without = VisualModel(support, None).at(1.0).visual_nodes()
    assert np.square(with_text - truth).sum() < 0.8 * np.square(without - truth).sum()


def test_equal_rows_stay_finite() -> None:
    support = Support(
        np.full((4, 3), 3**-0.5),
        np.array([0, 0, 1, 1]),
        np.ones(4),
        np.eye(2, 3),
        np.eye(2, 3),
        1.0,
    )
    for text in (None, np.eye(2, 3)):
        discriminant = VisualModel(support, text).at(0.003)
        assert np.isfinite(discriminant.linear()(support.X)).all()
        assert np.isfinite(discriminant.leave_one_out(np.arange(4))).all()
