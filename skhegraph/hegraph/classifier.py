"""HeGraphClassifier: the Heterogeneous Graph Adapter as a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.validation import check_is_fitted

from skhegraph.base import (
    CLIPClassifier,
    Floats,
    Support,
    check_number,
    softmax,
    unit_rows,
)
from skhegraph.hegraph.fitting import Fit, fit_fused, fit_joint
from skhegraph.hegraph.graph import PathWeights, to_hetero_data

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

#: The settings described in the paper (method, sections 3 and 4), for
#: ``HeGraphClassifier(**PAPER_SETTINGS)``. Number of steps and batch size are not known.
PAPER_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "visual_classifier": "cache",
        "fusion": "probabilities",
        "visual_weight": 1.0,
        "sharpness": 1.0,
        "loss_weight": 0.1,
        "init_scale": 1.0,
        "negative_to_positive_predict": 0.1,
        "learning_rate": 1e-3,
        "max_iter": 100,
    }
)


#: Fitted attributes of the discriminant, then those of the cache.
_VISUAL_STATE = (
    "coef_",
    "intercept_",
    "shrinkage_",
    "visual_coef_",
    "visual_intercept_",
    "cache_keys_",
    "cache_labels_",
    "cache_weights_",
)


class HeGraphClassifier(CLIPClassifier):
    """Few-shot classifier on CLIP features that adapts text through a heterogeneous graph.

    One graph joins a positive-text, a negative-text and a visual node of each class. A graph
    network passes messages along six relations; the adapted positive nodes `P'` make the
    text-based classifier, the support images the visual-based one, and both are fused. Follows
    the method of HeGraphAdapter [1]_, of which no author code is public; parts known second-hand
    and parts of our own are named below. It doesn't claim the paper's numbers.

    By default the visual classifier is a closed-form discriminant and the logits are fused as
    `a T + b G`, with `a` and `b` estimated on held-out support rows (ours).
    ``HeGraphClassifier(**PAPER_SETTINGS)`` gives the described method.

    Parameters
    ----------
    model_name : str, default="ViT-B-32"
        CLIP whose text tower encodes the prompts, named as in :class:`CLIPFeatures`;
        ``"skhegraph-tiny"`` is bundled.
    pretrained : str or None, default="laion2b_s34b_b79k"
        Weights tag or local checkpoint.
    text_features : {"clip", "prototypes"} or pair of array-like, default="clip"
        ``"clip"`` encodes prompts; ``"prototypes"`` uses no text: `P_c` is the mean of class c,
        `N_c` the mean of the other classes' means (any numeric matrix will do); a pair
        (positive, negative) gives arrays of shape (n_classes, n_features), rows as `classes_`.
    class_names : None, sequence of str, or mapping, default=None
        Names for the prompts: None takes string labels; a sequence follows `classes_`; a mapping
        goes from label to name.
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
    negative_to_positive_predict : float or None, default=None
        `a_np` after training; None keeps `negative_to_positive`.
    visual_to_visual : float, default=0.5
        Path weight `g` of the cache shift (Eq. 5-6); acts in the cache with
        ``fusion="probabilities"``. In the discriminant no shift is made: it did not help.
    top_k : int or None, default=None
        Keep the `top_k` strongest edges into each node (sparse products); None keeps all.
    visual_classifier : {"discriminant", "cache"}, default="discriminant"
        Closed-form discriminant, whose cost does not grow with the shots, or the cache (Eq. 8).
    sharpness : float, default=1.0
        `beta` of the cache affinity (Eq. 8).
    fusion : {"logits", "probabilities"}, default="logits"
        ``"logits"``: softmax(a T + b G), trained on the fused log-loss. ``"probabilities"``:
        (softmax(T) + w softmax(G)) / (1 + w), trained on the joint loss (Eq. 9).
    text_weight, visual_weight : float or None, default=None
        `a` and `b`; None estimates them on held-out support rows. With
        ``fusion="probabilities"`` only `visual_weight` counts: it is `w`, and None is 1.
    loss_weight : float, default=0.1
        `lambda` of the joint loss (Eq. 9).
    trust_region : float, default=0.3
        Weight of the penalty that holds trusted text near zero-shot (ours); 0 switches it off.
        It is scaled by the information of the zero-shot text about the support (nats) and
        divided by the shots. Acts with ``fusion="logits"``.
    init_scale : float, default=0.0
        The matrices start uniform in +-`init_scale`/sqrt(n_features); 0 starts at zero-shot,
        1 is the described start.
    learning_rate : float or None, default=None
        Of AdamW, with cosine decay. None takes 0.25 / n_features: a step on every entry of a
        matrix then moves the nodes equally far at every feature width.
    max_iter : int, default=20
        Full-batch steps.
    tol : float, default=0.0
        Training stops when the loss changes by less than this over 10 steps; 0 makes all steps.
    early_stopping : bool, default=False
        Choose the number of steps, up to `max_iter`, by the log-loss of held-out support rows
        (`n_folds` more trainings). With one shot a class there are none: `max_iter` steps.
    n_folds : int, default=10
        Stratified folds of the support set that hold out rows to estimate the trust in images
        (and the number of steps). The only row of a class is never held out.
    random_state : int, RandomState instance or None, default=None
        Shuffles the folds and draws the start.
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
    positive_nodes_ : ndarray of shape (n_classes, n_features), float32
        Adapted positive nodes `P'`, unit rows.
    negative_nodes_ : ndarray of shape (n_classes, n_features), float32
        Adapted negative nodes `N'`.
    visual_nodes_ : ndarray of shape (n_classes, n_features), float32
        Class means of the support after the cache shift, if any.
    graph_ : dict
        Initial nodes ``"positive"``, ``"negative"``, ``"visual"``; see :meth:`to_hetero_data`.
    text_weight_, visual_weight_ : float
        Fusion weights in use.
    top_k_, fusion_ : int or None, str
        Edges into each node, and fusion, in use.
    shrinkage_ : float
        Covariance shrinkage chosen on held-out rows (discriminant).
    visual_coef_, visual_intercept_ : ndarray
        Linear visual classifier, before `visual_weight_` (discriminant).
    coef_, intercept_ : ndarray
        Fused linear classifier of unit rows (discriminant).
    cache_keys_, cache_labels_, cache_weights_ : ndarray
        Support rows in the order of their classes, class indices and weights (cache), with
        `sharpness_`.
    logit_scale_ : float
        `tau` in use.
    n_iter_ : int
        Steps made.
    loss_curve_ : list of float
        Training loss before each step.

    See Also
    --------
    CLIPFeatures : Images to features.
    ZeroShotCLIPClassifier : The text classifier without adaptation.

    Notes
    -----
    What does not depend on the path weights or the training (trust in the branches, edges) is
    kept in memory by the content of the support set, up to 512 MB a process, so that the
    candidates of a search share it; :func:`skhegraph.hegraph.reuse.forget` gives the memory back.

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

    def __init__(
        self,
        model_name: str = "ViT-B-32",
        pretrained: str | None = "laion2b_s34b_b79k",
        *,
        text_features: str | tuple[ArrayLike, ArrayLike] = "clip",
        class_names: Sequence[str] | Mapping[Any, str] | None = None,
        templates: str | Sequence[str] | Mapping[str, Any] = "photo",
        negative_templates: str | Sequence[str] | Mapping[str, Any] | None = None,
        logit_scale: float | None = None,
        positive_to_negative: float = 0.5,
        visual_to_negative: float = 0.5,
        positive_to_positive: float = 0.06,
        visual_to_positive: float = 0.24,
        negative_to_positive: float = 0.2,
        negative_to_positive_predict: float | None = None,
        visual_to_visual: float = 0.5,
        top_k: int | None = None,
        visual_classifier: str = "discriminant",
        sharpness: float = 1.0,
        fusion: str = "logits",
        text_weight: float | None = None,
        visual_weight: float | None = None,
        loss_weight: float = 0.1,
        trust_region: float = 0.3,
        init_scale: float = 0.0,
        learning_rate: float | None = None,
        max_iter: int = 20,
        tol: float = 0.0,
        early_stopping: bool = False,
        n_folds: int = 10,
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
        self.negative_to_positive_predict = negative_to_positive_predict
        self.visual_to_visual = visual_to_visual
        self.top_k = top_k
        self.visual_classifier = visual_classifier
        self.sharpness = sharpness
        self.fusion = fusion
        self.text_weight = text_weight
        self.visual_weight = visual_weight
        self.loss_weight = loss_weight
        self.trust_region = trust_region
        self.init_scale = init_scale
        self.learning_rate = learning_rate
        self.max_iter = max_iter
        self.tol = tol
        self.early_stopping = early_stopping
        self.n_folds = n_folds
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
            Weights; a weight of k equals k copies of the row.

        Returns
        -------
        HeGraphClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If the input, the text source, the pairing of CLIP and features, or a parameter is
            invalid.
        OSError
            If the weights of the text tower cannot be had.
        """
        self._validate_parameters()
        support = self._validate_support(X, y, sample_weight, distinct=True)
        if self.top_k is not None and self.top_k > len(self.classes_):
            raise ValueError(
                f"top_k={self.top_k} is above the number of classes ({len(self.classes_)}): "
                "a node has one edge a class at most. Lower top_k or leave it None."
            )
        rng = check_random_state(self.random_state)
        fit = (fit_fused if self.fusion == "logits" else fit_joint)(self, support, rng)
        self._store(support, fit)
        return self

    def _validate_parameters(self) -> None:
        """Check every scalar, before any work."""
        for name in (*PathWeights._fields, "loss_weight", "trust_region", "init_scale", "tol"):
            check_number(name, getattr(self, name), 0)
        for name in ("negative_to_positive_predict", "text_weight", "visual_weight"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), 0)
        check_number("sharpness", self.sharpness, 0, closed=False)
        if self.learning_rate is not None:
            check_number("learning_rate", self.learning_rate, 0, closed=False)
        if not isinstance(self.early_stopping, (bool, np.bool_)):
            raise ValueError(f"early_stopping={self.early_stopping!r}: expected True or False.")
        for name, low in (("max_iter", 0), ("n_folds", 2), ("top_k", 1), ("verbose", 0)):
            value = getattr(self, name)
            if name == "top_k" and value is None:
                continue
            switch = isinstance(value, bool) and name != "verbose"
            if not isinstance(value, Integral) or switch or value < low:
                raise ValueError(f"{name}={value!r}: expected an integer of at least {low}.")
        for name, accepted in (
            ("visual_classifier", ("discriminant", "cache")),
            ("fusion", ("logits", "probabilities")),
        ):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {accepted}.")
        if self.fusion == "probabilities" and self.visual_classifier != "cache":
            raise ValueError(
                "fusion='probabilities' trains the joint loss of text and cache (Eq. 9): set "
                "visual_classifier='cache', or fusion='logits'."
            )

    def _store(self, support: Support, fit: Fit) -> None:
        """Keep what predicting and inspecting need, as NumPy arrays and plain values."""
        visual = support.visual
        self.graph_ = {
            "positive": support.positive.astype(np.float32),
            "negative": support.negative.astype(np.float32),
            "visual": visual.astype(np.float32),
        }
        trained = fit.trained
        self.positive_nodes_ = unit_rows(trained.positive).astype(np.float32)
        self.negative_nodes_ = trained.negative.astype(np.float32)
        self.n_iter_, self.loss_curve_ = len(trained.loss_curve), trained.loss_curve
        self.text_weight_, self.visual_weight_ = fit.text_weight, fit.visual_weight
        self.fusion_, self.sharpness_, self.top_k_ = self.fusion, self.sharpness, self.top_k
        for name in _VISUAL_STATE:
            self.__dict__.pop(name, None)  # of an earlier fit with the other visual classifier
        if fit.discriminant is not None:
            self.shrinkage_ = fit.shrinkage
            self.visual_coef_, self.visual_intercept_ = fit.discriminant
            # Both branches are linear, and so is their sum: one matrix product predicts.
            text_scale = self.logit_scale_ * self.text_weight_
            text_coef = text_scale * self.positive_nodes_.astype(np.float64)
            self.coef_ = text_coef + self.visual_weight_ * self.visual_coef_
            self.intercept_ = self.visual_weight_ * self.visual_intercept_
            self.visual_nodes_ = self.graph_["visual"]
            return
        # The joint loss alone trains the cache shift (Eq. 6).
        shift = trained.visual_shift if self.fusion == "probabilities" else np.zeros_like(visual)
        shots = np.bincount(support.y, weights=support.sample_weight)
        self.visual_nodes_ = (visual + shift).astype(np.float32)
        self.cache_keys_ = unit_rows(support.X + shift[support.y]).astype(np.float32)
        self.cache_labels_ = support.y
        mean_shots = len(support.y) / len(shots)
        self.cache_weights_ = mean_shots * support.sample_weight / shots[support.y]

    # --- predict side: NumPy only -------------------------------------------------------------

    def _branches(self, Z: Floats) -> tuple[Floats, Floats]:
        """Text logits (Eq. 7) and visual logits (Eq. 8 or the discriminant), each as fused."""
        scale = self.logit_scale_ * self.text_weight_
        text = scale * (Z @ self.positive_nodes_.T.astype(Z.dtype))
        if hasattr(self, "cache_keys_"):
            scale = self.logit_scale_ if self.fusion_ == "probabilities" else self.visual_weight_
            return text, scale * self._cache_logits(Z)
        visual = Z @ self.visual_coef_.T + self.visual_intercept_
        return text, self.visual_weight_ * visual

    def _cache_logits(self, Z: Floats) -> Floats:
        """Eq. 8 without tau: `sum_k exp(-beta (1 - cos(z, X'_k))) L_k`, class by class."""
        affinity = Z @ self.cache_keys_.T.astype(Z.dtype)
        affinity -= 1
        affinity *= self.sharpness_
        np.exp(affinity, out=affinity)
        affinity *= self.cache_weights_
        first_of_class = np.flatnonzero(np.diff(self.cache_labels_, prepend=-1))
        return np.add.reduceat(affinity, first_of_class, axis=1)

    def _logits(self, Z: Floats) -> Floats:
        if hasattr(self, "coef_"):
            logits = Z @ self.coef_.T
            logits += self.intercept_
            return logits
        text, visual = self._branches(Z)
        if self.fusion_ == "logits":
            return text + visual
        w = self.visual_weight_
        proba = (softmax(text) + w * softmax(visual)) / (1 + w)
        return np.log(np.maximum(proba, np.finfo(proba.dtype).tiny))

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
            text, visual = self._branches(Z)
            return np.stack([softmax(text), softmax(visual), self._proba(Z)], axis=1)

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
        return to_hetero_data(self.graph_, self.top_k_)
