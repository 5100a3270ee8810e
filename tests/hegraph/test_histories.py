"""However images come, a stream has the answer of one fit on all that were given."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skhegraph import HeGraphClassifier

LABELS = np.array(list("abcde"))
TEXT = np.random.default_rng(1).normal(size=(5, 12))
SOURCES = {
    "mapping": lambda n: dict(zip(LABELS, TEXT, strict=True)),
    "array": lambda n: TEXT[:n],
    "prototypes": lambda n: "prototypes",
}


@st.composite
def histories(draw: st.DrawFn) -> dict[str, Any]:
    """Batches with rows of weight 0, unreadable rows, new classes and classes that are named."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    source = draw(st.sampled_from(["array", "array", "mapping", "prototypes"]))
    batches = []
    for _ in range(draw(st.integers(1, 4))):
        n_classes = draw(st.integers(2, 5))
        codes = rng.integers(0, n_classes, rng.integers(1, 6))
        X = TEXT[codes] + 0.3 * rng.normal(size=(len(codes), 12))
        X[rng.random(len(codes)) < 0.15] = np.nan
        weight = rng.choice([0.0, 0.0, 0.0, 1.0, 2.5], len(codes))
        named = None
        if source != "prototypes" and draw(st.booleans()):
            some = rng.integers(0, n_classes, draw(st.sampled_from([0, 9])))
            named = sorted({*LABELS[codes].tolist(), *LABELS[some].tolist()})
        batches.append((X, LABELS[codes], named, weight))
    n_texts = len(set(batches[0][1]))  # an array holds those, and too few once a new class comes
    return {"text": SOURCES[source](n_texts), "batches": batches}


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories(), weight=st.sampled_from([None, "balanced"]))
@pytest.mark.filterwarnings("ignore:NaN throughout", "ignore:.*better than chance")
def test_a_stream_is_a_fit_on_all_that_were_given(history: Any, weight: Any) -> None:
    """Issue 17.1 and 17.9."""
    clf = HeGraphClassifier(text_features=history["text"], class_weight=weight)
    whole = HeGraphClassifier(text_features=history["text"], class_weight=weight)
    taken, named = [], set()
    for batch in history["batches"]:
        before = dict(vars(clf))
        try:
            clf.partial_fit(*batch)
        except ValueError:
            assert vars(clf) == before  # a batch that is refused leaves nothing
            continue
        taken.append(batch)
        named |= set(batch[2] or ())
    if not taken:
        return
    X, y, weights = (np.concatenate([batch[i] for batch in taken]) for i in (0, 1, 3))
    with_rows = set(y[(weights > 0) & np.isfinite(X[:, 0])])
    if named and set(y) - with_rows - named:  # fit asks to name these, which makes classes of them
        if not isinstance(history["text"], dict):
            return
        counts = np.isin(y, [*with_rows, *named])
        X, y, weights = X[counts], y[counts], weights[counts]
    classes = sorted(named | with_rows) if named else None
    whole.fit(X, y, weights, classes=classes)
    assert clf.classes_.tolist() == whole.classes_.tolist()
    queries = TEXT + 0.3
    np.testing.assert_allclose(
        clf.predict_proba(queries), whole.predict_proba(queries), rtol=0, atol=1e-9
    )
    order = np.random.default_rng(0).permutation(len(y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole.fit(X[order], y[order], weights[order], classes=classes)
    np.testing.assert_allclose(
        clf.predict_proba(queries), whole.predict_proba(queries), rtol=0, atol=1e-9
    )


def test_a_label_of_weight_zero_is_no_class_whenever_others_are_named() -> None:
    """Issue 17.1, the kind: it became one where a class had a name alone at the time."""
    text = dict(zip(LABELS, TEXT, strict=True))
    rows = TEXT + 0.01
    named = (rows[[0, 2]], ["a", "c"], ["a", "c", "d"], [1.0, 1.0])
    without = (rows[[0, 1]], ["a", "b"], None, [1.0, 0.0])
    for batches in ([named, without], [without, named]):
        clf = HeGraphClassifier(text_features=text)
        if batches[0] is without:  # of one class alone
            clf.partial_fit(rows[[2]], ["c"], classes=["a", "c"])
        for batch in batches:
            clf.partial_fit(*batch)
        assert clf.classes_.tolist() == ["a", "c", "d"]
        assert clf.labels_seen_.tolist() == ["a", "b", "c", "d"]
