"""Modularity of soft assignments on sparse edges, and the penalty that keeps them from collapsing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from graphclust._processes import total
from graphclust.nn.adjacency import Adjacency
from graphclust.nn.heads import check_n_clusters
from graphclust.nn.precision import in_single


def soft_modularity(assignments: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
    r"""Spectral modularity of a soft assignment (Newman 2006; Tsitsulin et al. 2023), from the edges alone.

    .. math::
        \frac{1}{2m} \mathrm{Tr}(C^T B C), \quad B = A - \frac{d d^T}{2m}, \quad
        \mathrm{Tr}(C^T B C) = \sum_{(j,i) \in E} a_{ij} \langle c_i, c_j \rangle - \frac{|C^T d|^2}{2m}

    with the degrees d and their sum 2m. For hard assignments it is Newman's modularity. Edges that have no twin in the
    other direction count half in each, as ``(A + A^T) / 2`` has them.

    Parameters
    ----------
    assignments : Tensor [N, K]
        C; rows sum to one.
    edge_index : Tensor [2, E]
        Both directions of each edge, row 0 sources j, row 1 targets i.
    edge_weight : Tensor [E]
        At least 0; their sum is 2m.

    Returns
    -------
    Tensor, a scalar in [-1, 1]; 0 without edges. Nothing larger than N x K or E x K is formed.
    """
    source, target = edge_index
    total = edge_weight.sum().clamp_min(torch.finfo(edge_weight.dtype).tiny)
    within = (edge_weight * (assignments[source] * assignments[target]).sum(dim=1)).sum()
    expected = (node_degrees(edge_index, edge_weight, len(assignments)) @ assignments).square().sum()
    return (within - expected / total) / total


def collapse_penalty(frequencies: Tensor, n_samples: int) -> Tensor:
    r"""Penalty on unequal clusters of DMoN, :math:`\frac{\sqrt K}{N} \big|\sum_i c_i\big| - 1`.

    Parameters
    ----------
    frequencies : Tensor [K]
        ``sum_i c_i`` over all samples.
    n_samples : int
        N.

    Returns
    -------
    Tensor, a scalar: 0 for clusters of equal size, ``sqrt(K) - 1`` where one cluster holds everything.
    """
    return math.sqrt(frequencies.shape[0]) / n_samples * frequencies.norm() - 1.0


def node_degrees(edge_index: Tensor, edge_weight: Tensor, num_nodes: int) -> Tensor:
    """Mean of the weighted in-degree and out-degree of each node, [N]: for an undirected graph its degree."""
    degrees = edge_weight.new_zeros(num_nodes)
    for end in edge_index:
        degrees.index_add_(0, end, edge_weight)
    return 0.5 * degrees


class BatchModularity(nn.Module):
    """Both terms of DMoN for batches of any size, by running sums over *all* N samples.

    The expected edges and the collapse penalty are norms of sums over the whole graph, ``sum_i d_i c_i`` and
    ``sum_i c_i``. K numbers of each are kept: a batch of b samples replaces the share b/N of them, as in
    `ClusterFrequencies`. Values are taken at these sums, gradients through the batch's own part times N/b, so that
    their mean over the batches is the gradient of the whole graph. With a full batch both are exact.

    Parameters
    ----------
    n_clusters : int
        K.
    """

    frequencies: Tensor
    degree_sums: Tensor
    degrees: Tensor

    def __init__(self, n_clusters: int) -> None:
        super().__init__()
        k = check_n_clusters(n_clusters)
        self.register_buffer("frequencies", torch.zeros(k))
        self.register_buffer("degree_sums", torch.zeros(k))
        # Of the training graph, which a trained network is not saved with.
        self.register_buffer("degrees", torch.empty(0), persistent=False)
        self.total_weight = 0.0

    def set_graph(self, edge_index: Tensor, edge_weight: Tensor, num_nodes: int) -> None:
        """Read degrees [N] and the sum 2m of all edge weights off the whole graph that batches will be of."""
        self.degrees = node_degrees(edge_index, edge_weight, num_nodes).to(self.frequencies.device)
        self.total_weight = float(edge_weight.sum(dtype=torch.float64))

    def forward(self, assignments: Tensor, adjacency: Adjacency, index: Tensor) -> tuple[Tensor, Tensor]:
        """Modularity and collapse penalty, two scalars.

        Parameters
        ----------
        assignments : Tensor [n, K]
            Of the batch's own b samples, then of the neighbours sampled for them.
        adjacency : Adjacency
            Edges among the n; those into the first b must stand for all edges into them (rescaled where sampled).
        index : Tensor [b]
            Numbers of the batch's own samples in the whole graph.
        """
        n_samples, size = self.degrees.shape[0], index.shape[0]
        edges = max(self.total_weight, torch.finfo(torch.float32).tiny)
        degrees = self.degrees[index.to(self.degrees.device)]
        scale = n_samples / size
        c = assignments.float()
        own = c[:size]
        within = scale * (adjacency.matmul(adjacency.edge_weight, c)[:size] * own).sum() / edges
        with in_single(own):
            volumes = degrees @ own
        expected = self._running(self.degree_sums, volumes, scale) / edges
        count = self._running(self.frequencies, own.sum(dim=0), scale)
        return within - expected.square().sum(), collapse_penalty(count, n_samples)

    def _running(self, kept: Tensor, batch: Tensor, scale: float) -> Tensor:
        """The running sum with the batch's part in it, whose gradient is that of ``scale * batch``."""
        with torch.no_grad():
            # Of several processes, the batch's parts together.
            share, whole = total(torch.cat([batch.new_tensor([1.0 / scale]), batch])).split([1, len(batch)])
            # Before the first batch nothing is known: that batch stands for all.
            kept.copy_(torch.where(kept.any(), kept, whole / share))
            kept.mul_(1.0 - share).add_(whole)
        scaled = scale * batch
        # A clone: the buffer itself changes with the next batch, maybe before this one's gradients are taken.
        return kept.clone() + (scaled - scaled.detach())
