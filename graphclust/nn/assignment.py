"""A trainable linear assignment to clusters."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import dropout

from graphclust.nn.heads import check_n_clusters


class LinearAssignment(nn.Module):
    """``log softmax(W z + b)``, the head of methods that train the assignments themselves (DMoN).

    Parameters
    ----------
    n_clusters : int
        K.
    latent_dim : int
        Width of the code z.
    dropout : float, default=0.0
        Share of the code's entries set to zero in training, in [0, 1).
    """

    def __init__(self, n_clusters: int, latent_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(latent_dim, check_n_clusters(n_clusters))
        self.dropout = dropout
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Orthogonal weights, as Tsitsulin et al. (2023) begin: no two clusters start alike."""
        nn.init.orthogonal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, z: Tensor) -> Tensor:
        """Codes [n, latent_dim] -> log-probabilities [n, K]."""
        return self.linear(dropout(z, self.dropout, self.training)).float().log_softmax(dim=1)
