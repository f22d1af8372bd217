"""Assignment heads: from a latent code to the probabilities of K clusters."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphclust._processes import total
from graphclust.nn.precision import in_double, in_single


def check_n_clusters(n_clusters: int) -> int:
    """Return `n_clusters` as an int of at least 1, or raise ValueError."""
    if int(n_clusters) != n_clusters or n_clusters < 1:
        raise ValueError(f"n_clusters is {n_clusters!r}, it must be an integer of at least 1")
    return int(n_clusters)


def student_t_log_assignment(z: Tensor, centers: Tensor, degrees_of_freedom: float = 1.0) -> Tensor:
    """Logarithm of the Student-t soft assignment (van der Maaten 2009; DEC, eq. 1).

    ``q_ij = (1 + |z_i - mu_j|^2 / v)^(-(v + 1) / 2)``, normalised over j.

    Parameters
    ----------
    z : Tensor [N, d]
        Codes.
    centers : Tensor [K, d]
        Cluster centres mu.
    degrees_of_freedom : float, default=1.0
        v > 0.

    Returns
    -------
    Tensor [N, K] of log-probabilities.
    """
    # |z|^2 - 2 z mu + |mu|^2 around the centres' mean: no N x K x d, and no cancellation far from the origin.
    dtype = z.dtype
    z, centers = in_double(z, centers)
    origin = centers.detach().mean(dim=0)
    z, centers = z - origin, centers - origin
    squared = z.square().sum(dim=1, keepdim=True) - 2.0 * z @ centers.T + centers.square().sum(dim=1)
    log_kernel = -0.5 * (degrees_of_freedom + 1.0) * torch.log1p(squared.clamp_min(0.0) / degrees_of_freedom)
    return log_kernel.log_softmax(dim=1).to(dtype)


class StudentTAssignment(nn.Module):
    """Trainable centres with Student-t soft assignments, the head of DEC, IDEC and SDCN.

    Parameters
    ----------
    n_clusters : int
        K.
    latent_dim : int
        Width d of the code.
    degrees_of_freedom : float, default=1.0
        v of the Student-t kernel.
    """

    def __init__(self, n_clusters: int, latent_dim: int, degrees_of_freedom: float = 1.0) -> None:
        super().__init__()
        if not degrees_of_freedom > 0:
            raise ValueError(f"degrees_of_freedom is {degrees_of_freedom}, it must be greater than 0")
        self.degrees_of_freedom = degrees_of_freedom
        self.centers = nn.Parameter(torch.empty(check_n_clusters(n_clusters), latent_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random centres; a method replaces them by those of k-means."""
        nn.init.xavier_normal_(self.centers)

    def forward(self, z: Tensor) -> Tensor:
        """Codes [N, d] -> log-probabilities [N, K]."""
        return student_t_log_assignment(z, self.centers, self.degrees_of_freedom)


class RunningCenters(nn.Module):
    """Centres that are not trained but are running means of the codes assigned to them, the head of DCN.

    Assignments are nearest centres; ``log_softmax(-|z - mu|^2)`` stands for their probabilities.

    Parameters
    ----------
    n_clusters : int
        K.
    latent_dim : int
        Width d of the code.
    count : float, default=100.0
        How many codes a centre counts for at the start (100 in the code of Yang et al. 2017): more is slower.
    """

    centers: Tensor
    counts: Tensor

    def __init__(self, n_clusters: int, latent_dim: int, count: float = 100.0) -> None:
        super().__init__()
        k = check_n_clusters(n_clusters)
        self.register_buffer("centers", torch.zeros(k, latent_dim))
        self.register_buffer("counts", torch.full((k,), float(count)))

    def forward(self, z: Tensor) -> Tensor:
        """Codes [N, d] -> log-probabilities [N, K]."""
        z64, centers = in_double(z, self.centers)
        return (-torch.cdist(z64, centers).square()).log_softmax(dim=1).to(z.dtype)

    @torch.no_grad()
    def update(self, z: Tensor, labels: Tensor) -> None:
        """Take the codes z [b, d] into the means of their clusters: ``mu <- (c mu + sum z) / (c + n)``."""
        member = F.one_hot(labels, self.counts.shape[0]).to(self.centers.dtype)
        added = self.counts + total(member.sum(dim=0))
        with in_single(z):
            own = member.T @ z.detach().to(self.centers.dtype)
        sums = self.counts[:, None] * self.centers + total(own)
        self.centers.copy_(sums / added[:, None])
        self.counts.copy_(added)


