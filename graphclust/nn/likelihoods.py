"""What the decoder's output means: the likelihood of a sample given its reconstruction."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor


class Likelihood(ABC):
    """p(x | z) as a pair of functions of the decoder's raw output."""

    name: str

    @abstractmethod
    def negative_log_likelihood(self, output: Tensor, x: Tensor) -> Tensor:
        """Reconstruction term, one value a sample, summed over the features: [N, d], [N, d] -> [N]."""

    @abstractmethod
    def mean(self, output: Tensor) -> Tensor:
        """Expected sample E[x | z] of a raw decoder output, same shape."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Bernoulli(Likelihood):
    """Binary cross-entropy on values in [0, 1] (the decoder's output are logits).

    ``-sum_j [x_j log s(o_j) + (1 - x_j) log(1 - s(o_j))]`` with the logistic function s.
    """

    name = "bernoulli"

    def negative_log_likelihood(self, output: Tensor, x: Tensor) -> Tensor:
        """Cross-entropy of each sample, [N, d], [N, d] -> [N]."""
        return F.binary_cross_entropy_with_logits(output, x, reduction="none").sum(dim=1)

    def mean(self, output: Tensor) -> Tensor:
        """Logistic function of the output."""
        return output.sigmoid()


class Gaussian(Likelihood):
    """Squared error ``1/(2 variance) sum_j (x_j - o_j)^2``, the Gaussian's log density without its constant.

    Parameters
    ----------
    variance : float, default=1.0
        Variance of the noise around the decoded sample; smaller means that reconstruction weighs more.
    """

    name = "gaussian"

    def __init__(self, variance: float = 1.0) -> None:
        if not variance > 0:
            raise ValueError(f"variance is {variance}, it must be greater than 0")
        self.variance = variance

    def negative_log_likelihood(self, output: Tensor, x: Tensor) -> Tensor:
        """Scaled squared error of each sample, [N, d], [N, d] -> [N]."""
        return (output - x).square().sum(dim=1) / (2 * self.variance)

    def mean(self, output: Tensor) -> Tensor:
        """The output itself."""
        return output


def resolve_likelihood(likelihood: str | Likelihood, *, unit_range: bool = True) -> Likelihood:
    """Turn a name into a `Likelihood`.

    Parameters
    ----------
    likelihood : {"auto", "bernoulli", "gaussian"} or Likelihood
        "auto" takes Bernoulli for data in [0, 1] and Gaussian otherwise: binary cross-entropy has no meaning
        outside that interval.
    unit_range : bool, default=True
        Whether all values of the data lie in [0, 1].
    """
    if isinstance(likelihood, Likelihood):
        chosen = likelihood
    elif likelihood == "auto":
        chosen = Bernoulli() if unit_range else Gaussian()
    elif likelihood == "bernoulli":
        chosen = Bernoulli()
    elif likelihood == "gaussian":
        chosen = Gaussian()
    else:
        raise ValueError(
            f"likelihood is {likelihood!r}, it must be 'auto', 'bernoulli', 'gaussian' or a Likelihood"
        )
    if isinstance(chosen, Bernoulli) and not unit_range:
        raise ValueError(
            "a Bernoulli decoder needs values in [0, 1] and the data leave that interval: "
            "use scale='minmax' or decoder='gaussian'"
        )
    return chosen


def gaussian_sample(mean: Tensor, log_variance: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Reparameterised sample ``mean + exp(log_variance / 2) * noise`` (Kingma & Welling 2014), same shape."""
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + (0.5 * log_variance).exp() * noise
