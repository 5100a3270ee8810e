"""Baselines that train a small network or a residual by stochastic gradient steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from skhegraph.peers._tools import (
    LinearCLIPClassifier,
    Names,
    Template,
    Text,
    fill_docstring,
)
from skhegraph.peers._training import Schedule, Seed, train
from skhegraph.base import CLIPClassifier, Floats, check_number, unit_rows

if TYPE_CHECKING:
    import torch

__all__ = ["CLIPAdapterClassifier", "GraphAdapterClassifier", "TaskResClassifier"]


@fill_docstring
class CLIPAdapterClassifier(CLIPClassifier):
    """Zero-shot classification of features that pass a residual bottleneck network.

    Gao et al., "CLIP-Adapter" (IJCV 2024), section 3.2, image branch: the logits are
    `tau cos(ratio relu(relu(f A') B') + (1 - ratio) f, T)` with a bottleneck of D / 4.

    Parameters
    ----------
    {parameters}
    ratio : float, default=0.2
        Share of the adapted feature.
    learning_rate : float, default=1e-3
        First rate of the cosine schedule of Adam. The authors' SGD rate acts on features of
        other lengths and hardly moves weights that see unit rows.
    n_epochs : int, default=200
        Passes over the support set.
    batch_size : int, default=256
        Rows a step.
    random_state : int, RandomState or None, default=0
        Start of the network and order of the rows.

    Attributes
    ----------
    {attributes}
    text_features_ : ndarray of shape (n_classes, n_features), float64
        Unit text features `T`.
    down_ : ndarray of shape (n_hidden, n_features), float64
        First layer `A`.
    up_ : ndarray of shape (n_features, n_hidden), float64
        Second layer `B`.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import CLIPAdapterClassifier
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> clf = CLIPAdapterClassifier(text_features="prototypes").fit(X, y)
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
        ratio: float = 0.2,
        learning_rate: float = 1e-3,
        n_epochs: int = 200,
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
        self.ratio = ratio
        self.learning_rate = learning_rate
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> CLIPAdapterClassifier:
        """Train the bottleneck.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Support features.
        y : array-like of shape (n_samples,)
            Labels.

        Returns
        -------
        CLIPAdapterClassifier
            The fitted estimator.
        """
        check_number("ratio", self.ratio, 0, 1)
        rng = check_random_state(self.random_state)
        schedule = Schedule(self.learning_rate, self.n_epochs, self.batch_size, rng, self.device)
        schedule.check()
        support = self._validate_support(X, y)
        ratio, tau = float(self.ratio), support.logit_scale

        def logits(
            f: torch.Tensor, down: torch.Tensor, up: torch.Tensor, text: torch.Tensor
        ) -> Any:
            from torch.nn.functional import normalize

            adapted = ((f @ down.T).relu() @ up.T).relu()
            return tau * (normalize(ratio * adapted + (1.0 - ratio) * f) @ text.T)

        width = support.X.shape[1]
        hidden = max(1, width // 4)
        starts = [
            rng.uniform(-1.0, 1.0, (hidden, width)) / math.sqrt(width),
            rng.uniform(-1.0, 1.0, (width, hidden)) / math.sqrt(hidden),
        ]
        self.text_features_ = support.positive
        self.down_, self.up_ = train(starts, [self.text_features_], logits, support, schedule)
        return self

    def _logits(self, Z: Floats) -> Floats:
        adapted = np.maximum(np.maximum(Z @ self.down_.T, 0.0) @ self.up_.T, 0.0)
        mixed = unit_rows(self.ratio * adapted + (1.0 - self.ratio) * Z)
        return self.logit_scale_ * (mixed @ self.text_features_.T)


@fill_docstring
class TaskResClassifier(LinearCLIPClassifier):
    """Zero-shot weights plus a learned residual that does not depend on the text.

    Yu et al., "Task Residual for Tuning Vision-Language Models" (CVPR 2023), section 4: the
    logits are `tau cos(f, T + alpha R)`; `R` starts at zero.

    Parameters
    ----------
    {parameters}
    alpha : float, default=0.5
        Scale of the residual.
    text_norm : float, default=10.0
        Length of a row of `T` against which `R` is learned: the authors add `R` to CLIP's raw
        text features, whose length is about 10.
    learning_rate : float, default=2e-3
        First rate of the cosine schedule of Adam, after one epoch at 1e-5.
    n_epochs : int or None, default=None
        Passes over the support set; None takes the authors' 100 for up to four rows a class
        and 200 for more.
    batch_size : int, default=256
        Rows a step.
    random_state : int, RandomState or None, default=0
        Order of the rows.

    Attributes
    ----------
    {attributes}
    coef_ : ndarray of shape (n_classes, n_features), float64
        `tau` times the unit rows of `T + alpha R`.
    intercept_ : ndarray of shape (n_classes,), float64
        Zeros.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import TaskResClassifier
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> TaskResClassifier(text_features="prototypes").fit(X, y).predict([[0.0, 1.0, 0.1, 0.0]])
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
        alpha: float = 0.5,
        text_norm: float = 10.0,
        learning_rate: float = 2e-3,
        n_epochs: int | None = None,
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
        self.text_norm = text_norm
        self.learning_rate = learning_rate
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> TaskResClassifier:
        """Train the residual.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Support features.
        y : array-like of shape (n_samples,)
            Labels.

        Returns
        -------
        TaskResClassifier
            The fitted estimator.
        """
        check_number("alpha", self.alpha, 0)
        check_number("text_norm", self.text_norm, 0, closed=False)
        support = self._validate_support(X, y)
        few = len(support.y) <= 4 * len(support.positive)
        schedule = Schedule(
            self.learning_rate,
            (100 if few else 200) if self.n_epochs is None else self.n_epochs,
            self.batch_size,
            self.random_state,
            self.device,
            warmup=True,
        )
        schedule.check()
        alpha, tau = float(self.alpha), support.logit_scale
        text = float(self.text_norm) * support.positive

        def logits(f: torch.Tensor, residual: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
            from torch.nn.functional import normalize

            return tau * (f @ normalize(base + alpha * residual).T)

        (residual,) = train([np.zeros_like(text)], [text], logits, support, schedule)
        self._set_linear(tau * unit_rows(text + alpha * residual))
        return self


def star_aggregate(centres: Floats, leaves: Floats) -> Floats:
    """Aggregate, for every centre, the graph of it and all leaves by one normalised GCN row.

    Edges are cosines cut at zero, with self-loops added; degrees normalise symmetrically.
    Returns what the centre receives, shape of `centres`, before the weight matrix.
    """
    to_leaves = np.maximum(unit_rows(centres) @ unit_rows(leaves).T, 0.0)
    among = np.maximum(unit_rows(leaves) @ unit_rows(leaves).T, 0.0).sum(axis=1)
    norms = np.einsum("cd,cd->c", unit_rows(centres), unit_rows(centres))
    degree = norms + 1.0 + to_leaves.sum(axis=1)
    leaf_degree = among[None, :] + 1.0 + to_leaves
    weights = to_leaves / np.sqrt(degree[:, None] * leaf_degree)
    return ((norms + 1.0) / degree)[:, None] * centres + weights @ leaves


@fill_docstring
class GraphAdapterClassifier(LinearCLIPClassifier):
    """Text features refined by a text graph and an image-text graph.

    Li et al., "GraphAdapter: Tuning Vision-Language Models with Dual Knowledge Graph" (NeurIPS
    2023), section 3.2: each class's text feature joins a graph with all text features and one
    with all class means of the support; a graph convolution with tanh reads out its node, and
    the logits are `tau cos(f, beta T + (1 - beta) (alpha G_text + (1 - alpha) G_image))`.

    Parameters
    ----------
    {parameters}
    alpha : float, default=0.7
        Share of the text graph.
    beta : float, default=0.7
        Share of the text feature itself; the authors choose it for each data set.
    text_norm : float, default=10.0
        Length of the nodes: the authors use CLIP's raw features, whose length is about 10.
    learning_rate : float, default=1e-3
        First rate of the cosine schedule of Adam, after one epoch at 1e-5.
    n_epochs : int, default=100
        Passes over the support set.
    batch_size : int, default=256
        Rows a step.
    random_state : int, RandomState or None, default=0
        Start of the weight matrices and order of the rows.

    Attributes
    ----------
    {attributes}
    coef_ : ndarray of shape (n_classes, n_features), float64
        `tau` times the refined unit text features.
    intercept_ : ndarray of shape (n_classes,), float64
        Zeros.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import GraphAdapterClassifier
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> clf = GraphAdapterClassifier(text_features="prototypes").fit(X, y)
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
        alpha: float = 0.7,
        beta: float = 0.7,
        text_norm: float = 10.0,
        learning_rate: float = 1e-3,
        n_epochs: int = 100,
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
        self.text_norm = text_norm
        self.learning_rate = learning_rate
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> GraphAdapterClassifier:
        """Train the two graph convolutions and fold them into text weights.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Support features.
        y : array-like of shape (n_samples,)
            Labels.

        Returns
        -------
        GraphAdapterClassifier
            The fitted estimator.
        """
        check_number("alpha", self.alpha, 0, 1)
        check_number("beta", self.beta, 0, 1)
        check_number("text_norm", self.text_norm, 0, closed=False)
        rng = check_random_state(self.random_state)
        schedule = Schedule(
            self.learning_rate, self.n_epochs, self.batch_size, rng, self.device, warmup=True
        )
        schedule.check()
        support = self._validate_support(X, y)
        alpha, beta, tau = float(self.alpha), float(self.beta), support.logit_scale
        text = float(self.text_norm) * support.positive
        visual = float(self.text_norm) * support.visual
        constants = [text, star_aggregate(text, text), star_aggregate(text, visual)]

        def refine(tanh: Any, *arrays: Any) -> Any:
            W_text, b_text, W_image, b_image, base, from_text, from_image = arrays
            graph_text = tanh(from_text @ W_text + b_text)
            graph_image = tanh(from_image @ W_image + b_image)
            return beta * base + (1.0 - beta) * (alpha * graph_text + (1.0 - alpha) * graph_image)

        def logits(f: torch.Tensor, *arrays: torch.Tensor) -> torch.Tensor:
            import torch

            refined = refine(torch.tanh, *arrays)
            return tau * (f @ torch.nn.functional.normalize(refined).T)

        width = text.shape[1]
        bound = 1.0 / math.sqrt(width)
        starts = [
            rng.uniform(-bound, bound, (width, width)),
            np.zeros_like(text),
            rng.uniform(-bound, bound, (width, width)),
            np.zeros_like(text),
        ]
        trained = train(starts, constants, logits, support, schedule)
        self._set_linear(tau * unit_rows(refine(np.tanh, *trained, *constants)))
        return self
