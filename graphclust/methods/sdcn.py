"""SDCN: structural deep clustering network."""

from __future__ import annotations

from dataclasses import dataclass

from graphclust._checks import check_number
from graphclust.methods.deep_autoencoder import sharpened
from graphclust.methods.fused import FusedClusterer
from graphclust.nn.losses import kl_divergence
from graphclust.nn.networks import FusionNetwork
from graphclust.training.batches import Batch
from graphclust.training.stage import Step


@dataclass(eq=False, repr=False, kw_only=True)
class SDCN(FusedClusterer):
    r"""Structural deep clustering network (Bo, Wang, Shi, Zhu, Lu & Cui 2020).

    An auto-encoder and a stack of graph convolutions joined by the bridge ``(1 - epsilon) Z + epsilon H``
    (`GraphFusion`) minimise

    .. math:: \frac1d L_{rec}(x, \hat x) + \alpha\, KL(P \| Q) + \beta\, KL(P \| Z_G),

    with DEC's Student-t assignments Q of the codes and their sharpened target P; :math:`Z_G`, the branch's softmax,
    gives the labels. The paper reports 78.1 / NMI 79.5 / ARI 71.8 on USPS; this one gave 75.8 +- 1.6 / 77.0 / 69.6
    there and 81.9 +- 2.8 / 83.2 / 74.9 on digits (five seeds each).

    The branch starts at random, as the authors' does. ``warm_start=True`` with ``branch_epochs=25``, the start of
    `VGDCN`, begins at the k-means labels instead (81.0 and 84.5 on digits): for short runs, in which a random branch
    has not yet found the clusters.

    Departures: 5 neighbours by heat kernel instead of 3 unweighted ones; P follows Q in every step (in a full batch
    an epoch is a step, as theirs is); Bernoulli likelihood for data in [0, 1]; d-256-256-512-10 instead of
    d-500-500-2000-10; mini-batches on sampled neighbours are possible.

    Parameters
    ----------
    alpha, beta : float
        Weights of KL(P || Q) and KL(P || Z_G).
    """

    alpha: float = 0.1
    beta: float = 0.01
    warm_start: bool = False
    branch_epochs: int = 0
    epochs: int = 200
    tolerance: float | None = None

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self.alpha, "alpha", 0.0)
        check_number(self.beta, "beta", 0.0)

    def _loss(self, model: FusionNetwork, batch: Batch) -> Step:
        assert batch.adjacency is not None
        encoding, logits = model(batch.x, batch.adjacency, batch.size)
        z, log_z_g = encoding.mean[: batch.size], logits.log_softmax(dim=1)
        x = model.scale(batch.x[: batch.size])
        log_q = model.head(z)
        p = sharpened(model, log_q, batch)
        terms = {
            "reconstruction": self._error_per_feature(model, z, x),
            "kl": self.alpha * kl_divergence(p, log_q),
            "kl_graph": self.beta * kl_divergence(p, log_z_g),
        }
        return Step(terms, log_z_g)
