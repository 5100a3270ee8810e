"""Zero-shot CLIP: the text classifier alone."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from skhegraph.base import CLIPClassifier, Floats


class ZeroShotCLIPClassifier(CLIPClassifier):
    """Classify by the cosine between an image feature and each class's text feature.

    The logits are `tau f T'` (Radford et al. 2021); the support images are not used, so `fit`
    needs only the labels (and the width of `X`).

    Parameters
    ----------
    model_name : str, default="ViT-B-32"
        open_clip model, or ``"skhegraph-tiny"``, named as in :class:`CLIPFeatures`.
    pretrained : str or None, default="laion2b_s34b_b79k"
        open_clip weights tag or path.
    text_features : {"clip", "prototypes"} or pair of array-like, default="clip"
        Source of the text features: prompts through the named CLIP, class means of `X`, or a
        pair (positive, negative), each of shape (n_classes, n_features).
    class_names : None, sequence of str, or mapping, default=None
        Names for the prompts, in the order of `classes_`, or a mapping from label to name.
    templates, negative_templates : str, sequence of str or mapping, default="photo", None
        Prompt templates; the negatives are not used here.
    logit_scale : float or None, default=None
        Inverse temperature `tau`; None takes the CLIP's own, 100 where there is none.
    device : str, default="auto"
        Where the text tower runs.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    text_features_ : ndarray of shape (n_classes, n_features), float64
        Unit text features.
    logit_scale_ : float
        `tau` in use.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph import ZeroShotCLIPClassifier
    >>> text = np.eye(2, 4)
    >>> clf = ZeroShotCLIPClassifier(text_features=(text, text[::-1]), logit_scale=10.0)
    >>> clf.fit(np.ones((2, 4)), ["cat", "dog"]).predict([[0.0, 1.0, 0.0, 0.0]])
    array(['dog'], dtype='<U3')
    """

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> ZeroShotCLIPClassifier:
        """Resolve the text features of the classes in `y`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features; only their width is used (all of them with ``"prototypes"``).
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Only rows of positive weight name a class.

        Returns
        -------
        ZeroShotCLIPClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If the input, the text source or a parameter is invalid.
        """
        support = self._validate_support(X, y, sample_weight)
        self.text_features_: Any = support.positive
        return self

    def _logits(self, Z: Floats) -> Floats:
        return self.logit_scale_ * (Z @ self.text_features_.T)
