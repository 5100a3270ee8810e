"""A fitted classifier, with its CLIP's image tower if wanted, as a file in the ONNX format.

Needs ``pip install "skhegraph[onnx]"``. What reads the file needs neither Python nor this package.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skhegraph.clip.features import CLIPFeatures
from skhegraph.clip.torch_settings import own_settings, own_type
from skhegraph.feature_classifier import LinearFeatureClassifier

if TYPE_CHECKING:
    import onnx

    from skhegraph.clip.model import Backbone

__all__ = ["to_onnx"]

_OPSET = 18
_IR_VERSION = 8  # old enough for any runtime that knows the opset
_LARGEST_FILE = 1.9e9  # bytes that fit into one file; weights beyond go into one beside it


def to_onnx(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted classifier as an ONNX file that gives its probabilities.

    Parameters
    ----------
    model : classifier or Pipeline
        A fitted classifier that is linear in unit features (HeGraphClassifier,
        ZeroShotCLIPClassifier and the linear peers), or a fitted pipeline of CLIPFeatures and
        such a classifier.
    path : path
        File to write, "~" expanded. A network of more than 1.9 GB gets a second file beside it.

    Raises
    ------
    TypeError
        If `model` is neither.
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    FileNotFoundError
        If `path` is a folder, or in none.
    ImportError
        If a package of the extra ``onnx`` is missing.

    Notes
    -----
    A classifier reads ``features`` (n, n_features), float32, of any length. A pipeline reads
    ``pixels`` (n, H, W, 3), uint8: RGB images at the size that the CLIP reads, as from
    ``load_backbone(...).resize(image)``. Both give ``probabilities`` (n, n_classes), float32, equal
    to `predict_proba` but for rounding (1e-5), NaN for a row of NaN; the metadata entry
    ``classes`` has the labels of the columns as JSON. There is no rule for unknown classes in the
    file: apply a threshold to the probabilities.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from skhegraph import HeGraphClassifier
    >>> from skhegraph.export import to_onnx
    >>> X, y = np.eye(4), ["cat", "cat", "dog", "dog"]
    >>> clf = HeGraphClassifier(text_features="prototypes").fit(X, y)
    >>> path = os.path.join(tempfile.mkdtemp(), "classifier.onnx")
    >>> to_onnx(clf, path)
    """
    file = Path(os.path.expanduser(os.fspath(path)))
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: give a file, in a folder that is there.")
    clip, classifier = _parts(model)
    check_is_fitted(classifier)
    proto = _linear(classifier) if clip is None else _with_tower(clip._load_backbone(), classifier)
    entry = proto.metadata_props.add()
    entry.key, entry.value = "classes", json.dumps(classifier.classes_.tolist(), default=str)
    _save(proto, file)


def _save(proto: onnx.ModelProto, path: Path) -> None:
    """Write in a folder beside `path`, then rename: what cannot be written whole leaves nothing."""
    large = proto.ByteSize() > _LARGEST_FILE
    weights = path.with_name(f"{path.name}.weights")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.absolute().parent) as folder:
        written = Path(folder) / path.name
        _import("onnx").save(proto, written, save_as_external_data=large, location=weights.name)
        if (beside := Path(folder) / weights.name).exists():
            os.replace(beside, weights)
        os.replace(written, path)


def _parts(model: Any) -> tuple[CLIPFeatures | None, LinearFeatureClassifier]:
    """Return the transformer, if any, and the linear classifier of a model."""
    steps = [step for _, step in model.steps] if isinstance(model, Pipeline) else [None, model]
    if (
        len(steps) == 2
        and (steps[0] is None or isinstance(steps[0], CLIPFeatures))
        and isinstance(steps[1], LinearFeatureClassifier)
    ):
        return steps[0], steps[1]
    what = " and ".join(type(step).__name__ for step in steps if step is not None)
    raise TypeError(
        f"model is {what}: only a classifier that is linear in its features (a subclass of "
        "LinearFeatureClassifier, such as HeGraphClassifier), or a pipeline of CLIPFeatures and "
        "such a classifier, can be exported."
    )


def _import(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f'to_onnx needs the package {name}: pip install "skhegraph[onnx]".'
        ) from error


def _linear(classifier: LinearFeatureClassifier) -> onnx.ModelProto:
    """Graph of unit rows, one matrix product and a softmax."""
    _import("onnx")
    from onnx import TensorProto, checker, helper, numpy_helper

    n_classes, n_features = classifier.coef_.shape
    constants = {
        "coef": classifier.coef_.astype(np.float32),
        "intercept": classifier.intercept_.astype(np.float32),
        "zero": np.float32(0),
        "one": np.float32(1),
    }
    # As skhegraph.support.unit_rows: the largest entry first, so that no square overflows.
    nodes: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Abs", ["features"], "sizes", {}),
        ("ReduceMax", ["sizes", "last"], "largest", {"keepdims": 1}),
        ("Greater", ["largest", "zero"], "has_length", {}),
        ("Where", ["has_length", "largest", "one"], "scale", {}),
        ("Div", ["features", "scale"], "scaled", {}),
        ("ReduceL2", ["scaled", "last"], "norm", {"keepdims": 1}),
        ("Max", ["norm", "one"], "length", {}),
        ("Div", ["scaled", "length"], "unit", {}),
        ("Gemm", ["unit", "coef", "intercept"], "logits", {"transB": 1}),
        ("Softmax", ["logits"], "probabilities", {"axis": 1}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [out], **options) for kind, inputs, out, options in nodes],
        type(classifier).__name__,
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", n_features])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", n_classes])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
        + [numpy_helper.from_array(np.array([1], dtype=np.int64), "last")],
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    )
    checker.check_model(proto)
    return proto


@own_settings()
@own_type()
def _with_tower(backbone: Backbone, classifier: LinearFeatureClassifier) -> onnx.ModelProto:
    """Graph from pixels to probabilities, by torch's exporter."""
    _import("onnxscript")
    import torch

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.clip = backbone._model
            self.mean = torch.nn.Buffer(torch.tensor(backbone._mean).view(1, 3, 1, 1))
            self.std = torch.nn.Buffer(torch.tensor(backbone._std).view(1, 3, 1, 1))
            self.coef = torch.nn.Buffer(torch.tensor(classifier.coef_, dtype=torch.float32))
            self.bias = torch.nn.Buffer(torch.tensor(classifier.intercept_, dtype=torch.float32))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            images = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
            unit = torch.nn.functional.normalize(self.clip.encode_image(images), dim=-1)
            return torch.softmax(torch.nn.functional.linear(unit, self.coef, self.bias), dim=-1)

    height, width = backbone.resize(_grey()).shape[:2]
    pixels = torch.zeros((2, height, width, 3), dtype=torch.uint8, device=backbone.device)
    program: Any = torch.onnx.export(
        Whole().eval().to(backbone.device),
        (pixels,),
        dynamo=True,
        input_names=["pixels"],
        output_names=["probabilities"],
        dynamic_shapes={"pixels": {0: torch.export.Dim("n", min=1)}},
        verbose=False,
    )
    proto: onnx.ModelProto = program.model_proto
    return proto


def _grey() -> Any:
    from PIL import Image

    return Image.new("RGB", (8, 8), "grey")
