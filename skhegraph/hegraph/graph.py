"""Nodes and edges of the heterogeneous graph (method, sections 1 and 2).

Three node types, one node of each a class: `positive` (P) and `negative` (N) text nodes and
`visual` (V) nodes. Six directed relations join them; their weights are cosine similarities of the
initial node features, computed once and never updated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from scipy.sparse import csr_array

from skhegraph.base import Floats, unit_rows
from skhegraph.hegraph.reuse import reused

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData


Edges: TypeAlias = Floats | csr_array
#: Targets whose edges are scored at a time with `top_k`.
CHUNK = 1024


class Relation(NamedTuple):
    """A directed relation; `diagonal` says what becomes of r_ii = cos(same class)."""

    source: str
    target: str
    diagonal: str  # "keep": r_ii, "flip": -r_ii (polarity edges), "drop": 0 (no self edge)


# In the order of the messages: N first, then P (which sees the new N), then V.
RELATIONS = (
    Relation("positive", "negative", "flip"),
    Relation("visual", "negative", "flip"),
    Relation("positive", "positive", "drop"),
    Relation("visual", "positive", "keep"),
    Relation("negative", "positive", "flip"),
    Relation("visual", "visual", "drop"),
)


class PathWeights(NamedTuple):
    """Fixed weight of each relation, named by source and target (Eq. 1-6)."""

    positive_to_negative: float = 0.5  # b_pn
    visual_to_negative: float = 0.5  # b_vn
    positive_to_positive: float = 0.06  # a_pp
    visual_to_positive: float = 0.24  # a_vp
    negative_to_positive: float = 0.2  # a_np
    visual_to_visual: float = 0.5  # g


def edge_weights(target: Floats, source: Floats, diagonal: str, top_k: int | None = None) -> Edges:
    """Cosine edge weights `r_ij` from source node j to target node i (method, section 2).

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
    ndarray or scipy.sparse.csr_array of shape (n_classes, n_classes)
        Rows are targets; sparse with `top_k`.
    """
    target, source = unit_rows(target), unit_rows(source)
    sign = {"keep": 1.0, "flip": -1.0, "drop": 0.0}[diagonal]
    if top_k is None:
        R = target @ source.T
        np.fill_diagonal(R, sign * R.diagonal())
        return R
    n, weights, columns = len(target), [], []
    for start in range(0, n, CHUNK):
        R = target[start : start + CHUNK] @ source.T
        own = np.arange(len(R))
        R[own, start + own] *= sign
        strongest = np.argpartition(np.abs(R), n - top_k, axis=1)[:, n - top_k :]
        weights.append(np.take_along_axis(R, strongest, axis=1).ravel())
        columns.append(strongest.ravel())
    parts = np.concatenate(weights), np.concatenate(columns), np.arange(n + 1) * top_k
    return csr_array(parts, shape=(n, n))


def normalise(R: Edges) -> tuple[Edges, Floats]:
    """Symmetric degree normalisation with a self-loop (method, section 3).

    Parameters
    ----------
    R : ndarray or sparse array of shape (n_classes, n_classes)
        Edge weights, rows are targets.

    Returns
    -------
    ndarray or sparse array of shape (n_classes, n_classes)
        `r_ij / sqrt((d_i + 1) (e_j + 1))` with row degree `d` and column degree `e` of |r|.
    ndarray of shape (n_classes, 1)
        Self weight `1 / (d_i + 1)`.
    """
    d: Floats = np.asarray(abs(R).sum(axis=1)).reshape(-1, 1)
    e: Floats = np.asarray(abs(R).sum(axis=0)).reshape(1, -1)
    scaled: Any = R * (1 / np.sqrt(d + 1)) * (1 / np.sqrt(e + 1))
    return (scaled if isinstance(R, np.ndarray) else csr_array(scaled)), 1 / (d + 1)


def build_edges(nodes: dict[str, Floats], top_k: int | None = None) -> dict[tuple[str, str], Edges]:
    """Edge weights of all six relations, keyed by (source, target)."""
    return {
        (r.source, r.target): edge_weights(nodes[r.target], nodes[r.source], r.diagonal, top_k)
        for r in RELATIONS
    }


@reused
def normalised_edges(
    nodes: dict[str, Floats], top_k: int | None
) -> dict[tuple[str, str], tuple[Edges, Floats]]:
    """Normalised edge weights and self weights of all six relations, single precision."""
    edges = {key: normalise(R) for key, R in build_edges(nodes, top_k).items()}
    return {
        key: (weights.astype(np.float32), self_weight.astype(np.float32))
        for key, (weights, self_weight) in edges.items()
    }


def to_hetero_data(nodes: dict[str, Floats], top_k: int | None = None) -> HeteroData:
    """Graph as torch_geometric data: node features `x`, `edge_index` and `edge_weight`.

    Parameters
    ----------
    nodes : dict of ndarray of shape (n_classes, n_features)
        Initial node features of ``"positive"``, ``"negative"`` and ``"visual"``.
    top_k : int or None, default=None
        As in :func:`edge_weights`.

    Returns
    -------
    torch_geometric.data.HeteroData
        Edge types are (source, "to", target); zero weights are no edges.
    """
    import torch
    from torch_geometric.data import HeteroData

    data: Any = HeteroData()
    for name, x in nodes.items():
        data[name].x = torch.tensor(x, dtype=torch.float32)  # a copy
    for (source, target), R in build_edges(nodes, top_k).items():
        edges = csr_array(R).tocoo()
        edges.eliminate_zeros()
        store = data[source, "to", target]
        store.edge_index = torch.as_tensor(np.stack([edges.col, edges.row]), dtype=torch.long)
        store.edge_weight = torch.tensor(edges.data, dtype=torch.float32)
    return data
