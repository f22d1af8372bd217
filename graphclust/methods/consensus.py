"""ConsensusClustering: the sample graph's clusters, on which many over-segmentations agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import one_hot

from graphclust._checks import check_choice, check_count
from graphclust.graph import SampleGraph
from graphclust.graph.linkage import (
    SampleTree,
    count_groups,
    cut_tree,
    join_groups,
    link_samples,
    sparse_weights,
)
from graphclust.graph.partition import consensus_partition
from graphclust.methods.files import reading
from graphclust.methods.graph_mixture import GraphMixture, Projection, refine
from graphclust.methods.inputs import Input
from graphclust.methods.shallow_graph import ShallowGraphClusterer
from graphclust.methods.starts import PROPAGATIONS, principal_components, propagated
from graphclust.methods.trees import Tree
from graphclust.nn.vector_scale import VectorScale
from graphclust.training.batches import BatchSource

_FILE = "model.safetensors"
#: Principal components in which samples are split; the embeddings of 99 species of leaves lose a point with 64.
_COMPONENTS = 128
#: Samples times parts up to which the samples are split by k-means; and samples for which K is estimated that way.
_MOST_DISTANCES, _MOST_COUNTED = 1e8, 100_000
#: Recall of the neighbours of many samples: linkage and mixture lose little by a neighbour in ten that is the next one.
_RECALL = 0.9
#: Entries of a dense table of probabilities.
_MOST_DENSE = 1e8
#: Samples of the smallest group that counts as a cluster where K is estimated.
_LEAST_CLUSTER = 20


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

    Where that is too much (samples times parts above 10^8, or more than 100,000 samples with K to be estimated), the
    graph is merged from single samples up (`graphclust.graph.linkage.link_samples`, exponent 1/2), cut where K groups
    are large enough to be clusters, and the clusters are sharpened by a mixture of t distributions in the principal
    components, in which a sample may only be in the clusters of its neighbours
    (`graphclust.methods.graph_mixture.GraphMixture`). Features are read from their memory map; besides the graph
    this takes some 300 bytes a sample, whatever K. K = "auto" is then the number of groups of at least 20 samples
    that stands longest while samples merge.

    The method is this library's own, with no reported result of others and no paper to depart from. See
    `graphclust.graph.consensus_partition`. On the digits of scikit-learn it finds 94 to 95 % of the classes, where
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
    probabilities_ : ndarray or csr_matrix [N, K], float32
        Share of a sample's neighbours, by the weight of their edges, in each cluster; the sample counts as one itself.
        After the way for many samples the mixture's: a sparse matrix, of two or three clusters a sample, where N K is
        above 10^8.
    tree_ : ndarray [P - 1, 4]
        Merges of the parts of the last step (for many samples: of as many groups as parts are asked for). Groups below
        0.3 N / K samples are no clusters of their own in `labels_`, as they are in `cut`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from graphclust import ConsensusClustering
    >>> model = ConsensusClustering(10, random_state=0).fit(load_digits().data)
    >>> len(set(model.labels_))
    10
    """

    n_neighbors: int = 7
    scale: str = "auto"
    parts_per_cluster: int = 24
    n_runs: int = 6

    if TYPE_CHECKING:
        probabilities_: NDArray[np.float32] | sp.csr_matrix

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
            same = not bool(self._scale.unit_length) and bool(
                (self._scale.factor == self._scale.factor[0]).all()
            )
            if same and self.metric != "cosine" and self._is_large(len(x)):
                # One factor for all columns changes no neighbours: the memory map serves as it is.
                self._scale = VectorScale(x.shape[1])
        scaled = x if self._is_identity() else self._scale(x)
        return SampleGraph.from_features(
            scaled,
            n_neighbors=self.n_neighbors,
            metric=self.metric,
            p=self.p,
            recall=_RECALL if self._is_large(len(x)) else 0.95,
            random_state=0,
        )

    def _is_identity(self) -> bool:
        scale = self._scale
        return not bool(scale.unit_length or scale.shift.any() or (scale.factor != 1).any())

    def _is_large(self, n: int) -> bool:
        """Whether k-means with many centres would take too long."""
        if isinstance(self.n_clusters, str):
            return n > _MOST_COUNTED
        return n * min(self.parts_per_cluster * self.n_clusters, n // 8) > _MOST_DISTANCES

    def _choose_n_clusters(self, x: Tensor, seed: int) -> int:
        if not self._is_large(len(x)):
            return super()._choose_n_clusters(x, seed)
        if not isinstance(self.n_clusters, str):
            return super()._choose_n_clusters(x, seed)
        self._linked = self._link()
        return count_groups(self._linked[0], _LEAST_CLUSTER)

    def _fit(self, x: NDArray[np.float32], seed: int) -> None:
        for name in ("_mixture", "_projection"):
            self.__dict__.pop(name, None)
        scaled = self.graph_.x if self._attaches() else torch.from_numpy(x)
        if self._is_large(len(x)):
            self._fit_large(scaled, seed)
            return
        graph, k, n = self.graph_, self.n_clusters_, len(x)
        # A walk of more steps than a third of a cluster has samples would leave it.
        steps = min(PROPAGATIONS, max(2, n // (3 * k)))
        positions = propagated(
            BatchSource(graph), principal_components(scaled, _COMPONENTS, seed=seed), steps
        )
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

    def _link(self) -> tuple[SampleTree, sp.csr_matrix]:
        weights = sparse_weights(self.graph_)
        return link_samples(weights, exponent=0.5), weights

    def _fit_large(self, x: Tensor, seed: int) -> None:
        """Merge samples one by one, and sharpen the clusters by a mixture."""
        k, n = self.n_clusters_, len(x)
        tree, weights = self.__dict__.pop("_linked", None) or self._link()
        self._set_tree(*tree.top(max(k, min(self.parts_per_cluster * k, n // 8))))
        labels = join_groups(weights, cut_tree(tree, k), k)
        del tree
        self._projection = Projection.fit(x, seed=seed)
        z = self._projection(x)
        labels, probabilities = refine(z, weights, labels, k)
        self._mixture = GraphMixture.fit(z, labels, k)
        self.labels_ = labels
        self.probabilities_ = _dense_if_small(probabilities)

    def _attaches(self) -> bool:
        """Whether the graph is this method's own, so that new samples can be joined to it."""
        return getattr(self, "_scale", None) is not None

    def predict(self, X: Input) -> NDArray[np.int64]:
        """Cluster of most of a new sample's neighbours, by the weight of their edges, [M, d] -> [M]."""
        return np.asarray(self.predict_proba(X).argmax(axis=1)).reshape(-1)

    def predict_proba(self, X: Input) -> NDArray[np.float32] | sp.csr_matrix:
        """Share of a new sample's neighbours in each cluster, [M, d] -> [M, K]; see `probabilities_`."""
        x = torch.from_numpy(self._features(X))
        if not self._attaches():
            raise ValueError(
                "the model was fitted to a graph that was given, so new rows have no place in it: fit to features"
            )
        if hasattr(self, "_mixture"):
            return self._mixed(self._scale(x))
        attached = self.graph_.attach(self._scale(x))
        known = torch.from_numpy(np.asarray(self.probabilities_))
        unknown = torch.zeros(len(x), known.shape[1])
        shares = propagated(BatchSource(attached, normalization="row"), torch.cat([known, unknown]), 1)[
            len(known) :
        ]
        return (shares / shares.sum(dim=1, keepdim=True).clamp_min(1e-30)).numpy()

    def _mixed(self, x: Tensor) -> NDArray[np.float32] | sp.csr_matrix:
        """Probabilities of scaled new samples by the mixture, among the clusters of their neighbours."""
        cluster = self.labels_[self._nearest_samples(x.numpy())]
        pointer = np.arange(len(x) + 1) * cluster.shape[1]
        candidates = sp.csr_matrix(
            (np.ones(cluster.size, np.float32), cluster.reshape(-1), pointer), (len(x), self.n_clusters_)
        )
        candidates.sum_duplicates()
        return _dense_if_small(self._mixture.probabilities(self._projection(x), candidates))

    def _write(self, folder: Path) -> None:
        super()._write(folder)
        tensors = {}
        if self._attaches():
            tensors = {k: v.contiguous() for k, v in self._scale.state_dict().items()}
        if hasattr(self, "_mixture"):
            parts = {"projection": vars(self._projection), "mixture": vars(self._mixture)}
            for name, values in parts.items():
                tensors |= {f"{name}.{key}": torch.as_tensor(value) for key, value in values.items()}
        if tensors:
            save_file(tensors, folder / _FILE)

    def _read(self, folder: Path) -> None:
        super()._read(folder)
        if not (folder / _FILE).exists():
            return
        with reading(folder):
            tensors = load_file(folder / _FILE)
            parts: dict[str, dict[str, Tensor]] = {}
            for name, value in tensors.items():
                group, _, key = name.rpartition(".")
                parts.setdefault(group, {})[key] = value
            if "" in parts:
                self._scale = VectorScale(self.n_features_in_)
                self._scale.load_state_dict(parts[""])
            if "mixture" in parts:
                self._projection = Projection(**parts["projection"])
                found = parts["mixture"]
                mean, whiten, offset = (found[name].numpy() for name in ("mean", "whiten", "offset"))
                self._mixture = GraphMixture(mean, whiten, offset, float(found["freedom"]))


def _dense_if_small(probabilities: sp.csr_matrix) -> NDArray[np.float32] | sp.csr_matrix:
    rows, columns = probabilities.shape
    return probabilities.toarray() if rows * columns <= _MOST_DENSE else probabilities
