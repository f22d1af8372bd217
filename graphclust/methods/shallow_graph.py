"""What the estimators share that train no network and read a sample graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data

from graphclust._checks import check_choice, check_count
from graphclust.graph import SampleGraph
from graphclust.graph.known_samples import search_among
from graphclust.graph.metric import Metric
from graphclust.methods.centers import METRICS
from graphclust.methods.inputs import Input, given_graph, read_features
from graphclust.methods.shallow import ShallowClusterer


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

    def _is_training_graph(self, X: Input, x: NDArray[np.float32]) -> bool:
        """Whether X, of features x [M, d], is the graph of the fit, whose nodes have `labels_`.

        Where edges were given, equal features do not make the same node, and what is read of a node among its
        neighbours may be closer to another cluster than the one that it is in.
        """
        if not isinstance(X, Data) or not torch.equal(torch.from_numpy(x), self.graph_.x.float().cpu()):
            return False
        given = self._given_graph(X)
        if given is None:
            return False
        pairs = [(graph.edge_index, graph.edge_weight) for graph in (given, self.graph_)]
        return all(torch.equal(one.cpu(), other.cpu()) for one, other in zip(*pairs, strict=True))

    def _sample_graph(self, x: Tensor) -> SampleGraph:
        # Weights are not read, and "binary" is the cheapest.
        return SampleGraph.from_features(
            x, self.n_neighbors, metric=self.metric, p=self.p, kernel="binary", random_state=0
        )

    def _nearest_samples(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """The nearest training samples of new ones, [M, d] -> [M, n_neighbors], nearest first."""
        recall = self.graph_.construction.get("recall", 0.95)
        search = search_among(self.graph_, len(x), Metric.make(self.metric, self.p), recall=recall)
        return search.neighbors(x, min(self.n_neighbors, len(self.graph_.x)))[0].numpy()

    def _write(self, folder: Path) -> None:
        super()._write(folder)
        self.graph_.save(folder / "graph")

    def _read(self, folder: Path) -> None:
        self.graph_ = SampleGraph.open(folder / "graph")
