"""Adapters of others, as small estimators on the features that HeGraph works on.

Every class works on unit rows: `f` is a query, `T` (C, D) the text features of the classes, `F`
(n, D) the support rows, `L` (n, C) their one-hot labels, `tau` CLIP's logit scale. Defaults are
the authors' unless a docstring says why not.
"""

from skhegraph.peers.closed_form import GDAClassifier, ProKeRClassifier, SSTextClassifier
from skhegraph.peers.convex import (
    CLAPClassifier,
    LPPlusPlusClassifier,
    MAPLogisticRegression,
    TextStartedLogisticRegression,
)
from skhegraph.peers.graph_adapter import GraphAdapterClassifier
from skhegraph.peers.tip_adapter import TipAdapterClassifier, TipAdapterFClassifier
from skhegraph.peers.trained import CLIPAdapterClassifier, TaskResClassifier

__all__ = [
    "CLAPClassifier",
    "CLIPAdapterClassifier",
    "GDAClassifier",
    "GraphAdapterClassifier",
    "LPPlusPlusClassifier",
    "MAPLogisticRegression",
    "ProKeRClassifier",
    "SSTextClassifier",
    "TaskResClassifier",
    "TextStartedLogisticRegression",
    "TipAdapterClassifier",
    "TipAdapterFClassifier",
]
