"""What a fitted HeGraphClassifier tells: branches, reasons, edges, and how familiar an image is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from skhegraph.clip.torch_settings import own_settings
from skhegraph.feature_classifier import LinearFeatureClassifier, softmax_rows
from skhegraph.hegraph.adaptation import Adapted, branches
from skhegraph.hegraph.class_graph import acting_edges
from skhegraph.hegraph.familiarity import familiarity, log_density, prominence
from skhegraph.hegraph.parameters import check_unknown_label
from skhegraph.labelled_rows import KeptRows, LabelledRows
from skhegraph.support import Floats, Ints, Support
from skhegraph.text_source import TextNodes

if TYPE_CHECKING:
    import pandas as pd
    from torch_geometric.data import HeteroData

#: Parameters that are strengths of relations.
STRENGTHS = (
    "positive_to_visual",
    "visual_to_visual",
    "positive_to_positive",
    "visual_to_positive",
    "negative_to_positive",
)


class FittedGraph(LinearFeatureClassifier):
    """Answers from the fitted arrays of :class:`skhegraph.HeGraphClassifier`, documented there."""

    unknown_threshold: float | None
    text_coef_: Floats
    text_intercept_: Floats
    visual_coef_: Floats
    visual_intercept_: Floats
    log_prior_: Floats
    graph_: dict[str, Floats]
    text_weight_: float
    uses_text_: bool
    visual_weight_: float
    visual_nodes_: Floats
    visual_whitener_: Floats
    visual_centre_: Floats
    outside_variance_: float
    familiarity_scale_: Floats
    prompts_: list[list[str]]
    prompt_features_: Floats
    support_features_: Floats
    support_labels_: Ints
    support_share_: Floats
    support_index_: Ints
    support_whole_: bool
    unlabelled_proba_: Floats
    unlabelled_index_: Ints
    unlabelled_features_: Floats
    unlabelled_weight_: Floats
    n_unlabelled_: int

    def _unknown(self, Z: Floats, logits: Floats) -> NDArray[np.bool_]:
        unreadable = super()._unknown(Z, logits)
        if self.unknown_threshold is None:
            return unreadable
        check_unknown_label(self.unknown_label, self.unknown_threshold, self.classes_)
        return unreadable | (self._familiarity(Z, logits) < self.unknown_threshold)

    def _with_unknown(self, index: Ints, unknown: NDArray[np.bool_]) -> NDArray[Any]:
        check_unknown_label(self.unknown_label, self.unknown_threshold, self.classes_)
        return super()._with_unknown(index, unknown)

    def _familiarity(self, Z: Floats, logits: Floats) -> Floats:
        density = log_density(
            Z,
            self.visual_nodes_,
            self.visual_whitener_,
            self.visual_centre_,
            self.outside_variance_,
        )
        return familiarity(density, prominence(logits), self.familiarity_scale_)

    def score_samples(self, X: ArrayLike) -> Floats:
        """How familiar each sample is: whether it belongs to any of the classes.

        The sum of two measures, :mod:`skhegraph.hegraph.familiarity`: the density of the images
        about the adapted visual nodes, and how far one class stands out. (Ours: the paper has no
        unknown classes.)

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features. A row that is NaN throughout gives NaN.

        Returns
        -------
        ndarray of shape (n_samples,)
            Higher is more familiar: standard deviations of left-out support rows from their mean.
            `predict` compares it with `unknown_threshold`. 0 where fewer than two classes have
            labelled images.
        """
        return self._in_chunks(X, lambda Z: self._familiarity(Z, self._logits(Z)))

    def explain(self, X: ArrayLike, n_classes: int = 3, n_support: int = 3) -> pd.DataFrame:
        """Why: evidence of text and images for the top classes of each sample.

        :func:`skhegraph.inspection.explain` does the same for a pipeline from images.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features.
        n_classes, n_support : int, default=3
            Most probable classes of each sample, and support rows of each.

        Returns
        -------
        pandas.DataFrame
            A row per sample and class; columns as of :func:`skhegraph.hegraph.evidence.explain`.
        """
        from skhegraph.hegraph.evidence import explain

        Z = np.asarray(self._in_chunks(X, lambda rows: rows), dtype=np.float64)
        return explain(self, Z, n_classes=n_classes, n_support=n_support)

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
            return np.stack([softmax_rows(part) for part in parts], axis=1)

        proba = self._in_chunks(X, each)
        return Bunch(text=proba[:, 0], visual=proba[:, 1], fused=proba[:, 2])

    def to_hetero_data(self) -> HeteroData:
        """The edges that acted in this fit, as torch_geometric data (imports torch).

        Returns
        -------
        torch_geometric.data.HeteroData
            Initial nodes `x` and, for each relation that acted, `edge_index` and `edge_weight`: the
            edges that the messages were gathered along times the strength with which they acted
            (:mod:`skhegraph.hegraph.class_graph`). Edges from class to class join those with
            images; all where there are rows without a label, or fewer than two have images.
        """
        check_is_fitted(self)
        from skhegraph.hegraph.graph import edge_lists

        strengths = {name: getattr(self, f"{name}_") for name in STRENGTHS}
        with_images = self._with_images()
        edges = acting_edges(self.graph_["positive"][with_images].astype(np.float64), strengths)
        with own_settings():
            return edge_lists(self.graph_, edges, with_images)

    def _with_images(self) -> Ints:
        """Classes that the text was centred over and that messages joined."""
        with_images = np.unique(self.support_labels_)
        every = self.n_unlabelled_ or len(with_images) < 2  # of one: see with_rows_from_text
        return np.arange(len(self.classes_)) if every else with_images

    # --- what a fit leaves ----------------------------------------------------------------------

    def _keep_branches(
        self, support: Support, adapted: Adapted, prior: Floats, dtype: Any
    ) -> NDArray[Any]:
        """Set nodes and coefficients, those in the precision of the rows; return class shares."""
        fitted, discriminant = branches(support, adapted), adapted.discriminant
        self.log_prior_ = np.log(prior)
        self.text_coef_ = fitted.text_coef.astype(dtype)
        self.text_intercept_ = fitted.text_intercept.astype(dtype)
        self.visual_coef_ = fitted.visual_coef.astype(dtype)
        self.visual_intercept_ = fitted.visual_intercept.astype(dtype)
        # Both branches are linear, and so is their sum: one matrix product predicts.
        self.coef_ = (fitted.text_coef + fitted.visual_coef).astype(dtype)
        intercept = fitted.text_intercept + fitted.visual_intercept + self.log_prior_
        self.intercept_ = intercept.astype(dtype)
        if not np.isfinite(self.coef_).all():
            raise ValueError(
                "The fitted coefficients are not finite: lower logit_scale, text_weight or "
                "visual_weight."
            )
        P, N, named = support.positive, support.negative, support.named
        if named is not None:
            P, N = named.merge(P, named.positive), named.merge(N, named.negative)
        nodes = {"positive": P, "negative": N, "visual": fitted.initial_visual}
        self.graph_ = {kind: array.astype(np.float32) for kind, array in nodes.items()}
        self.visual_nodes_ = fitted.visual_nodes.astype(np.float32)
        self.visual_whitener_ = (discriminant.whitener() @ adapted.basis).astype(np.float32)
        self.visual_centre_ = (discriminant.centre @ adapted.basis).astype(np.float32)
        self.outside_variance_ = discriminant.outside_variance()
        self.familiarity_scale_ = adapted.familiarity_scale
        return fitted.share

    def _keep_strengths(self, adapted: Adapted) -> None:
        """Set the scalars in use."""
        messages, paths = adapted.discriminant.model.messages, adapted.paths
        self.positive_to_visual_ = float(messages.positive_to_visual)
        self.visual_to_visual_ = float(messages.visual_to_visual)
        self.positive_to_positive_ = paths.positive_to_positive
        self.visual_to_positive_ = paths.visual_to_positive
        self.negative_to_positive_ = paths.negative_to_positive
        self.text_weight_, self.visual_weight_ = adapted.text_weight, adapted.visual_weight
        self.text_share_ = adapted.discriminant.model.text_share
        self.shrinkage_, self.penalty_ = adapted.discriminant.shrinkage, adapted.penalty
        self.n_iter_ = adapted.trained.n_steps

    def _keep_text(self, nodes: TextNodes) -> None:
        super()._keep_text(nodes)
        self.prompts_ = [list(group) for group in nodes.prompts]
        rows = np.concatenate(nodes.prompt_features or [np.empty((0, self.n_features_in_))])
        self.prompt_features_ = rows.astype(np.float32)

    def _keep_rows(self, rows: KeptRows) -> None:
        """Set what is kept of the support set."""
        self.support_features_, self.support_labels_ = rows.features, rows.labels
        self.support_weight_, self.support_index_ = rows.weight, rows.number
        self.support_share_, self.support_whole_ = rows.share, rows.whole

    def _keep_unlabelled(self, rows: LabelledRows, proba: Floats, all_rows: bool) -> None:
        """Set what is kept of rows without a label: the rows themselves if all are asked for."""
        self.n_unlabelled_ = len(rows.y)
        self.unlabelled_proba_ = proba.astype(np.float32)
        self.unlabelled_index_ = rows.number[: len(proba)]
        kept = rows.take(np.arange(len(rows.y) if all_rows else 0))
        self.unlabelled_features_, self.unlabelled_weight_ = kept.X, kept.weight
