"""Why this answer: what a prediction rests on, from the fitted arrays of a classifier.

The logits of `HeGraphClassifier` are a sum of four parts,

    text      a tau z . P'_c                   the query and the text node of the class
    visual    z . visual_coef_c + offset       the query and the adapted visual node of the class
    residual  z . D_c + offset                 what training added to both
    prior     log_prior_c                      how likely the class is before an image is seen

and the evidence for a class is how far each part stands above its mean over all classes. The
evidence of two classes differs, part by part, by their log-odds: text + visual + residual + prior
of one class less those of another is `log(p_one / p_other)`.

A support row `x_i` has the share `h_i` in the adapted visual node of its class, and so the part
`b h_i (W (x_i - m0)) . (W (z - m0))` in the visual logit, where `W'W` is the precision of the
discriminant. These parts rank the rows of a class; they do not add up to the logit, to which the
text of the class and other classes contribute as well.
"""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.utils import check_scalar, gen_batches

from skhegraph._sklearn import check_pandas_support
from skhegraph.support import Floats, Ints, unit_rows

if TYPE_CHECKING:
    import pandas as pd

#: The parts of a logit, in the order of their columns.
PARTS = ("text", "visual", "residual", "prior")
#: Queries explained at a time: bounds the memory.
QUERIES_PER_CHUNK = 256


class FittedArrays(Protocol):
    """Arrays of a fitted :class:`skhegraph.HeGraphClassifier` that an answer rests on."""

    classes_: NDArray[Any]
    graph_: dict[str, Floats]
    text_coef_: Floats
    text_intercept_: Floats
    visual_coef_: Floats
    visual_intercept_: Floats
    log_prior_: Floats
    logit_scale_: float
    text_weight_: float
    visual_weight_: float
    visual_whitener_: Floats
    visual_centre_: Floats
    support_features_: Floats
    support_labels_: Ints
    support_share_: Floats
    support_index_: Ints
    support_whole_: bool
    prompts_: list[list[str]]
    prompt_features_: Floats


class Weighty(NamedTuple):
    """Support rows of a class that weigh most for a query.

    Attributes
    ----------
    rows : tuple of int
        Row numbers in the `X` given to `fit`, the weightiest first.
    parts : tuple of float
        Their parts in the visual logit of the class.
    """

    rows: tuple[int, ...]
    parts: tuple[float, ...]


def explain(clf: FittedArrays, Z: Floats, n_classes: int = 3, n_support: int = 3) -> pd.DataFrame:
    """Tell what the predictions for unit rows rest on.

    Parameters
    ----------
    clf : FittedArrays
        Fitted classifier.
    Z : ndarray of shape (n_samples, n_features), float64
        Unit rows.
    n_classes : int, default=3
        Most probable classes to explain for each query; all of them where there are fewer.
    n_support : int, default=3
        Support rows to name for each class.

    Returns
    -------
    pandas.DataFrame
        One row per query and class, in the order of `Z`, classes by probability:

        - ``query``: row number in `Z`; ``rank``: 1 for the most probable class; ``class``: its
          label; ``probability``.
        - ``text``, ``visual``, ``residual``, ``prior``: the four parts of the evidence, each the
          part of the logit less its mean over all classes. Negative ones speak against the class.
        - ``text_share``, ``visual_share``: the part divided by the sum of the absolute values of
          the four, between -1 and 1.
        - ``support``, ``support_parts``: numbers (in the `X` given to `fit`) of the support rows
          of the class that speak most for it, and their parts in its visual logit. Empty for a
          class without images.
        - ``support_of``: among which rows they were sought. "the kept rows" where `fit` was given
          more rows than it keeps (64 of each class, chosen to lie near all others), so that a row
          that was not kept is never named; else "all rows".
        - ``prompts``, ``prompt_parts``: what the text node of the class was made from, the
          weightiest first, and their parts in its text logit. Empty where the text came as an
          array, or there was none.

    Raises
    ------
    ImportError
        If pandas is not installed.
    ValueError
        If `X` does not fit the classifier, has a row of NaN, or a number is below its least.
    TypeError
        If a number is no integer.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skhegraph import HeGraphClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = HeGraphClassifier(text_features="prototypes").fit(X[::5], y[::5])
    >>> clf.explain(X[:1], n_classes=2, n_support=1)[["query", "rank", "class"]]
       query  rank  class
    0      0     1      0
    1      0     2      1
    """
    pandas = check_pandas_support("explain")
    check_scalar(n_classes, "n_classes", Integral, min_val=1)
    check_scalar(n_support, "n_support", Integral, min_val=0)
    _refuse_nan(Z)
    n_classes = min(n_classes, len(clf.classes_))
    chunks = [
        _explain_rows(clf, Z[chunk], n_classes, n_support)
        for chunk in gen_batches(len(Z), QUERIES_PER_CHUNK)
    ]
    columns: dict[str, Any] = {
        "query": np.repeat(np.arange(len(Z)), n_classes),
        "rank": np.tile(np.arange(1, n_classes + 1), len(Z)),
    }
    for name in chunks[0]:
        columns[name] = [value for chunk in chunks for value in chunk[name]]
    columns["class"] = clf.classes_[np.array(columns["class"])]
    return pandas.DataFrame(columns)


