"""Edge reconstruction: codes whose inner products tell which samples are joined (Kipf & Welling 2016)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphclust.nn.adjacency import Adjacency, row_pointers

#: Wider codes are multiplied in blocks of so many entries, which stay in a processor's cache, with a sparse product as
#: gradient.
_NARROW, _BLOCK, _CUDA_BLOCK = 32, 2**17, 2**26


class _PairProducts(torch.autograd.Function):
    """``z_i z_j`` of each pair; the gradient ``G z`` has G_ij the sum of the gradients of the pairs (i, j) and (j, i).

    Of 120,000 pairs of 784 columns selecting both sides whole takes 750 MB and, with the gradient, six times as long.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, pairs: Tensor) -> Tensor:
        ctx.save_for_backward(z, pairs)
        n_pairs = pairs.shape[1]
        step = max(1, (_CUDA_BLOCK if z.is_cuda else _BLOCK) // z.shape[1])
        products = z.new_empty(n_pairs)
        for begin in range(0, n_pairs, step):
            first, second = pairs[:, begin : begin + step]
            rows = z.index_select(0, first).mul_(z.index_select(0, second))
            torch.sum(rows, dim=1, out=products[begin : begin + step])
        return products

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        z, pairs = ctx.saved_tensors
        row, column = torch.cat([pairs, pairs.flip(0)], dim=1)
        row, order = row.sort(stable=True)
        pointers = row_pointers(row, len(z))
        values = gradients[0].repeat(2)[order]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            columns = column[order].to(torch.int32)
            symmetric = torch.sparse_csr_tensor(
                pointers, columns, values, (len(z), len(z)), check_invariants=False
            )
        return symmetric @ z, None


def inner_products(z: Tensor, pairs: Tensor) -> Tensor:
    """Decoder of the graph auto-encoder: the logit ``z_i z_j`` of each pair.

    Parameters
    ----------
    z : Tensor [n, d]
        Codes.
    pairs : Tensor [2, P]
        Rows of z.

    Returns
    -------
    Tensor [P], float32
    """
    z = z.float()
    if z.shape[1] > _NARROW:
        return _PairProducts.apply(z, pairs)
    # index_select, because the gradient of plain indexing is many times slower on the CPU.
    return (z.index_select(0, pairs[0]) * z.index_select(0, pairs[1])).sum(dim=1)


def rows_read(adjacency: Adjacency, size: int) -> int:
    """Number of leading rows of a batch that hold its own samples and all samples joined to them.

    Rows behind them are sampled for the convolutions alone: a loss over the edges never reads their codes. The edges
    are looked through once for each batch.

    Parameters
    ----------
    adjacency : Adjacency
        Edges among the rows of the batch.
    size : int
        The batch's own samples, which come first.
    """
    if size >= adjacency.num_nodes:
        return adjacency.num_nodes

    def last() -> int:
        source, target = adjacency.edge_index
        joined = source[target < size]
        return max(size, int(joined.max()) + 1) if joined.numel() else size

    return adjacency.memo("rows_read", last)


class EdgeReconstruction:
    r"""Weighted cross-entropy between the inner-product decoder and the edges, over sampled non-edges.

    Kipf & Welling's loss is a mean over all N^2 pairs of samples, in which every sample is joined to itself and an edge
    weighs (number of non-edges) / (number of edges), times a constant. That is

    .. math::
        \tfrac12 \Big[ \operatorname{mean}_{\text{edges and } i = j} -\log \sigma(z_i^T z_j)
        + \operatorname{mean}_{\text{non-edges}} -\log (1 - \sigma(z_i^T z_j)) \Big],

    and a mean can be sampled: the first is taken over the edges of the batch, the second over as many pairs of its
    samples, drawn uniformly, without those that are edges (looked up among all edges, so exactly). Nothing of size
    N x N is formed.

    In a full batch the expectation is Kipf's loss. In mini-batches an edge joins a sample of the batch to one of the
    neighbours sampled for it, and weighs (neighbours it has) / (neighbours sampled); non-edges are pairs of the batch's
    own samples, a uniform draw from all. Both means are ratios of unbiased sums: their bias vanishes as 1 / batch size.

    An edge counts by its weight in the sample graph, which is 1 where edges are given without weights.

    Parameters
    ----------
    edge_index : Tensor [2, E]
        Edges j -> i of the whole graph without self loops, each once, both directions where it is undirected;
        on the device where batches are.
    n_samples : int
        N.
    """

    def __init__(self, edge_index: Tensor, n_samples: int) -> None:
        self.n_samples = n_samples
        source, target = edge_index
        #: Pairs as numbers i N + j, sorted: 8 bytes an edge.
        self.keys = (target * n_samples + source).sort().values

    def contains(self, target: Tensor, source: Tensor) -> Tensor:
        """Whether each pair of samples source -> target [P] is an edge, by binary search."""
        if not self.keys.numel():
            return torch.zeros_like(target, dtype=torch.bool)
        wanted = target * self.n_samples + source
        place = torch.searchsorted(self.keys, wanted).clamp_max(self.keys.shape[0] - 1)
        return self.keys[place] == wanted

    def sample_non_edges(self, samples: Tensor, n_pairs: int) -> Tensor:
        """Uniform pairs of different samples that are not joined, as rows of `samples`.

        Parameters
        ----------
        samples : Tensor [b]
            Numbers in the data set, all different.
        n_pairs : int
            Pairs drawn, by torch's generator of the device; those that are edges or twice the same are left out.

        Returns
        -------
        Tensor [2, at most n_pairs]
        """
        pairs = torch.randint(samples.shape[0], (2, n_pairs), device=samples.device)
        target, source = samples[pairs]
        return pairs[:, (target != source) & ~self.contains(target, source)]

    def __call__(self, z: Tensor, index: Tensor, adjacency: Adjacency) -> Tensor:
        """Loss of a batch, a scalar.

        Parameters
        ----------
        z : Tensor [n, d]
            Codes of the batch's own samples first, then of their sampled neighbours.
        index : Tensor [b]
            Numbers of the batch's own samples in the data set.
        adjacency : Adjacency
            Edges among the n rows; those that lead to the batch's own samples are reconstructed, but for edges of
            weight 0, which only convolutions read.
        """
        index = index.to(z.device)
        size = index.shape[0]
        chosen = (adjacency.edge_index[1] < size) & (adjacency.edge_weight > 0)
        edges, weight = adjacency.edge_index[:, chosen], adjacency.edge_weight[chosen]
        own = torch.arange(size, device=z.device).expand(2, -1)
        read = rows_read(adjacency, size)
        if read < z.shape[0]:
            z = z[:read]  # each of the six selections below has a gradient of the size of z
        # softplus(-a) = -log sigma(a), softplus(a) = -log (1 - sigma(a))
        joined = (F.softplus(-inner_products(z, edges)) * weight).sum()
        joined = joined + F.softplus(-inner_products(z, own)).sum()
        non_edges = self.sample_non_edges(index, edges.shape[1] + size)
        apart = F.softplus(inner_products(z, non_edges))
        return 0.5 * (joined / (weight.sum() + size) + apart.sum() / max(1, apart.shape[0]))


def propagation_error(z: Sequence[Tensor], index: Tensor, adjacency: Adjacency, n_samples: int) -> Tensor:
    r"""Mean squared difference between decoded pairs and the propagation matrix, over sampled pairs.

    .. math::
        \frac{1}{N^2} \sum_{ij} (s_{ij} - a_{ij})^2
        = \frac{1}{N^2} \sum_{ij} s_{ij}^2 - \frac{2}{N^2} \sum_{a_{ij} > 0} a_{ij} s_{ij} + \text{const}, \quad
        s_{ij} = \sum_l \sigma(z_i^{(l)T} z_j^{(l)})

    The first sum is taken over i = j and as many other pairs as there are edges, drawn uniformly from the batch's own
    samples; the second over the edges of the batch. The constant :math:`\sum a_{ij}^2 / N^2` is left out, so the result
    may be negative. Its expectation is exact, also in mini-batches on sampled neighbours.

    Parameters
    ----------
    z : sequence of Tensor [n, d_l]
        Codes, one or more of each row: those of the batch's own samples first.
    index : Tensor [b]
        Numbers of the batch's own samples.
    adjacency : Adjacency
    n_samples : int
        N.

    Returns
    -------
    Tensor, a scalar
    """

    def decoded(pairs: Tensor) -> Tensor:
        return torch.stack([inner_products(codes, pairs).sigmoid() for codes in z]).sum(dim=0)

    size = index.shape[0]
    chosen = adjacency.edge_index[1] < size
    edges, weight = adjacency.edge_index[:, chosen], adjacency.propagation_weight[chosen]
    own = torch.arange(size, device=edges.device).expand(2, -1)
    itself = decoded(own)
    joined = (weight * decoded(edges)).sum() + (adjacency.self_weight[:size] * itself).sum()
    squares = itself.square().mean() / n_samples
    if size > 1:
        first = torch.randint(size, (edges.shape[1] + size,), device=edges.device)
        other = (first + torch.randint(1, size, first.shape, device=edges.device)) % size
        squares = squares + (1 - 1 / n_samples) * decoded(torch.stack([first, other])).square().mean()
    return squares - 2 * joined / (size * n_samples)
