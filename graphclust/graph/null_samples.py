"""Samples like others, without the clusters of these: what any number of clusters is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from graphclust.graph.curves import Curve

#: Dimensions from which on distances are drawn in random directions; samples of a group that is drawn.
_DIRECTIONS, _LEAST_SIZE = 8, 5
#: Cells of a column's distribution; a column of fewer values keeps them as they are.
_CELLS = 32


class NullSamples:
    r"""Samples like rows [n, d], with the same groups, none of which has clusters inside.

    Each group is drawn in several ways:

    - Gaussian, with its covariance;
    - uniform along its principal axes;
    - of eight directions or more: the distances from its centre, in the metric of its covariance, in random
      directions, as in a ball, on a sphere or in an elliptical cloud with heavy tails;
    - with its rank correlations (a Gaussian copula) and uniform columns, as in a cube;
    - with the same and columns whose distribution is the unimodal one that is nearest: long tails;
    - if it lies along a curve that winds (`graphclust.graph.curves`): evenly along the curve, and there with the
      unimodal density that is nearest.

    Parameters
    ----------
    rows : ndarray [n, d]
    groups : ndarray [n], int64
    """

    def __init__(self, rows: NDArray[np.float64], groups: NDArray[np.int64]) -> None:
        self._groups = [rows[groups == group] for group in range(int(groups.max()) + 1)]
        self._curves = [Curve.through(own) for own in self._groups]
        self._radial = min(rows.shape) >= _DIRECTIONS

    def draw(self, generator: np.random.Generator) -> Iterator[NDArray[np.float64]]:
        """All rows [n, d], drawn in each way."""
        curved = any(curve is not None for curve in self._curves)
        n_ways = (5 if self._radial else 4) + (2 if curved else 0)
        drawn: list[Iterator[NDArray[np.float64]]] = []
        for own, curve in zip(self._groups, self._curves):
            varied = np.ptp(own, axis=0) > 0 if len(own) else np.zeros(own.shape[1:], dtype=bool)
            if len(own) < _LEAST_SIZE or not varied.any():
                drawn.append(repeat(own, n_ways))
                continue
            drawn.append(self._of_group(own, curve, varied, curved, generator))
        for parts in zip(*drawn):
            yield np.concatenate(parts)

    def _of_group(
        self,
        own: NDArray[np.float64],
        curve: Curve | None,
        varied: NDArray[np.bool_],
        curved: bool,
        generator: np.random.Generator,
    ) -> Iterator[NDArray[np.float64]]:
        yield from _beside(own, varied, _without_clusters(own[:, varied], self._radial, generator))
        if curve is not None:
            yield from _along(curve, generator)
        elif curved:  # beside a group that lies along a curve
            yield from _beside(own, varied, _gaussian_and_uniform(own[:, varied], generator))


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
    yield from _gaussian_and_uniform(rows, generator)
    if radial:
        mean, positions, axes = _axes(rows)
        normal = generator.normal(size=(n, len(axes)))
        radius = np.linalg.norm(positions, axis=1) * np.sqrt(n) / np.linalg.norm(normal, axis=1)
        yield radius[:, None] * normal @ axes + mean
    scores = ndtri(rankdata(rows, axis=0) / (n + 1))
    scores = (scores - scores.mean(axis=0)) / np.maximum(scores.std(axis=0), 1e-9)
    _, spread, axes = np.linalg.svd(scores, full_matrices=False)
    # Of few values a column's scores are not quite of variance 1.
    share = ndtr(generator.normal(size=(n, len(spread))) @ (spread[:, None] / np.sqrt(n) * axes))
    yield rows.min(axis=0) + share * np.ptp(rows, axis=0)
    yield np.column_stack([_quantiles(c, s, t) for c, s, t in zip(rows.T, share.T, _unimodal(rows))])


def _gaussian_and_uniform(
    rows: NDArray[np.float64], generator: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """Samples of the rows' covariance, [n, d]: Gaussian, and uniform along the principal axes."""
    mean, _, axes = _axes(rows)
    yield generator.normal(size=(len(rows), len(axes))) @ axes + mean
    yield (generator.random((len(rows), len(axes))) - 0.5) * np.sqrt(12) @ axes + mean


def _axes(
    rows: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean [d] of rows [n, d], their coordinates along the principal axes of standardised columns, and these axes."""
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    positions, spread, axes = np.linalg.svd((rows - mean) / deviation, full_matrices=False)
    return mean, positions, spread[:, None] / np.sqrt(len(rows)) * axes * deviation


def _along(curve: Curve, generator: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """Rows like those of the curve, [n, d], without gaps along it: evenly, and with a unimodal density."""
    n, begin = len(curve.rows), curve.position[0]
    yield curve.draw(begin + curve.length * generator.random(n), generator)
    shares = _unimodal(curve.position[:, None])[0]
    bounds = np.quantile(curve.position, np.linspace(0, 1, _CELLS + 1))
    yield curve.draw(np.interp(generator.random(n), shares, bounds), generator)


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
