"""Peers that minimise a smooth loss of the whole support set, deterministic NumPy."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from scipy.special import softmax

from skhegraph._sklearn import Interval
from skhegraph.feature_classifier import (
    FeatureClassifier,
    TextFeatures,
    non_negative,
    positive,
)
from skhegraph.peers.closed_form import shrunk_discriminant
from skhegraph.peers.peer import LinearPeer
from skhegraph.peers.smooth_loss import cross_entropy, minimise
from skhegraph.support import Floats, Support, unit_rows


class TextStartedLogisticRegression(LinearPeer):
    """Multinomial logistic regression that starts at, and is pulled to, the text classifier.

    Minimises `C sum_i w_i CE(f_i W') + ||W - tau T||^2 / 2` over `W` (C, D): scikit-learn's
    penalised regression, but shrunk to the zero-shot weights and not to zero. It belongs to the
    linear probes started from text, as in Silva-Rodriguez et al., "A Closer Look at the Few-Shot
    Adaptation of Large Vision-Language Models" (CVPR 2024), section 4.

    Parameters
    ----------
    text_features : "prototypes", array-like, mapping, or pair of these, default="prototypes"
        Text features `T` of the classes, shape (n_classes, n_features), rows in the order of the
        sorted labels, or a mapping from label to row; of a pair the second is not used.
        ``"prototypes"``: class means.
    logit_scale : float or None, default=None
        CLIP's scale of the cosine, `tau`; None takes 100.
    C : float, default=1.0
        Inverse strength of the pull, as in scikit-learn.
    max_iter : int, default=1000
        Most steps of L-BFGS.
    tol : float, default=1e-5
        Largest entry of the gradient of the mean loss at which to stop.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    logit_scale_ : float
        `tau` in use.
    coef_ : ndarray of shape (n_classes, n_features), float64
        Weights of the logits.
    intercept_ : ndarray of shape (n_classes,), float64
        Zeros.
    n_iter_ : int
        Steps taken.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import TextStartedLogisticRegression
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> clf = TextStartedLogisticRegression().fit(X, y)
    >>> clf.predict([[0.0, 1.0, 0.1, 0.0]])
    array(['cat'], dtype='<U3')
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **FeatureClassifier._parameter_constraints,
        "C": [positive()],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [positive()],
    }

    def __init__(
        self,
        *,
        text_features: TextFeatures = "prototypes",
        logit_scale: float | None = None,
        C: float = 1.0,
        max_iter: int = 1000,
        tol: float = 1e-5,
    ) -> None:
        super().__init__(text_features=text_features, logit_scale=logit_scale)
        self.C = C
        self.max_iter = max_iter
        self.tol = tol

    def _fit(self, support: Support) -> None:
        text = support.logit_scale * support.positive
        pull = 1.0 / (self.C * support.sample_weight.sum())

        def objective(shift: Floats) -> tuple[float, Floats]:
            loss, residual = cross_entropy(support.X @ (text + shift).T, support)
            return (
                loss + 0.5 * pull * np.square(shift).sum(),
                residual.T @ support.X + pull * shift,
            )

        shift, self.n_iter_ = minimise(
            objective,
            np.zeros_like(text),
            max_iter=self.max_iter,
            tol=self.tol,
            name=type(self).__name__,
        )
        self.coef_, self.intercept_ = text + shift, np.zeros(support.n_classes)