def logit_parts(clf: FittedArrays, Z: Floats) -> Floats:
    """Text, visual, residual and prior part of the logits, shape (4, n_queries, n_classes).

    Parameters
    ----------
    clf : FittedArrays
        Fitted classifier.
    Z : ndarray of shape (n_queries, n_features)
        Unit rows.
    """
    scale = clf.text_weight_ * clf.logit_scale_
    text = scale * (Z @ clf.graph_["positive"].T.astype(np.float64))
    visual = Z @ clf.visual_coef_.T + clf.visual_intercept_
    residual = Z @ clf.text_coef_.T + clf.text_intercept_ - text
    return np.stack([text, visual, residual, np.broadcast_to(clf.log_prior_, text.shape)])


def _explain_rows(clf: FittedArrays, Z: Floats, n_classes: int, n_support: int) -> dict[str, Any]:
    """Columns of the frame for unit-row queries."""
    parts = logit_parts(clf, Z)
    logits = parts.sum(axis=0)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :n_classes]
    each = np.arange(len(Z))[:, None]
    evidence = (parts - parts.mean(axis=2, keepdims=True))[:, each, best]
    evidence[np.abs(evidence) < 1e-12] = 0  # rounding
    total = np.abs(evidence).sum(axis=0)
    share = evidence[:2] / np.where(total > 0, total, 1)
    weighty = weightiest_rows(clf, Z, best, n_support)
    return {
        "class": best.ravel(),
        "probability": softmax(logits, axis=1)[each, best].ravel(),
        **{name: part.ravel() for name, part in zip(PARTS, evidence, strict=True)},
        "text_share": share[0].ravel(),
        "visual_share": share[1].ravel(),
        "support": [found.rows for found in weighty],
        "support_parts": [found.parts for found in weighty],
        "support_of": ["all rows" if clf.support_whole_ else "the kept rows"] * best.size,
        **prompt_columns(clf, Z, best),
    }


def weightiest_rows(clf: FittedArrays, Z: Floats, classes: Ints, n_support: int) -> list[Weighty]:
    """Support rows that speak most for each query and class, in the order of `classes.ravel()`.

    Parameters
    ----------
    clf : FittedArrays
        Fitted classifier.
    Z : ndarray of shape (n_queries, n_features)
        Unit rows.
    classes : ndarray of shape (n_queries, k)
        Class indices.
    n_support : int
        Rows per query and class, at most.
    """
    found = [Weighty((), ())] * classes.size
    W, centre = clf.visual_whitener_.astype(np.float64), clf.visual_centre_.astype(np.float64)
    towards = ((Z - centre) @ W.T) @ W  # (W'W)(z - m0): the rows need no whitening of their own
    wanted = classes.ravel()
    query = np.repeat(np.arange(len(Z)), classes.shape[1])
    for c in np.unique(wanted):
        own = np.flatnonzero(clf.support_labels_ == c)
        where = np.flatnonzero(wanted == c)
        rows = unit_rows(clf.support_features_[own].astype(np.float64)) - centre
        weight = clf.visual_weight_ * clf.support_share_[own]
        parts = (towards[query[where]] @ rows.T) * weight
        order = np.argsort(-parts, axis=1, kind="stable")[:, :n_support]
        for i, part, chosen in zip(where, parts, order, strict=True):
            numbers = tuple(int(k) for k in clf.support_index_[own[chosen]])
            found[i] = Weighty(numbers, tuple(float(v) for v in part[chosen]))
    return found


def prompt_columns(clf: FittedArrays, Z: Floats, classes: Ints) -> dict[str, Any]:
    """Prompts of each query's classes by their parts `a tau z . t_p / (n |mean of t|)`.

    They add up to the text part of the logit.
    """
    nothing: list[tuple[Any, ...]] = [()] * classes.size
    if not clf.prompts_:
        return {"prompts": nothing, "prompt_parts": list(nothing)}
    prompts, parts = list(nothing), list(nothing)
    features = np.split(clf.prompt_features_, np.cumsum([len(p) for p in clf.prompts_])[:-1])
    scale = clf.text_weight_ * clf.logit_scale_
    wanted, query = classes.ravel(), np.repeat(np.arange(len(Z)), classes.shape[1])
    for c in np.unique(wanted):
        where, T = np.flatnonzero(wanted == c), features[c].astype(np.float64)
        of_class = scale * (Z[query[where]] @ T.T) / np.linalg.norm(T.sum(axis=0))
        for i, part in zip(where, of_class, strict=True):
            order = np.argsort(-part, kind="stable")
            prompts[i] = tuple(clf.prompts_[c][k] for k in order)
            parts[i] = tuple(float(v) for v in part[order])
    return {"prompts": prompts, "prompt_parts": parts}


def _refuse_nan(Z: Floats) -> None:
    """Raise ValueError for queries without a feature."""
    unknown = np.flatnonzero(np.isnan(Z[:, 0]))
    if len(unknown):
        shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise ValueError(
            f"X is NaN throughout in row {shown}: an image that could not be read has no "
            "explanation. Leave it out."
        )
