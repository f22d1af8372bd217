"""New samples beside those of a sample graph: their edges, and rows of both without a copy of either."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import coalesce

from graphclust._checks import check_count, check_features
from graphclust.graph.kernels import attached_weights, neighbor_edges
from graphclust.graph.known_samples import search_among
from graphclust.graph.metric import Metric
from graphclust.graph.neighborhood import PartRows, around

#: Samples that are compared at once.
_ROWS = 65536


class StackedRows:
    """The rows of two tables [N, ...] and [M, ...], one after the other: what is asked for is copied, nothing else.

    Parameters
    ----------
    first, second : Tensor
        On the same device; the first may be a memory map. Rows have the type that holds both.
    """

    def __init__(self, first: Tensor, second: Tensor) -> None:
        self.first, self.second = first, second
        self.shape = torch.Size([len(first) + len(second), *first.shape[1:]])
        self.dtype = torch.promote_types(first.dtype, second.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Rows by their numbers, int64 [n], or a slice of them without steps."""
        n = len(self.first)
        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            parts = (
                self.first[min(start, n) : min(stop, n)],
                self.second[max(start - n, 0) : max(stop - n, 0)],
            )
            return torch.cat([part.to(self.dtype) for part in parts])
        index = index.to(self.first.device)
        known = index < n
        rows = torch.empty((len(index), *self.shape[1:]), dtype=self.dtype, device=self.first.device)
        rows[known] = self.first[index[known]].to(self.dtype)
        rows[~known] = self.second[index[~known] - n].to(self.dtype)
        return rows

    def split(self, size: int) -> Iterator[Tensor]:
        """Blocks of `size` rows, the last one shorter, as those of a tensor."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def tensor(self) -> Tensor:
        """All rows as one tensor, of the first table's type where the second's values are none the worse for it."""
        kept = self.second.to(self.first.dtype)
        if torch.equal(kept.to(self.dtype), self.second.to(self.dtype)):
            return torch.cat([self.first, kept])
        return self[:]


def neighbors_in(graph: Any, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k samples of a graph that are nearest to others [M, d], by the graph's metric: indices, distances [M, k]."""
    how = graph.construction
    if how.get("source") == "codes":
        raise ValueError(
            "the graph joins samples by the codes of a network, among which features have no place: use `predict` of "
            "the model that it belongs to"
        )
    metric = Metric.make(how["metric"], how["p"])
    return search_among(graph, len(x), metric, index=how["index"], recall=how["recall"]).neighbors(x, k)


def attach(graph: Any, x_new: Any, hops: int | None = None) -> Any:
    """A sample graph with new samples joined to it, whose features and lists are `StackedRows`.

    What of a large graph a network reads for a few new samples is little; see `SampleGraph.attach` for the graph
    as a whole, the parameters and what is raised.

    With `hops` it is the part of that graph that so many convolutions read for the new samples (`PartRows`), unless
    this is a large one. Its nodes are in the order of the graph, the new samples the last, and its attribute ``part``
    has their numbers there. Propagation weights that are computed from it are those of the whole graph at all edges
    that the convolutions read. Neighbour lists it has none.

    Its attribute ``stand_for`` [M] says which node is each new sample: the old one that it equals, else its own. (As a
    new one it would be its own nearest neighbour, and be read elsewhere than it was.)
    """
    how = graph.construction
    if how.get("source") not in ("features", "codes") or "normalized" in how:
        raise ValueError(
            "only a graph made by SampleGraph.from_features (and not normalised) knows how to attach samples"
        )
    old, old_distance = graph.x, graph["neighbor_distance"]
    n, d = old.shape
    new = check_features(x_new, "x_new", n_features=d).to(old.device)
    k = check_count(how["n_neighbors"], "n_neighbors", 1, n)
    neighbor_index, distance = neighbors_in(graph, new, k)
    bandwidth = how.get("t", how["bandwidth"])
    weight = attached_weights(neighbor_index, distance, how["kernel"], bandwidth, new, old, old_distance)
    edges = neighbor_edges(neighbor_index, n)
    edges, edge_weight = coalesce(edges, weight.flatten(), n + len(new), sort_by_row=False)
    stand_for = nodes_of(old, new, neighbor_index)
    part = None
    if hops is not None:
        # The degrees of the nodes that the first convolution reads need the edges into them; and what all convolutions
        # make of an old node begins a step further away than what they make of a new one beside it.
        steps = hops + int((stand_for < n).any())
        part = around(graph.edge_index, n, neighbor_index.flatten().cpu(), steps)
    if part is not None:
        return _part_of(graph, StackedRows(old, new), edges, edge_weight, stand_for, *part)
    attached = type(graph)(num_nodes=n + len(new))
    attached.x = StackedRows(old, new)
    attached.edge_index = torch.cat([graph.edge_index, edges], dim=1)
    attached.edge_weight = torch.cat([graph.edge_weight, edge_weight])
    attached["neighbor_index"] = StackedRows(graph["neighbor_index"], neighbor_index)
    attached["neighbor_distance"] = StackedRows(old_distance, distance)
    attached.num_old = n
    attached.stand_for = stand_for
    attached.construction = how
    return attached


def nodes_of(old: Tensor, new: Tensor, neighbors: Tensor) -> Tensor:
    """Which node each of new samples [M, d] is: the first of its neighbours [M, k] that it equals, else the N + i-th.

    The nearest one is not always the equal one: among collinear rows the cosine tells no difference.
    """
    found = torch.arange(len(old), len(old) + len(new), device=neighbors.device)
    for block in torch.arange(len(new), device=neighbors.device).split(_ROWS):
        for near in neighbors.T:
            equal = (old[near[block]] == new[block]).all(dim=1)
            found[block[equal]] = near[block[equal]]
            block = block[~equal]
            if not len(block):
                break
    return found.cpu()


def _part_of(
    graph: Any,
    x: StackedRows,
    edges: Tensor,
    edge_weight: Tensor,
    stand_for: Tensor,
    nodes: Tensor,
    columns: Tensor,
) -> Any:
    """Old nodes and edges (columns of edge_index) that are near new samples, these, and the edges into them."""
    n = len(x.first)
    nodes = torch.cat([nodes, torch.arange(n, len(x))])
    device = graph.edge_index.device
    every = torch.cat([graph.edge_index[:, columns.to(device)].cpu(), edges.cpu()], dim=1)
    attached = type(graph)(num_nodes=len(nodes))
    attached.x = PartRows(x, nodes)
    attached.edge_index = torch.searchsorted(nodes, every).to(device)
    attached.edge_weight = torch.cat([graph.edge_weight[columns.to(device)], edge_weight])
    attached.num_old = len(nodes) - len(x.second)
    attached.part = nodes
    attached.stand_for = torch.searchsorted(nodes, stand_for)
    attached.construction = graph.construction
    return attached
