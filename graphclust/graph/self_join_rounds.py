"""The two steps of a self-join: samples against whole lists, and neighbours of neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphclust.graph._engines import load_faiss
from graphclust.graph.self_join_lists import scratch, smallest, squared_distances

#: Rows of one product, and of one block of neighbours of neighbours.
VISITORS = 512
ROUND_BLOCK = 128
_LINK_BUDGET = 1 << 22


class Table:
    """The best so far: places of neighbours [N, c] (-1 where there is none), nearest first, and |x - y|^2 (inf)."""

    def __init__(self, index: np.ndarray, distance: np.ndarray):
        self.index, self.distance = index, distance


def visit(
    rows: Tensor,
    center: Tensor,
    visitors: np.ndarray,
    start: int,
    stop: int,
    old: Table,
    new: Table,
    direct: bool = False,
) -> None:
    """Compare ``visitors`` (places) with the list at ``start`` to ``stop``; write the best of it and ``old``.

    One matrix product and one partition a block: nothing but the best is kept. Everything is seen from the list's
    ``center`` [d], or |x|^2 + |y|^2 - 2 <x, y> would cancel where data is far from the origin.
    """
    width, c = stop - start, old.index.shape[1]
    y = torch.sub(rows[start:stop], center, out=scratch("list", (width, rows.size(1))))
    for first in range(0, len(visitors), VISITORS):
        part = visitors[first : first + VISITORS]
        place = torch.from_numpy(part)
        table = scratch("table", (len(part), width + c))
        x = torch.index_select(rows, 0, place, out=scratch("visitors", (len(part), rows.size(1))))
        squared_distances(x.sub_(center), y, table[:, :width], direct)
        own = np.flatnonzero((part >= start) & (part < stop))
        table[own, part[own] - start] = torch.inf
        known, known_distance = old.index[part], old.distance[part]
        # After neighbours of neighbours, some of this list may be known already.
        known_distance[(known >= start) & (known < stop)] = np.inf
        table[:, width:] = torch.from_numpy(known_distance)
        position = smallest(table, c)
        distance = np.take_along_axis(table.numpy(), position, axis=1)
        index = position.astype(known.dtype) + np.asarray(start, dtype=known.dtype)
        kept = position >= width
        index[kept] = np.take_along_axis(known, np.maximum(position - width, 0), axis=1)[kept]
        index[np.isinf(distance)] = -1
        new.index[part], new.distance[part] = index, distance


def visit_own(rows: Tensor, center: Tensor, start: int, stop: int, new: Table, direct: bool = False) -> None:
    """Compare the samples of a list with each other."""
    shape = stop - start, new.index.shape[1]
    nothing = Table(np.full(shape, -1, dtype=new.index.dtype), np.full(shape, np.inf, dtype=np.float32))
    found = Table(np.empty_like(nothing.index), np.empty_like(nothing.distance))
    visit(rows[start:stop], center, np.arange(stop - start), 0, stop - start, nothing, found, direct)
    new.index[start:stop] = np.where(found.index >= 0, found.index + start, -1)
    new.distance[start:stop] = found.distance


def link_range(n: int, width: int) -> int:
    """How many targets ``links`` does at once: a few million links, or a sixteenth of all."""
    return max(1, _LINK_BUDGET // width, -(-n // 16))


def links(index: np.ndarray, forward: int, backward: int, low: int, high: int, out: np.ndarray) -> None:
    """Write the links of the samples ``low`` to ``high``: their ``forward`` nearest, and who counts them as near.

    Of the latter up to ``backward``, those first for which the sample has the best rank; -1 where there are fewer.
    ``out`` is [N + 1, forward + backward]; its last row has to be -1, so that the link -1 leads nowhere.
    """
    reach = min(index.shape[1], forward + backward)
    rank_bits, source_bits = reach.bit_length(), len(index).bit_length()
    keys = []
    step = max(1, _LINK_BUDGET // reach)
    for start in range(0, len(index), step):
        part = index[start : start + step, :reach]
        source, rank = np.nonzero((part >= low) & (part < high))
        target = part[source, rank].astype(np.int64) - low
        # One number for (target, rank, source): sorting numbers is much faster than sorting by keys.
        keys.append((((target << rank_bits) | rank) << source_bits) | (source + start))
    key = np.concatenate(keys)
    key.sort()
    target = key >> (rank_bits + source_bits)
    turn = np.arange(len(key)) - np.searchsorted(target, np.arange(high - low))[target]
    kept = turn < backward
    block = np.full((high - low, backward), -1, dtype=index.dtype)
    block[target[kept], turn[kept]] = key[kept] & ((1 << source_bits) - 1)
    out[low:high, :forward] = index[low:high, :forward]
    out[low:high, forward:] = block


def join_links(rows: np.ndarray, link: np.ndarray, start: int, stop: int, old: Table, new: Table) -> None:
    """Take the best of what is known and of the links of the links, for the places ``start`` to ``stop``."""
    c = old.index.shape[1]
    known = old.index[start:stop]
    first = link[start:stop]
    second = link[first].reshape(stop - start, -1)
    candidates = np.concatenate([known, first, second], axis=1)
    candidates.sort(axis=1)
    # -1 where a candidate repeats the one before it or is the sample itself: all bits set, without a branch.
    out = candidates == np.arange(start, stop, dtype=candidates.dtype)[:, None]
    out[:, 1:] |= candidates[:, 1:] == candidates[:, :-1]
    candidates |= -out.astype(candidates.dtype)
    distance = distances_to(rows, rows[start:stop], candidates)
    position = smallest(torch.from_numpy(distance), c)
    new.index[start:stop] = np.take_along_axis(candidates, position, axis=1)
    new.distance[start:stop] = np.take_along_axis(distance, position, axis=1)


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
