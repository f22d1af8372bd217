"""How a self-join searches: the cheapest way that reaches the wanted recall on a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from graphclust.graph.self_join_lists import Lists

#: Candidates by codes, as multiples of k: most first.
CANDIDATES = (16, 12, 8, 6, 4, 3)
#: The most lists that are tried with codes, as a multiple of those that hold the wanted share of the neighbours.
_MORE_LISTS = 4
#: Of the variance in the first 32 dimensions, what the first try of codes keeps.
_VARIANCE = 0.98
#: Standard errors by which the recall on the sample has to be above the wanted one.
_CAUTION = 2


@dataclass(frozen=True)
class Way:
    """A way to find candidates.

    Attributes
    ----------
    dimensions : int
        Principal directions of the codes; 0: all samples of the lists are candidates.
    visits : int
        Lists that are searched for each sample.
    candidates : int
        Candidates that codes find; 0 without codes.
    """

    dimensions: int
    visits: int
    candidates: int = 0

    def cost(self, size: float, d: int) -> float:
        """Nanoseconds for a sample on one core (AVX2, measured), with lists of ``size`` samples of d features."""
        if not self.dimensions:
            return self.visits * size * (5 + 0.2 * d)
        p, c = self.dimensions, self.candidates
        return 7000 + 100 * p + 0.05 * p * self.visits * size + c * (110 + 0.25 * d)


def choose_way(
    lists: Lists,
    z: np.ndarray,
    truth: np.ndarray,
    n_directions: int,
    d: int,
    k: int,
    recall: float,
    measure: Callable[[Way], np.ndarray],
) -> Way:
    """The cheapest way whose recall on a sample, less two standard errors, is not below the wanted one.

    Parameters
    ----------
    lists : Lists
    z : array, float32, shape [S, p]
        Coordinates of the sampled samples.
    truth : array, int, shape [S, k]
        Places of their neighbours, -1 where there are none.
    n_directions, d, k : int
        Principal directions that there are, features, neighbours.
    recall : float
    measure : callable
        From a way to the recall of each sampled sample, [S].
    """
    count = len(lists)
    # How many lists have to be searched for a neighbour: the rank of its list, for the sample.
    rank = np.argsort(lists.nearest(z, count), axis=1)
    piece = np.searchsorted(lists.ends, np.maximum(truth, 0), side="right") - 1
    owner = np.searchsorted(lists.first, piece, side="right") - 1
    needed = np.where(truth >= 0, np.take_along_axis(rank, owner, axis=1) + 1, 1)
    least = next(m for m in _ladder(1, count) if (needed <= m).mean() >= recall or m == count)
    size = len(lists.order) / count

    def suffices(way: Way) -> bool:
        hits = measure(way)
        return float(hits.mean() - _CAUTION * hits.std() / len(hits) ** 0.5) >= recall

    best = None
    whole = Way(0, least)
    for p in _levels(z, n_directions):
        if Way(p, least, min(CANDIDATES) * k).cost(size, d) >= whole.cost(size, d):
            break
        best = _with_codes(p, least, count, size, d, k, suffices)
        if best is not None:
            break
    for m in _ladder(least, count):
        whole = Way(0, m)
        if best is not None and best.cost(size, d) <= whole.cost(size, d):
            return best
        if m == count or suffices(whole):
            break
    return whole


def _with_codes(
    p: int, least: int, count: int, size: float, d: int, k: int, suffices: Callable[[Way], bool]
) -> Way | None:
    """The cheapest with codes in ``p`` dimensions, or None: the fewer candidates, the more lists it needs."""
    best, visits = None, least
    for factor in CANDIDATES:
        for m in _ladder(visits, min(count, _MORE_LISTS * least)):
            way = Way(p, m, factor * k)
            if best is not None and way.cost(size, d) >= best.cost(size, d):
                return best
            if suffices(way):
                best, visits = way, m
                break
        else:
            return best
    return best


def _ladder(low: int, high: int) -> Iterator[int]:
    """``low``, then about an eighth more each time, at last ``high``."""
    while low < high:
        yield low
        low = max(low + 1, int(1.125 * low))
    yield high


def _levels(z: np.ndarray, n_directions: int) -> Iterator[int]:
    """Those of the first 32 dimensions that hold nearly all of their variance, then twice as many, at last all."""
    share = np.cumsum(z.var(axis=0))
    p = 1 + int(np.searchsorted(share, _VARIANCE * share[-1]))
    p += p % 2  # codes come in pairs
    while p < n_directions:
        yield p
        p *= 2
    yield n_directions
