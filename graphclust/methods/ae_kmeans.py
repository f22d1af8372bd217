"""AEKMeans and VAEKMeans: embed, then k-means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from graphclust.methods.deep_autoencoder import AutoEncoderClusterer
from graphclust.methods.starts import start_centers
from graphclust.nn.likelihoods import gaussian_sample
from graphclust.nn.losses import kl_standard_normal
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.stage import Stage, Step


@dataclass(eq=False, repr=False, kw_only=True)
class AEKMeans(AutoEncoderClusterer):
    r"""An auto-encoder, then k-means on its codes.

    Minimises the reconstruction of x alone; then :math:`\min_\mu \sum_i \min_j |z_i - \mu_j|^2` on
    :math:`z = f(x)`. The baseline of all of deep clustering: SDCN's authors report 71.0 / NMI 67.5 on USPS (their
    "AE"). Departures: the likelihood is Bernoulli for data in [0, 1] (theirs: squared error); d-256-256-512-10 instead
    of d-500-500-2000-10. `probabilities_` are Student-t assignments to the centres, their argmax is k-means' label.

    Parameters
    ----------
    n_clusters : int, default=8
        K.
    pretrain_epochs, pretrain_learning_rate, pretrain_batch_size : default=50, 1e-3, 256
        Of the auto-encoder.
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
        return [self._pretraining(model), kmeans_stage(model, source, self.n_clusters)]


@dataclass(eq=False, repr=False, kw_only=True)
class VAEKMeans(AutoEncoderClusterer):
    r"""A variational auto-encoder with the prior N(0, 1), then k-means on the means of its codes.

    Minimises :math:`-\log p(x \mid z) + KL(N(m, e^s) \| N(0, 1))` (Kingma & Welling 2014). It is here as a negative
    result: one Gaussian as the prior pulls all clusters into one ball. The thesis (Beijing Forestry University, 2021)
    reports 17 on USPS, "cannot cluster"; SDCN's authors do not list it. Departure: the thesis feeds binary
    cross-entropy with pixels outside [0, 1], which ruins its codes; here they are scaled.

    Parameters
    ----------
    n_clusters : int, default=8
        K.
    pretrain_epochs, pretrain_learning_rate, pretrain_batch_size : default=50, 1e-3, 256
        Of the auto-encoder.
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

    _variational: ClassVar[bool] = True

    def _stages(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> list[Stage]:
        likelihood = self._likelihood(model)

        def elbo(m: Any, batch: Batch) -> Step:
            x = m.scale(batch.x)
            mean, log_variance = m.autoencoder.encode(x).gaussian()
            output = m.autoencoder.decode(gaussian_sample(mean, log_variance))
            return Step(
                {
                    "reconstruction": likelihood.negative_log_likelihood(output, x).mean(),
                    "prior": kl_standard_normal(mean, log_variance).mean(),
                }
            )

        training = self._pretraining(model, elbo, "variational")
        return [training, kmeans_stage(model, source, self.n_clusters)]


def kmeans_stage(model: Any, source: BatchSource, n_clusters: int) -> Stage:
    """K-means on the codes; nothing is trained."""

    def start() -> None:
        start_centers(model, source, n_clusters)

    def nothing(m: Any, batch: Batch) -> Step:
        raise AssertionError("a stage of no epochs computes no loss")

    return Stage("k-means", nothing, 0, start=start)
