"""Codes of length 1 that know more of the graph than the convolutions reach."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from graphclust._checks import check_count
from graphclust.nn.adjacency import Adjacency
from graphclust.nn.contrast import shuffle_samples
from graphclust.nn.convolutions import Convolution, GCNConv, layer_parts
from graphclust.nn.graph_encoder import Activation, GraphEncoder
from graphclust.nn.sparse_features import constant_linear


class SmoothedEncoder(GraphEncoder):
    r"""A stack of convolutions, whose output is joined with its own propagation and made of length 1.

    .. math:: H = \mathrm{GraphEncoder}(X, A), \quad z_i = \frac{h_i + (\hat A^h H)_i}{|h_i + (\hat A^h H)_i|}

    The global part :math:`\hat A^h H` reaches h hops further without weights of its own (GGD, Zheng et al. 2022, and
    Dink-Net read their trained codes so). With h = 0 a code is :math:`h_i / |h_i|`.

    Parameters
    ----------
    widths, conv, activation, dropout
        See `GraphEncoder`.
    n_hops : int, default=0
        h, at least 0.
    """

    def __init__(
        self,
        widths: Sequence[int],
        conv: str | Convolution = "gcn",
        activation: Activation | Sequence[Activation] = "relu",
        dropout: float = 0.0,
        n_hops: int = 0,
    ) -> None:
        super().__init__(widths, conv, activation, dropout)
        self.n_convolutions = len(self.layers)
        self.n_hops = check_count(n_hops, "n_hops", 0)
        # Inference goes layer by layer, and a propagation is a layer without weights.
        self.layers.extend(nn.Identity() for _ in range(self.n_hops))

    def local(self, x: Tensor, adjacency: Adjacency, *, constant: bool = False) -> Tensor:
        """H [n, widths[-1]], of any length; see `GraphEncoder` for the parameters."""
        parts = [adjacency] * self.n_convolutions
        return self._rest(super().step(0, x, adjacency, constant=constant), parts, None)

    def local_pair(
        self, x: Tensor, adjacency: Adjacency, rows: int | None = None, false_rows: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """H of the samples, and of the same edges with shuffled samples (`shuffle_samples`).

        Parameters
        ----------
        x : Tensor [n, d]
            Features, the same in every step with this adjacency.
        adjacency : Adjacency
        rows, false_rows : int, optional
            The first rows of either alone: what they do not depend on is not computed.

        Returns
        -------
        true : Tensor [rows, widths[-1]]
        false : Tensor [false_rows, widths[-1]]
        """
        first, convolutions = self.layers[0], list(self.layers[: self.n_convolutions])
        true_parts = layer_parts(convolutions, adjacency, rows)
        false_parts = layer_parts(convolutions, adjacency, false_rows)
        n = max(true_parts[0].num_nodes, false_parts[0].num_nodes)
        x = x[:n]
        # Shuffling P commutes with the weights, A P X W = A P (X W): where the product comes first, one is enough.
        if isinstance(first, GCNConv) and first.out_channels < first.in_channels and not self.dropout:
            product = constant_linear(x, first.lin.weight, adjacency)
            starts = []
            for part, h in ((true_parts[0], product), (false_parts[0], shuffle_samples(product))):
                starts.append(self.activate(0, part.propagate(h[: part.num_nodes]) + first.bias))
            true, false = starts
        else:
            true = super().step(0, x[: true_parts[0].num_nodes], true_parts[0], constant=True)
            false = super().step(0, shuffle_samples(x)[: false_parts[0].num_nodes], false_parts[0])
        return self._rest(true, true_parts, rows), self._rest(false, false_parts, false_rows)

    def _rest(self, z: Tensor, parts: Sequence[Adjacency], rows: int | None) -> Tensor:
        """The convolutions after the first, each on its part."""
        for layer, part in enumerate(parts[1:], start=1):
            z = super().step(layer, z[: part.num_nodes], part)
        return z if rows is None else z[:rows]

    def rows_smoothed(self, adjacency: Adjacency, rows: int) -> int:
        """Rows of H that the first `rows` codes of `smooth` depend on."""
        return adjacency.reaching(rows, self.n_hops)[0].num_nodes if self.n_hops else rows

    def smooth(self, local: Tensor, adjacency: Adjacency, rows: int | None = None) -> Tensor:
        """Codes of length 1 from H, [n, widths[-1]], or the first `rows` of them.

        These depend on the first `rows_smoothed` rows of H alone.
        """
        rows = adjacency.num_nodes if rows is None else rows
        far = local
        for part in adjacency.reaching(rows, self.n_hops):
            far = part.propagate(far[: part.num_nodes])
        return normalize(local[:rows] + far[:rows])

    def step(self, layer: int, z: Tensor, adjacency: Adjacency, *, constant: bool = False) -> Tensor:
        """One convolution, or one propagation: between them H and its propagation lie side by side."""
        if layer < self.n_convolutions:
            z = super().step(layer, z, adjacency, constant=constant)
            if layer + 1 < self.n_convolutions:
                return z
            return torch.cat([z, z], dim=1) if self.n_hops else normalize(z)
        local, far = z.chunk(2, dim=1)
        far = adjacency.propagate(far)
        return normalize(local + far) if layer + 1 == len(self.layers) else torch.cat([local, far], dim=1)
