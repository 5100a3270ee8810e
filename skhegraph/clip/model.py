"""Load a CLIP, once per process, and encode images and text with it.

open_clip and torch are imported inside functions: importing this module is cheap, and nothing
that only needs features or a fitted classifier pays for the models.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Sequence
from importlib.resources import as_file
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skhegraph.clip import torch_settings
from skhegraph.clip.bundled import BUNDLED, LITE, TINY, Bundled
from skhegraph.clip.checkpoints import (
    Checkpoint,
    find_checkpoint,
    full_name,
    weights_in,
    weights_name,
)
from skhegraph.clip.fingerprint import FileStamps, fingerprint, is_unchanged, stamp_files
from skhegraph.clip.folding import fold_batch_norms
from skhegraph.clip.torch_settings import own_settings, own_type
from skhegraph.clip.unfit_weights import UNFIT_ERRORS, why_not_loaded
from skhegraph.clip.views import keep_a_pixel, resize_middle

if TYPE_CHECKING:
    import torch
    from PIL import Image

__all__ = ["LITE", "TINY", "Backbone", "load_backbone", "resolve_device"]

_TEXT_BATCH = 256

# Four times the input: features of photographs decoded at half their size then stay within a
# cosine of 0.999 of the others, which at twice the input, or a quarter of the size, some do not.
_DRAFT = 4

# CLIPs learn a scale of the cosine of about 100; a thousand is the scale in place of its logarithm.
_LARGEST_SCALE = 1000

_backbones: dict[tuple[str, str | None, str], Backbone] = {}
_locks: dict[tuple[str, str | None, str], threading.RLock] = {}  # one a model, held while it loads
_lock = threading.RLock()  # for the two above: nothing that takes time is done under it


class Backbone:
    """A CLIP in evaluation mode on one device, with its preprocessing and tokenizer.

    Use :func:`load_backbone` to get one; loading is what costs.

    Parameters
    ----------
    model : torch.nn.Module
        An open_clip model.
    preprocess : callable
        Evaluation transform of open_clip, from PIL image to float32 tensor (3, H, W).
    tokenizer : callable
        Tokenizer of open_clip that belongs to the model.
    model_name : str
        Name the model was asked for by.
    pretrained : str or None
        Tag or file of the weights, None where the name says it all.
    device : str
        Where the model runs, as given by :func:`resolve_device`.
    files : mapping
        The files it was made of, with their stamps.

    Attributes
    ----------
    model_name, pretrained, device, files
        As given.
    least_side : int
        JPEG files may be decoded at half their size if no side gets shorter than this: four
        times the model's input.
    n_features : int
        Width D of the image and text features.
    logit_scale : float
        The model's learned scale of the cosine, exponentiated (about 100 for most CLIPs).
    preprocess : callable
        As given.

    Examples
    --------
    >>> from skhegraph.clip.model import load_backbone
    >>> backbone = load_backbone("skhegraph-tiny", device="cpu")
    >>> backbone.n_features
    128
    >>> backbone.encode_text(["a photo of a cat.", "a photo of a dog."]).shape
    (2, 128)
    """

    def __init__(
        self,
        model: Any,
        preprocess: Any,
        tokenizer: Any,
        *,
        model_name: str,
        pretrained: str | None,
        device: str,
        files: FileStamps | None = None,
    ) -> None:
        self.model_name = model_name
        self.pretrained = pretrained
        self.device = device
        self.files = files or {}
        self.least_side = _DRAFT * int(np.max(model.visual.image_size))
        self.preprocess = preprocess
        self._model = model.to(device).eval()
        self._tokenizer = tokenizer
        self._geometry, self._mean, self._std = _split_transform(preprocess)
        self._text: dict[str, np.ndarray] = {}
        self._text_lock = threading.Lock()
        self._fingerprint: str | None = None
        self.logit_scale = float(self._model.logit_scale.detach().float().exp())
        if not math.isfinite(self.logit_scale) or self.logit_scale > _LARGEST_SCALE:
            raise self._damaged(
                f"its logit_scale is {float(self._model.logit_scale):g}, which has to be the "
                "logarithm of the scale (4.6 for 100)"
            )
        self.n_features = int(self._encode_prompts([""]).shape[1])

    def __repr__(self) -> str:
        """Name the model, its weights where they have a name of their own, and its device."""
        weights = "" if self.pretrained is None else f"{self.pretrained!r}, "
        return f"Backbone({self.model_name!r}, {weights}device={self.device!r})"

    def fingerprint(self) -> str:
        """Digest of what image features depend on, besides the image."""
        if self._fingerprint is None:
            precision = "full" if self.device == "cpu" else "half"
            self._fingerprint = fingerprint(
                self._model.visual,
                preprocess=f"{self.preprocess!r} {self.least_side}",
                precision=precision,
            )
        return self._fingerprint

    def _damaged(self, what: str) -> OSError:
        weights = "" if self.pretrained is None else f", pretrained={self.pretrained!r}"
        return OSError(
            f"The weights of model_name={self.model_name!r}{weights} are damaged: {what}. "
            "Get them again, or name others."
        )

    def encode_images(self, batch: torch.Tensor | Sequence[torch.Tensor]) -> np.ndarray:
        """Encode a batch of preprocessed images.

        Parameters
        ----------
        batch : torch.Tensor of shape (n, 3, H, W), or a sequence of n tensors (3, H, W)
            Outputs of `preprocess`.

        Returns
        -------
        ndarray of shape (n, n_features), float32
            Rows of unit length.
        """
        import torch

        images = batch if isinstance(batch, torch.Tensor) else torch.stack(list(batch))
        with own_settings(), torch.inference_mode():
            inputs = images.to(self.device, torch.float32)
            return self._unit_rows(self._model.encode_image, inputs, "image")

    def resize(self, image: Image.Image) -> np.ndarray:
        """Apply the geometric part of `preprocess`: resize and crop, no normalisation.

        Parameters
        ----------
        image : PIL.Image.Image
            An RGB image.

        Returns
        -------
        ndarray of shape (H, W, 3), uint8
            Input of `encode_pixels`. Needs no torch operation, so it suits worker threads.
        """
        strip = resize_middle(image, self._geometry)
        resized = strip or self._geometry(keep_a_pixel(image, self._geometry))
        return np.asarray(resized.convert("RGB"))

    def encode_pixels(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Encode images that `resize` made, normalising the whole batch on the device.

        Parameters
        ----------
        images : sequence of n ndarrays of shape (H, W, 3), uint8
            Outputs of `resize`.

        Returns
        -------
        ndarray of shape (n, n_features), float32
            Rows of unit length, the same as from `preprocess` and `encode_images`.

        Warns
        -----
        UserWarning
            If the device has not the memory for them all and they are encoded by halves.

        Raises
        ------
        MemoryError
            If it has not the memory for a half.
        """
        import torch

        try:
            return self._encode_pixels(images)
        except torch.OutOfMemoryError:
            half = -(-len(images) // 2)
        # Here the error, whose traceback holds on to the tensors, is gone.
        warnings.warn(
            f"{self.device} is out of memory with {len(images)} images in a batch, which are "
            f"encoded by halves. Set batch_size={half} or less to spare the attempt.",
            UserWarning,
            stacklevel=2,
        )
        parts = [part for part in (images[:half], images[half:]) if len(part)]
        try:
            return np.concatenate([self._encode_pixels(part) for part in parts])
        except torch.OutOfMemoryError as error:
            advice = f"Set batch_size to less than {half}, or" if half > 1 else "Set"
            raise MemoryError(
                f"{self.device} is out of memory with {half} of {len(images)} images in a batch. "
                f"{advice} device='cpu'."
            ) from error

    def _encode_pixels(self, images: Sequence[np.ndarray]) -> np.ndarray:
        import torch

        with own_settings(), torch.inference_mode():
            pixels = torch.from_numpy(np.stack(images)).to(self.device)
            # The channels stay last in memory, which convolutions are fastest with.
            batch = pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)
            mean, std = (
                torch.tensor(values, dtype=torch.float32, device=self.device).view(-1, 1, 1)
                for values in (self._mean, self._std)
            )
            return self._unit_rows(self._model.encode_image, batch.sub_(mean).div_(std), "image")

    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        """Encode prompts; each distinct one is encoded once in the life of the process.

        Parameters
        ----------
        prompts : sequence of n str
            Whole prompts. What goes beyond the model's context is cut, with a warning.

        Returns
        -------
        ndarray of shape (n, n_features), float32
            Rows of unit length.
        """
        if isinstance(prompts, str):
            raise TypeError(f"prompts must be a sequence of str, got one str: [{prompts!r}]?")
        if len(prompts) == 0:
            return np.empty((0, self.n_features), dtype=np.float32)
        with self._text_lock:
            new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._text]
            self._warn_if_cut(new)
            for start in range(0, len(new), _TEXT_BATCH):
                chunk = new[start : start + _TEXT_BATCH]
                self._text.update(zip(chunk, self._encode_prompts(chunk), strict=True))
            return np.stack([self._text[prompt] for prompt in prompts])

    def _encode_prompts(self, prompts: list[str]) -> np.ndarray:
        import torch

        with own_settings(), torch.inference_mode():
            tokens = self._tokenizer(prompts).to(self.device)
            return self._unit_rows(self._model.encode_text, tokens, "text")

    def _unit_rows(self, encode: Any, inputs: torch.Tensor, tower: str) -> np.ndarray:
        import torch

        kind = torch.device(self.device).type
        with torch.autocast(kind, dtype=torch.float16, enabled=kind != "cpu"):
            features = encode(inputs)
        unit = torch.nn.functional.normalize(features.float(), dim=-1)
        rows: np.ndarray = unit.cpu().numpy()
        # A row of NaN, of infinities or of zeros has no direction, nor then unit length.
        if not np.allclose(np.einsum("ij,ij->i", rows, rows), 1, atol=1e-2):
            raise self._damaged(f"its {tower} tower gives features that are not finite or all zero")
        return rows

    def _warn_if_cut(self, prompts: list[str]) -> None:
        encode = getattr(self._tokenizer, "encode", None)
        context = getattr(self._tokenizer, "context_length", None)
        if encode is None or not context:
            return
        cut = [prompt for prompt in prompts if len(encode(prompt)) + 2 > context]
        if cut:
            warnings.warn(
                f"{len(cut)} prompts are longer than the {context} tokens that "
                f"{self.model_name} reads; the end is cut, for instance of {cut[0]!r}.",
                UserWarning,
                stacklevel=3,
            )


