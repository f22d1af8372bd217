"""What the page says about samples and clusters: how certain, how typical, how well held together by the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from graphclust._labels import as_array, encode_labels

__all__ = ["Measures", "cluster_tree", "measure", "nearest"]

_ROWS = 8192  # rows of features that are read at once
_STRANGE = 0.05  # share of the samples that lie farthest from others
_SILHOUETTE_SAMPLES = 3000


@dataclass
class Measures:
    """Samples and clusters, measured without known classes.

    Attributes
    ----------
    codes : ndarray of shape (N,), int64
        Cluster of each sample, 0 .. K-1; noise (-1), if there is any, is the last.
    labels : list
        The K labels as they were given.
    has_noise : bool
    certainty : ndarray of shape (N,)
        In [0, 1]: the probability of the sample's cluster; without probabilities the share of its edges' weight
        that comes from its own cluster.
    certainty_is_probability : bool
    second : ndarray of shape (N,), int64
        The second choice; -1 where there is none.
    margin : ndarray of shape (N,)
        Certainty minus that of the second choice, in [-1, 1].
    outlying : ndarray of shape (N,)
        Rank of the outlier score, 0 (most ordinary) .. 1.
    order : ndarray of shape (N,)
        All samples, cluster by cluster, in each the most typical first.
    sizes, mean_certainty, cohesion, silhouette : ndarray of shape (K,)
        NaN where a value is not defined (silhouette of a single sample, cohesion without edges).
    inside : float
        Share of the weight of all edges that stays inside a cluster.
    shares : csr_array of shape (K, K)
        Share of cluster k's edge weight that goes to each cluster.
    """

    codes: np.ndarray
    labels: list[Any]
    has_noise: bool
    certainty: np.ndarray
    certainty_is_probability: bool
    second: np.ndarray
    margin: np.ndarray
    outlying: np.ndarray
    order: np.ndarray
    sizes: np.ndarray
    mean_certainty: np.ndarray
    cohesion: np.ndarray
    silhouette: np.ndarray
    inside: float
    shares: sp.csr_array

    def members(self, cluster: int) -> np.ndarray:
        """Samples of a cluster, the most typical first."""
        stop = int(self.sizes[: cluster + 1].sum())
        return self.order[stop - self.sizes[cluster] : stop]


def measure(
    graph: Any, labels: Any, probabilities: Any, features: Any, outlier_scores: Any, random_state: int
) -> Measures:
    """Measure samples and clusters; see `write_report` for the parameters and `Measures` for the result."""
    codes, names = _codes(labels)
    n_samples, n_clusters = len(codes), len(names)
    if graph.num_nodes != n_samples:
        raise ValueError(
            f"the graph has {graph.num_nodes} nodes and labels has {n_samples} entries: give one label per node"
        )
    source, target, weight = _edges(graph)
    sizes = np.bincount(codes, minlength=n_clusters)
    has_noise = names[-1] == -1
    votes = _votes(codes, n_clusters, source, target, weight)
    if probabilities is None:
        certainty, second, margin = _from_votes(votes, codes, has_noise)
    else:
        certainty, second, margin = _from_probabilities(probabilities, codes, names, votes)
    distance = None if features is None else _centre_distance(features, codes, n_clusters, n_samples)
    outlying = _outlier_scores(outlier_scores, graph, distance, certainty)
    # Probabilities saturate: among the many at 1.0, the sample nearest to the centre is the better example.
    nearness = np.zeros(n_samples) if distance is None else distance
    # A strange sample may be sure of its cluster all the same, being far from any other: it is no example of it.
    strange = outlying > np.quantile(outlying, 1 - _STRANGE)
    order = np.lexsort((nearness, -np.round(certainty, 3), strange, codes))
    flow = sp.coo_array((weight, (codes[target], codes[source])), shape=(n_clusters, n_clusters)).tocsr()
    flow = flow + flow.T
    volume = np.asarray(flow.sum(axis=1)).ravel()
    with np.errstate(invalid="ignore", divide="ignore"):
        cohesion = np.where(volume > 0, flow.diagonal() / volume, np.nan)
    scale = sp.diags_array(1 / np.maximum(volume, np.finfo(float).tiny))
    return Measures(
        codes=codes,
        labels=names,
        has_noise=has_noise,
        certainty=certainty,
        certainty_is_probability=probabilities is not None,
        second=second,
        margin=margin,
        outlying=_rank(outlying),
        order=order,
        sizes=sizes,
        mean_certainty=np.bincount(codes, weights=certainty, minlength=n_clusters) / sizes,
        cohesion=cohesion,
        silhouette=_silhouette(features, codes, names, random_state),
        inside=float(flow.diagonal().sum() / volume.sum()) if volume.sum() > 0 else float("nan"),
        shares=sp.csr_array(scale @ flow),
    )


def _codes(labels: Any) -> tuple[np.ndarray, list[Any]]:
    """Codes of the labels, which are sorted where they can be; noise is the last one."""
    codes, found = encode_labels(labels, "labels")
    names: list[Any] = list(found)
    try:
        ordered = sorted(names)
    except TypeError:  # labels of several kinds stay in the order of their appearance
        ordered = list(names)
    if -1 in ordered:
        ordered.remove(-1)
        ordered.append(-1)
    place = {name: code for code, name in enumerate(ordered)}
    return np.array([place[name] for name in names], dtype=np.int64)[codes], ordered


def _edges(graph: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources, targets and weights (1 where the graph has none), without self loops."""
    source, target = as_array(graph.edge_index)
    given = getattr(graph, "edge_weight", None)
    weight = np.ones(len(source)) if given is None else as_array(given).astype(np.float64).ravel()
    if len(source) and (
        min(source.min(), target.min()) < 0 or max(source.max(), target.max()) >= graph.num_nodes
    ):
        raise ValueError(f"the graph's edges name samples beyond its {graph.num_nodes} nodes")
    if not np.isfinite(weight).all() or (weight < 0).any():
        raise ValueError("edge_weight has negative or non-finite entries: weights are similarities, >= 0")
    keep = source != target
    return source[keep], target[keep], weight[keep]


