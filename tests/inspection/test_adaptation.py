"""What adaptation moved: numbers worked by hand, and nodes of a fitted classifier."""

from __future__ import annotations

import numpy as np
import pytest

from skhegraph.inspection import AdaptationDisplay


def test_movement_worked_by_hand():
    before = np.array([[2.0, 0, 0], [-2, 0, 0]])
    after = np.array([[1.0, 0, 0], [-2, 1, 0]])
    text = np.array([[0.0, 0, 0], [-1, 0, 0]])
    display = AdaptationDisplay(before, after, text, ["a", "b"])
    np.testing.assert_allclose(display.moved, [0.5, 0.5])  # 1 of a spread of 2
    np.testing.assert_allclose(display.toward_text, [1, 0], atol=1e-12)
    assert AdaptationDisplay(before, after, None, ["a", "b"]).toward_text is None


def test_nodes_of_a_fitted_classifier(make_classifier):
    clf = make_classifier(6, positive_to_visual=0.7)
    display = AdaptationDisplay.from_estimator(clf)
    np.testing.assert_allclose(display.before, clf.graph_["visual"])
    np.testing.assert_allclose(display.after, clf.visual_nodes_)
    P = clf.graph_["positive"].astype(float)
    np.testing.assert_allclose(
        display.text - display.text.mean(axis=0), 0.7 * (P - P.mean(axis=0)), atol=1e-7
    )
    assert display.toward_text.mean() > 0.3  # on the whole, towards the text


@pytest.mark.filterwarnings("error")
def test_a_class_with_a_name_alone_stays(make_classifier):
    clf = make_classifier(4)
    X, y = clf.support_features_, clf.classes_[clf.support_labels_]
    text = np.vstack([clf.graph_["positive"], np.ones(12)])
    clf.set_params(text_features=text, positive_to_visual=0.5, visual_to_visual=0.0)
    display = AdaptationDisplay.from_estimator(clf.fit(X, y, classes=[*clf.classes_, "new"]))
    assert display.moved[4] == 0 and (display.moved[:4] > 0).all()
    np.testing.assert_allclose(display.text[4], display.after[4], atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_labelled", [0, 1, 2])
def test_classes_without_a_labelled_row(make_classifier, n_labelled):
    """Rows without a label take part in all classes, so the text is centred over all."""
    clf = make_classifier(4)
    X, labels = clf.support_features_, clf.classes_[clf.support_labels_]
    y = [label if label in clf.classes_[:n_labelled] else -1 for label in labels]
    clf.set_params(text_features=clf.graph_["positive"], positive_to_visual=0.5)
    display = AdaptationDisplay.from_estimator(clf.fit(X, y, classes=clf.classes_))
    np.testing.assert_allclose(display.text.mean(axis=0), clf.visual_centre_, atol=1e-6)


def test_without_text_there_are_two_kinds_of_points(make_classifier):
    with_text = AdaptationDisplay.from_estimator(make_classifier(4, positive_to_visual=1.0))
    assert len(with_text.ax_.collections) == 3
    without = AdaptationDisplay.from_estimator(make_classifier(4, positive_to_visual=0.0))
    assert len(without.ax_.collections) == 2 and without.text is None


def test_a_line_tells_of_which_class_a_text_speaks(make_classifier):
    """Issue 20: the triangles were one unlabelled heap."""
    display = AdaptationDisplay.from_estimator(make_classifier(4, positive_to_visual=1.0))
    triangles, means, _ = (c.get_offsets() for c in display.ax_.collections)
    lines = [line.get_xydata() for line in display.ax_.lines]
    np.testing.assert_allclose(lines, np.stack([triangles, means], axis=1))
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels[0] == "what the text says (dotted line: of which class)"
    without = AdaptationDisplay.from_estimator(make_classifier(4, positive_to_visual=0.0))
    assert not without.ax_.lines


def test_names_do_not_overlap(make_classifier):
    display = AdaptationDisplay.from_estimator(make_classifier(60, n_features=40), n_labels=25)
    names = [t for t in display.ax_.texts if t.get_text()]
    assert 3 < len(names) <= 25
    boxes = [t.get_window_extent() for t in names]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_what_is_refused(make_classifier):
    with pytest.raises(ValueError, match="n_labels"):
        AdaptationDisplay.from_estimator(make_classifier(), n_labels=-1)


def test_one_class_with_images(make_classifier):
    """Its images tell where those of the others are: the text is centred over all, too."""
    clf = make_classifier(4)
    X, y = clf.support_features_, clf.classes_[clf.support_labels_]
    one = y == clf.classes_[0]
    clf.set_params(text_features=clf.graph_["positive"], positive_to_visual=0.5)
    clf.fit(X[one], y[one], classes=clf.classes_)
    display = AdaptationDisplay.from_estimator(clf)
    np.testing.assert_allclose(display.text.mean(axis=0), clf.visual_centre_, atol=1e-6)
