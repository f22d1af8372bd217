"""DCN: an auto-encoder whose codes k-means can cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from graphclust._checks import check_number
from graphclust.methods.deep_autoencoder import AutoEncoderClusterer, FineTuned
from graphclust.methods.starts import start_centers
from graphclust.nn.heads import RunningCenters
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.stage import Stage, Step


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
    n_clusters : int, default=8
        K.
    distance_weight : float, default=0.5
        Lambda, the weight of the distance to the centre.
    epochs : int, default=50
        Most epochs of the last stage.
    learning_rate : float, default=1e-3
        Of Adam, in the last stage.
    decay, decay_every : float, int, default=1.0, 10
        The rate is multiplied by `decay` every `decay_every` epochs.
    batch_size : int or None, default=256
        Samples a step; None takes all of them in one.
    tolerance : float or None, default=1e-3
        The last stage ends when a smaller share of the labels changed in three epochs in a row.
    pretrain_epochs, pretrain_learning_rate, pretrain_batch_size : default=50, 1e-3, 256
        Of the auto-encoder alone.
    hidden_channels : sequence of int, default=(256, 256, 512)
        Widths of the encoder; the decoder is its mirror image.
    latent_dim : int, default=10
        Width of the code.
    decoder : {"auto", "bernoulli", "gaussian"}, default="auto"
        Likelihood of a sample: Bernoulli for data in [0, 1] after scaling, Gaussian otherwise.
    scale, device, precision, checkpoint, random_state, verbose
        See `VGDCN`.

    Attributes
    ----------
    labels_ : ndarray [N], int64
    probabilities_ : ndarray [N, K], float32
        Soft assignments of the codes.
    embedding_ : ndarray [N, latent_dim], float32
        Codes.
    model_ : AutoEncoderNetwork
    history_ : list of dict
        One record an epoch: stage, epoch, loss and its terms, share of labels that changed, seconds.
    n_features_in_ : int
    """

    distance_weight: float = 0.5

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self.distance_weight, "distance_weight", 0.0)

    def _head(self) -> nn.Module:
        return RunningCenters(self.n_clusters, self.latent_dim)

    def _stages(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> list[Stage]:
        likelihood = self._likelihood(model)

        def start() -> None:
            start_centers(model, source, self.n_clusters)

        def cluster(m: Any, batch: Batch) -> Step:
            x = m.scale(batch.x)
            z = m.autoencoder.encode(x).mean
            log_q = m.head(z.detach())
            labels = log_q.argmax(dim=1)
            distance = (z - m.head.centers[labels]).square().sum(dim=1).mean()
            error = likelihood.negative_log_likelihood(m.autoencoder.decode(z), x).mean()
            if m.training:
                m.head.update(z, labels)
            return Step({"reconstruction": error, "distance": self.distance_weight * distance}, log_q)

        return [self._pretraining(model), self._clustering(cluster, start)]
