"""Communities of limited size: what a batch of a large graph is made of."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data

from graphclust._checks import check_count
from graphclust._random import run_seeds

#: Rounds on one level, and the share of nodes that must move for another.
_ROUNDS, _LEAST_MOVED = 30, 0.01
#: A level must leave at most this share of the communities of the one before for another.
_LEAST_MERGED = 0.9
#: How far equal connections are told apart at random, as a share of them.
_NOISE = 0.01


def communities(graph: Data, max_size: int, *, random_state: int = 0) -> Tensor:
    """Groups of nodes with many edges inside and few between, none larger than `max_size`.

    Label propagation (Raghavan, Albert & Kumara 2007) with limited sizes, as multilevel graph partitioners coarsen by
    it (Meyerhenke, Sanders & Schulz 2014): each node joins the community that it has the largest edge weight to and
    that has room; in a round a random half of the nodes choose at once. Then the communities are the nodes of a smaller
    graph, and so on until few merge. A round takes time and memory proportional to the number of edges.

    Parameters
    ----------
    graph : Data
        With edge_index [2, E], and edge_weight [E] (not negative) or none for weights of 1.
    max_size : int
        Nodes of the largest community.
    random_state : int

    Returns
    -------
    Tensor [N], int64
        Community of each node, 0 ... C - 1. A node without an edge is a community of its own.
    """
    max_size = check_count(max_size, "max_size")
    n = int(graph.num_nodes or 0)
    assert graph.edge_index is not None
    source, target = graph.edge_index.cpu().numpy()
    weight = graph.get("edge_weight")
    values = np.ones(len(source)) if weight is None else weight.detach().cpu().numpy()
    joined = sp.csr_matrix((values.astype(np.float32), (target, source)), shape=(n, n))
    joined = joined + joined.T  # of directed edges too the ends are joined
    generator = np.random.default_rng(run_seeds(random_state, 1)[0])
    labels, size = np.arange(n), np.ones(n, dtype=np.int64)
    while True:
        joined.setdiag(0)
        joined.eliminate_zeros()
        found = np.unique(_propagated_labels(joined, size, max_size, generator), return_inverse=True)[1]
        labels = found[labels]
        n_before, n_now = len(size), int(found.max(initial=-1)) + 1
        if n_now > _LEAST_MERGED * n_before:
            return torch.from_numpy(labels)
        size = np.bincount(found, weights=size).astype(np.int64)
        members = _members(found, n_now)
        joined = (members.T @ joined @ members).tocsr()


def _members(labels: NDArray[np.int64], n_labels: int) -> sp.csr_matrix:
    """1 for each row's label, [N, n_labels]."""
    n = len(labels)
    return sp.csr_matrix((np.ones(n, dtype=np.float32), labels, np.arange(n + 1)), shape=(n, n_labels))


def _propagated_labels(
    joined: sp.csr_matrix, weight: NDArray[np.int64], max_size: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Label of each node [N], of which each weighs `weight` [N]; those of a label together at most `max_size`."""
    n = len(weight)
    labels, size = np.arange(n), weight.copy()
    for _ in range(_ROUNDS):
        some = np.flatnonzero(generator.random(n) < 0.5)
        link = joined[some] @ _members(labels, n)  # weight of each node's edges to each community
        count = np.diff(link.indptr)
        some, start, count = some[count > 0], link.indptr[:-1][count > 0], count[count > 0]
        if not len(some):
            break
        row = np.repeat(np.arange(len(some)), count)
        at_home = link.indices == labels[some][row]
        value = link.data * (1 + _NOISE * generator.random(len(row), dtype=np.float32))
        value[~at_home & (size[link.indices] + weight[some][row] > max_size)] = -1.0
        best = np.maximum.reduceat(value, start)
        choice = labels[some]
        chosen = np.flatnonzero(value == best[row])
        choice[row[chosen]] = link.indices[chosen]
        moving = np.flatnonzero((best > 0) & (choice != labels[some]))
        # Where more come than there is room for, those with the strongest links.
        moving = moving[np.lexsort((-best[moving], choice[moving]))]
        moving = moving[_fitting(choice[moving], weight[some[moving]], max_size - size)]
        nodes, to = some[moving], choice[moving]
        np.subtract.at(size, labels[nodes], weight[nodes])
        np.add.at(size, to, weight[nodes])
        labels[nodes] = to
        if len(nodes) < _LEAST_MOVED * n:
            break
    return labels


def _fitting(
    choice: NDArray[np.int64], weight: NDArray[np.int64], room: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which of those that come to a community, sorted by it, still fit in, the first ones first."""
    if not len(choice):
        return np.zeros(0, dtype=bool)
    total = np.cumsum(weight)
    first = np.flatnonzero(np.diff(choice, prepend=-1))
    before = np.repeat(total[first] - weight[first], np.diff(first, append=len(choice)))
    return np.asarray(total - before <= room[choice])
