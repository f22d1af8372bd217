"""Mini-batches by neighbour sampling: the part of a graph that a few seed samples can see.

A network of L layers reads, for one sample, its L-hop in-neighbourhood, which soon is the whole graph.
GraphSAGE (Hamilton, Ying and Leskovec, "Inductive representation learning on large graphs", NeurIPS 2017)
reads at most f_h random in-neighbours of each node in hop h instead, so that the cost of a batch no longer
depends on the size of the graph.

Whole communities as batches (:func:`community_loader`) need no neighbours besides.

:class:`NeighborSampler` draws from the distribution of :class:`torch_geometric.loader.NeighborLoader`
(``subgraph_type="directional"``, not disjoint), but needs numpy alone, where PyG asks for a compiled library.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler
from torch_geometric.data import Data
from torch_geometric.loader import NodeLoader
from torch_geometric.sampler import NodeSamplerInput, SamplerOutput

from graphclust._checks import check_count
from graphclust.graph._draws import RandomState, torch_seed
from graphclust.graph._sampler import InducedSampler, NeighborSampler, check_nodes

__all__ = ["NeighborSampler", "SeededNodeLoader", "community_loader", "neighbor_loader"]


class SeededNodeLoader(NodeLoader):
    """A ``NodeLoader`` whose batches, and their order, depend on `random_state` and the epoch alone.

    Each ``iter(loader)`` is an epoch; ``loader.epoch`` is the number of the next one. Made by
    :func:`neighbor_loader`.
    """

    node_sampler: NeighborSampler

    def __init__(
        self,
        data: Data,
        node_sampler: NeighborSampler,
        *,
        shuffle: bool,
        groups: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        self.epoch = 0
        self._order: _Permutation | None = None
        if shuffle:
            n_seeds = _num_seeds(data, kwargs.get("input_nodes"))
            self._order = kwargs["sampler"] = _Permutation(n_seeds, node_sampler.root, groups)
        if kwargs.get("filter_per_worker") is None and kwargs.get("num_workers", 0) > 0:
            # A forked worker sees the features as they are; other starts would copy even a memory map.
            context = kwargs.get("multiprocessing_context") or multiprocessing
            method = context if isinstance(context, str) else context.get_start_method()
            kwargs["filter_per_worker"] = None if method == "fork" else False
        # Without a generator of its own, each pass of a DataLoader draws from torch's global one.
        kwargs.setdefault("generator", torch.Generator().manual_seed(node_sampler.root))
        super().__init__(data, node_sampler, **kwargs)
        if self.num_workers > 0:
            node_sampler._clock.share_memory_()
        if not self.filter_per_worker:
            # The loader's own method drags the features along.
            self.collate_fn = _SampleSeeds(node_sampler, self.input_data)

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass the one numbered `epoch` (0 or more), as when training resumes."""
        self.epoch = check_count(epoch, "epoch", minimum=0)

    def __iter__(self) -> Iterator[Data]:
        self.node_sampler.seed(self.epoch)
        if self._order is not None:
            self._order.epoch = self.epoch
        self.epoch += 1
        return super().__iter__()


def neighbor_loader(
    graph: Data,
    num_neighbors: Sequence[int],
    batch_size: int,
    *,
    shuffle: bool = False,
    input_nodes: Tensor | Sequence[int] | None = None,
    replace: bool = False,
    rescale: bool = False,
    backend: str = "auto",
    random_state: RandomState = None,
    attributes: Sequence[str] = (),
    **kwargs: Any,
) -> SeededNodeLoader:
    r"""Mini-batches of a graph: seeds first, then their sampled neighbours.

    Parameters
    ----------
    graph : torch_geometric.data.Data
        ``edge_index`` [2, E]; ``x`` [N, d] and ``edge_weight`` [E] travel with the batch where present. Of a
        memory-mapped ``x`` only a batch's rows are read.
    num_neighbors, replace, backend, random_state
        See :class:`NeighborSampler`. `random_state` also decides the order of a shuffle.
    batch_size : int
        Seeds a batch, at least 1.
    shuffle : bool
        A new order of the seeds in each epoch.
    input_nodes : int64 tensor or sequence [S], or bool tensor [N], optional
        The seeds; all nodes by default.
    rescale : bool
        Multiply each sampled edge's weight (1 where the graph has none) by

        .. math:: d_v / s_v,

        with d_v the in-degree of its target in the graph and s_v the number of in-edges sampled for it. As
        an edge is sampled with probability s_v / d_v, the expected weighted sum over a node's sampled
        in-edges is then the sum over all of them (Horvitz and Thompson, JASA 1952).
    attributes : sequence of str
        Further node-level attributes of `graph` that the batch shall carry. None does unless named here.
    **kwargs
        For ``NodeLoader`` and ``DataLoader``: ``num_workers``, ``drop_last``, ``transform`` (runs after
        rescaling), ...

    Returns
    -------
    SeededNodeLoader
        Yields ``Data`` with ``x``, ``edge_index`` (local), ``edge_weight``, ``n_id`` [n], ``e_id`` [m],
        ``batch_size``, ``input_id``, ``num_sampled_nodes`` and ``num_sampled_edges``.

    Raises
    ------
    TypeError, ValueError
        For inputs outside of the above.
    """
    batch_size = check_count(batch_size, "batch_size")
    if shuffle and ("sampler" in kwargs or "batch_sampler" in kwargs):
        raise ValueError("shuffle=True excludes sampler and batch_sampler; leave one of them out")
    sampler = NeighborSampler(
        graph, num_neighbors, replace=replace, backend=backend, random_state=random_state
    )
    if input_nodes is not None:
        input_nodes = check_nodes(input_nodes, sampler.num_nodes, "input_nodes")
    if "batch_sampler" not in kwargs:
        kwargs["batch_size"] = batch_size
    data = (
        _rescaling(_travelling(graph, attributes), sampler, kwargs)
        if rescale
        else _travelling(graph, attributes)
    )
    return SeededNodeLoader(data, sampler, shuffle=bool(shuffle), input_nodes=input_nodes, **kwargs)


