"""What the estimators share whose codes come from a mixture of Gaussians: they generate."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from graphclust._checks import check_count
from graphclust.methods.base import draw_seed
from graphclust.nn.likelihoods import Likelihood, gaussian_sample
from graphclust.nn.losses import mixture_kl


class Generating:
    """Adds `sample` to an estimator with a decoder and a `GaussianMixture` as head."""

    n_clusters_: int
    model_: Any
    _decode: Any

    def sample(
        self, n_samples: int = 1, cluster: int | None = None, *, random_state: Any = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """New samples: draw a cluster from pi (or take `cluster`), a code from its Gaussian, and decode it.

        Parameters
        ----------
        n_samples : int, default=1
        cluster : int or None
            A component of the mixture, 0 ... K - 1. That of `VGDCN` with ``init="linkage"`` and few epochs is the
            cluster of the same number.
        random_state : int, RandomState or None

        Returns
        -------
        samples : ndarray [n_samples, d]
            Expected values, in the units of the data.
        clusters : ndarray [n_samples]
        """
        check_is_fitted(self, "model_")
        check_count(n_samples, "n_samples")
        if cluster is not None:
            check_count(cluster, "cluster", 0, self.n_clusters_ - 1)
        mixture, device = self.model_.head, next(self.model_.parameters()).device
        generator = torch.Generator(device=device).manual_seed(draw_seed(random_state))
        with torch.no_grad():
            codes, clusters = mixture.sample(n_samples, cluster, generator)
            samples = self._decode(codes)
        return samples, clusters.cpu().numpy()


def mixture_elbo(model: Any, likelihood: Likelihood, x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The negative ELBO under the mixture prior, its mean over samples: scaled features [b, d] and their codes."""
    mixture = model.head
    z = gaussian_sample(mean, log_variance)
    likelihoods = likelihood.negative_log_likelihood(model.autoencoder.decode(z), x)
    prior = mixture_kl(
        mean, log_variance, mixture(z), mixture.log_weights, mixture.centers, mixture.log_variances
    )
    return (likelihoods + prior).mean()
