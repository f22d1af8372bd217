"""DCN: an auto-encoder whose codes k-means can cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from graphclust._checks import check_number
from graphclust.methods.deep_autoencoder import AutoEncoderClusterer, FineTuned
from graphclust.nn.heads import RunningCenters
from graphclust.training.batches import Batch
from graphclust.training.stage import Step


@dataclass(eq=False, repr=False, kw_only=True)
class DCN(FineTuned, AutoEncoderClusterer):
    r"""Deep clustering network (Yang, Fu, Sidiropoulos & Hong 2017), "towards k-means-friendly spaces".

    .. math:: \frac1N \sum_i L_{rec}(x_i, \hat x_i) + \lambda \min_j |z_i - \mu_j|^2

    Network and centres in turn, batch by batch: a step on the network with labels and centres held, then each centre
    moves to the running mean of all codes that it was ever given. The paper reports 83 on MNIST (with its own
    preprocessing), and none on USPS.

    Departures: labels, step and centres come from the same forward pass of a batch, where the paper computes the codes
    again between them; the mean over batches is taken at once and not sample by sample, which gives the same centres.
    Bernoulli likelihood for data in [0, 1]; d-256-256-512-10 instead of d-500-500-2000-10.

    Parameters
    ----------
    distance_weight : float
        Lambda, the weight of the distance to the centre.
    """

    distance_weight: float = 0.5

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self.distance_weight, "distance_weight", 0.0)

    def _head(self) -> nn.Module:
        return RunningCenters(self.n_clusters_, self.latent_dim)

    def _loss(self, model: Any, batch: Batch) -> Step:
        x = model.scale(batch.x)
        z = model.autoencoder.encode(x).mean
        log_q = model.head(z.detach())
        labels = log_q.argmax(dim=1)
        distance = (z - model.head.centers[labels]).square().sum(dim=1).mean()
        if model.training:
            model.head.update(z, labels)
        error = self._error(model, z, x)
        return Step({"reconstruction": error, "distance": self.distance_weight * distance}, log_q)
