"""One CLIP for both steps."""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING, Any, TypedDict

from sklearn.pipeline import Pipeline

from skhegraph.clip.features import CLIPFeatures
from skhegraph.given_text import TextFeatures
from skhegraph.hegraph.classifier import HeGraphClassifier
from skhegraph.prompted_classifier import ClassNames, Templates

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


def make_hegraph_pipeline(
    model_name: str = "ViT-B-32",
    pretrained: str | None = "laion2b_s34b_b79k",
    *,
    memory: Any = None,
    **params: Unpack[StepParams],
) -> Pipeline:
    """Build the two-step pipeline from images to classes with one CLIP for both steps.

    Parameters
    ----------
    model_name : str, default="ViT-B-32"
        CLIP of both steps, named as in :class:`CLIPFeatures`.
    pretrained : str or None, default="laion2b_s34b_b79k"
        Weights tag or local checkpoint.
    memory : str, object with the joblib.Memory interface, or None, default=None
        Cache of the fitted transformer, see :class:`sklearn.pipeline.Pipeline`.
    **params
        Parameters of :class:`CLIPFeatures` or :class:`HeGraphClassifier`; each goes to the step
        that has it, and `device` to both.

    Returns
    -------
    sklearn.pipeline.Pipeline
        Steps ``"clip"`` and ``"clf"``.

    Raises
    ------
    TypeError
        If neither step has a parameter; the message names the nearest.

    Notes
    -----
    Parameters of a step take its name: ``clf__visual_to_visual`` in a grid, ``clf__classes=[...]``
    in ``fit``. A step alone takes what the one before gives:
    ``model["clf"].partial_fit(model["clip"].transform(images), names)``.

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
    return Pipeline([("clip", clip), ("clf", clf)], memory=memory)
