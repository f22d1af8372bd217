"""GAE and VGAE: graph auto-encoders, whose codes are clustered by k-means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphclust.methods.graph_encoder import GraphEncoderClusterer
from graphclust.nn.edges import EdgeReconstruction, rows_read
from graphclust.nn.graph_encoder import GraphEncoder
from graphclust.nn.likelihoods import gaussian_sample
from graphclust.nn.losses import kl_standard_normal
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.stage import Stage, Step


@dataclass(eq=False, repr=False, kw_only=True)
class GAE(GraphEncoderClusterer):
    r"""Graph auto-encoder (Kipf & Welling 2016) and k-means.

    Two graph convolutions, d-32-16, give codes whose inner products tell who is joined to whom,

    .. math::
        Z = \tilde A\, \mathrm{relu}(\tilde A X W_0)\, W_1, \quad p(A_{ij} = 1) = \sigma(z_i^T z_j),

    by a cross-entropy in which edges and non-edges weigh the same. It is taken over all edges and as many sampled
    non-edges (`graphclust.nn.EdgeReconstruction`), so nothing of size N x N is formed.

    The paper predicts links and has no reported clustering. Reported by others: 59.6 / NMI 42.9 / ARI 34.7 on Cora (by
    the authors of ARGA; Pan et al. 2018), 67.5 / 50.1 / 45.6 there by an independent rerun (PyAGC), 63.1 / 60.7 / 50.3
    on USPS by SDCN's authors. This one gave 62.5 +- 3.7 / 47.8 / 38.5 on Cora and 89.2 / 84.9 / 80.3 on
    digits (five seeds each).

    The hidden layer has 32 units, as in the authors' code. A wider one learns single edges by heart where features are
    many: with 256, as in `DAEGC`, k-means on the codes of Cora (seed 0) is at 72.0 after 100 epochs, 66.9 after 200
    and 60.4 after 300, while the loss goes on falling. (On the neighbour graph of digits it only rises.)

    Departures: 32 hidden units, as above; sampled non-edges, as above; codes of length 1, in the loss as for k-means,
    so that both see their angles alone; any `conv`, and mini-batches.

    Parameters
    ----------
    num_neighbors : sequence of int or None
        Neighbours sampled per hop in mini-batches, one for each convolution and one for the edges; None takes 10 a hop.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from graphclust import GAE
    >>> GAE(10, epochs=50, random_state=0).fit(load_digits().data).embedding_.shape
    (1797, 16)
    """

    hidden_channels: Sequence[int] = (32,)

    _unit_length: ClassVar[bool] = True
    _reads_neighbors: ClassVar[bool] = True

    def _stages(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> list[Stage]:
        model.edges = self._edges(source)
        return super()._stages(model, source, memory)

    def _take_results(self, source: BatchSource) -> None:
        del self.model_.edges  # a number for each edge, of use in training alone
        super()._take_results(source)

    def _edges(self, source: BatchSource) -> EdgeReconstruction:
        """Loss of the edges that are reconstructed."""
        return edges_of(source.graph, source.device)

    def _loss(self, model: Any, batch: Batch) -> Step:
        assert batch.adjacency is not None
        codes = model.embed(batch.x, batch.adjacency, rows_read(batch.adjacency, batch.size))
        return Step({"edges": model.edges(codes, batch.index, batch.adjacency)})


@dataclass(eq=False, repr=False, kw_only=True)
class VGAE(GAE):
    r"""Variational graph auto-encoder (Kipf & Welling 2016) and k-means on the means.

    `GAE` with codes drawn from :math:`N(\mu_i, \sigma_i^2)`, whose means and log-variances are two convolutions of the
    same hidden layer, and :math:`\frac{1}{N^2} \sum_i KL(N(\mu_i, \sigma_i^2) \| N(0, 1))` added to the loss, which is
    a mean over the N^2 pairs. The paper has no reported clustering. Reported by others: 60.9 / NMI 43.6 / ARI 34.6 on
    Cora (by the authors of ARGA; Pan et al. 2018) and 56.2 / 51.1 / 41.0 on USPS (by SDCN's authors). This one gave
    65.8 +- 2.6 / 48.2 / 41.7 on Cora (five seeds) and 88.6 / 84.6 / 79.7 on digits (seeds 0 and 1). Departures: those
    of `GAE`.
    """

    def _encoder(self, n_features: int) -> GraphEncoder:
        # Both convolutions as one that is twice as wide.
        return GraphEncoder((n_features, *self.hidden_channels, 2 * self.latent_dim), self.conv)

    def _loss(self, model: Any, batch: Batch) -> Step:
        assert batch.adjacency is not None
        rows = rows_read(batch.adjacency, batch.size)
        mean, log_variance = model.encode(batch.x, batch.adjacency, rows).chunk(2, dim=1)
        log_variance = log_variance.clamp(-20.0, 20.0)
        codes = model.code(gaussian_sample(mean, log_variance))
        kl = kl_standard_normal(mean[: batch.size], log_variance[: batch.size]).mean()
        edges = model.edges(codes, batch.index, batch.adjacency)
        return Step({"edges": edges, "kl": kl / batch.n_samples})


def edges_of(graph: Data, device: torch.device) -> EdgeReconstruction:
    """Reconstruction loss of a graph's edges, for batches on `device`."""
    assert graph.edge_index is not None and graph.num_nodes is not None
    return EdgeReconstruction(graph.edge_index.to(device), graph.num_nodes)
