"""A head that knows a tree: every cluster is the region of its leaves."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from graphclust.nn.heads import check_n_clusters
from graphclust.nn.precision import in_double

#: Distances that are held at once: 128 MiB of them.
_DISTANCES = 1 << 24


class LeafAssignment(nn.Module):
    r"""Clusters that are sets of leaves, each leaf a centre in the latent space.

    A code is as far from a cluster as from the nearest of its leaves,
    :math:`q_{ij} \propto (1 + \min_{l \in j} |z_i - m_l|^2)^{-1}`: the Student-t assignment of DEC, with the cluster's
    nearest centre for its only one. So the likeliest cluster is always that of the nearest leaf, and clusters may have
    any shape.

    Parameters
    ----------
    n_clusters : int
        K.
    latent_dim : int
        Width d of the code.
    max_leaves : int
        Room for this many leaves.

    Attributes
    ----------
    centers : Tensor [max_leaves, d]
    clusters : Tensor [max_leaves], int64
        Cluster of each leaf, -1 for a leaf that is not there.
    """

    centers: Tensor
    clusters: Tensor

    def __init__(self, n_clusters: int, latent_dim: int, max_leaves: int) -> None:
        super().__init__()
        self.n_clusters = check_n_clusters(n_clusters)
        self.register_buffer("centers", torch.zeros(max_leaves, latent_dim))
        self.register_buffer("clusters", torch.full((max_leaves,), -1))
        self.clusters[0] = 0

    @torch.no_grad()
    def set_leaves(self, centers: Tensor, clusters: Tensor) -> None:
        """Take over P leaves: centres [P, d] and the cluster of each [P]; P is at most `max_leaves`."""
        if len(centers) > len(self.centers):
            raise ValueError(
                f"there are {len(centers)} leaves and room for {len(self.centers)}: make the head with more"
            )
        self.centers.zero_()
        self.clusters.fill_(-1)
        self.centers[: len(centers)] = centers.to(self.centers)
        self.clusters[: len(centers)] = clusters.to(self.clusters)

    def _squared(self, z: Tensor) -> Iterator[Tensor]:
        """Squared distances, blocks of [b, max_leaves] in float64 where there is one; infinite to missing leaves."""
        z, centers = in_double(z, self.centers)
        for block in z.split(max(1, _DISTANCES // len(centers))):
            yield torch.cdist(block, centers).square().masked_fill(self.clusters < 0, torch.inf)

    def nearest(self, z: Tensor) -> Tensor:
        """Nearest leaf of each code, [N, d] -> [N]."""
        return torch.cat([squared.argmin(dim=1) for squared in self._squared(z)])

    def forward(self, z: Tensor) -> Tensor:
        """Codes [N, d] -> log-probabilities [N, K]; -inf for a cluster without leaves."""
        return torch.cat([self._log_probabilities(squared).to(z.dtype) for squared in self._squared(z)])

    def _log_probabilities(self, squared: Tensor) -> Tensor:
        nearest = squared.new_full((len(squared), self.n_clusters), torch.inf)
        index = self.clusters.clamp_min(0).expand_as(squared)
        nearest = nearest.scatter_reduce(1, index, squared, "amin")
        return (-torch.log1p(nearest)).log_softmax(dim=1)
