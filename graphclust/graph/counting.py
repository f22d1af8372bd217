"""How many clusters there are, told from the sample graph without labels."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import normalize
from torch_geometric.data import Data

from graphclust._checks import WITHOUT_FEATURES, check_count, check_generator
from graphclust.graph.borders import N_RUNS, START, bordered_runs, median_run
from graphclust.graph.linkage import sparse_weights
from graphclust.graph.replication import Replication
from graphclust.graph.sample_graph import SampleGraph, on_cpu

#: Given edges: clusters whose agreement is less are no clusters. Without structure it stays below 0.04.
LEAST_AGREEMENT = 0.05
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
    start: int = START,
    n_runs: int = N_RUNS,
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
       which makes their variance constant, in standard errors. A border with V > 3/4 H has no
       strength; in three dimensions or fewer with V > H / 2 and less (`graphclust.graph.thinness.thinness_of`), because
       there the thinnest of all cuts through a cloud is that thin by chance, and only where samples at the border lie
       less densely than inside.
    3. Merge the two groups with the weakest border until every border has a strength of at least 2.5. The groups that
       are left are the clusters. The estimate is the median of `n_runs` runs.

    A homogeneous cloud has its thickest cuts in the middle, so none of its cuts is a border. Of few samples no border
    may show (wine, 178 samples: 1): `graphclust.cluster` without K then counts vectors by their separation instead
    (`graphclust.graph.separation.count_separated`). The least strength was set where structureless samples (Gaussian,
    uniform, moons, 1,000 to 5,000 of them) are hardly ever split; no number of classes enters.

    Parameters
    ----------
    data : array [N, d], tensor, SampleGraph, or PyG Data
        Features are joined to their nearest neighbours; a graph is taken as it is.
    n_neighbors : int, default=10
        Of the graph, where features are given; borders in fewer than four dimensions are looked for with at least 15,
        of less than 1,500 samples with a hundredth of them.
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
    runs = bordered_runs(graph, start, n_runs, generator)
    middle = median_run(runs)
    if not return_scores:
        return middle.n_clusters
    candidates, strengths = (np.array(values[::-1]) for values in (middle.counts, middle.strengths))
    return ClusterCount(middle.n_clusters, candidates, strengths, tuple(run.n_clusters for run in runs))


def _graph_of(data: Any, n_neighbors: int) -> SampleGraph:
    if isinstance(data, SampleGraph):
        graph = data
    elif isinstance(data, Data):
        if data.x is None:
            raise ValueError("data has no x; set data.x to the features [N, d], " + WITHOUT_FEATURES)
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
