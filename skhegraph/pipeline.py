"""One CLIP for both steps, in a pipeline that learns from more images later."""

from __future__ import annotations

import difflib
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypedDict

from sklearn import get_config
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import process_routing
from sklearn.utils.metaestimators import available_if

from skhegraph._sklearn import Pipeline
from skhegraph.clip.features import CLIPFeatures
from skhegraph.given_text import TextFeatures
from skhegraph.hegraph.classifier import HeGraphClassifier
from skhegraph.prompted_text import ClassNames, Templates

if TYPE_CHECKING:
    from typing_extensions import Unpack


class StepParams(TypedDict, total=False):
    """Parameters of both steps, for type checkers and editors: the steps say what they do."""

    device: str
    batch_size: int
    num_workers: int | None
    n_views: int
    cache_dir: str | os.PathLike[str] | None
    cache_max_bytes: int | None
    max_pixels: int | None
    draft: bool
    on_error: str
    verbose: int
    text_features: TextFeatures
    class_names: ClassNames
    templates: Templates
    negative_templates: Templates | None
    logit_scale: float | None
    positive_to_visual: float | str
    visual_to_visual: float | str
    positive_to_positive: float
    visual_to_positive: float
    negative_to_positive: float
    text_weight: float | str
    visual_weight: float | str
    shrinkage: float | str
    penalty: float
    class_weight: str | dict[Any, float] | None
    unknown_label: str | int | None
    unknown_threshold: float | None


def _last_learns_more(pipeline: Pipeline) -> bool:
    """Tell whether the last step has `partial_fit`."""
    return bool(pipeline.steps) and hasattr(pipeline.steps[-1][1], "partial_fit")


class HeGraphPipeline(Pipeline):
    """A :class:`sklearn.pipeline.Pipeline` that has `partial_fit` where its last step has it.

    Parameters
    ----------
    steps : list of (str, estimator)
        As of :class:`sklearn.pipeline.Pipeline`, and so are the other parameters.

    See Also
    --------
    skhegraph.make_hegraph_pipeline : The usual way to make one.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from skhegraph import make_hegraph_pipeline
    >>> temple, flower = load_sample_images().images
    >>> model = make_hegraph_pipeline("skhegraph-tiny", device="cpu")
    >>> model = model.partial_fit([temple, flower], ["temple", "flower"])
    >>> model = model.partial_fit([temple[:300], flower[:300]], ["temple", "flower"])
    >>> model["clf"].n_samples_seen_
    4
    """

    @available_if(_last_learns_more)
    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, **params: Any
    ) -> HeGraphPipeline:
        """Fit on more images: for steps of :func:`make_hegraph_pipeline` as one fit on all.

        The first call fits the other steps. Later calls, and those after `fit`, leave these as
        they are; but a step that learns nothing from data, such as :class:`CLIPFeatures`, makes
        its rows as in `fit`, with `n_views` views. `memory` is not used.

        Parameters
        ----------
        X : list of images
            What `fit` takes.
        y : array-like of shape (n_samples,), default=None
            Labels, as the last step takes them.
        classes : array-like of labels, default=None
            The same as ``clf__classes``: what scikit-learn's meta-estimators call it.
        **params : dict of str to object
            Parameters of `partial_fit` of the last step, spelled as in `fit`:
            ``clf__classes=[...]``, ``clf__sample_weight=weights``. With metadata routing enabled,
            what the steps request.

        Returns
        -------
        HeGraphPipeline
            The pipeline itself.

        Raises
        ------
        TypeError
            If a parameter is not of `partial_fit` of the last step.
        ValueError
            As of the steps; :meth:`HeGraphClassifier.partial_fit` says when it cannot follow `fit`.
        """
        routed = self._routed(params)
        fitted = self.__sklearn_is_fitted__()
        for name, step in self.steps[:-1]:
            given = routed[name]
            if step is None or step == "passthrough":
                continue
            if fitted and get_tags(step).requires_fit:
                X = step.transform(X, **given["transform"])
            elif hasattr(step, "fit_transform"):
                X = step.fit_transform(X, y, **given["fit_transform"])
            else:
                X = step.fit(X, y, **given["fit"]).transform(X, **given["transform"])
        last, step = self.steps[-1]
        named = {} if classes is None else {"classes": classes}
        step.partial_fit(X, y, **named, **routed[last]["partial_fit"])
        return self

    def _routed(self, params: dict[str, Any]) -> Any:
        """Parameters of `partial_fit` by step and method."""
        if get_config()["enable_metadata_routing"]:
            return process_routing(self, "partial_fit", **params)
        last = self.steps[-1][0]
        prefix = f"{last}__"
        for name in params:
            if not name.startswith(prefix):
                raise TypeError(
                    f"{type(self).__name__}.partial_fit() got {name!r}: give parameters of the "
                    f"last step alone, spelled {prefix}sample_weight."
                )
        routed: dict[str, Any] = {name: defaultdict(dict) for name, _ in self.steps}
        own = {name.removeprefix(prefix): value for name, value in params.items()}
        routed[last]["partial_fit"] = own
        return routed

    def get_metadata_routing(self) -> Any:
        """Tell where metadata goes: as of :class:`sklearn.pipeline.Pipeline`, and `partial_fit`.

        Returns
        -------
        sklearn.utils.metadata_routing.MetadataRouter
            Routes by step.
        """
        router = super().get_metadata_routing()
        last = self.steps[-1][0]
        for name, route in router:
            rows = ("fit_transform", "transform", "fit")
            for callee in ("partial_fit",) if name == last else rows:
                route.mapping.add(caller="partial_fit", callee=callee)
        return router