def community_loader(
    graph: Data,
    communities: Tensor,
    batch_size: int,
    *,
    rescale: bool = False,
    random_state: RandomState = None,
    attributes: Sequence[str] = (),
    **kwargs: Any,
) -> SeededNodeLoader:
    r"""Mini-batches of whole communities, in a new random order in each epoch, with all edges among their nodes.

    Cluster-GCN (Chiang et al., KDD 2019): of nodes with most of their edges inside their community, a batch of some
    communities holds most neighbours, so none are sampled besides. A step costs what its own nodes cost, however many
    convolutions there are, where the sampled neighbourhood of as many single nodes is often most of the graph. The
    price: edges between communities are seen only where chance puts both into one batch.

    Parameters
    ----------
    graph, rescale, random_state, attributes, **kwargs
        See :func:`neighbor_loader`.
    communities : Tensor [N], int64
        Community of each node, such as :func:`graphclust.graph.communities` finds; a sixteenth of the batch size, or
        less, is a good limit of their sizes, so that batches differ.
    batch_size : int
        Nodes a batch; where that is amid a community, its other nodes are in the next batch.

    Returns
    -------
    SeededNodeLoader
        All nodes of a batch are its seeds.
    """
    batch_size = check_count(batch_size, "batch_size")
    sampler = InducedSampler(graph, random_state=random_state)
    if communities.shape != (sampler.num_nodes,):
        raise ValueError(
            f"communities has shape {list(communities.shape)}, it must hold one number for each of the "
            f"{sampler.num_nodes} nodes"
        )
    data = (
        _rescaling(_travelling(graph, attributes), sampler, kwargs)
        if rescale
        else _travelling(graph, attributes)
    )
    return SeededNodeLoader(data, sampler, shuffle=True, groups=communities, batch_size=batch_size, **kwargs)


def _rescaling(data: Data, sampler: NeighborSampler, kwargs: dict[str, Any]) -> Data:
    """The data with edge weights, and in `kwargs` the transform that multiplies them in each batch."""
    if "edge_weight" not in data:
        assert data.edge_index is not None
        data.edge_weight = torch.ones(data.edge_index.shape[1], device=data.edge_index.device)
    kwargs["transform"] = _Rescale(sampler.in_degree, kwargs.get("transform"))
    return data


class _Permutation(Sampler[int]):
    """A random order of 0 ... n - 1 that depends on a seed and the epoch; the members of a group follow each other."""

    def __init__(self, length: int, root: int, groups: Tensor | None = None) -> None:
        self.length, self.root, self.epoch, self.groups = length, root, 0, groups

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(torch_seed(np.random.SeedSequence([self.root, self.epoch])))
        if self.groups is None:
            order = torch.randperm(self.length, generator=generator)
        else:
            place = torch.randperm(int(self.groups.max()) + 1, generator=generator)
            order = place[self.groups].argsort(stable=True)
        for part in order.split(1 << 16):  # Python integers take four times the memory of the tensor
            yield from part.tolist()


class _SampleSeeds:
    """Turns positions in the list of seeds into a sample, without holding the features."""

    def __init__(self, sampler: NeighborSampler, seeds: NodeSamplerInput) -> None:
        self.sampler, self.seeds = sampler, seeds

    def __call__(self, index: Sequence[int]) -> SamplerOutput:
        return self.sampler.sample_from_nodes(self.seeds[index])


class _Rescale:
    """Multiplies the weight of a batch's edges by in-degree / sampled in-edges of their target."""

    def __init__(self, in_degree: Tensor, then: Callable[[Data], Data] | None) -> None:
        self.in_degree, self.then = in_degree, then

    def __call__(self, batch: Data) -> Data:
        target = batch.edge_index[1]
        sampled = torch.bincount(target, minlength=batch.n_id.numel())
        full = self.in_degree[batch.n_id.cpu()].to(target.device)
        # A node without a sampled edge gives 0 / 0 or d / 0 here, but is no edge's target, so it is never
        # read.
        batch.edge_weight = batch.edge_weight * (full / sampled)[target].to(batch.edge_weight.dtype)
        return batch if self.then is None else self.then(batch)


def _travelling(graph: Data, attributes: Sequence[str]) -> Data:
    """Return what a batch carries: NodeLoader cuts every node-level attribute of its data, wanted or not."""
    if isinstance(attributes, str):
        raise TypeError(
            f"attributes must be a sequence of names, got the string {attributes!r}; use [{attributes!r}]"
        )
    data = Data(edge_index=graph.edge_index)
    if graph.x is not None:
        data.x = graph.x
    else:
        data.num_nodes = graph.num_nodes
    if graph.edge_weight is not None:
        if graph.edge_weight.shape != graph.edge_index.shape[1:]:
            raise ValueError(
                f"edge_weight has shape {list(graph.edge_weight.shape)}, but edge_index has "
                f"{graph.edge_index.shape[1]} edges; give one weight an edge"
            )
        data.edge_weight = graph.edge_weight
    for name in attributes:
        if name not in graph or not graph.is_node_attr(name):
            known = graph.node_attrs()
            raise ValueError(
                f"attributes names {name!r}, which is not a node-level attribute; the graph has {known}"
            )
        data[name] = graph[name]
    return data


def _num_seeds(data: Data, nodes: Tensor | None) -> int:
    if nodes is None:
        return int(data.num_nodes or 0)
    return int(nodes.sum()) if nodes.dtype == torch.bool else len(nodes)
