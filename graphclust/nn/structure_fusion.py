"""Fusion of what an auto-encoder and a graph auto-encoder know of a sample (DFCN)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphclust.nn.adjacency import Adjacency
from graphclust.nn.autoencoder import AutoEncoder
from graphclust.nn.convolutions import Convolution
from graphclust.nn.graph_encoder import GraphEncoder
from graphclust.nn.heads import ClusterFrequencies
from graphclust.nn.scaling import FeatureScale


class StructureAttributeFusion(nn.Module):
    r"""Structure and attribute information fusion of DFCN (Tu et al. 2021).

    .. math::
        Z_I = a \odot Z_{AE} + (1 - a) \odot Z_{GAE}, \quad Z_L = \tilde A Z_I, \quad
        \tilde Z = Z_L + \beta\, \mathrm{softmax}(Z_L Z_L^T)\, Z_L

    with learnt a (from 0.5) and beta (from 0). The paper has a share a for each sample and dimension; here one for each
    dimension [d], so that it holds for samples never seen.

    The N x N matrix of the self-correlation is never stored: torch's fused attention works through it in tiles, forward
    and backward.

    Parameters
    ----------
    latent_dim : int
        d.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.full((latent_dim,), 0.5))
        self.correlation = nn.Parameter(torch.zeros(()))

    def blend(self, attributes: Tensor, structure: Tensor) -> Tensor:
        """Z_I [n, d] of both codes [n, d]."""
        return torch.lerp(structure.float(), attributes.float(), self.share)

    def correlate(self, local: Tensor, keys: Tensor) -> Tensor:
        """Fused codes [n, d] of Z_L [n, d], compared with the rows of `keys` [m, d], which are Z_L of other samples."""
        with torch.autocast(local.device.type, enabled=False):
            local, keys = local.float(), keys.float()
            # On CUDA rows of other widths than multiples of four would be multiplied whole.
            missing = -local.shape[1] % 8 if local.is_cuda else 0
            wide, others = F.pad(local, (0, missing)), F.pad(keys, (0, missing))[None, None]
            similar = F.scaled_dot_product_attention(wide[None, None], others, others, scale=1.0)[0, 0]
            return local + self.correlation * similar[:, : local.shape[1]]


class FusedCodes(NamedTuple):
    """Codes [n, d] of a batch: by the auto-encoder, by the graph encoder, and fused."""

    attributes: Tensor
    structure: Tensor
    fused: Tensor


class StructureAttributeNetwork(nn.Module):
    """Auto-encoder, symmetric graph auto-encoder and their fusion (DFCN).

    Parameters
    ----------
    scale : FeatureScale
        From stored features to the networks' input.
    autoencoder : AutoEncoder
    head : Module
        Clusters in the latent space: a `StudentTAssignment`.
    n_clusters : int
        K.
    widths : sequence of int
        d, hidden widths, latent width of the graph encoder; its decoder is the mirror image. tanh between.
    conv : {"gcn", "gat", "sage", "gin"} or callable, default="gcn"
    """

    scale: FeatureScale
    autoencoder: AutoEncoder
    head: Any
    frequencies: ClusterFrequencies

    def __init__(
        self,
        scale: FeatureScale,
        autoencoder: AutoEncoder,
        head: nn.Module,
        n_clusters: int,
        widths: Sequence[int],
        conv: str | Convolution = "gcn",
    ) -> None:
        super().__init__()
        self.scale = scale
        self.autoencoder = autoencoder
        self.head = head
        self.frequencies = ClusterFrequencies(n_clusters)
        self.encoder = GraphEncoder(widths, conv, "tanh")
        self.decoder = GraphEncoder(tuple(reversed(widths)), conv, "tanh")
        self.fusion = StructureAttributeFusion(widths[-1])

    def embed(self, x: Tensor) -> Tensor:
        """Codes of the auto-encoder, of stored features alone: [n, d] -> [n, latent_dim]."""
        return self.autoencoder.encode(self.scale(x)).mean

    def forward(self, x: Tensor, adjacency: Adjacency, size: int) -> FusedCodes:
        """Codes of scaled features [n, d]; the first `size` rows are the batch's own, with which codes are compared."""
        attributes = self.autoencoder.encode(x).mean
        structure = self.encoder(x, adjacency, constant=True)
        local = adjacency.propagate(self.fusion.blend(attributes, structure))
        return FusedCodes(attributes, structure, self.fusion.correlate(local, local[:size]))

    def input_error(self, decoded: Tensor, x: Tensor, adjacency: Adjacency, size: int) -> Tensor:
        """Mean squared error of the graph decoder's output against the propagated input, over the batch's own rows."""

        def propagate() -> Tensor:
            return adjacency.propagate(x)

        wanted = adjacency.memo("propagated_input", propagate) if adjacency.constant else propagate()
        return F.mse_loss(decoded[:size], wanted[:size])

    def local_stack(self) -> LocalCodes:
        """From scaled features to Z_L, for inference layer by layer."""
        return LocalCodes(self)


class LocalCodes:
    """The graph encoder and the propagation of its blend with the auto-encoder's codes, one layer after the other."""

    def __init__(self, network: StructureAttributeNetwork) -> None:
        self.network = network
        self.layers = [*network.encoder.layers, nn.Identity()]

    def states(self, x: Tensor) -> list[Tensor]:
        """The auto-encoder's codes of scaled features; the last layer alone reads them."""
        codes = self.network.autoencoder.encode(x).mean
        return [codes] * (len(self.layers) - 1)

    def mix(self, layer: int, z: Tensor, state: Tensor) -> Tensor:
        """Input of convolution `layer` (from 1)."""
        return self.network.fusion.blend(state, z) if layer + 1 == len(self.layers) else z

    def step(self, layer: int, z: Tensor, adjacency: Adjacency) -> Tensor:
        """A convolution of the graph encoder, or the last propagation."""
        if layer + 1 == len(self.layers):
            return adjacency.propagate(z)
        return self.network.encoder.step(layer, z, adjacency)
