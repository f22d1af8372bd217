"""VaDE: a variational auto-encoder with a mixture of Gaussians as its prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from graphclust.methods.deep_autoencoder import AutoEncoderClusterer, FineTuned
from graphclust.methods.generating import Generating, mixture_elbo
from graphclust.methods.starts import start_labels, start_variational
from graphclust.nn.heads import GaussianMixture
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.inference import in_blocks
from graphclust.training.stage import Stage, Step


@dataclass(eq=False, repr=False, kw_only=True)
class VaDE(Generating, FineTuned, AutoEncoderClusterer):
    r"""Variational deep embedding (Jiang, Zheng, Tan, Tang & Zhou 2017).

    A code is drawn from a mixture of K diagonal Gaussians, a sample is decoded from the code. With the
    responsibilities :math:`\gamma_c = p(c \mid z)` it minimises, jointly over network and mixture,

    .. math::
        L_{rec}(x, \hat x) + \tfrac12 \sum_c \gamma_c \sum_j \Big[\log v_{cj} + \frac{e^{s_j}}{v_{cj}}
        + \frac{(m_j - \mu_{cj})^2}{v_{cj}}\Big] - \sum_c \gamma_c \log\frac{\pi_c}{\gamma_c}
        - \tfrac12 \sum_j (1 + s_j).

    The paper reports 94.5 on MNIST; the thesis of VGDCN 57.5 ("VAE + mixture") on USPS. Departures: the auto-encoder
    is pretrained in one piece instead of layer by layer, and the code's noise begins at a tenth of the clusters' own
    variance; d-256-256-512-10 instead of d-500-500-2000-10.

    Parameters
    ----------
    n_clusters : int, default=8
        K.
    epochs : int, default=50
        Most epochs of the last stage.
    learning_rate : float, default=1e-3
        Of Adam, in the last stage.
    decay, decay_every : float, int, default=0.9, 10
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
        Responsibilities of the mixture.
    embedding_ : ndarray [N, latent_dim], float32
        Means of the codes.
    model_ : AutoEncoderNetwork
    history_ : list of dict
        One record an epoch: stage, epoch, loss and its terms, share of labels that changed, seconds.
    n_features_in_ : int
    """

    decay: float = 0.9

    _variational: ClassVar[bool] = True

    def _head(self) -> nn.Module:
        return GaussianMixture(self.n_clusters, self.latent_dim)

    def _stages(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> list[Stage]:
        likelihood = self._likelihood(model)

        def start() -> None:
            codes = in_blocks(model.embed, source.x, device=source.device)
            start_variational(model, codes, start_labels("mixture", source, codes, self.n_clusters))

        def cluster(m: Any, batch: Batch) -> Step:
            x = m.scale(batch.x)
            mean, log_variance = m.autoencoder.encode(x).gaussian()
            elbo = mixture_elbo(m, likelihood, x, mean, log_variance)
            return Step({"elbo": elbo}, m.head(mean.detach()))

        return [self._pretraining(model), self._clustering(cluster, start)]
