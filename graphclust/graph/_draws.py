"""Random draws for neighbour sampling: all nodes of a hop at once, from generators of their own."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch

from graphclust._checks import check_generator

#: What may decide the draws; None stands for fresh entropy.
RandomState: TypeAlias = int | torch.Generator | np.random.Generator | np.random.RandomState | None


def root_seed(random_state: RandomState) -> int:
    """Read a number in [0, 2^63 - 1) from ``random_state``; it stands for all later draws."""
    if isinstance(random_state, torch.Generator):
        device = random_state.device
        return int(torch.randint(2**63 - 1, (1,), generator=random_state, device=device))
    return int(check_generator(random_state).integers(2**63 - 1))


def torch_seed(stream: np.random.SeedSequence) -> int:
    """Turn a seed sequence into a seed for a torch generator."""
    return int(stream.generate_state(1, np.uint64)[0] >> np.uint64(1))


def draw_in_edges(
    rng: np.random.Generator, start: np.ndarray, degree: np.ndarray, fanout: int, replace: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Draw in-edges of n nodes from lists that lie one after the other.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the draws.
    start, degree : int64 [n]
        A node's in-edges are the places ``start`` ... ``start + degree - 1``.
    fanout : int
        In-edges to draw for each node, -1 for all.
    replace : bool
        Independent draws instead of a random subset.

    Returns
    -------
    place, count : int64 [sum(count)], int64 [n]
        The places drawn, node after node, and how many each node received.
    """
    if fanout < 0:
        count, random = degree, np.zeros(len(degree), dtype=bool)
    elif replace:
        count, random = np.where(degree > 0, fanout, 0), degree > 0
    else:
        count, random = np.minimum(degree, fanout), degree > fanout
    end = np.cumsum(count)
    first = end - count
    nodes = np.flatnonzero(random) if fanout > 0 else np.empty(0, dtype=np.int64)
    if len(nodes) < len(count):
        # Whole lists: the i-th edge of a node lies at its start + i. Nodes with a random part are
        # overwritten below.
        place = np.arange(end[-1]) + np.repeat(start - first, count)
    else:
        place = np.empty(len(count) * fanout, dtype=np.int64)
    if len(nodes) > 0:
        offset = _uniform(rng, degree[nodes], fanout) if replace else _subsets(rng, degree[nodes], fanout)
        slots = first[nodes, None] + np.arange(fanout)
        place[slots] = start[nodes, None] + offset.T
    return place, count


def _uniform(rng: np.random.Generator, size: np.ndarray, k: int) -> np.ndarray:
    """Draw k numbers below each size [n], with replacement: int64 [k, n]."""
    return (rng.random((k, len(size))) * size).astype(np.int64)


def _subsets(rng: np.random.Generator, size: np.ndarray, k: int) -> np.ndarray:
    """Draw a subset of k numbers below each size [n] > k, all subsets equally likely: integers [k, n].

    Floyd's algorithm (Bentley and Floyd, "Programming pearls: a sample of brilliance", CACM 30(9), 1987): for
    j = size - k, ..., size - 1 draw t in {0, ..., j} and take t, or j if t is taken already. It needs k
    draws whatever the size, and k is small, so the loop runs over k and each step serves all nodes.
    """
    dtype = (
        np.int32 if size.max(initial=0) < 2**31 else np.int64
    )  # narrow: most of the time goes into comparing
    last = (size - k).astype(dtype) + np.arange(k, dtype=dtype)[:, None]
    chosen = (rng.random((k, len(size))) * (last + 1.0)).astype(dtype)
    for j in range(1, k):
        taken = (chosen[:j] == chosen[j]).any(axis=0)
        np.copyto(chosen[j], last[j], where=taken)
    return chosen
