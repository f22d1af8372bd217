"""Losses of deep clustering: the sharpened target, Kullback-Leibler divergences and the mixture's ELBO."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from graphclust.nn.precision import in_double


def target_distribution(q: Tensor, frequencies: Tensor | None = None, exponent: float = 2.0) -> Tensor:
    """Sharpened target of DEC (Xie et al. 2016, eq. 3), which is not differentiated through.

    ``p_ij = (q_ij^a / f_j) / sum_j' (q_ij'^a / f_j')`` with the exponent a = 2.

    Parameters
    ----------
    q : Tensor [N, K]
        Soft assignments, rows sum to one.
    frequencies : Tensor [K], optional
        ``f_j = sum_i q_ij`` over *all* samples of the data set. Left out, `q` is taken to be all of them: never
        leave it out for a mini-batch. DBC (Li et al. 2018) takes ``f_j = sum_i q_ij^a``; a common factor changes
        nothing.
    exponent : float, default=2.0
        a. Above 1 the likely clusters are boosted; 1 only evens out the clusters' sizes.

    Returns
    -------
    Tensor [N, K], rows sum to one.
    """
    q = q.detach()
    if frequencies is None:
        frequencies = q.sum(dim=0)
    # Dividing by the largest entry first keeps q^a out of the denormal range when K is in the thousands.
    q = q / q.amax(dim=1, keepdim=True).clamp_min(torch.finfo(q.dtype).tiny)
    weight = q.pow(exponent) / frequencies.clamp_min(torch.finfo(q.dtype).eps)
    return weight / weight.sum(dim=1, keepdim=True)


def kl_divergence(p: Tensor, log_q: Tensor) -> Tensor:
    """Mean over samples of ``KL(P || Q) = sum_j p_ij (log p_ij - log q_ij)``.

    Parameters
    ----------
    p : Tensor [N, K]
        Target probabilities; zeros contribute nothing.
    log_q : Tensor [N, K]
        *Log*-probabilities, as they come from log_softmax: the logarithm of a softmax loses precision.
    """
    return F.kl_div(log_q, p, reduction="batchmean")


def kl_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """``KL(N(m, exp s) || N(0, 1)) = 1/2 sum_j [m_j^2 + exp(s_j) - 1 - s_j]``, one value a sample: [N]."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(dim=1)


def mixture_kl(
    mean: Tensor,
    log_variance: Tensor,
    log_responsibilities: Tensor,
    log_weights: Tensor,
    centers: Tensor,
    center_log_variances: Tensor,
) -> Tensor:
    """Divergence of the code from a Gaussian-mixture prior (VaDE, Jiang et al. 2017, eq. 10), one value a sample.

    ``1/2 sum_c g_c sum_j [log v_cj + exp(s_j) / v_cj + (m_j - mu_cj)^2 / v_cj] - sum_c g_c log(pi_c / g_c)
    - 1/2 sum_j (1 + s_j)``

    Parameters
    ----------
    mean, log_variance : Tensor [N, d]
        m and s of the code.
    log_responsibilities : Tensor [N, K]
        log g_c = log p(c | z). Logarithms, because the derivative of g log g is infinite where g underflows to 0.
    log_weights : Tensor [K]
        log pi_c.
    centers, center_log_variances : Tensor [K, d]
        mu_c and log v_c of the mixture.

    Returns
    -------
    Tensor [N]. Nothing of size N x K x d is formed: the sum over j is expanded into matrix products.
    """
    dtype = mean.dtype
    mean, log_variance, log_responsibilities, log_weights, centers, center_log_variances = in_double(
        mean, log_variance, log_responsibilities, log_weights, centers, center_log_variances
    )
    # Around the centres' mean, where the terms of the expanded square cancel least.
    origin = centers.detach().mean(dim=0)
    mean, centers = mean - origin, centers - origin
    precision = (-center_log_variances).exp()
    second_moment = (log_variance.exp() + mean.square()) @ precision.T
    quadratic = (
        second_moment - 2.0 * mean @ (precision * centers).T + (precision * centers.square()).sum(dim=1)
    )
    gaussian = 0.5 * (center_log_variances.sum(dim=1) + quadratic)
    discrete = log_responsibilities - log_weights
    prior = (log_responsibilities.exp() * (gaussian + discrete)).sum(dim=1)
    return (prior - 0.5 * (1.0 + log_variance).sum(dim=1)).to(dtype)
