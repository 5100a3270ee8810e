"""The heterogeneous graph network, a torch module without scikit-learn."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from skhegraph.hegraph.graph import RELATIONS, HeteroData, normalise
from skhegraph.support import Floats


class PathWeights(NamedTuple):
    """Fixed weight of each relation, named by source and target (Eq. 1-6)."""

    positive_to_negative: float  # b_pn
    visual_to_negative: float  # b_vn
    positive_to_positive: float  # a_pp
    visual_to_positive: float  # a_vp
    negative_to_positive: float  # a_np
    visual_to_visual: float = 0.0  # g


class HeteroGraphNetwork(nn.Module):
    """One pass of messages over the graph: N first, then P (which sees the new N), then V.

    A message to target node i from source type s with edge weights r is

        m_i = tanh(W_t (x_i / (d_i + 1) + sum_j r_ij / sqrt((d_i + 1) (e_j + 1)) y_j))

    with one matrix `W_t` per target type.

    Parameters
    ----------
    graph : HeteroData
        From :func:`skhegraph.hegraph.graph.build_graph`.
    paths : PathWeights
        Path weights; a relation of weight 0 is left out.
    initial : tuple of ndarray of shape (n_features, n_features)
        Initial `W_n, W_p, W_v`.
    device : str
        torch device.
    """

    def __init__(
        self,
        graph: HeteroData,
        paths: PathWeights,
        initial: tuple[Floats, Floats, Floats],
        device: str,
    ) -> None:
        super().__init__()
        self.paths = paths
        self.nodes = {name: graph[name].x.to(device) for name in graph.node_types}
        self.edges: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}
        for relation in RELATIONS:
            weights, self_weight = normalise(graph[relation.edge_type].adj)
            edges = weights.to(device), self_weight.to(device)
            self.edges[relation.source, relation.target] = edges
        # What only depends on the initial nodes is gathered once: W acts on it linearly.
        self.gathered = {
            (source, target): self.gather(source, target, self.nodes[source])
            for source, target in self.edges
            if target != "visual"
        }
        tensors = [torch.tensor(W, dtype=torch.float32, device=device) for W in initial]
        self.W_n, self.W_p, self.W_v = (nn.Parameter(W) for W in tensors)

    def gather(self, source: str, target: str, y: Tensor) -> Tensor:
        """What a message passes through W: `x_i / (d_i+1) + sum_j r_ij / sqrt(..) y_j`."""
        R, self_weight = self.edges[source, target]
        return self_weight * self.nodes[target] + R @ y

    def negatives(self) -> Tensor:
        """Eq. 1-2: `N' = N + b_pn m(p->n) + b_vn m(v->n)`."""
        N = self.nodes["negative"]
        for source, weight in (
            ("positive", self.paths.positive_to_negative),
            ("visual", self.paths.visual_to_negative),
        ):
            if weight:
                N = N + weight * torch.tanh(self.gathered[source, "negative"] @ self.W_n.T)
        return N

    def positives(self, negative_to_positive: float | None = None) -> Tensor:
        """Eq. 3-4: `P' = P + a_pp m(p->p) + a_vp m(v->p) + a_np m(n'->p)`.

        `negative_to_positive` overrides the path weight `a_np`.
        """
        a_np = self.paths.negative_to_positive
        a_np = a_np if negative_to_positive is None else negative_to_positive
        P = self.nodes["positive"]
        for source, weight in (
            ("positive", self.paths.positive_to_positive),
            ("visual", self.paths.visual_to_positive),
            ("negative", a_np),
        ):
            if weight:
                if source == "negative":
                    inputs = self.gather(source, "positive", self.negatives())
                else:
                    inputs = self.gathered[source, "positive"]
                P = P + weight * torch.tanh(inputs @ self.W_p.T)
        return P

    def visual_shift(self) -> Tensor:
        """Eq. 5: `g B`, the shift of every cache row of a class (Eq. 6); no self term."""
        R, _ = self.edges["visual", "visual"]
        return self.paths.visual_to_visual * torch.tanh(R @ (self.nodes["visual"] @ self.W_v.T))

    def adapted(self, negative_to_positive: float | None = None) -> tuple[Floats, Floats, Floats]:
        """Adapted nodes `P'` and `N'` and shift `g B`, as NumPy arrays in double precision."""
        with torch.no_grad():
            parts = self.positives(negative_to_positive), self.negatives(), self.visual_shift()
        P, N, shift = (part.cpu().double().numpy() for part in parts)
        return P, N, shift
