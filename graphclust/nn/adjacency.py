"""The graph as a layer sees it: edges, their weights, and fast sparse products with both."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import scatter


class _SparseMatmul(torch.autograd.Function):
    """``out_i = sum_j w_ij x_j`` with gradients for the weights and the features, both by sparse kernels."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor, adjacency: Adjacency) -> Tensor:
        ctx.adjacency = adjacency
        ctx.save_for_backward(weight, x)
        return adjacency.csr(weight) @ x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weight, x = ctx.saved_tensors
        (gradient,) = gradients
        gradient = gradient.contiguous()
        adjacency: Adjacency = ctx.adjacency
        grad_weight = grad_x = None
        if ctx.needs_input_grad[1]:
            grad_x = adjacency.transposed_csr(weight) @ gradient
        if ctx.needs_input_grad[0]:
            # d/dw_ij = <g_i, x_j>, evaluated at the edges alone.
            pattern = adjacency.csr(torch.zeros_like(weight))
            product = torch.sparse.sampled_addmm(pattern, gradient, x.t().contiguous())
            grad_weight = product.values()[adjacency.inverse_order]
        return grad_weight, grad_x, None


def row_pointers(rows: Tensor, n: int) -> Tensor:
    """Where each of n rows begins among sorted entries, [n + 1], int32: what the sparse products of torch compute with.

    Raises
    ------
    ValueError
        For 2^31 entries or more, which int32 cannot number.
    """
    if rows.shape[0] >= 2**31:
        raise ValueError(
            f"{rows.shape[0]:,} edges at once are more than a sparse product takes ({2**31 - 1:,}): train in sampled "
            "batches (batch_size=...), or join fewer neighbours"
        )
    pointers = torch.zeros(n + 1, dtype=torch.int32, device=rows.device)
    pointers[1:] = torch.bincount(rows, minlength=n).cumsum(0)
    return pointers