class CLAPClassifier(LinearPeer):
    """Text prototypes adapted under a class-wise penalty that needs no validation set.

    Silva-Rodriguez et al., "A Closer Look at the Few-Shot Adaptation of Large Vision-Language
    Models" (CVPR 2024), section 4.2: the logits are `tau cos(f, W)`; `W` starts at `T` and
    minimises `CE + penalty mean_c(a_c ||W_c - T_c||^2)`, where `a_c` is the mean zero-shot
    probability of class c on its own support rows.

    Parameters
    ----------
    text_features : "prototypes", array-like, mapping, or pair of these, default="prototypes"
        Text features `T` of the classes, shape (n_classes, n_features), rows in the order of the
        sorted labels, or a mapping from label to row; of a pair the second is not used.
        ``"prototypes"``: class means.
    logit_scale : float or None, default=None
        CLIP's scale of the cosine, `tau`; None takes 100.
    penalty : float, default=100.0
        Multiplier of the penalty. The authors use 1 on CLIP's raw text features, whose length
        is about 10; squared distances between unit rows are 100 times smaller.
    max_iter : int, default=1000
        Most steps of L-BFGS.
    tol : float, default=1e-4
        Largest entry of the gradient at which to stop.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    logit_scale_ : float
        `tau` in use.
    coef_ : ndarray of shape (n_classes, n_features), float64
        Weights of the logits.
    intercept_ : ndarray of shape (n_classes,), float64
        Zeros.
    multipliers_ : ndarray of shape (n_classes,), float64
        The class-wise `a_c`.
    n_iter_ : int
        Steps taken.

    Notes
    -----
    The authors run 300 epochs of SGD over 20 augmented views of each row; here L-BFGS goes to
    the minimum of the same loss.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import CLAPClassifier
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> CLAPClassifier().fit(X, y).predict([[0.0, 1.0, 0.1, 0.0]])
    array(['cat'], dtype='<U3')
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **FeatureClassifier._parameter_constraints,
        "penalty": [non_negative()],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [positive()],
    }

    def __init__(
        self,
        *,
        text_features: TextFeatures = "prototypes",
        logit_scale: float | None = None,
        penalty: float = 100.0,
        max_iter: int = 1000,
        tol: float = 1e-4,
    ) -> None:
        super().__init__(text_features=text_features, logit_scale=logit_scale)
        self.penalty = penalty
        self.max_iter = max_iter
        self.tol = tol

    def _fit(self, support: Support) -> None:
        text, tau = support.positive, support.logit_scale
        zero_shot = softmax(tau * (support.X @ text.T), axis=1)
        onehot = support.onehot
        self.multipliers_ = (zero_shot * onehot).sum(axis=0) / onehot.sum(axis=0)
        strength = self.penalty * self.multipliers_[:, None] / len(text)

        def objective(shift: Floats) -> tuple[float, Floats]:
            W = text + shift
            norms = np.linalg.norm(W, axis=1, keepdims=True)
            norms[norms == 0] = 1.0
            unit = W / norms
            loss, residual = cross_entropy(tau * (support.X @ unit.T), support)
            inner = tau * (residual.T @ support.X)
            inner -= (inner * unit).sum(axis=1, keepdims=True) * unit
            return (
                loss + float((strength * np.square(shift)).sum()),
                inner / norms + 2.0 * strength * shift,
            )

        shift, self.n_iter_ = minimise(
            objective,
            np.zeros_like(text),
            max_iter=self.max_iter,
            tol=self.tol,
            name=type(self).__name__,
        )
        self.coef_, self.intercept_ = tau * unit_rows(text + shift), np.zeros(support.n_classes)


class LPPlusPlusClassifier(LinearPeer):
    """Linear probe blended with the text by learned class-wise multipliers.

    Huang et al., "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP" (CVPR 2024),
    sections 3-4: the logits are `f w_c + alpha_c f t_c`; `w` and `alpha` descend on the
    cross-entropy of the full batch with step sizes from the data's Lipschitz constants:
    `w` by `4 n / lambda_max(F'F)` with momentum 0.9, `alpha` every tenth step by
    `n / (4 max_c sum_i (f_i t_c)^2)`. `w_c` starts at the sum of the rows of class c, `alpha_c`
    at `init_scale tau` times the mean cosine of rows and their own class's text.

    Parameters
    ----------
    text_features : "prototypes", array-like, mapping, or pair of these, default="prototypes"
        Text features `T` of the classes, shape (n_classes, n_features), rows in the order of the
        sorted labels, or a mapping from label to row; of a pair the second is not used.
        ``"prototypes"``: class means.
    logit_scale : float or None, default=None
        CLIP's scale of the cosine, `tau`; None takes 100.
    init_scale : float, default=2.5
        Start of `alpha`; with CLIP's `tau` of 100 it gives the authors' factor of 250.
    max_iter : int, default=300
        Steps on `w`; the authors keep the best of 300 on a validation set.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    logit_scale_ : float
        `tau` in use.
    coef_ : ndarray of shape (n_classes, n_features), float64
        Weights of the logits.
    intercept_ : ndarray of shape (n_classes,), float64
        Zeros.
    multipliers_ : ndarray of shape (n_classes,), float64
        The class-wise `alpha_c`.
    n_iter_ : int
        Steps taken.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import LPPlusPlusClassifier
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> LPPlusPlusClassifier().fit(X, y).predict([[0.0, 1.0, 0.1, 0.0]])
    array(['cat'], dtype='<U3')
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **FeatureClassifier._parameter_constraints,
        "init_scale": [non_negative()],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        text_features: TextFeatures = "prototypes",
        logit_scale: float | None = None,
        init_scale: float = 2.5,
        max_iter: int = 300,
    ) -> None:
        super().__init__(text_features=text_features, logit_scale=logit_scale)
        self.init_scale = init_scale
        self.max_iter = max_iter

    def _fit(self, support: Support) -> None:
        F, T, onehot = support.X, support.positive, support.onehot
        weight = support.sample_weight[:, None]
        n, cosines = weight.sum(), F @ T.T
        tiny = np.finfo(np.float64).tiny ** 0.5  # where the text says nothing its steps are 0
        w_step = 4.0 * n / max(np.linalg.norm(np.sqrt(weight) * F, ord=2) ** 2, tiny)
        alpha_step = n / (4.0 * max((weight * cosines**2).sum(axis=0).max(), tiny))
        own = (cosines * onehot).sum(axis=0) / onehot.sum(axis=0)
        alpha = np.full(len(T), self.init_scale * support.logit_scale * own.mean())
        w, velocity = onehot.T @ F, np.zeros_like(T)
        for step in range(1, self.max_iter + 1):
            _, residual = cross_entropy(F @ w.T + cosines * alpha, support)
            velocity = 0.9 * velocity + residual.T @ F
            w = w - w_step * velocity
            if step % 10 == 0:
                alpha = alpha - alpha_step * (residual * cosines).sum(axis=0)
        self.n_iter_, self.multipliers_ = int(self.max_iter), alpha
        self.coef_, self.intercept_ = w + alpha[:, None] * T, np.zeros(support.n_classes)


