"""Zero-shot CLIP: the text classifier alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skhegraph.feature_classifier import LinearFeatureClassifier
from skhegraph.prompted_classifier import PromptedClassifier


class ZeroShotCLIPClassifier(LinearFeatureClassifier, PromptedClassifier):
    """Classify by the cosine between an image feature and each class's text feature.

    The logits are `tau f T'` (Radford et al. 2021, "Learning Transferable Visual Models From
    Natural Language Supervision", section 3.1); the support images are not used, so `fit` needs
    only the labels (and the width of `X`).

    Parameters
    ----------
    model_name : str, default="ViT-B-32"
        open_clip model, or ``"skhegraph-lite"``, named as in :class:`CLIPFeatures`.
    pretrained : str or None, default="laion2b_s34b_b79k"
        open_clip weights tag or path.
    text_features : {"clip", "prototypes"}, array-like or pair of array-like, default="clip"
        Source of the text features: prompts through the named CLIP, class means of `X`, or an
        array of shape (n_classes, n_features), rows in the order of the sorted labels.
    class_names : None, sequence of str, or mapping, default=None
        Names for the prompts, in the order of the sorted labels, or a mapping from label to name.
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
    coef_ : ndarray of shape (n_classes, n_features), float64
        `tau` times the unit text features.
    intercept_ : ndarray of shape (n_classes,), float64
        Zeros.
    logit_scale_ : float
        `tau` in use.

    Examples
    --------
    >>> import numpy as np
    >>> from skhegraph import ZeroShotCLIPClassifier
    >>> clf = ZeroShotCLIPClassifier(text_features=np.eye(2, 4), logit_scale=10.0)
    >>> clf.fit(np.eye(2, 4), ["cat", "dog"]).predict([[0.9, 0.1, 0.3, 0.0]])
    array(['cat'], dtype='<U3')
    """

    _uses_negatives = False

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> ZeroShotCLIPClassifier:
        """Encode the class names.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Image features; only their width counts, unless ``text_features="prototypes"``.
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
        OSError
            If the weights of the text tower cannot be had.
        """
        support = self._validate_support(X, y, sample_weight)
        self.coef_: Any = support.logit_scale * support.positive
        self.intercept_: Any = np.zeros(support.n_classes)
        return self