def _start_afresh_in_fork() -> None:
    """Make models that the parent has loaded usable in a forked child.

    Threads do not survive a fork: neither those that may hold a lock of ours, nor torch's, which
    a child would wait for without end. As in workers of torch's own data loader, one is left.
    """
    global _lock
    _lock, torch_settings.building = threading.RLock(), threading.RLock()
    _locks.clear()
    for backbone in _backbones.values():
        backbone._text_lock = threading.Lock()
    if _backbones:
        import torch

        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh_in_fork)


def load_backbone(model_name: str, pretrained: str | None = None, device: str = "auto") -> Backbone:
    """Load a CLIP, or return the one this process has loaded already.

    Parameters
    ----------
    model_name : str
        An open_clip model name such as ``"ViT-B-32"``, ``"hf-hub:org/repository"``,
        ``"local-dir:/path"`` (a folder with ``open_clip_config.json`` and weights), or a bundled
        one: ``"skhegraph-lite"``, for trying, teaching, and offline and edge work on
        photographs (see :data:`skhegraph.clip.bundled.LITE`), or ``"skhegraph-tiny"``, a test
        double.
    pretrained : str, path or None, default=None
        A tag that open_clip knows for the model, or a local checkpoint file. Only a named
        open_clip model uses it: the other three kinds of name bring their weights along, and
        `pretrained` is ignored. A bare file says nothing about its preprocessing or activation,
        so the image statistics are those of the model's published weights (a warning says so
        where these disagree), and weights trained with QuickGELU need the model's
        ``-quickgelu`` name. A ``local-dir:`` leaves no such doubt.
    device : str, default="auto"
        See :func:`resolve_device`.

    Returns
    -------
    Backbone
        In evaluation mode on `device`, shared by all callers in the process. Computations run
        in half precision on an accelerator and in float32 on the CPU.

    Raises
    ------
    ValueError
        If the model, tag or device is unknown, or no weights are named.
    ImportError
        If ``"skhegraph-lite"`` is asked for without the extra ``lite``.
    OSError
        If the weights are damaged or cannot be read or fetched; where there is no network this
        takes seconds, and the message gives the ways to go on.

    Examples
    --------
    >>> from skhegraph.clip.model import load_backbone
    >>> backbone = load_backbone("skhegraph-tiny", device="cpu")
    >>> backbone is load_backbone("skhegraph-tiny", device="cpu")
    True
    """
    device = resolve_device(device)
    weights = weights_name(model_name, pretrained)
    key = (*full_name(model_name, weights), device)
    with _lock:
        lock = _locks.setdefault(key, threading.RLock())
    with lock:
        found = _backbones.get(key)
        if found is None or not is_unchanged(found.files):
            found = _backbones[key] = _load(model_name, weights, device)
        return found


