"""Clusters without classes: on a graph (modularity, conductance) and on features (silhouette)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp

from graphclust._labels import as_array, encode_labels


def modularity(
    graph_or_edge_index: Any, labels: Any, edge_weight: Any = None, *, resolution: float = 1.0
) -> float:
    r"""Weight of the edges inside clusters, less what a random graph of the same degrees would have there.

    .. math:: Q = \sum_k \left[ \frac{w_{kk}}{2m} - \gamma \left( \frac{d_k}{2m} \right)^2 \right]

    with :math:`w_{kk}` the weight inside cluster k, :math:`d_k` its summed degree, :math:`2m` the sum of
    all degrees and :math:`\gamma` the resolution (Newman 2004; Reichardt and Bornholdt 2006). The graph is
    read as undirected, :math:`(W + W^T) / 2`, so an edge list that names each edge once and one that names
    both directions give the same.

    Parameters
    ----------
    graph_or_edge_index : Data, array-like of shape (2, E) or sparse adjacency (N, N)
        A PyG graph (its ``edge_weight`` is used if it has one), or the edges.
    labels : array-like of shape (N,)
        Cluster of each node, any hashable labels.
    edge_weight : array-like of shape (E,), optional
        Non-negative weights; takes precedence over those of the graph. Default: 1 for each edge.
    resolution : float
        Positive; above 1 it favours more and smaller clusters.

    Returns
    -------
    float
        At most 1; 0 for one cluster that holds everything (at resolution 1).

    Raises
    ------
    ValueError
        If there are no edges, an edge names a node without a label, or a weight is negative or not finite.

    Notes
    -----
    Time and memory are O(E). A self-loop counts as one entry of W, as in PyG's edge lists.
    """
    if not (math.isfinite(resolution) and resolution > 0):
        raise ValueError(f"resolution is {resolution!r}: give a positive number (1 is the usual modularity)")
    inside, volume = _cluster_weights(graph_or_edge_index, labels, edge_weight)
    total = volume.sum()
    return float(inside.sum() / total - resolution * np.square(volume / total).sum())


def conductance(
    graph_or_edge_index: Any, labels: Any, edge_weight: Any = None, *, per_cluster: bool = False
) -> float | np.ndarray:
    r"""Share of a cluster's edge weight that leaves it: the mean over the clusters. Lower is better.

    .. math:: \phi_k = \frac{\mathrm{cut}(k, \bar k)}{\min(\mathrm{vol}(k), \mathrm{vol}(\bar k))}

    with vol the summed degrees and :math:`\bar k` all other nodes. The graph is read as undirected, see
    :func:`modularity`.

    Parameters
    ----------
    graph_or_edge_index, labels, edge_weight
        As in :func:`modularity`.
    per_cluster : bool
        Return one value per cluster instead of the mean, in the sorted order of the labels (labels that
        cannot be sorted: in the order of appearance).

    Returns
    -------
    float or ndarray of shape (K,)
        In [0, 1]. A cluster that holds all edges has 0 (nothing is cut); a cluster without any edge has NaN
        and is left out of the mean, because isolated nodes would otherwise pass for perfect clusters.

    Raises
    ------
    ValueError
        As :func:`modularity`.
    """
    inside, volume = _cluster_weights(graph_or_edge_index, labels, edge_weight)
    cut = np.maximum(volume - inside, 0.0)
    smaller_side = np.minimum(volume, volume.sum() - volume)
    values = np.full(len(volume), np.nan)
    values[volume > 0] = 0.0
    np.divide(cut, smaller_side, out=values, where=(smaller_side > 0) & (volume > 0))
    return values if per_cluster else float(np.nanmean(values))


def _cluster_weights(
    graph_or_edge_index: Any, labels: Any, edge_weight: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Weight inside each cluster (both directions) and its summed degree, for (W + W^T) / 2."""
    codes, clusters = encode_labels(labels, "labels")
    edge_index: Any = graph_or_edge_index
    if hasattr(graph_or_edge_index, "edge_index"):
        edge_index = graph_or_edge_index.edge_index
        n_nodes = getattr(graph_or_edge_index, "num_nodes", None)
        if n_nodes is not None and n_nodes != len(codes):
            raise ValueError(
                f"the graph has {n_nodes} nodes and labels has {len(codes)} entries: give one per node"
            )
        if edge_weight is None:
            edge_weight = getattr(graph_or_edge_index, "edge_weight", None)
    if sp.issparse(edge_index):
        adjacency = edge_index.tocoo()
        edge_index = np.stack([adjacency.row, adjacency.col])
        edge_weight = adjacency.data if edge_weight is None else edge_weight
    edges = as_array(edge_index)
    if edges.ndim != 2 or edges.shape[0] != 2:
        raise ValueError(
            f"edge_index has shape {edges.shape}: it must be (2, E), row 0 sources and row 1 targets"
        )
    if edges.shape[1] == 0:
        raise ValueError(
            "the graph has no edges, so no graph score is defined: build it with n_neighbors >= 1"
        )
    if not np.issubdtype(edges.dtype, np.integer):
        raise ValueError(f"edge_index is of type {edges.dtype}: node numbers must be integers")
    if edges.min() < 0 or edges.max() >= len(codes):
        raise ValueError(
            f"edge_index names nodes {edges.min()} to {edges.max()}, but labels has {len(codes)} entries: "
            "give one label per node"
        )
    if edge_weight is None:
        weight = np.ones(edges.shape[1])
    else:
        weight = as_array(edge_weight).astype(np.float64, copy=False).ravel()
        if len(weight) != edges.shape[1]:
            raise ValueError(
                f"edge_weight has {len(weight)} entries and edge_index has {edges.shape[1]} edges: "
                "give one per edge"
            )
        if not np.isfinite(weight).all() or weight.min() < 0:
            raise ValueError("edge_weight has negative or non-finite entries: weights are similarities, >= 0")
        if weight.sum() == 0:
            raise ValueError(
                "all edge weights are 0, so no graph score is defined: widen the kernel's bandwidth"
            )
    source, target = codes[edges[0]], codes[edges[1]]
    n_clusters = len(clusters)
    same = source == target
    inside = np.bincount(source[same], weights=weight[same], minlength=n_clusters)
    volume = np.bincount(source, weights=weight, minlength=n_clusters)
    volume += np.bincount(target, weights=weight, minlength=n_clusters)
    return inside, volume / 2.0


