"""GraphAdapter: text features refined by a text graph and an image-text graph."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state

from skhegraph._sklearn import Interval
from skhegraph.feature_classifier import (
    LinearFeatureClassifier,
    TextFeatures,
    positive,
)
from skhegraph.peers.peer import UnweightedPeer
from skhegraph.peers.training import SCHEDULE, Seed, train
from skhegraph.support import Floats, Support, unit_rows

if TYPE_CHECKING:
    import torch


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


class GraphAdapterClassifier(LinearFeatureClassifier, UnweightedPeer):
    """Text features refined by a text graph and an image-text graph.

    Li et al., "GraphAdapter: Tuning Vision-Language Models with Dual Knowledge Graph" (NeurIPS
    2023), section 3.2: each class's text feature joins a graph with all text features and one
    with all class means of the support; a graph convolution with tanh reads out its node, and
    the logits are `tau cos(f, beta T + (1 - beta) (alpha G_text + (1 - alpha) G_image))`.

    Parameters
    ----------
    text_features : "prototypes", array-like, mapping, or pair of these, default="prototypes"
        Text features `T` of the classes, shape (n_classes, n_features), rows in the order of the
        sorted labels, or a mapping from label to row; of a pair the second is not used.
        ``"prototypes"``: class means.
    logit_scale : float or None, default=None
        CLIP's scale of the cosine, `tau`; None takes 100.
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
        Rows per step.
    random_state : int, RandomState instance or None, default=None
        Start of the weight matrices and order of the rows.
    device : str, default="auto"
        Where the training runs; predicting runs on NumPy.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    logit_scale_ : float
        `tau` in use.
    coef_ : ndarray of shape (n_classes, n_features), float64
        `tau` times the refined unit text features.
    intercept_ : ndarray of shape (n_classes,), float64
        Zeros.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import GraphAdapterClassifier
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> clf = GraphAdapterClassifier().fit(X, y)
    >>> clf.predict([[0.0, 1.0, 0.1, 0.0]])
    array(['cat'], dtype='<U3')
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **SCHEDULE,
        "alpha": [Interval(Real, 0, 1, closed="both")],
        "beta": [Interval(Real, 0, 1, closed="both")],
        "text_norm": [positive()],
    }

    def __init__(
        self,
        *,
        text_features: TextFeatures = "prototypes",
        logit_scale: float | None = None,
        alpha: float = 0.7,
        beta: float = 0.7,
        text_norm: float = 10.0,
        learning_rate: float = 1e-3,
        n_epochs: int = 100,
        batch_size: int = 256,
        random_state: Seed = None,
        device: str = "auto",
    ) -> None:
        super().__init__(text_features=text_features, logit_scale=logit_scale)
        self.alpha = alpha
        self.beta = beta
        self.text_norm = text_norm
        self.learning_rate = learning_rate
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.random_state = random_state
        self.device = device

    def _fit(self, support: Support) -> None:
        """Train the two graph convolutions and fold them into text weights."""
        rng = check_random_state(self.random_state)
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
        trained = train(
            starts,
            constants,
            logits,
            support,
            learning_rate=self.learning_rate,
            n_epochs=self.n_epochs,
            batch_size=self.batch_size,
            rng=rng,
            device=self.device,
            warmup=True,
        )
        self.coef_ = tau * unit_rows(refine(np.tanh, *trained, *constants))
        self.intercept_ = np.zeros(support.n_classes)
