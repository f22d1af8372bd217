"""Whole networks, put together from encoder, fusion and head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from graphclust.nn.adjacency import Adjacency
from graphclust.nn.autoencoder import AutoEncoder, Encoding
from graphclust.nn.convolutions import Convolution
from graphclust.nn.fusion import GraphFusion
from graphclust.nn.heads import ClusterFrequencies
from graphclust.nn.scaling import FeatureScale


class AutoEncoderNetwork(nn.Module):
    """An auto-encoder and a head that assigns its codes to clusters (DEC, IDEC, DCN, VaDE).

    Parameters
    ----------
    scale : FeatureScale
        From stored features to the network's input.
    autoencoder : AutoEncoder
    head : Module
        Clusters in the latent space, ``head(codes) -> log-probabilities``: a `StudentTAssignment`, a
        `GaussianMixture` or `RunningCenters`.
    n_clusters : int
        K.
    """

    scale: FeatureScale
    autoencoder: AutoEncoder
    head: Any
    frequencies: ClusterFrequencies

    def __init__(
        self, scale: FeatureScale, autoencoder: AutoEncoder, head: nn.Module, n_clusters: int
    ) -> None:
        super().__init__()
        self.scale = scale
        self.autoencoder = autoencoder
        self.head = head
        self.frequencies = ClusterFrequencies(n_clusters)

    def embed(self, x: Tensor) -> Tensor:
        """Latent code (mean) of stored features, [n, d] -> [n, latent_dim]."""
        return self.autoencoder.encode(self.scale(x)).mean

    def forward(self, x: Tensor) -> Tensor:
        """Stored features [n, d] -> log-probabilities [n, K]."""
        return self.head(self.embed(x))


class FusionOutput(NamedTuple):
    """Encoding of the samples of a batch that the bridge reads, and logits from the graph branch [n, K]."""

    encoding: Encoding
    logits: Tensor


class FusionNetwork(AutoEncoderNetwork):
    """An auto-encoder and a graph branch joined by the epsilon bridge (SDCN, VGDCN).

    Parameters
    ----------
    scale : FeatureScale
        From stored features to the network's input.
    autoencoder : AutoEncoder
        Its hidden states feed the bridge.
    head : Module
        Clusters in the latent space: a `GaussianMixture` or a `StudentTAssignment`.
    widths : sequence of int
        d, hidden widths, latent width, K: those of the graph branch.
    conv, epsilon
        See `GraphFusion`.
    """

    fusion: GraphFusion

    def __init__(
        self,
        scale: FeatureScale,
        autoencoder: AutoEncoder,
        head: nn.Module,
        widths: Sequence[int],
        conv: str | Convolution = "gcn",
        epsilon: float | Sequence[float] | str = 0.7,
    ) -> None:
        super().__init__(scale, autoencoder, head, widths[-1])
        self.fusion = GraphFusion(widths, conv, epsilon)

    def states(self, x: Tensor) -> list[Tensor]:
        """Encoder states of scaled features, one for each bridge."""
        return self.autoencoder.encode(x).states

    # The override widens its parent's signature by the graph; mypy wants the two to be interchangeable.
    def forward(  # type: ignore[override]
        self, x: Tensor, adjacency: Adjacency, rows: int | None = None
    ) -> FusionOutput:
        """Stored features [n, d] and the edges among them -> encoding, logits [n, K], or [rows, K] of the first.

        Encoded are the rows that the logits depend on through the bridge.
        """
        x = self.scale(x)
        encoding = self.autoencoder.encode(x[: self.fusion.parts(adjacency, rows)[1].num_nodes])
        return FusionOutput(encoding, self.fusion(x, encoding.states, adjacency, rows))
