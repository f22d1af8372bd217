"""Merging along links: the cheapest of the linked pairs, again and again, until everything is one."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: What a merge costs, from the link between two groups, their two sizes and their two own sums; lowest first.
Cost = Callable[[float, float, float, float, float], tuple[float, ...]]


class Merges(NamedTuple):
    """Merges in the order in which they happened.

    Attributes
    ----------
    children : ndarray [P - 1, 2], int64
        The two nodes of each merge: P leaves, and the i-th merge makes node P + i.
    costs : list of P - 1 tuples
        What `merge_linked` was told they cost.
    """

    children: NDArray[np.int64]
    costs: list[tuple[float, ...]]


def merge_linked(
    pairs: NDArray[np.int64], links: ArrayLike, sizes: ArrayLike, own: ArrayLike, cost: Cost
) -> Merges:
    """Merge the two linked groups with the lowest cost, until one is left.

    When a and b become c, links and own sums add up: ``link(c, k) = link(a, k) + link(b, k)`` for every other k,
    ``own(c) = own(a) + own(b) + 2 link(a, b)``. So any cost that depends on sums over pairs of samples is exact for
    every pair of groups. Only linked pairs are looked at: memory grows with the links, and where a merge has few
    neighbours, as between groups of about equal size, time nearly so.

    Parameters
    ----------
    pairs : ndarray [E, 2], int64
        Linked groups of 0 ... P - 1, each pair once; they leave no group out of reach.
    links : array-like [E]
    sizes : array-like [P]
    own : array-like [P]
        Of each group, the sum of the links within it, both directions.
    cost : callable
        ``cost(link, size_a, size_b, own_a, own_b)``, a tuple that is compared; of equal ones the earlier nodes merge.

    Returns
    -------
    Merges
    """
    size, within = np.asarray(sizes, float).tolist(), np.asarray(own, float).tolist()
    n = len(size)
    near: list[dict[int, float]] = [{} for _ in range(n)]
    waiting = []
    for (a, b), link in zip(pairs.tolist(), np.asarray(links, float).tolist(), strict=True):
        near[a][b] = near[b][a] = link
        waiting.append((cost(link, size[a], size[b], within[a], within[b]), a, b))
    heapify(waiting)
    merged = [False] * n
    children: list[tuple[int, int]] = []
    costs: list[tuple[float, ...]] = []
    while len(children) < n - 1:
        if not waiting:
            raise ValueError(f"{n - len(children)} groups are left that no link joins; link the groups first")
        value, a, b = heappop(waiting)
        if merged[a] or merged[b]:
            continue
        merged[a] = merged[b] = True
        new = n + len(children)
        children.append((a, b))
        costs.append(value)
        size.append(size[a] + size[b])
        within.append(within[a] + within[b] + 2 * near[a][b])
        merged.append(False)
        links_of_new = near[a]
        for k, link in near[b].items():
            links_of_new[k] = links_of_new.get(k, 0.0) + link
        del links_of_new[a], links_of_new[b]
        near.append(links_of_new)
        near[a] = near[b] = {}
        for k, link in links_of_new.items():
            near[k].pop(a, None)
            near[k].pop(b, None)
            near[k][new] = link
            heappush(waiting, (cost(link, size[k], size[new], within[k], within[new]), k, new))
    return Merges(np.array(children, dtype=np.int64).reshape(-1, 2), costs)
