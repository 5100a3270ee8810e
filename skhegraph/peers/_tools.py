"""What the baselines share: types, docstring parts, linear logits, cross-entropy, L-BFGS."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from skhegraph.base import CLIPClassifier, Floats, Support, log_softmax

Template = str | Sequence[str] | Mapping[str, Any] | None
Names = Sequence[str] | Mapping[Any, str] | None
Text = str | tuple[ArrayLike, ArrayLike]
Class = TypeVar("Class", bound=type)

_PARAMETERS = """model_name : str, default="ViT-B-32"
        Name of an open_clip model, or ``"skhegraph-tiny"``, as in :class:`CLIPFeatures`.
    pretrained : str or None, default="laion2b_s34b_b79k"
        Its weights: an open_clip tag or a path.
    text_features : {"clip", "prototypes"} or pair of array-like, default="clip"
        Source of the text features: prompts through the named CLIP, class means of `X`, or a
        pair (positive, negative), each of shape (n_classes, n_features).
    class_names : None, sequence of str, or mapping, default=None
        Names for the prompts, in the order of `classes_`, or a mapping from label to name.
    templates : str, sequence of str or mapping, default="photo"
        Prompt templates, see :mod:`skhegraph.clip.prompts`.
    negative_templates : str, sequence of str, mapping or None, default=None
        Not used by this method.
    logit_scale : float or None, default=None
        Inverse temperature `tau`; None takes the CLIP's own, 100 where there is none.
    device : str, default="auto"
        Where the text tower (and training with torch, if any) runs."""

_ATTRIBUTES = """classes_ : ndarray of shape (n_classes,)
        Labels.
    logit_scale_ : float
        `tau` in use."""


def fill_docstring(cls: Class) -> Class:
    """Write the shared parameters and attributes into a class docstring."""
    doc = cls.__doc__ or ""
    cls.__doc__ = doc.replace("{parameters}", _PARAMETERS).replace("{attributes}", _ATTRIBUTES)
    return cls


def check_count(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is an integer of at least one."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r}: expected an integer of at least 1.")


class LinearCLIPClassifier(CLIPClassifier):
    """A classifier whose logits are linear in the unit query: `f coef_' + intercept_`."""

    coef_: Floats
    intercept_: Floats

    def _set_linear(self, coef: Floats, intercept: Floats | None = None) -> None:
        self.coef_ = coef
        self.intercept_ = np.zeros(len(coef)) if intercept is None else intercept

    def _logits(self, Z: Floats) -> Floats:
        return Z @ self.coef_.T + self.intercept_


def cross_entropy(logits: Floats, support: Support) -> tuple[float, Floats]:
    """Weighted mean cross-entropy and its gradient in the logits, shape (n, C)."""
    weight = support.sample_weight / support.sample_weight.sum()
    log_proba = log_softmax(logits)
    rows = np.arange(len(support.y))
    gradient = np.exp(log_proba)
    gradient[rows, support.y] -= 1.0
    return float(-weight @ log_proba[rows, support.y]), gradient * weight[:, None]


def minimise(
    objective: Callable[[Floats], tuple[float, Floats]],
    start: Floats,
    *,
    max_iter: int,
    tol: float,
    name: str,
) -> tuple[Floats, int]:
    """Minimise a smooth function of a matrix by L-BFGS; return the minimum and the steps taken."""

    def flat(values: Floats) -> tuple[float, Floats]:
        loss, gradient = objective(values.reshape(start.shape))
        return loss, gradient.ravel()

    options = {"maxiter": int(max_iter), "gtol": tol, "ftol": 64 * np.finfo(float).eps}
    result = minimize(flat, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    if result.status == 1:
        warnings.warn(
            f"{name} did not converge in max_iter={max_iter} steps: raise max_iter or tol.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return result.x.reshape(start.shape), max(1, int(result.nit))
