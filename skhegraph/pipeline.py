"""One CLIP for both steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.pipeline import Pipeline

from skhegraph.hegraph.classifier import HeGraphClassifier
from skhegraph.clip.features import CLIPFeatures


def make_hegraph_pipeline(
    model_name: str = "ViT-B-32",
    pretrained: str | None = "laion2b_s34b_b79k",
    *,
    device: str = "auto",
    clip_params: Mapping[str, Any] | None = None,
    memory: Any = None,
    **classifier_params: Any,
) -> Pipeline:
    """Build the two-step pipeline from images to classes with one CLIP for both steps.

    Parameters
    ----------
    model_name : str, default="ViT-B-32"
        CLIP of both steps, named as in :class:`CLIPFeatures`.
    pretrained : str or None, default="laion2b_s34b_b79k"
        Weights tag or local checkpoint.
    device : str, default="auto"
        Device of both steps.
    clip_params : mapping or None, default=None
        Further parameters of :class:`CLIPFeatures`, e.g. ``{"batch_size": 256}``.
    memory : str, object with the joblib.Memory interface, or None, default=None
        Cache of the fitted transformer, see :class:`sklearn.pipeline.Pipeline`.
    **classifier_params
        Parameters of :class:`HeGraphClassifier`.

    Returns
    -------
    sklearn.pipeline.Pipeline
        Steps ``"clip"`` and ``"clf"``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skhegraph import make_hegraph_pipeline
    >>> digits = load_digits()
    >>> images, names = digits.images / 16, ["zero", "one", "two"]
    >>> few = [i for i in range(60) if digits.target[i] < 3]
    >>> pipe = make_hegraph_pipeline("skhegraph-tiny", class_names=names, random_state=0)
    >>> pipe.fit([images[i] for i in few], digits.target[few]).named_steps["clf"].classes_
    array([0, 1, 2])
    """
    clip = CLIPFeatures(model_name, pretrained, device=device, **(clip_params or {}))
    clf = HeGraphClassifier(model_name, pretrained, device=device, **classifier_params)
    return Pipeline([("clip", clip), ("clf", clf)], memory=memory)
