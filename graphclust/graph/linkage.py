"""Linkage on the sample graph from single samples up: sparse, so that a million samples merge in seconds."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from torch_geometric.data import Data

from graphclust._checks import check_count, check_number

#: Rounds of simultaneous merges end when one merges a smaller share of the groups; the rest is merged one by one.
_LEAST_SHARE = 0.02
#: Least sizes of a cluster that are tried, as shares of the mean size N / K.
_SHARES = (0.4, 0.3, 0.2, 0.1, 0.05)
#: Numbers of clusters that differ by this share count as the same.
_TOLERANCE = 0.05
_UNLINKED = 1e-12


class SampleTree(NamedTuple):
    """Merges of N samples into one, result of `link_samples`.

    Attributes
    ----------
    linkage : ndarray [N - 1, 4], float64
        In scipy's format, heights never falling: two nodes, height ``-log(similarity)``, number of samples.
    """

    linkage: NDArray[np.float64]

    @property
    def n_samples(self) -> int:
        """N."""
        return len(self.linkage) + 1

    def n_groups(self, min_size: float) -> NDArray[np.int64]:
        """Number of groups with at least `min_size` samples before the first merge and after each, [N]."""
        large = self._sizes() >= min_size
        first, second = self.linkage[:, :2].astype(np.int64).T
        made = large[self.n_samples :].astype(np.int64)
        change = made - large[first] - large[second]
        start = self.n_samples if min_size <= 1 else 0
        return np.concatenate([[start], start + np.cumsum(change)])

    def cut(self, n_merges: int) -> NDArray[np.int64]:
        """Group of each sample after `n_merges` merges, the largest group first, [N]."""
        n = self.n_samples
        parent = np.arange(n + n_merges, dtype=np.int64)
        pairs = self.linkage[:n_merges, :2].astype(np.int64)
        parent[pairs[:, 0]] = parent[pairs[:, 1]] = n + np.arange(n_merges)
        while True:  # each round halves the way to the root
            above = parent[parent]
            if np.array_equal(above, parent):
                break
            parent = above
        label = np.unique(parent[:n], return_inverse=True)[1]
        order = np.argsort(-np.bincount(label), kind="stable")
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        return rank[label]

    def top(self, n_leaves: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The tree above the cut that leaves `n_leaves` groups, and the group (leaf) of each sample.

        Returns
        -------
        linkage : ndarray [n_leaves - 1, 4]
            As `linkage`, but the leaves are groups of samples, and the last column counts leaves.
        leaf : ndarray [N], int64
        """
        n, done = self.n_samples, self.n_samples - n_leaves
        leaf = self.cut(done)
        first = self.linkage[:, 0].astype(np.int64)
        rest = np.array(self.linkage[done:])
        node = rest[:, :2].astype(np.int64)
        above = node >= n + done
        inside = np.where(above, 0, node)
        while (inside >= n).any():  # down to any sample in the group
            inside = np.where(inside >= n, first[np.maximum(inside - n, 0)], inside)
        rest[:, :2] = np.sort(np.where(above, node - done - n + n_leaves, leaf[inside]), axis=1)
        count = np.concatenate([np.ones(n_leaves), np.zeros(n_leaves - 1)])
        for i, (a, b) in enumerate(rest[:, :2].astype(np.int64)):
            count[n_leaves + i] = count[a] + count[b]
        rest[:, 3] = count[n_leaves:]
        return rest, leaf

    def _sizes(self) -> NDArray[np.float64]:
        return np.concatenate([np.ones(self.n_samples), self.linkage[:, 3]])


def sparse_weights(graph: Data) -> sp.csr_matrix:
    """The graph's weights [N, N], float32, symmetric (the mean of both directions), without a diagonal.

    Indices are int32, 8 bytes an edge, up to 2^31 edges.
    """
    assert graph.edge_index is not None
    source, target = graph.edge_index.cpu().numpy()
    n = int(graph.num_nodes or 0)
    weight = graph.edge_weight.detach().float().cpu().numpy()
    if (target[1:] >= target[:-1]).all():
        index_type = np.int32 if len(source) < 2**31 else np.int64
        pointer = np.zeros(n + 1, dtype=index_type)
        np.cumsum(np.bincount(target, minlength=n), out=pointer[1:])
        matrix = sp.csr_matrix((weight.copy(), source.astype(index_type), pointer), shape=(n, n))
    else:
        matrix = sp.csr_matrix((weight, (target, source)), shape=(n, n))
    mirror = matrix.T.tocsr()
    matrix.sort_indices()
    same = np.array_equal(matrix.indices, mirror.indices) and np.array_equal(matrix.data, mirror.data)
    if not same:
        matrix = ((matrix + mirror) * np.float32(0.5)).tocsr()
    matrix.setdiag(0)
    matrix.eliminate_zeros()
    return matrix


