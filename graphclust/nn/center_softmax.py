"""Probabilities of clusters from distances to their centres, as sharp as the neighbours' clusters say they may be."""

from __future__ import annotations

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from graphclust.nn.heads import check_n_clusters

#: Edges that tell the temperature.
_EDGES = 200_000
#: Most squared distances between ends of edges and centres.
_SQUARES = 20_000_000


class CenterSoftmax(nn.Module):
    r"""Centres with :math:`p_{ik} = \mathrm{softmax}_k(-|z_i - \mu_k|^2 / T)`.

    T is fitted without labels: of all temperatures it gives the clusters of the samples' neighbours the largest
    likelihood, :math:`\max_T \sum_{(i, j) \in E} \log p_{i c_j}(T)`. Where neighbours often lie in other clusters, no
    sample is certain. It is temperature scaling (Guo, Pleiss, Sun & Weinberger 2017) with neighbours in the place of
    labelled samples.

    Parameters
    ----------
    n_clusters : int
        K.
    latent_dim : int
        Width d of the code.
    """

    centers: Tensor
    temperature: Tensor

    def __init__(self, n_clusters: int, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("centers", torch.zeros(check_n_clusters(n_clusters), latent_dim))
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, z: Tensor) -> Tensor:
        """Codes [N, d] -> log-probabilities [N, K]."""
        return (-torch.cdist(z, self.centers).square() / self.temperature).log_softmax(dim=1)

    def squares(self, codes: Tensor) -> Tensor:
        """Squared distances [N, K] of codes [N, d], which may lie on another device than the centres, on the CPU."""
        device = self.centers.device
        return torch.cat([torch.cdist(z.to(device), self.centers).square().cpu() for z in codes.split(65536)])

    @torch.no_grad()
    def fit_temperature(self, codes: Tensor, edge_index: Tensor, generator: torch.Generator) -> None:
        """Find T by the clusters of the codes [N, d] and their neighbours [2, E]; without edges it stays.

        At most 200,000 edges, drawn at random, are read (of more than 100 clusters fewer), and of more than twice as
        many codes those at their ends.
        """
        between = edge_index[:, edge_index[0] != edge_index[1]]
        if between.shape[1] == 0:
            return
        few = max(1000, min(_EDGES, _SQUARES // self.centers.shape[0]))
        if between.shape[1] > few:
            between = between[:, torch.randint(between.shape[1], (few,), generator=generator)]
        between = between.cpu()
        if len(codes) > 2 * few:
            rows, between = between.unique(return_inverse=True)
            codes = codes[rows]
        squares = self.squares(codes)
        targets = squares.argmin(dim=1)[between[1]]
        squares = squares[between[0]].double()
        scale = float(squares.mean())
        if scale <= 0:
            return

        def loss(log_temperature: float) -> float:
            return float(nll_loss((-squares / math.exp(log_temperature)).log_softmax(dim=1), targets))

        middle = math.log(scale)
        found = minimize_scalar(loss, bounds=(middle - 12.0, middle + 3.0), method="bounded")
        self.temperature.fill_(math.exp(float(found.x)))
