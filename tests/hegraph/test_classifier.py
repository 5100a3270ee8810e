"""HeGraphClassifier: scikit-learn's law, predictions by hand, invariances, weights.

What holds for HeGraphAdapterClassifier too is tested for both.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import log_loss
from sklearn.utils.estimator_checks import (
    check_classifiers_predictions,
    check_dataframe_column_names_consistency,
    check_n_features_in_after_fitting,
    parametrize_with_checks,
)

from skhegraph import HeGraphAdapterClassifier, HeGraphClassifier
from skhegraph.support import unit_rows

C, D = 4, 10


def make_data(shots: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Clusters of given sizes, in shuffled order, not of unit length."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(shots)), shots))
    return 3.5 * np.eye(len(shots), D)[y] + rng.normal(size=(len(y), D)), y


X, Y = make_data([8, 5, 3, 4])
QUERIES, TRUTH = make_data([15] * C, seed=1)
TEXT = np.random.default_rng(2).normal(size=(2, C, D)) * 0.4
PAIR = (3 * (TEXT[0] + np.eye(C, D)), TEXT[1] - np.eye(C, D))


def hegraph(**params: Any) -> HeGraphClassifier:
    return HeGraphClassifier(**{"text_features": PAIR, "device": "cpu", **params})


def adapter(**params: Any) -> HeGraphAdapterClassifier:
    return HeGraphAdapterClassifier(
        **{"text_features": PAIR, "random_state": 0, "n_epochs": 5, "device": "cpu", **params}
    )


both = pytest.mark.parametrize("make", [hegraph, adapter])


# --- scikit-learn's law ---------------------------------------------------------------------------

CHECKED = [
    HeGraphClassifier(text_features="prototypes"),
    HeGraphAdapterClassifier(text_features="prototypes", n_epochs=5),
]


@parametrize_with_checks(CHECKED)
def test_scikit_learn_checks(estimator: BaseEstimator, check: Callable[..., None]) -> None:
    check(estimator)


@pytest.mark.parametrize("estimator", CHECKED)
@pytest.mark.parametrize(
    "check",
    [check_dataframe_column_names_consistency, check_n_features_in_after_fitting],
)
def test_checks_outside_the_common_suite(estimator: Any, check: Callable[..., None]) -> None:
    check(type(estimator).__name__, clone(estimator))


@pytest.mark.parametrize("estimator", CHECKED)
@pytest.mark.parametrize("n_classes", [2, C])
def test_check_of_predictions(estimator: Any, n_classes: int) -> None:
    rows = n_classes > Y
    check_classifiers_predictions(X[rows], Y[rows], type(estimator).__name__, estimator)


# --- predictions from the fitted attributes -------------------------------------------------------


ALONE = {"positive_to_positive": 0.0, "visual_to_positive": 0.0, "negative_to_positive": 0.0}


@pytest.mark.parametrize("params", [{}, {"visual_weight": 0.3}, {"text_weight": 0.2}, ALONE])
@pytest.mark.parametrize("class_weight", ["balanced", None])
def test_prediction_by_hand(params: dict[str, float], class_weight: str | None) -> None:
    clf = hegraph(**params, class_weight=class_weight).fit(X, Y)
    Z = QUERIES / np.linalg.norm(QUERIES, axis=1, keepdims=True)
    text = Z @ clf.text_coef_.T + clf.text_intercept_
    visual = Z @ clf.visual_coef_.T + clf.visual_intercept_
    prior = np.full(C, 1 / C) if class_weight else np.bincount(Y) / len(Y)
    np.testing.assert_allclose(clf.log_prior_, np.log(prior))
    fused = softmax(text + visual + np.log(prior), axis=1)
    branches = clf.branch_proba(QUERIES)
    np.testing.assert_allclose(branches.text, softmax(text + np.log(prior), axis=1))
    np.testing.assert_allclose(branches.visual, softmax(visual + np.log(prior), axis=1))
    np.testing.assert_allclose(branches.fused, fused)
    np.testing.assert_array_equal(clf.predict_proba(QUERIES), branches.fused)
    np.testing.assert_allclose(np.exp(clf.predict_log_proba(QUERIES)), fused)
    np.testing.assert_array_equal(clf.predict(QUERIES), fused.argmax(axis=1))
    np.testing.assert_allclose(softmax(clf.decision_function(QUERIES), axis=1), branches.fused)
    assert clf.score(QUERIES, TRUTH) > 0.75
    for name, value in params.items():
        if name in ("text_weight", "visual_weight"):
            assert getattr(clf, f"{name}_") == value


def test_branches_are_their_equations_where_nothing_is_trained() -> None:
    clf = hegraph(penalty=1e6).fit(X, Y)
    Z = QUERIES / np.linalg.norm(QUERIES, axis=1, keepdims=True)
    cosine = Z @ clf.graph_["positive"].T  # Eq. 7
    np.testing.assert_allclose(
        Z @ clf.text_coef_.T + clf.text_intercept_,
        clf.text_weight_ * clf.logit_scale_ * cosine,
        atol=1e-3,
    )
    V = clf.visual_nodes_.astype(float)  # the discriminant is highest between its nodes
    at_nodes = V @ clf.visual_coef_.T + clf.visual_intercept_
    np.testing.assert_array_equal(at_nodes.argmax(axis=1), np.arange(C))


def test_graph_holds_the_initial_nodes() -> None:
    clf = hegraph().fit(X, Y)
    unit = unit_rows(X)
    np.testing.assert_allclose(clf.graph_["positive"], unit_rows(PAIR[0]), rtol=1e-6)
    np.testing.assert_allclose(clf.graph_["negative"], unit_rows(PAIR[1]), rtol=1e-6)
    means = np.stack([unit[c == Y].mean(axis=0) for c in range(C)])
    np.testing.assert_allclose(clf.graph_["visual"], means, rtol=1e-5, atol=1e-7)
    data = clf.to_hetero_data()
    assert data["positive", "to", "negative"].edge_index.shape == (2, C)
    data["positive"].x.zero_()  # a copy: the model is not touched
    assert np.abs(clf.graph_["positive"]).max() > 0.1


def test_training_lowers_the_loss_and_says_so() -> None:
    clf, held = hegraph().fit(X, Y), hegraph(penalty=1e6).fit(X, Y)
    assert clf.n_iter_ > 0
    assert log_loss(Y, clf.predict_proba(X)) < log_loss(Y, held.predict_proba(X))


def test_path_weights_act_by_what_more_shots_tell() -> None:
    clf = hegraph(positive_to_positive=0.3, visual_to_positive=0.7).fit(X, Y)
    share = np.sqrt(1 - np.mean(1 / np.bincount(Y)))
    assert clf.positive_to_positive_ == pytest.approx(0.3 * share)
    assert clf.visual_to_positive_ == pytest.approx(0.7 * share)
    alone = hegraph(text_features="prototypes").fit(X, Y)
    assert (alone.positive_to_positive_, alone.negative_to_positive_) == (0, 0)
    assert alone.visual_to_positive_ == pytest.approx(1.5 * share)


def test_given_shrinkage_stays() -> None:
    assert hegraph(shrinkage=0.7).fit(X, Y).shrinkage_ == 0.7


def test_a_fit_that_fails_leaves_the_fitted_estimator() -> None:
    clf = hegraph().fit(X, Y)
    before = clf.predict(QUERIES)
    with pytest.raises(ValueError, match="positive array has shape"):
        clf.fit(QUERIES[:, :5], np.repeat(["a", "b"], 30))
    assert clf.n_features_in_ == D
    np.testing.assert_array_equal(clf.predict(QUERIES), before)


def test_messages_move_the_visual_nodes_to_the_text() -> None:
    def distance(strength: float) -> float:
        clf = hegraph(positive_to_visual=strength, visual_to_visual=0.0).fit(X, Y)
        assert clf.positive_to_visual_ == strength
        centred = [nodes - nodes.mean(axis=0) for nodes in (clf.visual_nodes_, unit_rows(PAIR[0]))]
        return float(np.square(centred[0] - strength * centred[1]).sum())

    means = hegraph().fit(X, Y).graph_["visual"]
    text = unit_rows(PAIR[0])
    plain = np.square(means - means.mean(axis=0) - 0.8 * (text - text.mean(axis=0))).sum()
    assert distance(0.8) < plain


@pytest.mark.parametrize(
    ("params", "ignored"),
    [
        ({"text_features": "prototypes", "text_weight": 1.0}, "text_weight: ignored, since text_f"),
        (
            {"text_features": "prototypes", "positive_to_positive": 0.1},
            "positive_to_positive: ignored",
        ),
        (
            {"logit_scale": 9.0, "text_weight": 0, "negative_to_positive": 0},
            "logit_scale: ignored, since text",
        ),
        ({"logit_scale": 9.0, "text_weight": 0}, "logit_scale: ignored, since text"),
        (
            {"negative_templates": "no {}", "negative_to_positive": 0},
            "negative_templates: ignored, since neg",
        ),
    ],
)
def test_no_parameter_is_ignored_in_silence(params: dict[str, Any], ignored: str) -> None:
    with pytest.warns(UserWarning, match=ignored):
        hegraph(**params).fit(X, Y)


def test_images_that_equal_their_text_and_images_without_a_signal() -> None:
    P = unit_rows(np.random.RandomState(0).randn(2, 8))
    same = HeGraphClassifier(text_features=P).fit(np.vstack([P, P]), [0, 1, 0, 1])
    assert same.predict(P).tolist() == [0, 1]
    text = unit_rows(np.random.RandomState(1).randn(4, 16))
    blank = HeGraphClassifier(text_features=text).fit(np.ones((4, 16)), range(4))
    assert blank.predict(text).tolist() == [0, 1, 2, 3]  # the text still tells
    near = 1 + 1e-9 * np.random.RandomState(2).randn(4, 16)
    noise = HeGraphClassifier(text_features=text).fit(near, range(4))
    single = noise.predict_proba(text.astype(np.float32))
    np.testing.assert_allclose(single, noise.predict_proba(text), atol=1e-3)


def test_a_class_of_light_rows_costs_the_others_nothing() -> None:
    rows, y = make_data([6] * C, seed=4)
    weight = np.where(y == 0, 1e-6, 1.0)
    clf = hegraph(text_features="prototypes").fit(rows, y, sample_weight=weight)
    others = TRUTH != 0
    assert clf.score(QUERIES[others], TRUTH[others]) > 0.75


@pytest.mark.filterwarnings("error")
def test_defaults_warn_of_nothing() -> None:
    hegraph().fit(X, Y)
    hegraph(text_features="prototypes").fit(X, Y)


@pytest.mark.parametrize("name", ["text", "visual"])
def test_weight_zero_leaves_the_other_branch(name: str) -> None:
    clf = hegraph(**{f"{name}_weight": 0.0, "penalty": 1e6}).fit(X, Y)
    branches = clf.branch_proba(QUERIES)
    np.testing.assert_allclose(branches[name], 1 / C, atol=1e-3)
    other = branches["visual" if name == "text" else "text"]
    np.testing.assert_allclose(branches.fused, other, atol=1e-3)


# --- invariances ----------------------------------------------------------------------------------


@both
def test_weight_of_k_equals_k_copies(make: Any) -> None:
    weight = np.random.default_rng(0).integers(0, 4, len(Y))
    again = np.repeat(np.arange(len(Y)), weight)
    weighted = make().fit(X, Y, sample_weight=weight)
    repeated = make().fit(X[again], Y[again])
    a, b = weighted.predict_proba(QUERIES), repeated.predict_proba(QUERIES)
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.abs(a - make().fit(X, Y).predict_proba(QUERIES)).max() > 1e-3


@both
@pytest.mark.parametrize("text", [PAIR, "prototypes"], ids=["pair", "prototypes"])
def test_order_of_the_support_does_not_matter(make: Any, text: Any) -> None:
    order = np.random.default_rng(0).permutation(len(Y))
    first = make(text_features=text).fit(X, Y)
    second = make(text_features=text).fit(X[order], Y[order])
    a, b = first.predict_proba(QUERIES), second.predict_proba(QUERIES)
    np.testing.assert_allclose(a, b, atol=1e-6)


@both
def test_not_transductive_and_blind_to_length(make: Any) -> None:
    clf = make().fit(X, Y)
    whole = clf.predict_proba(QUERIES)
    one = np.vstack([clf.predict_proba(7 * row[None]) for row in QUERIES])
    np.testing.assert_allclose(one, whole, atol=1e-9)
    np.testing.assert_allclose(clf.predict_proba(QUERIES[::-1])[::-1], whole, atol=1e-9)


@both
def test_chunks_of_queries_equal_one_piece(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clf = make().fit(X, Y)
    whole = clf.predict_proba(QUERIES), clf.decision_function(QUERIES), clf.predict(QUERIES)
    monkeypatch.setattr("skhegraph.parallel.ROWS_AT_ONCE", 7)
    monkeypatch.setattr("skhegraph.feature_classifier.PRODUCT_OF_ONE_THREAD", 0)
    parts = clf.predict_proba(QUERIES), clf.decision_function(QUERIES), clf.predict(QUERIES)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_single_precision_of_a_large_fit_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    want = hegraph().fit(X, Y)
    monkeypatch.setattr("skhegraph.parallel.LOGITS_IN_DOUBLE", 0)
    got = hegraph().fit(X, Y)
    for method in ("predict_proba", "score_samples"):
        np.testing.assert_allclose(
            getattr(got, method)(QUERIES), getattr(want, method)(QUERIES), atol=2e-3
        )


@both
def test_deterministic_without_global_state(make: Any) -> None:
    first = make().fit(X, Y).predict_proba(QUERIES)
    np.random.seed(5)
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    again = make().fit(X, Y).predict_proba(QUERIES)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(first, again)
    if make is adapter:
        one, other = (
            make(random_state=seed, batch_size=7).fit(X, Y).predict_proba(QUERIES)
            for seed in (0, 1)
        )
        assert np.abs(one - other).max() > 1e-6


@both
def test_inputs_and_parameters_are_left_alone(make: Any) -> None:
    given = [X.copy(), Y.copy(), np.ones(len(Y)), PAIR[0].copy(), PAIR[1].copy(), QUERIES.copy()]
    for array in given:
        array.flags.writeable = False
    support, labels, weight, positive, negative, queries = given
    clf = make(text_features=(positive, negative))
    before = clf.get_params()
    clf.fit(support, labels, sample_weight=weight).predict_proba(queries)
    after = clf.get_params()
    assert all(after[name] is value for name, value in before.items())


@both
def test_float32_and_frames(make: Any) -> None:
    single = X.astype(np.float32)
    want = make().fit(single.astype(float), Y).predict_proba(QUERIES)
    # Coefficients are in the precision of the rows.
    got = make().fit(single, Y).predict_proba(QUERIES)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    columns = [f"f{i}" for i in range(D)]
    framed = make().fit(pd.DataFrame(X, columns=columns), pd.Series(Y))
    assert framed.feature_names_in_.tolist() == columns
    plain = make().fit(X, Y).predict_proba(QUERIES)
    framed_proba = framed.predict_proba(pd.DataFrame(QUERIES, columns=columns))
    np.testing.assert_allclose(framed_proba, plain, rtol=1e-9)


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(plain(v) for v in value)
    if isinstance(value, np.ndarray):
        return value.dtype != object
    return value is None or type(value) in (bool, int, float, str)


@both
def test_fitted_attributes_are_plain(make: Any) -> None:
    clf = make().fit(X, Y)
    fitted = {name: v for name, v in vars(clf).items() if name not in clf.get_params()}
    assert all(name.endswith("_") for name in fitted)
    assert [name for name, value in fitted.items() if not plain(value)] == []


@both
def test_refit_leaves_nothing_stale(make: Any) -> None:
    clf = make(visual_to_positive=0.1).fit(pd.DataFrame(X).add_prefix("f")[::-1], Y[::-1])
    clf.set_params(**make().get_params()).fit(X, Y)
    fresh = make().fit(X, Y)
    assert set(vars(clf)) == set(vars(fresh))
    np.testing.assert_array_equal(clf.predict_proba(QUERIES), fresh.predict_proba(QUERIES))


@pytest.mark.parametrize(
    ("make", "changed"),
    [
        (hegraph, {"text_weight": 9.0, "visual_weight": 0.0, "logit_scale": 1.0}),
        (adapter, {"sharpness": 9.0, "visual_weight": 0.0, "logit_scale": 1.0}),
    ],
)
def test_set_params_waits_for_fit(make: Any, changed: dict[str, Any]) -> None:
    clf = make().fit(X, Y)
    want = clf.predict_proba(QUERIES)
    np.testing.assert_array_equal(clf.set_params(**changed).predict_proba(QUERIES), want)


def test_graph_of_a_fitted_model_does_not_follow_the_parameters() -> None:
    clf = hegraph().fit(X, Y)
    before = clf.to_hetero_data()["visual", "to", "positive"].edge_weight
    after = clf.set_params(visual_to_positive=0.1).to_hetero_data()
    assert torch.equal(before, after["visual", "to", "positive"].edge_weight)


# --- weights of rows and classes ------------------------------------------------------------------


@both
@pytest.mark.parametrize("scale", [1e-9, 1 / 20, 1e9])
def test_the_scale_of_the_weights_changes_nothing(make: Any, scale: float) -> None:
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(Y))
    want = make().fit(X, Y, sample_weight=weight).predict_proba(QUERIES)
    got = make().fit(X, Y, sample_weight=scale * weight).predict_proba(QUERIES)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert np.abs(want - make().fit(X, Y).predict_proba(QUERIES)).max() > 1e-3


def test_class_weight_is_the_probability_before_an_image_is_seen() -> None:
    balanced = hegraph().fit(X, Y)
    as_drawn = hegraph(class_weight=None).fit(X, Y)
    np.testing.assert_allclose(np.exp(as_drawn.log_prior_), np.bincount(Y) / len(Y))
    counts = np.bincount(Y)
    evened = hegraph(class_weight={c: 1 / counts[c] for c in range(C)}).fit(X, Y)
    np.testing.assert_allclose(
        evened.predict_proba(QUERIES), balanced.predict_proba(QUERIES), atol=1e-6
    )
    for label in range(C):
        favoured = hegraph(class_weight={c: 1e4 if c == label else 1.0 for c in range(C)})
        assert (favoured.fit(X, Y).predict(QUERIES) == label).mean() > (label == TRUTH).mean()


def test_more_rows_of_some_classes_do_not_cost_accuracy_on_a_balanced_test() -> None:
    few, many = [], []
    for seed in range(10):
        rows, y = make_data([20, 20, 20, 20], seed=100 + seed)
        rows = np.hstack([0.4 * rows, np.random.default_rng(seed).normal(size=(80, 20))])
        queries, truth = make_data([50] * C, seed=200 + seed)
        queries = np.hstack(
            [0.4 * queries, np.random.default_rng(seed + 50).normal(size=(200, 20))]
        )
        first_two = np.concatenate([np.flatnonzero(y == c)[:2] for c in range(C)])
        unbalanced = np.concatenate([first_two, np.flatnonzero(y < 2)])
        for scores, support in ((few, first_two), (many, np.unique(unbalanced))):
            clf = hegraph(text_features="prototypes")
            scores.append(clf.fit(rows[support], y[support]).score(queries, truth))
    assert np.mean(many) > np.mean(few)


# --- classes and shots ----------------------------------------------------------------------------


@both
@pytest.mark.parametrize("labels", [["no", "yes"], [3, -7], [False, True]], ids=str)
def test_two_classes(make: Any, labels: list[Any]) -> None:
    two, y2 = make_data([4, 6])
    pair = tuple(text[:2] for text in PAIR)
    clf = make(text_features=pair).fit(two, np.array(labels)[y2])
    margin, proba = clf.decision_function(QUERIES), clf.predict_proba(QUERIES)
    assert margin.shape == (len(QUERIES),)
    np.testing.assert_array_equal(clf.predict(QUERIES), clf.classes_[(margin > 0).astype(int)])
    np.testing.assert_allclose(1 / (1 + np.exp(-margin)), proba[:, 1], rtol=1e-9)
    assert 0 < (margin > 0).sum() < len(margin)


@both
@pytest.mark.parametrize("text", [PAIR, "prototypes"], ids=["pair", "prototypes"])
@pytest.mark.parametrize("shots", [[1] * C, [1, 9, 2, 30]], ids=str)
def test_few_and_unequal_shots(make: Any, text: Any, shots: list[int]) -> None:
    support, y = make_data(shots, seed=3)
    clf = make(text_features=text).fit(support, y)
    assert np.isfinite(clf.predict_log_proba(QUERIES)).all()
    assert clf.score(QUERIES, TRUTH) > 0.5
    # The class of 30 shots is not favoured: each class is true of 15 queries.
    assert np.bincount(clf.predict(QUERIES), minlength=C).max() <= 26


# --- display and progress -------------------------------------------------------------------------


def test_html_repr_loads_nothing() -> None:
    code = (
        "import sys\n"
        "from skhegraph import HeGraphClassifier\n"
        "html = HeGraphClassifier('ViT-L-14', 'no-such-tag')._repr_html_()\n"
        "print('HeGraphClassifier' in html, {'torch', 'open_clip'} & set(sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "True set()"


@pytest.mark.parametrize("verbose", [0, 1])
def test_progress_goes_to_stderr(capfd: pytest.CaptureFixture[str], verbose: int) -> None:
    adapter(verbose=verbose).fit(X, Y).predict(QUERIES)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("training" in err) == bool(verbose)
