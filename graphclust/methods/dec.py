"""DEC and IDEC: an auto-encoder's codes and k-means centres that sharpen each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphclust._checks import check_number
from graphclust.methods.deep_autoencoder import sharpened
from graphclust.methods.held import HeldTarget
from graphclust.nn.losses import kl_divergence
from graphclust.training.batches import Batch
from graphclust.training.stage import Step


@dataclass(eq=False, repr=False, kw_only=True)
class DEC(HeldTarget):
    r"""Deep embedded clustering (Xie, Girshick & Farhadi 2016).

    An auto-encoder is pretrained, k-means on its codes gives centres, then encoder and centres minimise

    .. math::
        KL(P \| Q), \quad q_{ij} \propto (1 + |z_i - \mu_j|^2)^{-1}, \quad p_{ij} \propto q_{ij}^2 / \sum_i q_{ij},

    with P held for a period, until fewer than `tolerance` of the labels change from one period to the next. (A target
    that follows every step can run away: with one of five seeds five of the ten clusters of Fashion-MNIST's test images
    were lost.) The paper reports 84.3 on MNIST; SDCN's authors report
    73.3 / NMI 70.6 / ARI 63.7 for it on USPS.

    Departures: a period is an epoch, where the authors count 140 steps; the frequencies of P are running sums over all
    samples; the auto-encoder is pretrained in one piece instead of greedily with dropout; Adam instead of SGD;
    Bernoulli likelihood for data in [0, 1]; d-256-256-512-10 instead of d-500-500-2000-10.
    """

    def _loss(self, model: Any, batch: Batch) -> Step:
        x = model.scale(batch.x)
        log_held = self._held(model, x, batch)
        log_q = model.head(model.autoencoder.encode(x).mean)
        return Step({"kl": kl_divergence(sharpened(model, log_held, batch), log_q)}, log_held)


@dataclass(eq=False, repr=False, kw_only=True)
class IDEC(HeldTarget):
    r"""Improved deep embedded clustering (Guo, Gao, Liu & Yin 2017): DEC with the reconstruction kept on.

    .. math:: \frac1d L_{rec}(x, \hat x) + \gamma\, KL(P \| Q), \quad \gamma = 0.1

    The decoder keeps the codes from being torn apart where the target is wrong. The paper reports 88.1 on MNIST and
    76.1 / NMI 78.5 on USPS; SDCN's authors 76.2 / 75.6 / ARI 67.9.

    Departures: those of `DEC`. The reconstruction is a mean over the d features, as in the authors' code (the paper
    writes a sum), because gamma = 0.1 belongs to that.

    Parameters
    ----------
    gamma : float
        Weight of KL(P || Q).
    """

    gamma: float = 0.1

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self.gamma, "gamma", 0.0)

    def _loss(self, model: Any, batch: Batch) -> Step:
        x = model.scale(batch.x)
        z = model.autoencoder.encode(x).mean
        log_held = self._held(model, x, batch)
        kl = kl_divergence(sharpened(model, log_held, batch), model.head(z))
        error = self._error_per_feature(model, z, x)
        return Step({"reconstruction": error, "kl": self.gamma * kl}, log_held)