# -- samples -------------------------------------------------------------------------------------------------


def _votes(
    codes: np.ndarray, n_clusters: int, source: np.ndarray, target: np.ndarray, weight: np.ndarray
) -> sp.csr_array:
    """Share of each sample's incoming weight that comes from each cluster: sparse, at most one entry an edge."""
    votes = sp.coo_array((weight, (target, codes[source])), shape=(len(codes), n_clusters)).tocsr()
    total = np.asarray(votes.sum(axis=1)).ravel()
    votes.data /= np.repeat(np.where(total > 0, total, 1.0), np.diff(votes.indptr))
    return votes


def _from_votes(
    votes: sp.csr_array, codes: np.ndarray, has_noise: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = np.repeat(np.arange(len(codes)), np.diff(votes.indptr))
    own = votes.indices == codes[rows]
    certainty = np.zeros(len(codes))
    certainty[rows[own]] = votes.data[own]
    # Nobody's second choice is noise.
    rival = ~own & ~(has_noise & (votes.indices == votes.shape[1] - 1))
    rows, columns, values = rows[rival], votes.indices[rival], votes.data[rival]
    # Written in ascending order of their value, so that the largest of a row is what stays.
    ascending = np.argsort(values, kind="stable")
    second, runner_up = np.full(len(codes), -1, dtype=np.int64), np.zeros(len(codes))
    second[rows[ascending]] = columns[ascending]
    runner_up[rows[ascending]] = values[ascending]
    second[runner_up <= 0] = -1
    return certainty, second, certainty - runner_up


def _from_probabilities(
    probabilities: Any, codes: np.ndarray, names: list[Any], votes: sp.csr_array
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if sp.issparse(probabilities):
        return _from_sparse(sp.csr_array(probabilities), codes, names)
    table = as_array(probabilities)
    if len(table) != len(codes) or table.ndim not in (1, 2):
        raise ValueError(
            f"probabilities has shape {table.shape} and labels has {len(codes)} entries: give (N,) or (N, K)"
        )
    if not (np.isfinite(table).all() and (table >= 0).all() and (table <= 1 + 1e-3).all()):
        raise ValueError(
            "probabilities has entries outside [0, 1]: give the share of each cluster, not scores"
        )
    if table.ndim == 1:
        # Only the graph can say who comes second.
        return (
            table.astype(np.float64),
            _from_votes(votes, codes, names[-1] == -1)[1],
            table.astype(np.float64),
        )
    column = _columns(names, table.shape[1])
    code_of_column = np.full(table.shape[1], -1, dtype=np.int64)
    code_of_column[column[column >= 0]] = np.flatnonzero(column >= 0)
    rows = np.arange(len(codes))
    own = column[codes]
    certainty = np.where(own >= 0, table[rows, own], 0.0).astype(np.float64)
    # Two look-ups a row instead of a copy of the table without its own column.
    best = table.argmax(axis=1)
    if table.shape[1] == 1:
        return certainty, np.full(len(codes), -1, dtype=np.int64), certainty
    top_two = np.argpartition(-table, 1, axis=1)[:, :2]
    other = np.where(top_two[:, 0] == best, top_two[:, 1], top_two[:, 0])
    rival = np.where(own == best, other, best)
    runner_up = table[rows, rival].astype(np.float64)
    return certainty, np.where(runner_up > 0, code_of_column[rival], -1), certainty - runner_up


def _from_sparse(
    table: sp.csr_array, codes: np.ndarray, names: list[Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same for the table [N, K] that models of many samples and clusters have."""
    if table.shape[0] != len(codes):
        raise ValueError(
            f"probabilities has shape {table.shape} and labels has {len(codes)} entries: give (N, K)"
        )
    column = _columns(names, table.shape[1])
    code_of_column = np.full(table.shape[1], -1, dtype=np.int64)
    code_of_column[column[column >= 0]] = np.flatnonzero(column >= 0)
    rows = np.repeat(np.arange(len(codes)), np.diff(table.indptr))
    code = code_of_column[table.indices]
    kept = code >= 0  # a cluster that no sample was given has no code
    shape = (len(codes), len(names))
    ordered = sp.csr_array((table.data[kept].astype(np.float64), (rows[kept], code[kept])), shape=shape)
    return _from_votes(ordered, codes, names[-1] == -1)


def _columns(names: list[Any], n_columns: int) -> np.ndarray:
    """Column of each cluster in the table of probabilities; -1 for noise."""
    known = [name for name in names if name != -1]
    whole = all(isinstance(name, (int, np.integer)) and 0 <= name < n_columns for name in known)
    if not whole and len(known) != n_columns:
        raise ValueError(
            f"probabilities has {n_columns} columns and the labels name {len(known)} clusters: "
            "give one column per cluster, in the sorted order of the labels"
        )
    column = np.array([name if whole else place for place, name in enumerate(known)], dtype=np.int64)
    return np.append(column, -1) if len(known) < len(names) else column


def _centre_distance(features: Any, codes: np.ndarray, n_clusters: int, n_samples: int) -> np.ndarray:
    """Euclidean distance of each sample to the mean of its cluster, read in blocks of rows."""
    if len(features) != n_samples or getattr(features, "ndim", 2) != 2:
        raise ValueError(
            f"the embedding has shape {tuple(features.shape)} and labels has {n_samples} entries: give (N, d)"
        )
    blocks = range(0, n_samples, _ROWS)
    total = np.zeros((n_clusters, features.shape[1]))
    for start in blocks:
        block = as_array(features[start : start + _ROWS]).astype(np.float64)
        member = sp.csr_array(
            (np.ones(len(block)), (codes[start : start + _ROWS], np.arange(len(block)))),
            shape=(n_clusters, len(block)),
        )
        total += member @ block
    centres = total / np.bincount(codes, minlength=n_clusters)[:, None]
    distance = np.empty(n_samples)
    for start in blocks:
        block = as_array(features[start : start + _ROWS]).astype(np.float64)
        distance[start : start + _ROWS] = np.linalg.norm(
            block - centres[codes[start : start + _ROWS]], axis=1
        )
    if not np.isfinite(distance).all():
        raise ValueError("the embedding has NaN or infinite values: did the training diverge?")
    return distance


def _outlier_scores(
    given: Any, graph: Any, centre_distance: np.ndarray | None, certainty: np.ndarray
) -> np.ndarray:
    """As given; else how much farther a sample's neighbours are than those of its neighbours; else the centre."""
    if given is not None:
        scores = as_array(given).astype(np.float64)
        if scores.shape != certainty.shape or not np.isfinite(scores).all():
            raise ValueError(
                f"outlier_scores has shape {scores.shape}: give {len(certainty)} finite numbers, one per sample"
            )
        return scores
    index, distance = getattr(graph, "neighbor_index", None), getattr(graph, "neighbor_distance", None)
    if index is not None and distance is not None:
        mean = as_array(distance).astype(np.float64).mean(axis=1)
        around = mean[as_array(index)].mean(axis=1)
        # Duplicates lie at distance 0; a pair of them is not infinitely far from its surroundings.
        return mean / np.maximum(around, 1e-9 + 1e-3 * np.median(mean))
    return -certainty if centre_distance is None else centre_distance


def _rank(values: np.ndarray) -> np.ndarray:
    """Ranks in [0, 1]."""
    rank = np.empty(len(values))
    rank[np.argsort(values, kind="stable")] = np.arange(len(values))
    return rank / max(1, len(values) - 1)


# -- clusters ------------------------------------------------------------------------------------------------


def _silhouette(features: Any, codes: np.ndarray, names: list[Any], random_state: int) -> np.ndarray:
    """Mean silhouette of each cluster over an equal draw from all; noise is nobody's neighbour."""
    from sklearn.metrics import silhouette_samples

    values = np.full(len(names), np.nan)
    eligible = np.array([name != -1 for name in names]) & (np.bincount(codes, minlength=len(names)) > 1)
    if features is None or eligible.sum() < 2:
        return values
    order = np.random.default_rng(random_state).permutation(len(codes))
    order = order[eligible[codes[order]]]
    order = order[np.argsort(codes[order], kind="stable")]
    sizes = np.bincount(codes[order], minlength=len(names))
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = np.sort(order[place < max(5, _SILHOUETTE_SAMPLES // eligible.sum())])
    found = silhouette_samples(as_array(features[chosen]).astype(np.float32), codes[chosen])
    count = np.bincount(codes[chosen], minlength=len(names))
    values[eligible] = (
        (np.bincount(codes[chosen], weights=found, minlength=len(names))[eligible]) / count[eligible]
    )
    return values


def cluster_tree(graph: Any, measures: Measures, tree: Any) -> np.ndarray | None:
    """Linkage [K - 1, 4] of the clusters without noise, by average linkage on the graph unless one is given."""
    n_clusters = len(measures.labels) - measures.has_noise
    if n_clusters < 2:
        return None
    if tree is not None:
        return _given_tree(tree, n_clusters)
    if n_clusters > 1000:  # the merging is quadratic in the clusters, and nobody reads such a tree
        return None
    import torch
    from torch_geometric.data import Data

    from graphclust.graph.partition import merge_parts

    source, target, weight = _edges(graph)
    kept = measures.codes < n_clusters
    place = np.cumsum(kept) - 1
    inside = kept[source] & kept[target]
    data = Data(
        edge_index=torch.from_numpy(np.stack([place[source[inside]], place[target[inside]]])),
        edge_weight=torch.from_numpy(weight[inside]),
        num_nodes=int(kept.sum()),
    )
    return merge_parts(data, torch.from_numpy(measures.codes[kept]), 1).linkage


def _given_tree(tree: Any, n_clusters: int) -> np.ndarray:
    linkage = np.array(getattr(tree, "linkage", tree), dtype=np.float64)
    if linkage.shape != (n_clusters - 1, 4):
        raise ValueError(
            f"tree has shape {linkage.shape}, but {n_clusters} clusters need a linkage of shape "
            f"({n_clusters - 1}, 4); leave it out to have one computed on the graph"
        )
    from scipy.cluster.hierarchy import is_valid_linkage

    if not is_valid_linkage(linkage) or not np.isfinite(linkage).all():
        raise ValueError("tree is no valid linkage (scipy.cluster.hierarchy.is_valid_linkage says no)")
    part_labels = getattr(tree, "part_labels", None)
    if part_labels is not None and len(part_labels) == n_clusters:
        # Its leaves are parts; here they are clusters.
        leaf = linkage[:, :2] < n_clusters
        linkage[:, :2][leaf] = np.asarray(part_labels)[linkage[:, :2][leaf].astype(np.int64)]
    return linkage


def nearest(graph: Any, n_neighbors: int) -> np.ndarray:
    """The nearest others of each sample, nearest first, uint32 [N, m]; places without a neighbour hold N."""
    n_samples = int(graph.num_nodes)
    index = getattr(graph, "neighbor_index", None)
    if index is not None:
        return as_array(index)[:, :n_neighbors].astype(np.uint32)
    source, target, weight = _edges(graph)
    weights = sp.coo_array((weight, (target, source)), shape=(n_samples, n_samples)).tocsr()
    # An edge list that names each edge once joins both ends all the same.
    either = weights.maximum(weights.T).tocoo()
    order = np.lexsort((-either.data, either.row))
    source, target = either.col[order], either.row[order]
    degree = np.bincount(target, minlength=n_samples)
    place = np.arange(len(target)) - np.repeat(np.cumsum(degree) - degree, degree)
    kept = place < n_neighbors
    table = np.full((n_samples, min(n_neighbors, int(degree.max(initial=0)))), n_samples, dtype=np.uint32)
    table[target[kept], place[kept]] = source[kept]
    return table