class GaussianMixture(nn.Module):
    """Trainable mixture of K diagonal Gaussians, the prior of VaDE.

    Parameters
    ----------
    n_clusters : int
        K.
    latent_dim : int
        Width d of the code.

    Attributes
    ----------
    logits : Parameter [K]
        The weights are their softmax.
    centers, log_variances : Parameter [K, d]
    """

    def __init__(self, n_clusters: int, latent_dim: int) -> None:
        super().__init__()
        k = check_n_clusters(n_clusters)
        self.logits = nn.Parameter(torch.empty(k))
        self.centers = nn.Parameter(torch.empty(k, latent_dim))
        self.log_variances = nn.Parameter(torch.empty(k, latent_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Equal weights, unit variances, random centres."""
        nn.init.zeros_(self.logits)
        nn.init.normal_(self.centers)
        nn.init.zeros_(self.log_variances)

    @torch.no_grad()
    def set_parameters(self, weights: Tensor, centers: Tensor, variances: Tensor) -> None:
        """Take over a fitted mixture: weights [K], centres [K, d], variances [K, d] (all positive)."""
        self.logits.copy_(weights.clamp_min(1e-12).log())
        self.centers.copy_(centers)
        self.log_variances.copy_(variances.clamp_min(1e-12).log())

    @property
    def log_weights(self) -> Tensor:
        """log pi [K]."""
        return self.logits.log_softmax(dim=0)

    def log_joint(self, z: Tensor) -> Tensor:
        """``log pi_c + log N(z; mu_c, v_c)``, [N, d] -> [N, K], in float64 (where the device has it)."""
        z, centers, log_variances, log_weights = in_double(
            z, self.centers, self.log_variances, self.log_weights
        )
        precision = (-log_variances).exp()
        origin = centers.detach().mean(dim=0)
        z, centers = z - origin, centers - origin
        quadratic = (
            z.square() @ precision.T
            - 2.0 * z @ (precision * centers).T
            + (precision * centers.square()).sum(dim=1)
        )
        log_norm = log_variances.sum(dim=1) + z.shape[1] * math.log(2.0 * math.pi)
        return log_weights - 0.5 * (log_norm + quadratic)

    def forward(self, z: Tensor) -> Tensor:
        """Log-responsibilities ``log p(c | z)``, [N, d] -> [N, K]; stable, because it never leaves log space."""
        return self.log_joint(z).log_softmax(dim=1).to(z.dtype)

    def sample(
        self, n_samples: int, cluster: int | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw c from pi (or take `cluster`), then z from its Gaussian.

        Returns
        -------
        codes : Tensor [n_samples, d]
        clusters : Tensor [n_samples]
        """
        k, device = self.centers.shape[0], self.centers.device
        if cluster is None:
            c = torch.multinomial(self.log_weights.exp(), n_samples, replacement=True, generator=generator)
        elif 0 <= cluster < k:
            c = torch.full((n_samples,), cluster, device=device)
        else:
            raise ValueError(f"cluster is {cluster}, it must lie between 0 and {k - 1}")
        noise = torch.randn(n_samples, self.centers.shape[1], generator=generator, device=device)
        return self.centers[c] + (0.5 * self.log_variances[c]).exp() * noise, c


class ClusterFrequencies(nn.Module):
    """Cluster frequencies ``f_j = sum_i q_ij`` over *all* N samples, kept up to date from batches.

    A batch of b samples replaces the share b/N of the sum: ``f <- (N - b) f / sum(f) + sum_{i in batch} q_ij``. With a
    full batch this is the exact sum; with mini-batches a running estimate of it that always adds up to N, whatever
    it started from (equal frequencies, unless `set` gives others). Nothing of size N x K is stored: a target
    follows from q_i and these K numbers.

    Parameters
    ----------
    n_clusters : int
        K.
    """

    frequencies: Tensor

    def __init__(self, n_clusters: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.ones(check_n_clusters(n_clusters)))

    @torch.no_grad()
    def update(self, q: Tensor, n_samples: int) -> Tensor:
        """Take in the batch's assignments q [b, K] of a data set of `n_samples`; returns the new f [K]."""
        own = q.detach().float().sum(dim=0)
        size, batch = total(torch.cat([own.new_tensor([len(q)]), own])).split([1, len(own)])
        kept = (n_samples - size).clamp_min(0)
        self.frequencies.mul_(kept / self.frequencies.sum()).add_(batch)
        return self.frequencies

    @torch.no_grad()
    def set(self, frequencies: Tensor) -> None:
        """Start from known frequencies, such as those of one pass over all samples."""
        self.frequencies.copy_(frequencies)
