"""Samples along a curve, open or closed, and others without gaps along the same one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree, shortest_path
from scipy.spatial.distance import pdist, squareform

#: Fewer samples tell no curve; neighbours along which distances are measured.
_LEAST_SAMPLES, _NEIGHBORS = 30, 8
#: Share of the variance of distances along the graph that the first coordinate of a curve has, or both of a closed one.
_OPEN_SHARE, _CLOSED_SHARE = 0.8, 0.7
#: The second coordinate of a closed curve has so much of the first one's variance, and nearly all samples are so far
#: from its centre, in medians.
_ROUND, _HOLLOW = 0.6, 0.5
#: A curve is longer by so much than the straight line between its ends.
_WINDING = 1.25
#: Share of the samples to which a piece of the curve is fitted, and how many these are at least.
_PIECE, _LEAST_PIECE = 0.05, 8


class Curve(NamedTuple):
    """Samples in the order of a curve.

    Attributes
    ----------
    rows : ndarray [n, d]
    position : ndarray [n], ascending
        How far along the curve each is.
    period : float
        Length of a closed curve; 0 of an open one.
    """

    rows: NDArray[np.float64]
    position: NDArray[np.float64]
    period: float

    @classmethod
    def through(cls, rows: NDArray[np.float64]) -> Curve | None:
        """The winding curve along which rows [n, d] lie, if they lie along one.

        Distances are measured along the graph of eight neighbours and the least spanning tree, and brought into
        coordinates (isometric mapping; Tenenbaum, de Silva & Langford 2000). Rows lie along an open curve if the first
        coordinate has four fifths of the variance, along a closed one if the first two are a hollow round. A line that
        does not wind is none: an elliptical cloud is as good.
        """
        n = len(rows)
        if n < _LEAST_SAMPLES:
            return None
        apart = squareform(pdist(rows / np.maximum(rows.std(axis=0), 1e-12)))
        if not apart.any():
            return None
        along = _along_graph(apart)
        half = -0.5 * along**2
        values, vectors = np.linalg.eigh(half - half.mean(axis=0) - half.mean(axis=1)[:, None] + half.mean())
        values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
        share = values / max(float(values.sum()), 1e-12)
        first, second = (vectors[:, i] * np.sqrt(values[i]) for i in (0, 1))
        if share[0] >= _OPEN_SHARE:
            order = np.argsort(first, kind="stable")
            ends = np.ix_(order[: n // 20 + 1], order[-(n // 20) - 1 :])
            if np.median(along[ends]) < _WINDING * np.median(apart[ends]):
                return None
            return cls(rows[order], first[order], 0.0)
        radius = np.hypot(first, second)
        middle = float(np.median(radius))
        if (
            share[0] + share[1] < _CLOSED_SHARE
            or share[1] < _ROUND * share[0]
            or np.quantile(radius, 0.02) < _HOLLOW * middle
        ):
            return None
        angle = np.arctan2(second, first)
        order = np.argsort(angle, kind="stable")
        angle = angle[order]
        # It begins behind its largest gap.
        begin = int(np.argmax(np.append(np.diff(angle), angle[0] + 2 * np.pi - angle[-1]))) + 1
        angle = np.concatenate([angle[begin:], angle[:begin] + 2 * np.pi])
        return cls(rows[np.roll(order, -begin)], angle * middle, 2 * np.pi * middle)

    @property
    def length(self) -> float:
        """From the first sample to the last, and on to the first of a closed curve."""
        return self.period or float(np.ptp(self.position))

    def draw(self, position: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
        """Rows [m, d] at these positions [m] of the curve, as far beside it as samples nearby.

        The curve is fitted piecewise to the samples nearest along it, by least squares.
        """
        n = len(self.rows)
        m = min(n, max(_LEAST_PIECE, round(_PIECE * n)))
        known, rows = self.position, self.rows
        index = np.arange(n)
        if self.period:  # each end goes on at the other one
            known = np.concatenate([known[-m:] - self.period, known, known[:m] + self.period])
            rows = np.concatenate([rows[-m:], rows, rows[:m]])
            index = index + m
        beside = self.rows - self._fit(known, rows, self.position, m)
        near = _nearest(known, position, m)[
            np.arange(len(position)), generator.integers(m, size=len(position))
        ]
        return self._fit(known, rows, position, m) + beside[(near - index[0]) % n]

    @staticmethod
    def _fit(
        known: NDArray[np.float64], rows: NDArray[np.float64], position: NDArray[np.float64], m: int
    ) -> NDArray[np.float64]:
        """Straight pieces of the curve through the m samples that are nearest along it, [len(position), d]."""
        near = _nearest(known, position, m)
        t, x = known[near], rows[near]
        t_mean, x_mean = t.mean(axis=1, keepdims=True), x.mean(axis=1, keepdims=True)
        off = t - t_mean
        slope = (off[..., None] * (x - x_mean)).sum(axis=1) / np.maximum((off**2).sum(axis=1), 1e-12)[:, None]
        return x_mean[:, 0] + slope * (position[:, None] - t_mean)


def _along_graph(apart: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances [n, n] along the edges of the nearest neighbours and of the least spanning tree."""
    n = len(apart)
    k = min(_NEIGHBORS, n - 1)
    # Edges of length 0, between equal rows, would be none.
    apart = np.maximum(apart, 1e-9 * float(apart.max()))
    near = np.argpartition(apart, k, axis=1)[:, : k + 1]
    source = np.repeat(np.arange(n), k + 1)
    edges = sp.csr_matrix((apart[source, near.ravel()], (source, near.ravel())), shape=(n, n))
    edges.setdiag(0)
    edges.eliminate_zeros()
    return np.asarray(shortest_path(edges.maximum(minimum_spanning_tree(apart)), directed=False))


def _nearest(known: NDArray[np.float64], position: NDArray[np.float64], m: int) -> NDArray[np.int64]:
    """Which m of the ascending known positions are nearest to each, [len(position), m]."""
    n = len(known)
    if n <= m:
        return np.tile(np.arange(n), (len(position), 1))
    low = np.clip(np.searchsorted(known, position) - m, 0, n - m)
    window = low[:, None] + np.arange(min(2 * m, n))
    window = np.minimum(window, n - 1)
    far = np.abs(known[window] - position[:, None])
    far[:, 1:][window[:, 1:] == window[:, :-1]] = np.inf  # the last one again
    return np.take_along_axis(window, np.argpartition(far, m - 1, axis=1)[:, :m], axis=1)
