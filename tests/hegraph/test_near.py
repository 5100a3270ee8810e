"""Near classes are those with a probability worth mentioning; the others keep their sum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from skhegraph import HeGraphClassifier
from skhegraph.hegraph import adaptation, near
from skhegraph.hegraph.adaptation import fused, training_logits
from skhegraph.hegraph.fusion import fit_fusion
from skhegraph.hegraph.near import near_classes
from skhegraph.hegraph.visual import VisualModel
from skhegraph.support import Support, unit_rows


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_near_classes_and_the_sum_of_the_others(
    dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    logits = (5 * rng.normal(size=(4, 30)) - 900).astype(dtype)
    y = np.array([3, 3, 8, int(logits.max(axis=0).argmin())])
    whole = near_classes(logits.copy(), y)
    assert np.array_equal(whole.logits, logits) and np.isneginf(whole.others).all()
    monkeypatch.setattr(near, "ALL_NEAR", 29)
    got = near_classes(logits.copy(), y)
    proba = softmax(logits.astype(np.float64), axis=1)
    wanted = {c for c in range(30) if (proba[:, c] / proba.max(axis=1)).max() > 1e-3} | set(y)
    assert set(got.classes) == wanted and len(wanted) < 30
    np.testing.assert_array_equal(got.classes[got.own], y)
    np.testing.assert_array_equal(got.logits, logits[:, got.classes])
    far = np.setdiff1d(np.arange(30), got.classes)
    np.testing.assert_allclose(got.others, logsumexp(logits[:, far], axis=1), rtol=1e-6)
    monkeypatch.setattr(near, "LEAST_RATIO", 0.0)
    assert np.isneginf(near_classes(logits.copy(), y).others).all()


@pytest.mark.parametrize("all_near", [500, 0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_training_logits_lie_between_seen_and_held_out(
    all_near: int, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    text, y = unit_rows(rng.normal(size=(6, 12))), np.repeat(np.arange(6), 3)
    X = unit_rows(text[y] + 0.4 * rng.normal(size=(18, 12)))
    support = Support(X, y, rng.uniform(0.5, 1, 18), text, -text, 20.0)
    model = VisualModel(support, text)
    rows = np.arange(18)
    fusion = fit_fusion(model, 20 * X @ text.T, np.ones(18), rows)
    share = np.mean(1 / np.maximum(support.shots, 1))
    seen = fusion.discriminant.linear()(X)
    visual = (1 - share) * seen + share * fusion.discriminant.leave_one_out(rows)
    want = fusion.text * 20 * X @ text.T + fusion.visual * visual
    np.testing.assert_allclose(
        fused(support, fusion)(X), fusion.text * 20 * X @ text.T + fusion.visual * seen, rtol=1e-9
    )
    monkeypatch.setattr(near, "ALL_NEAR", all_near)
    if dtype is np.float32:
        monkeypatch.setattr("skhegraph.parallel.LOGITS_IN_DOUBLE", 0)
    for block in (slice(0, 5), slice(5, 18)):
        got = training_logits(support, fusion)(block)
        assert got.logits.dtype == dtype
        np.testing.assert_allclose(
            got.logits, want[block][:, got.classes], rtol=1e-4 if dtype is np.float32 else 1e-9
        )


def test_with_very_many_shots_the_absence_of_a_row_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    text, y = rng.normal(size=(4, 10)), np.repeat(np.arange(4), 400)
    X = text[y] + 1.5 * rng.normal(size=(1600, 10))
    proba, shifts = [], []
    received = adaptation.received
    monkeypatch.setattr(
        adaptation, "received", lambda *args: shifts.append(args[3].size) or received(*args)
    )
    for many in (400, 399):
        monkeypatch.setattr(adaptation, "MANY_SHOTS", many)
        proba.append(HeGraphClassifier(text_features=text).fit(X, y).predict_proba(X))
    assert shifts == [16_000, 0]
    assert 0 < np.abs(proba[1] - proba[0]).max() < 2e-3
