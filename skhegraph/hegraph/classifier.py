"""HeGraphClassifier: few-shot classification on CLIP features through a heterogeneous graph."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.utils import Bunch, check_random_state, compute_class_weight
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skhegraph.feature_classifier import LinearFeatureClassifier, TextFeatures, non_negative
from skhegraph.hegraph.fusion import fit_branches, shots_per_class
from skhegraph.hegraph.logits import text_logits
from skhegraph.prompted_classifier import ClassNames, PromptedClassifier, Templates
from skhegraph.support import Floats, Support, unit_rows

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData


class HeGraphClassifier(LinearFeatureClassifier, PromptedClassifier):
    """Few-shot classifier on CLIP features that adapts text through a heterogeneous graph.

    One graph joins a positive-text, a negative-text and a visual node of each class. A graph
    network passes messages along six relations; the adapted positive nodes `P'` make the
    text-based classifier, a discriminant of the support images the visual-based one, and the
    prediction is the softmax of `a T + b G`, with the weights `a` and `b` of the text logits `T`
    and the visual logits `G` estimated on held-out support rows. :mod:`skhegraph.hegraph` tells
    how it works.

    It follows HeGraphAdapter [1]_, of which no author code is public, and does not claim the
    paper's numbers. The discriminant, the fusion of logits and the estimates of `a` and `b` are
    ours; :class:`HeGraphAdapterClassifier` is the described method as it stands.

    Parameters
    ----------
    model_name : str, default="ViT-B-32"
        CLIP whose text tower encodes the prompts, named as in :class:`CLIPFeatures`;
        ``"skhegraph-tiny"`` is bundled.
    pretrained : str or None, default="laion2b_s34b_b79k"
        Weights tag or local checkpoint.
    text_features : {"clip", "prototypes"}, array-like or pair of array-like, default="clip"
        ``"clip"`` encodes prompts. An array of shape (n_classes, n_features) gives positive text
        features, rows in the order of the sorted labels; the negative node of a class is then
        the mean of the other classes' positives. A pair (positive, negative) gives both.
        ``"prototypes"`` uses no text: the positive node is the mean of the class, the negative
        one the mean of the other classes' means (any numeric matrix will do).
    class_names : None, sequence of str, or mapping, default=None
        Names for the prompts: None takes string labels; a sequence follows the sorted labels; a
        mapping goes from label to name.
    templates : str, sequence of str, or mapping, default="photo"
        Preset of :data:`skhegraph.clip.prompts.PRESETS`, format string(s) with one ``{}``, or a
        mapping from class name to whole description(s).
    negative_templates : str, sequence of str, mapping or None, default=None
        The same for the negative nodes; None takes the preset's.
    logit_scale : float or None, default=None
        `tau`; None takes the CLIP's own, 100 where there is none.
    positive_to_negative, visual_to_negative : float, default=0.5
        Path weights `b_pn`, `b_vn` into the negative nodes (Eq. 1-2).
    positive_to_positive : float, default=0.06
        Path weight `a_pp` (Eq. 3-4).
    visual_to_positive : float, default=0.24
        Path weight `a_vp` (Eq. 3-4).
    negative_to_positive : float, default=0.2
        Path weight `a_np` (Eq. 3-4).
    top_k : int or None, default=None
        Keep the `top_k` strongest edges into each node (sparse products); None keeps all.
    text_weight : float or None, default=None
        `a`; None estimates it on held-out support rows.
    visual_weight : float or None, default=None
        `b`; None estimates it on held-out support rows.
    zero_shot_penalty : float, default=0.3
        Weight of a quadratic penalty that holds informative text near zero-shot; it is scaled by
        the nats that the text tells about the support and divided by the shots. 0 switches it off.
    max_iter : int, default=20
        Training steps. 0 leaves the text nodes as they are.
    class_weight : {"balanced"}, dict or None, default="balanced"
        How much the classes count in the log-loss, and how likely they are before an image is
        seen. ``"balanced"``: equally, however many rows each has, since a support set is drawn by
        hand. None: as often as their rows. A mapping from label to weight multiplies that.
    unknown_label : str, int or None, default=None
        What `predict` returns for a row that is NaN throughout, as `CLIPFeatures` gives for an
        unreadable image with ``on_error="nan"``; None raises. Of the type of the labels.
    random_state : int, RandomState instance or None, default=None
        Shuffles the folds.
    device : str, default="auto"
        Where the text tower and the training run; predicting runs on NumPy.
    verbose : int, default=0
        Show a progress bar of the training.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    n_features_in_ : int
        Feature width.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Feature names, if `X` had string column names.
    coef_ : ndarray of shape (n_classes, n_features)
        Fused linear classifier of unit rows.
    intercept_ : ndarray of shape (n_classes,)
        Its offsets.
    positive_nodes_ : ndarray of shape (n_classes, n_features), float32
        Adapted positive nodes `P'`, unit rows.
    negative_nodes_ : ndarray of shape (n_classes, n_features), float32
        Adapted negative nodes `N'`.
    graph_ : dict
        Initial nodes ``"positive"``, ``"negative"``, ``"visual"``; see :meth:`to_hetero_data`.
    top_k_ : int or None
        Edges into each node.
    text_weight_, visual_weight_ : float
        Fusion weights in use.
    shrinkage_ : float
        Covariance shrinkage of the discriminant.
    visual_coef_, visual_intercept_ : ndarray
        The discriminant, before `visual_weight_`.
    log_prior_ : ndarray of shape (n_classes,)
        Log-probability of each class before an image is seen, from `class_weight`.
    logit_scale_ : float
        `tau` in use.
    n_iter_ : int
        Steps made.
    loss_curve_ : list of float
        Training loss before each step.

    See Also
    --------
    CLIPFeatures : Images to features.
    HeGraphAdapterClassifier : The described method as it stands.
    ZeroShotCLIPClassifier : The text classifier without adaptation.

    Notes
    -----
    Rows of `X` are scaled to unit length. Multiplying all sample weights by a constant changes
    nothing. A row that is NaN throughout is left out of a fit, with a warning.

    References
    ----------
    .. [1] Zhao, Jiang, Wang, Xu, Tang. "HeGraphAdapter: Tuning Multi-Modal Vision-Language Models
       with Heterogeneous Graph Adapter". arXiv 2410.07854, 2024.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skhegraph import HeGraphClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = HeGraphClassifier(text_features="prototypes", random_state=0).fit(X[::5], y[::5])
    >>> clf.score(X, y) > 0.9
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **PromptedClassifier._parameter_constraints,
        "positive_to_negative": [non_negative()],
        "visual_to_negative": [non_negative()],
        "positive_to_positive": [non_negative()],
        "visual_to_positive": [non_negative()],
        "negative_to_positive": [non_negative()],
        "top_k": [Interval(Integral, 1, None, closed="left"), None],
        "text_weight": [non_negative(), None],
        "visual_weight": [non_negative(), None],
        "zero_shot_penalty": [non_negative()],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "unknown_label": [str, Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

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
        positive_to_negative: float = 0.5,
        visual_to_negative: float = 0.5,
        positive_to_positive: float = 0.06,
        visual_to_positive: float = 0.24,
        negative_to_positive: float = 0.2,
        top_k: int | None = None,
        text_weight: float | None = None,
        visual_weight: float | None = None,
        zero_shot_penalty: float = 0.3,
        max_iter: int = 20,
        class_weight: str | dict[Any, float] | None = "balanced",
        unknown_label: str | int | None = None,
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
        verbose: int = 0,
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
        self.positive_to_negative = positive_to_negative
        self.visual_to_negative = visual_to_negative
        self.positive_to_positive = positive_to_positive
        self.visual_to_positive = visual_to_positive
        self.negative_to_positive = negative_to_positive
        self.top_k = top_k
        self.text_weight = text_weight
        self.visual_weight = visual_weight
        self.zero_shot_penalty = zero_shot_penalty
        self.max_iter = max_iter
        self.class_weight = class_weight
        self.unknown_label = unknown_label
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> HeGraphClassifier:
        """Fit on a labelled support set.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features; rows are scaled to unit length.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights relative to each other; a weight of k equals k copies of the row.

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
        support = self._validate_support(X, y, sample_weight, distinct=True)
        check_top_k(self.top_k, support.n_classes)
        self._check_unknown_label()
        prior = class_prior(self.class_weight, self.classes_, support)
        loss_weight = support.sample_weight * (prior / support.shots)[support.y]
        loss_weight *= support.sample_weight.sum()
        rng = check_random_state(self.random_state)
        self._fit(support, loss_weight, rng)
        self.log_prior_ = np.log(prior)
        self.intercept_ = self.intercept_ + self.log_prior_
        return self

    def _fit(self, support: Support, loss_weight: Floats, rng: np.random.RandomState) -> None:
        """Estimate the branches, then adapt the text nodes, then fuse."""
        from skhegraph.clip.model import resolve_device
        from skhegraph.hegraph.graph import build_graph
        from skhegraph.hegraph.network import PathWeights
        from skhegraph.hegraph.training import held_out_text_logits, train_text_nodes

        prototypes = isinstance(self.text_features, str) and self.text_features == "prototypes"
        text = held_out_text_logits(support, prototypes)
        branches = fit_branches(support, text, loss_weight, rng, self.text_weight)
        a, b = branches.weights.text, branches.weights.visual
        if self.visual_weight is not None:
            b = float(self.visual_weight)
        nodes = {
            "positive": support.positive,
            "negative": support.negative,
            "visual": support.visual,
        }
        P, N, curve = train_text_nodes(
            build_graph(nodes, self.top_k),
            PathWeights(
                self.positive_to_negative,
                self.visual_to_negative,
                self.positive_to_positive,
                self.visual_to_positive,
                self.negative_to_positive,
            ),
            support,
            prototypes=prototypes,
            text_weight=a,
            visual_logits=b * branches.held_out,
            loss_weight=loss_weight,
            penalty=self.zero_shot_penalty * branches.information / shots_per_class(support),
            n_steps=self.max_iter,
            rng=rng,
            device=resolve_device(self.device),
            verbose=bool(self.verbose),
        )
        self.graph_ = {name: x.astype(np.float32) for name, x in nodes.items()}
        self.top_k_ = self.top_k
        self.positive_nodes_ = unit_rows(P).astype(np.float32)
        self.negative_nodes_ = N.astype(np.float32)
        self.n_iter_, self.loss_curve_ = len(curve), curve
        self.text_weight_, self.visual_weight_ = a, b
        self.shrinkage_ = branches.shrinkage
        self.visual_coef_, self.visual_intercept_ = branches.visual
        # Both branches are linear, and so is their sum: one matrix product predicts.
        text_coef = a * self.logit_scale_ * self.positive_nodes_.astype(np.float64)
        self.coef_ = text_coef + b * self.visual_coef_
        self.intercept_ = b * self.visual_intercept_

    def _check_unknown_label(self) -> None:
        """Refuse a label for unknowns that is a class or would change the type of the labels."""
        label = self.unknown_label
        if label is None:
            return
        if label in self.classes_:
            raise ValueError(f"unknown_label={label!r} is one of the classes: choose another.")
        if isinstance(label, str) != isinstance(self.classes_[0], str):
            raise ValueError(
                f"unknown_label={label!r} ({type(label).__name__}) is not of the type of the "
                f"labels ({type(self.classes_[0]).__name__}), so one array cannot hold both."
            )

    def branch_proba(self, X: ArrayLike) -> Bunch:
        """Probabilities of the text-based, the visual-based and the fused classifier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features.

        Returns
        -------
        Bunch
            `text`, `visual` and `fused`, each an ndarray of shape (n_samples, n_classes).
        """

        def each(Z: Floats) -> Floats:
            text = text_logits(Z, self.positive_nodes_, self.logit_scale_ * self.text_weight_)
            visual = Z @ self.visual_coef_.T + self.visual_intercept_
            parts = (text, self.visual_weight_ * visual, self._logits(Z))
            return np.stack([softmax(logits, axis=1) for logits in parts], axis=1)

        proba = self._in_chunks(X, each)
        return Bunch(text=proba[:, 0], visual=proba[:, 1], fused=proba[:, 2])

    def to_hetero_data(self) -> HeteroData:
        """Build the fitted graph as torch_geometric data (imports torch).

        Returns
        -------
        torch_geometric.data.HeteroData
            Nodes `x` and, for each relation, `edge_index` and `edge_weight`.
        """
        check_is_fitted(self)
        from skhegraph.hegraph.graph import build_graph, with_edge_lists

        return with_edge_lists(build_graph(self.graph_, self.top_k_))


def check_top_k(top_k: int | None, n_classes: int) -> None:
    """Raise ValueError if a node cannot have that many edges."""
    if top_k is not None and top_k > n_classes:
        raise ValueError(
            f"top_k={top_k} is above the number of classes ({n_classes}): a node has one edge per "
            "class at most. Lower top_k or leave it None."
        )


def class_prior(
    class_weight: str | dict[Any, float] | None, classes: NDArray[Any], support: Support
) -> Floats:
    """Share of each class in the log-loss, which is also its probability before an image is seen.

    Weights of a mapping multiply the share of the class among the rows.
    """
    if class_weight == "balanced":
        return np.full(len(classes), 1 / len(classes))
    factors = compute_class_weight(class_weight, classes=classes, y=classes)
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise ValueError(
            f"class_weight={class_weight!r}: expected a positive finite weight for each label."
        )
    prior = factors * support.shots
    return prior / prior.sum()
