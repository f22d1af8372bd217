"""What the neighbour lists of a sample graph answer: what is like this, what is there twice, what lies apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from graphclust._checks import check_count, check_features, check_number
from graphclust.graph.attachment import neighbors_in
from graphclust.graph.sample_graph import SampleGraph
from graphclust.graph.search import NeighborSearch


def nearest(graph: SampleGraph, x: Any, k: int = 10) -> tuple[Tensor, Tensor]:
    """Find the samples of a graph that are nearest to others, by the graph's metric.

    Parameters
    ----------
    graph : SampleGraph
        Made by `SampleGraph.from_features`.
    x : array, tensor or memory map, shape [M, d]
        A sample of the graph that is asked for finds itself.
    k : int
        From 1 to N.

    Returns
    -------
    index : Tensor, int64, shape [M, k]
        Nearest first.
    distance : Tensor, float32, shape [M, k]

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> x = load_digits().data
    >>> index, distance = nearest(SampleGraph.from_features(x), x[:3], k=2)
    >>> index[:, 0].tolist(), distance[:, 0].tolist()
    ([0, 1, 2], [0.0, 0.0, 0.0])
    """
    _construction(graph)
    n, d = graph.x.shape
    features = check_features(x, n_features=d)
    return neighbors_in(graph, features, check_count(k, "k", 1, n, f"the graph has {n} samples"))


def similar(graph: SampleGraph, sample: int, k: int = 10) -> tuple[Tensor, Tensor]:
    """Find the samples most like one of the graph's own, itself left out: from its neighbour list where that suffices.

    Parameters
    ----------
    graph : SampleGraph
        Made by `SampleGraph.from_features`.
    sample : int
        From 0 to N - 1.
    k : int
        From 1 to N - 1.

    Returns
    -------
    index : Tensor, int64, shape [k]
        Nearest first.
    distance : Tensor, float32, shape [k]
    """
    index, distance = neighbor_lists(graph)
    n = index.size(0)
    sample = check_count(sample, "sample", 0, n - 1, f"the graph has {n} samples")
    k = check_count(k, "k", 1, max(1, n - 1), f"the graph has {n} samples")
    if k <= index.size(1) and graph.get("num_old") is None:  # what was attached is in no older list
        return index[sample, :k], distance[sample, :k]
    found, away = nearest(graph, graph.x[sample : sample + 1], min(n, k + 1))
    others = found[0] != sample
    return found[0][others][:k], away[0][others][:k]


def duplicate_groups(graph: SampleGraph, threshold: float | None = None) -> Tensor:
    r"""Group near-duplicates: the connected components of the pairs (i, j), j in i's list, with distance :math:`\le t`.

    A group is a chain: two of its members may lie further apart than the threshold when others lie between them.
    Samples that were attached to the graph are also compared with each other, which their lists do not do.

    Parameters
    ----------
    graph : SampleGraph
        Made by `SampleGraph.from_features`.
    threshold : float, optional
        t, at least 0, in the distance of the graph; 0 groups samples with equal features. By default
        `duplicate_threshold(graph)`.

    Returns
    -------
    Tensor, int64, shape [N]
        Groups 0, 1, ... by their size, the largest first (then by their first sample); -1 for samples without a
        duplicate.
    """
    limit = duplicate_threshold(graph) if threshold is None else check_number(threshold, "threshold", 0)
    index, distance = neighbor_lists(graph)
    n = index.size(0)
    pairs = [_close_pairs(index, distance, limit)]
    attached = n - int(graph.get("num_old") or n)
    if attached > 1:
        how = graph.construction
        among = NeighborSearch(how["metric"], p=how["p"], index=how["index"], recall=how["recall"])
        found = among.fit(graph.x[n - attached :]).self_neighbors(min(index.size(1), attached - 1))
        pairs.append(_close_pairs(*found, limit) + n - attached)
    row, column = np.concatenate(pairs, axis=1)
    close = csr_matrix((np.ones(len(row), np.int8), (row, column)), shape=(n, n))
    component = connected_components(close, directed=False)[1]
    size = np.bincount(component)
    first = np.full(len(size), n)
    np.minimum.at(first, component, np.arange(n))
    order = np.lexsort((first, -size))
    number = np.full(len(size), -1)
    number[order] = np.arange(len(size))
    number[size == 1] = -1
    return torch.from_numpy(number[component].astype(np.int64))


def duplicate_threshold(graph: SampleGraph) -> float:
    """A distance below which samples pass for copies: 0.4 times the median distance to the third neighbour.

    Measured on photographs of leaves with EfficientNet features of length 1: copies at half the size or saved as JPEG
    of quality 40 lie at 0.06 in the median, and at 0.13 or less in nine of ten cases; different leaves at 0.16 or more,
    and at 0.33 in the median. The third neighbour is taken because the first two may be copies for every second sample,
    and later ones may belong to another group where groups are small.
    """
    _, distance = neighbor_lists(graph)
    return 0.4 * float(distance[:, min(2, distance.size(1) - 1)].median())


def outlier_scores(graph: SampleGraph, x_new: Any = None) -> Tensor:
    r"""How far each sample lies apart: the local outlier factor (Breunig et al. 2000) over the neighbour lists.

    With :math:`d_k(j)` the distance of j to its k-th neighbour, N_i the neighbour list of i and t the
    `duplicate_threshold`:

    .. math:: r_{ij} = \max(d_k(j), d_{ij}, t), \quad \rho_i = k / \sum_{j \in N_i} r_{ij}, \quad
        s_i = \frac{1}{k} \sum_{j \in N_i} \rho_j / \rho_i

    The paper has no t: there k copies of a sample are infinitely dense, and whatever lies beside them an outlier beyond
    measure. Where no distance is below t, the scores are those of scikit-learn's `LocalOutlierFactor` with its sign
    turned.

    Parameters
    ----------
    graph : SampleGraph
        Made by `SampleGraph.from_features`, with distances of at least 0.
    x_new : array-like of shape (M, d), optional
        Score these samples instead, each by its nearest ones in the graph.

    Returns
    -------
    Tensor, float32, shape [N] or [M]
        About 1 for a sample as dense as its neighbours, larger for one that lies apart.
    """
    index, distance = neighbor_lists(graph)
    distance = distance.double()
    if float(distance.min()) < 0:
        raise ValueError(
            "outlier scores need distances of at least 0, and this graph's metric is "
            f"{graph.construction['metric']!r}: build it with metric='euclidean' or 'cosine'"
        )
    # Samples that are all the same have a threshold of 0; the small number keeps their densities finite.
    floor = max(duplicate_threshold(graph), 1e-10)
    reach = distance[:, -1]
    density = 1 / torch.maximum(reach[index], distance).clamp_min(floor).mean(dim=1)
    if x_new is None:
        return (density[index].mean(dim=1) / density).float()
    index, distance = nearest(graph, x_new, index.shape[1])
    spread = torch.maximum(reach[index], distance.double()).clamp_min(floor).mean(dim=1)
    return (density[index].mean(dim=1) * spread).float()


def neighbor_lists(graph: SampleGraph) -> tuple[Tensor, Tensor]:
    """Neighbours and their distances, [N, k] each; ValueError for a graph that was made from edges."""
    _construction(graph)
    index, distance = graph.neighbor_index, graph.neighbor_distance
    assert index is not None and distance is not None
    return index, distance


def _close_pairs(index: Tensor, distance: Tensor, limit: float) -> NDArray[np.int64]:
    """Samples and neighbours within the limit, [2, P]."""
    row, column = (distance <= limit).nonzero(as_tuple=True)
    return torch.stack([row, index[row, column]]).cpu().numpy()


def _construction(graph: SampleGraph) -> dict[str, Any]:
    if not isinstance(graph, SampleGraph):
        raise TypeError(f"graph is a {type(graph).__name__}: pass a SampleGraph")
    if graph.neighbor_index is None or not graph.joins_neighbors:
        raise ValueError(
            "the graph was made from edges and knows no distances: build one by SampleGraph.from_features(graph.x)"
        )
    return graph.construction
