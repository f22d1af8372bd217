"""How many clusters there are, told from the sample graph without labels."""

from __future__ import annotations

import copy
import warnings
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import normalize
from torch_geometric.data import Data

from graphclust._checks import check_count, check_generator
from graphclust.graph.linkage import sparse_weights
from graphclust.graph.partition import merge_parts, split_parts
from graphclust.graph.replication import Replication, propagation
from graphclust.graph.sample_graph import SampleGraph, on_cpu

#: A border is real when its cut is thinner by so many standard errors than the cuts inside both clusters ...
LEAST_STRENGTH = 2.5
#: ... and by at least a quarter, however many samples there are.
MOST_DEPTH = 0.75
#: Given edges: clusters whose agreement is less are no clusters. Without structure it stays below 0.04.
LEAST_AGREEMENT = 0.05
_COMPONENTS, _PROPAGATIONS, _STEPS, _OVERSEGMENTATIONS = 32, 16, 20, 3
_SPLITS = 10


class ClusterCount(NamedTuple):
    """Result of `estimate_n_clusters` with ``return_scores=True``.

    Attributes
    ----------
    n_clusters : int
        The estimate.
    candidates : ndarray [C], int64
        Numbers of clusters that the merging went through, ascending, of the run that gave the estimate.
    strengths : ndarray [C]
        Strength of the weakest border at each of them, in standard errors; infinite where no two clusters touch. Draw
        it with ``graphclust.report.sweep_curve(count.candidates, {"weakest border": count.strengths}, "clusters")``.
        Where edges were given, the agreement instead, up to 1.
    each_run : tuple of int
        What the runs found, whose median is the estimate; where edges were given, the best of each split.
    """

    n_clusters: int
    candidates: NDArray[np.int64]
    strengths: NDArray[np.float64]
    each_run: tuple[int, ...]


@overload
def estimate_n_clusters(
    data: Any,
    *,
    n_neighbors: int = ...,
    start: int = ...,
    n_runs: int = ...,
    random_state: Any = ...,
    return_scores: Literal[False] = ...,
) -> int: ...


@overload
def estimate_n_clusters(
    data: Any,
    *,
    n_neighbors: int = ...,
    start: int = ...,
    n_runs: int = ...,
    random_state: Any = ...,
    return_scores: Literal[True],
) -> ClusterCount: ...