def link_samples(weights: sp.csr_matrix, *, exponent: float = 0.75) -> SampleTree:
    r"""Merge the two groups of samples with the largest similarity, until all are one.

    The similarity of groups a and b is :math:`W_{ab} / (n_a n_b)^\alpha` with :math:`W_{ab}` the weight of all
    edges between them. With :math:`\alpha = 1` it is average linkage (UPGMA, Sokal & Michener 1958) with 0 for pairs
    without an edge; then a group of 10,000 samples, whose halves share few edges for the number of their pairs, comes
    together later than two of 100 that merely touch. With :math:`\alpha = 1/2` it is the share of the edges that lead
    over, whatever the size. The default is between the two.

    All pairs that prefer each other are merged at once, round by round: for average linkage the same tree as one merge
    at a time (reciprocal nearest neighbours, Murtagh 1983; for graphs Sumengen et al. 2021, RAC), for smaller exponents
    nearly. When few do, the rest is merged one by one from a heap.

    Parameters
    ----------
    weights : csr_matrix [N, N]
        Symmetric and not negative, see `sparse_weights`.
    exponent : float, default=0.75
        Alpha, from 0.5 to 1.

    Returns
    -------
    SampleTree
        Groups without an edge between them are joined at the end, the largest first, at height -log(1e-12).

    Notes
    -----
    Time and memory grow with the number of edges: some 12 bytes an edge, and 100 a sample.
    """
    exponent = check_number(exponent, "exponent", 0.5, 1.0)
    n = weights.shape[0]
    merges = _Merges(n)
    current = weights
    while current.nnz:
        pairs, similarity = _preferred(current, merges.size[merges.alive], exponent)
        merged = merges.add(pairs, similarity)
        few = len(pairs) < _LEAST_SHARE * current.shape[0]
        current = _collapse(current, merged)
        if few:
            break
    _merge_one_by_one(current, merges, exponent)
    return merges.tree()


def _collapse(weights: sp.csr_matrix, group: NDArray[np.int64]) -> sp.csr_matrix:
    """Weights between groups, from those between what they are made of; without a diagonal."""
    group = group.astype(np.int32)
    n = int(group.max())
    rows = np.repeat(group, np.diff(weights.indptr))
    columns = group[weights.indices]
    across = rows != columns
    return sp.coo_matrix(
        (weights.data[across], (rows[across], columns[across])), shape=(n + 1, n + 1)
    ).tocsr()


class _Merges:
    """Merges as they happen; nodes are numbered as in scipy's linkage, in the order in which they come."""

    def __init__(self, n: int) -> None:
        self.n, self.count = n, 0
        self.size = np.ones(2 * n - 1)
        self.height = np.zeros(2 * n - 1)
        self.height[:n] = -np.inf
        self.pairs = np.empty((n - 1, 2), dtype=np.int64)
        self.alive = np.arange(n)  # node of each group there is

    def add(self, pairs: NDArray[np.int64], similarity: NDArray[np.float64]) -> NDArray[np.int64]:
        """Merge pairs of groups (positions in `alive`), and give the new position of each old group."""
        new = self.n + self.count + np.arange(len(pairs))
        nodes = self.alive[pairs]
        self._write(new, nodes, similarity)
        stays = np.ones(len(self.alive), dtype=bool)
        stays[pairs[:, 1]] = False
        place = np.cumsum(stays) - 1
        place[pairs[:, 1]] = place[pairs[:, 0]]
        self.alive[pairs[:, 0]] = new
        self.alive = self.alive[stays]
        return place

    def join(self, first: int, second: int, similarity: float) -> int:
        """Merge two nodes; the number of the new one."""
        new = self.n + self.count
        self._write(np.array([new]), np.array([[first, second]]), np.array([similarity]))
        return new

    def _write(
        self, new: NDArray[np.int64], nodes: NDArray[np.int64], similarity: NDArray[np.float64]
    ) -> None:
        self.pairs[self.count : self.count + len(new)] = nodes
        self.size[new] = self.size[nodes].sum(axis=1)
        own = -np.log(np.maximum(similarity, _UNLINKED))
        # No merge is lower than one inside it, or the tree could not be cut by height.
        self.height[new] = np.maximum(own, self.height[nodes].max(axis=1))
        self.count += len(new)

    def tree(self) -> SampleTree:
        height = self.height[self.n :]
        order = np.argsort(height, kind="stable")
        name = np.arange(2 * self.n - 1)
        name[self.n + order] = self.n + np.arange(self.n - 1)
        linkage = np.empty((self.n - 1, 4))
        linkage[:, :2] = np.sort(name[self.pairs[order]], axis=1)
        linkage[:, 2] = height[order] - min(0.0, float(height.min(initial=0.0)))
        linkage[:, 3] = self.size[self.n :][order]
        return SampleTree(linkage)


