"""What the estimators share whose network reads a sample graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphclust._checks import check_choice, check_count
from graphclust.graph import SampleGraph
from graphclust.graph.attachment import attach
from graphclust.graph.copies import first_of_copies
from graphclust.graph.kernels import check_kernel
from graphclust.graph.metric import Metric
from graphclust.methods.base import DeepClusterer
from graphclust.methods.inputs import Input, given_graph, read_features
from graphclust.training.batches import BatchSource


@dataclass(eq=False, repr=False, kw_only=True)
class GraphClusterer(DeepClusterer):
    """Base of the deep estimators with a graph: it is given (a PyG Data with edges) or built from the features.

    New samples are attached to a graph that was built. One that equals its nearest training sample *is* that sample, so
    that ``predict(X)`` of the training data is `labels_`; samples that equal each other have the results of the first.

    Parameters
    ----------
    n_neighbors : int
        M, the neighbours that each sample is joined to.
    metric, kernel, symmetrize : str
        Of the sample graph, see `SampleGraph.from_features`.
    p : float
        Power of the Minkowski metric, at least 1.
    bandwidth : float or {"self-tuning", "median"}
        Of the heat kernel: t for all edges, the median of the squared distances for it, or one for each sample.
    normalization : {"symmetric", "row"}
        Of the propagation matrix.
    batch_size : int or None
        Samples a step in the graph stages; None takes the full graph.
    sampling : {"neighbors", "communities"}
        What a step of `batch_size` samples reads besides them: neighbours sampled hop by hop; or nothing, and the
        samples are some whole communities of the graph (`graphclust.graph.communities`), so that most neighbours are
        among them. That is many times faster where some hops from a batch reach most of the graph.
    num_workers : int
        Processes that sample neighbours and read features ahead of the training; 0 does it in between.

    Attributes
    ----------
    graph_ : SampleGraph
    """

    n_neighbors: int = 5
    metric: str = "euclidean"
    p: float = 2.0
    kernel: str = "heat"
    bandwidth: float | str = "self-tuning"
    symmetrize: str = "union"
    normalization: str = "symmetric"
    sampling: str = "neighbors"
    num_workers: int = 0

    uses_graph: ClassVar[bool] = True
    #: Neighbours sampled by hop, where a method's `num_neighbors` is None (-1: all); the last number is for all hops
    #: that are further off.
    _default_neighbors: ClassVar[tuple[int, ...]] = (-1,)
    _samplings: ClassVar[tuple[str, ...]] = ("neighbors", "communities")

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_count(self.n_neighbors, "n_neighbors")
        check_count(self.num_workers, "num_workers", 0)
        if self.device is not None and torch.device(self.device).type == "mps":
            raise ValueError(
                f"device={str(self.device)!r} has no products of sparse matrices, which graph methods need: use 'cpu', "
                "'cuda' or None"
            )
        Metric.make(self.metric, self.p)
        check_kernel(self.kernel, self.bandwidth)
        check_choice(self.normalization, "normalization", ("symmetric", "row"))
        check_choice(self.sampling, "sampling", self._samplings)
        given = getattr(self, "num_neighbors", None)
        if given is not None and not hasattr(given, "__len__"):
            raise TypeError(f"num_neighbors={given!r} is no sequence; give one number a hop, in brackets")
        if given is not None and len(given) != self._n_sampled:
            raise ValueError(
                f"num_neighbors has {len(given)} numbers, it must have one for each of the {self._n_sampled} hops "
                "that a loss reads"
            )

    def _data_of(self, X: Input) -> SampleGraph:
        features = read_features(self, X, reset=True)
        given = self._given_graph(X)
        if given is not None:
            return given
        return self._sample_graph(features)

    def _sample_graph(self, features: Tensor) -> SampleGraph:
        """Samples joined to their nearest neighbours by the method's parameters."""
        return SampleGraph.from_features(
            features,
            n_neighbors=self.n_neighbors,
            metric=self.metric,
            p=self.p,
            kernel=self.kernel,
            bandwidth=self.bandwidth,
            symmetrize=self.symmetrize,
            device=self._search_device,
            random_state=0,
            verbose=self.verbose,
        )

    def _given_graph(self, X: Input) -> SampleGraph | None:
        """The graph that X is or holds, as it is, on the CPU; None for features and for a PyG Data without edges."""
        return given_graph(X, symmetrize=self.symmetrize)

    def _source(self, data: Data, device: torch.device, seed: int = 0) -> BatchSource:
        return BatchSource(data, **self._source_options(device, seed))

    def _source_options(self, device: torch.device, seed: int) -> dict[str, Any]:
        """How batches are drawn."""
        return {
            "normalization": self.normalization,
            "num_neighbors": self._fanouts(),
            "sampling": self._sampling(),
            "device": device,
            "seed": seed,
            "num_workers": self.num_workers,
        }

    @property
    def _n_sampled(self) -> int:
        """Hops that the loss of a batch reads."""
        return 1

    def _sampling(self) -> str:
        """How batches of the graph are drawn."""
        return self.sampling

    def _fanouts(self) -> list[int]:
        """Neighbours sampled per hop."""
        given = getattr(self, "num_neighbors", None)
        if given is not None:
            return list(given)
        known = self._default_neighbors
        return [*known, *[known[-1]] * self._n_sampled][: self._n_sampled]

    def _take_results(self, source: BatchSource) -> None:
        assert isinstance(source.graph, SampleGraph)
        self.graph_ = source.graph
        super()._take_results(source)

    def _take_copies_alike(self) -> None:
        first = first_of_copies(self.graph_)
        if first is not None:
            index = first.numpy()
            self.labels_ = self.labels_[index]
            self.probabilities_ = self.probabilities_[index]
            self.embedding_ = self.embedding_[index]

    def _new_samples(self, X: Input) -> tuple[BatchSource, Tensor | None]:
        features = read_features(self, X, reset=False)
        given = self._given_graph(X)
        if given is not None:
            return self._source(given, self._device), first_of_copies(given)
        if not self.graph_.joins_neighbors:
            raise ValueError(
                "the model was fitted to given edges, so new rows have no place in its graph: pass a PyG Data or a "
                "SampleGraph that holds the samples and their edges"
            )
        attached = self._attach(features)
        if attached.get("part") is None and bool((attached.stand_for < attached.num_old).all()):
            # Nothing is new. Layers of the user's may read how many edges leave a sample, and new ones add some.
            return self._source(self.graph_, self._device), attached.stand_for
        return self._source(attached, self._device), attached.stand_for

    def _attach(self, features: Tensor) -> SampleGraph:
        """The training graph, or the part of it that counts, with new samples joined to it; no features are copied."""
        return attach(self.graph_, features, self._hops())

    def _hops(self) -> int | None:
        """Convolutions that a label depends on and no further edge; None where it may depend on all of the graph."""
        return None

    def _probabilities(self, source: BatchSource, nodes: Tensor | None) -> Any:
        wanted, place = unique_nodes(nodes)
        found = super()._probabilities(source, wanted)
        # NumPy takes a tensor with a single entry for a number.
        return found if nodes is None else found[place.numpy()]

    def _write(self, folder: Path) -> None:
        super()._write(folder)
        self.graph_.save(folder / "graph")

    def _read(self, folder: Path) -> None:
        self.graph_ = SampleGraph.open(folder / "graph")


def unique_nodes(nodes: Tensor | None) -> tuple[Tensor | None, Any]:
    """Sorted nodes without repetition, and where each of the given ones is among them (all for None)."""
    if nodes is None:
        return None, slice(None)
    return nodes.unique(return_inverse=True)