def estimate_n_clusters(
    data: Any,
    *,
    n_neighbors: int = 10,
    start: int = 40,
    n_runs: int = 3,
    random_state: Any = 0,
    return_scores: bool = False,
) -> int | ClusterCount:
    r"""Count clusters: groups with a border on all sides, or, where edges are given, clusters that come again.

    **Given edges** (a Data or SampleGraph whose edges were not built from its features): features and edges are split
    at random into two halves each, both halves are clustered alone, and the adjusted Rand index of the two results
    tells how well the clusters are found again (`graphclust.graph.replication.Replication`). The estimate is the number
    of clusters, of features and edges together or of one of them alone, with the largest mean agreement over ten
    splits; 1 where it is below 0.05. Cora (7 classes) gives 6 or 7, CiteSeer (6 classes) gives 6. Where halves are too
    small (a single feature, less than 20 nodes with edges in both), borders are counted.

    **Features**: a border is where the graph is thinner than inside both neighbours.

    1. Over-segment: features (their first 32 principal components, propagated 16 times over the graph) are split by
       k-means and merged by average linkage on the graph to `start` groups, three times; the edges, weighed by how
       often their ends came together, give the groups, and each sample joins the group that most of its neighbours are
       in.
    2. Judge each border between groups a and b: the samples of both are ordered by diffusion from b to a, and
       :math:`c(s)` is the weight of the edges that cross position s of that order. With V the cut at the border and H
       the largest cut inside a or inside b, whichever is smaller, the border's strength is

       .. math:: \sqrt{2 n} \left(1 - \sqrt{V / H}\right), \quad n = H^2 / \sum_i h_i^2,

       where :math:`h_i` is what sample i has in the cut H: the difference of two Poisson counts after the square root,
       which makes their variance constant, in standard errors. A border with V > 3/4 H has no strength.
    3. Merge the two groups with the weakest border until every border has a strength of at least 2.5. The groups that
       are left are the clusters. The estimate is the median of `n_runs` runs.

    A homogeneous cloud has its thickest cuts in the middle, so none of its cuts is a border, whatever its shape, size
    and dimension. Of few samples no border may show (wine, 178 samples: 1): `graphclust.cluster` without K then counts
    vectors by their separation instead (`graphclust.graph.separation.count_separated`). The least
    strength was set where structureless samples (Gaussian, uniform, moons, 1,000 to 5,000 of them) are hardly ever
    split; no number of classes enters.

    Parameters
    ----------
    data : array [N, d], tensor, SampleGraph, or PyG Data
        Features are joined to their nearest neighbours; a graph is taken as it is.
    n_neighbors : int, default=10
        Of the graph, where features are given.
    start : int, default=40
        The largest number of clusters that is tried, or, of features, groups to begin with: no more than these can be
        found, and a result near it is a reason to give more. Of features, groups below 0.3 N / start samples are not
        told apart from their surroundings.
    n_runs : int, default=3
        Of features; with given edges, of splits where it is more than ten.
    random_state : int, RandomState, Generator or None, default=0
    return_scores : bool, default=False
        Return the whole curve, a `ClusterCount`.

    Returns
    -------
    int or ClusterCount

    Raises
    ------
    ValueError, TypeError
        When the data is no matrix of finite numbers or no graph, or a parameter is out of range.

    Notes
    -----
    Time and memory grow with the number of edges. Classes that overlap in the graph (fours and nines of raw pixels)
    count as one. Groups of fewer than some twenty samples are found only where hardly an edge leaves them.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> estimate_n_clusters(load_digits().data)  # doctest: +SKIP
    10
    """
    start = check_count(start, "start", minimum=2)
    n_runs = check_count(n_runs, "n_runs")
    generator = check_generator(random_state)
    graph = _graph_of(data, check_count(n_neighbors, "n_neighbors"))
    if graph.construction.get("source") == "edges":
        found_again = _replicated(graph, start, max(n_runs, _SPLITS), int(generator.integers(2**31)))
        if found_again is not None:
            return found_again if return_scores else found_again.n_clusters
    n = graph.x.shape[0]
    parts = min(6 * start, n // 5)
    start = min(start, parts // 2)
    runs = [([1], [np.inf])]  # what too few samples for two groups give
    if start > 1:
        weights = sparse_weights(graph).astype(np.float64)
        codes = _smooth_codes(graph, weights, int(generator.integers(2**31)))
        runs = []
        for seed in generator.integers(2**31, size=n_runs).tolist():
            groups = _groups(graph, weights, codes, start, parts, seed)
            runs.append(_merge_weakest(weights, groups))
    found = [_largest_real(*run) for run in runs]
    middle = int(np.argsort(found, kind="stable")[(len(found) - 1) // 2])
    if not return_scores:
        return found[middle]
    candidates, strengths = (np.array(values[::-1]) for values in runs[middle])
    return ClusterCount(found[middle], candidates, strengths, tuple(found))


def _graph_of(data: Any, n_neighbors: int) -> SampleGraph:
    if isinstance(data, SampleGraph):
        graph = data
    elif isinstance(data, Data):
        if data.x is None:
            raise ValueError(
                "data has no x; set data.x to the features [N, d], e.g. torch.eye(data.num_nodes)"
            )
        if data.edge_index is None or data.edge_index.numel() == 0:
            return _graph_of(data.x, n_neighbors)
        graph = SampleGraph.from_data(data)
    else:
        # Of a sparse matrix, which has no len(), the check of features says what to do.
        counted = hasattr(data, "__len__") and not hasattr(data, "tocsr")
        least = len(data) if counted else n_neighbors + 1
        if least < 2:
            raise ValueError(f"data has {least} samples, but at least 2 are needed; pass more samples")
        return SampleGraph.from_features(data, min(n_neighbors, least - 1), random_state=0)
    return on_cpu(graph)


def _replicated(graph: SampleGraph, most: int, n_splits: int, seed: int) -> ClusterCount | None:
    """The count by agreement between halves of features and edges; None where these cannot be split."""
    replication = Replication(_scaled(graph.x), sparse_weights(graph), n_splits=n_splits, seed=seed)
    most = min(most, replication.n_compared // 10)
    if not replication.is_possible or most < 2:
        return None
    _, candidates, agreements = replication.curve(most)
    means = agreements.mean(axis=1)
    best = int(means.argmax())
    found = int(candidates[best]) if means[best] >= LEAST_AGREEMENT else 1
    each = tuple(int(k) for k in candidates[agreements.argmax(axis=0)])
    return ClusterCount(found, candidates, means, each)


def _scaled(x: torch.Tensor) -> NDArray[np.float32]:
    """Features as the methods for graphs take them, up to a factor: words by inverse document frequency, else centred.

    Features that are never negative stay as they are: there zero means that something is absent.
    """
    values = x.float().numpy()
    if values.min() < 0:
        return np.asarray(values - values.mean(axis=0))
    present = np.count_nonzero(values, axis=0)
    if present.sum() > 0.05 * values.size:
        return values
    return np.asarray(normalize(values * np.log(len(values) / np.maximum(present, 1)).astype(np.float32)))


def _smooth_codes(graph: Data, weights: sp.csr_matrix, seed: int) -> torch.Tensor:
    """Principal components of the features, propagated over the graph, [N, <= 32]."""
    x = graph.x.float().numpy()
    if x.shape[1] > _COMPONENTS and len(x) > _COMPONENTS:
        x = PCA(_COMPONENTS, svd_solver="randomized", random_state=seed % 2**32).fit_transform(x)
    propagate = propagation(weights)
    for _ in range(_PROPAGATIONS):
        x = propagate @ x
    return torch.from_numpy(np.ascontiguousarray(x))


def _groups(
    graph: Data, weights: sp.csr_matrix, codes: torch.Tensor, n_groups: int, n_parts: int, seed: int
) -> NDArray[np.int64]:
    """An over-segmentation whose borders several runs agree on, [N]."""
    assert graph.edge_index is not None
    source, target = graph.edge_index
    least = 0.3 * len(codes) / n_groups
    together = torch.zeros(source.shape[0])
    merged = copy.copy(graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # about duplicates among the many parts
        for run in range(_OVERSEGMENTATIONS + 1):
            parts = split_parts(codes, n_parts, random_state=seed + run)
            k = min(n_groups, len(parts.unique()))
            if run == _OVERSEGMENTATIONS:
                # A small rest keeps parts linked where the runs never agreed.
                share = together / _OVERSEGMENTATIONS
                merged.edge_weight = graph.edge_weight * (share.square() + 1e-6)
            labels = merge_parts(merged, parts, k, codes, min_size=least).labels
            together += (labels[source] == labels[target]).float()
    return _join_neighbors(weights, labels.numpy())


def _join_neighbors(weights: sp.csr_matrix, labels: NDArray[np.int64], rounds: int = 5) -> NDArray[np.int64]:
    """Each sample joins the group that most of its edge weight leads to, so that groups hang together."""
    n = len(labels)
    for _ in range(rounds):
        member = sp.csr_matrix((np.ones(n), (np.arange(n), labels)), shape=(n, labels.max() + 1))
        # A little more for its own group decides ties, and where a sample has no edge.
        moved = np.asarray((weights @ member + 1e-9 * member).tocsr().argmax(axis=1)).ravel()
        if (moved == labels).all():
            break
        labels = moved
    return np.unique(labels, return_inverse=True)[1]


def _merge_weakest(weights: sp.csr_matrix, labels: NDArray[np.int64]) -> tuple[list[int], list[float]]:
    """Merge the groups with the weakest border, again and again: numbers of groups, and the weakest border at each."""
    members = {group: np.flatnonzero(labels == group) for group in range(int(labels.max()) + 1)}
    n = len(labels)
    one = sp.csr_matrix((np.ones(n), (np.arange(n), labels)), shape=(n, len(members)))
    link = (one.T @ weights @ one).tocoo()
    borders = {
        (a, b): (border_strength(weights, members[a], members[b]), -value)
        for a, b, value in zip(link.row.tolist(), link.col.tolist(), link.data.tolist())
        if a < b and value > 0
    }
    counts, strengths = [len(members)], [np.inf]
    while borders:
        # Of borders that are equally weak, the one with the most edges across.
        weakest = min(borders, key=borders.__getitem__)
        strengths[-1] = borders[weakest][0]
        a, b = weakest
        members[a] = np.concatenate([members[a], members.pop(b)])
        borders = {pair: value for pair, value in borders.items() if a not in pair and b not in pair}
        across = np.asarray(weights[members[a]].sum(axis=0)).ravel()
        for other in members:
            value = float(across[members[other]].sum())
            if other != a and value > 0:
                pair = (min(a, other), max(a, other))
                borders[pair] = (border_strength(weights, members[a], members[other]), -value)
        counts.append(len(members))
        strengths.append(np.inf)
    return counts, strengths


def _largest_real(counts: list[int], strengths: list[float]) -> int:
    """The first number of groups, coming from many, at which every border is real."""
    return next(count for count, strength in zip(counts, strengths) if strength >= LEAST_STRENGTH)


def border_strength(weights: sp.csr_matrix, a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """How much thinner the graph is between two groups than inside both, in standard errors (`estimate_n_clusters`).

    Parameters
    ----------
    weights : csr_matrix [N, N]
        Symmetric edge weights.
    a, b : ndarray of int
        The samples of each group.

    Returns
    -------
    float
        At least 0; 0 where the cut between them is more than three quarters of the cuts inside.
    """
    chosen = np.concatenate([a, b])
    w = weights[chosen][:, chosen].tocsr()
    n, border = len(chosen), len(a) - 1
    side = np.repeat([-1.0, 1.0], [len(a), len(b)])
    degree = np.maximum(np.asarray(w.sum(axis=1)).ravel(), 1e-12)
    heat = side.copy()
    for _ in range(_STEPS):
        heat = (heat + (w @ heat) / degree) / 2
    # Group a comes first; where no heat has come to, the order means nothing.
    order = np.argsort(heat + 4 * side, kind="stable")
    reached = (np.abs(heat) < 1 - 1e-9)[order]
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    entries = w.tocoo()
    first = np.minimum(rank[entries.row], rank[entries.col])
    last = np.maximum(rank[entries.row], rank[entries.col])
    opened = np.bincount(first, weights=entries.data, minlength=n)
    closed = np.bincount(last, weights=entries.data, minlength=n)
    cut = np.where(reached, np.cumsum(opened - closed) / 2, 0.0)  # each edge is there twice
    valley = float(np.cumsum(opened - closed)[border] / 2)
    tops = (int(cut[: border + 1].argmax()), border + 1 + int(cut[border + 1 :].argmax()))
    top = min(tops, key=cut.__getitem__)
    hump = float(cut[top])
    if valley > MOST_DEPTH * hump:
        return 0.0
    before = (rank <= top).astype(np.float64)
    crossing = np.where(before > 0, w @ (1 - before), w @ before)
    n_effective = hump**2 / max(float((crossing**2).sum()), 1e-12)
    return float(np.sqrt(2 * n_effective) * (1 - np.sqrt(max(valley, 0.0) / hump)))
