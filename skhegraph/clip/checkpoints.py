"""Find the weights of a CLIP: a local file or folder, the hub's cache, or the hub itself.

Everything ends in a path on this machine before open_clip is asked to build the model. That is
what makes a failure quick: left to itself, open_clip retries an unreachable hub for a minute.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from skhegraph.clip.bundled import BUNDLED

__all__ = ["Checkpoint", "find_checkpoint", "full_name", "weights_in", "weights_name"]

_ANSWER_SECONDS = 4  # time for the hub to answer, unless HF_HUB_ETAG_TIMEOUT is set
_CONFIG = "open_clip_config.json"
_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_SUFFIXES = ("*.safetensors", "*.bin", "*.pth")
_TRANSFORMERS_NAME = re.compile(r"vit-(base|large|huge)-patch(\d+)(?:-(\d+))?$")
_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True)
class Checkpoint:
    """What open_clip's factory needs to build a model from local files.

    Parameters
    ----------
    model_name : str
        Name or ``local-dir:`` for the model.
    path : str or None
        Weights file, None for a folder.
    tokenizer_name : str
        Name for open_clip's tokenizer factory.
    options : dict
        Further arguments of the model factory.
    """

    model_name: str
    path: str | None
    tokenizer_name: str
    options: dict[str, Any] = field(default_factory=dict)

    def files(self) -> list[Path]:
        """What the model is built from: while none of it changes, the model does not."""
        if self.path is not None:
            found = [Path(self.path)]
        else:
            folder = Path(self.model_name.removeprefix("local-dir:"))
            found = [folder / _CONFIG, *weights_in(folder)]
        # In the hub's cache this file names the snapshot to take.
        parents = found[0].absolute().parents
        return [*found, *(parent / "refs" / "main" for parent in parents[2:3])]


def weights_name(model_name: str, pretrained: str | os.PathLike[str] | None) -> str | None:
    """Tag or file of a model's weights; None where the model's name brings them along."""
    if not isinstance(model_name, str) or not model_name:
        raise ValueError(f"model_name must be a non-empty str, got {model_name!r}.")
    if model_name in BUNDLED or model_name.startswith(("hf-hub:", "local-dir:")) or not pretrained:
        return None
    if not isinstance(pretrained, (str, os.PathLike)):
        raise TypeError(f"pretrained must be a tag, a path or None, got {pretrained!r}.")
    return os.fspath(pretrained)


def full_name(model_name: str, pretrained: str | None) -> tuple[str, str | None]:
    """Names of a model and its weights with the paths in them resolved."""
    if model_name.startswith("local-dir:"):
        folder = os.path.expanduser(model_name.removeprefix("local-dir:"))
        model_name = f"local-dir:{os.path.realpath(folder)}"
    if pretrained and os.path.isfile(path := os.path.expanduser(pretrained)):
        pretrained = os.path.realpath(path)
    return model_name, pretrained


def find_checkpoint(model_name: str, pretrained: str | None) -> Checkpoint:
    """Find, and fetch where that is needed and possible, the files of a model.

    Parameters
    ----------
    model_name : str
        Name of an open_clip model, ``hf-hub:org/repository`` or ``local-dir:/path``.
    pretrained : str or None
        Tag or checkpoint file of a named model.

    Returns
    -------
    Checkpoint
        Names of files on this machine.

    Raises
    ------
    ValueError
        If the model or the tag is unknown, or no weights are named.
    OSError
        If the files are not there and cannot be fetched.
    """
    if model_name.startswith("local-dir:"):
        folder = Path(os.path.expanduser(model_name.removeprefix("local-dir:")))
        _check_folder(folder, model_name)
        return Checkpoint(f"local-dir:{folder}", None, f"local-dir:{folder}")
    if model_name.startswith("hf-hub:"):
        return _from_hub(model_name)
    return _from_name(model_name, pretrained)


def weights_in(folder: Path) -> list[Path]:
    """List the files in a folder that open_clip takes for weights.

    Parameters
    ----------
    folder : Path
        A local folder.

    Returns
    -------
    list of Path
        The files, in order of their names.
    """
    return sorted(path for suffix in _SUFFIXES for path in folder.glob(suffix))


def _check_folder(folder: Path, model_name: str) -> None:
    if not (folder / _CONFIG).is_file():
        raise FileNotFoundError(f"model_name={model_name!r}: there is no {folder / _CONFIG}.")
    if not weights_in(folder):
        raise FileNotFoundError(
            f"model_name={model_name!r}: {folder} holds no weights ({', '.join(_SUFFIXES)})."
        )


def _from_hub(model_name: str) -> Checkpoint:
    repository = model_name.removeprefix("hf-hub:").strip("/")
    if repository.count("/") != 1:
        raise ValueError(f"model_name={model_name!r}: expected 'hf-hub:organisation/repository'.")
    config_path = Path(_fetch(repository, [_CONFIG], model_name))
    _fetch(repository, _WEIGHTS, model_name)
    config = json.loads(config_path.read_text(encoding="utf-8"))
    folder = f"local-dir:{config_path.parent}"
    text = config.get("model_cfg", config).get("text_cfg", {})
    uses_hub = _check_hub_tokenizer(text, model_name)
    return Checkpoint(folder, None, model_name if uses_hub else folder)


def _from_name(model_name: str, pretrained: str | None) -> Checkpoint:
    import open_clip

    name = model_name.replace("/", "-")
    if name not in open_clip.list_models():
        raise ValueError(
            f"Unknown model_name={model_name!r}. {_similar_model(model_name)} Accepted: a name "
            "from open_clip.list_models(), 'hf-hub:organisation/repository', 'local-dir:/path' "
            "or 'skhegraph-lite'."
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not pretrained:
        raise ValueError(
            f"pretrained=None for model_name={model_name!r} would mean random weights. Name a "
            f"tag ({', '.join(tags) or 'open_clip knows none for this model'}) or a local "
            "checkpoint file."
        )
    _check_hub_tokenizer(open_clip.get_model_config(name)["text_cfg"], name)
    if open_clip.get_pretrained_cfg(name, pretrained):
        return _from_tag(name, pretrained)
    if os.path.isfile(path := os.path.expanduser(pretrained)):
        return Checkpoint(name, path, name, _guess_image_options(name, tags))
    raise ValueError(
        f"pretrained={pretrained!r} is neither a file on this machine nor a tag of "
        f"model_name={model_name!r}. {_nearest(pretrained, tags)}"
    )


def _from_tag(name: str, tag: str) -> Checkpoint:
    import open_clip

    config = open_clip.get_pretrained_cfg(name, tag)
    repository, filename = os.path.split(config["hf_hub"])
    path = _fetch(repository, [filename] if filename else _WEIGHTS, f"{name}, {tag}")
    quick_gelu = bool(config.get("quick_gelu", False))
    return Checkpoint(name, path, name, {"force_quick_gelu": quick_gelu, **_image_options(config)})


def _image_options(config: dict[str, Any]) -> dict[str, Any]:
    return {f"image_{key}": config[key] for key in _PREPROCESSING if key in config}


def _guess_image_options(name: str, tags: Sequence[str]) -> dict[str, Any]:
    """Give a bare file the preprocessing that the model's published weights agree on."""
    import open_clip

    configs = [_image_options(open_clip.get_pretrained_cfg(name, tag)) for tag in tags]
    if not configs or all(config == configs[0] for config in configs):
        return configs[0] if configs else {}
    warnings.warn(
        f"The published weights of {name} differ in image preprocessing, and a bare file does "
        "not say which one it needs: CLIP's own is taken. To be sure, put the file into a folder "
        f"with an {_CONFIG} and use model_name='local-dir:/path'.",
        UserWarning,
        stacklevel=6,
    )
    return {}


