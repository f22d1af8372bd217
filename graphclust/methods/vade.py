"""VaDE: a variational auto-encoder with a mixture of Gaussians as its prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphclust.methods.deep_autoencoder import AutoEncoderClusterer, FineTuned
from graphclust.methods.generating import Generating, mixture_elbo
from graphclust.methods.starts import start_labels, start_variational
from graphclust.nn.heads import GaussianMixture
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.inference import in_blocks
from graphclust.training.stage import Step


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
    """

    decay: float = 0.9

    _variational: ClassVar[bool] = True

    def _head(self) -> nn.Module:
        return GaussianMixture(self.n_clusters_, self.latent_dim)

    def _start(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> None:
        codes = in_blocks(model.embed, source.x, device=source.device)
        memory["start"] = start_labels("mixture", source, codes, self.n_clusters_)
        start_variational(model, codes, memory["start"])

    def _loss(self, model: Any, batch: Batch) -> Step:
        x = model.scale(batch.x)
        mean, log_variance = model.autoencoder.encode(x).gaussian()
        elbo = mixture_elbo(model, self._likelihood(model), x, mean, log_variance)
        with torch.no_grad():  # what is counted is not learnt from
            assignments = model.head(mean)
        return Step({"elbo": elbo}, assignments)
