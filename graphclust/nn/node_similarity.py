"""Learning by the similarity of codes: the same node in two views and neighbours alike, all others not too alike."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import dropout

from graphclust.nn.adjacency import Adjacency

#: Columns of the table of similarities that a step looks at: a mean over more pairs tells no more of them.
_COMPARED = 1024


def node_similarity_loss(
    first: Tensor, second: Tensor, adjacency: Adjacency, size: int, *, threshold: float, temperature: float
) -> dict[str, Tensor]:
    r"""Terms of NS4GC (Liu et al. 2024), of codes of length 1 in two views of a graph, :math:`S = Z^{(1)} Z^{(2)T}`.

    .. math::
        L_{ali} = -\operatorname{mean}_i S_{ii}, \quad L_{nei} = -\operatorname{mean}_{(i, j) \in E} S_{ij}, \quad
        L_{spa} = \operatorname{mean}_{i, j} \sigma\big((S_{ij} - s) / \tau\big)

    Below the threshold s a similarity costs next to nothing: nodes of one cluster may be alike without being joined.
    The last mean is over all pairs, the few that are joined among them; beyond 1,024 samples the j are a random draw of
    so many, so that nothing of size N x N is formed.

    Parameters
    ----------
    first, second : Tensor [n, d]
        Codes of the rows of a batch, whose own `size` samples come first.
    adjacency : Adjacency
        Edges among these rows; those that lead to the batch's own samples are read, by their weights.
    size : int
    threshold, temperature : float
        s, in [-1, 1], and tau, above 0.

    Returns
    -------
    dict
        "alignment", "neighbors" (0 without edges) and "sparsity".
    """
    own, other = first[:size], second[:size]
    # The sum over a node's neighbours is taken first, as a sparse product: nothing of size E x d is formed.
    near = adjacency.leading(size)
    weight = near.edge_weight
    neighbors = near.matmul(weight, second[: near.num_nodes])
    compared = other[torch.randperm(size, device=other.device)[:_COMPARED]]
    return {
        "alignment": -(own * other).sum(dim=1).mean(),
        "neighbors": -(first[: near.num_nodes] * neighbors).sum() / weight.sum().clamp_min(1e-12),
        "sparsity": torch.sigmoid((own @ compared.T - threshold) / temperature).mean(),
    }


def changed_view(
    n_features: int, adjacency: Adjacency, *, edge_dropout: float, feature_dropout: float
) -> tuple[Tensor, Adjacency]:
    """What a changed view of a batch leaves out: columns of its features, and edges, each with its probability.

    Returns
    -------
    columns : Tensor [n_features]
        1 for each column that stays, else 0.
    adjacency : Adjacency
        See `Adjacency.thinned`.
    """
    thinned = adjacency.thinned(edge_dropout)
    columns = dropout(adjacency.self_weight.new_ones(n_features), feature_dropout) * (1 - feature_dropout)
    return columns, thinned
