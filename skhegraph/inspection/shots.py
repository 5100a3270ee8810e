"""Learning against shots: how many labelled images per class are worth having."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.metrics import check_scoring
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state

from skhegraph._sklearn import safe_indexing
from skhegraph.inspection.steps import axes_or_new
from skhegraph.model_selection import FewShotSplit
from skhegraph.support import Floats
from skhegraph.zero_shot import ZeroShotCLIPClassifier


class ShotsDisplay:
    """Test score against the number of labelled images per class.

    For each number of shots the support set is drawn several times, and all other images are the
    test set. Lines are means over the draws, bars their standard errors. Draws share images, so
    the errors of two points are not independent.

    Parameters
    ----------
    shots : sequence of int
        Shots per class.
    scores : dict of ndarray of shape (n_shots, n_draws)
        Scores of each estimator by its name.
    score_name : str, default="test accuracy"
        Label of the axis.

    Attributes
    ----------
    shots, scores, score_name
        As given.
    ax_ : matplotlib Axes
        Axes with the lines.
    figure_ : matplotlib Figure
        Figure that holds it.

    See Also
    --------
    sklearn.model_selection.LearningCurveDisplay : Against the size of a training set.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_iris
    >>> from skhegraph import HeGraphClassifier
    >>> from skhegraph.inspection import ShotsDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = HeGraphClassifier(text_features="prototypes")
    >>> display = ShotsDisplay.from_estimator(clf, X, y, shots=[1, 4], n_draws=3, random_state=0)
    >>> display.scores["HeGraphClassifier"].shape
    (2, 3)
    """

    def __init__(
        self,
        shots: Sequence[int],
        scores: dict[str, Floats],
        score_name: str = "test accuracy",
    ) -> None:
        self.shots = shots
        self.scores = scores
        self.score_name = score_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        shots: Sequence[int] = (1, 2, 4, 8, 16),
        n_draws: int = 5,
        others: Mapping[str, Any] | None = None,
        zero_shot: bool = True,
        scoring: Any = None,
        random_state: Any = None,
        ax: Any = None,
    ) -> ShotsDisplay:
        """Fit on every draw and draw the scores.

        Parameters
        ----------
        estimator : classifier
            A clone is fitted on each support set.
        X : array-like of shape (n_samples, n_features), or list of images
            Features; images for a pipeline that encodes them, which then needs its `cache_dir`
            to encode each image once.
        y : array-like of shape (n_samples,)
            Labels.
        shots : sequence of int, default=(1, 2, 4, 8, 16)
            Shots per class.
        n_draws : int, default=5
            Support sets drawn for each number of shots.
        others : mapping from name to classifier, or None, default=None
            Estimators to draw beside it, on the same support sets.
        zero_shot : bool, default=True
            Whether to draw the classifier of the text alone, where `estimator` (or the last step
            of the pipeline) has a text.
        scoring : str, callable or None, default=None
            As in :func:`sklearn.metrics.check_scoring`; None is accuracy.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        ShotsDisplay
            The display, drawn.
        """
        last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
        methods = {type(last).__name__: estimator, **(others or {})}
        if zero_shot:
            methods |= _zero_shot_of(estimator)
        rng = check_random_state(random_state)
        scores: dict[str, Floats] = {name: np.empty((len(shots), n_draws)) for name in methods}
        for i, k in enumerate(shots):
            splits = FewShotSplit(k, n_splits=n_draws, random_state=rng).split(y, y)
            for j, (train, test) in enumerate(splits):
                support = (safe_indexing(X, train), safe_indexing(y, train))
                rest = (safe_indexing(X, test), safe_indexing(y, test))
                for name, method in methods.items():
                    fitted = clone(method).fit(*support)
                    scores[name][i, j] = check_scoring(fitted, scoring)(fitted, *rest)
        name = scoring.replace("_", " ") if isinstance(scoring, str) else "accuracy"
        label = "score" if callable(scoring) else name
        return cls(list(shots), scores, f"test {label}").plot(ax=ax)

    def plot(self, *, ax: Any = None) -> ShotsDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        ShotsDisplay
            Itself.
        """
        ax = axes_or_new("ShotsDisplay.plot", ax, (6.4, 4.4))
        self.ax_, self.figure_ = ax, ax.figure
        for k, (name, scores) in enumerate(self.scores.items()):
            n_draws = scores.shape[1]
            error = scores.std(axis=1, ddof=1) / np.sqrt(n_draws) if n_draws > 1 else None
            ax.errorbar(
                self.shots,
                scores.mean(axis=1),
                error,
                fmt="k--" if name == "zero-shot" else "o-",
                capsize=3,
                label=name,
                zorder=3 if k == 0 else 2,
            )
        ax.set(xscale="log", xlabel="labelled images per class", ylabel=self.score_name)
        ax.set_xticks(self.shots, [str(k) for k in self.shots])
        ax.minorticks_off()
        ax.grid(axis="y", alpha=0.3)
        ax.legend()
        return self


def _zero_shot_of(estimator: Any) -> dict[str, Any]:
    """Return the text classifier with the text of an estimator, by name; none without text."""
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    params = last.get_params()
    source = params.get("text_features", "prototypes")
    if isinstance(source, str) and source == "prototypes":
        return {}
    known = ZeroShotCLIPClassifier().get_params()
    text = ZeroShotCLIPClassifier(**{name: params[name] for name in known if name in params})
    if isinstance(estimator, Pipeline):
        return {"zero-shot": Pipeline([*estimator.steps[:-1], (estimator.steps[-1][0], text)])}
    return {"zero-shot": text}
