"""What the estimators share that train no network and read a sample graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from graphclust._checks import check_choice, check_count
from graphclust.graph import NeighborSearch, SampleGraph
from graphclust.graph._indexes import is_exact_affordable
from graphclust.graph._metrics import Metric
from graphclust.methods.centers import METRICS
from graphclust.methods.inputs import Input, given_graph, read_features
from graphclust.methods.shallow import ShallowClusterer

_BLOCK_VALUES = 1 << 22


@dataclass(eq=False, repr=False, kw_only=True)
class ShallowGraphClusterer(ShallowClusterer):
    """Base of the estimators that cluster features and a graph as they are.

    The graph is given (a SampleGraph, a PyG Data with edges) or joins every sample to its nearest others. Of its edges
    only the ends count; how long they are is computed from the features.

    Parameters
    ----------
    n_neighbors : int
        Neighbours that each sample is joined to, and that new samples are compared with.
    metric : {"euclidean", "manhattan", "minkowski", "cosine"}
        Of all distances.
    p : float
        Power of the Minkowski metric, at least 1.

    Attributes
    ----------
    graph_ : SampleGraph
    """

    n_neighbors: int = 10
    metric: str = "euclidean"
    p: float = 2.0

    #: Given edges are read, also where `compare` gives them.
    uses_graph: ClassVar[bool] = True

    if TYPE_CHECKING:
        graph_: SampleGraph

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_count(self.n_neighbors, "n_neighbors")
        check_choice(self.metric, "metric", METRICS)
        Metric.make(self.metric, self.p)

    def _data_of(self, X: Input) -> Tensor:
        x = read_features(self, X, reset=True)
        given = self._given_graph(X)
        self.graph_ = self._sample_graph(x) if given is None else given
        return x

    @staticmethod
    def _given_graph(X: Input) -> SampleGraph | None:
        """The graph that X is or holds, on the CPU; None for features and for a PyG Data without edges."""
        return given_graph(X)

    def _sample_graph(self, x: Tensor) -> SampleGraph:
        # Weights are not read, and "binary" is the cheapest.
        return SampleGraph.from_features(
            x, self.n_neighbors, metric=self.metric, p=self.p, kernel="binary", random_state=0
        )

    def _nearest_samples(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """The nearest training samples of new ones, [M, d] -> [M, n_neighbors], nearest first."""
        known = self.graph_.x
        metric = Metric.make(self.metric, self.p)
        # For a few new samples a scan is cheaper than an index.
        index = "exact" if is_exact_affordable(len(x), len(known), x.shape[1], metric) else "auto"
        search = NeighborSearch(self.metric, p=self.p, index=index).fit(known)
        return search.neighbors(x, min(self.n_neighbors, len(known)))[0].numpy()

    def _write(self, folder: Path) -> None:
        super()._write(folder)
        self.graph_.save(folder / "graph")

    def _read(self, folder: Path) -> None:
        self.graph_ = SampleGraph.open(folder / "graph")


def linked_pairs(graph: SampleGraph, metric: Metric) -> NDArray[np.int64]:
    """Pairs of samples that an edge joins, and as few more as it takes to leave no sample out of reach.

    Where the graph has several components, each is joined to its nearest sample of another one, until there is one
    component (Boruvka's way to a shortest spanning tree). This compares all samples but those of the largest component
    with all others, N^2 / 2 distances at worst, a block at a time.

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
    while True:
        joined = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
        n_components, component = connected_components(joined, directed=False)
        if n_components == 1:
            return pairs
        more = np.sort(_nearest_outside(graph.x.cpu(), component, metric), axis=1)
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


def _nearest_outside(x: Tensor, component: NDArray[np.int32], metric: Metric) -> NDArray[np.int64]:
    """For each component but the largest the nearest pair of one of its samples and one of another component."""
    if metric.name == "cosine":
        rows = torch.nn.functional.normalize(x.float())
    else:  # around the mean, where float32 loses least in the expanded square
        rows = (x.double() - x.double().mean(dim=0)).float()
    order = {"manhattan": 1.0, "minkowski": metric.p}.get(metric.name, 2.0)
    belongs = torch.from_numpy(component.astype(np.int64))
    largest = int(torch.bincount(belongs).argmax())
    small = (belongs != largest).nonzero().flatten()
    near, other = [], []
    for block in small.split(max(1, _BLOCK_VALUES // len(rows))):
        distance = torch.cdist(rows[block], rows, p=order)
        found = distance.masked_fill_(belongs[block].unsqueeze(1) == belongs, torch.inf).min(dim=1)
        near.append(found.values)
        other.append(found.indices)
    by_component = np.lexsort((torch.cat(near).numpy(), component[small.numpy()]))
    _, first = np.unique(component[small.numpy()][by_component], return_index=True)
    best = by_component[first]
    return torch.stack([small, torch.cat(other)], dim=1).numpy()[best]
