"""AgglomerativeDensity: many small parts, merged where the density between two is nearly that within them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphclust._checks import check_count
from graphclust.graph import SampleGraph
from graphclust.graph.links import linked_pairs, pair_distances
from graphclust.graph.metric import Metric
from graphclust.methods.centers import Distortion
from graphclust.methods.inputs import Input
from graphclust.methods.kmeans import k_means
from graphclust.methods.merging import merge_linked
from graphclust.methods.shallow_graph import ShallowGraphClusterer
from graphclust.methods.trees import Tree, make_linkage

#: What counts as a cluster when K is given, as a share of N / K; that of `consensus_partition`.
LEAST_SHARE = 0.3
MAX_PARTS = 10_000
#: Samples a part, and parts in the smallest cluster.
_PART_SIZE = 8
_PARTS_OF_SMALLEST = 8


def density_distance(link: float, own_a: float, own_b: float) -> float:
    r"""How much thinner the border of two parts is than they are: :math:`-\log(f_{ab} / \sqrt{f_{aa} f_{bb}})`.

    Sizes cancel out, so sums of links do as well as the means f; see `AgglomerativeDensity`.
    """
    return 0.5 * (math.log(own_a) + math.log(own_b)) - math.log(link)


@dataclass(eq=False, repr=False, kw_only=True)
class AgglomerativeDensity(Tree, ShallowGraphClusterer):
    r"""Over-segment by k-means, then merge the two parts with the smallest density distance.

    Two samples i and j that the graph joins have the density :math:`\lambda_{ij} = 1 / \max(d_{ij}, \kappa_i,
    \kappa_j)`, where :math:`\kappa_i` is the mean distance of i to its neighbours: the inverse of HDBSCAN's mutual
    reachability distance (Campello, Moulavi & Sander 2013), and for a sample with itself its inverse mean k-NN
    distance. The density of b as the samples of a see it, and of a as its own samples do, are

    .. math:: f_{ab} = \frac{1}{n_a n_b} \sum_{i \in a, j \in b} \lambda_{ij}, \quad
              f_{aa} = \frac{1}{n_a^2} \sum_{i, j \in a} \lambda_{ij}

    and the density distance is that of the border relative to the parts' own,
    :math:`D_{ab} = -\log (f_{ab} / \sqrt{f_{aa} f_{bb}})`. With a kernel for :math:`\lambda` this is the Cauchy-Schwarz
    divergence of two estimated densities (Jenssen, Principe, Erdogmus & Eltoft 2006): 0 where a and b are one, large
    where few and long edges run between them. All of it adds up when parts are merged, so each distance is exact.

    Parts of less than `min_size` samples are merged before all others, each with the nearest by D; then the others, to
    K of them or, where `n_clusters` is None, no further. The tree goes on to the root either way. Its heights are D,
    never falling and at least 0; the parts that were too small are drawn no higher than the first merge of two others.
    New samples go with the nearest part's centre.

    Departure: the method has no paper of its own and no reported result; its steps are those of the field (CHAMELEON,
    Karypis, Han & Kumar 1999, merges parts by the links between two relative to those within).

    Parameters
    ----------
    n_clusters : int or None
        K; None takes as many as `min_size` leaves, so that clusters much larger than it come in pieces.
    metric : {"euclidean", "manhattan", "minkowski", "cosine"}
        Of graph, k-means and reachability.
    p : float
        Power of the Minkowski metric, 1 to 16.
    min_size : int or None
        Samples in the smallest cluster; None takes 0.3 N / K. With K given, K counts for more.
    n_parts : int or None
        Parts of the over-segmentation, of which those without samples do not count; None takes eight for the smallest
        cluster, of at least eight samples each on average, at most 10,000.

    Attributes
    ----------
    part_centers_ : ndarray [P, d], float32
    part_densities_ : ndarray [P], float64
        The f of each part with itself.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from graphclust import AgglomerativeDensity
    >>> model = AgglomerativeDensity(n_clusters=None, min_size=100, random_state=0).fit(load_digits().data)
    >>> all((model.labels_ == k).sum() >= 100 for k in range(model.n_clusters_))
    True
    """

    # Wider than the base's type: this method alone may stop by `min_size` instead.
    n_clusters: int | str | None = field(default=8, kw_only=False)  # type: ignore[assignment]
    min_size: int | None = None
    n_parts: int | None = None

    _results: ClassVar[tuple[str, ...]] = (
        "labels",
        "tree",
        "leaf_labels",
        "part_centers",
        "part_densities",
    )
    _finds_n_clusters: ClassVar[bool] = True

    def _check_parameters(self) -> None:
        super()._check_parameters()
        Distortion.make(self.metric, self.p)
        if self.min_size is not None:
            check_count(self.min_size, "min_size")
        elif self.n_clusters is None:
            raise ValueError(
                "n_clusters=None and min_size=None leave open when to stop merging; set min_size to the least number "
                "of samples that makes a cluster, or n_clusters"
            )
        if self.n_parts is not None:
            check_count(
                self.n_parts, "n_parts", minimum=self.n_clusters if isinstance(self.n_clusters, int) else 2
            )

    def _fit(self, x: NDArray[np.float32], seed: int) -> None:
        n = len(x)
        least = self.min_size or max(1, round(LEAST_SHARE * n / self.n_clusters_))
        if least > n:
            raise ValueError(
                f"min_size={least} must be at most {n}, the number of samples; ask for smaller clusters"
            )
        parts = k_means(
            x,
            self._choose_n_parts(n, least),
            metric=self.metric,
            p=self.p,
            n_init=1,
            max_iter=20,
            random_state=seed,
        )
        present, leaf = np.unique(parts.labels, return_inverse=True)
        self.part_centers_ = parts.centers[present]
        densities = pair_densities(self.graph_, Metric.make(self.metric, self.p))
        joined = join_parts(densities, leaf, least)
        self.part_densities_ = joined.own / np.bincount(leaf) ** 2.0
        self._set_tree(joined.tree, leaf)
        if self.n_clusters is None:
            self.n_clusters_ = len(present) - joined.n_small
        self.labels_ = self.cut(self.n_clusters_)

    def _choose_n_parts(self, n_samples: int, least: int) -> int:
        fewest = 2 if self.n_clusters is None else self.n_clusters_
        if self.n_parts is not None:
            remedy = "a part has at least one sample"
            return check_count(self.n_parts, "n_parts", fewest, n_samples, remedy)
        return max(fewest, min(_PARTS_OF_SMALLEST * n_samples // least, n_samples // _PART_SIZE, MAX_PARTS))

    def predict(self, X: Input) -> NDArray[np.int64]:
        """Cluster of the part with the nearest centre, [M, d] -> [M]."""
        x = self._features(X)
        distortion = Distortion.make(self.metric, self.p)
        part, _ = distortion.assign(distortion.points(x), self.part_centers_)
        label_of_part = np.empty(len(self.part_centers_), dtype=np.int64)
        label_of_part[self.leaf_labels_] = self.labels_
        return label_of_part[part]


class PairDensities(NamedTuple):
    """Pairs of samples that are joined [E, 2], the density of each [E], and of each sample its core distance [N]."""

    samples: NDArray[np.int64]
    density: NDArray[np.float64]
    core: NDArray[np.float64]


def pair_densities(graph: SampleGraph, metric: Metric) -> PairDensities:
    """Density of each pair that an edge joins: 1 over its distance, or the larger core distance of both if more.

    Where the graph has several components, these are joined as well (`graphclust.graph.links.linked_pairs`).
    """
    samples = linked_pairs(graph, metric)
    distance = pair_distances(graph.x.cpu(), samples, metric)
    core = _core_distances(graph, samples, distance)
    return PairDensities(samples, 1.0 / np.maximum(distance, core[samples].max(axis=1)), core)


class JoinedParts(NamedTuple):
    """The tree [P - 1, 4] over parts, the sum of the densities within each [P], and how many merges were for size."""

    tree: NDArray[np.float64]
    own: NDArray[np.float64]
    n_small: int


def join_parts(
    densities: PairDensities,
    leaf: NDArray[np.int64],
    least: int,
    *,
    relative: bool = True,
    runs: Sequence[NDArray[np.int64]] = (),
) -> JoinedParts:
    r"""Merge parts by their density distance, those of less than `least` samples first; see `AgglomerativeDensity`.

    Parameters
    ----------
    densities : PairDensities
        Of the samples.
    leaf : ndarray [N], int64
        Part of each sample, 0 ... P - 1, none of them empty.
    least : int
        Samples in the smallest cluster.
    relative : bool, default=True
        Whether the density between two parts counts by that within them, :math:`D_{ab}`, or by itself,
        :math:`-\log f_{ab}`: average linkage, with :math:`\lambda` as the similarity. Heights then begin at 0.
    runs : sequence of ndarray [N], int64
        Earlier clusterings of the samples. With any, the density of two samples counts by the square of the share of
        them that hold both together (evidence accumulation, Fred & Jain 2005).
    """

    def distance(link: float, size_a: float, size_b: float, own_a: float, own_b: float) -> float:
        return (
            density_distance(link, own_a, own_b) if relative else math.log(size_a * size_b) - math.log(link)
        )

    def cost(link: float, size_a: float, size_b: float, own_a: float, own_b: float) -> tuple[float, float]:
        return float(min(size_a, size_b) >= least), distance(link, size_a, size_b, own_a, own_b)

    pairs, links, own = part_links(densities, leaf, runs)
    merges = merge_linked(pairs, links, np.bincount(leaf), own, cost)
    n_small = sum(not enough for enough, _ in merges.costs)
    distances = np.array([distance for _, distance in merges.costs])
    height = np.maximum(distances, 0.0) if relative else distances - distances.min(initial=np.inf)
    # What has to be merged for its size would hide by its height all that comes after it.
    height[:n_small] = np.minimum(height[:n_small], height[n_small:].min(initial=np.inf))
    return JoinedParts(make_linkage(merges.children, height), own, n_small)


def part_links(
    densities: PairDensities, leaf: NDArray[np.int64], runs: Sequence[NDArray[np.int64]] = ()
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Sums of the densities of pairs of samples between and within parts.

    Parameters
    ----------
    densities : PairDensities
    leaf : ndarray [N], int64
        Part of each sample, 0 ... P - 1.
    runs : sequence of ndarray [N], int64
        See `join_parts`.

    Returns
    -------
    pairs : ndarray [E, 2], int64
        Parts that an edge joins, each pair once.
    links : ndarray [E]
        Sum of the densities of the edges between the two.
    own : ndarray [P]
        Within each part: both directions of each edge, and each sample with itself.
    """
    n_parts = int(leaf.max()) + 1
    samples, density, core = densities
    if len(runs):
        together = np.mean([run[samples[:, 0]] == run[samples[:, 1]] for run in runs], axis=0)
        # A small rest keeps parts linked where the runs never agreed.
        density = density * (together**2 + 1e-6)
    ends = np.sort(leaf[samples], axis=1)
    code, where = np.unique(ends[:, 0] * n_parts + ends[:, 1], return_inverse=True)
    total = np.bincount(where, weights=density)
    pairs = np.column_stack([code // n_parts, code % n_parts])
    inside = pairs[:, 0] == pairs[:, 1]
    own = np.zeros(n_parts)
    np.add.at(own, leaf, 1.0 / core)
    own[pairs[inside, 0]] += 2 * total[inside]
    return pairs[~inside], total[~inside], own


def _core_distances(
    graph: SampleGraph, samples: NDArray[np.int64], distance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean distance of each sample to its neighbours [N], above 0."""
    if graph.neighbor_distance is not None:
        core = graph.neighbor_distance.cpu().double().mean(dim=1).numpy()
    else:
        ends = samples.ravel()
        degree = np.bincount(ends, minlength=graph.x.size(0))
        core = np.bincount(ends, weights=np.repeat(distance, 2), minlength=len(degree)) / degree
    # Duplicates are at 0, and must not weigh more than all other samples together.
    typical = core[core > 0].mean() if (core > 0).any() else 1.0
    return np.maximum(core, 0.01 * typical)
