"""ConsensusClustering: the sample graph's clusters, on which many over-segmentations agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torch.nn.functional import one_hot
from torch_geometric.data import Data

from graphclust._checks import check_choice, check_count
from graphclust._progress import tracked
from graphclust.graph import SampleGraph
from graphclust.graph.agreement import agreed_partition
from graphclust.graph.attachment import attach, nodes_of
from graphclust.graph.linkage import (
    SampleTree,
    count_groups,
    cut_tree,
    join_groups,
    link_samples,
    sparse_weights,
)
from graphclust.graph.over_segmentation import consensus_partition
from graphclust.graph.partition import check_distinct
from graphclust.methods.files import reading
from graphclust.methods.graph_mixture import GraphMixture, Projection, refine
from graphclust.methods.inputs import Input
from graphclust.methods.scaling_runs import SHARES, clearest_share, count_under_scalings, scaling_runs
from graphclust.methods.shallow_graph import ShallowGraphClusterer
from graphclust.methods.starts import principal_components, propagated, propagations
from graphclust.methods.trees import Tree
from graphclust.nn.vector_scale import RankScale, VectorScale, scale_from_state, suited_scaling, vector_scales
from graphclust.training.batches import BatchSource

_FILE = "model.safetensors"
#: Principal components in which samples are split; the embeddings of 99 species of leaves lose a point with 64.
_COMPONENTS = 128
#: Samples times parts up to which the samples are split by k-means, and that under several scalings; samples for which
#: K is estimated that way.
_MOST_DISTANCES, _MOST_SCALED, _MOST_COUNTED = 1e8, 2e7, 100_000
#: Columns of samples that are split where they are: propagation takes noise out of many dimensions, and their form out
#: of curves in the plane.
_PLAIN = 3
#: Recall of the neighbours of many samples: linkage and mixture lose little by a neighbour in ten that is the next one.
_RECALL = 0.9
#: Entries of a dense table of probabilities.
_MOST_DENSE = 1e8
#: Samples of the smallest group that counts as a cluster where K is estimated.
_LEAST_CLUSTER = 20
#: Weight of each run under the scaling that is known to suit, where one is and its runs agree: the others hardly count.
#: Then it has so many times as many runs, and the others a half: what one run in four splits shall not be split by
#: chance.
_SUITED, _MORE_RUNS = 8.0, 3


@dataclass(eq=False, repr=False, kw_only=True)
class ConsensusClustering(Tree, ShallowGraphClusterer):
    r"""Consensus of average linkage on the sample graph: clusters of vectors, without a network, in seconds.

    1. Vectors are scaled in several ways, because no rule tells without labels which one suits: by one factor for all
       columns, to one variance each, by their ranks, and whitened (`graphclust.nn.vector_scale.vector_scales`). Under
       each, the samples that differ are joined to their nearest neighbours, with heat-kernel weights.
    2. Their principal components X are propagated over the graph, :math:`\hat A^t X`, which draws samples of one dense
       region together; those of up to three columns stay where they are.
    3. K-means splits the samples into about 24 parts a cluster (none of which reaches from one large component of the
       graph into another), and the parts are merged by average linkage on the
       graph (the weight of all edges between two over the number of pairs). This is done `n_runs` times for each
       scaling, and a Gaussian mixture is one more run (`graphclust.methods.scaling_runs`). Groups below 0.3 N / K
       samples are no clusters, or below a smaller share, down to 0.003 and to 8 samples, where with it the runs agree
       clearly more: where a small cluster stands alone, and a large one would be split in its place, by each run
       elsewhere. Equal samples are one node of the graph, and count as many.
    4. All runs of all scalings are merged by average linkage, on the share of them that put two samples together
       (evidence accumulation, Fred & Jain 2005; `graphclust.graph.agreement.agreed_partition`): the tree, and K
       clusters. A run counts as much as the runs of its scaling agree with each other (their mean adjusted Rand
       index a). Where one scaling is known to suit (`graphclust.nn.vector_scale.suited_scaling`), there are three times
       as many of its runs, and half as many under the others, and they count :math:`8 a^4` times that, at least a
       third. A sample ends in the cluster of most of its neighbours, averaged over the graphs.

    Of a graph that is given, with ``scale="none"``, and above 2 10^7 samples times parts there is one scaling. Then
    edges that the runs disagree about lose weight, and parts are merged once more on the graph
    (`graphclust.graph.consensus_partition`).

    Where k-means is too much (samples times parts above 10^8, or more than 100,000 samples with K to be estimated), the
    graph is merged from single samples up (`graphclust.graph.linkage.link_samples`, exponent 1/2), cut where K groups
    are large enough to be clusters, and the clusters are sharpened by a mixture of t distributions in the principal
    components, in which a sample may only be in the clusters of its neighbours
    (`graphclust.methods.graph_mixture.GraphMixture`). Features are read from their memory map; besides the graph this
    takes some 300 bytes a sample, whatever K, and at most 12 KB a cluster. K = "auto" is then the number of groups of
    at least 20 samples that stands longest while samples merge.

    The method is this library's own, with no reported result of others and no paper to depart from. See
    `graphclust.graph.consensus_partition`. On the digits of scikit-learn it finds 94 to 95 % of the classes, where
    k-means finds 79 and spectral clustering 81; it is also where `VGDCN` starts from.

    Parameters
    ----------
    n_clusters : int or "auto"
        K; "auto" estimates it: groups with a border on all sides (`graphclust.estimate_n_clusters`), and of vectors
        that are scaled in several ways, as few samples show no border, clusters that are better separated than in
        samples drawn without clusters (`graphclust.graph.separation.count_separated`).
    n_neighbors : int
        Neighbours that each sample is joined to.
    scale : {"auto", "none"}
        "auto" takes several; for many samples one, by `graphclust.nn.VectorScale`'s rule. "none" takes none.
    parts_per_cluster : int
        Parts that a cluster is made of; fewer where they would hold less than 8 samples on average.
    n_runs : int
        Over-segmentations of each scaling, whose consensus is taken; three times as many under one that is known to
        suit, and half as many under the others.
    verbose : bool
        Show progress.

    Attributes
    ----------
    graph_ : SampleGraph
        Of the vectors under the scaling whose runs agree most with `labels_`, or the one that was given. New samples
        are joined to it.
    probabilities_ : ndarray or csr_matrix [N, K], float32
        Share of a sample's neighbours, by the weight of their edges, in each cluster; the sample counts as one itself.
        The mean over the graphs of all scalings.
        After the way for many samples the mixture's: a sparse matrix, of two or three clusters a sample, where N K is
        above 10^8.
    tree_ : ndarray [P - 1, 4]
        Merges of the parts of the last step (for many samples: of as many groups as parts are asked for). Groups below
        0.3 N / K samples (or a smaller share, see 3.) are no clusters of their own in `labels_`, as they are in `cut`.
        Of one cluster there are no parts: the tree is one leaf.

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
    n_runs: int = 4
    verbose: bool = False

    if TYPE_CHECKING:
        probabilities_: NDArray[np.float32] | sp.csr_matrix
        _scale: VectorScale | RankScale

    _results: ClassVar[tuple[str, ...]] = ("labels", "probabilities", "tree", "leaf_labels")

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice(self.scale, "scale", ("auto", "none"))
        check_count(self.parts_per_cluster, "parts_per_cluster")
        check_count(self.n_runs, "n_runs")

    def _data_of(self, X: Input) -> Tensor:
        self.__dict__.pop("_scale", None)  # of another fit; a graph that is given has none
        return super()._data_of(X)

    def _sample_graph(self, x: Tensor) -> SampleGraph:
        scale = VectorScale(x.shape[1])
        if self.scale == "auto":
            scale.fit(x)
            one_factor = scale.taken == "common" and self.metric != "cosine"
            if one_factor and self._is_large(len(x)):
                # One factor for all columns changes no neighbours: the memory map serves as it is.
                scale = VectorScale(x.shape[1])
        self._scale = scale
        identity = not bool(scale.unit_length or scale.shift.any() or (scale.factor != 1).any())
        return self._joined(x if identity else scale(x), self.n_neighbors)

    def _joined(self, scaled: Tensor, n_neighbors: int) -> SampleGraph:
        return SampleGraph.from_features(
            scaled,
            n_neighbors=n_neighbors,
            metric=self.metric,
            p=self.p,
            recall=_RECALL if self._is_large(len(scaled)) else 0.95,
            random_state=0,
            verbose=self.verbose,
        )

    def _is_large(self, n: int) -> bool:
        """Whether k-means with many centres would take too long."""
        if isinstance(self.n_clusters, str):
            return n > _MOST_COUNTED
        return self._distances(n, self.n_clusters) > _MOST_DISTANCES

    def _distances(self, n_samples: int, n_clusters: int) -> int:
        """Samples times parts."""
        return n_samples * min(self.parts_per_cluster * n_clusters, n_samples // 8)

    def _choose_n_clusters(self, x: Tensor, seed: int) -> int:
        if not isinstance(self.n_clusters, str):
            return super()._choose_n_clusters(x, seed)
        if not self._is_large(len(x)):
            if self._attaches() and self.scale == "auto":
                return count_under_scalings(x, self.graph_, seed)
            return super()._choose_n_clusters(x, seed)
        self._linked = self._link()
        return count_groups(self._linked[0], _LEAST_CLUSTER)

    def _fit(self, x: NDArray[np.float32], seed: int) -> None:
        for name in ("_mixture", "_projection"):
            self.__dict__.pop(name, None)
        if self.n_clusters_ == 1:  # whatever the runs say
            self.__dict__.pop("_linked", None)
            self._set_tree(np.empty((0, 4)), np.zeros(len(x)))
            self.labels_ = np.zeros(len(x), np.int64)
            self.probabilities_ = np.ones((len(x), 1), np.float32)
            return
        scaled = self.graph_.x if self._attaches() else torch.from_numpy(x)
        if self._is_large(len(x)):
            self._fit_large(scaled, seed)
            return
        if (
            self._attaches()
            and self.scale == "auto"
            and self._distances(len(x), self.n_clusters_) <= _MOST_SCALED
        ):
            self._fit_scalings(x, seed)
            return
        graph = self.graph_
        found = consensus_partition(
            graph,
            self._positions(graph, seed),
            self.n_clusters_,
            parts_per_cluster=self.parts_per_cluster,
            n_runs=self.n_runs,
            random_state=seed,
        )
        self._set_tree(found.linkage, found.parts.numpy())
        members = one_hot(found.labels, self.n_clusters_).float()
        shares = propagated(BatchSource(graph, normalization="row"), members, 1).numpy()
        self.labels_ = found.labels.numpy()
        self.probabilities_ = _of_labels(shares, self.labels_)

    def _positions(self, graph: SampleGraph, seed: int) -> Tensor:
        """Principal components of the graph's samples, propagated over it."""
        components = principal_components(graph.x, _COMPONENTS, seed=seed)
        if graph.x.shape[1] <= _PLAIN:
            return components
        return propagated(BatchSource(graph), components, propagations(len(graph.x), self.n_clusters_))

    def _fit_scalings(self, x: NDArray[np.float32], seed: int) -> None:
        """The partition on which the runs under several scalings agree."""
        k = self.n_clusters_
        # Samples that are equal would be each other's neighbours, and no others.
        distinct, position, how_many = np.unique(x, axis=0, return_inverse=True, return_counts=True)
        counts: NDArray[np.int64] | None = how_many
        position = position.reshape(-1)
        check_distinct(len(distinct), k)
        if len(distinct) in (1, len(x)):
            distinct, position, counts = x, np.arange(len(x)), None
        rows, back, whole = torch.from_numpy(distinct), torch.from_numpy(position), len(distinct) == len(x)
        n_neighbors = max(1, min(self.n_neighbors, len(rows) - 1))
        scales, graphs, shared_runs, weights = vector_scales(torch.from_numpy(x)), [], [], []
        suited = suited_scaling(scales)
        for scale in tracked(scales, "Clustering under several scalings", self.verbose):
            graph = (
                self.graph_
                if whole and scale.taken == self._scale.taken
                else self._joined(scale(rows), n_neighbors)
            )
            graphs.append(graph)
            is_suited = scale.taken == suited
            times = 1.0 if suited is None else _MORE_RUNS if is_suited else 0.5
            found_here, agreement = scaling_runs(
                graph,
                self._positions(graph, seed),
                k,
                seed,
                parts_per_cluster=self.parts_per_cluster,
                n_runs=math.ceil(times * self.n_runs),
                counts=counts,
            )
            shared_runs.append(found_here[:, :, back])
            factors = [max(_SUITED * one**4, 1 / _MORE_RUNS) if is_suited else 1.0 for one in agreement]
            counted = [factor * one for factor, one in zip(factors, agreement, strict=True)]
            weights.append([[one] * found_here.shape[1] for one in counted])
        share = clearest_share(shared_runs)
        runs = [some[share] for some in shared_runs]
        weight = np.concatenate([some[share] for some in weights])
        taken = next((scale for scale in scales if scale.taken == suited), scales[0])
        found = agreed_partition(
            torch.cat(runs),
            k,
            weights=weight,
            min_share=SHARES[share],
            positions=taken(torch.from_numpy(x)),
        )
        self._set_tree(found.linkage, found.parts.numpy())
        # Of equal samples, which all runs treat alike, any one stands for all.
        members = torch.zeros(len(rows), k)
        members[back] = one_hot(found.labels, k).float()
        shares = [propagated(BatchSource(graph, normalization="row"), members, 1) for graph in graphs]
        share_of = torch.stack(shares).mean(dim=0)[back].numpy()
        labels = share_of.argmax(axis=1)
        # A cluster that all of its samples would leave stays as it was found.
        self.labels_ = labels if len(np.unique(labels)) == k else found.labels.numpy()
        self.probabilities_ = _of_labels(share_of, self.labels_)
        agreements = [
            np.mean([adjusted_rand_score(self.labels_, run) for run in of_scale.numpy()]) for of_scale in runs
        ]
        best = int(np.argmax(agreements))
        if scales[best].taken != self._scale.taken:
            self._scale = scales[best]
            self.graph_ = (
                graphs[best] if whole else self._joined(self._scale(torch.from_numpy(x)), self.n_neighbors)
            )

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
        """Share of a new sample's neighbours in each cluster, [M, d] -> [M, K]; see `probabilities_`.

        One that equals its nearest training sample is that sample.
        """
        x = torch.from_numpy(self._features(X))
        if not self._attaches():
            if isinstance(X, Data) and torch.equal(x, self.graph_.x.float().cpu()):
                return self.probabilities_  # the graph that it was fitted to
            raise ValueError(
                "the model was fitted to a graph that was given: only this graph has labels, and what is new has no "
                "place in it; for new samples fit to features, or take a method with a graph encoder, such as "
                "GraphContrastClustering"
            )
        if hasattr(self, "_mixture"):
            return self._mixed(self._scale(x))
        attached = attach(self.graph_, self._scale(x))
        known = torch.from_numpy(np.asarray(self.probabilities_))
        unknown = torch.zeros(len(x), known.shape[1])
        shares = propagated(BatchSource(attached, normalization="row"), torch.cat([known, unknown]), 1)[
            len(known) :
        ]
        # So far from all samples that no weight is left: the nearest one's.
        far = shares.sum(dim=1) < 1e-30
        if far.any():
            nearest = self._nearest_samples(self._scale(x[far]).numpy())[:, 0]
            shares[far] = known[torch.as_tensor(nearest)]
        shares = shares / shares.sum(dim=1, keepdim=True)
        stand_for = attached.stand_for.cpu()
        is_known = stand_for < len(known)
        shares[is_known] = known[stand_for[is_known]]
        return shares.numpy()

    def _mixed(self, x: Tensor) -> NDArray[np.float32] | sp.csr_matrix:
        """Probabilities of scaled new samples by the mixture, among the clusters of their neighbours."""
        nearest = self._nearest_samples(x.numpy())
        cluster = self.labels_[nearest]
        pointer = np.arange(len(x) + 1) * cluster.shape[1]
        candidates = sp.csr_matrix(
            (np.ones(cluster.size, np.float32), cluster.reshape(-1), pointer), (len(x), self.n_clusters_)
        )
        candidates.sum_duplicates()
        found = self._mixture.probabilities(self._projection(x), candidates)
        node = nodes_of(self.graph_.x, x, torch.from_numpy(nearest)).numpy()
        known = node < len(self.labels_)
        if known.any():  # a sample of the training data has its own
            own = sp.csr_matrix(self.probabilities_[node[known]])
            order = np.argsort(np.concatenate([np.flatnonzero(known), np.flatnonzero(~known)]))
            found = sp.vstack([own, found[~known]]).tocsr()[order]
        return _dense_if_small(found)

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
                self._scale = scale_from_state(parts[""])
            if "mixture" in parts:
                self._projection = Projection(**parts["projection"])
                found = parts["mixture"]
                mean, whiten, offset = (found[name].numpy() for name in ("mean", "whiten", "offset"))
                self._mixture = GraphMixture(mean, whiten, offset, float(found["freedom"]))


def _of_labels(shares: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Shares of neighbours [N, K] whose argmax is the label: where it is not, the label counts twice all of them."""
    other = shares.argmax(axis=1) != labels
    shares[other] /= 3
    shares[other, labels[other]] += np.float32(2 / 3)
    return shares


def _dense_if_small(probabilities: sp.csr_matrix) -> NDArray[np.float32] | sp.csr_matrix:
    rows, columns = probabilities.shape
    return probabilities.toarray() if rows * columns <= _MOST_DENSE else probabilities