def _preferred(
    weights: sp.csr_matrix, size: NDArray[np.float64], exponent: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of groups that are each other's most similar one, [M, 2], at least one, and their similarities."""
    n = weights.shape[0]
    rows = np.repeat(np.arange(n, dtype=np.int32), np.diff(weights.indptr))
    power = size**-exponent
    similarity = weights.data * (power[rows] * power[weights.indices])
    most, best = row_maxima(similarity, weights.indices, weights.indptr, rows)
    group = np.arange(n)
    mutual = (best >= 0) & (best[best] == group) & (group < best)
    first = np.flatnonzero(mutual)
    if len(first) == 0:  # equal similarities in a ring
        first = np.array([most.argmax()])
    pairs = np.sort(np.stack([first, best[first]], axis=1), axis=1)
    return pairs, most[first]


def row_maxima(
    values: NDArray[np.float64],
    columns: NDArray[np.int32],
    pointer: NDArray[np.int32],
    rows: NDArray[np.int32],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Largest value of each row of a sparse matrix and its column, the first of equal ones; -inf and -1 where empty."""
    n = len(pointer) - 1
    filled = np.diff(pointer) > 0
    most, best = np.full(n, -np.inf), np.full(n, -1, dtype=np.int64)
    if filled.any():
        most[filled] = np.maximum.reduceat(values, pointer[:-1][filled])
    hit = np.flatnonzero(values == most[rows])[::-1]
    best[rows[hit]] = columns[hit]
    return most, best


def _merge_one_by_one(weights: sp.csr_matrix, merges: _Merges, exponent: float) -> None:
    """The merges that are left, from a heap; a pair's entry is an upper bound, brought up to date when it comes up."""
    size, power = merges.size, exponent
    alive = merges.alive.tolist()
    near: dict[int, dict[int, float]] = {}
    heap: list[tuple[float, int, int]] = []
    for position, node in enumerate(alive):
        row = slice(weights.indptr[position], weights.indptr[position + 1])
        others = [alive[j] for j in weights.indices[row]]
        near[node] = dict(zip(others, weights.data[row].tolist(), strict=True))
        heap += [(-w / (size[node] * size[o]) ** power, node, o) for o, w in near[node].items() if node < o]
    heapq.heapify(heap)
    # A merged group keeps the name of the larger of its two, whose entries in the heap stay valid as bounds.
    node_of = {node: node for node in near}
    while heap:
        bound, a, b = heapq.heappop(heap)
        if a not in near or b not in near[a]:
            continue
        node_a, node_b = node_of[a], node_of[b]
        value = near[a][b] / (size[node_a] * size[node_b]) ** power
        if -value > bound * (1 - 1e-9):
            heapq.heappush(heap, (-value, a, b))
            continue
        if len(near[b]) > len(near[a]):
            a, b = b, a
        new = merges.join(node_a, node_b, float(value))
        gone = near.pop(b)
        del node_of[b], near[a][b], gone[a]
        node_of[a] = new
        for other, weight in gone.items():
            total = near[a].get(other, 0.0) + weight
            near[a][other] = near[other][a] = total
            del near[other][b]
            bound = -total / (size[new] * size[node_of[other]]) ** power
            heapq.heappush(heap, (bound, min(a, other), max(a, other)))
    left = sorted(node_of.values(), key=lambda node: (-size[node], node))
    while len(left) > 1:
        left[0] = merges.join(left[0], left.pop(1), 0.0)


def cut_tree(tree: SampleTree, n_clusters: int, shares: tuple[float, ...] = _SHARES) -> NDArray[np.int64]:
    """K clusters of a tree: the last cut at which K groups are large enough to be clusters.

    Merging leaves a few samples that hardly any edge reaches alone to the end, and they would take the place of a
    cluster. How large a cluster must be is tried out (`shares` of the mean size N / K): the size is taken with which
    the number of clusters stays within 5 % of K over the longest range of heights.

    Parameters
    ----------
    tree : SampleTree
    n_clusters : int
        K, from 1 to N.
    shares : tuple of float

    Returns
    -------
    ndarray [N], int64
        Cluster of each sample, the largest group 0; -1 for samples of smaller groups (`join_groups`).
    """
    n = tree.n_samples
    n_clusters = check_count(n_clusters, "n_clusters", maximum=n)
    rise = np.diff(tree.linkage[:, 2], prepend=0.0, append=np.inf)  # how long each number of merges stands
    rise[-1] = 0.0
    best, found = -1.0, None
    for share in (*shares, 1.0 / n):
        count = tree.n_groups(share * n / n_clusters)
        at = np.flatnonzero(count == n_clusters)
        if not len(at) or (found is not None and share * n <= n_clusters):
            continue
        stands = float(rise[np.abs(count - n_clusters) <= _TOLERANCE * n_clusters].sum())
        if stands > best:
            best, found = stands, int(at[-1])
    assert found is not None  # K groups of any size there always are
    labels = tree.cut(found)
    return np.where(labels < n_clusters, labels, -1)


def join_groups(
    weights: sp.csr_matrix, labels: NDArray[np.int64], n_clusters: int, rounds: int = 5
) -> NDArray[np.int64]:
    """Each sample joins the cluster that most of its edge weight leads to; those of -1 come in from the border.

    Samples that no path joins to a cluster go to cluster 0. A cluster is never emptied.
    """
    n = len(labels)
    for _ in range(rounds):
        votes = _votes(weights, labels, n_clusters)
        rows = np.repeat(np.arange(n, dtype=np.int32), np.diff(votes.indptr))
        best = row_maxima(votes.data, votes.indices, votes.indptr, rows)[1]
        moved = np.where(best >= 0, best, labels)
        if (np.bincount(moved[moved >= 0], minlength=n_clusters) == 0).any() or (moved == labels).all():
            break
        labels = moved
    while (labels < 0).any():
        votes = _votes(weights, labels, n_clusters)
        rows = np.repeat(np.arange(n, dtype=np.int32), np.diff(votes.indptr))
        best = row_maxima(votes.data, votes.indices, votes.indptr, rows)[1]
        reached = (labels < 0) & (best >= 0)
        if not reached.any():
            return np.where(labels < 0, 0, labels)
        labels = np.where(reached, best, labels)
    return labels


def _votes(weights: sp.csr_matrix, labels: NDArray[np.int64], n_clusters: int) -> sp.csr_matrix:
    """Weight that leads from each sample to each cluster, [N, K], sparse; a little more for its own."""
    known = (labels >= 0).astype(np.int32)
    pointer = np.concatenate([[0], np.cumsum(known)]).astype(np.int32)
    own = labels[labels >= 0].astype(np.int32)
    member = sp.csr_matrix(
        (np.ones(len(own), dtype=np.float32), own, pointer), shape=(len(labels), n_clusters)
    )
    return (weights @ member + member * np.float32(1e-2)).tocsr()


def count_groups(tree: SampleTree, min_size: float) -> int:
    """Number of clusters that stands longest while samples merge.

    The number K of groups of at least `min_size` samples is followed through the merges. Where clusters have borders
    it hardly changes (by 5 %) while the number of all groups falls by a large factor: the number with the
    largest such factor is taken, the largest of equal ones.

    Returns
    -------
    int
        At least 1.
    """
    count = tree.n_groups(min_size)
    n = tree.n_samples
    # A point for each hundredth of the way down, on a logarithmic scale of the number of groups.
    points = np.unique(n - np.round(np.geomspace(n, 1, 600)).astype(np.int64))
    values = count[points]
    spacing = -np.diff(np.log(np.maximum(n - points, 1)), append=0.0)
    top = int(values.argmax())
    values, spacing = values[top:], spacing[top:]
    values, spacing = values[values > 1], spacing[values > 1]
    if not len(values):
        return 1
    length = [float(spacing[np.abs(values - v) <= _TOLERANCE * v].sum()) for v in values]
    return int(values[int(np.argmax(length))])
