"""Which photographs to label next."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from sklearn.utils import check_scalar

from skhegraph.inspection.steps import features_of, final_classifier
from skhegraph.parallel import one_blas_thread
from skhegraph.support import Floats, Ints, unit_rows

#: Images whose similarities to each other are held at a time: of more, those of most weight.
MOST_IMAGES = 4000


def next_to_label(estimator: Any, X: Any, n_images: int = 10) -> NDArray[np.intp]:
    """Choose the images whose labels would teach a classifier most.

    An image speaks for those that look like it. The choice is greedy: each image is the one that
    does most for those that the classifier is not sure of and that neither a labelled image nor
    one chosen before resembles as much (a facility location, [1]_). Images that do not seem to be
    of the classes count for little.

    Parameters
    ----------
    estimator : HeGraphClassifier, or Pipeline that ends with one
        Fitted estimator.
    X : list of images, or array-like of shape (n_samples, n_features)
        Images without a label, as `estimator.predict` takes them. Those that cannot be read (rows
        that are NaN throughout) are not chosen.
    n_images : int, default=10
        How many to choose, at most 4,000; fewer if there are no more.

    Returns
    -------
    ndarray of shape (n_images,)
        Numbers of images in `X`, the most useful first.

    Raises
    ------
    TypeError, ValueError
        If the classifier is another one, or `n_images` is no integer from 0 on.

    References
    ----------
    .. [1] Wei, Iyer, Bilmes. "Submodularity in Data Subset Selection and Active Learning". ICML
       2015.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skhegraph import FewShotSplit, HeGraphClassifier
    >>> from skhegraph.inspection import next_to_label
    >>> X, y = load_digits(return_X_y=True)
    >>> few, rest = next(FewShotSplit(1, random_state=0).split(X, y))
    >>> clf = HeGraphClassifier(text_features="prototypes").fit(X[few], y[few])
    >>> next_to_label(clf, X[rest], 3).shape
    (3,)
    """
    check_scalar(n_images, "n_images", Integral, min_val=0)
    clf = final_classifier(estimator)
    features = features_of(estimator, X)
    proba, score = clf.predict_proba(features), clf.score_samples(features)
    rows = np.asarray(features)
    readable = np.flatnonzero(~np.isnan(score))
    if not len(readable):
        return np.empty(0, dtype=np.intp)
    first, second = np.sort(proba[readable], axis=1)[:, :-3:-1].T
    # As rows without a label do: half of all are taken to be of the classes.
    usual = min(float(np.median(score[readable])), 0.0)
    weight = (1 - (first - second)) * np.minimum(2 * ndtr(score[readable] - usual), 1)
    order = np.argsort(-weight, kind="stable")[:MOST_IMAGES]
    some, weight = readable[order], weight[order]
    Z = unit_rows(rows[some].astype(np.float32))
    labelled = unit_rows(clf.support_features_.astype(np.float32))
    centre = Z.mean(axis=0)
    Z, labelled = unit_rows(Z - centre), unit_rows(labelled - centre)
    with one_blas_thread():
        return some[_facilities(Z, labelled, weight, min(n_images, len(some)))]


def _facilities(Z: Floats, labelled: Floats, weight: Floats, n_rows: int) -> Ints:
    """Rows that add most to `sum_u w_u max_v cos(z_u, z_v)` over labelled and chosen rows `v`."""
    similar = np.maximum(Z @ Z.T, 0)
    best = np.maximum((Z @ labelled.T).max(axis=1, initial=0), 0)
    chosen = np.empty(n_rows, dtype=np.intp)
    for i in range(n_rows):
        gain = weight.astype(Z.dtype) @ np.maximum(similar - best[:, None], 0)
        gain[chosen[:i]] = -1
        chosen[i] = int(gain.argmax())
        best = np.maximum(best, similar[:, chosen[i]])
    return chosen