def silhouette(
    x: Any, labels: Any, sample_size: int | None = 5000, random_state: int = 0, *, metric: str = "euclidean"
) -> float:
    r"""Mean silhouette (Rousseeuw 1987), :math:`(b_i - a_i) / \max(a_i, b_i)`, on a stratified sample.

    :math:`a_i` is the mean distance to the sample's own cluster and :math:`b_i` to the nearest other one.
    All pairs would be O(N^2), so a sample is drawn from each cluster in proportion to its size, but never
    so few that a rare cluster drops out; the mean weighs each drawn sample by how many it stands for.

    Parameters
    ----------
    x : array-like of shape (N, d)
        Features or embedding. Rows are read only where drawn, so a memory map is not loaded as a whole.
    labels : array-like of shape (N,)
        Clusters, any hashable labels. -1 (noise) is a cluster of its own; leave such samples out if you do
        not want it.
    sample_size : int or None
        About how many samples are drawn (at least 2 per cluster, so more when there are many clusters);
        None: all.
    random_state : int
        Seed of the draw.
    metric : str
        Any metric of ``sklearn.metrics.silhouette_samples``.

    Returns
    -------
    float
        In [-1, 1].

    Raises
    ------
    ValueError
        For fewer than two clusters, as many clusters as samples, non-finite features, or differing lengths.
    """
    from sklearn.metrics import silhouette_samples

    codes, clusters = encode_labels(labels, "labels")
    features = as_array(x)
    if features.ndim != 2:
        raise ValueError(
            f"x has shape {features.shape}: it must be (N, d); flatten with x.reshape(len(x), -1)"
        )
    if len(features) != len(codes):
        raise ValueError(
            f"x has {len(features)} rows and labels has {len(codes)} entries: give one per sample"
        )
    if sample_size is not None and sample_size < 2:
        raise ValueError(f"sample_size is {sample_size}: give at least 2, or None for all samples")
    if len(clusters) < 2:
        raise ValueError(
            "silhouette needs at least 2 clusters, and labels has 1: ask the method for more clusters, "
            "or score a single cluster by modularity"
        )
    if len(clusters) == len(codes):
        raise ValueError(
            f"each of the {len(codes)} samples is its own cluster: ask the method for fewer clusters"
        )
    sizes = np.bincount(codes)
    chosen = _stratified(codes, sizes, sample_size, random_state)
    drawn_codes = codes[chosen]
    drawn_x = np.array(features[chosen], dtype=np.float64)
    if not np.isfinite(drawn_x).all():
        raise ValueError("x has NaN or infinite values: drop or impute those samples first")
    if metric == "euclidean":  # far from the origin, products of rows lose what is between them
        drawn_x -= drawn_x.mean(axis=0)
    values = silhouette_samples(drawn_x, drawn_codes, metric=metric)
    drawn_sizes = np.bincount(drawn_codes, minlength=len(sizes))
    return float(np.average(values, weights=(sizes / drawn_sizes)[drawn_codes]))


def _stratified(
    codes: np.ndarray, sizes: np.ndarray, sample_size: int | None, random_state: int
) -> np.ndarray:
    """Sorted positions of a draw from every cluster, proportional to size with a floor."""
    if sample_size is None or sample_size >= len(codes):
        return np.arange(len(codes))
    # Up to half of the budget keeps rare clusters in; two is the least that has a distance inside the
    # cluster.
    floor = max(2, min(10, sample_size // (2 * len(sizes))))
    wanted = np.maximum(floor, np.rint(sizes * (sample_size / len(codes)))).astype(np.int64)
    order = np.random.default_rng(random_state).permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    rank_in_cluster = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[rank_in_cluster < np.repeat(wanted, sizes)])
