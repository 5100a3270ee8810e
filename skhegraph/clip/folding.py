"""Batch norms of a trained convolutional network, folded into the convolutions before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["fold_batch_norms"]


def fold_batch_norms(network: torch.nn.Module) -> None:
    """Fold each of timm's batch norms into the convolution before it, in place.

    In evaluation mode both are linear, so that one does the work of two. What follows the batch
    norm, its activation, stays.

    Parameters
    ----------
    network : torch.nn.Module
        A network in evaluation mode, whose batch norms each come right after a convolution.

    Examples
    --------
    >>> import timm, torch
    >>> from skhegraph.clip.folding import fold_batch_norms
    >>> network = timm.create_model("tf_efficientnet_lite0").eval()
    >>> n_before = len(list(network.parameters()))
    >>> fold_batch_norms(network)
    >>> n_before, len(list(network.parameters()))
    (149, 100)
    """
    import torch
    from timm.layers import BatchNormAct2d
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    convolution: tuple[str, torch.nn.Conv2d] | None = None
    for name, part in list(network.named_modules()):
        if isinstance(part, torch.nn.Conv2d):
            convolution = name, part
        elif isinstance(part, BatchNormAct2d):
            if convolution is None:
                raise ValueError(f"the batch norm {name} follows no convolution")
            network.set_submodule(convolution[0], fuse_conv_bn_eval(convolution[1], part))
            network.set_submodule(name, part.act)
            convolution = None