def _load(model_name: str, pretrained: str | None, device: str) -> Backbone:
    """Make a model from its files, whose stamps are taken before they are read."""
    bundled = BUNDLED.get(model_name)
    checkpoint = None if bundled else find_checkpoint(model_name, pretrained)
    files = stamp_files(bundled.files() if bundled else checkpoint.files())  # type: ignore[union-attr]
    with own_settings(), own_type():
        parts = _build_bundled(bundled) if bundled else _build(checkpoint)  # type: ignore[arg-type]
    return Backbone(
        *parts, model_name=model_name, pretrained=pretrained, device=device, files=files
    )


def resolve_device(device: str) -> str:
    """Turn a device request into the name of a device that is there.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N", "mps"}
        "auto" takes CUDA, else Apple's MPS, else the CPU.

    Returns
    -------
    str
        "cpu", "mps" or "cuda:N".

    Raises
    ------
    ValueError
        If the device is unknown or not present.

    Examples
    --------
    >>> from skhegraph.clip.model import resolve_device
    >>> resolve_device("cpu")
    'cpu'
    """
    import torch

    has_mps = torch.backends.mps.is_available()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    kind, _, index = device.partition(":") if isinstance(device, str) else ("", "", "")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise ValueError(
            f"device must be 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps', got {device!r}."
        )
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        number = int(index) if index else torch.cuda.current_device() if count else 0
        if number >= count:
            raise ValueError(
                f"device={device!r}, but {count} CUDA devices are available; use 'auto' or 'cpu'."
            )
        return f"cuda:{number}"
    if kind == "mps" and not has_mps:
        raise ValueError("device='mps' is not available here; use 'auto' or 'cpu'.")
    return kind


