"""The heterogeneous graph network (method, section 3), a torch module without scikit-learn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from skhegraph.base import Floats
from skhegraph.hegraph.graph import Edges, PathWeights, normalised_edges


class HeteroGraphNetwork(nn.Module):
    """One pass of messages over the graph: N first, then P (which sees the new N), then V.

    Parameters
    ----------
    nodes : dict of ndarray of shape (n_classes, n_features)
        Initial ``"positive"``, ``"negative"`` and ``"visual"`` node features.
    paths : PathWeights
        Path weights; a relation of weight 0 is left out.
    top_k : int or None
        Sparse edges, see :func:`skhegraph.hegraph.graph.edge_weights`.
    initial : tuple of ndarray of shape (n_features, n_features)
        Initial `W_n, W_p, W_v`, one matrix a target type.
    device : str
        torch device.
    """

    def __init__(
        self,
        nodes: dict[str, Floats],
        paths: PathWeights,
        *,
        top_k: int | None,
        initial: tuple[Floats, Floats, Floats],
        device: str,
    ) -> None:
        super().__init__()
        self.paths = paths
        self.nodes = {
            k: torch.as_tensor(x, dtype=torch.float32, device=device) for k, x in nodes.items()
        }
        self.edges = {}
        for key, (weights, self_weight) in normalised_edges(nodes, top_k).items():
            self_column = torch.as_tensor(self_weight, device=device)
            self.edges[key] = _to_torch(weights, device), self_column
        # What only depends on the initial nodes is gathered once: W acts on it linearly.
        self.gathered = {
            (source, target): self.gather(source, target, self.nodes[source])
            for source, target in self.edges
            if target != "visual"
        }
        tensors = [torch.tensor(W, dtype=torch.float32, device=device) for W in initial]
        self.W_n, self.W_p, self.W_v = (nn.Parameter(W) for W in tensors)

    def gather(self, source: str, target: str, y: Tensor) -> Tensor:
        """Input of a message (section 3): `x_i / (d_i+1) + sum_j r_ij / sqrt(..) y_j`."""
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


def _to_torch(R: Edges, device: str) -> Tensor:
    """Dense or sparse edge matrix on the device."""
    if isinstance(R, np.ndarray):
        return torch.as_tensor(R, dtype=torch.float32, device=device)
    coo = R.tocoo()
    index = torch.as_tensor(np.stack([coo.row, coo.col]), dtype=torch.long)
    values = torch.as_tensor(coo.data, dtype=torch.float32)
    sparse = torch.sparse_coo_tensor(
        index, values, coo.shape, device=device, check_invariants=False
    )
    return sparse.coalesce()
