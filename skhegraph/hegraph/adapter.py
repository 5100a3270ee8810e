"""HeGraphAdapterClassifier: the described HeGraphAdapter as it stands."""

from __future__ import annotations

import math
import warnings
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.special import log_softmax
from sklearn.utils import check_random_state

from skhegraph._sklearn import Interval, StrOptions
from skhegraph.clip.torch_settings import own_settings
from skhegraph.feature_classifier import TextFeatures, all_or_nothing, non_negative, positive
from skhegraph.hegraph.cache import fuse_cache, zero_shot_logits
from skhegraph.hegraph.fusion import shots_per_class, wrong_class_spread
from skhegraph.hegraph.logits import cache_logits, text_logits
from skhegraph.prompted_classifier import PromptedClassifier
from skhegraph.prompted_text import ClassNames, Templates
from skhegraph.support import Floats, Ints, Support, unit_rows

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

    from skhegraph.hegraph.network import PathWeights


class HeGraphAdapterClassifier(PromptedClassifier):
    """The Heterogeneous Graph Adapter as it is described, for comparison.

    The graph adapts the positive text nodes (Eq. 1-4) with one trained matrix per target type, and
    gives text logits `tau cos(z, P')` (Eq. 7); a cache of the support features gives visual logits
    (Eq. 8). By default the two are added as logits, with weights and a sharpness that leave-one-out
    logits of the support rows tell (:mod:`skhegraph.hegraph.cache`), and the network trains on what
    the cache leaves over. With ``fusion="probabilities"`` both train together on
    `CE(text) + loss_weight CE(visual)` (Eq. 9), the rows of the cache are shifted by what their
    class receives from other visual nodes (Eq. 5-6), and the probabilities are averaged.

    Follows Zhao et al. [1]_, of which no author code is public. The node types and the kinds of
    edges are stated in the paper's abstract. The equations, path weights, tanh, averaged
    probabilities and mini-batches of 32 rows are second-hand, from an unofficial re-implementation.
    Ours are: logits that are added, and their weights; matrices that start at zero, which is
    zero-shot, and a pull towards it; sparse edges; a row that never meets itself in the cache; the
    cache sum divided by the shots of the class. It does not claim the paper's numbers.

    Parameters
    ----------
    model_name : str, default="ViT-B-32"
        CLIP whose text tower encodes the prompts, named as in :class:`CLIPFeatures`.
    pretrained : str or None, default="laion2b_s34b_b79k"
        Weights tag or local checkpoint.
    text_features : {"clip", "prototypes"}, array-like, mapping, or pair of these, default="clip"
        Source of the text nodes, as in :class:`HeGraphClassifier`.
    class_names : None, sequence of str, or mapping, default=None
        Names for the prompts, in the order of the sorted labels, or a mapping from label to name,
        where string labels that it lacks stand for themselves.
    templates, negative_templates : str, sequence of str or mapping, default="photo", None
        Prompt templates of the positive and the negative nodes.
    logit_scale : float or None, default=None
        `tau`; None takes the CLIP's own, 100 where there is none.
    positive_to_negative, visual_to_negative : float, default=0.5
        Path weights `b_pn`, `b_vn` into the negative nodes (Eq. 1-2).
    positive_to_positive : float, default=0.06
        Path weight `a_pp` (Eq. 3-4).
    visual_to_positive : float, default=0.24
        Path weight `a_vp` (Eq. 3-4).
    negative_to_positive : float, default=0.2
        Path weight `a_np` (Eq. 3-4) in training.
    negative_to_positive_predict : float or None, default=None
        `a_np` after training; None takes `negative_to_positive`, and half of it, as described,
        with probabilities.
    top_k : int or None, default=5
        Keep the `top_k` strongest edges into each node, or all where there are fewer; None keeps
        all, and then each node is mostly the mean of all others.
    node_norm : float, default=10.0
        Length of the nodes that the network sees. CLIP's raw features are about 10 long; at length
        1 tanh is a straight line, which starves matrices that start at random (with
        probabilities); those that start at zero hardly mind.
    fusion : {"logits", "probabilities"}, default="logits"
        What is added: logits, or probabilities, as described.
    sharpness : float or None, default=None
        `beta` of the cache (Eq. 8). None chooses it by the held-out loss; 1 with probabilities.
    visual_weight : float or None, default=None
        Weight of the cache, `b` of the logits or `w` of the probabilities. None estimates it; 1
        with probabilities.
    penalty : float, default=0.05
        Pull of the text logits to zero-shot, in units of one over the variance of the fused logits
        and over twice the shots. With logits alone.
    visual_to_visual : float or None, default=None
        Path weight `g` of the cache shift (Eq. 5-6), with probabilities alone; None is 0.5.
    loss_weight : float or None, default=None
        `lambda` of the joint loss (Eq. 9), with probabilities alone; None is 0.1.
    learning_rate : float, default=1e-3
        First rate of the cosine schedule of AdamW.
    n_epochs : int, default=60
        Passes over the support set.
    batch_size : int or None, default=None
        Rows per step; None takes all. With probabilities the described schedule is 30 epochs of
        batches of 32; with nodes of length 10 a rate of 5e-3 and 100 epochs fit better.
    random_state : int, RandomState instance or None, default=None
        Order of the rows, and with probabilities the start of the matrices, uniform in
        +-1/sqrt(n_features).
    device : str, default="auto"
        Where the text tower and the training run; predicting runs on NumPy.
    verbose : int, default=0
        Show a progress bar of the training.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    positive_nodes_ : ndarray of shape (n_classes, n_features), float32
        Adapted positive nodes `P'`, unit rows.
    negative_nodes_ : ndarray of shape (n_classes, n_features), float32
        Adapted negative nodes `N'`.
    cache_keys_ : ndarray of shape (n_samples, n_features), float32
        Support rows, with probabilities shifted ones `X'`; unit rows.
    cache_labels_ : ndarray of shape (n_samples,)
        Their class indices.
    cache_weights_ : ndarray of shape (n_samples,)
        Their weights.
    logit_scale_, sharpness_, text_weight_, visual_weight_ : float
        `tau`, `beta`, `a` (1 with probabilities) and `b` or `w` in use.
    loss_curve_ : list of float
        Training loss before each step.

    References
    ----------
    .. [1] Zhao, Jiang, Wang, Xu, Tang. "HeGraphAdapter: Tuning Multi-Modal Vision-Language Models
       with Heterogeneous Graph Adapter". arXiv 2410.07854, 2024.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skhegraph import HeGraphAdapterClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = HeGraphAdapterClassifier(text_features="prototypes", random_state=0)
    >>> clf.fit(X[::5], y[::5]).score(X, y) > 0.8
    True
    """

    # What the HTML display links to: the method.
    _doc_link_module = "skhegraph"
    _doc_link_template = "https://arxiv.org/abs/2410.07854"

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **PromptedClassifier._parameter_constraints,
        "positive_to_negative": [non_negative()],
        "visual_to_negative": [non_negative()],
        "positive_to_positive": [non_negative()],
        "visual_to_positive": [non_negative()],
        "negative_to_positive": [non_negative()],
        "negative_to_positive_predict": [non_negative(), None],
        "top_k": [Interval(Integral, 1, None, closed="left"), None],
        "node_norm": [positive()],
        "fusion": [StrOptions({"logits", "probabilities"})],
        "sharpness": [positive(), None],
        "visual_weight": [non_negative(), None],
        "penalty": [non_negative()],
        "visual_to_visual": [non_negative(), None],
        "loss_weight": [non_negative(), None],
        "learning_rate": [positive()],
        "n_epochs": [Interval(Integral, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    cache_labels_: Ints
    cache_weights_: Floats

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
        negative_to_positive_predict: float | None = None,
        top_k: int | None = 5,
        node_norm: float = 10.0,
        fusion: str = "logits",
        sharpness: float | None = None,
        visual_weight: float | None = None,
        penalty: float = 0.05,
        visual_to_visual: float | None = None,
        loss_weight: float | None = None,
        learning_rate: float = 1e-3,
        n_epochs: int = 60,
        batch_size: int | None = None,
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
        self.top_k = top_k
        self.node_norm = node_norm
        self.fusion = fusion
        self.sharpness = sharpness
        self.visual_weight = visual_weight
        self.penalty = penalty
        self.visual_to_visual = visual_to_visual
        self.loss_weight = loss_weight
        self.learning_rate = learning_rate
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> HeGraphAdapterClassifier:
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
        HeGraphAdapterClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If the input, the text source or a parameter is invalid.
        OSError
            If the weights of the text tower cannot be had.
        """
        with all_or_nothing(self) as fitted, own_settings():
            support = fitted._validate_support(X, y, sample_weight, distinct=True)
            if self.fusion == "logits":
                fitted._fit_logits(support)
            else:
                fitted._fit_probabilities(support)
            fitted.cache_labels_, fitted.cache_weights_ = support.y, support.sample_weight
        return self

    def _paths(self, visual_to_visual: float = 0.0) -> PathWeights:
        """Path weights of the network."""
        from skhegraph.hegraph.network import PathWeights

        return PathWeights(
            self.positive_to_negative,
            self.visual_to_negative,
            self.positive_to_positive,
            self.visual_to_positive,
            self.negative_to_positive,
            visual_to_visual,
        )

    def _graph(self, support: Support) -> HeteroData:
        """Graph whose nodes have the length `node_norm`."""
        from skhegraph.hegraph.graph import build_graph

        kinds = {
            "positive": support.positive,
            "negative": support.negative,
            "visual": unit_rows(support.visual),
        }
        nodes = {kind: self.node_norm * array for kind, array in kinds.items()}
        top_k = None if self.top_k is None else min(self.top_k, support.n_classes)
        return build_graph(nodes, top_k)

    def _own_shift(self, support: Support) -> Floats | None:
        """What a row's absence changes in its unit positive node, where that is the class mean."""
        from skhegraph.hegraph.training import own_node_shift

        return None if self._text().name else own_node_shift(support)

    def _negative_to_positive_after(self) -> float:
        """`a_np` after training."""
        if self.negative_to_positive_predict is not None:
            return self.negative_to_positive_predict
        return self.negative_to_positive / (2 if self.fusion == "probabilities" else 1)

    def _fit_logits(self, support: Support) -> None:
        """Weigh text and cache, and train the network on what the cache leaves over."""
        from skhegraph.clip.model import resolve_device
        from skhegraph.hegraph.training import train_text_nodes

        ignored = [n for n in ("visual_to_visual", "loss_weight") if getattr(self, n) is not None]
        if ignored:
            message = (
                f"{', '.join(ignored)}: ignored, since fusion='logits' does not shift the cache."
            )
            warnings.warn(message, UserWarning, stacklevel=3)
        shift = self._own_shift(support)
        text = zero_shot_logits(support, shift)
        fusion = fuse_cache(support, text, self.sharpness, self.visual_weight)
        visual = fusion.visual * fusion.held_out
        spread = wrong_class_spread(fusion.text * text + visual, support.y)
        P, N, self.loss_curve_ = train_text_nodes(
            self._graph(support),
            self._paths(),
            support,
            text_weight=fusion.text,
            visual_logits=visual,
            loss_weight=support.sample_weight,
            penalty=self.penalty / (spread**2 * 2 * shots_per_class(support)),
            learning_rate=float(self.learning_rate),
            n_epochs=self.n_epochs,
            batch_size=self.batch_size,
            rng=check_random_state(self.random_state),
            device=resolve_device(self.device),
            own_shift=None if shift is None else self.node_norm * shift,
            negative_to_positive=self._negative_to_positive_after(),
            verbose=bool(self.verbose),
        )
        self.positive_nodes_ = unit_rows(P).astype(np.float32)
        self.negative_nodes_ = N.astype(np.float32)
        self.cache_keys_ = support.X.astype(np.float32)
        self.text_weight_, self.visual_weight_ = fusion.text, fusion.visual
        self.sharpness_, self.fusion_ = fusion.sharpness, "logits"

    def _fit_probabilities(self, support: Support) -> None:
        """Train both branches on the joint loss, as described."""
        from skhegraph.clip.model import resolve_device
        from skhegraph.hegraph.network import HeteroGraphNetwork
        from skhegraph.hegraph.training import train_jointly

        rng = check_random_state(self.random_state)
        width = support.X.shape[1]
        W_n, W_p, W_v = rng.uniform(-1.0, 1.0, (3, width, width)) / np.sqrt(width)
        g = 0.5 if self.visual_to_visual is None else float(self.visual_to_visual)
        network = HeteroGraphNetwork(
            self._graph(support), self._paths(g), (W_n, W_p, W_v), resolve_device(self.device)
        )
        shift = self._own_shift(support)
        self.sharpness_ = 1.0 if self.sharpness is None else float(self.sharpness)
        self.loss_curve_ = train_jointly(
            network,
            support,
            own_shift=None if shift is None else self.node_norm * shift,
            node_norm=float(self.node_norm),
            sharpness=self.sharpness_,
            loss_weight=0.1 if self.loss_weight is None else float(self.loss_weight),
            learning_rate=float(self.learning_rate),
            n_epochs=self.n_epochs,
            batch_size=self.batch_size or len(support.y),
            rng=rng,
            verbose=bool(self.verbose),
        )
        P, N, moved = network.adapted(self._negative_to_positive_after())
        self.positive_nodes_ = unit_rows(P).astype(np.float32)
        self.negative_nodes_ = N.astype(np.float32)
        keys = self.node_norm * support.X + moved[support.y]  # Eq. 6
        self.cache_keys_ = unit_rows(keys).astype(np.float32)
        self.text_weight_ = 1.0
        self.visual_weight_ = 1.0 if self.visual_weight is None else float(self.visual_weight)
        self.fusion_ = "probabilities"

    def _logits(self, Z: Floats) -> Floats:
        """Fused logits, or the log of `(softmax(text) + w softmax(visual)) / (1 + w)`."""
        scale = self.text_weight_ * self.logit_scale_
        text: Floats = text_logits(Z, self.positive_nodes_.astype(Z.dtype), scale)
        w = self.visual_weight_
        if not w:
            return text
        rows = np.arange(len(self.cache_labels_))
        shots = np.bincount(self.cache_labels_, weights=self.cache_weights_)
        share = self.cache_weights_ / shots[self.cache_labels_]
        labels = csr_array((share.astype(Z.dtype), (rows, self.cache_labels_)))
        cosine = Z @ self.cache_keys_.T.astype(Z.dtype)
        cache = cache_logits(cosine, labels, np.ones_like(shots, Z.dtype), self.sharpness_, np.exp)
        if self.fusion_ == "logits":
            fused: Floats = text + w * cache
            return fused
        log_text = log_softmax(text, axis=1)
        log_visual = log_softmax(self.logit_scale_ * cache, axis=1)
        return np.logaddexp(log_text, log_visual + math.log(w)) - math.log1p(w)
