"""Candidates for a self-join: 4-bit codes that FAISS compares many at a time, and exact distances to what they find."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from graphclust.graph.engines import load_faiss
from graphclust.graph.metric import Rows
from graphclust.graph.self_join_lists import BLOCK, Basis, Lists, draw

#: Samples of which the codes' levels are computed (one block), and rounds of k-means in each direction.
_SAMPLE, _ROUNDS = BLOCK, 10
#: FAISS's search list by list for one query at a time, with a reservoir; 100 more: in the calling thread.
_PER_QUERY = 111
#: Error of a product, as a share of the squared lengths.
_ROUND_OFF = 1e-6


class Codes:
    """The samples' coordinates in the first ``p`` principal directions, each in 4 bits, list by list.

    A query's distances to the 16 levels of each direction make a table of p x 16 bytes; the distance to a sample is
    a sum of p of them, read by shuffles in registers (FAISS's fast scan: Andre, Kermarrec and Le Scouarnec 2015).
    Half a byte a direction and 8 bytes for its place are kept of each sample.
    """

    def __init__(
        self,
        copy: np.ndarray,
        rows: Rows,
        basis: Basis,
        lists: Lists,
        p: int,
        seed: int,
        pool: ThreadPoolExecutor,
    ):
        faiss: Any = load_faiss()
        self.p = p
        count = len(lists.ends) - 1
        base = faiss.IndexIVFPQ(faiss.IndexFlatL2(p), p, count, p, 4)
        base.by_residual = False
        base.pq.cp.min_points_per_centroid, base.pq.cp.niter = 1, _ROUNDS
        pool.submit(base.pq.train, basis.project(next(draw(rows, _SAMPLE, seed)), p)).result()
        levels = np.sort(faiss.vector_to_array(base.pq.centroids).reshape(p, 16), axis=1)
        faiss.copy_array_to_vector(levels.ravel(), base.pq.centroids)
        borders = torch.from_numpy((levels[:, 1:] + levels[:, :-1]) / 2)
        base.is_trained = True
        tensor = torch.from_numpy(copy)
        codes = np.empty((len(copy), base.code_size), dtype=np.uint8)

        def encode(start: int) -> None:
            part = slice(start, start + BLOCK)
            z = torch.from_numpy(basis.project(tensor[part], p)).T.contiguous()
            level = torch.searchsorted(borders, z, out_int32=True).to(torch.uint8)
            codes[part] = level[::2].T
            codes[part, : p // 2] |= (level[1::2].T << 4).numpy()

        list(pool.map(encode, range(0, len(copy), BLOCK)))
        places = np.arange(len(copy))
        for one in range(count):
            start, stop = int(lists.ends[one]), int(lists.ends[one + 1])
            if start < stop:
                parts = places[start:stop], codes[start:stop]
                base.invlists.add_entries(one, stop - start, *map(faiss.swig_ptr, parts))
        base.ntotal = len(copy)
        self._base, self._index = base, faiss.IndexIVFPQFastScan(base, 32)
        self._index.implem = _PER_QUERY

    def candidates(self, z: np.ndarray, visited: np.ndarray, count: int) -> np.ndarray:
        """The ``count`` places with the nearest codes in the ``visited`` pieces, int64 [n, count]; -1 for none."""
        faiss: Any = load_faiss()
        pointer = faiss.swig_ptr
        z, visited = np.ascontiguousarray(z[:, : self.p]), np.ascontiguousarray(visited, dtype=np.int64)
        distance = np.zeros(visited.shape, dtype=np.float32)  # of the lists: has no use here
        found = np.empty((len(z), count), dtype=np.int64)
        score = np.empty(found.shape, dtype=np.float32)
        ways = faiss.IVFSearchParameters(nprobe=visited.shape[1])
        self._index.search_preassigned_c(
            len(z),
            pointer(z),
            count,
            pointer(visited),
            pointer(distance),
            pointer(score),
            pointer(found),
            False,
            ways,
        )
        return found


def distances_to(rows: np.ndarray, x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """|x_i - rows_j|^2, float32 [b, c], for the ``index`` j [b, c] of each x_i; inf where it is -1. No copy of rows."""
    faiss: Any = load_faiss()
    wide = np.ascontiguousarray(index, dtype=np.int64)
    distance = np.full(wide.shape, np.inf, dtype=np.float32)
    x = np.ascontiguousarray(x)
    pointer = faiss.swig_ptr
    faiss.fvec_L2sqr_by_idx(
        pointer(distance), pointer(x), pointer(rows), pointer(wide), rows.shape[1], len(x), wide.shape[1]
    )
    return distance


def nearest_of(
    rows: np.ndarray, places: np.ndarray, candidates: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of the ``candidates`` [b, c] the ``width`` nearest to the samples at ``places`` [b], themselves left out.

    Returns
    -------
    index : array, int64, shape [b, width]
        Nearest first; -1 where there are fewer.
    distance : array, float32, shape [b, width]
        Squared, from differences; inf where there are fewer.
    """
    candidates = np.where(candidates == places[:, None], -1, candidates)
    if candidates.shape[1] < width:
        candidates = np.pad(candidates, ((0, 0), (0, width - candidates.shape[1])), constant_values=-1)
    distance = distances_to(rows, rows[places], candidates)
    if width < candidates.shape[1]:
        kept = np.argpartition(distance, width - 1, axis=1)[:, :width]
        candidates, distance = np.take_along_axis(candidates, kept, 1), np.take_along_axis(distance, kept, 1)
    turn = np.argsort(distance, axis=1, kind="stable")
    return np.take_along_axis(candidates, turn, 1), np.take_along_axis(distance, turn, 1)


def search_exactly(
    rows: np.ndarray, places: np.ndarray, width: int, pool: ThreadPoolExecutor
) -> tuple[np.ndarray, np.ndarray]:
    """The ``width`` nearest of all to the samples at ``places``: index and squared distance as ``nearest_of``.

    By products |x|^2 + |y|^2 - 2 <x, y>; by differences for those samples for which the products would cancel: far out,
    for how near their neighbours are.
    """
    mean = rows[:: max(1, len(rows) // BLOCK)].mean(axis=0)
    x = rows[places]
    index, distance = nearest_of(rows, places, _scan(rows, x, mean, width + 1, pool), width)
    far = _ROUND_OFF * 2 * np.square(x - mean).sum(axis=1) > 0.02 * distance[:, -1]
    if far.any():
        found = _scan(rows, x[far], None, width + 1, pool)
        index[far], distance[far] = nearest_of(rows, places[far], found, width)
    return index, distance


def _scan(
    rows: np.ndarray, x: np.ndarray, mean: np.ndarray | None, count: int, pool: ThreadPoolExecutor
) -> np.ndarray:
    """The ``count`` nearest of all rows to each x, by products of what is left without ``mean``, or by differences."""

    def search(start: int) -> tuple[np.ndarray, np.ndarray]:
        y = rows[start : start + BLOCK]
        if mean is None:
            table = distances_to(rows, x, np.tile(np.arange(start, start + len(y)), (len(x), 1)))
        else:
            left, right = torch.from_numpy(x - mean), torch.from_numpy(y - mean)
            table = torch.addmm(right.square().sum(dim=1), left, right.T, alpha=-2).numpy()
        least = min(count, len(y))
        # Values only: many times faster than a partition of positions.
        bound = np.partition(table, least - 1, axis=1)[:, least - 1 : least]
        flat = np.flatnonzero(table <= bound)
        first = np.searchsorted(flat, np.arange(len(x)) * len(y))
        index = flat[first[:, None] + np.arange(least)] % len(y)
        return np.take_along_axis(table, index, axis=1), index + start

    best = np.empty((len(x), 0), dtype=np.float32), np.empty((len(x), 0), dtype=np.int64)
    for found in pool.map(search, range(0, len(rows), BLOCK)):
        best = np.concatenate([best[0], found[0]], axis=1), np.concatenate([best[1], found[1]], axis=1)
        if count < best[0].shape[1]:
            kept = np.argpartition(best[0], count - 1, axis=1)[:, :count]
            best = np.take_along_axis(best[0], kept, 1), np.take_along_axis(best[1], kept, 1)
    return best[1]
