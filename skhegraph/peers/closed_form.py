"""Peers in closed form: GDA, SS-Text and ProKeR."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from scipy.special import log_softmax

from skhegraph.feature_classifier import (
    FeatureClassifier,
    TextFeatures,
    non_negative,
    positive,
)
from skhegraph.peers.peer import LinearPeer, UnweightedPeer
from skhegraph.support import Floats, Support, unit_rows


class GDAClassifier(LinearPeer):
    """Zero-shot logits plus Gaussian discriminant analysis with a shared, shrunk covariance.

    Wang et al., "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation" (ICLR 2024),
    section 3: with class means `m_c`, within-class covariance `Cov` and precision
    `S = D pinv((n - 1) Cov + tr(Cov) I)`, the logits are
    `tau f T' + alpha (f S m_c - log C - m_c' S m_c / 2)`.

    Parameters
    ----------
    text_features : "prototypes", array-like, mapping, or pair of these, default="prototypes"
        Text features `T` of the classes, shape (n_classes, n_features), rows in the order of the
        sorted labels, or a mapping from label to row; of a pair the second is not used.
        ``"prototypes"``: class means.
    logit_scale : float or None, default=None
        CLIP's scale of the cosine, `tau`; None takes 100.
    alpha : float, default=0.1
        Weight of the discriminant against the zero-shot logits; the authors search decades.

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

    Notes
    -----
    With one row a class there is no scatter within classes (the authors get some from augmented
    views); the scatter about the grand mean stands in for it then.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import GDAClassifier
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> GDAClassifier().fit(X, y).predict([[0.0, 1.0, 0.1, 0.0]])
    array(['cat'], dtype='<U3')
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **FeatureClassifier._parameter_constraints,
        "alpha": [non_negative()],
    }

    def __init__(
        self,
        *,
        text_features: TextFeatures = "prototypes",
        logit_scale: float | None = None,
        alpha: float = 0.1,
    ) -> None:
        super().__init__(text_features=text_features, logit_scale=logit_scale)
        self.alpha = alpha

    def _fit(self, support: Support) -> None:
        means = support.visual
        weights = means @ shrunk_precision(support, means)
        offsets = -np.log(len(means)) - 0.5 * np.einsum("cd,cd->c", weights, means)
        self.coef_ = support.logit_scale * support.positive + self.alpha * weights
        self.intercept_ = self.alpha * offsets


def shrunk_precision(support: Support, means: Floats) -> Floats:
    """Precision `D pinv((n - 1) Cov + tr(Cov) I)` of the scatter about the class means."""
    weight = support.sample_weight
    n, width = weight.sum(), support.X.shape[1]
    centred = support.X - means[support.y]
    if np.square(centred).sum() <= 1e-12 * len(centred):
        centred = support.X - weight @ support.X / n
    scatter = (centred * weight[:, None]).T @ centred
    shrinkage = np.trace(scatter) / max(n - 1.0, 1.0)
    return width * np.linalg.pinv(scatter + shrinkage * np.eye(width), hermitian=True)


class SSTextClassifier(LinearPeer):
    """Text prototypes moved by the support in one step, without a hyper-parameter.

    Silva-Rodriguez et al., "Few-Shot, Now for Real: Medical VLMs Adaptation without Balanced Sets
    or Validation" (MICCAI 2025): the minimum of a linear surrogate of the cross-entropy with a
    pull to the text is `w_c = t_c + tau / (N lambda_c) sum_{i in c} f_i` with `lambda_c = 1 / n_c`,
    and the logits are `tau cos(f, w_c)`.

    Parameters
    ----------
    text_features : "prototypes", array-like, mapping, or pair of these, default="prototypes"
        Text features `T` of the classes, shape (n_classes, n_features), rows in the order of the
        sorted labels, or a mapping from label to row; of a pair the second is not used.
        ``"prototypes"``: class means.
    logit_scale : float or None, default=None
        CLIP's scale of the cosine, `tau`; None takes 100.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    logit_scale_ : float
        `tau` in use.
    coef_ : ndarray of shape (n_classes, n_features), float64
        `tau` times the unit rows `w_c`.
    intercept_ : ndarray of shape (n_classes,), float64
        Zeros.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import SSTextClassifier
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> SSTextClassifier().fit(X, y).predict([[0.0, 1.0, 0.1, 0.0]])
    array(['cat'], dtype='<U3')
    """

    def _fit(self, support: Support) -> None:
        tau, shots = support.logit_scale, support.shots
        share = tau * shots / shots.sum()  # tau / (N lambda_c)
        moved = support.positive + (share * shots)[:, None] * support.visual
        self.coef_ = tau * unit_rows(moved)
        self.intercept_ = np.zeros(support.n_classes)


