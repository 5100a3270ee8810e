"""TransCLIP in its inductive form, as a small estimator: a peer with unlabelled rows."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin

from skhegraph.support import unit_rows


class TransCLIP(ClassifierMixin, BaseEstimator):
    """A Gaussian mixture tied to the text and to neighbours, on rows with a label and without.

    Zanella, Gérin, Ben Ayed, "Boosting Vision-Language Models with Transduction" (NeurIPS 2024),
    section 4: assignments `z_i ~ y_i^lambda exp((log N(f_i; mu, Sigma) + s sum_j w_ij z_j) / 50)`
    with zero-shot predictions `y`, three neighbours and one diagonal covariance, in turn with means
    of unit length and the covariance, ten times. A query has no neighbours: `y^lambda N^(1/50)`.

    Parameters
    ----------
    text_features : array-like of shape (n_classes, n_features)
        Text features of the classes 0 to n_classes - 1.
    logit_scale : float, default=100.0
        `tau`.
    gamma : float, default=0.002
        Weight of the labelled rows against the others; the authors choose among 0.002, 0.01, 0.02
        and 0.2 on further rows with a label.
    """

    def __init__(self, text_features, logit_scale=100.0, gamma=0.002):
        self.text_features = text_features
        self.logit_scale = logit_scale
        self.gamma = gamma

    def fit(self, X, y):
        """Fit on rows of which those of the label -1 have none."""
        X, y = unit_rows(np.asarray(X, dtype=np.float64)), np.asarray(y)
        self.text_ = unit_rows(np.asarray(self.text_features, dtype=np.float64))
        n_classes, self.classes_ = len(self.text_), np.arange(len(self.text_))
        known = y >= 0
        S, L, Q = X[known], np.eye(n_classes)[y[known]], X[~known]
        few_shot = len(S) > 0
        self.lambda_, gamma = (0.5, 50 * self.gamma) if few_shot else (1.0, 0.0)
        prior = softmax(self.logit_scale * Q @ self.text_.T, axis=1)
        z = prior.copy()
        if few_shot:
            means = L.T @ S
        else:
            surest = np.argsort(-z, axis=0)[:8]
            means = np.stack([z[rows, c] @ Q[rows] for c, rows in enumerate(surest.T)])
        self.means_, self.variance_ = unit_rows(means), np.full(X.shape[1], 1 / X.shape[1])
        W = neighbours(np.vstack([Q, S]), Q)
        for _ in range(10):
            density = self._log_density(Q)
            for _ in range(5):
                near = W[: len(Q)] @ z + W.T @ np.vstack([z, L])
                logits = density + 50 / 6 * near
                logits = np.exp((logits - logits.max(axis=1, keepdims=True)) / 50)
                z = prior**self.lambda_ * logits
                z /= z.sum(axis=1, keepdims=True)
            both = z / len(Q), gamma * L / max(len(S), 1)
            counts = both[0].sum(axis=0) + both[1].sum(axis=0)
            self.means_ = unit_rows((both[0].T @ Q + both[1].T @ S) / counts[:, None])
            squares = sum(
                w.sum(axis=1) @ np.square(rows)
                - 2 * np.einsum("cd,cd->d", w.T @ rows, self.means_)
                + w.sum(axis=0) @ np.square(self.means_)
                for w, rows in zip(both, (Q, S), strict=True)
            )
            self.variance_ = np.maximum(squares / counts.sum(), 1e-6 / X.shape[1])
        return self

    def _log_density(self, Z):
        scaled = self.means_ / self.variance_
        squares = np.square(Z) @ (1 / self.variance_)
        return Z @ scaled.T - 0.5 * (squares[:, None] + (scaled * self.means_).sum(axis=1))

    def predict_proba(self, X):
        """Probabilities of queries, each by itself."""
        Z = unit_rows(np.asarray(X, dtype=np.float64))
        text = self.lambda_ * self.logit_scale * Z @ self.text_.T
        return softmax(text + self._log_density(Z) / 50, axis=1)

    def predict(self, X):
        """Most probable class."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def neighbours(rows, Q, n_neighbours=3):
    """Cosines of each row with its nearest rows of `Q`, the nearest of all left out (itself)."""
    cosines = rows @ Q.T
    nearest = np.argsort(-cosines, axis=1)[:, 1 : n_neighbours + 1]
    values = np.take_along_axis(cosines, nearest, axis=1).ravel()
    index = np.repeat(np.arange(len(rows)), nearest.shape[1]), nearest.ravel()
    return csr_array((values, index), shape=cosines.shape)