class MAPLogisticRegression(LinearPeer):
    """Ridge logistic regression around the zero-shot weights plus a shrunk discriminant.

    A mark of our own, of no paper: with the discriminant `A, c` of the support (shared covariance
    shrunk as in GDA-CLIP) and `W0 = tau T + alpha A`, it minimises
    `CE(F (W0 + D)' + alpha c) + penalty |D|^2 / 2` over `D`.

    Parameters
    ----------
    text_features : "prototypes", array-like, mapping, or pair of these, default="prototypes"
        Text features `T` of the classes, shape (n_classes, n_features), rows in the order of the
        sorted labels, or a mapping from label to row; of a pair the second is not used.
        ``"prototypes"``: class means.
    logit_scale : float or None, default=None
        CLIP's scale of the cosine, `tau`; None takes 100.
    alpha : float, default=0.2
        Weight of the discriminant.
    penalty : float, default=1e-3
        Strength of the ridge about `W0`, against the mean cross-entropy.
    max_iter : int, default=1000
        Most steps of L-BFGS.
    tol : float, default=1e-5
        Largest entry of the gradient at which to stop.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    logit_scale_ : float
        `tau` in use.
    coef_ : ndarray of shape (n_classes, n_features), float64
        Weights of the logits.
    intercept_ : ndarray of shape (n_classes,), float64
        Offsets of the logits.
    n_iter_ : int
        Steps taken.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import MAPLogisticRegression
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> MAPLogisticRegression().fit(X, y).predict([[0.0, 1.0, 0.1, 0.0]])
    array(['cat'], dtype='<U3')
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **FeatureClassifier._parameter_constraints,
        "alpha": [non_negative()],
        "penalty": [positive()],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [positive()],
    }

    def __init__(
        self,
        *,
        text_features: TextFeatures = "prototypes",
        logit_scale: float | None = None,
        alpha: float = 0.2,
        penalty: float = 1e-3,
        max_iter: int = 1000,
        tol: float = 1e-5,
    ) -> None:
        super().__init__(text_features=text_features, logit_scale=logit_scale)
        self.alpha = alpha
        self.penalty = penalty
        self.max_iter = max_iter
        self.tol = tol

    def _fit(self, support: Support) -> None:
        A, c = shrunk_discriminant(support)
        start = support.logit_scale * support.positive + self.alpha * A
        intercept = self.alpha * c

        def objective(D: Floats) -> tuple[float, Floats]:
            loss, residual = cross_entropy(support.X @ (start + D).T + intercept, support)
            penalty = 0.5 * self.penalty * np.square(D).sum()
            return loss + penalty, residual.T @ support.X + self.penalty * D

        D, self.n_iter_ = minimise(
            objective,
            np.zeros_like(start),
            max_iter=self.max_iter,
            tol=self.tol,
            name=type(self).__name__,
        )
        self.coef_, self.intercept_ = start + D, intercept
