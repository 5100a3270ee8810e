"""One CLIP for both steps."""

from __future__ import annotations

import difflib
from typing import Any

from sklearn.pipeline import Pipeline

from skhegraph.clip.features import CLIPFeatures
from skhegraph.hegraph.classifier import HeGraphClassifier


def make_hegraph_pipeline(
    model_name: str = "ViT-B-32",
    pretrained: str | None = "laion2b_s34b_b79k",
    *,
    memory: Any = None,
    **params: Any,
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
    known = {**clip.get_params(), **clf.get_params()}
    for name in params:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(sorted(known))}"
            raise TypeError(
                f"make_hegraph_pipeline() got {name}={params[name]!r}, which neither CLIPFeatures "
                f"nor HeGraphClassifier has ({hint})."
            )
    for step in (clip, clf):
        step.set_params(**{name: params[name] for name in params if name in step.get_params()})
    return Pipeline([("clip", clip), ("clf", clf)], memory=memory)
