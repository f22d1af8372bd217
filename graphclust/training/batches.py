"""From a sample graph to batches: the full graph is a batch that holds everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphclust.graph.communities import communities
from graphclust.graph.sampling import SeededNodeLoader, community_loader, neighbor_loader
from graphclust.nn.adjacency import Adjacency, propagation_weights
from graphclust.training.processes import ALONE, Share

#: Communities that a batch is made of, at least: fewer would show it few kinds of samples.
_COMMUNITIES = 16


@dataclass
class Batch:
    """Samples that one step reads.

    Attributes
    ----------
    x : Tensor [n, d]
        Features of the batch's own `size` samples first, then of the neighbours sampled for them.
    index : Tensor [b]
        Numbers of the batch's own samples in the data set.
    n_samples : int
        Size N of the data set.
    adjacency : Adjacency or None
        Edges among the n rows of x.
    whole : int
        Samples of the batch over all processes that train together; b where one trains alone.
    """

    x: Tensor
    index: Tensor
    n_samples: int
    adjacency: Adjacency | None = None
    whole: int = 0

    def __post_init__(self) -> None:
        self.whole = self.whole or self.size

    @property
    def size(self) -> int:
        """b, the number of samples whose loss counts."""
        return self.index.shape[0]

    @property
    def is_part(self) -> bool:
        """Whether other processes have other parts of the batch; else they have all of it too."""
        return self.size < self.whole


class BatchSource:
    """Serves the batches of an epoch, reproducibly: the same seed and epoch give the same batches.

    Parameters
    ----------
    graph : Data
        With x, edge_index, edge_weight (a `SampleGraph`); x may be memory-mapped, a batch reads its rows alone.
    normalization : {"symmetric", "row"}
        Of the propagation matrix, from the whole graph's degrees also when neighbours are sampled.
    num_neighbors : sequence of int
        Neighbours sampled per hop, one number for each convolution; -1 takes all.
    device : torch.device
    sampling : {"neighbors", "communities"}
        Of batches of the graph: some samples at random and neighbours sampled for them, or whole communities (of at
        most a sixteenth of the batch, `graphclust.graph.communities`) and the edges among their samples. Of several
        processes each has some of a batch's communities, without the edges to the others.
    num_workers : int
        Processes that sample neighbours and read features ahead of the training, see
        `graphclust.graph.sampling.neighbor_loader`; the batches are the same with any number.
    """

    def __init__(
        self,
        graph: Data,
        *,
        normalization: str = "symmetric",
        num_neighbors: Sequence[int] = (-1,),
        sampling: str = "neighbors",
        device: torch.device | str = "cpu",
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        assert graph.x is not None
        self.x: Tensor = graph.x
        self.graph = graph
        self.n_samples = int(graph.x.shape[0])
        self.num_neighbors = list(num_neighbors)
        self.sampling = sampling
        self.device = torch.device(device)
        self.seed = seed
        self.num_workers = num_workers
        self.normalization = normalization
        #: Codes of all samples [N, d] by the network as it is, if they were computed since its last step.
        self.codes: Tensor | None = None
        self._full: dict[bool, Batch] = {}
        self._weights: tuple[Tensor, Tensor] | None = None
        self._loader: SeededNodeLoader | None = None
        self._loader_of: tuple[int, int | None, Share] | None = None

    @property
    def weights(self) -> tuple[Tensor, Tensor]:
        """Propagation weights of the edges [E] and of the self loops [N]."""
        if self._weights is None:
            graph = self.graph
            assert graph.edge_index is not None
            self._weights = propagation_weights(
                graph.edge_index, graph.edge_weight, self.n_samples, self.normalization
            )
        return self._weights

    def n_batches(self, batch_size: int | None) -> int:
        """Steps in an epoch."""
        return 1 if batch_size is None else -(-self.n_samples // batch_size)

    def epoch(
        self,
        number: int,
        batch_size: int | None,
        *,
        uses_graph: bool,
        hops: int | None = None,
        share: Share = ALONE,
    ) -> Iterator[Batch]:
        """Batches of epoch `number`, each sample once, in random order (one batch of all for None).

        Neighbours are sampled for the first `hops` hops; for all of `num_neighbors` with None.
        With a `share`, the part of each batch that is this process's: its samples and what is sampled for them. The one
        batch of all is not cut.
        """
        self.codes = None
        if batch_size is None or batch_size >= self.n_samples:
            yield self.full(uses_graph=uses_graph)
        elif uses_graph:
            yield from self._graph_batches(number, batch_size, hops, share)
        else:
            yield from self._plain_batches(number, batch_size, share)

    def full(self, *, uses_graph: bool) -> Batch:
        """The batch of all samples, made once and kept on the device."""
        if uses_graph not in self._full:
            adjacency = None
            if uses_graph:
                edges, loops = self.weights
                parts = (self.graph.edge_index, self.graph.edge_weight, edges, loops)
                adjacency = Adjacency(*(self._upload(part) for part in parts), constant=True)
            index = torch.arange(self.n_samples, device=self.device)
            self._full[uses_graph] = Batch(self.x.to(self.device), index, self.n_samples, adjacency)
        return self._full[uses_graph]

    def _upload(self, part: Tensor) -> Tensor:
        """A tensor of a batch on the device. From pinned memory a GPU reads it while the processor goes on."""
        if self.device.type == "cuda" and not part.is_cuda:
            part = part.pin_memory()
        return part.to(self.device, non_blocking=True)

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1_000_003 + number)

    def _plain_batches(self, number: int, batch_size: int, share: Share) -> Iterator[Batch]:
        for whole in torch.randperm(self.n_samples, generator=self._generator(number)).split(batch_size):
            index = whole[share.of(len(whole))]
            yield Batch(self._upload(self.x[index]), index, self.n_samples, whole=len(whole))

    def _graph_loader(self, batch_size: int, hops: int | None, share: Share) -> SeededNodeLoader:
        assert self.graph.edge_index is not None
        # Edge weights of 1 come back as in-degree / edges in the batch: the factor that makes a sampled sum unbiased.
        ones = torch.ones(self.graph.edge_index.shape[1])
        topology = Data(x=self.x, edge_index=self.graph.edge_index, edge_weight=ones)
        options: dict[str, Any] = {
            "rescale": True,
            "random_state": self.seed,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
        }
        if self.sampling == "communities":
            # New communities in each epoch gave no better clusters (Cora, CiteSeer).
            most = max(1, batch_size // _COMMUNITIES)
            found = communities(self.graph, most, random_state=self.seed % 2**32)
            loader = community_loader(topology, found, batch_size, **options)
        else:
            fanouts = self.num_neighbors[:hops]
            loader = neighbor_loader(topology, fanouts, batch_size, shuffle=True, **options)
        if share.count > 1:
            own: Any = loader  # its collate function has the type of the loader's own
            own.collate_fn = partial(_of_part, own.collate_fn, share)
        return loader

    def _graph_batches(self, number: int, batch_size: int, hops: int | None, share: Share) -> Iterator[Batch]:
        if self._loader is None or self._loader_of != (batch_size, hops, share):
            self._loader = self._graph_loader(batch_size, hops, share)
            self._loader_of = batch_size, hops, share
        edges, loops = self.weights
        self._loader.set_epoch(number)
        for place, part in enumerate(self._loader):
            factor = part.edge_weight
            adjacency = Adjacency(
                self._upload(part.edge_index),
                self._upload(self.graph.edge_weight[part.e_id] * factor),
                self._upload(edges[part.e_id] * factor),
                self._upload(loops[part.n_id]),
            )
            index = part.n_id[: part.batch_size]
            whole = min(batch_size, self.n_samples - place * batch_size)
            yield Batch(self._upload(part.x), index, self.n_samples, adjacency, whole)


def _of_part(sample: Callable[[Sequence[int]], Any], share: Share, seeds: Sequence[int]) -> Any:
    """Sample the neighbourhood of this process's part of a batch's seeds."""
    return sample(seeds[share.of(len(seeds))])
