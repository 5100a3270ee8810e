"""HeGraphClassifier: few-shot classification on CLIP features through a heterogeneous graph."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skhegraph._sklearn import Interval, StrOptions, num_samples
from skhegraph.feature_classifier import (
    TextFeatures,
    all_or_nothing,
    non_negative,
    positive,
)
from skhegraph.hegraph.adaptation import Strengths, given
from skhegraph.hegraph.class_graph import Paths
from skhegraph.hegraph.fitted_graph import FittedGraph
from skhegraph.hegraph.parameters import (
    check_unknown_label,
    class_prior,
    warn_if_ignored,
)
from skhegraph.hegraph.priors import (
    NEGATIVE_TO_POSITIVE,
    POSITIVE_TO_POSITIVE,
    VISUAL_TO_POSITIVE,
)
from skhegraph.hegraph.unlabelled import Unlabelled, adapt_graph
from skhegraph.hegraph.useless_text import leave_out_useless
from skhegraph.labelled_rows import LabelledRows
from skhegraph.labels import UNLABELLED, labels_in, signed, without_label
from skhegraph.many_rows import keep_some
from skhegraph.parallel import one_blas_thread
from skhegraph.prompted_classifier import PromptedClassifier
from skhegraph.prompted_text import ClassNames, Templates

#: Rows of a class that `fit` keeps for explanations and `partial_fit`: several times the shots of
#: a few-shot task, and a bound of the size where there are thousands.
SHOTS_KEPT = 64
#: Rows without a label of which `fit` keeps the probabilities: bounds the size.
UNLABELLED_KEPT = 10_000


class HeGraphClassifier(FittedGraph, PromptedClassifier):
    """Few-shot classifier on CLIP features that adapts text and images on a heterogeneous graph.

    One graph joins a positive-text, a negative-text and a visual node of each class. Messages
    adapt the visual nodes to the text and to each other, in closed form; messages from all three
    kinds of nodes, through one trained matrix, and a residual per class adapt the text nodes; the
    prediction is the softmax of `a T + b G`, with the weights `a` and `b` of the text logits `T`
    and the visual logits `G` estimated on leave-one-out logits.
    :mod:`skhegraph.hegraph` tells how it works.

    It builds on HeGraphAdapter [1]_, of which no author code is public, and does not claim the
    paper's numbers: :class:`HeGraphAdapterClassifier` is the described method, and
    everything that differs from it is ours.

    Parameters
    ----------
    model_name : str, default="ViT-B-32"
        CLIP whose text tower encodes the prompts, named as in :class:`CLIPFeatures`;
        ``"skhegraph-lite"`` is bundled.
    pretrained : str or None, default="laion2b_s34b_b79k"
        Weights tag or local checkpoint.
    text_features : {"clip", "prototypes"}, array-like, mapping, or pair of these, default="clip"
        ``"clip"`` encodes prompts. An array of shape (n_classes, n_features) gives positive text
        features, rows in the order of the sorted labels; a mapping from label to row, or a frame
        with labels as its index, may hold more labels than occur. The negative node of a class is
        then the mean of the other classes' positives. A pair (positive, negative) gives both.
        ``"prototypes"`` uses no text (any numeric matrix will do). Text at chance is left out.
    class_names : None, sequence of str, or mapping, default=None
        Names for the prompts: None takes string labels; a sequence follows the sorted labels; a
        mapping goes from label to name, where string labels that it lacks stand for themselves.
    templates : str, sequence of str, or mapping, default="photo"
        Preset of :data:`skhegraph.clip.prompts.PRESETS`, format string(s) with one ``{}``, or a
        mapping from class name to whole description(s).
    negative_templates : str, sequence of str, mapping or None, default=None
        The same for the negative nodes; None takes the preset's.
    logit_scale : float or None, default=None
        `tau`; None takes the CLIP's own, 100 where there is none.
    positive_to_visual : float or "auto", default="auto"
        Message `rho` from the text of a class to its visual node: how far the visual node moves
        for a move of the text by 1. Cosines of images are smaller than those of texts, so it is
        mostly between 0.2 and 1; 0 switches it off. "auto" estimates it. Needs text.
    visual_to_visual : float or "auto", default="auto"
        Messages between visual nodes whose texts are alike, in units of the variance of a class
        mean about its prediction: at 1 half of that variance is shared between alike classes; 0
        switches it off. "auto" estimates it. Needs texts that differ.
    positive_to_positive : float, default=0.25
        Path weight of the messages among text nodes whose texts are alike (Eq. 3). Of this and the
        next two: at 1 a message may change a text node as much as its own residual may; 0 switches
        the relation off. From two shots on. Needs text.
    visual_to_positive : float, default=1.5
        Path weight of the messages from visual to text nodes (Eq. 3).
    negative_to_positive : float, default=0.1
        Path weight of the messages from negative to positive text nodes (Eq. 4); the negative nodes
        have heard from both others (Eq. 1-2). Needs text.
    text_weight : float or "auto", default="auto"
        `a`; "auto" estimates it. Needs text.
    visual_weight : float or "auto", default="auto"
        `b`; "auto" estimates it.
    shrinkage : float or "auto", default="auto"
        Covariance shrinkage of the visual branch towards a sphere, in pseudo-rows per feature.
        "auto" chooses it by the held-out loss; 1 where no class has three rows.
    penalty : float, default=3.0
        Strength of the ridge on the trained matrix and the residuals, in units of one over the
        variance of the logits: a residual is expected to change them by 1 / sqrt(penalty) of
        their spread. It grows with the square root of the shots from two on.
    class_weight : {"balanced"}, dict or None, default="balanced"
        How much the classes count in the log-loss, and how likely they are before an image is
        seen. ``"balanced"``: equally, however many rows each has, since a support set is drawn by
        hand. None: as often as their rows. A mapping from label to weight multiplies that; labels
        that it lacks count once. Name every label in a meta-estimator that encodes them (voting,
        stacking, bagging, ...): of some integers, or where a fold lacks one, it cannot be told.
    unknown_label : str, int or None, default=None
        What `predict` returns for a row that is NaN throughout, as `CLIPFeatures` gives for an
        unreadable image with ``on_error="nan"`` (None raises), and for a row below
        `unknown_threshold`. Of the type of the labels.
    unknown_threshold : float or None, default=None
        Rows whose :meth:`score_samples` is lower get `unknown_label`: in standard deviations of
        left-out support rows from their mean, so that -2 turns away few images of the classes.
        None turns none away. Probabilities stay over `classes_`.
    device : str, default="auto"
        Where the text tower runs; all else runs on NumPy.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    n_features_in_ : int
        Feature width.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Feature names, if `X` had string column names.
    coef_ : ndarray of shape (n_classes, n_features)
        Fused linear classifier of unit rows, in the precision of `X`: float32 or float64.
    intercept_ : ndarray of shape (n_classes,)
        Its offsets.
    text_coef_, text_intercept_, visual_coef_, visual_intercept_ : ndarray
        The branches: `a tau P` with what was trained, and `b` times the discriminant.
    log_prior_ : ndarray of shape (n_classes,)
        Log-probability of each class before an image is seen, from `class_weight`.
    visual_nodes_ : ndarray of shape (n_classes, n_features), float32
        Adapted visual nodes `V'`.
    familiarity_scale_ : ndarray of shape (3,)
        Factors of density and prominence in :meth:`score_samples`, and an offset.
    visual_whitener_ : ndarray of shape (r, n_features), float32
        Orthogonal rows `W` with `W'W` the precision of the discriminant in their span.
    visual_centre_ : ndarray of shape (n_features,), float32
        Origin `m0` of that span.
    outside_variance_ : float
        Variance along each direction outside it; inf where it is all.
    prompts_ : list of list of str
        Positive prompts of each class; empty where the text did not come from names.
    prompt_features_ : ndarray of shape (n_prompts, n_features), float32
        Their unit features, class by class.
    support_features_ : ndarray of shape (m, n_features)
        Rows of the support set as given, for explanations and :meth:`partial_fit`: all after
        `partial_fit`; after `fit` at most 64 of each class, chosen to lie near all others (of those
        that stay rows, where there are very many).
    support_labels_, support_weight_, support_index_ : ndarray of shape (m,)
        Their class (index into `classes_`), weight, and number in the `X` given to `fit`, or in
        all that `partial_fit` was given.
    support_share_ : ndarray of shape (m,)
        Share of each in the adapted visual node of its class, in the direction where it is least.
    unlabelled_proba_ : ndarray of shape (u, n_classes), float32
        Probabilities by which rows without a label joined the classes: of all after `partial_fit`,
        and of the first 10,000 after `fit`.
    unlabelled_index_ : ndarray of shape (u,)
        Their numbers, as in `support_index_`.
    n_unlabelled_ : int
        How many there are in all, without those of weight 0 and those equal to a labelled row.
    unlabelled_features_, unlabelled_weight_ : ndarray
        Rows as given, and weights, for :meth:`partial_fit`; empty after `fit`.
    labels_seen_ : ndarray
        Labels given so far, those of rows of weight 0 and of `classes` too: rows of text features
        follow them.
    support_whole_, n_samples_seen_ : bool, int
        Whether these are all rows given, and how many were given so far.
    graph_ : dict
        Initial nodes ``"positive"``, ``"negative"``, ``"visual"``; see :meth:`to_hetero_data`.
    positive_to_visual_, visual_to_visual_ : float
        Strengths of the messages into the visual nodes in use.
    positive_to_positive_, visual_to_positive_, negative_to_positive_ : float
        Path weights into the text nodes as they acted: `w sqrt(1 - 1/k)` with `k` shots, and 0
        for those that need text and have none.
    text_weight_, visual_weight_, shrinkage_, logit_scale_ : float
        `a`, `b`, shrinkage and `tau` in use.
    text_share_ : float
        How far the text tells where the images of a class are, 0 (not at all, as without text) to
        1/2 (:func:`skhegraph.hegraph.visual.text_share`).
    penalty_ : float
        Strength of the ridge in use.
    n_iter_ : int
        Steps of L-BFGS on the text nodes.
    uses_text_ : bool
        Whether there was text that told anything (:mod:`skhegraph.hegraph.useless_text`).

    See Also
    --------
    CLIPFeatures : Images to features.
    HeGraphAdapterClassifier : The described method.
    ZeroShotCLIPClassifier : The text classifier without adaptation.

    Notes
    -----
    Rows of `X` are scaled to unit length. Multiplying all sample weights by a constant changes
    nothing. A row that is NaN throughout is left out of a fit, with a warning; a class that is left
    without a row is an error, unless `classes` or an earlier `partial_fit` named it.

    Of more than 2^25 / n_features labelled rows (65,536 of 512 features), and 256 of each class,
    `fit` keeps so many as rows and reads the others in blocks, as from a memory-mapped file: class
    means and covariance are those of all, what else there is rests on the rows that are kept
    (:mod:`skhegraph.many_rows`). Rows without a label, and those of `partial_fit`, are all kept.

    References
    ----------
    .. [1] Zhao, Jiang, Wang, Xu, Tang. "HeGraphAdapter: Tuning Multi-Modal Vision-Language Models
       with Heterogeneous Graph Adapter". arXiv 2410.07854, 2024.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skhegraph import HeGraphClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = HeGraphClassifier(text_features="prototypes").fit(X[::3], y[::3])
    >>> clf.score(X, y) > 0.9
    True
    """

    # What the HTML display links to: the method.
    _doc_link_module = "skhegraph"
    _doc_link_template = "https://arxiv.org/abs/2410.07854"

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **PromptedClassifier._parameter_constraints,
        "positive_to_visual": [non_negative(), StrOptions({"auto"})],
        "visual_to_visual": [non_negative(), StrOptions({"auto"})],
        "positive_to_positive": [non_negative()],
        "visual_to_positive": [non_negative()],
        "negative_to_positive": [non_negative()],
        "text_weight": [non_negative(), StrOptions({"auto"})],
        "visual_weight": [non_negative(), StrOptions({"auto"})],
        "shrinkage": [positive(), StrOptions({"auto"})],
        "penalty": [positive()],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "unknown_label": [str, Integral, None],
        "unknown_threshold": [Interval(Real, None, None, closed="neither"), None],
    }

    n_samples_seen_: int

    def __init__(
        self,
        model_name: str = "ViT-B-32",
        pretrained: str | None = "laion2b_s34b_b79k",
        *,
        text_features: TextFeatures = "clip",
        class_names: ClassNames = None,
        templates: Templates = "photo",
        negative_templates: Templates | None = None,
        logit_scale: float | None = None,
        positive_to_visual: float | str = "auto",
        visual_to_visual: float | str = "auto",
        positive_to_positive: float = POSITIVE_TO_POSITIVE,
        visual_to_positive: float = VISUAL_TO_POSITIVE,
        negative_to_positive: float = NEGATIVE_TO_POSITIVE,
        text_weight: float | str = "auto",
        visual_weight: float | str = "auto",
        shrinkage: float | str = "auto",
        penalty: float = 3.0,
        class_weight: str | dict[Any, float] | None = "balanced",
        unknown_label: str | int | None = None,
        unknown_threshold: float | None = None,
        device: str = "auto",
    ) -> None:
        super().__init__(
            model_name,
            pretrained,
            text_features=text_features,
            class_names=class_names,
            templates=templates,
            negative_templates=negative_templates,
            logit_scale=logit_scale,
            device=device,
        )
        self.positive_to_visual = positive_to_visual
        self.visual_to_visual = visual_to_visual
        self.positive_to_positive = positive_to_positive
        self.visual_to_positive = visual_to_positive
        self.negative_to_positive = negative_to_positive
        self.text_weight = text_weight
        self.visual_weight = visual_weight
        self.penalty = penalty
        self.shrinkage = shrinkage
        self.class_weight = class_weight
        self.unknown_label = unknown_label
        self.unknown_threshold = unknown_threshold

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        classes: ArrayLike | None = None,
    ) -> HeGraphClassifier:
        """Fit on a support set.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features; rows are scaled to unit length.
        y : array-like of shape (n_samples,)
            Labels; the number -1 for a row without one, as in scikit-learn's semi-supervised
            estimators (among names in a list, or in an array of objects). Such rows join all
            classes, as much as the others tell of their label
            (:mod:`skhegraph.hegraph.unlabelled`); predictions are of each query alone. Among
            numbers -1 is a class if `classes` names it, or, without `classes`, if there are two
            labels in all, as -1 and 1. :class:`KeepUnlabelled` scores labelled rows alone.
            Meta-estimators that encode labels (voting, stacking, bagging, calibration, one
            versus rest) make a class of -1: give them labelled rows alone.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights relative to each other; a weight of k equals k copies of the row.
        classes : array-like of labels, default=None
            All labels, also of classes that have a name and no image yet: their text, and the
            images of classes whose texts are alike, say where their images should be. Needs text.
            If one class alone has images, the text decides (unless `visual_weight` is given), and
            the visual node of each other class is the mean of that one, moved by the difference of
            the texts. With rows without a label no class needs a labelled one: the text says what
            they may be, and the classes adapt to them. None takes the labels of `y`.

        Returns
        -------
        HeGraphClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If the input, the text source, the pairing of CLIP and features, or a parameter is
            invalid.
        TypeError
            If `X` holds images in place of features.
        OSError
            If the weights of the text tower cannot be had.
        """
        self._validate_params()
        with all_or_nothing(self) as fitted:
            classes = signed(classes)
            known = labels_in(classes)
            rows, others = fitted._validate_rows(
                X,
                y,
                sample_weight,
                known=known,
                unlabelled=lambda labels: without_label(labels, classes),
                take=keep_some,
            )
            fitted._remember_members(classes)
            fitted._fit(rows, others, classes, SHOTS_KEPT)
            fitted.n_samples_seen_ = num_samples(X)
        return self

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> HeGraphClassifier:
        """Fit on more images, with the answer of a fit on all that were given.

        The rows given before are kept in the fitted estimator, and the fit is made anew.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features.
        y : array-like of shape (n_samples,)
            Labels, -1 as in :meth:`fit`; new ones too, if the text source knows them, and those of
            rows that had none before.
        classes : array-like of labels, default=None
            Labels of classes without an image so far, as in :meth:`fit`; those of earlier calls
            are remembered.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, on one scale over all calls.

        Returns
        -------
        HeGraphClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If an earlier `fit` kept only part of its rows; else as in :meth:`fit`.
        """
        self._validate_params()
        fitted = hasattr(self, "coef_")
        if fitted and not (
            self.support_whole_ and len(self.unlabelled_weight_) == self.n_unlabelled_
        ):
            raise ValueError(
                f"fit kept {SHOTS_KEPT} rows of each class, and none without a label, and was "
                "given more: for more images later, call partial_fit from the start, which keeps "
                "all, or fit on all at once."
            )
        seen = self.labels_seen_ if fitted else None
        classes = signed(classes)
        with all_or_nothing(self) as updated:
            rows, others = updated._validate_rows(
                X,
                y,
                sample_weight,
                reset=not fitted,
                known=labels_in(classes) | labels_in(seen),
                unlabelled=lambda labels: without_label(labels, classes, seen),
            )
            updated._remember_members(classes)
            n_seen = num_samples(X)
            if fitted:
                later = rows.y
                rows, others = self._followed_by(rows, others)
                rows = rows.take(rows.weight > 0)
                seen = np.union1d(self.labels_seen_, later) if len(later) else seen
                n_seen += self.n_samples_seen_
                labels = self.classes_[self.support_labels_]
                named = np.setdiff1d(self.classes_, labels)  # their rows, if any, are in `rows` now
                if len(named) or classes is not None:
                    asked = [] if classes is None else [np.asarray(classes)]
                    classes = np.concatenate([named, rows.y, *asked])
            updated._fit(rows, others, classes, None, seen)
            updated.n_samples_seen_ = n_seen
        return self

    def _followed_by(
        self, rows: LabelledRows, others: LabelledRows
    ) -> tuple[LabelledRows, LabelledRows]:
        """All rows given, with a label and without, these being the last."""
        labels, n_given = self.classes_[self.support_labels_], self.n_samples_seen_
        earlier = LabelledRows(
            self.support_features_, labels, self.support_weight_, self.support_index_
        )
        none = np.full(len(self.unlabelled_weight_), UNLABELLED)
        earlier_others = LabelledRows(
            self.unlabelled_features_, none, self.unlabelled_weight_, self.unlabelled_index_
        )
        return earlier.followed_by(rows, n_given), earlier_others.followed_by(others, n_given)

    def _fit(
        self,
        rows: LabelledRows,
        others: LabelledRows,
        classes: ArrayLike | None,
        shots_kept: int | None,
        seen: NDArray[Any] | None = None,
    ) -> None:
        """Fit on validated rows and `others` without a label, and keep them.

        `seen` are the labels given before.
        """
        others = others.to_keep(None).unlike(rows)
        if not len(rows.y) and classes is not None:
            rows = rows._replace(y=np.asarray(classes)[:0])  # of the type of the labels
        source = self._text()
        by_names = len(others.y) > 0 and bool(source.name)
        support = self._support(rows, classes, distinct=True, seen=seen, by_names=by_names)
        given = [part for part in (rows.y, seen, classes) if part is not None]
        self.labels_seen_ = np.unique(np.concatenate([np.asarray(part) for part in given]))
        check_unknown_label(self.unknown_label, self.unknown_threshold, self.classes_)
        prior = class_prior(self.class_weight, self.classes_, support)
        warn_if_ignored(self.get_params(deep=False), bool(source.name))
        strengths = self._strengths()
        with one_blas_thread():
            support, has_text = leave_out_useless(support, self.classes_, source, strengths)
            unlabelled = Unlabelled.of(others, rows, support)
            support, adapted, guess = adapt_graph(support, unlabelled, prior, strengths, has_text)
            told = others.X[: None if shots_kept is None else UNLABELLED_KEPT]
            proba = np.empty((0, len(prior))) if guess is None else guess.proba(told)
            class_share = self._keep_branches(support, adapted, prior, rows.X.dtype)
            kept = rows.kept(self.classes_, class_share, shots_kept)
        self._keep_strengths(adapted)
        self.uses_text_ = has_text
        self._keep_rows(kept)
        self._keep_unlabelled(others, proba, all_rows=shots_kept is None)

    def _strengths(self) -> Strengths:
        """Parameters of the graph."""
        return Strengths(
            given(self.positive_to_visual),
            given(self.visual_to_visual),
            given(self.text_weight),
            given(self.visual_weight),
            given(self.shrinkage),
            Paths(self.positive_to_positive, self.visual_to_positive, self.negative_to_positive),
            self.penalty,
        )
