"""The report: parsed, counted, its numbers computed anew, and nothing in it that a user named."""

from __future__ import annotations

import base64
import io
import re
import resource
import signal
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

from skhegraph import HeGraphClassifier, ZeroShotCLIPClassifier, make_hegraph_pipeline
from skhegraph.inspection import explain, report
from skhegraph.inspection.answers import in_turn, logistic_regression, reliability

VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags with their attributes, texts by section, and rows of tables by section."""

    def __init__(self, file):
        super().__init__()
        self.source = file.read_text("utf-8")
        self.tags, self.open, self.section = [], [], ""
        self.texts, self.rows, self.images = {}, {}, {}
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert len(attributes) == len(attrs)
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = attributes["id"]
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        if tag in ("td", "th"):
            self.rows[self.section][-1].append("")
        if tag == "img":
            self.images.setdefault(self.section, []).append(attributes)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts[self.section] = self.texts.get(self.section, "") + data
        if {"td", "th"} & set(self.open):
            self.rows[self.section][-1][-1] += data


@pytest.fixture
def make_case():
    """Function that fits a classifier on noisy features and draws images to report on."""

    def make_case(names=("ant", "bee", "cow"), n_images=60, shots=6, side=16, noise=1.5, **params):
        rng = np.random.RandomState(0)
        text = rng.standard_normal((len(names), 12))
        y = np.repeat(np.arange(len(names)), shots)
        params = {"text_features": text, "device": "cpu", **params}
        clf = HeGraphClassifier(**params)
        clf.fit(text[y] + noise * rng.standard_normal((len(y), 12)), np.array(names)[y])
        t = rng.randint(len(names), size=n_images)
        features = text[t] + noise * rng.standard_normal((n_images, 12))
        images = list(rng.randint(0, 256, (n_images, side, side, 3), dtype=np.uint8))
        return clf, images, np.array(names)[t], features

    return make_case


def test_scores_are_those_of_the_three_classifiers(make_case, tmp_path):
    clf, images, labels, features = make_case()
    page = Page(report(clf, images, labels, tmp_path / "r.html", features=features))
    proba = clf.predict_proba(features)
    text = ZeroShotCLIPClassifier(text_features=clf.text_features).fit(None, clf.classes_)
    C = float(re.search(r"C=(\d+)", page.texts["scores"])[1])
    X = clf.support_features_ / np.linalg.norm(clf.support_features_, axis=1, keepdims=True)
    linear = LogisticRegression(C=C, max_iter=1000).fit(X, clf.classes_[clf.support_labels_])
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = [proba, text.predict_proba(features), linear.predict_proba(unit)]
    assert page.rows["scores"][0] == ["", "accuracy", "log-loss", "right"]
    for row, p in zip(page.rows["scores"][1:], expected, strict=True):
        hits = accuracy_score(labels, clf.classes_[p.argmax(axis=1)])
        assert row[1] == f"{100 * hits:.1f} %"
        assert row[3] == f"{round(60 * hits)} of 60"
        assert float(row[2]) == pytest.approx(log_loss(labels, p), abs=0.002)
    even = log_loss(labels, np.full((60, 3), 1 / 3), labels=clf.classes_)
    assert f"{even:.2f} where all classes get the same" in page.texts["scores"]


def test_without_text_there_is_no_zero_shot(make_case, tmp_path):
    clf, images, labels, features = make_case(text_features="prototypes")
    page = Page(report(clf, images, labels, tmp_path / "r.html", features=features))
    assert len(page.rows["scores"]) == 3 and "zero-shot" not in page.texts["scores"]


def test_c_is_chosen_on_folds(make_case):
    clf, _, _, features = make_case(noise=4.0)
    X = clf.support_features_ / np.linalg.norm(clf.support_features_, axis=1, keepdims=True)
    assert logistic_regression(clf, features)[1] < 1000  # of noise the largest is the worst
    few, *_ = make_case(shots=1)
    log_proba, C = logistic_regression(few, features)
    assert C == 100 and len(X) == 18
    np.testing.assert_allclose(np.exp(log_proba).sum(axis=1), 1)
    named = HeGraphClassifier(text_features=np.eye(3, 12)).fit(
        X[:12], [0] * 6 + [1] * 6, classes=[0, 1, 2]
    )
    assert (logistic_regression(named, features)[0][:, 2] == -np.inf).all()


@pytest.mark.filterwarnings("error")
def test_one_shot_gives_no_warning_and_weights_no_scale(make_case, tmp_path):
    clf, images, labels, features = make_case(shots=1)
    clf.support_weight_ = 1e-6 * clf.support_weight_
    page = Page(report(clf, images, labels, tmp_path / "r.html", features=features))
    clf.support_weight_ = 1e6 * clf.support_weight_
    again = Page(report(clf, images, labels, tmp_path / "r.html", features=features))
    assert page.rows["scores"] == again.rows["scores"]


def test_a_class_with_a_name_alone(tmp_path):
    rng = np.random.RandomState(0)
    X, y = rng.standard_normal((8, 12)) + np.repeat(3 * np.eye(2, 12), 4, axis=0), [4] * 4 + [7] * 4
    clf = HeGraphClassifier(text_features=np.eye(3, 12)).fit(X, y, classes=[4, 7, 9])
    images, features = rng.randint(0, 256, (3, 8, 8, 3), dtype=np.uint8), np.eye(3, 12)
    page = Page(report(clf, images, [4, 7, 9], str(tmp_path / "r.html"), features=features))
    assert [row[2] == "∞" for row in page.rows["scores"][1:]] == [False, False, True]
    assert page.rows["classes"][3][:3] == ["9", "0", "1"]


@pytest.mark.parametrize("n_labelled", [0, 1])
def test_a_model_of_names_and_rows_without_a_label(make_case, tmp_path, n_labelled):
    """There is nothing to fit a logistic regression on."""
    clf, images, labels, features = make_case()
    y = [-1] * 60
    y[:n_labelled] = labels[:n_labelled]
    clf.fit(features, y, classes=["ant", "bee", "cow"])
    page = Page(report(clf, images, labels, tmp_path / "r.html", features=features))
    names = [row[0] for row in page.rows["scores"]]
    assert names == ["", "this model", "the text alone (zero-shot)"]
    told = f"60 images ({60 - n_labelled} without a label); support images kept: {n_labelled};"
    assert told in page.texts[""]


def test_each_cell_leads_to_its_pictures(make_case, tmp_path):
    clf, images, labels, features = make_case()
    page = Page(report(clf, images, labels, tmp_path / "r.html", features=features))
    counts = confusion_matrix(labels, clf.predict(features), labels=clf.classes_)
    shown = [[int(cell or 0) for cell in row[1:]] for row in page.rows["confusion"][1:]]
    np.testing.assert_array_equal(shown, counts)
    parts = re.split(r'<div class="cell" id="', page.source)[1:]
    found = {part.partition('"')[0]: part.split("</section>")[0].count("<img") for part in parts}
    assert found == {f"cell-{i}-{j}": counts[i, j] for i, j in np.argwhere(counts)}
    links = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    ids = {a["id"] for tag, a in page.tags if "id" in a}
    assert links <= ids and found.keys() <= links


def test_rows_of_the_classes(make_case, tmp_path):
    clf, images, labels, features = make_case()
    page = Page(report(clf, images, labels, tmp_path / "r.html", features=features))
    counts = confusion_matrix(labels, clf.predict(features), labels=clf.classes_)
    proba = clf.predict_proba(features)
    assert len(page.rows["classes"]) == 4
    for c, row in enumerate(page.rows["classes"][1:]):
        total, called, found = counts[c].sum(), counts[:, c].sum(), counts[c, c]
        assert row[:4] == [clf.classes_[c], "6", str(total), str(found)]
        assert row[4:6] == [f"{100 * found / n:.0f} %" for n in (total, called)]
        loss = -np.log(proba[labels == clf.classes_[c], c]).mean()
        assert row[6] == f"{loss:.2f}"
        others = np.where(np.arange(3) == c, 0, counts[c])
        most = f"{clf.classes_[others.argmax()]} ({others.max()})" if others.any() else ""
        assert row[7] == most


def test_surest_mistakes_and_their_evidence(make_case, tmp_path):
    clf, images, labels, features = make_case()
    page = Page(report(clf, images, labels, tmp_path / "r.html", features=features, n_shown=2))
    proba = clf.predict_proba(features)
    wrong = np.flatnonzero(clf.predict(features) != labels)
    surest = wrong[np.argsort(-proba[wrong].max(axis=1))][:2]
    frame = explain(clf, features[surest], n_classes=3)
    parts = ["text", "visual", "residual", "prior"]
    for q, i in enumerate(surest):
        head, predicted, true, difference = page.rows["mistakes"][4 * q : 4 * q + 4]
        assert head == ["", "probability", "text", "images", "training", "prior"]
        rows = frame[frame["query"] == q]
        top, own = rows.iloc[0], rows[rows["class"] == labels[i]].iloc[0]
        assert predicted[:2] == [f"predicted: {top['class']}", f"{100 * proba[i].max():.1f} %"]
        assert true[0] == f"true: {labels[i]}"
        for cells, values in ((predicted, top[parts]), (difference, top[parts] - own[parts])):
            np.testing.assert_allclose(
                [float(v) for v in cells[2:]], values.to_numpy(float), atol=0.0051
            )
        assert f"row {top['support'][0]} (" in page.texts["mistakes"]
    assert "of all rows" in page.texts["mistakes"]
    assert "support_images=...) shows them" in page.texts["mistakes"]
    assert [a["alt"] for a in page.images["mistakes"]] == [f"image {i}" for i in surest]


def test_least_sure_and_least_familiar(make_case, tmp_path):
    clf, images, labels, features = make_case()
    page = Page(report(clf, images, labels, tmp_path / "r.html", features=features, n_shown=5))
    for name, score in (
        ("least-sure", clf.predict_proba(features).max(axis=1)),
        ("least-familiar", clf.score_samples(features)),
    ):
        expected = [f"image {i}" for i in np.argsort(score)[:5]]
        assert [a["alt"] for a in page.images[name]] == expected


def test_reliability_worked_by_hand():
    confidence = np.array([0.9, 0.5, 0.9, 0.5, 0.9, 0.5, 0.9, 0.5, 0.9, 0.5])
    right = np.array([True, False] * 5)
    said, was, error = reliability(confidence, right)
    np.testing.assert_allclose((said, was), [[0.5, 0.9], [0, 1]])
    assert error == pytest.approx(0.3)
    assert reliability(confidence[:1], right[:1])[0] == [0.9]


def test_pictures_in_turn():
    groups = np.array([0, 0, 0, 0, 1, 2])
    chosen = in_turn(groups, np.array([3, 2, 1, 0, 4, 5]), 4)
    assert np.flatnonzero(chosen).tolist() == [2, 3, 4, 5]
    assert in_turn(groups, np.arange(6), 99).all()


def test_without_labels_there_is_a_contact_sheet_of_each_class(make_case, tmp_path):
    clf, images, _, features = make_case()
    page = Page(report(clf, images, path=tmp_path / "r.html", features=features))
    predicted = clf.predict(features)
    for c, name in enumerate(clf.classes_):
        assert len(page.images[f"sheet-{c}"]) == (predicted == name).sum()
    assert not {"scores", "confusion", "mistakes", "reliability"} & set(page.texts)
    assert {"predicted", "least-sure", "least-familiar"} <= set(page.texts)


EVIL = "<script>alert('x')</script>"


@pytest.mark.parametrize("with_labels", [True, False])
def test_names_and_paths_are_text(make_case, tmp_path, with_labels):
    names = (EVIL, 'b" onload="alert(1)', "&amp;")
    clf, _, labels, features = make_case(names, n_images=20)
    images = []
    for k in range(20):
        images.append(str(tmp_path / f"{k}<img src=x onerror=alert(1)>'&\".png"))
        Image.new("RGB", (9, 9), (9 * k, 0, 0)).save(images[-1])
    features[3] = np.nan  # unreadable, and named
    labels = labels if with_labels else None
    page = Page(report(clf, images, labels, tmp_path / "r.html", features=features))
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [key for _, a in page.tags for key in a if key.startswith("on")]
    table = page.rows["classes" if with_labels else "predicted"]
    assert [row[0] for row in table[1:]] == sorted(names)
    assert images[3] in page.texts["unreadable"]
    titles = {a["title"] for tag, a in page.tags if tag == "figure"}
    assert titles == set(images) - {images[3]}


def test_it_fetches_nothing(make_case, tmp_path):
    clf, images, labels, features = make_case()
    page = Page(report(clf, images, labels, tmp_path / "r.html", features=features))
    assert not re.search(r"https?:|url\(|@import|javascript:", page.source)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base"})
    sources = [a["src"] for _, a in page.tags if "src" in a]
    assert sources and all(src.startswith("data:image/jpeg;base64,") for src in sources)
    picture = Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2])))
    assert picture.size == (16, 16)
    policy = next(a["content"] for tag, a in page.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("with_labels", [True, False])
def test_500_images_of_noise_are_below_5_mb(make_case, tmp_path, with_labels):
    clf, images, labels, features = make_case(n_images=500, side=150)
    labels = labels if with_labels else None
    file = report(clf, images, labels, tmp_path / "r.html", features=features)
    assert file.stat().st_size < 5e6
    distinct = {a["src"] for tag, a in Page(file).tags if tag == "img"}
    assert len(distinct) == 500


def test_more_images_are_counted_and_not_all_shown(make_case, tmp_path):
    clf, images, labels, features = make_case(n_images=700)
    page = Page(report(clf, images, labels, tmp_path / "r.html", features=features))
    assert len(page.images["confusion"]) == 500
    assert re.search(r"taken for ant: \d+ of \d+", page.texts["confusion"])
    counts = confusion_matrix(labels, clf.predict(features))
    assert sum(int(c or 0) for row in page.rows["confusion"][1:] for c in row[1:]) == counts.sum()


def test_many_classes_are_listed(make_case, tmp_path):
    names = tuple(f"class {c:02d}" for c in range(45))
    clf, images, labels, features = make_case(names, n_images=200)
    page = Page(report(clf, images, labels, tmp_path / "r.html", features=features))
    head, *rows = page.rows["confusion"]
    assert head == ["true", "taken for", "images"]
    counts = confusion_matrix(labels, clf.predict(features), labels=clf.classes_)
    np.fill_diagonal(counts, 0)
    order = [int(row[2]) for row in rows]
    assert order == sorted(counts[counts > 0], reverse=True)[:60]
    for true, taken, n in rows:
        assert counts[names.index(true), names.index(taken)] == int(n)


def test_unreadable_images_are_listed_and_count_nowhere(pipeline, photographs, tmp_path):
    pieces, names = photographs
    model = make_hegraph_pipeline("skhegraph-tiny", device="cpu", on_error="nan")
    model.fit(pieces, names)
    images, labels = [pieces[0], tmp_path / "typo.jpg", pieces[7]], ["temple", "flower", "flower"]
    with pytest.warns(UserWarning, match="cannot be read"):
        page = Page(report(model, images, labels, tmp_path / "r.html"))
    assert str(tmp_path / "typo.jpg") in page.texts["unreadable"]
    assert page.rows["scores"][1][3].endswith("of 2")
    with pytest.warns(UserWarning, match="cannot be read"):
        page = Page(report(model, images[1:2], labels[1:2], tmp_path / "r.html"))
    assert set(page.texts) == {"", "unreadable"}


def test_an_image_without_a_picture_has_a_placeholder(make_case, tmp_path):
    clf, images, labels, features = make_case(n_images=4)
    images[2] = tmp_path / "gone.jpg"
    page = Page(report(clf, images, labels, tmp_path / "r.html", features=features))
    assert page.source.count("no picture") >= 2


def test_support_images_are_shown(make_case, tmp_path):
    clf, images, labels, features = make_case()
    support = [np.full((8, 8, 3), 10 * k, np.uint8) for k in range(18)]
    keywords = {"features": features, "n_shown": 2}
    file = report(clf, images, labels, tmp_path / "r.html", support_images=support, **keywords)
    assert len(Page(file).images["mistakes"]) == 2 * (1 + 3)
    with pytest.raises(ValueError, match="support_images holds 1 images, and row"):
        report(clf, images, labels, tmp_path / "r.html", support_images=support[:1], **keywords)


def test_no_mistake_and_turned_away(make_case, tmp_path):
    clf, images, labels, features = make_case(noise=0.1, unknown_label="?", unknown_threshold=9.0)
    page = Page(report(clf, images, labels, tmp_path / "r.html", features=features))
    assert "There is none." in page.texts["mistakes"]
    assert "predict turns 60 of these away as unknown" in page.texts["scores"]
    assert page.rows["scores"][1][3] == "60 of 60"


def test_a_name_that_is_no_text_is_written(make_case, tmp_path):
    clf, images, labels, features = make_case(n_images=3)
    images[0] = "\udcff.png"
    page = Page(report(clf, images, labels, tmp_path / "r.html", features=features))
    assert "\\udcff.png" in page.source


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"features": None}, ValueError, "features=None, and model is a classifier of features"),
        ({"features": np.ones((2, 12))}, ValueError, "features has 2 rows for 4 images"),
        ({"labels": ["ant"]}, ValueError, r"labels has shape \(1,\) for 4 images"),
        ({"labels": ["ant", "bee", "elk", "ant"]}, ValueError, "labels holds 'elk', which is no"),
        ({"labels": ["ant", "bee", None, "ant"]}, ValueError, "labels has no label .* in row 2"),
        ({"path": "nowhere/report.html"}, FileNotFoundError, "there is no folder 'nowhere'"),
        ({"path": "."}, IsADirectoryError, "path='.' is a folder: name the file"),
        ({"n_shown": 0}, ValueError, "n_shown"),
        ({"images": []}, ValueError, "X holds no images"),
    ],
)
def test_what_is_refused(make_case, tmp_path, monkeypatch, keywords, error, message):
    monkeypatch.chdir(tmp_path)
    clf, images, labels, features = make_case(n_images=4)
    given = {"images": images, "labels": labels, "path": "r.html", "features": features}
    with pytest.raises(error, match=message):
        report(clf, **{**given, **keywords})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_part_of_a_report(make_case, tmp_path, monkeypatch):
    """Issue 17.26, the kind: half a file, in place of an older report if there was one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    clf, images, labels, features = make_case(n_images=4)
    (tmp_path / "r.html").write_text("an older one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            report(clf, images, labels, "~/r.html", features=features)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["an older one"]
    report(clf, images, labels, "~/r.html", features=features)
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]
    assert (tmp_path / "r.html").stat().st_size > 1_000


def test_items_of_several_photographs_need_one_picture_each(photographs, pipeline, tmp_path):
    pieces, names = photographs
    items, labels = [pieces[4:6], pieces[10:12]], names[[4, 10]]
    with pytest.raises(TypeError, match=r"images\[0\] is a list .*features=model\[:-1\]"):
        report(pipeline, items, labels, tmp_path / "r.html")
    features = pipeline[:-1].transform(items)
    report(pipeline, [item[0] for item in items], labels, tmp_path / "r.html", features=features)
    assert (tmp_path / "r.html").exists()
