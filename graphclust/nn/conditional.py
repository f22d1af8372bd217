"""A decoder that is told the cluster, and the prior of codes whose cluster is known."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConditionalDecoder(nn.Module):
    """``decoder([z, e_c])`` with the one-hot vector e_c of the cluster; zeros where none is known.

    Parameters
    ----------
    decoder : Module
        From codes of width latent_dim + `n_clusters`.
    n_clusters : int
        K.
    """

    decoder: Any

    def __init__(self, decoder: nn.Module, n_clusters: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.n_clusters = n_clusters

    def forward(self, z: Tensor, clusters: Tensor | None = None) -> Tensor:
        """Codes [N, latent_dim] and the cluster of each [N] -> raw output [N, d]."""
        if clusters is None:
            known = z.new_zeros(len(z), self.n_clusters)
        else:
            known = F.one_hot(clusters, self.n_clusters).to(z.dtype)
        return self.decoder(torch.cat([z, known], dim=1))


def kl_gaussian(mean: Tensor, log_variance: Tensor, center: Tensor, center_log_variance: Tensor) -> Tensor:
    """``KL(N(m, exp s) || N(mu, exp t)) = 1/2 sum_j [t_j - s_j - 1 + (exp s_j + (m_j - mu_j)^2) / exp t_j]``.

    All are [N, d]; one value a sample, [N].
    """
    ratio = (log_variance.exp() + (mean - center).square()) * (-center_log_variance).exp()
    return 0.5 * (center_log_variance - log_variance - 1.0 + ratio).sum(dim=1)
