"""Proximity over several hops, and attention that reads it (DAEGC)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix, diags
from torch import Tensor
from torch_geometric.utils import softmax

from graphclust.nn.adjacency import Adjacency, propagation_weights
from graphclust.nn.convolutions import GATConv
from graphclust.nn.sparse_features import constant_linear

#: Entries of M that are held at most: 24 bytes each.
MOST_ENTRIES = 1 << 30


def proximity(
    edge_index: Tensor, edge_weight: Tensor, n_samples: int, hops: int, normalization: str = "row"
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Proximity matrix :math:`M = (B + B^2 + \dots + B^t) / t` of DAEGC (Wang et al. 2019), kept sparse.

    :math:`B = \tilde D^{-1} \tilde A` is the transition matrix of a random walk with self loops, so row i of M says
    where walks of one to t steps against the edges from i end; rows sum to one.

    Parameters
    ----------
    edge_index : Tensor [2, E]
        Edges j -> i without self loops.
    edge_weight : Tensor [E]
    n_samples : int
        N.
    hops : int
        t, from 1. The entries of M are the samples within t hops of each other, which for hubs are many.
    normalization : {"row", "symmetric"}, default="row"
        "symmetric" takes the propagation matrix of graph convolutions for B.

    Returns
    -------
    edge_index : Tensor [2, E']
        The entries j -> i off the diagonal, by target, then by source.
    weight : Tensor [E']
        M_ij.
    diagonal : Tensor [N]

    Raises
    ------
    ValueError
        If M could have more than 2^30 entries.
    """
    edges, loops = propagation_weights(edge_index, edge_weight, n_samples, normalization)
    source, target = edge_index.cpu().numpy()
    step = csr_matrix((edges.cpu().numpy(), (target, source)), (n_samples, n_samples))
    step = (step + diags(loops.cpu().numpy())).tocsr()
    power, total = step, step
    for hop in range(2, hops + 1):
        # A product's entries are at most the paths: for each entry k of a row, the entries of row k.
        entries = int(np.diff(step.indptr)[power.indices].sum(dtype=np.int64))
        if entries > MOST_ENTRIES:
            raise ValueError(
                f"the proximity matrix of hops={hop} may hold {entries:,} entries, {24 * entries / 2**30:,.0f} GiB: "
                f"take hops={hop - 1}"
            )
        power = (power @ step).tocsr()
        total = total + power
    total = (total / np.float32(hops)).tocsr()
    total.sort_indices()
    total = total.tocoo()
    off = total.row != total.col
    index = torch.from_numpy(np.stack([total.col[off], total.row[off]]).astype(np.int64))
    weight = torch.from_numpy(total.data[off].astype(np.float32))
    diagonal = torch.from_numpy(total.diagonal().astype(np.float32))
    return index.to(edge_index.device), weight.to(edge_index.device), diagonal.to(edge_index.device)


class ProximityAttention(GATConv):
    r"""Attention in which a neighbour counts by its proximity.

    .. math::
        z_i = \sum_j \alpha_{ij} W x_j, \quad \alpha_{ij} \propto M_{ij}
        \exp(\mathrm{leaky\_relu}(a_s^T W x_j + a_t^T W x_i)),

    with M in the adjacency's propagation weights. DAEGC multiplies the score by M_ij instead of its exponential. Here
    scores of zero give the random walk's average M X, and where neighbours are sampled, so that M_ij carries the
    inverse of the share sampled, numerator and normaliser remain unbiased.
    """

    def forward(self, x: Tensor, adjacency: Adjacency, *, constant: bool = False) -> Tensor:
        """[N, in_channels] -> [N, out_channels]."""
        looped = adjacency.looped()
        source, target = looped.edge_index
        with torch.autocast(x.device.type, enabled=False):
            weight = self.lin.weight.float()
            h = constant_linear(x, weight, adjacency) if constant else F.linear(x.float(), weight)
            sent = h @ self.att_src.view(-1)
            received = h @ self.att_dst.view(-1)
            score = F.leaky_relu(sent[source] + received[target], self.negative_slope)
            score = score + looped.propagation_weight.clamp_min(1e-30).log()
            attention = softmax(score, target, num_nodes=looped.num_nodes)
        out = looped.matmul(attention, h)
        return out if self.bias is None else out + self.bias
