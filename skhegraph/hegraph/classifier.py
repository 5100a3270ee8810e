"""HeGraphClassifier: few-shot classification on CLIP features through a heterogeneous graph."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skhegraph.feature_classifier import (
    LinearFeatureClassifier,
    TextFeatures,
    non_negative,
    positive,
)
from skhegraph.hegraph.fusion import (
    calibration_rows,
    fit_fusion,
    shots_per_class,
    wrong_class_spread,
)
from skhegraph.hegraph.logits import text_logits
from skhegraph.hegraph.parameters import check_top_k, class_prior
from skhegraph.hegraph.residuals import fit_residuals
from skhegraph.hegraph.visual import VisualModel
from skhegraph.prompted_classifier import (
    ENCODED,
    ClassNames,
    PromptedClassifier,
    Templates,
    are_encoded,
)
from skhegraph.support import Floats, Support, effective_weights, in_span, unit_rows

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

#: Path weights of the network, which adapts the positive text nodes.
NETWORK_PATHS = (
    "positive_to_negative",
    "visual_to_negative",
    "positive_to_positive",
    "visual_to_positive",
    "negative_to_positive",
)


class HeGraphClassifier(LinearFeatureClassifier, PromptedClassifier):
    """Few-shot classifier on CLIP features that adapts text and images on a heterogeneous graph.

    One graph joins a positive-text, a negative-text and a visual node of each class. Messages
    adapt the visual nodes to the text and to each other, in closed form and with strengths that
    the support set tells; a residual per class adapts the text nodes to what the images leave
    over; the prediction is the softmax of `a T + b G`, with the weights `a` and `b` of the text
    logits `T` and the visual logits `G` estimated on leave-one-out logits. The learned messages of
    the graph network (Eq. 1-4) can be switched on by their path weights.
    :mod:`skhegraph.hegraph` tells how it works.

    It builds on HeGraphAdapter [1]_, of which no author code is public, and does not claim the
    paper's numbers: :class:`HeGraphAdapterClassifier` is the described method as it stands, and
    everything that differs from it is ours.

    Parameters
    ----------
    model_name : str, default="ViT-B-32"
        CLIP whose text tower encodes the prompts, named as in :class:`CLIPFeatures`;
        ``"skhegraph-lite"`` is bundled.
    pretrained : str or None, default="laion2b_s34b_b79k"
        Weights tag or local checkpoint.
    text_features : {"clip", "prototypes"}, array-like or pair of array-like, default="clip"
        ``"clip"`` encodes prompts. An array of shape (n_classes, n_features) gives positive text
        features, rows in the order of the sorted labels; the negative node of a class is then
        the mean of the other classes' positives. A pair (positive, negative) gives both.
        ``"prototypes"`` uses no text (any numeric matrix will do).
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
    positive_to_visual : float or None, default=None
        Strength `rho` of the message from the text of a class to its visual node; None estimates
        it. Needs text.
    visual_to_visual : float or None, default=None
        Strength of the messages between visual nodes whose texts are alike, in units of the
        variance of a class mean about its prediction; None estimates it. Needs text.
    positive_to_negative, visual_to_negative : float, default=0.0
        Path weights `b_pn`, `b_vn` of the network into the negative nodes (Eq. 1-2). Negative
        nodes act through `negative_to_positive` alone. The described method has 0.5.
    positive_to_positive, visual_to_positive, negative_to_positive : float, default=0.0
        Path weights `a_pp`, `a_vp`, `a_np` of the network into the positive nodes (Eq. 3-4). The
        described method has 0.06, 0.24 and 0.2. With all three 0 no network is trained.
    top_k : int or None, default=None
        Keep the `top_k` strongest edges into each node of the network (sparse products); None
        keeps all.
    text_weight : float or None, default=None
        `a`; None estimates it. Needs text.
    visual_weight : float or None, default=None
        `b`; None estimates it.
    penalty : float, default=3.0
        Strength of the ridge on the residuals (and of the pull to zero-shot on the network), in
        units of one over the variance of the logits: a residual is expected to change them by
        1 / sqrt(penalty) of their spread.
    n_steps : int, default=20
        Training steps of the network.
    class_weight : {"balanced"}, dict or None, default="balanced"
        How much the classes count in the log-loss, and how likely they are before an image is
        seen. ``"balanced"``: equally, however many rows each has, since a support set is drawn by
        hand. None: as often as their rows. A mapping from label to weight multiplies that.
    unknown_label : str, int or None, default=None
        What `predict` returns for a row that is NaN throughout, as `CLIPFeatures` gives for an
        unreadable image with ``on_error="nan"``; None raises. Of the type of the labels.
    random_state : int, RandomState instance or None, default=None
        Draws the rows that calibrate `a` and `b`, and the rows of a step of the network, where a
        large support set has more than enough of them.
    device : str, default="auto"
        Where the text tower and the network run; all else runs on NumPy.

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
    text_coef_, text_intercept_ : ndarray
        Text branch: `a tau P'` and the residuals.
    visual_coef_, visual_intercept_ : ndarray
        Visual branch: `b` times the discriminant.
    log_prior_ : ndarray of shape (n_classes,)
        Log-probability of each class before an image is seen, from `class_weight`.
    positive_nodes_ : ndarray of shape (n_classes, n_features), float32
        Positive nodes `P'` after the network, unit rows.
    negative_nodes_ : ndarray of shape (n_classes, n_features), float32
        Negative nodes `N'` after the network.
    visual_nodes_ : ndarray of shape (n_classes, n_features), float32
        Adapted visual nodes `V'`.
    graph_ : dict
        Initial nodes ``"positive"``, ``"negative"``, ``"visual"``; see :meth:`to_hetero_data`.
    top_k_ : int or None
        Edges into each node of the network.
    text_weight_, visual_weight_ : float
        `a` and `b` in use.
    positive_to_visual_, visual_to_visual_ : float
        Strengths of the messages in use.
    shrinkage_ : float
        Covariance shrinkage of the discriminant, in pseudo-rows per feature.
    penalty_ : float
        Strength of the ridge on the residuals in use.
    logit_scale_ : float
        `tau` in use.
    n_iter_ : int
        Steps of L-BFGS on the residuals.
    loss_curve_ : list of float
        Loss of the network before each step.

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
    >>> clf = HeGraphClassifier(text_features="prototypes").fit(X[::5], y[::5])
    >>> clf.score(X, y) > 0.9
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **PromptedClassifier._parameter_constraints,
        "positive_to_visual": [non_negative(), None],
        "visual_to_visual": [non_negative(), None],
        "positive_to_negative": [non_negative()],
        "visual_to_negative": [non_negative()],
        "positive_to_positive": [non_negative()],
        "visual_to_positive": [non_negative()],
        "negative_to_positive": [non_negative()],
        "top_k": [Interval(Integral, 1, None, closed="left"), None],
        "text_weight": [non_negative(), None],
        "visual_weight": [non_negative(), None],
        "penalty": [positive()],
        "n_steps": [Interval(Integral, 0, None, closed="left")],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "unknown_label": [str, Integral, None],
        "random_state": ["random_state"],
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
        positive_to_visual: float | None = None,
        visual_to_visual: float | None = None,
        positive_to_negative: float = 0.0,
        visual_to_negative: float = 0.0,
        positive_to_positive: float = 0.0,
        visual_to_positive: float = 0.0,
        negative_to_positive: float = 0.0,
        top_k: int | None = None,
        text_weight: float | None = None,
        visual_weight: float | None = None,
        penalty: float = 3.0,
        n_steps: int = 20,
        class_weight: str | dict[Any, float] | None = "balanced",
        unknown_label: str | int | None = None,
        random_state: int | np.random.RandomState | None = None,
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
        self.positive_to_negative = positive_to_negative
        self.visual_to_negative = visual_to_negative
        self.positive_to_positive = positive_to_positive
        self.visual_to_positive = visual_to_positive
        self.negative_to_positive = negative_to_positive
        self.top_k = top_k
        self.text_weight = text_weight
        self.visual_weight = visual_weight
        self.penalty = penalty
        self.n_steps = n_steps
        self.class_weight = class_weight
        self.unknown_label = unknown_label
        self.random_state = random_state

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
        has_text = not (isinstance(self.text_features, str) and self.text_features == "prototypes")
        self._warn_if_ignored(has_text)
        prior = class_prior(self.class_weight, self.classes_, support)
        # Few rows of a class stand for few, however much the class counts: effective numbers.
        counts = support.sample_weight * (prior / support.shots)[support.y]
        loss_weight = effective_weights(counts)
        rng = check_random_state(self.random_state)

        # All but the network works in the span of the rows and the text.
        inside, basis = in_span(support)
        X, P, tau = inside.X, inside.positive, support.logit_scale

        # Messages adapt the visual nodes; leave-one-out logits weigh the two branches.
        model = VisualModel(
            inside,
            P if has_text else None,
            self.positive_to_visual if has_text else None,
            self.visual_to_visual if has_text else None,
            n_features=support.X.shape[1],
        )
        zero_shot = text_logits(X, P, tau) if has_text else None
        discriminant, a, b = fit_fusion(
            model, zero_shot, loss_weight, rng, self.text_weight, self.visual_weight
        )
        coef, intercept = (b * part for part in discriminant.linear())
        # Residuals learn on logits between in-sample (which few shots separate all too well) and
        # leave-one-out ones (of a model with one row less): by the share 1/k of a row in its class.
        visual = X @ coef.T + intercept
        held_out = b * discriminant.leave_one_out(np.arange(len(support.y)))
        visual += (held_out - visual) / shots_per_class(support)

        # The network adapts the text nodes, where it has paths.
        rows = calibration_rows(support, rng)
        fused = X[rows] @ (coef + a * tau * P).T + intercept
        self.penalty_ = self.penalty / wrong_class_spread(fused, support.y[rows]) ** 2
        nodes, N, self.loss_curve_ = self._adapt_text(support, visual, loss_weight, a, rng)

        # Residuals adapt each class to what both branches leave over.
        D = fit_residuals(
            X,
            support.y,
            loss_weight,
            text_logits(support.X, nodes, a * tau) + visual,
            self.penalty_,
            discriminant.omega,
            inside.visual.mean(axis=0),
        )
        self.n_iter_ = D.n_steps

        self.graph_ = {
            "positive": support.positive.astype(np.float32),
            "negative": support.negative.astype(np.float32),
            "visual": support.visual.astype(np.float32),
        }
        self.top_k_ = self.top_k
        self.positive_nodes_ = nodes.astype(np.float32)
        self.negative_nodes_ = N.astype(np.float32)
        self.visual_nodes_ = (discriminant.visual_nodes() @ basis).astype(np.float32)
        self.positive_to_visual_ = float(model.messages.positive_to_visual)
        self.visual_to_visual_ = float(model.messages.visual_to_visual)
        self.shrinkage_, self.text_weight_, self.visual_weight_ = discriminant.shrinkage, a, b
        self.visual_coef_, self.visual_intercept_ = coef @ basis, intercept
        self.text_coef_, self.text_intercept_ = a * tau * nodes + D.coef @ basis, D.intercept
        self.log_prior_ = np.log(prior)
        # Both branches are linear, and so is their sum: one matrix product predicts.
        self.coef_ = self.text_coef_ + self.visual_coef_
        self.intercept_ = self.text_intercept_ + self.visual_intercept_ + self.log_prior_
        if not np.isfinite(self.coef_).all():
            raise ValueError(
                "The fitted coefficients are not finite: lower logit_scale, text_weight or "
                "visual_weight."
            )
        return self

    def _adapt_text(
        self,
        support: Support,
        visual: Floats,
        loss_weight: Floats,
        text_weight: float,
        rng: np.random.RandomState,
    ) -> tuple[Floats, Floats, list[float]]:
        """Positive nodes (unit rows) and negative nodes after the network, and its losses."""
        into_positive = [getattr(self, name) for name in NETWORK_PATHS[2:]]
        if not (any(into_positive) and self.n_steps and text_weight):
            return support.positive, support.negative, []
        from skhegraph.clip.model import resolve_device
        from skhegraph.hegraph.graph import build_graph
        from skhegraph.hegraph.network import PathWeights
        from skhegraph.hegraph.training import train_text_nodes

        nodes = {
            "positive": support.positive,
            "negative": support.negative,
            "visual": support.visual,
        }
        P, N, curve = train_text_nodes(
            build_graph(nodes, self.top_k),
            PathWeights(*(getattr(self, name) for name in NETWORK_PATHS)),
            support,
            text_weight=text_weight,
            visual_logits=visual,
            loss_weight=loss_weight,
            # The ridge on D, for matrices that move all classes at once.
            penalty=self.penalty_ / (2 * shots_per_class(support)),
            n_steps=self.n_steps,
            rng=rng,
            device=resolve_device(self.device),
        )
        return unit_rows(P), N, curve

    def _warn_if_ignored(self, has_text: bool) -> None:
        """Warn of parameters that were set and cannot act."""
        paths = [name for name in NETWORK_PATHS if getattr(self, name)]
        into_negative = [name for name in paths if name.endswith("to_negative")]
        into_positive = [name for name in paths if name.endswith("to_positive")]
        graph = ["positive_to_visual", "visual_to_visual", "text_weight", "logit_scale"]
        given = {name for name in [*graph, "top_k", "negative_templates"] if self._is_set(name)}
        cases = [
            (not has_text, [*graph, *paths, "top_k"], "text_features='prototypes' has no text"),
            (not into_positive, ["top_k"], "no path weight into the positive nodes is above 0"),
            (
                not self.negative_to_positive,
                [*into_negative, "negative_templates"],
                "negative_to_positive=0 leaves the negative nodes without effect",
            ),
            (self.n_steps == 0, into_positive, "n_steps=0 trains no network"),
            (self.text_weight == 0, [*into_positive, "logit_scale"], "text_weight=0"),
        ]
        for applies, names, why in cases:
            ignored = [name for name in names if name in given or name in paths]
            if applies and ignored:
                message = f"{', '.join(ignored)}: ignored, since {why}."
                warnings.warn(message, UserWarning, stacklevel=3)
                return

    def _is_set(self, name: str) -> bool:
        return getattr(self, name) is not None

    def _check_unknown_label(self) -> None:
        """Refuse a label for unknowns that is a class or would change the type of the labels."""
        label = self.unknown_label
        if label is None:
            return
        if label in self.classes_:
            raise ValueError(f"unknown_label={label!r} is one of the classes: choose another.")
        if self.classes_.dtype.kind == "b" or (
            isinstance(label, str) != isinstance(self.classes_[0], str)
        ):
            raise ValueError(
                f"unknown_label={label!r} ({type(label).__name__}) is not of the type of the "
                f"labels ({type(self.classes_[0]).__name__}), so one array cannot hold both."
                + (ENCODED if are_encoded(self.classes_) else "")
            )

    def branch_proba(self, X: ArrayLike) -> Bunch:
        """Probabilities of the text-based, the visual-based and the fused classifier.

        Each includes the probability of the classes before an image is seen (`log_prior_`).

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
            text = Z @ self.text_coef_.T + self.text_intercept_
            visual = Z @ self.visual_coef_.T + self.visual_intercept_
            parts = (text + self.log_prior_, visual + self.log_prior_, self._logits(Z))
            return np.stack([softmax(part.astype(np.float64), axis=1) for part in parts], axis=1)

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
