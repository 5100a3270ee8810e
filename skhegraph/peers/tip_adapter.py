"""Tip-Adapter, without training and with trained cache keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state

from skhegraph.feature_classifier import (
    FeatureClassifier,
    TextFeatures,
    non_negative,
)
from skhegraph.peers.peer import Peer, UnweightedPeer
from skhegraph.peers.training import SCHEDULE, Seed, train
from skhegraph.support import Floats, Support

if TYPE_CHECKING:
    import torch


class CacheClassifier(FeatureClassifier):
    """Zero-shot logits plus weighted votes of a cache of keys and label values.

    `tau f T' + alpha exp(-beta (1 - f F')) L`.
    """

    alpha_: float
    beta_: float
    text_features_: Floats
    keys_: Floats
    values_: Floats

    def _logits(self, Z: Floats) -> Floats:
        text, keys, values = (
            array.astype(Z.dtype, copy=False)
            for array in (self.text_features_, self.keys_, self.values_)
        )
        votes = np.exp(self.beta_ * (Z @ keys.T - 1.0)) @ values
        return self.logit_scale_ * (Z @ text.T) + self.alpha_ * votes


class TipAdapterClassifier(CacheClassifier, Peer):
    """Zero-shot logits plus a key-value cache of the support set, without training.

    Zhang et al., "Tip-Adapter" (ECCV 2022), section 3.1: the logits are
    `tau f T' + alpha exp(-beta (1 - f F')) L`.

    Parameters
    ----------
    text_features : "prototypes", array-like, mapping, or pair of these, default="prototypes"
        Text features `T` of the classes, shape (n_classes, n_features), rows in the order of the
        sorted labels, or a mapping from label to row; of a pair the second is not used.
        ``"prototypes"``: class means.
    logit_scale : float or None, default=None
        CLIP's scale of the cosine, `tau`; None takes 100.
    alpha : float, default=1.17
        Weight of the cache against the zero-shot logits.
    beta : float, default=1.0
        Sharpness of the affinity.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    logit_scale_ : float
        `tau` in use.
    text_features_ : ndarray of shape (n_classes, n_features), float64
        Unit text features `T`.
    keys_ : ndarray of shape (n_samples, n_features), float64
        Unit support features `F`.
    alpha_, beta_ : float
        `alpha` and `beta` in use.
    values_ : ndarray of shape (n_samples, n_classes), float64
        One-hot labels `L`, times the sample weights.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import TipAdapterClassifier
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> clf = TipAdapterClassifier(alpha=2.0).fit(X, y)
    >>> clf.predict([[0.0, 1.0, 0.1, 0.0]])
    array(['cat'], dtype='<U3')
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **FeatureClassifier._parameter_constraints,
        "alpha": [non_negative()],
        "beta": [non_negative()],
    }

    def __init__(
        self,
        *,
        text_features: TextFeatures = "prototypes",
        logit_scale: float | None = None,
        alpha: float = 1.17,
        beta: float = 1.0,
    ) -> None:
        super().__init__(text_features=text_features, logit_scale=logit_scale)
        self.alpha = alpha
        self.beta = beta

    def _fit(self, support: Support) -> None:
        self.text_features_, self.keys_ = support.positive, support.X
        self.values_ = support.onehot
        self.alpha_, self.beta_ = float(self.alpha), float(self.beta)


class TipAdapterFClassifier(CacheClassifier, UnweightedPeer):
    """Tip-Adapter whose cache keys are trained.

    Zhang et al., "Tip-Adapter" (ECCV 2022), section 3.2: the logits are
    `tau f T' + alpha exp(-beta (1 - f F')) L`, with `F` started at the support features and
    trained by AdamW.

    Parameters
    ----------
    text_features : "prototypes", array-like, mapping, or pair of these, default="prototypes"
        Text features `T` of the classes, shape (n_classes, n_features), rows in the order of the
        sorted labels, or a mapping from label to row; of a pair the second is not used.
        ``"prototypes"``: class means.
    logit_scale : float or None, default=None
        CLIP's scale of the cosine, `tau`; None takes 100.
    alpha : float, default=1.17
        Weight of the cache against the zero-shot logits.
    beta : float, default=1.0
        Sharpness of the affinity.
    learning_rate : float, default=1e-3
        First rate of the cosine schedule.
    n_epochs : int, default=20
        Passes over the support set.
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
    text_features_ : ndarray of shape (n_classes, n_features), float64
        Unit text features `T`.
    keys_ : ndarray of shape (n_samples, n_features), float64
        Trained keys `F`.
    alpha_, beta_ : float
        `alpha` and `beta` in use.
    values_ : ndarray of shape (n_samples, n_classes), float64
        One-hot labels `L`.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import TipAdapterFClassifier
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> clf = TipAdapterFClassifier().fit(X, y)
    >>> clf.predict([[0.0, 1.0, 0.1, 0.0]])
    array(['cat'], dtype='<U3')
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **SCHEDULE,
        "alpha": [non_negative()],
        "beta": [non_negative()],
    }

    def __init__(
        self,
        *,
        text_features: TextFeatures = "prototypes",
        logit_scale: float | None = None,
        alpha: float = 1.17,
        beta: float = 1.0,
        learning_rate: float = 1e-3,
        n_epochs: int = 20,
        batch_size: int = 256,
        random_state: Seed = None,
        device: str = "auto",
    ) -> None:
        super().__init__(text_features=text_features, logit_scale=logit_scale)
        self.alpha = alpha
        self.beta = beta
        self.learning_rate = learning_rate
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.random_state = random_state
        self.device = device

    def _fit(self, support: Support) -> None:
        """Build the cache and train its keys."""
        alpha, beta, tau = float(self.alpha), float(self.beta), support.logit_scale

        def logits(f: torch.Tensor, keys: torch.Tensor, *fixed: torch.Tensor) -> torch.Tensor:
            text, values = fixed
            affinity = (beta * (f @ keys.T - 1.0)).exp()
            return tau * (f @ text.T) + alpha * (affinity @ values)

        self.text_features_, self.values_ = support.positive, support.onehot
        self.alpha_, self.beta_ = alpha, beta
        (self.keys_,) = train(
            [support.X],
            [self.text_features_, self.values_],
            logits,
            support,
            learning_rate=self.learning_rate,
            n_epochs=self.n_epochs,
            batch_size=self.batch_size,
            rng=check_random_state(self.random_state),
            device=self.device,
            weight_decay=0.01,
            eps=1e-4,
        )