class ProKeRClassifier(UnweightedPeer):
    """Kernel ridge regression on what the zero-shot logits leave over.

    Bendou et al., "ProKeR: A Kernel Perspective on Few-Shot Adaptation of Large Vision-Language
    Models" (CVPR 2025), section 3: with the kernel `k(f, g) = exp(-beta (1 - f g'))`, its matrix
    `K` on the support, and the residual `R = L - F T'` of the zero-shot cosines, the scores are
    `f T' + k(f, F) A` with `A = (K + ridge I)^-1 R`.

    Parameters
    ----------
    text_features : "prototypes", array-like, mapping, or pair of these, default="prototypes"
        Text features `T` of the classes, shape (n_classes, n_features), rows in the order of the
        sorted labels, or a mapping from label to row; of a pair the second is not used.
        ``"prototypes"``: class means.
    logit_scale : float or None, default=None
        CLIP's scale of the cosine, `tau`; None takes 100.
    beta : float, default=2.0
        Sharpness of the kernel; the authors' goes from 3 to 1.5 as the shots grow.
    ridge : float or None, default=None
        Strength of the penalty; None takes the best of `RIDGES` by exact leave-one-out log-loss.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    logit_scale_ : float
        `tau` in use.
    beta_ : float
        Sharpness in use.
    ridge_, temperature_ : float
        Penalty in use, and the factor that turns scores into logits.
    text_features_ : ndarray of shape (n_classes, n_features), float64
        Unit text features `T`.
    keys_ : ndarray of shape (n_samples, n_features), float64
        Unit support features `F`.
    values_ : ndarray of shape (n_samples, n_classes), float64
        Coefficients `A`.

    Notes
    -----
    The authors compare scores only. For probabilities the scores are multiplied by a factor, at
    most `tau`, that is chosen together with `ridge` by leave-one-out log-loss.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph.peers import ProKeRClassifier
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> ProKeRClassifier().fit(X, y).predict([[0.0, 1.0, 0.1, 0.0]])
    array(['cat'], dtype='<U3')
    """

    #: Candidates for `ridge`; the authors' lie between 0.05 and 0.1.
    RIDGES = (0.01, 0.1, 1.0, 10.0)

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **FeatureClassifier._parameter_constraints,
        "beta": [positive()],
        "ridge": [positive(), None],
    }

    def __init__(
        self,
        *,
        text_features: TextFeatures = "prototypes",
        logit_scale: float | None = None,
        beta: float = 2.0,
        ridge: float | None = None,
    ) -> None:
        super().__init__(text_features=text_features, logit_scale=logit_scale)
        self.beta = beta
        self.ridge = ridge

    def _fit(self, support: Support) -> None:
        """Solve the kernel ridge regression."""
        self.text_features_, self.keys_ = support.positive, support.X
        self.beta_ = float(self.beta)
        onehot = support.onehot
        residual = onehot - support.X @ support.positive.T
        kernel = np.exp(self.beta_ * (support.X @ support.X.T - 1.0))
        temperatures = np.geomspace(1.0, support.logit_scale, 9)
        rows, best = np.arange(len(support.y)), np.inf
        for ridge in self.RIDGES if self.ridge is None else (float(self.ridge),):
            inverse = np.linalg.inv(kernel + ridge * np.eye(len(kernel)))
            values = inverse @ residual
            # Exact leave-one-out: the error of a row is A_i / (K + ridge I)^-1_ii.
            held_out = onehot - values / inverse.diagonal()[:, None]
            for temperature in temperatures:
                log_proba = log_softmax(temperature * held_out, axis=1)
                loss = -float(log_proba[rows, support.y].mean())
                if loss < best:
                    best, self.ridge_, self.temperature_ = loss, ridge, float(temperature)
                    self.values_ = values

    def _logits(self, Z: Floats) -> Floats:
        text, keys, values = (
            array.astype(Z.dtype, copy=False)
            for array in (self.text_features_, self.keys_, self.values_)
        )
        kernel = np.exp(self.beta_ * (Z @ keys.T - 1.0))
        return self.temperature_ * (Z @ text.T + kernel @ values)


#: `f` in `s = mean_c f k_c / (1 + f k_c)`: ratio of the variance between classes to that within.
BETWEEN_SHARE = 0.05


def shrunk_discriminant(support: Support) -> tuple[Floats, Floats]:
    """Weights and offsets of a discriminant whose scale grows with the shots.

    `A_c = s S^-1 (m_c - mu)` with the scatter `R` about the class means, the mean variance `t` and
    `S = (R + D t I) / (n - C + D)`, GDA-CLIP's shrinkage; `s` is how far a mean of k rows counts.
    """
    means, shots, weight = support.visual, support.shots, support.sample_weight
    n, width = weight.sum(), support.X.shape[1]
    residual = np.sqrt(weight)[:, None] * (support.X - means[support.y])
    scatter = residual.T @ residual
    between = shots @ np.square(means - shots @ means / n)
    variance = (np.trace(scatter) + between.sum()) / max(n - 1, 1)  # D t
    info = np.finfo(np.float64)  # not less than rounding leaves of great weights
    variance = max(float(variance), info.eps * np.trace(scatter), info.tiny**0.5)
    S = (scatter + variance * np.eye(width)) / (max(n - len(shots), 0.0) + width)
    scale = np.mean(BETWEEN_SHARE * shots / (1 + BETWEEN_SHARE * shots))
    centre = means.mean(axis=0)
    A = scale * np.linalg.solve(S, (means - centre).T).T
    return A, -0.5 * np.einsum("cd,cd->c", A, means - centre) - A @ centre