def make_hegraph_pipeline(
    model_name: str = "ViT-B-32",
    pretrained: str | None = "laion2b_s34b_b79k",
    *,
    memory: Any = None,
    **params: Unpack[StepParams],
) -> HeGraphPipeline:
    """Build the two-step pipeline from images to classes with one CLIP for both steps.

    Parameters
    ----------
    model_name : str, default="ViT-B-32"
        CLIP of both steps, named as in :class:`CLIPFeatures`.
    pretrained : str or None, default="laion2b_s34b_b79k"
        Weights tag or local checkpoint.
    memory : str, object with the joblib.Memory interface, or None, default=None
        Cache of the fitted transformer, see :class:`sklearn.pipeline.Pipeline`. It knows files by
        their paths, also where they or the working directory have changed: `cache_dir` does not.
    **params
        Parameters of :class:`CLIPFeatures` or :class:`HeGraphClassifier`; each goes to the step
        that has it, and `device` to both.

    Returns
    -------
    HeGraphPipeline
        Steps ``"clip"`` and ``"clf"``; a :class:`sklearn.pipeline.Pipeline` with `partial_fit`.

    Raises
    ------
    TypeError
        If neither step has a parameter; the message names the nearest.

    Notes
    -----
    Parameters of a step take its name: ``clf__visual_to_visual`` in a grid, ``clf__classes=[...]``
    in ``fit`` and ``partial_fit``. An item of several photographs is a list of them, in `fit` and
    in `predict`: ``model.fit([["front.jpg", "back.jpg"], ["cup.jpg"]], ["vase", "cup"])``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skhegraph import make_hegraph_pipeline
    >>> digits = load_digits()
    >>> images, names = digits.images / 16, ["zero", "one", "two"]
    >>> few = [i for i in range(60) if digits.target[i] < 3]
    >>> pipe = make_hegraph_pipeline("skhegraph-tiny", class_names=names)
    >>> pipe.fit([images[i] for i in few], digits.target[few]).named_steps["clf"].classes_
    array([0, 1, 2])
    """
    clip = CLIPFeatures(model_name, pretrained)
    clf = HeGraphClassifier(model_name, pretrained)
    given: dict[str, Any] = {**params}
    known = {**clip.get_params(), **clf.get_params()}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(sorted(known))}"
            raise TypeError(
                f"make_hegraph_pipeline() got {name}={value!r}, which neither CLIPFeatures "
                f"nor HeGraphClassifier has ({hint})."
            )
    for step in (clip, clf):
        step.set_params(**{k: v for k, v in given.items() if k in step.get_params()})
    return HeGraphPipeline([("clip", clip), ("clf", clf)], memory=memory)
