"""ConsensusClustering: the sample graph's clusters, on which many over-segmentations agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import one_hot

from graphclust._checks import check_choice, check_count
from graphclust.graph import SampleGraph
from graphclust.graph.partition import consensus_partition
from graphclust.methods.files import reading
from graphclust.methods.inputs import Input
from graphclust.methods.shallow_graph import ShallowGraphClusterer
from graphclust.methods.starts import PROPAGATIONS, principal_components, propagated
from graphclust.methods.trees import Tree
from graphclust.nn.vector_scale import VectorScale
from graphclust.training.batches import BatchSource

_FILE = "model.safetensors"


@dataclass(eq=False, repr=False, kw_only=True)
class ConsensusClustering(Tree, ShallowGraphClusterer):
    r"""Consensus of average linkage on the sample graph: clusters of vectors, without a network, in seconds.

    1. Vectors are scaled by a rule that depends on what they are (`graphclust.nn.VectorScale`), and joined to their
       nearest neighbours, with heat-kernel weights.
    2. Their principal components X are propagated over the graph, :math:`\hat A^t X`, which draws samples of one dense
       region together.
    3. K-means splits the samples into about 24 parts a cluster, and the parts are merged by average linkage on the
       graph (the weight of all edges between two over the number of pairs). This is done six times, and edges that
       the runs disagree about lose weight (evidence accumulation, Fred & Jain 2005, on the graph's edges alone).
    4. Parts are merged once more on these weights: the tree, and the K clusters.

    See `graphclust.graph.consensus_partition`. On the digits of scikit-learn it finds 94 to 95 % of the classes, where
    k-means finds 79 and spectral clustering 81; it is also where `VGDCN` starts from.

    Parameters
    ----------
    n_neighbors : int
        Neighbours that each sample is joined to.
    scale : {"auto", "none"}
        "auto" is `VectorScale`; "none" takes the vectors as they are.
    parts_per_cluster : int
        Parts that a cluster is made of; fewer where they would hold less than 8 samples on average.
    n_runs : int
        Over-segmentations whose consensus is taken.

    Attributes
    ----------
    graph_ : SampleGraph
        Of the scaled vectors, or the one that was given.
    probabilities_ : ndarray [N, K], float32
        Share of a sample's neighbours, by the weight of their edges, in each cluster; the sample counts as one itself.
    tree_ : ndarray [P - 1, 4]
        Merges of the parts of the last step. Groups below 0.3 N / K samples are no clusters of their own in
        `labels_`, as they are in `cut`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from graphclust import ConsensusClustering
    >>> model = ConsensusClustering(10, random_state=0).fit(load_digits().data)
    >>> len(set(model.labels_))
    10
    """

    n_neighbors: int = 5
    scale: str = "auto"
    parts_per_cluster: int = 24
    n_runs: int = 6

    _results: ClassVar[tuple[str, ...]] = ("labels", "probabilities", "tree", "leaf_labels")

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice(self.scale, "scale", ("auto", "none"))
        check_count(self.parts_per_cluster, "parts_per_cluster")
        check_count(self.n_runs, "n_runs")

    def _sample_graph(self, x: Tensor) -> SampleGraph:
        self._scale = VectorScale(x.shape[1])
        if self.scale == "auto":
            self._scale.fit(x)
        return SampleGraph.from_features(
            self._scale(x), n_neighbors=self.n_neighbors, metric=self.metric, p=self.p, random_state=0
        )

    def _fit(self, x: NDArray[np.float32], seed: int) -> None:
        graph, k, n = self.graph_, self.n_clusters_, len(x)
        scaled = graph.x if self._attaches() else torch.from_numpy(x)
        # A walk of more steps than a third of a cluster has samples would leave it.
        steps = min(PROPAGATIONS, max(2, n // (3 * k)))
        positions = propagated(BatchSource(graph), principal_components(scaled, seed=seed), steps)
        found = consensus_partition(
            graph,
            positions,
            k,
            parts_per_cluster=self.parts_per_cluster,
            n_runs=self.n_runs,
            random_state=seed,
        )
        self._set_tree(found.linkage, found.parts.numpy())
        members = one_hot(found.labels, k).float()
        self.probabilities_ = propagated(BatchSource(graph, normalization="row"), members, 1).numpy()
        self.labels_ = found.labels.numpy()

    def _attaches(self) -> bool:
        """Whether the graph is this method's own, so that new samples can be joined to it."""
        return getattr(self, "_scale", None) is not None

    def predict(self, X: Input) -> NDArray[np.int64]:
        """Cluster of most of a new sample's neighbours, by the weight of their edges, [M, d] -> [M]."""
        return self.predict_proba(X).argmax(axis=1)

    def predict_proba(self, X: Input) -> NDArray[np.float32]:
        """Share of a new sample's neighbours in each cluster, [M, d] -> [M, K]."""
        x = torch.from_numpy(self._features(X))
        if not self._attaches():
            raise ValueError(
                "the model was fitted to a graph that was given, so new rows have no place in it: fit to features"
            )
        attached = self.graph_.attach(self._scale(x))
        known = torch.from_numpy(np.asarray(self.probabilities_))
        unknown = torch.zeros(len(x), known.shape[1])
        shares = propagated(BatchSource(attached, normalization="row"), torch.cat([known, unknown]), 1)[
            len(known) :
        ]
        return (shares / shares.sum(dim=1, keepdim=True).clamp_min(1e-30)).numpy()

    def _write(self, folder: Path) -> None:
        super()._write(folder)
        if self._attaches():
            save_file({k: v.contiguous() for k, v in self._scale.state_dict().items()}, folder / _FILE)

    def _read(self, folder: Path) -> None:
        super()._read(folder)
        if (folder / _FILE).exists():
            self._scale = VectorScale(self.n_features_in_)
            with reading(folder):
                self._scale.load_state_dict(load_file(folder / _FILE))
