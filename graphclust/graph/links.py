"""Pairs of samples that linkage may merge: those of a graph, and as few more as join its components."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from graphclust.graph.metric import Metric
from graphclust.graph.sample_graph import SampleGraph

_BLOCK_VALUES = 1 << 22
#: Samples that are compared at once, and those from which on a component is no longer put together with others.
_ROWS, _LEAST = 256, 32


def linked_pairs(graph: SampleGraph, metric: Metric) -> NDArray[np.int64]:
    """Pairs of samples that an edge joins, and as few more as it takes to leave no sample out of reach.

    Where the graph has several components, each is joined to its nearest sample of another one, until there is one
    component (Boruvka's way to a shortest spanning tree). Samples are compared block by block with those that may be
    nearer than what is known, by the distances of the blocks' means and their radii (triangle inequality): with all
    others, N^2 / 2 distances, only where components lie within each other.

    Parameters
    ----------
    graph : SampleGraph
        With features and edges; self loops do not count.
    metric : Metric

    Returns
    -------
    ndarray [E, 2], int64
        Each pair once, the smaller sample first, sorted.
    """
    n = graph.x.size(0)
    assert graph.edge_index is not None
    pairs = graph.edge_index.cpu().numpy().T
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    outside: _Outside | None = None
    while True:
        joined = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
        n_components, component = connected_components(joined, directed=False)
        if n_components == 1:
            return pairs
        component = component.astype(np.int64)
        if outside is None:
            order = {"manhattan": 1.0, "minkowski": metric.p}.get(metric.name, 2.0)
            outside = _Outside(_comparable(graph.x.cpu(), metric), component, order)
        more = np.sort(outside.pairs(component), axis=1)
        pairs = np.unique(np.concatenate([pairs, more]), axis=0)


def pair_distances(x: Tensor, pairs: NDArray[np.int64], metric: Metric) -> NDArray[np.float64]:
    """Distances [E] between the two samples of each pair [E, 2], from their differences."""
    first, second = torch.from_numpy(np.ascontiguousarray(pairs.T))
    step = max(1, _BLOCK_VALUES // x.size(1))
    blocks = [
        metric.direct(x[first[i : i + step]], x[second[i : i + step]].unsqueeze(1)).squeeze(1)
        for i in range(0, len(pairs), step)
    ]
    return torch.cat(blocks).numpy() if blocks else np.empty(0)


def _comparable(x: Tensor, metric: Metric) -> Tensor:
    """Rows in float32 whose distances (for the cosine: Euclidean ones) are in the order of the metric's."""
    if metric.name == "cosine":
        return torch.nn.functional.normalize(x.float())
    # Around the mean float32 loses least in the expanded square.
    blocks = x.split(max(1, _BLOCK_VALUES // x.size(1)))
    mean = torch.stack([block.double().sum(dim=0) for block in blocks]).sum(dim=0) / len(x)
    return torch.cat([(block.double() - mean).float() for block in blocks])


class _Outside:
    """What is nearest to each component in another one, while components grow together.

    Parameters
    ----------
    x : Tensor [N, d]
    component : ndarray [N], int64
        At first: 0 ... C - 1. A block has samples of one of them, or of several small ones.
    order : float
        p of the Minkowski distance.
    """

    def __init__(self, x: Tensor, component: NDArray[np.int64], order: float) -> None:
        self.order = order
        self.place = torch.from_numpy(np.argsort(component, kind="stable"))
        self.rows = x[self.place]
        self.start = torch.from_numpy(_block_starts(np.bincount(component)))
        self.stop = torch.cat([self.start[1:], torch.tensor([len(x)])])
        self.center = torch.empty((len(self.start), x.shape[1]), dtype=torch.float64)
        self.radius = torch.empty(len(self.start), dtype=torch.float64)
        for number, (a, b) in enumerate(zip(self.start, self.stop, strict=True)):
            block = self.rows[a:b].double()
            self.center[number] = block.mean(dim=0)
            self.radius[number] = torch.cdist(self.center[number, None], block, p=order).max()
        # The nearest sample of another component that each one has met.
        self.near = torch.full((len(x),), torch.inf)
        self.other = torch.zeros(len(x), dtype=torch.int64)

    def pairs(self, component: NDArray[np.int64]) -> NDArray[np.int64]:
        """Nearest pair [C - 1, 2] of a sample of each component but the largest, and one of another component."""
        belongs = torch.from_numpy(component)[self.place]
        largest = int(belongs.bincount().argmax())
        self.near[belongs[self.other] == belongs] = torch.inf
        best = torch.full((int(belongs.max()) + 1,), torch.inf)
        best.scatter_reduce_(0, belongs, self.near, "amin")
        first = belongs[self.start]
        single = torch.tensor(
            [bool((belongs[a:b] == belongs[a]).all()) for a, b in zip(self.start, self.stop, strict=True)]
        )
        for number in range(len(self.start)):
            if not (single[number] and first[number] == largest):
                closed = (single & (first == first[number])) if single[number] else torch.zeros_like(single)
                self._compare(number, belongs, closed, best)
        chosen = (belongs != largest).nonzero().squeeze(1)
        keys = (self.place[chosen], self.near[chosen], belongs[chosen])
        chosen = chosen[torch.from_numpy(np.lexsort([key.numpy() for key in keys]))]
        _, one = np.unique(belongs[chosen].numpy(), return_index=True)
        ends = chosen[torch.from_numpy(one)]
        return torch.stack([self.place[ends], self.place[self.other[ends]]], dim=1).numpy()

    def _compare(self, number: int, belongs: Tensor, closed: Tensor, best: Tensor) -> None:
        """Compare a block with all that may hold something nearer than the `best` of its components."""
        own = slice(int(self.start[number]), int(self.stop[number]))
        apart = torch.cdist(self.center[number : number + 1], self.center, p=self.order)[0]
        # A hundred-thousandth for what float32 rounds.
        bound = (1 - 1e-5) * apart - (1 + 1e-5) * (self.radius[number] + self.radius)
        bound, block = bound.masked_fill_(closed, torch.inf).sort()
        done, width = 0, 4
        while done < len(bound) and bound[done] < torch.inf and bound[done] <= best[belongs[own]].max():
            some = block[done : done + width][bound[done : done + width] < torch.inf]
            done, width = done + width, 2 * width
            ranges = [torch.arange(a, b) for a, b in zip(self.start[some], self.stop[some], strict=True)]
            for part in torch.cat(ranges).split(_BLOCK_VALUES // _ROWS):
                distance = torch.cdist(self.rows[own], self.rows[part], p=self.order)
                distance.masked_fill_(belongs[own, None] == belongs[part], torch.inf)
                found = distance.min(dim=1)
                nearer = found.values < self.near[own]
                self.near[own] = torch.where(nearer, found.values, self.near[own])
                self.other[own] = torch.where(nearer, part[found.indices], self.other[own])
            best.scatter_reduce_(0, belongs[own], self.near[own], "amin")


def _block_starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where blocks begin among samples in the order of their components of these sizes [C].

    Large components are cut into blocks of their own, whose radius is small; small ones share a block.
    """
    starts: list[int] = []
    begin = shared = 0
    for size in sizes.tolist():
        if size >= _LEAST:
            starts.extend(range(begin, begin + size, _ROWS))
            shared = 0
        else:
            if shared == 0 or shared + size > _ROWS:
                starts.append(begin)
                shared = 0
            shared += size
        begin += size
    return np.array(starts, dtype=np.int64)
