"""How many clusters vectors have, told from how much better they are separated than in data without clusters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

from graphclust.graph.borders import BorderedRun
from graphclust.graph.counting import ClusterCount
from graphclust.graph.linkage import SampleTree, sparse_weights
from graphclust.graph.null_samples import NullSamples
from graphclust.graph.replication import propagation
from graphclust.graph.sample_graph import SampleGraph

#: What clusters gain at least over data without clusters, whose own gains are less: where there are many samples, and
#: times the root of the number of samples; of so many clusters as more again (squared), because small ones are found
#: separated by chance.
LEAST_GAIN, _LEAST_ROOT, _MANY = 0.03, 0.5, 20
#: Gains differ by so much by chance: fewer clusters, or as many as have a border, are taken where they gain no less.
_CHANCE = 0.02
_COMPONENTS, _PROPAGATIONS, _NEIGHBORS = 32, 16, 7
#: Columns that are looked at, and samples that a cluster has on average at least.
_COLUMNS, _LEAST_SIZE = 256, 5
_DRAWS = 2
#: Numbers of groups with likely borders that are tried.
_TRIALS = 3


def count_separated(
    x: Tensor,
    scaled: Callable[[Tensor], list[Tensor]],
    *,
    borders: BorderedRun | None = None,
    most: int = 30,
    n_rows: int = 500,
    seed: int = 0,
) -> ClusterCount:
    r"""Count clusters: the number that is better separated than in data of the same kind without clusters.

    Under each scaling, samples (their first 32 principal components) are propagated over their sample graph and
    merged by Ward's linkage, and for each K the mean silhouette of the scaled samples tells how well the clusters are
    separated (Rousseeuw 1987). What it is worth depends on the data: K clusters of a long cloud, of a cube or of a
    skewed column have one as well. So the same is done with samples that were drawn without clusters,
    as Gaussian and uniform clouds, balls, cubes and long tails, and along the curve if there is one that winds
    (`graphclust.graph.null_samples`).

    The *gain* of K is the silhouette less the largest of these (means of two draws), in the mean over the scalings (the
    idea of the gap statistic; Tibshirani, Walther & Hastie 2001). The estimate is the least K whose gain is within 0.02
    of the largest; 1 where none is above 0.03 and :math:`0.5 \sqrt{(1 + K / 20) / n}`, n samples.

    Silhouettes tell clusters that are round; groups with a border on all sides (`estimate_n_clusters`) may wind around
    each other. So where there is more than one of these, their number is the estimate if it has no gain, as of two
    moons, or one within 0.02 of the largest, so that both agree; and of more than 4 `n_rows` samples always, as borders
    are looked for with all of them.

    Where both disagree, long clusters may have been cut into pieces. So samples are also drawn with the groups that
    have a border, each without clusters inside, and their number is the estimate if no K has a gain over these. That is
    tried with as many groups as have a border of at least 2 standard errors (1.5 below four dimensions, where it has to
    be thinner), from few to more.

    Parameters
    ----------
    x : Tensor [N, d]
    scaled : callable
        Rows [n, d] -> their versions under several scalings, a list of tensors [n, d'].
    borders : BorderedRun, optional
        Groups of the samples x, merged at their borders (`graphclust.graph.borders.bordered_runs`).
    most : int, default=30
        Largest number that is tried; from 12 on in growing steps.
    n_rows : int, default=500
        Distinct samples that are looked at, drawn at random where there are more.
    seed : int, default=0

    Returns
    -------
    ClusterCount
        With the gains as `strengths`.

    Notes
    -----
    Classes that touch in all directions have no gain and count as one; a curve that branches may be cut into arcs,
    which have one. Clusters of a few samples among many are not seen where samples are drawn.
    """
    generator = np.random.default_rng(seed)
    bordered = 1 if borders is None else borders.n_clusters
    many = len(x) > 4 * n_rows
    index = np.arange(len(x))
    if many:  # of these, enough should differ
        index = np.sort(generator.choice(len(x), 4 * n_rows, replace=False))
    rows, first = np.unique(x[torch.from_numpy(index)].double().cpu().numpy(), axis=0, return_index=True)
    index = index[first]
    if len(rows) > n_rows:
        chosen = generator.choice(len(rows), n_rows, replace=False)
        rows, index = rows[chosen], index[chosen]
    rows = rows[:, np.ptp(rows, axis=0) > 0]
    if rows.shape[1] > _COLUMNS:
        rows = rows[:, generator.choice(rows.shape[1], _COLUMNS, replace=False)]
    candidates = _candidates(min(most, len(rows) // _LEAST_SIZE))
    if not len(candidates) or not rows.shape[1]:
        return ClusterCount(bordered, np.array([bordered]), np.array([np.inf]), (bordered,))
    found = _silhouettes(rows, scaled, candidates)

    def gains_over(groups: NDArray[np.int64]) -> NDArray[np.float64]:
        """Silhouettes less those of samples with these groups alone, [S, C]."""
        null = NullSamples(rows, groups)
        draws = [
            [_silhouettes(others, scaled, candidates) for others in null.draw(generator)]
            for _ in range(_DRAWS)
        ]
        # Of rows that are equal fewer are left, for which there may be a scaling less.
        common = min(len(silhouettes) for draw in draws for silhouettes in [found, *draw])
        means = [np.mean([s[:common] for s in same], axis=0) for same in zip(*draws)]
        return np.asarray(found[:common] - np.max(means, axis=0))

    of_each = gains_over(np.zeros(len(rows), dtype=np.int64))
    gains = of_each.mean(axis=0)
    n_clusters = 1
    enough = np.maximum(LEAST_GAIN, _LEAST_ROOT * np.sqrt((1 + candidates / _MANY) / len(rows)))
    if (gains >= enough).any():
        largest = gains[gains >= enough].max()
        n_clusters = int(candidates[(gains >= largest - _CHANCE).argmax()])
    if borders is not None and n_clusters != bordered:
        gain, least = (float(np.interp(bordered, candidates, curve)) for curve in (gains, enough))
        winding = many or bordered > candidates[-1] or gain < least or gain >= gains.max() - _CHANCE
        if bordered > 1 and winding:
            n_clusters = bordered
        elif n_clusters > 1:
            for count in _worth_trying(borders, most):
                if (gains_over(borders.labels(count)[index]).mean(axis=0) < enough).all():
                    n_clusters = count
                    break
    each = tuple(int(candidates[i]) for i in of_each.argmax(axis=1))
    return ClusterCount(n_clusters, candidates, gains, each)


def _worth_trying(borders: BorderedRun, most: int) -> list[int]:
    """Few numbers of groups, ascending, at which every border is likely."""
    likely = [
        count
        for count, strength in zip(borders.counts, borders.strengths)
        if strength >= borders.likely and max(2, borders.n_clusters) <= count <= most
    ]
    return sorted(likely)[:_TRIALS]


def _candidates(most: int) -> NDArray[np.int64]:
    """2, 3, 4 ... 12, then in steps that grow by an eighth."""
    found = [2]
    while found[-1] < most:
        found.append(min(most, max(found[-1] + 1, round(9 / 8 * found[-1]))))
    return np.array(found if most >= 2 else [], dtype=np.int64)


def _silhouettes(
    rows: NDArray[np.float64], scaled: Callable[[Tensor], list[Tensor]], candidates: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean silhouette under each scaling and at each number of clusters, [S, C]."""
    rows = np.unique(rows, axis=0)
    found = []
    for version in scaled(torch.from_numpy(rows).float()):
        z = _principal(version.double().numpy())
        distance = squareform(pdist(z))
        tree = SampleTree(linkage(_smooth(z), "ward"))
        found.append([_silhouette(distance, tree.cut(len(z) - min(k, len(z)))) for k in candidates.tolist()])
    return np.array(found)


def _principal(z: NDArray[np.float64]) -> NDArray[np.float64]:
    z = z - z.mean(axis=0)
    if z.shape[1] <= _COMPONENTS:
        return z
    if z.shape[1] > len(z):
        values, vectors = np.linalg.eigh(z @ z.T)
        return np.asarray(vectors[:, -_COMPONENTS:] * np.sqrt(np.maximum(values[-_COMPONENTS:], 0)))
    return np.asarray(z @ np.linalg.eigh(z.T @ z)[1][:, -_COMPONENTS:])


def _smooth(z: NDArray[np.float64]) -> NDArray[np.float64]:
    n = len(z)
    graph = SampleGraph.from_features(
        z.astype(np.float32), min(_NEIGHBORS, n - 1), kernel="binary", random_state=0
    )
    propagate = propagation(sparse_weights(graph)).astype(np.float64)
    for _ in range(min(_PROPAGATIONS, max(2, n // 24))):
        z = propagate @ z
    return z


def _silhouette(distance: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mean of (b - a) / max(a, b): a the mean distance to the own cluster, b to the next one; 0 for lone samples."""
    n = len(labels)
    member = np.zeros((n, int(labels.max()) + 1))
    member[np.arange(n), labels] = 1
    size = member.sum(axis=0)
    total = distance @ member
    own = total[np.arange(n), labels] / np.maximum(size[labels] - 1, 1)
    mean = total / size
    mean[np.arange(n), labels] = np.inf
    other = mean.min(axis=1)
    largest = np.maximum(own, other)
    ok = (size[labels] > 1) & np.isfinite(largest) & (largest > 0)
    return float(np.where(ok, (other - own) / np.where(ok, largest, 1), 0.0).mean())
