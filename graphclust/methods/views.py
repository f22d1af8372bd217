"""Several graphs of the same samples, and the clusters that all of them agree with."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from graphclust.graph import SampleGraph
from graphclust.graph.information import informative_partition, labels_of_parts, neighbor_walk
from graphclust.graph.over_segmentation import consensus_partition, split_parts
from graphclust.graph.partition import MergeTree
from graphclust.graph.rearrangement import rearranged
from graphclust.methods.starts import principal_components, propagated, propagations
from graphclust.training.batches import BatchSource

#: Clusters up to which views are put together: a search takes time in proportion to their square.
MOST_CLUSTERS = 100
#: Samples that a view has for each cluster at least.
SAMPLES_OF_CLUSTER = 4
#: Steps over the graph before k-means and mixtures, and the columns that a mixture sees.
_FEW_STEPS, _MIXED = 3, 32
#: Parts for each cluster that clusters are put together from, and samples that a part has at least on average.
_PARTS_PER_CLUSTER, _PART_SIZE = 10, 16
#: What the own view counts against each other one: it has learnt from them, and the labels are averaged over its graph.
_OWN_VOTES = 2.0
#: Share of the mean cluster size below which no half of a cluster is split off.
_LEAST_HALF = 0.3


@dataclass
class View:
    """One way to look at samples: their graph under it, and where they lie.

    Attributes
    ----------
    graph : SampleGraph
        Of the view's samples.
    components : Tensor [N_v, c]
        Principal components of its features.
    rows : Tensor [N_v] or None
        Which samples it holds; None for all.
    """

    graph: SampleGraph
    components: Tensor
    rows: Tensor | None = None
    _smoothed: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def smoothed(self, times: int) -> Tensor:
        """The components, propagated over the graph."""
        if times not in self._smoothed:
            self._smoothed[times] = propagated(BatchSource(self.graph), self.components, times)
        return self._smoothed[times]

    def positions(self, n_clusters: int) -> Tensor:
        """The components, propagated as far as clusters of this number allow (`propagations`)."""
        return self.smoothed(propagations(len(self.components), n_clusters))

    def consensus(self, n_clusters: int, seed: int, parts_per_cluster: int = 24) -> MergeTree:
        """The consensus partition (`graphclust.graph.consensus_partition`)."""
        return consensus_partition(
            self.graph,
            self.positions(n_clusters),
            n_clusters,
            parts_per_cluster=parts_per_cluster,
            random_state=seed,
        )

    def moved(self, tree: MergeTree, n_clusters: int) -> Tensor:
        """Labels [N_v] of a consensus after `graphclust.graph.rearranged`, which splits off no small half."""
        return rearranged(self.graph, tree, min_size=_LEAST_HALF * len(self.components) / n_clusters).labels

    def first_clusters(self, tree: MergeTree, n_clusters: int, seed: int) -> list[Tensor]:
        """Labels [N_v] by several methods, that a search may start from: what suits differs from data to data.

        The consensus, moved by modularity and as it is; k-means before and after three steps of propagation; a
        Gaussian mixture after them.
        """
        near = principal_components(self.smoothed(_FEW_STEPS), _MIXED, seed=seed).double().numpy()
        with warnings.catch_warnings():
            # A start that has not come to rest is a start still.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = [
                KMeans(n_clusters, n_init=2, random_state=seed).fit_predict(codes)
                for codes in (self.components.numpy(), near)
            ]
            mixture = GaussianMixture(
                n_clusters, reg_covar=1e-3 * near.var() + 1e-9, max_iter=50, random_state=seed
            )
            found.append(mixture.fit_predict(near))
        labels = [torch.from_numpy(some).long() for some in found]
        return [tree.labels, self.moved(tree, n_clusters), *labels]


def view_of(features: Tensor, options: dict[str, Any], seed: int, rows: Tensor | None = None) -> View:
    """The view of features [N_v, d]; `options` are those of `SampleGraph.from_features`."""
    features = features.float()
    graph = SampleGraph.from_features(
        features, **{**options, "n_neighbors": min(options["n_neighbors"], len(features) - 1)}
    )
    return View(graph, principal_components(features, seed=seed), rows)


def n_different(rows: Tensor) -> int:
    """Number of different rows, by two sums with random weights: sorting whole rows takes seconds."""
    weights = torch.rand(rows.shape[1], 2, generator=torch.Generator().manual_seed(0))
    return len(torch.unique(rows.float() @ weights, dim=0))


def clusters_of_views(own: View, tree: MergeTree, others: list[View], n_clusters: int, seed: int) -> Tensor:
    """Clusters [N] that say most about where walks over the graphs of all views lead.

    Parts of the own view, which has two votes, are put together (`informative_partition`), from the first clusters of
    each view. Views of
    fewer than `SAMPLES_OF_CLUSTER` samples for each cluster take no part.

    Parameters
    ----------
    own : View
        Of all samples.
    tree : MergeTree
        Its consensus.
    others : list of View
    n_clusters : int
    seed : int
    """
    n = len(own.components)
    n_parts = max(
        min(_PARTS_PER_CLUSTER * n_clusters, n // _PART_SIZE), min(4 * n_clusters, n // 2), n_clusters
    )
    parts = split_parts(own.positions(n_clusters), n_parts, random_state=seed)
    parts = torch.unique(parts, return_inverse=True)[1]
    member = sp.csr_matrix((np.ones(n, np.float32), (np.arange(n), parts.numpy())))
    walks, starts = [], []
    for view in (own, *others):
        if view is not own and (
            len(view.components) < SAMPLES_OF_CLUSTER * n_clusters
            or n_different(view.components) < n_clusters
        ):
            continue
        inside = member if view.rows is None else member[view.rows.numpy()]
        assert view.graph.neighbor_index is not None
        walks.append(neighbor_walk(view.graph.neighbor_index) @ inside)
        its_tree = tree if view is own else view.consensus(n_clusters, seed)
        for labels in view.first_clusters(its_tree, n_clusters, seed):
            start = labels_of_parts(labels, parts, n_clusters, view.rows)
            if len(np.unique(start)) == n_clusters:
                starts.append(start)
    if not starts:
        return tree.labels
    weights = [_OWN_VOTES, *[1.0] * (len(walks) - 1)]
    found = informative_partition(walks, starts, n_clusters, weights=weights, random_state=seed)
    return torch.from_numpy(found.part_labels)[parts]
