"""The form that a sample graph keeps its edges in, after others have changed them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from graphclust._checks import KEPT_DTYPES
from graphclust.graph.sample_graph import SampleGraph, edge_weight_of

#: Edges that are looked at at once: what comparing them takes stays small.
_BLOCK = 1 << 20


def in_form(graph: SampleGraph) -> SampleGraph:
    """The graph itself where its edges are as `SampleGraph` says, else one with the same edges in that form.

    A PyG transform keeps the type of a graph and not its form: `AddSelfLoops` adds loops, `ToUndirected` sorts by
    source. Loops are dropped, repeated edges count once (the heaviest), weights that are missing are 1.

    Where each edge has a weight and none is repeated, the graph knows as before how it was built; else its edges count
    as given, for weights of 1 or the heaviest of several are none that its kernel gives to new samples.

    Parameters
    ----------
    graph : SampleGraph
        With edges.

    Raises
    ------
    ValueError, TypeError
        Where no form helps: weights below 0 or NaN, ends that are no samples, features that are not valid.
    """
    if is_in_form(graph):
        return graph
    edges, weight = graph.edge_index, edge_weight_of(graph)
    assert edges is not None
    given = SampleGraph.from_edges(edges, graph.x, weight, symmetrize="none")
    assert given.edge_index is not None
    once = int((edges[0] != edges[1]).sum()) == given.edge_index.size(1)
    lists = (graph.neighbor_index, graph.neighbor_distance)
    known = all(one is not None and len(one) == len(given.x) for one in lists) or not graph.joins_neighbors
    mended = copy.copy(graph)
    for name in dict(graph.items()):
        if graph.is_edge_attr(name):  # in the order of before
            mended._store.pop(name)
    mended.x, mended.edge_index, mended.edge_weight = given.x, given.edge_index, given.edge_weight
    if not (once and known and weight is not None):
        mended._store.pop("neighbor_index", None)
        mended._store.pop("neighbor_distance", None)
        mended.construction = given.construction
    return mended


def is_in_form(graph: SampleGraph) -> bool:
    """Whether edges are int64 within the samples, without loops, sorted, unrepeated, with weights from 0 to infinity.

    Everything is read once, in blocks, so that millions of edges take milliseconds.
    """
    x, edges, weight = graph.get("x"), graph.get("edge_index"), graph.get("edge_weight")
    if not isinstance(x, Tensor) or x.dtype not in KEPT_DTYPES or not isinstance(edges, Tensor):
        return False
    if edges.dtype != torch.int64 or edges.ndim != 2 or edges.size(0) != 2:
        return False
    return _are_weights(weight, edges.size(1)) and _are_ends(edges, len(x))


def _are_weights(weight: Any, n_edges: int) -> bool:
    if not isinstance(weight, Tensor) or weight.dtype != torch.float32 or weight.shape != (n_edges,):
        return False
    if not n_edges:
        return True
    low, high = (float(bound) for bound in weight.detach().aminmax())
    return low >= 0 and high < float("inf")  # NaN is neither


def _are_ends(edges: Tensor, n_samples: int) -> bool:
    """Whether edges [2, E] join different samples, by target, then source, each pair once."""
    n_edges = edges.size(1)
    for start in range(0, n_edges, _BLOCK):
        # With the last edge of the block before, which is compared with the first of this one.
        source, target = edges[:, max(0, start - 1) : start + _BLOCK]
        low, high = source.aminmax()
        if int(low) < 0 or int(high) >= n_samples or int(target[0]) < 0 or bool((source == target).any()):
            return False
        later = target[1:] > target[:-1]
        beside = (target[1:] == target[:-1]) & (source[1:] > source[:-1])
        if not bool((later | beside).all()):
            return False
    return not n_edges or int(edges[1, -1]) < n_samples  # the largest target
