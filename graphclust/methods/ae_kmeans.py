"""AEKMeans and VAEKMeans: embed, then k-means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphclust.methods.deep_autoencoder import AutoEncoderClusterer
from graphclust.nn.likelihoods import gaussian_sample
from graphclust.nn.losses import kl_standard_normal
from graphclust.training.batches import Batch
from graphclust.training.stage import Step


@dataclass(eq=False, repr=False, kw_only=True)
class AEKMeans(AutoEncoderClusterer):
    r"""An auto-encoder, then k-means on its codes.

    Minimises the reconstruction of x alone; then :math:`\min_\mu \sum_i \min_j |z_i - \mu_j|^2` on
    :math:`z = f(x)`. The baseline of all of deep clustering: SDCN's authors report 71.0 / NMI 67.5 on USPS (their
    "AE"). Departures: the likelihood is Bernoulli for data in [0, 1] (theirs: squared error); d-256-256-512-10 instead
    of d-500-500-2000-10. `probabilities_` are Student-t assignments to the centres, their argmax is k-means' label.

    Parameters
    ----------
    batch_size : ignored
        All training is that of the auto-encoder, by `pretrain_batch_size`.
    """


@dataclass(eq=False, repr=False, kw_only=True)
class VAEKMeans(AutoEncoderClusterer):
    r"""A variational auto-encoder with the prior N(0, 1), then k-means on the means of its codes.

    Minimises :math:`-\log p(x \mid z) + KL(N(m, e^s) \| N(0, 1))` (Kingma & Welling 2014). It is here as a negative
    result: one Gaussian as the prior pulls all clusters into one ball. The thesis (Beijing Forestry University, 2021)
    reports 17 on USPS, "cannot cluster"; SDCN's authors do not list it. Departure: the thesis feeds binary
    cross-entropy with pixels outside [0, 1], which ruins its codes; here they are scaled.

    Parameters
    ----------
    batch_size : ignored
        All training is that of the auto-encoder, by `pretrain_batch_size`.
    """

    _variational: ClassVar[bool] = True

    def _pretraining_loss(self, model: Any, batch: Batch) -> Step:
        x = model.scale(batch.x)
        mean, log_variance = model.autoencoder.encode(x).gaussian()
        error = self._error(model, gaussian_sample(mean, log_variance), x)
        return Step({"reconstruction": error, "prior": kl_standard_normal(mean, log_variance).mean()})
