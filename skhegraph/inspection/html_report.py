"""How good a model is on images, and where it errs: one HTML file for a colleague's browser."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_scalar

from skhegraph._sklearn import check_pandas_support
from skhegraph._version import __version__
from skhegraph.hegraph.evidence import PARTS
from skhegraph.inspection.answers import (
    Answers,
    in_turn,
    logistic_regression,
    reliability,
    zero_shot,
)
from skhegraph.inspection.markup import (
    figure,
    matrix,
    name_of,
    page,
    paragraph,
    reliability_curve,
    section,
    sheet,
    signed,
    table,
    text,
    thumbnail,
)
from skhegraph.inspection.steps import features_of, final_classifier
from skhegraph.labelled_rows import check_labels, unreadable_rows
from skhegraph.support import Floats, Ints

#: Pictures behind the cells of the confusion matrix, or on the contact sheets, in all: with them a
#: file is below 5 MB.
MAX_PICTURES = 500
#: Classes of which a matrix can still be read; of more, the most frequent mistakes are listed.
MATRIX_CLASSES = 40
#: Mistakes in that list, and unreadable images that are named.
LISTED = 60


def report(
    model: Any,
    images: Any,
    labels: ArrayLike | None = None,
    path: str | os.PathLike[str] = "report.html",
    *,
    features: ArrayLike | None = None,
    support_images: Any = None,
    n_shown: int = 12,
) -> Path:
    """Write what a model makes of images into one HTML file, with their thumbnails inside.

    With labels it shows accuracy and log-loss beside those of the text alone and of logistic
    regression, how often the model is right at each probability, each class, the confusion matrix
    with the pictures behind each number, and the surest mistakes with their explanation; without
    labels, a contact sheet of each predicted class. Either way the pictures that it is least sure
    of, those least familiar, and the images that could not be read (where `CLIPFeatures` has
    ``on_error="nan"``). The file holds no script and fetches nothing.

    Parameters
    ----------
    model : HeGraphClassifier, or Pipeline that ends with one
        Fitted estimator.
    images : list of images
        Images that the fit has not seen, as `CLIPFeatures` takes them; one of each item.
    labels : array-like of shape (n_images,) or None, default=None
        Their true labels, of `classes_`. None makes contact sheets.
    path : path, default="report.html"
        File to write, "~" expanded; one that exists is replaced.
    features : array-like of shape (n_images, n_features) or None, default=None
        Features of the images, so that they are not encoded again. None asks the pipeline.
    support_images : list of images or None, default=None
        The images given to `fit`, in their order, to show those that a mistake rests on.
    n_shown : int, default=12
        Pictures of the surest mistakes, the least sure, and the least familiar.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    FileNotFoundError
        If the folder of `path` does not exist.
    IsADirectoryError
        If `path` is a folder.
    ImportError
        If pandas, which :meth:`HeGraphClassifier.explain` needs, is not installed.
    ValueError
        If the labels or features do not fit the images or the model.
    TypeError
        If the classifier is another one.

    Notes
    -----
    The text alone is the model's initial positive nodes. Logistic regression is fitted on the rows
    that the model keeps (at most 64 of each class), with the `C` of 1, 10, 100, 1000 that has the
    least log-loss on folds of them; 100 where a class has one row. A class of which it has no row
    has probability 0 there, and an image of it makes the log-loss infinite.

    At most 500 pictures, each class or cell in its turn, are behind the numbers; a file is then
    below 5 MB.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from sklearn.datasets import load_sample_images
    >>> from skhegraph import make_hegraph_pipeline
    >>> from skhegraph.inspection import report
    >>> temple, flower = load_sample_images().images
    >>> model = make_hegraph_pipeline("skhegraph-tiny", device="cpu")
    >>> model = model.fit([temple, flower], ["temple", "flower"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = report(
    ...         model,
    ...         [temple[:300], flower[:300]],
    ...         ["temple", "flower"],
    ...         pathlib.Path(folder, "report.html"),
    ...     )
    ...     file.read_text("utf-8").count("<img")
    6
    """
    from skhegraph.clip.items import one_image_each

    check_pandas_support("report")
    check_scalar(n_shown, "n_shown", Integral, min_val=1)
    clf, file = final_classifier(model), Path(os.path.expanduser(os.fspath(path)))
    if not file.parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: there is no folder {str(file.parent)!r}.")
    if file.is_dir():
        raise IsADirectoryError(f"path={str(path)!r} is a folder: name the file to write in it.")
    listed = one_image_each(images, "images", ", and features=model[:-1].transform(items)")
    truth = None if labels is None else _codes(labels, clf.classes_, len(listed))
    support = None if support_images is None else one_image_each(support_images, "support_images")
    X = _features(model, clf, images, features, len(listed))
    readable = ~unreadable_rows(X)
    number = np.flatnonzero(readable)
    answers = Answers(clf, listed, X[readable], number, None if truth is None else truth[readable])
    parts = _parts(answers, support, n_shown) if len(number) else []
    unreadable = _unreadable([listed[i] for i in np.flatnonzero(~readable)], ~readable)
    title = f"{type(clf).__name__} on {len(listed)} image{'s' if len(listed) != 1 else ''}"
    body = "\n".join([_head(title, answers), *parts, unreadable])
    with TemporaryDirectory(prefix=f".{file.name}.", dir=file.absolute().parent) as folder:
        whole = Path(folder, file.name)  # or absent, on a full disk
        # Names of files that are no text are written with backslashes.
        whole.write_text(page(title, body), encoding="utf-8", errors="backslashreplace")
        os.replace(whole, file)
    return file


def _features(model: Any, clf: Any, images: Any, features: Any, n_images: int) -> Floats:
    """Features of all images, given or asked for."""
    if features is None:
        if model is clf:
            raise ValueError(
                "features=None, and model is a classifier of features, which cannot read images: "
                "give their features too, or a pipeline as model."
            )
        features = features_of(model, images)
    X = clf._queries(features)
    if len(X) != n_images:
        raise ValueError(f"features has {len(X)} rows for {n_images} images: give one of each.")
    return np.asarray(X)


def _codes(labels: Any, classes: NDArray[Any], n_images: int) -> Ints:
    """Index into `classes` of each label."""
    check_labels(labels, "labels")
    given = np.asarray(labels)
    if given.shape != (n_images,):
        raise ValueError(
            f"labels has shape {given.shape} for {n_images} images: give one label of each image."
        )
    known = {label: c for c, label in enumerate(classes.tolist())}
    foreign = [label for label in given.tolist() if label not in known]
    if foreign:
        raise ValueError(
            f"labels holds {foreign[0]!r}, which is no class of the model (classes_): leave such "
            "images out, or report on them without labels."
        )
    return np.array([known[label] for label in given.tolist()], dtype=np.intp)


def _head(title: str, answers: Answers) -> str:
    """Title, and what the model knows."""
    clf = answers.clf
    without = f" ({clf.n_unlabelled_} without a label)" if clf.n_unlabelled_ else ""
    known = (
        f"{len(clf.classes_)} classes, fitted on {clf.n_samples_seen_} images{without}; support "
        f"images kept: {len(clf.support_labels_)}; skhegraph {__version__}."
    )
    return f"<h1>{text(title)}</h1>\n{paragraph(known, 'soft')}"


def _parts(answers: Answers, support: list[Any] | None, n_shown: int) -> list[str]:
    """Sections about the images that could be read."""
    if answers.truth is None:
        parts = [_predicted(answers), *_contact_sheets(answers)]
    else:
        linked, cells = _cells(answers)
        parts = [
            _scores(answers),
            _reliability(answers),
            _classes(answers, linked),
            _confusion(answers, linked, cells),
            _surest_mistakes(answers, support, n_shown),
        ]
    unsure, strange = (
        np.argsort(v, kind="stable") for v in (answers.confidence, answers.familiarity)
    )
    return [
        *parts,
        section(
            "least-sure",
            "Least sure",
            paragraph("The lowest probabilities of the predicted class."),
            sheet(answers.figure(i) for i in unsure[:n_shown]),
        ),
        section(
            "least-familiar",
            "Least familiar",
            paragraph(
                "Images that may belong to none of the classes: the lowest values of score_samples,"
                " in standard deviations from the mean of left-out support images."
            ),
            sheet(
                answers.figure(i, f"familiarity {answers.familiarity[i]:+.1f}")
                for i in strange[:n_shown]
            ),
        ),
    ]


def _scores(answers: Answers) -> str:
    """Accuracy and log-loss of the model and of what it is compared with."""
    clf, truth = answers.clf, answers.truth
    assert truth is not None
    named = [("this model", answers.log_proba)]
    text_alone = zero_shot(clf, answers.features)
    if text_alone is not None:
        named.append(("the text alone (zero-shot)", text_alone))
    kept = len(clf.support_labels_)
    if len(np.unique(clf.support_labels_)) > 1:
        found, C = logistic_regression(clf, answers.features)
        named.append((f"logistic regression on the {kept} support images (C={C:g})", found))
    rows = []
    for name, log_proba in named:
        right = int((log_proba.argmax(axis=1) == truth).sum())
        loss = -log_proba[np.arange(len(truth)), truth].mean()
        lost = f"{loss:.3f}" if np.isfinite(loss) else "∞"
        cells = (f"{100 * right / len(truth):.1f} %", lost, f"{right} of {len(truth)}")
        rows.append((text(name), *cells))
    turned_away = ""
    if clf.unknown_threshold is not None:
        n = int((answers.familiarity < clf.unknown_threshold).sum())
        turned_away = paragraph(
            f"predict turns {n} of these away as unknown (unknown_threshold="
            f"{clf.unknown_threshold:g}); the numbers count their most probable class."
        )
    head = ("", "accuracy", "log-loss", "right")
    loss_is = paragraph(
        "Log-loss is minus the logarithm of the probability of the true class, in the mean: the "
        f"lower the better, and {np.log(len(answers.names)):.2f} where all classes get the same.",
        "soft",
    )
    return section("scores", "How good", table(head, rows, first=True), loss_is, turned_away)


def _reliability(answers: Answers) -> str:
    """Whether the model is as often right as it says."""
    said, was, error = reliability(answers.confidence, answers.predicted == answers.truth)
    words = (
        f"Each point is a group of about {len(answers.number) // len(said)} images of similar "
        "probability. On the dashed line the model is as often right as it says; below it, it is "
        f"too sure. Mean distance: {100 * error:.1f} points."
    )
    return section(
        "reliability",
        "As often right as it says?",
        paragraph(words),
        reliability_curve(said, was),
    )


def _classes(answers: Answers, linked: set[tuple[int, int]]) -> str:
    """A row for each class."""
    truth, predicted = answers.truth, answers.predicted
    assert truth is not None
    n_classes = len(answers.names)
    kept = np.bincount(answers.clf.support_labels_, minlength=n_classes)
    rows = []
    for c, name in enumerate(answers.names):
        own, called = truth == c, predicted == c
        found = int((own & called).sum())
        shown = f'<a href="#cell-{c}-{c}">{found}</a>' if (c, c) in linked else str(found)
        others = np.bincount(predicted[own & ~called], minlength=n_classes)
        most = int(others.argmax())
        taken = f"{text(answers.names[most])} ({others[most]})" if others[most] else ""
        loss = f"{-answers.log_proba[own, c].mean():.2f}" if own.any() else "–"
        shares = (_percent(found, int(own.sum())), _percent(found, int(called.sum())))
        rows.append((text(name), str(kept[c]), str(own.sum()), shown, *shares, loss, taken))
    head = ("class", "support images", "images", "found", "recall", "precision", "log-loss")
    return section("classes", "Classes", table((*head, "most taken for"), rows))


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "–"


def _cells(answers: Answers) -> tuple[set[tuple[int, int]], str]:
    """Pictures behind the cells of the confusion matrix: which cells, and the HTML.

    Mistakes come surest first, what is right least sure first.
    """
    truth, predicted, n_classes = answers.truth, answers.predicted, len(answers.names)
    assert truth is not None
    cell = truth * n_classes + predicted
    wrong = truth != predicted
    order = np.argsort(np.where(wrong, -answers.confidence, answers.confidence), kind="stable")
    order = order[np.argsort(~wrong[order], kind="stable")]  # cells of mistakes in turn first
    chosen = in_turn(cell, order, MAX_PICTURES)
    linked, parts = set(), []
    for code in np.unique(cell[chosen]):
        i, j = (int(c) for c in divmod(code, n_classes))
        linked.add((i, j))
        rows = order[(cell[order] == code) & chosen[order]]
        total = int((cell == code).sum())
        title = f"{answers.names[i]}, taken for {answers.names[j]}: {_some(len(rows), total)}"
        parts.append(
            f'<div class="cell" id="cell-{i}-{j}"><h3>{text(title)} '
            f'<a href="#confusion">close</a></h3>{_sheet_of(answers.figure, rows)}</div>'
        )
    return linked, "\n".join(parts)


def _some(shown: int, total: int) -> str:
    return str(total) if shown == total else f"{shown} of {total}"


def _sheet_of(draw: Callable[[int], str], rows: Iterable[int]) -> str:
    return sheet(draw(int(i)) for i in rows)


def _confusion(answers: Answers, linked: set[tuple[int, int]], cells: str) -> str:
    """Confusion matrix, or the most frequent mistakes of many classes."""
    truth, names = answers.truth, answers.names
    assert truth is not None
    links = {(i, j): f"cell-{i}-{j}" for i, j in linked}
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (truth, answers.predicted), 1)
    if len(names) <= MATRIX_CLASSES:
        shown = matrix(names, counts, links)
    else:
        np.fill_diagonal(counts, 0)
        most = np.argsort(-counts, axis=None, kind="stable")[:LISTED]
        rows = []
        for i, j in (divmod(int(code), len(names)) for code in most):
            if counts[i, j]:
                n = f"{counts[i, j]:.0f}"
                n = f'<a href="#{links[i, j]}">{n}</a>' if (i, j) in links else n
                rows.append((text(names[i]), text(names[j]), n))
        shown = table(("true", "taken for", "images"), rows)
    words = paragraph("Choose a number to see the pictures behind it.")
    return section("confusion", "What is taken for what", words, shown, cells)


def _surest_mistakes(answers: Answers, support: list[Any] | None, n_shown: int) -> str:
    """Mistakes of the highest probability, and why."""
    truth = answers.truth
    assert truth is not None
    wrong = np.flatnonzero(answers.predicted != truth)
    surest = wrong[np.argsort(-answers.confidence[wrong], kind="stable")[:n_shown]]
    title = "Surest mistakes"
    if not len(surest):
        return section("mistakes", title, paragraph("There is none."))
    words = (
        "Evidence for a class is how far it stands above the mean class, in log-odds: from its "
        "text, from the support images, from training, and from how frequent it was taken to be. "
        "The difference is what put the predicted class before the true one. A confident mistake "
        "may be a wrong label."
    )
    if support is None:
        words += (
            " Rows count the images given to fit, from 0; report(..., support_images=...) shows "
            "them."
        )
    frame = answers.clf.explain(answers.features[surest], n_classes=len(answers.names))
    labels = answers.clf.classes_
    cards = []
    for q, i in enumerate(surest):
        rows = frame[frame["query"] == q]
        pair = [rows.iloc[0], rows[rows["class"] == labels[truth[i]]].iloc[0]]
        cards.append(_card(answers, int(i), pair, support))
    return section("mistakes", title, paragraph(words), *cards)


def _card(answers: Answers, i: int, pair: list[Any], support: list[Any] | None) -> str:
    """A mistake: its picture, evidence for the predicted and the true class, support images."""
    rows = []
    for which, row in zip(("predicted", "true"), pair, strict=True):
        parts = [signed(row[name]) for name in PARTS]
        name = f"{which}: {text(row['class'])}"
        rows.append((name, f"{100 * row['probability']:.1f} %", *parts))
    gaps = [signed(pair[0][name] - pair[1][name]) for name in PARTS]
    rows.append(("difference", "", *gaps))
    head = ("", "probability", "text", "images", "training", "prior")
    found = list(zip(pair[0]["support"], pair[0]["support_parts"], strict=True))
    spoke = f"Support images (of {pair[0]['support_of']}) that spoke most for {pair[0]['class']}: "
    if support is None:
        told = ", ".join(f"row {row} ({part:+.2f})" for row, part in found) or "none"
        shown = paragraph(f"{spoke}{told}")
    else:
        figures = [_support_figure(support, row, part) for row, part in found]
        shown = paragraph(spoke) + sheet(figures)
    return f'<div class="card">{answers.figure(i)}<div>{table(head, rows)}{shown}</div></div>'


def _support_figure(support: list[Any], row: int, part: float) -> str:
    """Picture of a support image, and its part in the logit."""
    if row >= len(support):
        raise ValueError(
            f"support_images holds {len(support)} images, and row {row} of the X given to fit is "
            "to be shown: give the images that fit was given, in their order."
        )
    image = support[row]
    name = name_of(image, row)
    return figure(thumbnail(image), name, f"row {row}: {part:+.2f}")


def _predicted(answers: Answers) -> str:
    """How many images each class got, where nothing is known of their labels."""
    rows = []
    kept = np.bincount(answers.clf.support_labels_, minlength=len(answers.names))
    for c, name in enumerate(answers.names):
        called = answers.predicted == c
        sure = f"{100 * answers.confidence[called].mean():.0f} %" if called.any() else "–"
        link = f'<a href="#sheet-{c}">{called.sum()}</a>' if called.any() else "0"
        rows.append((text(name), str(kept[c]), link, sure))
    head = ("class", "support images", "images", "mean probability")
    return section("predicted", "What the images are taken for", table(head, rows))


def _contact_sheets(answers: Answers) -> list[str]:
    """Pictures by predicted class, the surest first."""
    order = np.argsort(-answers.confidence, kind="stable")
    chosen = in_turn(answers.predicted, order, MAX_PICTURES)
    parts = []
    for c in np.unique(answers.predicted[chosen]):
        rows = order[(answers.predicted[order] == c) & chosen[order]]
        title = f"{answers.names[c]}: {_some(len(rows), int((answers.predicted == c).sum()))}"
        parts.append(section(f"sheet-{c}", title, _sheet_of(answers.figure, rows)))
    return parts


def _unreadable(images: list[Any], unreadable: NDArray[np.bool_]) -> str:
    """Images that could not be read, by name."""
    if not images:
        return ""
    from skhegraph.clip.images import describe_source

    numbers = np.flatnonzero(unreadable)[:LISTED]
    rows = [
        (str(k), text(describe_source(image)))
        for k, image in zip(numbers, images[:LISTED], strict=True)
    ]
    more = "" if len(images) <= LISTED else paragraph(f"... and {len(images) - LISTED} more.")
    words = paragraph(f"They count nowhere above: {len(images)} in all.")
    return section("unreadable", "Not readable", words, table(("image", ""), rows), more)
