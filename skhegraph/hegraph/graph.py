"""Nodes and edges of the heterogeneous graph, as torch_geometric `HeteroData`.

Three node types, one node of each per class: `positive` (P) and `negative` (N) text nodes and
`visual` (V) nodes. Six directed relations join them; their weights are cosine similarities of the
initial node features, computed once and never updated.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

with (
    warnings.catch_warnings()
):  # torch_geometric compiles with what new versions of torch deprecate
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
    from torch_geometric.data import HeteroData

from skhegraph.support import Floats, Ints, unit_rows

#: Targets whose edges are scored at a time with `top_k`: bounds the memory.
TARGETS_PER_CHUNK = 1024


class Relation(NamedTuple):
    """A directed relation; `diagonal` says what becomes of r_ii = cos(same class)."""

    source: str
    target: str
    diagonal: str  # "keep": r_ii, "flip": -r_ii (polarity edges), "drop": 0 (no self edge)

    @property
    def edge_type(self) -> tuple[str, str, str]:
        """Key in `HeteroData`."""
        return (self.source, "to", self.target)


# In the order of the messages: N first, then P (which sees the new N), then V.
RELATIONS = (
    Relation("positive", "negative", "flip"),
    Relation("visual", "negative", "flip"),
    Relation("positive", "positive", "drop"),
    Relation("visual", "positive", "keep"),
    Relation("negative", "positive", "flip"),
    Relation("visual", "visual", "drop"),
)


def edge_weights(target: Floats, source: Floats, diagonal: str, top_k: int | None = None) -> Tensor:
    """Cosine edge weights `r_ij` from source node j to target node i.

    Parameters
    ----------
    target, source : ndarray of shape (n_classes, n_features)
        Node features.
    diagonal : {"keep", "flip", "drop"}
        What becomes of the same-class edge.
    top_k : int or None, default=None
        Keep only the `top_k` strongest (largest absolute weight) edges into each target.

    Returns
    -------
    Tensor of shape (n_classes, n_classes), float64
        Rows are targets; sparse with `top_k`.
    """
    unit_target, unit_source = torch.tensor(unit_rows(target)), torch.tensor(unit_rows(source))
    sign = {"keep": 1.0, "flip": -1.0, "drop": 0.0}[diagonal]
    if top_k is None:
        R = unit_target @ unit_source.T
        R.diagonal().mul_(sign)
        return R
    weights, columns = [], []
    for first in range(0, len(unit_target), TARGETS_PER_CHUNK):
        R = unit_target[first : first + TARGETS_PER_CHUNK] @ unit_source.T
        R.diagonal(first).mul_(sign)
        strongest = R.abs().topk(top_k, dim=1).indices
        weights.append(R.gather(1, strongest).ravel())
        columns.append(strongest.ravel())
    rows = torch.arange(len(unit_target)).repeat_interleave(top_k)
    index = torch.stack([rows, torch.cat(columns)])
    shape = (len(unit_target), len(unit_source))
    R = torch.sparse_coo_tensor(index, torch.cat(weights), shape, check_invariants=False)
    return R.coalesce()


def build_graph(nodes: dict[str, Floats], top_k: int | None = None) -> HeteroData:
    """Build the graph that the network reads.

    Parameters
    ----------
    nodes : dict of ndarray of shape (n_classes, n_features)
        Initial node features of ``"positive"``, ``"negative"`` and ``"visual"``.
    top_k : int or None, default=None
        As in :func:`edge_weights`.

    Returns
    -------
    torch_geometric.data.HeteroData
        Node features `x`, and for each relation the matrix `adj` of edge weights, rows targets
        (dense, or sparse with `top_k`), in single precision.
    """
    graph: Any = HeteroData()
    for name, x in nodes.items():
        graph[name].x = torch.tensor(x, dtype=torch.float32)  # a copy
    for relation in RELATIONS:
        source, target, diagonal = relation
        R = edge_weights(nodes[target], nodes[source], diagonal, top_k)
        graph[relation.edge_type].adj = R.to(torch.float32)
    return graph


def edge_lists(
    nodes: dict[str, Floats], edges: dict[tuple[str, str], csr_array], classes: Ints
) -> HeteroData:
    """Build a graph in PyG's usual form, with `edge_index` and `edge_weight`.

    Parameters
    ----------
    nodes : dict of ndarray of shape (n_classes, n_features)
        Node features of each kind.
    edges : dict of csr_array of shape (n, n)
        Edges of each relation (source, target), rows targets, between `n` of the classes.
    classes : ndarray of shape (n,)
        Which classes these are.

    Returns
    -------
    torch_geometric.data.HeteroData
        `edge_index` runs from source (row 0) to target (row 1).
    """
    graph: Any = HeteroData()
    for name, x in nodes.items():
        graph[name].x = torch.tensor(x, dtype=torch.float32)  # a copy
    for (source, target), weights in edges.items():
        listed = weights.tocoo()
        index = np.stack([classes[listed.col], classes[listed.row]])
        relation = graph[source, "to", target]
        relation.edge_index = torch.tensor(index, dtype=torch.long)
        relation.edge_weight = torch.tensor(listed.data, dtype=torch.float32)
    return graph


def normalise(R: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric degree normalisation with a self-loop.

    Parameters
    ----------
    R : Tensor of shape (n_classes, n_classes)
        Edge weights, rows are targets; dense or sparse.

    Returns
    -------
    Tensor of shape (n_classes, n_classes)
        `r_ij / sqrt((d_i + 1) (e_j + 1))` with row degree `d` and column degree `e` of |r|.
    Tensor of shape (n_classes, 1)
        Self weight `1 / (d_i + 1)`.
    """
    size, magnitude = R.abs(), torch.sum
    d, e = magnitude(size, dim=1, keepdim=True), magnitude(size, dim=0, keepdim=True)
    if R.is_sparse:
        d, e = d.to_dense(), e.to_dense()
    return R * (d + 1).rsqrt() * (e + 1).rsqrt(), 1 / (d + 1)
