"""Learning by contrast with corrupted samples: the adversarial shuffle, and what tells true from false."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus


def shuffle_samples(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The adversarial shuffle (Velickovic et al. 2019): the rows of x in random order.

    With the edges left as they are, every node gets the features of another one: a false graph with the true
    structure and the true distribution of features.

    Parameters
    ----------
    x : Tensor [n, d]
    generator : torch.Generator, optional
        Torch's own when left out, which the training loop seeds.

    Returns
    -------
    Tensor [n, d]
    """
    return x[torch.randperm(x.shape[0], generator=generator).to(x.device)]


def discrimination_loss(true_logits: Tensor, false_logits: Tensor) -> Tensor:
    r"""Binary cross-entropy of a discriminator, :math:`-\frac12 [E \log D(h) + E \log (1 - D(\tilde h))]`.

    Its negative, plus log 2, bounds the Jensen-Shannon mutual information from below.

    Parameters
    ----------
    true_logits, false_logits : Tensor [n]
        Logits of D for true and for corrupted samples.
    """
    # -log sigmoid(a) = softplus(-a), which does not overflow.
    return 0.5 * (softplus(-true_logits).mean() + softplus(false_logits).mean())


class SummaryDiscriminator(nn.Module):
    r"""Mutual information between nodes and a summary of the graph: deep graph infomax (Velickovic et al. 2019).

    .. math:: D(h_i, s) = \sigma(h_i^T W s), \quad s = \sigma\Big(\frac1n \sum_i h_i\Big)

    Parameters
    ----------
    width : int
        Of the codes h.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ±1 / sqrt(width), as the bilinear layer of the authors' begins."""
        bound = 1.0 / math.sqrt(self.weight.shape[0])
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, true: Tensor, false: Tensor) -> Tensor:
        """Loss of true codes [n, width] against codes of corrupted samples [n', width]; s is that of the true ones."""
        summary = self.weight @ true.mean(dim=0).sigmoid()
        return discrimination_loss(true @ summary, false @ summary)


class NodeDiscriminator(nn.Module):
    r"""Tells nodes from corrupted ones without a summary (Dink-Net, Liu et al. 2023; GGD, Zheng et al. 2022).

    .. math:: D(h_i) = \sigma\Big(\sum_j (W h_i + b)_j\Big)

    Parameters
    ----------
    width : int
        Of the codes h.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projector = nn.Linear(width, width)

    def forward(self, true: Tensor, false: Tensor) -> Tensor:
        """Loss of true codes [n, width] against codes of corrupted samples [n', width]."""
        # The sum over j is taken first: W stays a matrix to be trained, its product with all codes is saved.
        weight, bias = self.projector.weight.sum(dim=0), self.projector.bias.sum()
        return discrimination_loss(true @ weight + bias, false @ weight + bias)


def dilation_loss(centers: Tensor) -> Tensor:
    r"""Dink-Net's cluster dilation, :math:`-\frac{1}{K (K - 1)} \sum_{j \ne k} |\mu_j - \mu_k|^2` of centres [K, d].

    0 for a single centre.
    """
    k = centers.shape[0]
    # Over all pairs, |mu_j - mu_k|^2 adds up to 2 K sum_j |mu_j - mean|^2.
    spread = (centers - centers.mean(dim=0)).square().sum()
    return -2.0 * spread / max(k - 1, 1)


def shrink_loss(codes: Tensor, centers: Tensor) -> Tensor:
    r"""Dink-Net's cluster shrink, :math:`\frac{1}{n K} \sum_i \sum_k |z_i - \mu_k|^2` of codes [n, d], centres [K, d].

    Every code is drawn to *all* centres, that is towards their mean; `dilation_loss` holds the centres apart.
    """
    mean = centers.mean(dim=0)
    return (codes - mean).square().sum(dim=1).mean() + (centers - mean).square().sum(dim=1).mean()
