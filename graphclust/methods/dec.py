"""DEC and IDEC: an auto-encoder's codes and k-means centres that sharpen each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from graphclust._checks import check_number
from graphclust.methods.deep_autoencoder import AutoEncoderClusterer, FineTuned, sharpened
from graphclust.methods.starts import start_centers
from graphclust.nn.losses import kl_divergence
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.stage import Stage, Step


@dataclass(eq=False, repr=False, kw_only=True)
class DEC(FineTuned, AutoEncoderClusterer):
    r"""Deep embedded clustering (Xie, Girshick & Farhadi 2016).

    An auto-encoder is pretrained, k-means on its codes gives centres, then encoder and centres minimise

    .. math::
        KL(P \| Q), \quad q_{ij} \propto (1 + |z_i - \mu_j|^2)^{-1}, \quad p_{ij} \propto q_{ij}^2 / \sum_i q_{ij},

    until fewer than `tolerance` of the labels change. The paper reports 84.3 on MNIST; SDCN's authors report
    73.3 / NMI 70.6 / ARI 63.7 for it on USPS.

    Departures: P follows Q in every step, by running frequencies of all samples, instead of being held for some
    hundred steps; the auto-encoder is pretrained in one piece instead of greedily with dropout; Adam instead of SGD;
    Bernoulli likelihood for data in [0, 1]; d-256-256-512-10 instead of d-500-500-2000-10.

    Parameters
    ----------
    n_clusters : int, default=8
        K.
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

    def _stages(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> list[Stage]:
        def start() -> None:
            start_centers(model, source, self.n_clusters)

        def cluster(m: Any, batch: Batch) -> Step:
            log_q = m(batch.x)
            return Step({"kl": kl_divergence(sharpened(m, log_q, batch), log_q)}, log_q)

        return [self._pretraining(model), self._clustering(cluster, start)]


@dataclass(eq=False, repr=False, kw_only=True)
class IDEC(FineTuned, AutoEncoderClusterer):
    r"""Improved deep embedded clustering (Guo, Gao, Liu & Yin 2017): DEC with the reconstruction kept on.

    .. math:: \frac1d L_{rec}(x, \hat x) + \gamma\, KL(P \| Q), \quad \gamma = 0.1

    The decoder keeps the codes from being torn apart where the target is wrong. The paper reports 88.1 on MNIST and
    76.1 / NMI 78.5 on USPS; SDCN's authors 76.2 / 75.6 / ARI 67.9.

    Departures: those of `DEC`. The reconstruction is a mean over the d features, as in the authors' code (the paper
    writes a sum), because gamma = 0.1 belongs to that.

    Parameters
    ----------
    n_clusters : int, default=8
        K.
    gamma : float, default=0.1
        Weight of KL(P || Q).
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

    gamma: float = 0.1

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self.gamma, "gamma", 0.0)

    def _stages(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> list[Stage]:
        likelihood = self._likelihood(model)

        def start() -> None:
            start_centers(model, source, self.n_clusters)

        def cluster(m: Any, batch: Batch) -> Step:
            x = m.scale(batch.x)
            z = m.autoencoder.encode(x).mean
            log_q = m.head(z)
            error = likelihood.negative_log_likelihood(m.autoencoder.decode(z), x).mean() / x.shape[1]
            kl = kl_divergence(sharpened(m, log_q, batch), log_q)
            return Step({"reconstruction": error, "kl": self.gamma * kl}, log_q)

        return [self._pretraining(model), self._clustering(cluster, start)]