def _build_bundled(bundled: Bundled) -> tuple[Any, Any, Any]:
    """Make a bundled model from open_clip's own classes, leaving its registry alone."""
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = bundled.read_config()
    model = open_clip.CLIP(**config)
    model.load_state_dict(bundled.read_weights(model))
    if "timm_model_name" in config["vision_cfg"]:
        fold_batch_norms(model.eval().visual.trunk)
        model.visual.to(memory_format=torch.channels_last)
    preprocess = image_transform_v2(PreprocessCfg(**bundled.preprocess), is_train=False)
    with as_file(bundled.asset(bundled.merges)) as merges:
        tokenizer = open_clip.SimpleTokenizer(
            str(merges), context_length=config["text_cfg"]["context_length"]
        )
    return model, preprocess, tokenizer


def _build(checkpoint: Checkpoint) -> tuple[Any, Any, Any]:
    """Make any other model with open_clip's factory from files that are on this machine."""
    import open_clip

    try:
        model, preprocess = open_clip.create_model_from_pretrained(
            checkpoint.model_name,
            checkpoint.path,
            device="cpu",
            weights_only=True,
            **checkpoint.options,
        )
    except UNFIT_ERRORS as error:
        path = Path(checkpoint.path or checkpoint.model_name.removeprefix("local-dir:"))
        weights = weights_in(path) if path.is_dir() else [path]
        raise OSError(
            f"The weights in {path} do not load into the model: {why_not_loaded(weights, error)}."
        ) from error
    return model, preprocess, open_clip.get_tokenizer(checkpoint.tokenizer_name)


def _split_transform(preprocess: Any) -> tuple[Any, Any, Any]:
    """Split open_clip's evaluation transform: the steps on PIL images, then mean and std."""
    from torchvision.transforms import Compose, Normalize

    steps = list(preprocess.transforms)
    if not isinstance(steps[-1], Normalize):
        raise TypeError(f"expected a transform that ends with Normalize, got {preprocess}")
    return Compose(steps[:-3]), steps[-1].mean, steps[-1].std