def _check_hub_tokenizer(text_config: dict[str, Any], model_name: str) -> bool:
    """Tell whether the text tower needs `transformers`, and whether that can work here."""
    repository = text_config.get("hf_tokenizer_name") or text_config.get("hf_model_name")
    if not repository:
        return False
    if find_spec("transformers") is None:
        raise ImportError(
            f"The tokenizer of {model_name} needs the package transformers: "
            "pip install transformers."
        )
    for name in ("tokenizer_config.json", "config.json"):
        _fetch(repository, [name], model_name)
    return True


def _fetch(repository: str, filenames: Sequence[str], what: str) -> str:
    """Return the path of the first of the files that the hub's cache, or the hub, has."""
    from huggingface_hub import (
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    for filename in filenames:
        cached = try_to_load_from_cache(repository, filename)
        if isinstance(cached, str):
            return cached
    timeout = float(os.environ.get("HF_HUB_ETAG_TIMEOUT", _ANSWER_SECONDS))
    for filename in filenames:
        url = hf_hub_url(repository, filename)
        try:
            # Asks once, where hf_hub_download would ask a silent hub again for minutes.
            get_hf_file_metadata(url, timeout=timeout)
            return str(hf_hub_download(repository, filename))
        except OfflineModeIsEnabled as error:
            reason = f"{repository} is not in the cache and HF_HUB_OFFLINE is set"
            raise _unavailable(what, reason) from error
        except LocalEntryNotFoundError as error:  # the hub went away between the two calls
            raise _unavailable(what, str(error)) from error
        except EntryNotFoundError:
            continue
        except (OSError, HTTPError) as error:
            reason = f"{url} cannot be read ({type(error).__name__}: {error})"
            raise _unavailable(what, reason) from error
    raise _unavailable(what, f"{repository} has none of the files {', '.join(filenames)}")


def _unavailable(what: str, reason: str) -> OSError:
    return OSError(
        f"The weights of {what} cannot be had: {reason}. Ways to go on: (1) name files on this "
        "machine, pretrained='/path/to/weights.pt' or model_name='local-dir:/path/to/folder'; "
        "(2) load the model once where there is network, then set HF_HUB_OFFLINE=1 and use the "
        "cache; (3) try things out with the bundled model, model_name='skhegraph-lite'."
    )


def _similar_model(model_name: str) -> str:
    """Suggest what a name that open_clip does not know may mean, such as that of a repository."""
    import open_clip

    models = open_clip.list_models()
    organisation, slash, repository = model_name.rpartition("/")
    match = _TRANSFORMERS_NAME.search(repository.lower())
    if slash and match:
        size, patch, pixels = match.groups()
        name = "-".join(filter(None, ("ViT", size[0].upper(), patch, pixels)))
        tags = open_clip.list_pretrained_tags_by_model(name) if name in models else []
        if tags:
            tag = organisation if organisation in tags else tags[0]
            return f"Nearest: model_name={name!r} with pretrained={tag!r}."
    folder = os.path.expanduser(model_name)
    if os.path.isdir(folder):
        return f"It is a folder on this machine: model_name='local-dir:{model_name}'."
    if os.path.isfile(folder):
        return f"It is a file on this machine: name its model, and pretrained={model_name!r}."
    if model_name.startswith((".", "~", os.sep)):
        return "There is no such folder on this machine, which would be 'local-dir:' and its path."
    nearest = _nearest(model_name.replace("/", "-"), [*models, *BUNDLED])
    if slash and repository:
        return (
            f"{nearest} A repository of the hub that holds an {_CONFIG} is "
            f"model_name='hf-hub:{model_name}'."
        )
    return nearest


def _nearest(name: str, names: Iterable[str]) -> str:
    lower = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.3)
    if not close:
        return f"Known: {', '.join(lower.values()) or 'none'}."
    return f"Nearest: {', '.join(lower[match] for match in close)}."
