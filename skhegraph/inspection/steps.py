"""A pipeline as its last step and what comes before it."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skhegraph._sklearn import check_matplotlib_support
from skhegraph.hegraph.classifier import HeGraphClassifier


def final_classifier(estimator: Any) -> HeGraphClassifier:
    """Return the fitted `HeGraphClassifier` that is, or ends, `estimator`.

    Raises
    ------
    TypeError
        If it is another estimator.
    NotFittedError
        If it is not fitted.
    """
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if not isinstance(last, HeGraphClassifier):
        raise TypeError(
            f"estimator is {type(last).__name__}; expected a fitted HeGraphClassifier, or a "
            "pipeline that ends with one."
        )
    check_is_fitted(last)
    return last


def features_of(estimator: Any, X: Any) -> Any:
    """Features of `X` by the steps before the classifier; `X` itself where there are none."""
    if isinstance(estimator, Pipeline) and len(estimator) > 1:
        return estimator[:-1].transform(X)
    return X


def axes_or_new(caller: str, ax: Any, figsize: tuple[float, float]) -> Any:
    """Return `ax`, or a new axes in a figure of that size; ImportError without matplotlib."""
    check_matplotlib_support(caller)
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=figsize, layout="constrained")[1] if ax is None else ax
