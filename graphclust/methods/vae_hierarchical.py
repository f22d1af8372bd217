"""VAEHierarchical: embed by a variational auto-encoder, then a tree over the means of the codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphclust._checks import check_number
from graphclust.methods.code_tree import CodeTree
from graphclust.methods.convolutional import ConvClusterer
from graphclust.nn.likelihoods import gaussian_sample
from graphclust.nn.losses import kl_standard_normal
from graphclust.training.batches import Batch
from graphclust.training.stage import Step


@dataclass(eq=False, repr=False, kw_only=True)
class WeighedVAE(CodeTree):
    """Base of the methods with a tree that begin with a variational auto-encoder.

    Parameters
    ----------
    prior_weight : float
        Beta, the weight of the codes' divergence from their prior.
    """

    prior_weight: float = 0.1

    _variational: ClassVar[bool] = True

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self.prior_weight, "prior_weight", 0.0)

    def _pretraining_loss(self, model: Any, batch: Batch) -> Step:
        x = model.scale(batch.x)
        mean, log_variance = model.autoencoder.encode(x).gaussian()
        error = self._error(model, gaussian_sample(mean, log_variance), x)
        prior = kl_standard_normal(mean, log_variance).mean()
        return Step({"reconstruction": error, "prior": self.prior_weight * prior})


@dataclass(eq=False, repr=False, kw_only=True)
class VAEHierarchical(WeighedVAE, ConvClusterer):
    r"""A variational auto-encoder, then an agglomerative tree over the means of its codes.

    It minimises

    .. math:: -\log p(x \mid z) + \beta\, KL(N(m, e^s) \,\|\, N(0, 1)), \quad z \sim N(m, e^s)

    (Kingma & Welling 2014; beta: Higgins et al. 2017) with a convolutional network for images and a fully connected one
    for vectors. The means m are split into many parts by k-means, and the two parts with the highest density between
    them, :math:`f_{ab}` of `AgglomerativeDensity`, are merged, again and again to the root: average linkage, by the
    densities of the pairs that the graph of the means joins. Six other such trees, over other parts, come first; a pair
    counts by the square of the share of them whose K clusters hold both ends. What lies between two clusters can be
    decoded: `graphclust.report.latent_grid`.

    The method has no paper of its own and no reported result. Nearest is the baseline of a VAE with Ward's linkage on
    its codes in Manduchi, Vandenhirtz, Ryser & Vogt (2023).

    Departures: beta is 0.1. With 1, the one Gaussian of the prior pulls the clusters together, until there is no border
    between them to be seen (scikit-learn's digits, the fully connected network, three seeds: 67 to 71, with 0.1 it is
    87 to 89); with 0 what lies between clusters decodes to no picture. The tree is not Ward's but follows the
    graph, for clusters of any shape. It was the tree of `AgglomerativeDensity` before, in which the density between two
    parts counts by that within them: the same codes of the digits gave 71 to 84 then, by the parts that they were split
    into, with f 81 to 87, and 83 to 88 with the six trees before (one network, three draws of them).

    Parameters
    ----------
    batch_size : ignored
        All training is that of the auto-encoder, by `pretrain_batch_size`.
    """

    _relative_density: ClassVar[bool] = False
    _n_runs: ClassVar[int] = 6
