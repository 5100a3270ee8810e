"""The picture shows what the frame says, and the frame is that of the classifier."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from skhegraph.hegraph.evidence import PARTS
from skhegraph.hegraph.evidence import explain as explain_features
from skhegraph.inspection import ExplanationDisplay, explain


def test_pipeline_gives_the_frame_of_its_classifier(pipeline, photographs):
    pieces = photographs[0][4:6]
    expected = explain_features(pipeline["clf"], pipeline["clip"].transform(pieces), 2, 1)
    found = explain(pipeline, pieces, n_classes=2, n_support=1)
    pd.testing.assert_frame_equal(found, expected)
    assert list(found["class"][::2]) == list(pipeline.predict(pieces))


def test_the_length_of_a_row_changes_nothing(make_classifier):
    clf = make_classifier()
    X = clf.support_features_[[0, 9]]
    frame = explain(clf, X)
    top = frame[frame["rank"] == 1]
    np.testing.assert_allclose(top["probability"], clf.predict_proba(X).max(axis=1))
    pd.testing.assert_frame_equal(explain(clf, 7 * X), frame)


def test_bars_are_the_evidence(make_classifier):
    clf = make_classifier()
    display = ExplanationDisplay.from_estimator(clf, clf.support_features_[[0, 9]], n_classes=4)
    for query, panels in enumerate(display.axes_):
        frame = display.explanation[display.explanation["query"] == query]
        bars = panels["evidence"].containers
        assert [bar.get_label() for bar in bars] == list(PARTS)
        for bar, part in zip(bars, PARTS, strict=True):
            np.testing.assert_allclose([p.get_width() for p in bar.patches], frame[part])
        # What speaks for a class is stacked to the right, what speaks against it to the left.
        ends = np.array([[p.get_x() + p.get_width() for p in bar.patches] for bar in bars])
        ends = np.vstack([ends, np.zeros(len(frame))])
        parts = frame[list(PARTS)].to_numpy()
        np.testing.assert_allclose(ends.max(axis=0), parts.clip(min=0).sum(axis=1), atol=1e-12)
        np.testing.assert_allclose(ends.min(axis=0), parts.clip(max=0).sum(axis=1), atol=1e-12)
        labels = [t.get_text() for t in panels["evidence"].get_yticklabels()]
        top = frame.iloc[0]
        assert labels[0] == f"{top['class']}  {100 * top['probability']:.0f} %"


def test_images_are_those_named(pipeline, photographs):
    pieces = photographs[0]
    support = [pieces[i] for i in (0, 1, 2, 3, 6, 7, 8, 9)]
    display = ExplanationDisplay.from_estimator(
        pipeline, pieces[4:5], support_images=support, n_support=2
    )
    (panels,) = display.axes_
    rows = display.explanation["support"][0]
    assert len(panels["support"]) == len(rows) == 2
    for panel, row in zip(panels["support"], rows, strict=True):
        assert panel.get_xlabel() == f"row {row}"
        shown = panel.images[0].get_array()
        assert shown.shape == (160, 160, 3)  # thumbnails of 210 pixels
        assert abs(float(shown.mean()) - support[row].mean()) < 1
    assert abs(float(panels["query"].images[0].get_array().mean()) - pieces[4].mean()) < 1
    assert display.ax_.figure is display.figure_


def test_features_without_images_are_drawn_with_empty_frames(make_classifier):
    clf = make_classifier()
    display = ExplanationDisplay.from_estimator(clf, clf.support_features_[:1])
    assert not display.axes_[0]["query"].images
    assert display.images is None and display.support_images is None


@pytest.mark.parametrize(("shots", "said"), [(4, "of all rows"), (65, "of the kept rows")])
def test_the_picture_says_among_which_rows_it_sought(make_classifier, shots, said):
    """Issue 17.6."""
    clf = make_classifier(2, shots=shots)
    display = ExplanationDisplay.from_estimator(clf, clf.support_features_[:1])
    assert any(said in text.get_text() for text in display.ax_.texts)


def test_given_axes_are_used(make_classifier):
    import matplotlib.pyplot as plt

    clf = make_classifier()
    figure, axes = plt.subplots(1, 2)
    display = ExplanationDisplay.from_estimator(clf, clf.support_features_[:1], ax=axes[1])
    assert display.ax_ is axes[1] and display.figure_ is figure
    figure.canvas.draw()


def test_too_few_support_images_are_refused(pipeline, photographs):
    pieces = photographs[0]
    with pytest.raises(ValueError, match="support_images holds 1 images"):
        ExplanationDisplay.from_estimator(pipeline, pieces[4:5], support_images=pieces[:1])


def test_items_of_several_photographs(photographs, pipeline):
    pieces, _ = photographs
    items = [pieces[4:6], pieces[10:12]]
    frame = explain(pipeline, items, n_classes=1)
    want = explain(pipeline["clf"], pipeline[:-1].transform(items), n_classes=1)
    assert frame.equals(want)
    with pytest.raises(TypeError, match=r"images\[0\] is a list of photographs"):
        ExplanationDisplay.from_estimator(pipeline, items)
    first = [item[0] for item in items]
    assert len(ExplanationDisplay.from_estimator(pipeline, items, images=first).axes_) == 2
