"""Moves between the clusters of a partition: one is split, and two are joined or a half changes sides."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import subgraph

from graphclust.graph.partition import MergeTree, merge_parts, part_weights

#: A pair is joined only when its mean edge weight is at least this share of that between the halves of the cluster
#: that is split for it.
_COMPARABLE = 0.5


class _Groups:
    """Groups of parts, by a 0/1 matrix [groups, parts]: weights between them, degrees and sizes."""

    def __init__(self, member: np.ndarray, weights: np.ndarray, size: np.ndarray) -> None:
        self.between = member @ weights @ member.T
        self.degree = member @ weights.sum(axis=1)
        self.size = member @ size

    def joining(self, i: int) -> np.ndarray:
        """What modularity gains when group i joins each other, W_ij / m - d_i d_j / m^2, up to a factor of 2."""
        m = self.total
        return self.between[i] / m - self.degree[i] * self.degree / m**2

    def linkage(self, i: int) -> np.ndarray:
        """Mean edge weight between group i and each other, W_ij / (n_i n_j)."""
        return self.between[i] / (self.size[i] * self.size)

    @property
    def total(self) -> float:
        return float(self.between.sum())


class _Move(NamedTuple):
    gain: float
    part_labels: np.ndarray


def rearranged(graph: Data, tree: MergeTree, *, min_size: float = 1) -> MergeTree:
    r"""K clusters of higher modularity, by moves that average linkage finds nearly as good.

    Average linkage is greedy: where a cluster has two styles, it may keep them apart to the end and join two other
    clusters instead, and all over-segmentations of the same graph may do so. A move undoes one such decision: a
    cluster is split in two (by average linkage of its parts), and either the two clusters that gain most by it are
    joined, or one half joins another cluster. The move that raises the modularity

    .. math:: Q = \sum_c \frac{W_{cc}}{m} - \Big(\frac{d_c}{m}\Big)^2

    most is made, until none does. Modularity alone would split large clusters and join small ones that have nothing
    to do with each other (its resolution limit; Fortunato and Barthelemy 2007); so what is joined must have at least
    half the mean edge weight of what is split.

    Parameters
    ----------
    graph : Data
        With edge_index and edge_weight.
    tree : MergeTree
        Of `consensus_partition` or `merge_parts`.
    min_size : float, default=1
        Samples that each half of a split must have.

    Returns
    -------
    MergeTree
        With new `labels` and `part_labels`, the largest cluster first; linkage and parts are those of `tree`.
    """
    label = np.array(tree.part_labels)
    n_clusters = int(label.max()) + 1
    if n_clusters < 2:
        return tree
    n_parts = len(label)
    weights = part_weights(graph, tree.parts, n_parts)
    size = np.bincount(tree.parts.numpy(), minlength=n_parts).astype(float)
    halves: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray] | None] = {}
    # Each move raises Q, so none comes twice; the bound only limits the time.
    for _ in range(n_clusters):
        moves = []
        for cluster in range(n_clusters):
            inside = np.flatnonzero(label == cluster)
            key = tuple(inside.tolist())
            if key not in halves:
                halves[key] = _halves(graph, tree.parts, inside, min_size)
            split = halves[key]
            if split is not None:
                moves += _moves(label, cluster, split, weights, size)
        if not moves:
            break
        label = max(moves, key=lambda move: move.gain).part_labels
    count = np.bincount(label, weights=size, minlength=n_clusters)
    rank = np.argsort(np.argsort(-count, kind="stable"), kind="stable")
    label = rank[label]
    return tree._replace(labels=torch.from_numpy(label[tree.parts.numpy()]), part_labels=label)


def _halves(
    graph: Data, parts: Tensor, inside: np.ndarray, min_size: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """The parts of the two halves of a cluster; None where it has no two of `min_size` samples."""
    if len(inside) < 2:
        return None
    assert graph.edge_index is not None
    kept = torch.isin(parts, torch.from_numpy(inside))
    edges, weight = subgraph(
        kept, graph.edge_index.cpu(), graph.edge_weight.cpu(), relabel_nodes=True, num_nodes=len(parts)
    )
    if not edges.numel():
        return None
    data = Data(edge_index=edges, edge_weight=weight, num_nodes=int(kept.sum()))
    # The parts come out in increasing order, as `inside` has them.
    cut = merge_parts(data, parts[kept], 2, min_size=min_size)
    if cut.labels.bincount(minlength=2).min() < min_size:
        return None
    return inside[cut.part_labels == 0], inside[cut.part_labels == 1]


def _moves(
    label: np.ndarray,
    cluster: int,
    split: tuple[np.ndarray, np.ndarray],
    weights: np.ndarray,
    size: np.ndarray,
) -> list[_Move]:
    """The moves for which `cluster` is split, of those that raise modularity."""
    n_clusters = int(label.max()) + 1
    # The second half stands for itself, after all clusters.
    apart = label.copy()
    apart[split[1]] = n_clusters
    member = np.zeros((n_clusters + 1, len(label)))
    member[apart, np.arange(len(label))] = 1.0
    groups = _Groups(member, weights, size)
    lost = groups.joining(cluster)[n_clusters]
    least = _COMPARABLE * groups.linkage(cluster)[n_clusters]
    moves = []
    for i in range(n_clusters + 1):
        gain = groups.joining(i) - lost
        gain[groups.linkage(i) < least] = -np.inf
        gain[i] = -np.inf
        if i in (cluster, n_clusters):
            gain[[cluster, n_clusters]] = -np.inf
        j = int(gain.argmax())
        # A tie in float64 is no gain.
        if gain[j] > 1e-9:
            joined = apart.copy()
            joined[apart == j] = i
            moves.append(_Move(float(gain[j]), np.unique(joined, return_inverse=True)[1]))
    return moves
