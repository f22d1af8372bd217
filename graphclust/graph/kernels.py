"""From distances to edge weights: kernels and symmetrising, as pure functions."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch_geometric.utils import coalesce, remove_self_loops

from graphclust._checks import check_choice, check_number

KERNELS = ("heat", "binary", "cosine")
BANDWIDTHS = ("self-tuning", "median")
SYMMETRIZE = ("none", "union", "mutual", "mean")
_BLOCK = 65_536


def neighbor_edges(neighbor_index: Tensor, first_target: int = 0) -> Tensor:
    """Write neighbour lists [N, k] as edges [2, N k] from the neighbour j (row 0) to the sample i (row 1)."""
    n, k = neighbor_index.shape
    target = torch.arange(first_target, first_target + n, device=neighbor_index.device).repeat_interleave(k)
    return torch.stack([neighbor_index.reshape(-1), target])


def local_scales(neighbor_distance: Tensor) -> Tensor:
    r"""Scale :math:`s_i` of each sample: the distance to its k-th neighbour, [N, k] -> [N].

    Samples with k duplicates would have scale 0; they get the smallest positive scale there is (1 if there is none).
    """
    scale = neighbor_distance[:, -1]
    positive = scale[scale > 0]
    floor = positive.min() if positive.numel() else torch.ones((), device=scale.device)
    return torch.where(scale > 0, scale, floor.to(scale.dtype))


def median_bandwidth(neighbor_distance: Tensor) -> float:
    """The median of the squared neighbour distances [N, k] (the mean, then 1, where duplicates make it 0)."""
    squared = neighbor_distance.double().square().flatten()
    for value in (float(squared.median()), float(squared.mean())):
        if value > 0:
            return value
    return 1.0


def heat_weights(neighbor_distance: Tensor, bandwidth: float | tuple[Tensor, Tensor]) -> Tensor:
    r"""Heat kernel :math:`\exp(-d_{ij}^2 / t)`.

    Parameters
    ----------
    neighbor_distance : Tensor, shape [N, k]
        Distances >= 0.
    bandwidth : float or pair of Tensors
        t > 0; or the scales :math:`s_i` [N] of the samples and :math:`s_j` [N, k] of their neighbours, for
        :math:`t = s_i s_j` (self-tuning; Zelnik-Manor and Perona, "Self-tuning spectral clustering", 2004).

    Returns
    -------
    Tensor, float32, shape [N, k], in [0, 1]
    """
    if not isinstance(bandwidth, tuple):
        check_number(bandwidth, "bandwidth", 0, open_low=True)
    weight = torch.empty(neighbor_distance.shape, dtype=torch.float32, device=neighbor_distance.device)
    for start in range(0, len(weight), _BLOCK):  # float64 for a block at a time
        rows = slice(start, start + _BLOCK)
        squared = neighbor_distance[rows].double().square()
        if isinstance(bandwidth, tuple):
            t = bandwidth[0][rows].double().unsqueeze(1) * bandwidth[1][rows].double()
        else:
            t = torch.tensor(float(bandwidth), dtype=torch.float64)
        weight[rows] = torch.exp(-squared / t.to(squared.device)).float()
    return weight


def cosine_weights(neighbor_index: Tensor, x: Tensor, base: Tensor | None = None) -> Tensor:
    r"""Cosine kernel :math:`\max(0, \cos(x_i, x_j))`, 0 for zero vectors.

    Parameters
    ----------
    neighbor_index : Tensor, int64, shape [N, k]
    x : Tensor, shape [N, d]
        The samples.
    base : Tensor, optional, shape [M, d]
        Where the neighbours are; ``x`` itself by default.

    Returns
    -------
    Tensor, float32, shape [N, k], in [0, 1]
    """
    base = x if base is None else base
    weight = torch.empty(neighbor_index.shape, dtype=torch.float32, device=neighbor_index.device)
    step = max(1, (1 << 21) // (neighbor_index.size(1) * x.size(1)))
    for start in range(0, x.size(0), step):
        rows = slice(start, start + step)
        picked = (
            base[neighbor_index[rows].flatten().to(base.device)]
            .view(*neighbor_index[rows].shape, -1)
            .double()
        )
        cosine = torch.nn.functional.cosine_similarity(
            x[rows].double().unsqueeze(1), picked, dim=2, eps=1e-30
        )
        weight[rows] = cosine.clamp(0, 1).float()
    return weight


def neighbor_weights(
    neighbor_index: Tensor,
    neighbor_distance: Tensor,
    kernel: str = "heat",
    bandwidth: float | str = "self-tuning",
    *,
    x: Tensor | None = None,
) -> Tensor:
    """Weigh the neighbour lists of a data set among itself.

    Parameters
    ----------
    neighbor_index : Tensor, int64, shape [N, k]
    neighbor_distance : Tensor, shape [N, k]
    kernel : {"heat", "binary", "cosine"}
        "binary" weighs every edge 1; "cosine" needs ``x``.
    bandwidth : float, "median" or "self-tuning"
        Of the heat kernel: t, the median squared neighbour distance, or local scales.
    x : Tensor, optional, shape [N, d]

    Returns
    -------
    Tensor, float32, shape [N, k]
    """
    check_kernel(kernel, bandwidth)
    if kernel == "binary":
        return torch.ones_like(neighbor_distance, dtype=torch.float32)
    if kernel == "cosine":
        if x is None:
            raise ValueError("kernel='cosine' needs the samples; pass x, or use kernel='heat'")
        return cosine_weights(neighbor_index, x)
    if (neighbor_distance < 0).any():
        raise ValueError(
            "kernel='heat' needs distances of at least 0, but inner products have none; use kernel='binary' or 'cosine'"
        )
    if bandwidth == "self-tuning":
        scale = local_scales(neighbor_distance)
        return heat_weights(neighbor_distance, (scale, scale[neighbor_index]))
    t = median_bandwidth(neighbor_distance) if bandwidth == "median" else float(bandwidth)
    weight = heat_weights(neighbor_distance, t)
    if weight.numel() and not weight.any():
        warnings.warn(
            f"bandwidth={t:g} makes every edge weight 0: the median squared neighbour distance is "
            f"{median_bandwidth(neighbor_distance):g}; use bandwidth='median' or 'self-tuning'",
            UserWarning,
            stacklevel=2,
        )
    return weight


def attached_weights(
    neighbor_index: Tensor,
    neighbor_distance: Tensor,
    kernel: str,
    bandwidth: float | str,
    x_new: Tensor,
    x_old: Tensor,
    old_distance: Tensor,
) -> Tensor:
    """Weigh the lists of new samples [M, k], whose neighbours are old samples, as the old ones were weighed.

    ``bandwidth`` is t or "self-tuning"; in the latter the old samples keep their scales, which ``old_distance``
    [N, k] holds, and a new sample's scale is the distance to its own k-th neighbour.

    Returns
    -------
    Tensor, float32, shape [M, k]
    """
    if kernel == "binary":
        return torch.ones_like(neighbor_distance, dtype=torch.float32)
    if kernel == "cosine":
        return cosine_weights(neighbor_index, x_new, x_old)
    if isinstance(bandwidth, str):
        scale = local_scales(old_distance)
        own = torch.maximum(neighbor_distance[:, -1], scale.min())
        return heat_weights(neighbor_distance, (own, scale[neighbor_index]))
    return heat_weights(neighbor_distance, bandwidth)


def check_kernel(kernel: str, bandwidth: float | str) -> None:
    """Raise when the kernel or its bandwidth is not known."""
    check_choice(kernel, "kernel", KERNELS)
    if isinstance(bandwidth, str):
        if bandwidth not in BANDWIDTHS:
            raise ValueError(
                f"bandwidth={bandwidth!r} is not known; pass a number above 0, 'median' or 'self-tuning'"
            )
    else:
        check_number(bandwidth, "bandwidth", 0, open_low=True, remedy="or use 'median' or 'self-tuning'")


def symmetrize_edges(
    edge_index: Tensor, edge_weight: Tensor, num_nodes: int, mode: str = "union"
) -> tuple[Tensor, Tensor]:
    r"""Coalesce edges and make them symmetric.

    ``none`` leaves the directions; ``union``: :math:`\max(a_{ij}, a_{ji})`; ``mutual``: :math:`\min(a_{ij}, a_{ji})`,
    only where both directions exist; ``mean``: :math:`(A + A^T) / 2`. Repeated edges count once, with their largest
    weight; self loops are left out.

    Parameters
    ----------
    edge_index : Tensor, int64, shape [2, E]
    edge_weight : Tensor, shape [E]
    num_nodes : int
    mode : {"none", "union", "mutual", "mean"}

    Returns
    -------
    edge_index : Tensor, int64, shape [2, E']
        Sorted by target, then source, without duplicates.
    edge_weight : Tensor, shape [E']
    """
    check_choice(mode, "symmetrize", SYMMETRIZE)
    sparse = _symmetrize_sparse(edge_index, edge_weight, num_nodes, mode)
    if sparse is not None:
        return sparse
    edge_index, edge_weight = remove_self_loops(edge_index, edge_weight)
    if mode in ("mutual", "mean"):
        edge_index, edge_weight = _coalesce(edge_index, edge_weight, num_nodes, "max")
    if mode == "none":
        return _coalesce(edge_index, edge_weight, num_nodes, "max")
    both = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    weights = torch.cat([edge_weight, edge_weight])
    if mode == "mean":
        return _coalesce(both, weights / 2, num_nodes, "sum")
    if mode == "union":
        return _coalesce(both, weights, num_nodes, "max")
    count = _coalesce(both, torch.ones_like(weights), num_nodes, "sum")[1]
    joined, smallest = _coalesce(both, weights, num_nodes, "min")
    return joined[:, count == 2], smallest[count == 2]


def _coalesce(edge_index: Tensor, edge_weight: Tensor, num_nodes: int, reduce: str) -> tuple[Tensor, Tensor]:
    return coalesce(edge_index, edge_weight, num_nodes, reduce=reduce, sort_by_row=False)


def _symmetrize_sparse(
    edge_index: Tensor, edge_weight: Tensor, num_nodes: int, mode: str
) -> tuple[Tensor, Tensor] | None:
    """The same by sparse matrices with 8 bytes an edge, where no edge is repeated and each weighs something; else None.

    Sorting twice the edges as int64 would take ten times the memory, and most of the time of building a large graph.
    """
    tight = edge_weight.numel() and bool((edge_weight > 0).all())
    if edge_index.device.type != "cpu" or edge_weight.dtype != torch.float32 or not tight:
        return None
    source, target = (ends.numpy() for ends in edge_index)
    if num_nodes >= 2**31 or 2 * len(source) >= 2**31 or (source == target).any():
        return None
    shape = (num_nodes, num_nodes)
    if (target[1:] >= target[:-1]).all():  # as neighbour lists are
        pointer = np.concatenate([[0], np.cumsum(np.bincount(target, minlength=num_nodes))])
        matrix = csr_matrix(
            (edge_weight.numpy().copy(), source.astype(np.int32), pointer.astype(np.int32)), shape=shape
        )
    else:
        matrix = csr_matrix((edge_weight.numpy(), (target.astype(np.int32), source.astype(np.int32))), shape)
        if matrix.nnz < len(source):
            return None  # repeated edges were added up
    matrix.sort_indices()
    if not matrix.has_canonical_format:
        return None
    if mode != "none":
        mirror = matrix.T.tocsr()
        if mode == "union":
            matrix = matrix.maximum(mirror)
        elif mode == "mutual":
            matrix = matrix.minimum(mirror)
        else:
            matrix = (matrix * np.float32(0.5) + mirror * np.float32(0.5)).tocsr()
        del mirror
        matrix.sort_indices()
    edges = torch.empty((2, matrix.nnz), dtype=torch.int64)
    edges[0] = torch.from_numpy(matrix.indices)
    edges[1] = torch.arange(num_nodes).repeat_interleave(torch.from_numpy(np.diff(matrix.indptr)).long())
    return edges, torch.from_numpy(matrix.data)
