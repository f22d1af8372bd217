"""DBC: a fully convolutional auto-encoder, and clusters that boost what they are sure of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphclust._checks import check_number
from graphclust.methods.convolutional import ConvClusterer
from graphclust.methods.held import HeldTarget
from graphclust.nn.losses import kl_divergence, target_distribution
from graphclust.training.batches import Batch
from graphclust.training.stage import Step


@dataclass(eq=False, repr=False, kw_only=True)
class DBC(HeldTarget, ConvClusterer):
    r"""Discriminatively boosted clustering (Li, Qiao & Zhang 2018).

    A fully convolutional auto-encoder is trained end to end, k-means on its codes gives centres, then encoder and
    centres minimise

    .. math::
        KL(R \| S), \quad s_{ij} \propto (1 + |z_i - \mu_j|^2)^{-1}, \quad r_{ij} \propto s_{ij}^\alpha / \sum_i
        s_{ij}^\alpha,

    with R held for a period. Samples that are near one centre alone lead; those between centres have an even target
    and wait.
    """

    alpha: float = 2.0

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self.alpha, "alpha", 1.0)

    def _loss(self, model: Any, batch: Batch) -> Step:
        x = model.scale(batch.x)
        log_held = self._held(model, x, batch)
        boosted = (self.alpha * log_held).exp()
        # Their sum is not b, as that of assignments is; frequencies count up to a common factor alone.
        share = boosted * (batch.size / boosted.sum())
        frequencies = model.frequencies.update(share, batch.n_samples)
        target = target_distribution(log_held.exp(), frequencies, self.alpha)
        log_s = model.head(model.autoencoder.encode(x).mean)
        return Step({"kl": kl_divergence(target, log_s)}, log_held)
