"""Few-shot classifiers on frozen CLIP features that HeGraph is compared with.

Every class works on unit rows: `f` is a query, `T` (C, D) the text features of the classes, `F`
(n, D) the support rows, `L` (n, C) their one-hot labels, `tau` CLIP's logit scale. Defaults are
the authors' unless a docstring says why not. Here are Tip-Adapter, its trained form and GDA;
those that minimise a smooth loss are in :mod:`skhegraph.peers.convex`, those that train by
stochastic gradients in :mod:`skhegraph.peers.trained`. All can be imported from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from skhegraph.peers._tools import (
    LinearCLIPClassifier,
    Names,
    Template,
    Text,
    fill_docstring,
)
from skhegraph.peers._training import Schedule, Seed, train
from skhegraph.base import CLIPClassifier, Floats, Support, check_number
from skhegraph.peers.convex import (
    CLAPClassifier,
    LPPlusPlusClassifier,
    TextStartedLogisticRegression,
)
from skhegraph.peers.trained import (
    CLIPAdapterClassifier,
    GraphAdapterClassifier,
    TaskResClassifier,
)

if TYPE_CHECKING:
    import torch

__all__ = [
    "CLAPClassifier",
    "CLIPAdapterClassifier",
    "GDAClassifier",
    "GraphAdapterClassifier",
    "LPPlusPlusClassifier",
    "TaskResClassifier",
    "TextStartedLogisticRegression",
    "TipAdapterClassifier",
    "TipAdapterFClassifier",
]


class _CacheClassifier(CLIPClassifier):
    """Zero-shot logits plus weighted votes of a cache of keys and label values."""

    alpha: float
    beta: float
    text_features_: Floats
    keys_: Floats
    values_: Floats

    def _logits(self, Z: Floats) -> Floats:
        affinity = np.exp(self.beta * (Z @ self.keys_.T - 1.0))
        return self.logit_scale_ * (Z @ self.text_features_.T) + self.alpha * (
            affinity @ self.values_
        )


@fill_docstring
class TipAdapterClassifier(_CacheClassifier):
    """Zero-shot logits plus a key-value cache of the support set, without training.

    Zhang et al., "Tip-Adapter" (ECCV 2022), section 3.1: the logits are
    `tau f T' + alpha exp(-beta (1 - f F')) L`.

    Parameters
    ----------
    {parameters}
    alpha : float, default=1.17
        Weight of the cache against the zero-shot logits.
    beta : float, default=1.0
        Sharpness of the affinity.

    Attributes
    ----------
    {attributes}
    text_features_ : ndarray of shape (n_classes, n_features), float64
        Unit text features `T`.
    keys_ : ndarray of shape (n_samples, n_features), float64
        Unit support features `F`.
    values_ : ndarray of shape (n_samples, n_classes), float64
        One-hot labels `L`, times the sample weights.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import TipAdapterClassifier
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> clf = TipAdapterClassifier(text_features="prototypes", alpha=2.0).fit(X, y)
    >>> clf.predict([[0.0, 1.0, 0.1, 0.0]])
    array(['cat'], dtype='<U3')
    """

    def __init__(
        self,
        model_name: str = "ViT-B-32",
        pretrained: str | None = "laion2b_s34b_b79k",
        *,
        text_features: Text = "clip",
        class_names: Names = None,
        templates: Any = "photo",
        negative_templates: Template = None,
        logit_scale: float | None = None,
        device: str = "auto",
        alpha: float = 1.17,
        beta: float = 1.0,
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
        self.alpha = alpha
        self.beta = beta

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> TipAdapterClassifier:
        """Store the support set as the cache.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Support features.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights; a weight of two is the same as the row twice.

        Returns
        -------
        TipAdapterClassifier
            The fitted estimator.
        """
        check_number("alpha", self.alpha, 0)
        check_number("beta", self.beta, 0)
        support = self._validate_support(X, y, sample_weight)
        self.text_features_, self.keys_ = support.positive, support.X
        self.values_ = support.onehot
        return self


@fill_docstring
class TipAdapterFClassifier(_CacheClassifier):
    """Tip-Adapter whose cache keys are trained.

    Zhang et al., "Tip-Adapter" (ECCV 2022), section 3.2: the logits are
    `tau f T' + alpha exp(-beta (1 - f F')) L`, with `F` started at the support features and
    trained by AdamW.

    Parameters
    ----------
    {parameters}
    alpha : float, default=1.17
        Weight of the cache against the zero-shot logits.
    beta : float, default=1.0
        Sharpness of the affinity.
    learning_rate : float, default=1e-3
        First rate of the cosine schedule.
    n_epochs : int, default=20
        Passes over the support set.
    batch_size : int, default=256
        Rows a step.
    random_state : int, RandomState or None, default=0
        Order of the rows.

    Attributes
    ----------
    {attributes}
    text_features_ : ndarray of shape (n_classes, n_features), float64
        Unit text features `T`.
    keys_ : ndarray of shape (n_samples, n_features), float64
        Trained keys `F`.
    values_ : ndarray of shape (n_samples, n_classes), float64
        One-hot labels `L`.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import TipAdapterFClassifier
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> clf = TipAdapterFClassifier(text_features="prototypes").fit(X, y)
    >>> clf.predict([[0.0, 1.0, 0.1, 0.0]])
    array(['cat'], dtype='<U3')
    """

    def __init__(
        self,
        model_name: str = "ViT-B-32",
        pretrained: str | None = "laion2b_s34b_b79k",
        *,
        text_features: Text = "clip",
        class_names: Names = None,
        templates: Any = "photo",
        negative_templates: Template = None,
        logit_scale: float | None = None,
        device: str = "auto",
        alpha: float = 1.17,
        beta: float = 1.0,
        learning_rate: float = 1e-3,
        n_epochs: int = 20,
        batch_size: int = 256,
        random_state: Seed = 0,
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
        self.alpha = alpha
        self.beta = beta
        self.learning_rate = learning_rate
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> TipAdapterFClassifier:
        """Build the cache and train its keys.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Support features.
        y : array-like of shape (n_samples,)
            Labels.

        Returns
        -------
        TipAdapterFClassifier
            The fitted estimator.
        """
        check_number("alpha", self.alpha, 0)
        check_number("beta", self.beta, 0)
        schedule = Schedule(
            self.learning_rate,
            self.n_epochs,
            self.batch_size,
            self.random_state,
            self.device,
            weight_decay=0.01,
            eps=1e-4,
        )
        schedule.check()
        support = self._validate_support(X, y)
        alpha, beta, tau = float(self.alpha), float(self.beta), support.logit_scale

        def logits(f: torch.Tensor, keys: torch.Tensor, *fixed: torch.Tensor) -> torch.Tensor:
            text, values = fixed
            affinity = (beta * (f @ keys.T - 1.0)).exp()
            return tau * (f @ text.T) + alpha * (affinity @ values)

        self.text_features_, self.values_ = support.positive, support.onehot
        constants = [self.text_features_, self.values_]
        (self.keys_,) = train([support.X], constants, logits, support, schedule)
        return self


@fill_docstring
class GDAClassifier(LinearCLIPClassifier):
    """Zero-shot logits plus Gaussian discriminant analysis with a shared, shrunk covariance.

    Wang et al., "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation" (ICLR 2024),
    section 3: with class means `m_c`, within-class covariance `Cov` and precision
    `S = D pinv((n - 1) Cov + tr(Cov) I)`, the logits are
    `tau f T' + alpha (f S m_c - log C - m_c' S m_c / 2)`.

    Parameters
    ----------
    {parameters}
    alpha : float, default=0.1
        Weight of the discriminant against the zero-shot logits; the authors search decades.

    Attributes
    ----------
    {attributes}
    coef_ : ndarray of shape (n_classes, n_features), float64
        Weights of the logits.
    intercept_ : ndarray of shape (n_classes,), float64
        Offsets of the logits.

    Notes
    -----
    With one row a class there is no scatter within classes (the authors get some from augmented
    views); the scatter about the grand mean stands in for it then.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import GDAClassifier
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> GDAClassifier(text_features="prototypes").fit(X, y).predict([[0.0, 1.0, 0.1, 0.0]])
    array(['cat'], dtype='<U3')
    """

    def __init__(
        self,
        model_name: str = "ViT-B-32",
        pretrained: str | None = "laion2b_s34b_b79k",
        *,
        text_features: Text = "clip",
        class_names: Names = None,
        templates: Any = "photo",
        negative_templates: Template = None,
        logit_scale: float | None = None,
        device: str = "auto",
        alpha: float = 0.1,
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
        self.alpha = alpha

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> GDAClassifier:
        """Estimate means and precision and add the discriminant to the text weights.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Support features.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights; a weight of two is the same as the row twice.

        Returns
        -------
        GDAClassifier
            The fitted estimator.
        """
        check_number("alpha", self.alpha, 0)
        support = self._validate_support(X, y, sample_weight)
        means = support.visual
        weights = means @ shrunk_precision(support, means)
        offsets = -np.log(len(means)) - 0.5 * np.einsum("cd,cd->c", weights, means)
        self._set_linear(
            support.logit_scale * support.positive + self.alpha * weights, self.alpha * offsets
        )
        return self


def shrunk_precision(support: Support, means: Floats) -> Floats:
    """Precision `D pinv((n - 1) Cov + tr(Cov) I)` of the scatter about the class means."""
    weight = support.sample_weight
    n, width = weight.sum(), support.X.shape[1]
    centred = support.X - means[support.y]
    if np.square(centred).sum() <= 1e-12 * len(centred):
        centred = support.X - weight @ support.X / n
    scatter = (centred * weight[:, None]).T @ centred
    shrinkage = np.trace(scatter) / max(n - 1.0, 1e-6)
    return width * np.linalg.pinv(scatter + shrinkage * np.eye(width), hermitian=True)
