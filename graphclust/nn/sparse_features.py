"""Products with features that are mostly zero, such as bags of words."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphclust.nn.adjacency import Adjacency

#: Share of the entries that are not zero, up to which sparse kernels were measured to be faster than dense ones.
DENSITY = 0.05


class _SparseLinear(torch.autograd.Function):
    """``X W^T`` of a constant sparse X [n, d], given with its transpose; the gradient is that of W alone."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor, transposed: Tensor) -> Tensor:
        ctx.transposed = transposed
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return (ctx.transposed @ gradients[0].contiguous()).t(), None, None


def constant_linear(x: Tensor, weight: Tensor, adjacency: Adjacency) -> Tensor:
    """``x W^T`` of features that are the same in every step with a constant adjacency (a full batch).

    Where at most 5 % of their entries are not zero, they are compressed once and multiplied by sparse kernels: Cora's
    features have 1.3 %, CiteSeer's 0.9 %.

    Parameters
    ----------
    x : Tensor [n, d]
        Without gradients.
    weight : Tensor [c, d]
    adjacency : Adjacency
        Keeps the compressed features, where it is constant, or some of the edges of one that is.

    Returns
    -------
    Tensor [n, c]
    """
    compressed = compressed_features(x, adjacency)
    return F.linear(x, weight) if compressed is None else sparse_linear(compressed, weight)


def compressed_features(x: Tensor, adjacency: Adjacency) -> tuple[Tensor, Tensor] | None:
    """x and its transpose in compressed rows, made once; None where x is not sparse, or not the same in every step."""

    def compress() -> tuple[Tensor, Tensor] | None:
        if int(x.count_nonzero()) > DENSITY * x.numel():
            return None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            rows = x.float().to_sparse_csr()
            # Its columns compressed are the rows of the transpose.
            columns = rows.to_sparse_csc()
            parts = (columns.ccol_indices(), columns.row_indices(), columns.values())
            return rows, torch.sparse_csr_tensor(*parts, (x.shape[1], x.shape[0]), check_invariants=False)

    whole = adjacency.whole
    return whole.memo("sparse_features", compress) if whole.constant else None


def sparse_linear(compressed: tuple[Tensor, Tensor], weight: Tensor) -> Tensor:
    """``x W^T`` of `compressed_features`, in float32."""
    with torch.autocast(weight.device.type, enabled=False):  # sparse kernels know no bfloat16
        return _SparseLinear.apply(weight.float(), *compressed)
