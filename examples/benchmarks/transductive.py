"""TransCLIP and ZLaP in their inductive forms, as small estimators: peers with unlabelled rows."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_array, csr_array, diags_array, eye_array, hstack
from scipy.sparse.linalg import splu
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


class ZLaP(ClassifierMixin, BaseEstimator):
    """Labels of the text nodes, propagated over a graph of text and image nodes.

    Stojnic, Kalantidis, Tolias, "Label Propagation for Zero-shot Classification with
    Vision-Language Models" (CVPR 2024), sections 3 and 4: each image is tied to its nearest images
    by their cosines and to its nearest texts by cosines to the power `gamma`; with the weights `W`
    (symmetric, no loops) and `S = D^-1/2 W D^-1/2` the nodes have the scores
    `Z = (I - alpha S)^-1 Y`. A query has the scores of its neighbours, weighted alike. Labels of
    images are not used.

    Parameters
    ----------
    text_features : array-like of shape (n_classes, n_features)
        Text features of the classes 0 to n_classes - 1.
    n_neighbours, gamma, alpha : int, float, float, default=5, 5.0, 0.3
        Those of the authors' example.
    """

    def __init__(self, text_features, n_neighbours=5, gamma=5.0, alpha=0.3):
        self.text_features = text_features
        self.n_neighbours = n_neighbours
        self.gamma = gamma
        self.alpha = alpha

    def fit(self, X, y=None):
        """Fit on rows without a label."""
        self.text_ = unit_rows(np.asarray(self.text_features, dtype=np.float64))
        self.images_ = unit_rows(np.asarray(X, dtype=np.float64))
        n_classes = len(self.text_)
        n_nodes = n_classes + len(self.images_)
        self.classes_ = np.arange(n_classes)
        of_images = self._weights(self.images_).tocoo()
        rows = of_images.row + n_classes
        W = csr_array((of_images.data, (rows, of_images.col)), shape=(n_nodes, n_nodes))
        W = W + W.T
        W = W - diags_array(W.diagonal())
        degree = W.sum(axis=1)
        scale = diags_array(1 / np.sqrt(np.where(degree > 0, degree, 1)))
        L = eye_array(n_nodes) - self.alpha * scale @ W @ scale
        self.scores_ = splu(csc_array(L)).solve(np.eye(n_nodes, n_classes))
        return self

    def _weights(self, Z):
        """Weights of the edges from rows to text and image nodes."""
        parts = []
        for nodes, power in ((self.text_, self.gamma), (self.images_, 1.0)):
            cosines = np.maximum(Z @ nodes.T, 0)
            nearest = np.argsort(-cosines, axis=1)[:, : self.n_neighbours]
            values = np.take_along_axis(cosines, nearest, axis=1).ravel() ** power
            index = np.repeat(np.arange(len(Z)), nearest.shape[1]), nearest.ravel()
            parts.append(csr_array((values, index), shape=cosines.shape))
        return hstack(parts, format="csr")

    def predict_proba(self, X):
        """Scores of queries, each by itself, as shares of their sum."""
        scores = self._weights(unit_rows(np.asarray(X, dtype=np.float64))) @ self.scores_
        return scores / scores.sum(axis=1, keepdims=True)

    def predict(self, X):
        """Class of the highest score."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def neighbours(rows, Q, n_neighbours=3):
    """Cosines of each row with its nearest rows of `Q`, the nearest of all left out (itself)."""
    cosines = rows @ Q.T
    nearest = np.argsort(-cosines, axis=1)[:, 1 : n_neighbours + 1]
    values = np.take_along_axis(cosines, nearest, axis=1).ravel()
    index = np.repeat(np.arange(len(rows)), nearest.shape[1]), nearest.ravel()
    return csr_array((values, index), shape=cosines.shape)
