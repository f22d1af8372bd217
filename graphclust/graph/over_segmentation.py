"""Over-segmentations of samples into parts, and the partition of the sample graph that several of them agree on."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch_geometric.data import Data

from graphclust._random import run_seeds
from graphclust.graph.partition import MergeTree, check_distinct, merge_parts, merge_parts_at

#: Samples of a group that may be a cluster, however large the others are; and what is asked for where there are few.
_LEAST_SIZE, _USUAL_SHARE = 8.0, 0.3
#: Parts, where there are fewer clusters: a table of them has 8 bytes an entry.
_MOST_PARTS = 6_000


def consensus_partition(
    graph: Data,
    codes: Tensor,
    n_clusters: int,
    *,
    parts_per_cluster: int = 24,
    n_runs: int = 6,
    min_share: float = 0.3,
    random_state: int = 0,
) -> MergeTree:
    """K clusters that several over-segmentations of the same graph agree on.

    Each run splits the samples into many parts (k-means on `codes`) and merges them by average linkage on the graph
    (`merge_parts`). Then every edge is weighed by the square of the share of runs that kept its ends together
    (evidence accumulation, Fred & Jain 2005, on the graph's edges alone: N k numbers instead of N^2), and one more
    over-segmentation is merged on these weights. A single run now and then splits one cluster and joins two others;
    the runs disagree about where.

    Parameters
    ----------
    graph : Data
        With edge_index and edge_weight.
    codes : Tensor [N, d]
        Positions for k-means, best smoothed over the graph (a few propagations).
    n_clusters : int
        K.
    parts_per_cluster : int, default=24
        Parts of an over-segmentation for each cluster; fewer where parts would hold less than 8 samples on average.
    n_runs : int, default=6
    min_share : float, default=0.3
        Groups smaller than this share of the mean cluster size N / K do not count as clusters (`least_sizes`).
    random_state : int

    Returns
    -------
    MergeTree

    Raises
    ------
    ValueError
        When fewer than K samples differ.
    """
    n = codes.shape[0]
    assert graph.edge_index is not None
    source, target = graph.edge_index.cpu()
    options: dict[str, Any] = {"parts_per_cluster": parts_per_cluster, "min_share": min_share}
    labels = merged_runs(graph, codes, n_clusters, n_runs=n_runs, random_state=random_state, **options)
    together = torch.zeros(source.shape[0])
    for run in labels:
        together += (run[source] == run[target]).float()
    weighed = copy.copy(graph)
    # A small rest keeps parts linked where the runs never agreed.
    weighed.edge_weight = graph.edge_weight.cpu() * ((together / n_runs).square() + 1e-6)
    n_parts = _part_count(n, n_clusters, parts_per_cluster)
    parts = split_parts(codes, n_parts, random_state=run_seeds(random_state, n_runs + 1)[-1])
    return merge_parts(weighed, parts, n_clusters, codes, min_size=min_share * n / n_clusters)


def _part_count(n_samples: int, n_clusters: int, parts_per_cluster: int) -> int:
    # Tables of parts by parts are held.
    return max(n_clusters, min(parts_per_cluster * n_clusters, n_samples // 8, _MOST_PARTS))


def merged_runs(
    graph: Data,
    codes: Tensor,
    n_clusters: int,
    *,
    parts_per_cluster: int = 24,
    n_runs: int = 6,
    min_share: float | Sequence[float] = 0.3,
    random_state: int = 0,
    keep_apart: bool = False,
    counts: NDArray[np.int64] | None = None,
) -> Tensor:
    """Labels [n_runs, N] of the single runs of `consensus_partition`, with its parameters.

    With several shares the same trees are cut for each of them: [S, n_runs, N]. With `keep_apart` no part holds samples
    of two components of the graph that are both large enough to be clusters. With `counts` [N] each node stands for so
    many equal samples.
    """
    n = codes.shape[0]
    n_samples = n if counts is None else int(counts.sum())
    shares = [min_share] if isinstance(min_share, (int, float)) else list(min_share)
    sizes = least_sizes(shares, n_samples, n_clusters)
    n_parts = _part_count(n, n_clusters, parts_per_cluster)
    large = _large_components(graph, n, max(shares) * n / n_clusters) if keep_apart else None
    runs = []
    for run_seed in run_seeds(random_state, n_runs):
        parts = split_parts(codes, n_parts, random_state=run_seed, counts=counts)
        parts = parts if large is None else _apart(parts, large)
        given_edges = not getattr(graph, "joins_neighbors", False)
        check_distinct(len(parts.unique()), n_clusters, given_edges=given_edges)
        trees = merge_parts_at(graph, parts, n_clusters, codes, sizes, counts)
        runs.append(torch.stack([tree.labels for tree in trees]))
    labels = torch.stack(runs, dim=1)
    return labels[0] if isinstance(min_share, (int, float)) else labels


def least_sizes(shares: Sequence[float], n_samples: int, n_clusters: int) -> list[float]:
    """Samples of the smallest group that is a cluster, for shares of N / K: of small ones at least 8, if they can be.

    A few samples that lie apart together are outliers.
    """
    mean = n_samples / n_clusters
    return [max(share * mean, min(_LEAST_SIZE, _USUAL_SHARE * mean)) for share in shares]


def _large_components(graph: Data, n_samples: int, least: float) -> np.ndarray | None:
    """Component of each sample [N], -1 in those of less than `least` samples; None where one alone is that large."""
    assert graph.edge_index is not None
    source, target = graph.edge_index.cpu().numpy()
    edges = sp.coo_matrix((np.ones(len(source)), (source, target)), shape=(n_samples, n_samples))
    component = connected_components(edges, directed=False)[1]
    large = np.bincount(component) >= least
    if large.sum() < 2:
        return None
    number = np.where(large, np.cumsum(large) - 1, -1)
    return np.asarray(number[component])


def _apart(parts: Tensor, component: np.ndarray) -> Tensor:
    """Parts [N], split between large components; samples of none go with the larger piece of theirs."""
    part = parts.numpy()
    n_components = int(component.max()) + 1
    inside = component >= 0
    held = np.zeros((int(part.max()) + 1, n_components), dtype=np.int64)
    np.add.at(held, (part[inside], component[inside]), 1)
    piece = np.where(inside, component, held.argmax(axis=1)[part])
    return torch.from_numpy(np.unique(part * n_components + piece, return_inverse=True)[1])


def _spread_centers(x: np.ndarray, n_clusters: int, random_state: np.random.RandomState) -> np.ndarray:
    """First centres by k-means++ in float64: of float32 scikit-learn converts blocks at each step, in twice the time.

    float32 itself would not do: where a few samples are far out, it cannot tell the others' distances.
    """
    return kmeans_plusplus(x.astype(np.float64), n_clusters, random_state=random_state)[0].astype(x.dtype)


def split_parts(
    codes: Tensor, n_parts: int, *, random_state: int = 0, counts: NDArray[np.int64] | None = None
) -> Tensor:
    """An over-segmentation: labels [N] of k-means with many centres and few iterations on `codes` [N, d].

    With `counts` [N], each row counts as so many.
    """
    kmeans = KMeans(n_parts, init=_spread_centers, n_init=1, max_iter=20, random_state=random_state % 2**32)
    with warnings.catch_warnings():
        # Equal samples make fewer parts, which is no fault of theirs.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = kmeans.fit_predict(codes.float().cpu().numpy(), sample_weight=counts)
    return torch.from_numpy(labels).long()
