"""Peers that train a bottleneck or a residual: CLIP-Adapter and TaskRes."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state

from skhegraph._sklearn import Interval
from skhegraph.feature_classifier import (
    LinearFeatureClassifier,
    TextFeatures,
    non_negative,
    positive,
)
from skhegraph.peers.peer import UnweightedPeer
from skhegraph.peers.training import SCHEDULE, Seed, train
from skhegraph.support import Floats, Support, unit_rows

if TYPE_CHECKING:
    import torch


class CLIPAdapterClassifier(UnweightedPeer):
    """Zero-shot classification of features that pass a residual bottleneck network.

    Gao et al., "CLIP-Adapter" (IJCV 2024), section 3.2, image branch: the logits are
    `tau cos(ratio relu(relu(f A') B') + (1 - ratio) f, T)` with a bottleneck of D / 4.

    Parameters
    ----------
    text_features : "prototypes", array-like, mapping, or pair of these, default="prototypes"
        Text features `T` of the classes, shape (n_classes, n_features), rows in the order of the
        sorted labels, or a mapping from label to row; of a pair the second is not used.
        ``"prototypes"``: class means.
    logit_scale : float or None, default=None
        CLIP's scale of the cosine, `tau`; None takes 100.
    ratio : float, default=0.2
        Share of the adapted feature.
    learning_rate : float, default=1e-3
        First rate of the cosine schedule of Adam. The authors' SGD rate acts on features of
        other lengths and hardly moves weights that see unit rows.
    n_epochs : int, default=200
        Passes over the support set.
    batch_size : int, default=256
        Rows per step.
    random_state : int, RandomState instance or None, default=None
        Start of the network and order of the rows.
    device : str, default="auto"
        Where the training runs; predicting runs on NumPy.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    logit_scale_ : float
        `tau` in use.
    text_features_ : ndarray of shape (n_classes, n_features), float64
        Unit text features `T`.
    down_ : ndarray of shape (n_hidden, n_features), float64
        First layer `A`.
    ratio_ : float
        `ratio` in use.
    up_ : ndarray of shape (n_features, n_hidden), float64
        Second layer `B`.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import CLIPAdapterClassifier
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> clf = CLIPAdapterClassifier().fit(X, y)
    >>> clf.predict([[0.0, 1.0, 0.1, 0.0]])
    array(['cat'], dtype='<U3')
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **SCHEDULE,
        "ratio": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(
        self,
        *,
        text_features: TextFeatures = "prototypes",
        logit_scale: float | None = None,
        ratio: float = 0.2,
        learning_rate: float = 1e-3,
        n_epochs: int = 200,
        batch_size: int = 256,
        random_state: Seed = None,
        device: str = "auto",
    ) -> None:
        super().__init__(text_features=text_features, logit_scale=logit_scale)
        self.ratio = ratio
        self.learning_rate = learning_rate
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.random_state = random_state
        self.device = device

    def _fit(self, support: Support) -> None:
        """Train the bottleneck."""
        rng = check_random_state(self.random_state)
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
        self.ratio_ = ratio
        self.down_, self.up_ = train(
            starts,
            [self.text_features_],
            logits,
            support,
            learning_rate=self.learning_rate,
            n_epochs=self.n_epochs,
            batch_size=self.batch_size,
            rng=rng,
            device=self.device,
        )

    def _logits(self, Z: Floats) -> Floats:
        down, up, text = (
            array.astype(Z.dtype, copy=False)
            for array in (self.down_, self.up_, self.text_features_)
        )
        adapted = np.maximum(np.maximum(Z @ down.T, 0.0) @ up.T, 0.0)
        mixed = unit_rows(self.ratio_ * adapted + (1.0 - self.ratio_) * Z)
        return self.logit_scale_ * (mixed @ text.T)


class TaskResClassifier(LinearFeatureClassifier, UnweightedPeer):
    """Zero-shot weights plus a learned residual that does not depend on the text.

    Yu et al., "Task Residual for Tuning Vision-Language Models" (CVPR 2023), section 4: the
    logits are `tau cos(f, T + alpha R)`; `R` starts at zero.

    Parameters
    ----------
    text_features : "prototypes", array-like, mapping, or pair of these, default="prototypes"
        Text features `T` of the classes, shape (n_classes, n_features), rows in the order of the
        sorted labels, or a mapping from label to row; of a pair the second is not used.
        ``"prototypes"``: class means.
    logit_scale : float or None, default=None
        CLIP's scale of the cosine, `tau`; None takes 100.
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
        Rows per step.
    random_state : int, RandomState instance or None, default=None
        Order of the rows.
    device : str, default="auto"
        Where the training runs; predicting runs on NumPy.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    logit_scale_ : float
        `tau` in use.
    coef_ : ndarray of shape (n_classes, n_features), float64
        `tau` times the unit rows of `T + alpha R`.
    intercept_ : ndarray of shape (n_classes,), float64
        Zeros.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import TaskResClassifier
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> TaskResClassifier().fit(X, y).predict([[0.0, 1.0, 0.1, 0.0]])
    array(['cat'], dtype='<U3')
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **SCHEDULE,
        "alpha": [non_negative()],
        "text_norm": [positive()],
        "n_epochs": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        *,
        text_features: TextFeatures = "prototypes",
        logit_scale: float | None = None,
        alpha: float = 0.5,
        text_norm: float = 10.0,
        learning_rate: float = 2e-3,
        n_epochs: int | None = None,
        batch_size: int = 256,
        random_state: Seed = None,
        device: str = "auto",
    ) -> None:
        super().__init__(text_features=text_features, logit_scale=logit_scale)
        self.alpha = alpha
        self.text_norm = text_norm
        self.learning_rate = learning_rate
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.random_state = random_state
        self.device = device

    def _fit(self, support: Support) -> None:
        """Train the residual."""
        few = len(support.y) <= 4 * len(support.positive)
        alpha, tau = float(self.alpha), support.logit_scale
        text = float(self.text_norm) * support.positive

        def logits(f: torch.Tensor, residual: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
            from torch.nn.functional import normalize

            return tau * (f @ normalize(base + alpha * residual).T)

        (residual,) = train(
            [np.zeros_like(text)],
            [text],
            logits,
            support,
            learning_rate=self.learning_rate,
            n_epochs=(100 if few else 200) if self.n_epochs is None else self.n_epochs,
            batch_size=self.batch_size,
            rng=check_random_state(self.random_state),
            device=self.device,
            warmup=True,
        )
        self.coef_ = tau * unit_rows(text + alpha * residual)
        self.intercept_ = np.zeros(support.n_classes)
