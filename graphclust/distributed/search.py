"""What a machine does in a search: one block of queries against one shard, and the exact merge of partial results."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from graphclust.distributed.rows import FilePart, read
from graphclust.graph.search import NeighborSearch

#: Partial results that one task merges; more are merged in a tree, so that no machine holds those of all shards.
FAN_IN = 32


@dataclass(frozen=True, eq=False)
class Found:
    """Neighbours of a block of queries, and how many searches each machine (Ray's node id) did for them."""

    index: np.ndarray  # int64 [b, c]
    distance: np.ndarray  # float64 [b, c]
    tasks: Counter[str]


def search_shard(
    shard: FilePart | np.ndarray, queries: FilePart | np.ndarray, first: int, k: int, metric: str, p: float
) -> Found:
    """The k nearest rows of a shard for each query: the package's exact search, with distances in float64.

    Parameters
    ----------
    shard, queries : FilePart or ndarray [n, d], [b, d]
    first : int
        Index of the shard's first row in the data.
    k : int
        Of a shard with fewer rows, all are taken.
    metric, p
        See `NeighborSearch`.
    """
    import ray

    rows = read(shard)
    with warnings.catch_warnings():
        # Said once, of all the data, by the process that asked for the search.
        warnings.filterwarnings("ignore", message=".*are zero vectors.*")
        search = NeighborSearch(metric, p=p, index="exact").fit(rows)
    index, distance = search.neighbors(read(queries), min(k, len(rows)), torch.float64)
    here = Counter({ray.get_runtime_context().get_node_id(): 1})
    return Found(index.numpy() + first, distance.numpy(), here)


def merge(k: int, own: int | None, *parts: Found) -> Found:
    """The k nearest of several shards' nearest, in order of (distance, index).

    Exact, as the k nearest of all are among the k nearest of each shard.

    Parameters
    ----------
    k : int
        If there are fewer, all are kept.
    own : int, optional
        Index of the first query where the queries are rows of the data themselves, in their order: the sample itself is
        left out. The parts must then hold k + 1 neighbours.
    *parts : Found
    """
    index = np.concatenate([part.index for part in parts], axis=1)
    distance = np.concatenate([part.distance for part in parts], axis=1)
    keys = [index, distance]
    if own is not None:
        keys.append(index == own + np.arange(len(index))[:, None])  # the first key of all: it goes to the end
    order = np.lexsort(keys, axis=1)[:, :k]
    tasks = sum((part.tasks for part in parts), Counter[str]())
    return Found(np.take_along_axis(index, order, 1), np.take_along_axis(distance, order, 1), tasks)
