"""How many clusters vectors have, told from how much better they are separated than in data without clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist, squareform
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata
from torch import Tensor

from graphclust.graph.borders import BorderedRun
from graphclust.graph.counting import ClusterCount
from graphclust.graph.linkage import SampleTree, sparse_weights
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
#: Cells of a column's distribution; a column of fewer values keeps them as they are.
_CELLS = 32
_DRAWS, _DIRECTIONS = 2, 8
#: Standard errors of a border that is likely, and numbers of groups with such borders that are tried.
_LIKELY, _TRIALS = 2.0, 3


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
    skewed column have one as well. So the same is done with samples that were drawn without clusters:

    - Gaussian, with the covariance of x;
    - uniform along its principal axes;
    - of eight directions or more: the distances of x from its centre, in the metric of its covariance, in random
      directions, as in a ball, on a sphere or in an elliptical cloud with heavy tails;
    - with the rank correlations of x (a Gaussian copula) and uniform columns, as in a cube;
    - with the same and columns whose distribution is the unimodal one that is nearest to that of x: long tails.

    The *gain* of K is the silhouette less the largest of these (means of two draws), in the mean over the scalings (the
    idea of the gap statistic; Tibshirani, Walther & Hastie 2001). The estimate is the least K whose gain is within 0.02
    of the largest; 1 where none is above 0.03 and :math:`0.5 \sqrt{(1 + K / 20) / n}`, n samples.

    Silhouettes tell clusters that are round; groups with a border on all sides (`estimate_n_clusters`) may wind around
    each other. So where there is more than one of these, their number is the estimate if it has no gain, as of two
    moons, or one within 0.02 of the largest, so that both agree; and of more than 4 `n_rows` samples always, as borders
    are looked for with all of them.

    Where both disagree, long clusters may have been cut into pieces. So samples are also drawn with the groups that
    have a border, each without clusters inside, and their number is the estimate if no K has a gain over these. That is
    tried with as many groups as have a border of at least 2 standard errors, from few to more.

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
    Classes that touch in all directions have no gain and count as one; a curve without gaps is cut into arcs, which
    have one. Clusters of a few samples among many are not seen where samples are drawn.
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
        draws = [
            [_silhouettes(others, scaled, candidates) for others in _like(rows, groups, generator)]
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
        if strength >= _LIKELY and max(2, borders.n_clusters) <= count <= most
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


def _like(
    rows: NDArray[np.float64], groups: NDArray[np.int64], generator: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """Samples like the rows, [n, d], with these groups, none of which has clusters inside, in several ways."""
    radial = min(rows.shape) >= _DIRECTIONS
    n_ways = 5 if radial else 4
    drawn: list[Iterator[NDArray[np.float64]]] = []
    for group in range(int(groups.max()) + 1):
        own = rows[groups == group]
        varied = np.ptp(own, axis=0) > 0 if len(own) else np.zeros(rows.shape[1], dtype=bool)
        if len(own) < _LEAST_SIZE or not varied.any():
            drawn.append(repeat(own, n_ways))
            continue
        drawn.append(_beside(own, varied, _without_clusters(own[:, varied], radial, generator)))
    for parts in zip(*drawn):
        yield np.concatenate(parts)


def _beside(
    own: NDArray[np.float64], varied: NDArray[np.bool_], drawn: Iterator[NDArray[np.float64]]
) -> Iterator[NDArray[np.float64]]:
    """Drawn columns beside those in which all rows are equal."""
    for columns in drawn:
        whole = own.copy()
        whole[:, varied] = columns
        yield whole


def _without_clusters(
    rows: NDArray[np.float64], radial: bool, generator: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """Samples like the rows, [n, d], without clusters, in several ways."""
    n = len(rows)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    positions, spread, axes = np.linalg.svd((rows - mean) / deviation, full_matrices=False)
    axes = spread[:, None] / np.sqrt(n) * axes * deviation
    yield generator.normal(size=(n, len(spread))) @ axes + mean
    yield (generator.random((n, len(spread))) - 0.5) * np.sqrt(12) @ axes + mean
    if radial:
        normal = generator.normal(size=(n, len(spread)))
        radius = np.linalg.norm(positions, axis=1) * np.sqrt(n) / np.linalg.norm(normal, axis=1)
        yield radius[:, None] * normal @ axes + mean
    scores = ndtri(rankdata(rows, axis=0) / (n + 1))
    scores = (scores - scores.mean(axis=0)) / np.maximum(scores.std(axis=0), 1e-9)
    _, spread, axes = np.linalg.svd(scores, full_matrices=False)
    # Of few values a column's scores are not quite of variance 1.
    share = ndtr(generator.normal(size=(n, len(spread))) @ (spread[:, None] / np.sqrt(n) * axes))
    yield rows.min(axis=0) + share * np.ptp(rows, axis=0)
    yield np.column_stack([_quantiles(c, s, t) for c, s, t in zip(rows.T, share.T, _unimodal(rows))])


def _quantiles(
    column: NDArray[np.float64], share: NDArray[np.float64], cumulated: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Values below which a share of the column is, after its cells have got other shares."""
    known = np.unique(column)
    if len(known) <= _CELLS // 2:
        return np.asarray(np.quantile(column, share, method="inverted_cdf"))
    bounds = np.quantile(column, np.linspace(0, 1, _CELLS + 1))
    values = np.interp(share, cumulated, bounds)
    # Counts stay counts.
    above = np.clip(np.searchsorted(known, values), 1, len(known) - 1)
    low, high = known[above - 1], known[above]
    return np.where(values - low < high - values, low, high)


def _unimodal(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of each column up to the bounds of 32 cells, [d, 33], after its density was made unimodal.

    The cells have equal shares of the rows. To either side of a mode the density is the monotone one with the least
    squares from that of the cells (max-min formula); the mode is taken with which the shares change least.
    """
    bounds = np.quantile(rows, np.linspace(0, 1, _CELLS + 1), axis=0)
    width = np.maximum(np.diff(bounds, axis=0), 1e-9 * np.ptp(rows, axis=0))
    edge = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(width, axis=0)])
    first, last = np.ogrid[:_CELLS, :_CELLS]
    valid = (first <= last)[..., None]
    # Mean density of the cells first ... last.
    mean = np.where(
        valid,
        ((last - first + 1) / _CELLS)[..., None] / np.where(valid, edge[None, 1:] - edge[:-1, None], 1),
        np.nan,
    )
    even = np.arange(1, _CELLS + 1)[:, None] / _CELLS
    best, found = np.full(rows.shape[1], np.inf), np.zeros((_CELLS, rows.shape[1]))
    for mode in range(0, _CELLS + 1, 4):
        density = np.concatenate([_monotone(mean[:mode, :mode]), -_monotone(-mean[mode:, mode:])])
        shares = np.cumsum(density * width, axis=0)
        shares /= shares[-1]
        change = np.abs(shares - even).max(axis=0)
        better = change < best
        best[better], found[:, better] = change[better], shares[:, better]
    return np.concatenate([np.zeros((1, rows.shape[1])), found]).T


def _monotone(mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Increasing values [c, d] with the least squares, of the means [c, c, d] from each cell to each later one."""
    least = np.fmin.accumulate(mean[:, ::-1], axis=1)[:, ::-1]  # over the last cell, from k on
    return np.asarray(np.fmax.accumulate(least, axis=0).diagonal().T)