class Adjacency:
    """Edges j -> i of a graph or of a sampled part of it, with the weights that convolutions need.

    Parameters
    ----------
    edge_index : Tensor [2, E]
        Row 0 sources j, row 1 targets i (PyG's flow "source_to_target"), no self loops.
    edge_weight : Tensor [E]
        Weights of the sample graph.
    propagation_weight : Tensor [E]
        Entries of the normalised propagation matrix at the edges, from the *whole* graph's degrees.
    self_weight : Tensor [N]
        Its diagonal.
    constant : bool, default=False
        True when the same object serves every step (a full batch): what depends on the input features alone is then
        computed once.

    Attributes
    ----------
    whole : Adjacency
        That of which these are some of the edges (`thinned`), else itself: among the same samples, so what depends on
        the input features alone is kept there.
    """

    def __init__(
        self,
        edge_index: Tensor,
        edge_weight: Tensor,
        propagation_weight: Tensor,
        self_weight: Tensor,
        *,
        constant: bool = False,
    ) -> None:
        self.edge_index = edge_index
        self.edge_weight = edge_weight
        self.propagation_weight = propagation_weight
        self.self_weight = self_weight
        self.constant = constant
        self.whole = self
        self._memo: dict[str, Any] = {}

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.self_weight.shape[0]

    def memo(self, key: str, compute: Callable[[], Any]) -> Any:
        """Value of `compute()`, kept under `key` for as long as this object lives."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]

    def thinned(self, share: float) -> Adjacency:
        """The same graph without a random `share` of its edges, in [0, 1).

        The weights of those that stay grow by 1 / (1 - share), so that the mean of what is summed over them is as
        before.
        """
        kept = torch.rand(self.edge_weight.shape[0], device=self.edge_weight.device) >= share
        kept = kept.nonzero().flatten()  # once: each selection by a mask would wait for the device
        thinned = Adjacency(
            self.edge_index[:, kept],
            self.edge_weight[kept] / (1 - share),
            self.propagation_weight[kept] / (1 - share),
            self.self_weight,
        )
        thinned.whole = self.whole
        return thinned

    # -- the part that some rows depend on ---------------------------------------------------------------------

    def leading(self, rows: int) -> Adjacency:
        """What a convolution reads so that its first `rows` rows are exact: these, their neighbours, their edges.

        Rows of sampled batches are in the order of their distance from the batch's own samples, so the neighbours of
        the first are among the first as well. A full batch is returned as it is: what is kept of it serves all steps.
        """
        if self.constant or rows >= self.num_nodes:
            return self

        def build() -> Adjacency:
            kept = self.edge_index[1] < rows
            edges = self.edge_index[:, kept]
            n_read = max(rows, int(edges[0].max()) + 1) if edges.numel() else rows
            weights = (self.edge_weight[kept], self.propagation_weight[kept], self.self_weight[:n_read])
            return Adjacency(edges, *weights)

        return self.memo(f"leading{rows}", build)

    def reaching(self, rows: int, n_layers: int) -> list[Adjacency]:
        """What each of `n_layers` convolutions reads so that the first `rows` rows of the last one are exact."""
        parts = []
        for _ in range(n_layers):
            parts.append(self.leading(rows))
            rows = parts[-1].num_nodes
        return parts[::-1]

    # -- compressed layouts ------------------------------------------------------------------------------------

    def _layout(self, by: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pointers, column indices and edge order of the edges compressed by row `by` of edge_index."""

        def build() -> tuple[Tensor, Tensor, Tensor]:
            order = torch.argsort(self.edge_index[by], stable=True)
            pointers = row_pointers(self.edge_index[by], self.num_nodes)
            return pointers, self.edge_index[1 - by][order].to(torch.int32), order

        return self.memo(f"layout{by}", build)

    @property
    def inverse_order(self) -> Tensor:
        """Position of each edge in the matrix compressed by target, [E]."""

        def build() -> Tensor:
            order = self._layout(1)[2]
            inverse = torch.empty_like(order)
            inverse[order] = torch.arange(order.shape[0], device=order.device)
            return inverse

        return self.memo("inverse_order", build)

    def csr(self, weight: Tensor) -> Tensor:
        """Sparse [N, N] matrix with w_ij at row i (target), column j (source)."""
        return self._compressed(weight, by=1)

    def transposed_csr(self, weight: Tensor) -> Tensor:
        """Its transpose."""
        return self._compressed(weight, by=0)

    def _compressed(self, weight: Tensor, by: int) -> Tensor:
        pointers, columns, order = self._layout(by)
        size = (self.num_nodes, self.num_nodes)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            values = weight.detach()[order]
            return torch.sparse_csr_tensor(pointers, columns, values, size, check_invariants=False)

    # -- products ----------------------------------------------------------------------------------------------

    def matmul(self, weight: Tensor, x: Tensor) -> Tensor:
        """``out_i = sum_j w_ij x_j``: [E], [N, d] -> [N, d], float32 (sparse kernels know no bfloat16)."""
        with torch.autocast(x.device.type, enabled=False):
            return _SparseMatmul.apply(weight.float(), x.float(), self)

    def propagate(self, x: Tensor) -> Tensor:
        """The normalised propagation ``D~^-1/2 A~ D~^-1/2 x`` (or ``D~^-1 A~ x``), self loops included."""
        looped = self.looped()
        return looped.matmul(looped.propagation_weight, x)

    @property
    def mean_weight(self) -> Tensor:
        """1 / number of incoming edges of the target, [E]."""

        def build() -> Tensor:
            target = self.edge_index[1]
            count = torch.bincount(target, minlength=self.num_nodes)
            return 1.0 / count[target].to(self.edge_weight.dtype)

        return self.memo("mean_weight", build)

    def looped(self) -> Adjacency:
        """The same graph with the self loops, of weight 1, among its edges."""

        def build() -> Adjacency:
            loops = torch.arange(self.num_nodes, device=self.edge_index.device).expand(2, -1)
            return Adjacency(
                torch.cat([self.edge_index, loops], dim=1),
                torch.cat([self.edge_weight, torch.ones_like(self.self_weight)]),
                torch.cat([self.propagation_weight, self.self_weight]),
                torch.zeros_like(self.self_weight),
                constant=self.constant,
            )

        return self.memo("looped", build)


def propagation_weights(
    edge_index: Tensor, edge_weight: Tensor, num_nodes: int, normalization: str = "symmetric"
) -> tuple[Tensor, Tensor]:
    """Normalised weights of all edges and of the self loops.

    Parameters
    ----------
    edge_index : Tensor [2, E]
        Edges j -> i without self loops.
    edge_weight : Tensor [E]
        Weights, not negative.
    num_nodes : int
        N.
    normalization : {"symmetric", "row"}, default="symmetric"
        ``D~^-1/2 A~ D~^-1/2`` (Kipf & Welling 2017, through PyG's `gcn_norm`) or ``D~^-1 A~``, with ``A~ = A + I``.

    Returns
    -------
    edges : Tensor [E]
    self_loops : Tensor [N]
    """
    if normalization == "symmetric":
        loops = torch.arange(num_nodes, device=edge_index.device)
        index = torch.cat([edge_index, loops.expand(2, -1)], dim=1)
        weight = torch.cat([edge_weight, edge_weight.new_ones(num_nodes)])
        _, normalized = gcn_norm(index, weight, num_nodes, add_self_loops=False, dtype=edge_weight.dtype)
        return normalized[: edge_index.shape[1]], normalized[edge_index.shape[1] :]
    if normalization == "row":
        inverse = 1.0 / (1.0 + scatter(edge_weight, edge_index[1], dim=0, dim_size=num_nodes, reduce="sum"))
        return edge_weight * inverse[edge_index[1]], inverse
    raise ValueError(f"normalization is {normalization!r}, it must be 'symmetric' or 'row'")
