"""Rows without a label join the graph: one step of expectation-maximisation, cross-fitted.

A classifier of the labelled rows gives a row `u` without a label the probabilities `r_uc` of its
class. The row then joins every class, with the weight

    q_uc = share w_u f_u r_uc^2,

`w_u` its sample weight. A row counts for a class with its probability, and once more with it: of
what it adds to the class, the part `r_uc` is expected to be right. Rows of other classes count for
little: `f_u` is twice the share of rows of the classes that are less familiar
(:mod:`skhegraph.hegraph.familiarity`), 1 at most. Half of all rows at least are taken to be of the
classes: where their median is below that of labelled rows, `f_u` is 1 from it on.

The class means get `sum_u q_uc x_u` and the shots `sum_u q_uc` more, and the visual nodes are
adapted anew. Strengths of messages and the covariance rest on labelled rows (and on how far they
are from the others of their class): where rows of all classes count for each, class means differ
too little, and images of a class too much.

How sure the new logits are, no row tells whose label has led others to its class. So `a`, `b`, the
shrinkage and `share` minimise the log-loss of rows that neither nodes nor probabilities have seen:
both are made anew without each of `N_FOLDS` parts of the rows, by text alone for classes that lose
all their rows. Logits of such a model may lie far closer together than those of the whole one, so
`b` is estimated in units of their spread. Text nodes are then trained on the labelled rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from skhegraph.feature_classifier import softmax_rows
from skhegraph.hegraph.adaptation import (
    Adapted,
    Strengths,
    adapt,
    adapt_text,
    branches,
    by_text_alone,
    loss_weights,
    visual_model,
)
from skhegraph.hegraph.familiarity import familiarity, log_density, prominence
from skhegraph.hegraph.fusion import (
    Fusion,
    calibration_rows,
    fit_fusion_weights,
    least_loss,
    prior_of_text,
    prior_of_visual,
    shots_per_class,
    visual_unit,
)
from skhegraph.hegraph.logits import text_logits
from skhegraph.hegraph.priors import (
    FUSION_WIDTH,
    SHOTS_POWER,
    SHRINKAGE_PRIOR,
    SHRINKAGES,
    TEXT_MEDIAN,
    UNLABELLED_SHARES,
    VISUAL_MEDIAN,
    VISUAL_MEDIAN_ALONE,
)
from skhegraph.hegraph.visual import Linear, VisualModel
from skhegraph.labelled_rows import LabelledRows
from skhegraph.parallel import map_rows, sum_rows
from skhegraph.support import (
    Floats,
    Ints,
    Mixture,
    Named,
    Support,
    in_span,
    sums_of_cubes,
    unit_rows,
    with_rows_from_text,
)

#: Parts of the labelled rows that are held out in turn.
N_FOLDS = 3
#: Rows that are enough for the median of the familiarity and the spread of logits.
SOME_ROWS = 2000
#: Least weight of a class, so that its mean is defined: a row of it would count for far more.
LEAST_COUNT = 1e-9


class Unlabelled(NamedTuple):
    """Rows without a label, not scaled, and their weights on the scale of the labelled ones."""

    X: Floats
    weight: Floats

    @classmethod
    def of(
        cls, others: LabelledRows, labelled: LabelledRows, support: Support
    ) -> Unlabelled | None:
        """Of rows as given, with weights as the support set has made of those of `labelled` rows.

        Without labelled rows a weight of 1 is the mean. None without rows.
        """
        if not len(others.y):
            return None
        if len(support.y):
            unit = support.sample_weight.sum() / labelled.weight.sum()
        else:
            unit = len(others.y) / others.weight.sum()
        return cls(others.X, unit * others.weight)


class Guess(NamedTuple):
    """A classifier of all classes, fitted on labelled rows or on names alone.

    Attributes
    ----------
    coef, intercept : ndarray of shape (n_classes, n_features) and (n_classes,)
        Of unit rows, with the log-probability of the classes.
    nodes, whitener, centre : ndarray
        See :func:`skhegraph.hegraph.familiarity.log_density`.
    outside_variance : float
        The same.
    scale : ndarray of shape (3,)
        Scale of familiarity; zeros where nothing is known.
    model : VisualModel or None
        Visual model of the labelled rows; None for names alone.
    """

    coef: Floats
    intercept: Floats
    nodes: Floats
    whitener: Floats
    centre: Floats
    outside_variance: float
    scale: Floats
    model: VisualModel | None

    @classmethod
    def of(cls, support: Support, adapted: Adapted, prior: Floats) -> Guess:
        """Of an adapted graph."""
        fitted, discriminant = branches(support, adapted), adapted.discriminant
        return cls(
            fitted.text_coef + fitted.visual_coef,
            fitted.text_intercept + fitted.visual_intercept + np.log(prior),
            fitted.visual_nodes,
            discriminant.whitener() @ adapted.basis,
            discriminant.centre @ adapted.basis,
            discriminant.outside_variance(),
            adapted.familiarity_scale,
            discriminant.model,
        )

    @classmethod
    def of_names(cls, support: Support, prior: Floats) -> Guess:
        """Zero-shot."""
        nodes, empty = support.positive, np.empty((0, support.X.shape[1]))
        coef = support.logit_scale * nodes
        centre = np.zeros(nodes.shape[1])
        return cls(coef, np.log(prior), nodes, empty, centre, np.inf, np.zeros(3), None)

    def __call__(self, Z: Floats) -> tuple[Floats, Floats]:
        """Probabilities and familiarity of unit rows."""
        logits = Z @ self.coef.T + self.intercept
        density = log_density(Z, self.nodes, self.whitener, self.centre, self.outside_variance)
        score = familiarity(density, prominence(logits), self.scale)
        return softmax_rows(logits), score

    def proba(self, X: Floats) -> Floats:
        """Probabilities of rows of any length, in blocks."""

        def of_block(block: slice) -> Floats:
            """Probabilities of a block of rows."""
            return self(unit_rows(X[block].astype(np.float64)))[0]

        return np.concatenate(list(map_rows(of_block, len(X), max(self.coef.shape))))


def spread_rows(rows: Unlabelled) -> tuple[Floats, Floats]:
    """Unit rows that stand for all, `SOME_ROWS` or somewhat more, and their weights."""
    step = max(len(rows.weight) // SOME_ROWS, 1)  # by a value: their order may follow classes
    some = np.argsort(rows.X[:, -1], kind="stable")[::step]
    return unit_rows(rows.X[some].astype(np.float64)), rows.weight[some]


class Sample(NamedTuple):
    """Unit rows that stand for all rows without a label, weights, and classes by a guess."""

    rows: Floats
    weight: Floats
    labels: Ints


def sample_of(rows: Unlabelled, guess: Guess) -> Sample:
    """Make the sample."""
    some, weight = spread_rows(rows)
    return Sample(some, weight, guess(some)[0].argmax(axis=1))


def unit_of(sample: Sample, linear: Linear, basis: Floats, G: Floats, y: Ints) -> float:
    """Unit of `b` by the visual logits `G` of a few held-out rows and by those of the sample."""
    logits = np.vstack([G, linear(sample.rows @ basis.T)])
    labels = np.concatenate([y, sample.labels])
    return visual_unit(logits, labels, np.concatenate([np.ones(len(y)), sample.weight]))


def median(values: Floats, weight: Floats) -> float:
    """Weighted median; between the two middle values where half of the weight is below."""
    order = np.argsort(values)
    below = np.cumsum(weight[order]) / weight.sum()
    middle = np.searchsorted(below, 0.5 - 1e-9), np.searchsorted(below, 0.5 + 1e-9)
    return float(values[order[list(middle)]].mean())


def mixture_of(rows: Unlabelled, guess: Guess) -> Mixture:
    """What rows without a label add to the classes, `share` being 1."""
    some, weight = spread_rows(rows)
    usual = min(median(guess(some)[1], weight), 0.0)

    def of_block(block: slice) -> Floats:
        """Counts and sums of a block of rows, side by side."""
        Z = unit_rows(rows.X[block].astype(np.float64))
        proba, score = guess(Z)
        part = rows.weight[block, None] * parts(proba, score - usual)
        return part.T @ np.column_stack([np.ones(len(Z)), Z])

    both = sum_rows(of_block, len(rows.weight), max(guess.coef.shape))
    return Mixture(both[:, 0], both[:, 1:])


def parts(proba: Floats, score: Floats) -> Floats:
    """How much rows count for each class, `f_u r_uc^2`, by probabilities and familiarity."""
    known = np.minimum(2 * ndtr(score), 1)
    return known[:, None] * np.square(proba)


def counted(mixture: Mixture, share: float, nodes: Floats) -> Mixture:
    """A mixture of which a share counts; where there is none of a class, its node does."""
    counts, sums = share * mixture.counts, share * mixture.sums
    lacking = np.maximum(LEAST_COUNT - counts, 0)
    return Mixture(counts + lacking, sums + lacking[:, None] * nodes)


def of_all_classes(support: Support) -> Support:
    """The support set with classes that have a name alone among all others."""
    named, summed = support.named, support.summed
    if named is None:
        return support
    return replace(
        support,
        y=np.flatnonzero(~named.mask)[support.y],
        positive=named.merge(support.positive, named.positive),
        negative=named.merge(support.negative, named.negative),
        named=None,
        summed=None if summed is None else summed.each(lambda part: named.merge(part, 0)),
    )


def some_rows(whole: Support, chosen: np.ndarray) -> Support:
    """Some rows of a support set of all classes; classes without a row are named."""
    with_rows, y = np.unique(whole.y[chosen], return_inverse=True)
    mask = np.ones(whole.n_classes, dtype=bool)
    mask[with_rows] = False
    P, N, summed = whole.positive, whole.negative, whole.summed
    return replace(
        whole,
        X=whole.X[chosen],
        y=y.astype(np.intp),
        sample_weight=whole.sample_weight[chosen],
        positive=P[~mask],
        negative=N[~mask],
        named=Named(mask, P[mask], N[mask]) if mask.any() else None,
        summed=None if summed is None else summed.each(lambda part: part[~mask]),
    )


def folds(whole: Support, rows: Ints, has_text: bool) -> Ints:
    """Fold of each support row, -1 for those that are never held out.

    Rows of a class are in different folds. Without text a class needs a row in every fold. The
    order is that of the sum of cubes in a row, and of the least in a class: neither what classes
    are called nor the order of rows or features matters, nor the last digits.
    """
    fold = np.full(len(whole.y), -1)
    n_rows = np.bincount(whole.y, minlength=whole.n_classes)
    held = rows if has_text else rows[n_rows[whole.y[rows]] > 1]
    y, cubes = whole.y[held], sums_of_cubes(whole.X[held])
    least = np.full(whole.n_classes, np.inf)
    np.minimum.at(least, y, cubes)
    fold[held[np.lexsort([cubes, y, least[y]])]] = np.arange(len(held)) % N_FOLDS
    return fold


def adapt_graph(
    support: Support,
    rows: Unlabelled | None,
    prior: Floats,
    strengths: Strengths,
    has_text: bool,
) -> tuple[Support, Adapted, Guess | None]:
    """Adapt the graph to what there is: labelled rows, rows without a label, names.

    Returns
    -------
    support : Support
        That the graph was adapted to.
    adapted : Adapted
        The adapted graph.
    guess : Guess or None
        By which rows without a label joined the classes; None without such rows.
    """
    if rows is not None:
        return adapt_with_unlabelled(support, rows, prior, strengths, has_text)
    if support.n_classes > 1:
        return support, adapt(support, prior, strengths, has_text), None
    support = with_rows_from_text(support)
    adapted = adapt(support, prior, by_text_alone(strengths), has_text)
    # Nothing tells how images of the classes scatter.
    return support, adapted._replace(familiarity_scale=np.zeros(3)), None


def adapt_with_unlabelled(
    support: Support, rows: Unlabelled, prior: Floats, strengths: Strengths, has_text: bool
) -> tuple[Support, Adapted, Guess]:
    """Adapt the graph to labelled rows and to rows without a label.

    Parameters
    ----------
    support : Support
        Labelled rows; where fewer than two classes have any, the text tells the probabilities.
    rows : Unlabelled
        Rows without a label.
    prior : ndarray of shape (n_classes,)
        Probability of each class before an image is seen.
    strengths : Strengths
        Parameters of the graph.
    has_text : bool
        Whether the positive nodes are text, not class means.

    Returns
    -------
    support : Support
        All classes, with what the rows add to them.
    adapted : Adapted
        The adapted graph.
    guess : Guess
        By which the rows joined the classes.
    """
    whole = of_all_classes(support)
    if support.n_classes < 2:
        return adapt_by_names(whole, rows, prior, strengths, has_text)
    alone = adapt(support, prior, strengths, has_text)
    guess = Guess.of(support, alone, prior)
    weights = fit_on_folds(whole, rows, prior, strengths, has_text, alone)
    share = min(UNLABELLED_SHARES) if weights is None else weights.share
    shrinkage = alone.discriminant.shrinkage if weights is None else weights.shrinkage
    whole = replace(whole, mixture=counted(mixture_of(rows, guess), share, guess.nodes))
    inside, basis = in_span(whole)
    model = visual_model(inside, strengths, has_text, whole.X.shape[1], guess.model)
    discriminant, told = model.at(shrinkage), calibration_rows(whole)
    held_out = discriminant.leave_one_out(told)
    a = alone.text_weight if weights is None else weights.text
    b = strengths.visual_weight
    if b is None:
        sample, linear = sample_of(rows, guess), discriminant.linear()
        b = VISUAL_MEDIAN_ALONE if weights is None else weights.visual
        b *= unit_of(sample, linear, basis, held_out, whole.y[told])
    fusion = Fusion(discriminant, a, b, held_out)
    weight = loss_weights(whole, prior)
    adapted = adapt_text(inside, basis, fusion, told, weight, prior, strengths, has_text)
    return whole, adapted, guess


def adapt_by_names(
    whole: Support, rows: Unlabelled, prior: Floats, strengths: Strengths, has_text: bool
) -> tuple[Support, Adapted, Guess]:
    """The same where no two classes have a labelled row: zero-shot adapts to the images.

    The mean of the rows that text gives a class takes the place of an image of it, and the weights
    are what they are before any label is seen.
    """
    guess = Guess.of_names(whole, prior)
    mixture = counted(mixture_of(rows, guess), 1.0, whole.positive)
    means = unit_rows(mixture.sums / mixture.counts[:, None])
    lacking = np.flatnonzero(whole.shots <= 0)
    whole = replace(
        whole,
        X=np.vstack([whole.X, means[lacking]]),
        y=np.concatenate([whole.y, lacking]),
        sample_weight=np.concatenate([whole.sample_weight, np.ones(len(lacking))]),
    )
    a, b = strengths.text_weight, strengths.visual_weight
    strengths = by_text_alone(strengths)._replace(text_weight=TEXT_MEDIAN if a is None else a)
    adapted = adapt(whole, prior, strengths, has_text)
    if b is None:  # in units of the logits of rows: means lie closer together
        fitted = branches(whole, adapted._replace(visual_weight=1.0))
        some, weight = spread_rows(rows)
        G = some @ fitted.visual_coef.T + fitted.visual_intercept
        b = VISUAL_MEDIAN * visual_unit(G, guess(some)[0].argmax(axis=1), weight)
    adapted = adapted._replace(visual_weight=b, familiarity_scale=np.zeros(3))
    return whole, adapted, guess


class Weights(NamedTuple):
    """Fusion weights, shrinkage and share, and the penalised loss (nats) of held-out rows.

    The visual weight is in units of :func:`unit_of`, where it is not given.
    """

    text: float
    visual: float
    shrinkage: float
    share: float
    loss: float


class Part(NamedTuple):
    """The graph without some rows: the support set, what the others add, and its scales."""

    held: Ints
    support: Support
    mixture: Mixture
    guess: Guess
    sample: Sample


def fit_on_folds(
    whole: Support,
    rows: Unlabelled,
    prior: Floats,
    strengths: Strengths,
    has_text: bool,
    alone: Adapted,
) -> Weights | None:
    """Weights `a` and `b`, shrinkage and share by the log-loss of rows that are held out.

    The probabilities of each part come from a classifier with the weights and the shrinkage of all
    labelled rows, `alone`. None where no row can be held out: one a class without text, or of two
    classes.
    """
    told = calibration_rows(whole)
    fold = folds(whole, told, has_text)
    left = [len(np.unique(whole.y[fold != k])) for k in range(N_FOLDS)]
    if min(left) < 2 or not (fold >= 0).any():
        return None
    held_out = np.flatnonzero(fold >= 0)
    y, weight = whole.y[held_out], loss_weights(whole, prior)[held_out]
    text = None
    if has_text:
        text = text_logits(whole.X[held_out], whole.positive, whole.logit_scale)
    T = np.zeros((len(y), whole.n_classes)) if text is None else text
    given = strengths._replace(
        text_weight=alone.text_weight,
        visual_weight=alone.visual_weight,
        shrinkage=alone.discriminant.shrinkage,
    )
    without: list[Part] = []
    for k in range(N_FOLDS):
        rest = some_rows(whole, fold != k)
        guess = Guess.of(rest, adapt(rest, prior, given, has_text), prior)
        held = np.flatnonzero(fold == k)
        without.append(Part(held, rest, mixture_of(rows, guess), guess, sample_of(rows, guess)))
    text_prior = prior_of_text(text, y, weight, strengths.text_weight)
    usual = VISUAL_MEDIAN * shots_per_class(whole) ** SHOTS_POWER

    def with_share(share: float) -> Weights:
        """The best for a share."""
        models = [model_of(part, whole, share, strengths, has_text) for part in without]

        def at(shrinkage: float) -> Weights:
            """The best for a shrinkage."""
            G = np.empty_like(T)
            for part, (model, basis) in zip(without, models, strict=True):
                linear, labels = model.at(shrinkage).linear(), whole.y[part.held]
                logits = linear(whole.X[part.held] @ basis.T)
                if strengths.visual_weight is None:
                    logits *= unit_of(part.sample, linear, basis, logits, labels)
                G[np.searchsorted(held_out, part.held)] = logits
            visual_prior = prior_of_visual(usual, FUSION_WIDTH, strengths.visual_weight)
            fitted = fit_fusion_weights(T, G, y, weight, text_prior, visual_prior)
            loss = fitted.loss + SHRINKAGE_PRIOR * np.log(shrinkage) ** 2
            a = fitted.text if has_text else 0.0
            return Weights(a, fitted.visual, shrinkage, share, loss)

        if strengths.shrinkage is not None:
            return at(strengths.shrinkage)
        return least_loss(lambda some: list(map(at, some)), SHRINKAGES)

    return min(map(with_share, UNLABELLED_SHARES), key=lambda weights: weights.loss)


def model_of(
    part: Part, whole: Support, share: float, strengths: Strengths, has_text: bool
) -> tuple[VisualModel, Floats]:
    """Visual model of a part with a share of the rows without a label, and its coordinates."""
    mixture = counted(part.mixture, share, part.guess.nodes)
    support = replace(of_all_classes(part.support), mixture=mixture)
    inside, basis = in_span(support)
    n_features = whole.X.shape[1]
    return visual_model(inside, strengths, has_text, n_features, part.guess.model), basis
