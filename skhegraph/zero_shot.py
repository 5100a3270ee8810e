"""Zero-shot CLIP: the text classifier alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import column_or_1d

from skhegraph.feature_classifier import LinearFeatureClassifier, all_or_nothing, warn_if_equal
from skhegraph.labelled_rows import check_labels, check_targets
from skhegraph.prompted_classifier import PromptedClassifier
from skhegraph.support import Floats, unit_rows
from skhegraph.text_source import Asked


class ZeroShotCLIPClassifier(LinearFeatureClassifier, PromptedClassifier):
    """Classify by the cosine between an image feature and each class's text feature.

    The logits are `tau f T'` (Radford et al. 2021, "Learning Transferable Visual Models From
    Natural Language Supervision", section 3.1); the support images are not used, so `fit` needs
    only the labels: ``fit(None, ["cat", "dog"])``.

    Parameters
    ----------
    model_name : str, default="ViT-B-32"
        open_clip model, or ``"skhegraph-lite"``, named as in :class:`CLIPFeatures`.
    pretrained : str or None, default="laion2b_s34b_b79k"
        open_clip weights tag or path.
    text_features : {"clip", "prototypes"}, array-like, mapping, or pair of these, default="clip"
        Source of the text features: prompts through the named CLIP, class means of `X`, or an
        array of shape (n_classes, n_features), rows in the order of the sorted labels, or a mapping
        from label to row.
    class_names : None, sequence of str, or mapping, default=None
        Names for the prompts, in the order of the sorted labels, or a mapping from label to name,
        where string labels that it lacks stand for themselves.
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
    Images by names alone, through one CLIP:

    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from skhegraph import CLIPFeatures, ZeroShotCLIPClassifier
    >>> named = ZeroShotCLIPClassifier("skhegraph-tiny").fit(None, ["dark night", "bright day"])
    >>> model = make_pipeline(CLIPFeatures("skhegraph-tiny"), named)
    >>> model.predict([np.zeros((8, 8))]).shape
    (1,)

    With text features of your own:

    >>> clf = ZeroShotCLIPClassifier(text_features=np.eye(2, 4), logit_scale=10.0)
    >>> clf.fit(np.eye(2, 4), ["cat", "dog"]).predict([[0.9, 0.1, 0.3, 0.0]])
    array(['cat'], dtype='<U3')
    """

    # What the HTML display links to: CLIP.
    _doc_link_module = "skhegraph"
    _doc_link_template = "https://arxiv.org/abs/2103.00020"
    _uses_negatives = False

    def fit(
        self, X: ArrayLike | None, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> ZeroShotCLIPClassifier:
        """Encode the class names.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or None
            Image features; only their width counts, unless ``text_features="prototypes"``. None
            takes the width of the text features.
        y : array-like of shape (n_samples,)
            Labels; without `X` the classes, each once or more.
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
        with all_or_nothing(self) as fitted:
            if X is None:
                positive, scale = fitted._from_names(y)
            else:
                support = fitted._validate_support(X, y, sample_weight)
                positive, scale = support.positive, support.logit_scale
            fitted.coef_ = scale * positive
            fitted.intercept_ = np.zeros(len(positive))
        return self

    def _from_names(self, y: ArrayLike) -> tuple[Floats, float]:
        """Unit text features of labels alone, and the logit scale."""
        self._validate_params()
        check_labels(y)
        self._remember_members(y, reset=True)
        given = column_or_1d(y, warn=True)
        check_targets(given)
        labels, index = np.unique(given, return_inverse=True)
        if len(labels) < 2:
            raise ValueError(f"y holds one class ({labels[0]}): give two names or more.")
        self.classes_ = labels
        text = self._text().nodes(Asked(labels, labels, None, index, np.ones(len(given))))
        self.n_features_in_ = text.positive.shape[1]
        self._keep_text(text)
        P = unit_rows(np.asarray(text.positive, dtype=np.float64))
        warn_if_equal(P, labels, stacklevel=4)
        return P, self.logit_scale_
