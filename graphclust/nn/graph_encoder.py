"""A plain stack of graph convolutions as an encoder: features and edges in, codes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, normalize

from graphclust._checks import check_choice, check_number
from graphclust.nn.adjacency import Adjacency
from graphclust.nn.convolutions import Convolution, GCNConv, layer_parts, make_convolution
from graphclust.nn.heads import ClusterFrequencies
from graphclust.nn.scaling import FeatureScale
from graphclust.nn.term_scale import TermScale

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "prelu": nn.PReLU,
    "selu": nn.SELU,
    "tanh": nn.Tanh,
}
Activation = str | None


class GraphEncoder(nn.Module):
    """``Z(l) = act_l(conv_l(Z(l-1)))`` with ``Z(0) = X``, the encoder of GAE, DAEGC, DGI and their kin.

    Parameters
    ----------
    widths : sequence of int
        d, hidden widths, width of the code; one convolution between each two.
    conv : {"gcn", "gat", "sage", "gin"} or callable, default="gcn"
        The convolution, see `make_convolution`.
    activation : {"relu", "elu", "prelu", "selu", "tanh"}, None, or a sequence of these, default="relu"
        A single one follows every convolution but the last; a sequence names one for each convolution.
    dropout : float, default=0.0
        Share of the entries of each convolution's input that are set to zero in training, in [0, 1).
    """

    def __init__(
        self,
        widths: Sequence[int],
        conv: str | Convolution = "gcn",
        activation: Activation | Sequence[Activation] = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(widths) < 2:
            raise ValueError(f"widths is {list(widths)}, it must hold at least d and the width of the code")
        self.widths = tuple(widths)
        n_layers = len(self.widths) - 1
        if activation is None or isinstance(activation, str):
            activation = [*[activation] * (n_layers - 1), None]
        if len(activation) != n_layers:
            raise ValueError(
                f"activation names {len(activation)}, it must name one for each of the {n_layers} convolutions"
            )
        self.layers = nn.ModuleList(
            make_convolution(conv, a, b) for a, b in zip(self.widths[:-1], self.widths[1:], strict=True)
        )
        self.activations = nn.ModuleList(_activation(name) for name in activation)
        self.dropout = check_number(dropout, "dropout", 0.0)
        if self.dropout >= 1:
            raise ValueError(f"dropout={dropout} must be less than 1; 0 drops nothing")

    def step(self, layer: int, z: Tensor, adjacency: Adjacency, *, constant: bool = False) -> Tensor:
        """Convolution `layer` (from 0) with its activation, in float32."""
        if self.training and self.dropout:
            z, constant = dropout(z, self.dropout), False
        return self.activate(layer, self.layers[layer](z, adjacency, constant=constant))

    def activate(self, layer: int, z: Tensor) -> Tensor:
        """The activation of layer `layer` in float32: autocast would take PReLU in bfloat16."""
        with torch.autocast(z.device.type, enabled=False):
            return self.activations[layer](z.float())

    def forward(
        self, x: Tensor, adjacency: Adjacency, *, constant: bool = False, rows: int | None = None
    ) -> Tensor:
        """Codes.

        Parameters
        ----------
        x : Tensor [n, d]
            Features.
        adjacency : Adjacency
            The graph, or the sampled part of it that the batch covers.
        constant : bool, default=False
            Whether x is the same in every step with this adjacency: what the first convolution sums over neighbours
            is then computed once. Never say so of shuffled or augmented features.
        rows : int, optional
            Codes of the first rows alone: of a sampled batch each convolution reads what they depend on, no more.

        Returns
        -------
        Tensor [n, widths[-1]], or [rows, widths[-1]]
        """
        parts = layer_parts(list(self.layers), adjacency, rows)
        z = self.step(0, x[: parts[0].num_nodes], parts[0], constant=constant)
        return self._further(z, parts, rows)

    def some_columns(
        self, x: Tensor, columns: Tensor, adjacency: Adjacency, *, rows: int | None = None
    ) -> Tensor:
        """Codes of features that are the same in every step, multiplied by `columns` [d] in this one alone.

        What is 0 is left out. GCN multiplies its weights by them, so that sparse features stay as they were compressed.
        """
        parts = layer_parts(list(self.layers), adjacency, rows)
        x, first = x[: parts[0].num_nodes], self.layers[0]
        if isinstance(first, GCNConv) and not (self.training and self.dropout):
            z = self.activate(0, first(x, parts[0], constant=True, columns=columns))
        else:
            z = self.step(0, x * columns, parts[0])
        return self._further(z, parts, rows)

    def _further(self, z: Tensor, parts: Sequence[Adjacency], rows: int | None) -> Tensor:
        """The layers after the first, each on its part."""
        for layer, part in enumerate(parts[1:], start=1):
            z = self.step(layer, z[: part.num_nodes], part)
        return z if rows is None else z[:rows]


class GraphEncoderNetwork(nn.Module):
    """A graph encoder, and a head that assigns its codes to clusters.

    Parameters
    ----------
    scale : FeatureScale or TermScale
        From stored features to the network's input.
    encoder : Module
        ``encoder(x, adjacency, constant=...) -> [n, width]``: a `GraphEncoder`.
    head : Module
        Clusters in the latent space, ``head(codes) -> log-probabilities``; it has `centers` where k-means sets them.
    n_clusters : int
        K.
    latent_dim : int
        The first `latent_dim` columns of the encoder's output are the code (a variational encoder gives more).
    unit_length : bool, default=False
        Whether codes are scaled to length 1.
    """

    scale: FeatureScale | TermScale
    encoder: GraphEncoder
    head: Any
    frequencies: ClusterFrequencies

    def __init__(
        self,
        scale: FeatureScale | TermScale,
        encoder: GraphEncoder,
        head: nn.Module,
        n_clusters: int,
        latent_dim: int,
        *,
        unit_length: bool = False,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.encoder = encoder
        self.head = head
        self.frequencies = ClusterFrequencies(n_clusters)
        self.latent_dim = latent_dim
        self.unit_length = unit_length

    def scaled(self, x: Tensor, adjacency: Adjacency) -> Tensor:
        """Stored features [n, d] -> the encoder's input, computed once where x is the same in every step."""
        return adjacency.memo("scaled", lambda: self.scale(x)) if adjacency.constant else self.scale(x)

    def encode(self, x: Tensor, adjacency: Adjacency, rows: int | None = None) -> Tensor:
        """Stored features [n, d] and the edges among them -> the encoder's whole output [n, width], or its `rows`."""
        return self.encoder(self.scaled(x, adjacency), adjacency, constant=True, rows=rows)

    def code(self, output: Tensor) -> Tensor:
        """Codes [n, latent_dim] of the encoder's whole output [n, width]."""
        codes = output[:, : self.latent_dim]
        return normalize(codes) if self.unit_length else codes

    def embed(self, x: Tensor, adjacency: Adjacency, rows: int | None = None) -> Tensor:
        """Codes [n, latent_dim] of stored features [n, d] and the edges among them, or of the first `rows` alone."""
        return self.code(self.encode(x, adjacency, rows))

    def forward(self, x: Tensor, adjacency: Adjacency) -> Tensor:
        """Log-probabilities [n, K]."""
        return self.head(self.embed(x, adjacency))


def _activation(name: Activation) -> nn.Module:
    if name is None:
        return nn.Identity()
    return ACTIVATIONS[check_choice(name, "activation", tuple(ACTIVATIONS))]()
