"""Partitions of the sample graph: parts of clusters are merged where most edges run between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor
from torch_geometric.data import Data

from graphclust._checks import check_count

_UNLINKED = 1e-12


class MergeTree(NamedTuple):
    """Result of `merge_parts`.

    Attributes
    ----------
    labels : Tensor [N], int64
        Cluster of each sample, 0 ... n_clusters - 1, the largest cluster first.
    linkage : ndarray [P - 1, 4]
        Merges of the P parts in scipy's format, up to the root: two nodes, height, number of parts. The height is
        ``-log`` of the mean edge weight between the two, so that it grows; all heights are shifted alike where the
        first would be negative (weights above 1). Pairs without an edge have a weight of 1e-12, a height of 27.6; where
        their positions are known, it falls with the squared distance of their means from there on.
    part_labels : ndarray [P]
        Cluster of each part.
    parts : Tensor [N], int64
        Part of each sample, 0 ... P - 1: the leaves of the tree.
    """

    labels: Tensor
    linkage: np.ndarray
    part_labels: np.ndarray
    parts: Tensor


def part_weights(
    graph: Data, parts: Tensor, n_parts: int, counts: NDArray[np.int64] | None = None
) -> np.ndarray:
    """Sum of the edge weights from each part to each other, [P, P], symmetric; for `counts` see `merge_weights`."""
    assert graph.edge_index is not None
    source, target = graph.edge_index.cpu()
    parts = parts.cpu()
    flat = (parts[source] * n_parts + parts[target]).numpy()
    weight = graph.edge_weight.double().cpu().numpy()
    if counts is not None:
        weight = weight * counts[source.numpy()] * counts[target.numpy()]
    total = np.bincount(flat, weights=weight, minlength=n_parts * n_parts).reshape(n_parts, n_parts)
    return (total + total.T) / 2


def merge_parts(
    graph: Data, parts: Tensor, n_clusters: int, positions: Tensor | None = None, *, min_size: float = 1
) -> MergeTree:
    """Average linkage on the graph: merge the two parts with the largest mean edge weight, until K are left.

    The similarity of parts a and b is ``W_ab / (n_a n_b)``, the weight of all edges between them over the number of
    pairs of samples: UPGMA (Sokal & Michener 1958) with the sample graph's weight as similarity and 0 for pairs
    without an edge. A thin bridge between two dense clusters counts for little, because it is shared by all pairs.

    Parameters
    ----------
    graph : Data
        With edge_index and edge_weight.
    parts : Tensor [N], int64
        Part of each sample, 0 ... P - 1: an over-segmentation such as k-means with many centres.
    n_clusters : int
        K, from 1 to P.
    positions : Tensor [N, d], optional
        Codes of the samples. Where no edge joins any two parts (a graph of more than K components), those with the
        nearest means are merged; without positions, the two smallest.
    min_size : float, default=1
        Average linkage leaves a few samples that hardly any edge reaches alone to the end, and they would take the
        place of a cluster. Groups below this size do not count as clusters: the tree is cut where K others stand
        (where that never happens, where the K-th largest group is largest), and each group joins the cluster that it
        has the largest mean edge weight to, without an edge the one with the nearest mean.

    Returns
    -------
    MergeTree
    """
    return merge_parts_at(graph, parts, n_clusters, positions, [min_size])[0]


def merge_parts_at(
    graph: Data,
    parts: Tensor,
    n_clusters: int,
    positions: Tensor | None,
    min_sizes: Sequence[float],
    counts: NDArray[np.int64] | None = None,
) -> list[MergeTree]:
    """`merge_parts` with each of several least sizes of a cluster."""
    assert graph.edge_index is not None
    least = int(graph.edge_index.max()) + 1 if graph.edge_index.numel() else 1
    if parts.ndim != 1 or len(parts) < least:
        raise ValueError(
            f"parts has shape {list(parts.shape)}, it must be [N] and the edges name {least} samples"
        )
    parts = torch.unique(parts.cpu(), return_inverse=True)[1]
    n_parts = int(parts.max()) + 1
    remedy = f"there are {n_parts} parts; split the samples into more, or ask for fewer clusters"
    n_clusters = check_count(n_clusters, "n_clusters", maximum=n_parts, remedy=remedy)
    between = part_weights(graph, parts, n_parts, counts)
    return merge_weights(between, parts, n_clusters, positions, min_sizes, counts)


def merge_weights(
    between: np.ndarray,
    parts: Tensor,
    n_clusters: int,
    positions: Tensor | None,
    min_sizes: Sequence[float],
    counts: NDArray[np.int64] | None = None,
) -> list[MergeTree]:
    """`merge_parts`, for parts 0 ... P - 1 with the sum of all weights [P, P] from each to each other.

    One tree, which is cut for each of the least sizes of a cluster. Row i stands for `counts[i]` equal samples, if
    given: for one otherwise.
    """
    n_parts = len(between)
    weights = between.copy()
    size = np.bincount(parts.numpy(), weights=counts, minlength=n_parts).astype(float)
    means = None if positions is None else _means(positions, parts.numpy(), n_parts, counts)
    similarity = between / np.outer(size, size)
    np.fill_diagonal(similarity, -np.inf)
    linked = _BestPair(similarity)
    alive = np.ones(n_parts, dtype=bool)
    node = np.arange(n_parts)  # scipy's number of the cluster that lives in each slot
    n_leaves = np.ones(n_parts)  # ... and of how many parts it is made
    slot_of_part = np.arange(n_parts)
    linkage = np.zeros((n_parts - 1, 4))
    cuts = [_Cut(n_clusters, min_size, slot_of_part) for min_size in min_sizes]
    height = -np.inf
    near: _BestPair | None = None  # by place, from where no edge joins any two clusters
    # Squared distance of the first two of these, and what counts as the weight of the last.
    first_gap, unlinked = 0.0, _UNLINKED
    for step in range(n_parts - 1):
        for cut in cuts:
            cut.look(size[alive], slot_of_part)
        i, j, value = linked.pair()
        if value <= 0:
            if means is None:
                i, j = _smallest_pair(alive, size)
            else:
                near = near or _BestPair(-_squared_distances(means, alive))
                i, j, score = near.pair()
                first_gap = first_gap or -score
                unlinked = _UNLINKED * first_gap / max(-score, first_gap, 1e-300)
            value = 0.0
        height = max(height, -np.log(value if value > _UNLINKED else unlinked))
        linkage[step] = (*sorted((node[i], node[j])), height, n_leaves[i] + n_leaves[j])
        if means is not None:
            means[i] = (size[i] * means[i] + size[j] * means[j]) / (size[i] + size[j])
        size[i] += size[j]
        n_leaves[i] += n_leaves[j]
        alive[j] = False
        between[i] += between[j]
        between[:, i] += between[:, j]
        slot_of_part[slot_of_part == j] = i
        node[i] = n_parts + step
        row = np.where(alive, between[i] / (size[i] * size), -np.inf)
        row[i] = -np.inf
        linked.merge(i, j, row)
        if near is not None and means is not None:
            near.merge(i, j, -_squared_distances(means, alive, i))
    # Heights start at 0, as a dendrogram expects.
    linkage[:, 2] -= min(0.0, float(linkage[:, 2].min())) if len(linkage) else 0.0
    leaf = parts.numpy()
    trees = []
    for cut in cuts:
        part_labels = (
            np.unique(cut.groups, return_inverse=True)[1] if n_clusters > 1 else np.zeros(n_parts, int)
        )
        if part_labels.max() >= n_clusters:
            part_labels = _join_small(part_labels, leaf, weights, positions, n_clusters, counts)
        # A label should not depend on the order of the parts: the largest cluster is 0.
        sizes = np.bincount(part_labels[leaf], weights=counts, minlength=n_clusters)
        rank = np.empty(n_clusters, dtype=int)
        rank[np.argsort(-sizes, kind="stable")] = np.arange(n_clusters)
        part_labels = rank[part_labels]
        trees.append(MergeTree(torch.from_numpy(part_labels[leaf]), linkage, part_labels, parts))
    return trees


class _Cut:
    """Where a tree is cut: where K groups of at least `min_size` stand last, else where the K-th largest is largest."""

    def __init__(self, n_clusters: int, min_size: float, groups: np.ndarray) -> None:
        self.n_clusters, self.min_size = n_clusters, min_size
        self.groups = groups.copy()
        self.found, self.largest = False, 0.0

    def look(self, sizes: np.ndarray, groups: np.ndarray) -> None:
        """Between two merges: the sizes of the groups there are, and the group of each part."""
        if int((sizes >= self.min_size).sum()) == self.n_clusters:
            self.groups, self.found = groups.copy(), True
        elif not self.found and len(sizes) >= self.n_clusters:
            smallest = float(np.partition(sizes, -self.n_clusters)[-self.n_clusters])
            if smallest >= self.largest:
                self.groups, self.largest = groups.copy(), smallest


def _means(
    positions: Tensor, group: np.ndarray, n_groups: int, counts: NDArray[np.int64] | None
) -> np.ndarray:
    """Mean positions of groups, [n_groups, d]; each row counts as often as `counts` says."""
    rows = positions.double().cpu().numpy()
    means = np.zeros((n_groups, rows.shape[1]))
    np.add.at(means, group, rows if counts is None else rows * counts[:, None])
    return means / np.bincount(group, weights=counts, minlength=n_groups)[:, None]


def _join_small(
    part_labels: np.ndarray,
    parts: np.ndarray,
    weights: np.ndarray,
    positions: Tensor | None,
    n_clusters: int,
    counts: NDArray[np.int64] | None,
) -> np.ndarray:
    """Give the parts of all groups but the `n_clusters` largest to these; labels 0 ... n_clusters - 1."""
    n_groups = int(part_labels.max()) + 1
    group = part_labels[parts]
    size = np.bincount(group, weights=counts, minlength=n_groups).astype(float)
    kept = np.argsort(-size, kind="stable")[:n_clusters]
    member = np.zeros((n_groups, len(part_labels)))
    member[part_labels, np.arange(len(part_labels))] = 1.0
    linked = (member @ weights @ member.T)[:, kept] / np.outer(size, size[kept])
    target = linked.argmax(axis=1)
    lone = linked.max(axis=1) <= 0
    if positions is not None and lone.any():
        means = _means(positions, group, n_groups, counts)
        distance = ((means[lone][:, None] - means[kept][None]) ** 2).sum(axis=2)
        target[lone] = distance.argmin(axis=1)
    target[kept] = np.arange(n_clusters)
    return target[part_labels]


def _smallest_pair(alive: np.ndarray, size: np.ndarray) -> tuple[int, int]:
    """Two clusters to merge when no edge joins any and nobody knows where they lie."""
    slots = np.flatnonzero(alive)
    first, second = slots[np.argsort(size[slots], kind="stable")[:2]]
    return int(first), int(second)


def _squared_distances(means: np.ndarray, alive: np.ndarray, i: int | None = None) -> np.ndarray:
    """Between all clusters that are alive [P, P], or from cluster i to them [P]; infinite to itself and to others."""
    rows = means if i is None else means[i : i + 1]
    distance = cdist(rows, means, "sqeuclidean")
    distance[:, ~alive] = np.inf
    if i is not None:
        distance[0, i] = np.inf
        return distance[0]
    distance[~alive] = np.inf
    np.fill_diagonal(distance, np.inf)
    return distance


class _BestPair:
    """Which two clusters have the highest score, kept up to date from merge to merge: each row knows its best partner.

    Parameters
    ----------
    score : ndarray [P, P]
        Symmetric; -inf for what cannot be merged: a cluster with itself, and one that has gone.
    """

    def __init__(self, score: np.ndarray) -> None:
        self.score = score
        self.rows = np.arange(len(score))
        self.best = score.argmax(axis=1)
        self.gone = np.zeros(len(score), dtype=bool)

    def pair(self) -> tuple[int, int, float]:
        """Both, and their score."""
        i = int(self.score[self.rows, self.best].argmax())
        j = int(self.best[i])
        return i, j, float(self.score[i, j])

    def merge(self, i: int, j: int, row: np.ndarray) -> None:
        """Cluster j has gone into i, whose scores are now `row`."""
        self.score[i], self.score[:, i] = row, row
        self.score[j], self.score[:, j] = -np.inf, -np.inf
        self.gone[j] = True
        # Only rows whose best partner was touched, or that now prefer the merged cluster, can change.
        changed = (row > self.score[self.rows, self.best]) | (self.best == i) | (self.best == j)
        changed[i] = True
        changed &= ~self.gone
        self.best[changed] = self.score[changed].argmax(axis=1)


def check_distinct(n_different: int, n_clusters: int, *, given_edges: bool = False) -> None:
    """Raise ValueError where fewer samples differ than clusters are asked for; edges that were given may tell more."""
    if n_different >= n_clusters:
        return
    remedy = ""
    if given_edges:
        remedy = f', or read them from the given edges: GraphContrastClustering({n_clusters}, view="edges")'
    if n_different == 1:
        remedy += ", as graphclust.cluster does" if given_edges else ""
        raise ValueError(f"n_clusters={n_clusters}, and all samples are equal: ask for at most 1{remedy}")
    raise ValueError(
        f"n_clusters={n_clusters} is more than the samples can be told apart into: there are {n_different} "
        f"kinds of them, all others are equal; ask for at most {n_different}{remedy}"
    )
