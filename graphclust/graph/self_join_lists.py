"""Lists of near samples for a self-join: a two-level k-means that reads the data in blocks."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphclust.graph._engines import load_faiss
from graphclust.graph._metrics import Rows

#: Lists near a list among which its samples choose theirs.
NEAR = 64
#: Samples a list of which centroids are computed, and the rounds of k-means over all lists.
_SAMPLE = 64
_POLISH = 4
_ROUNDS = 8
_BLOCK = 1024
_TASK = 32
#: A list is cut when it is so many times longer than wanted.
_LONGEST = 4
#: Error of a product, as a share of the squared lengths.
_ROUND_OFF = 1e-6
_BUFFERS = threading.local()


@dataclass
class Lists:
    """Samples in lists.

    Attributes
    ----------
    centroids : array, float32, shape [L, d]
    order : array, int32 or int64, shape [N]
        Samples list by list; within a list by index. All other numbers of samples are places in this order.
    ends : array, int64, shape [L + 1]
        List l holds the places ends[l] to ends[l + 1] - 1.
    """

    centroids: np.ndarray
    order: np.ndarray
    ends: np.ndarray


def scratch(name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """A buffer of this thread, with whatever is in it; the next call with the same name gives the same memory.

    Blocks are small and many: fresh memory for each would cost more (page by page, from the system) than its use.
    """
    size = math.prod(shape)
    buffer = _BUFFERS.__dict__.get(name)
    if buffer is None or buffer.numel() < size or buffer.dtype != dtype:
        buffer = _BUFFERS.__dict__[name] = torch.empty(size, dtype=dtype)
    return buffer[:size].view(shape)


def smallest(scores: Tensor, k: int) -> np.ndarray:
    """Positions of the k smallest scores of each row, in increasing order; scores float32 and at least 0.

    The bits of such numbers, read as integers, have the same order. The lowest bits give way to the position, so
    that one partition of int32 finds both: a tenth of the time of ``torch.topk``. Scores that differ by less than
    the width / 2^23 of their value count as equal; the smaller position is taken then.
    """
    width = scores.size(1)
    mask = (1 << max(1, (width - 1).bit_length())) - 1
    keys = scratch("keys", tuple(scores.shape), torch.int32)
    torch.bitwise_and(scores.view(torch.int32), ~mask, out=keys)
    keys.bitwise_or_(torch.arange(width, dtype=torch.int32))
    found = keys.numpy()
    if k < width:
        found.partition(k - 1, axis=1)
        found = found[:, :k]
    return np.bitwise_and(np.sort(found, axis=1), mask)


def squared_distances(x: Tensor, y: Tensor, out: Tensor | None = None, direct: bool = False) -> Tensor:
    """The |x_i - y_j|^2 [n, m], never below 0: by one matrix product, or ``direct`` from the differences.

    The product's error is about 1e-6 (|x|^2 + |y|^2): take a point near both off first where they are far out.
    Differences have no such error and take ten times as long.
    """
    if direct:
        table = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_()
        return table if out is None else out.copy_(table)
    table = torch.addmm(square_norm(y), x, y.T, alpha=-2, out=out)
    return table.add_(square_norm(x).unsqueeze(1)).clamp_min_(0)


def is_wide(members: Tensor, center: Tensor, k: int) -> bool:
    """Whether a list is so wide, for how near its samples are to each other, that products would confuse them."""
    if len(members) < 2:
        return False
    spread = float(square_norm(members - center).max())
    some = members[:: max(1, len(members) // 8)][:8]
    near = squared_distances(some, members, direct=True).kthvalue(min(k + 1, len(members)), dim=1).values
    return _ROUND_OFF * spread > 0.02 * float(near.median())


def make_lists(
    rows: Rows, size: int, probes: int, seed: int, pool: ThreadPoolExecutor
) -> tuple[Lists, np.ndarray]:
    """Put the samples into about N / ``size`` lists, each to its nearest centroid; also find further near lists.

    k-means into sqrt(L) cells (FAISS), then of each cell into its part of the L lists; three rounds of k-means over
    all lists on a sample, in which a sample chooses among the lists near its own only; last, all samples choose.
    This costs about N (sqrt(L) + 2 * 64) d multiply-adds where plain k-means costs N L d a round.

    Returns
    -------
    lists : Lists
    probes : array, int32, shape [N, min(probes, L)]
        For each place the lists nearest to its sample, its own first.
    """
    label, centroids = _two_levels(rows, max(1, len(rows) // size), seed, pool)
    label, centroids = _divide_long(rows, label, centroids, size, seed)
    label, centroids = _polish(rows, label, centroids, pool)
    label = _choose(rows, label, centroids, NEAR, 1, pool)[:, 0]
    # Once more, as what is near a sample's new list was not all near its old one.
    found = _choose(rows, label, centroids, 2 * NEAR, probes, pool)
    return _settle(found, centroids, size)


def near_lists(centroids: np.ndarray, count: int, pool: ThreadPoolExecutor) -> np.ndarray:
    """The lists whose centroids are nearest to that of each list, itself among them, [L, min(count, L)]."""
    everything = np.arange(len(centroids), dtype=np.int32)
    count = min(count, len(centroids))

    def block(start: int) -> np.ndarray:
        return _nearest(torch.from_numpy(centroids[start : start + _TASK]), centroids, everything, count)

    return np.concatenate(list(pool.map(block, range(0, len(centroids), _TASK))))


def near_all(rows: Tensor, centroids: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` nearest of all centroids for each row, nearest first, int32 [n, count]."""
    return _nearest(rows, centroids, np.arange(len(centroids), dtype=np.int32), count)


def _two_levels(rows: Rows, count: int, seed: int, pool: ThreadPoolExecutor) -> tuple[np.ndarray, np.ndarray]:
    n, d = rows.x.shape
    n_cells = max(1, int(count**0.5))
    draw = np.random.default_rng(seed).choice(n, min(n, 4 * _SAMPLE * n_cells), replace=False)
    cells = _kmeans(_take(rows, np.sort(draw)).numpy(), n_cells, seed)
    cell = np.empty(n, dtype=np.int32)

    def to_cell(start: int) -> None:
        block = rows.prepare(rows.x[start : start + _BLOCK])
        cell[start : start + _BLOCK] = near_all(block, cells, 1)[:, 0]

    list(pool.map(to_cell, range(0, n, _BLOCK)))
    order, ends = _group(cell, len(cells))
    label = np.empty(n, dtype=np.int32)

    def to_lists(one: int) -> np.ndarray:
        members = order[ends[one] : ends[one + 1]]
        if not len(members):
            return np.empty((0, d), dtype=np.float32)
        wanted = max(1, round(len(members) * count / n))
        step = max(1, len(members) // (_SAMPLE * wanted))
        centroids = _kmeans(_take(rows, members[::step]).numpy(), wanted, seed)
        for part in _parts(members):
            label[part] = near_all(_take(rows, part), centroids, 1)[:, 0]
        return centroids

    found = list(pool.map(to_lists, range(len(cells))))
    first = np.cumsum([0] + [len(part) for part in found[:-1]]).astype(np.int32)
    return label + first[cell], np.concatenate(found)


def _divide_long(
    rows: Rows, label: np.ndarray, centroids: np.ndarray, size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divide lists that came out much too long, by k-means of their own."""
    order, ends = _group(label, len(centroids))
    added = [centroids]
    total = len(centroids)
    for one in np.flatnonzero(np.diff(ends) > _LONGEST * size):
        members = order[ends[one] : ends[one + 1]]
        wanted = len(members) // size
        step = max(1, len(members) // (_SAMPLE * wanted))
        parts = _kmeans(_take(rows, members[::step]).numpy(), wanted, seed)
        for part in _parts(members):
            label[part] = near_all(_take(rows, part), parts, 1)[:, 0] + total
        added.append(parts)
        total += len(parts)
    return label, np.concatenate(added)


def _polish(
    rows: Rows, label: np.ndarray, centroids: np.ndarray, pool: ThreadPoolExecutor
) -> tuple[np.ndarray, np.ndarray]:
    """k-means on up to 64 samples a list, each choosing among the lists near its own; new labels and centroids.

    The other samples keep the list that they had: it is only where their own choice begins.
    """
    order, ends = _group(label, len(centroids))
    step = np.maximum(1, np.diff(ends) // _SAMPLE)
    in_sample = (np.arange(len(order)) - np.repeat(ends[:-1], np.diff(ends))) % np.repeat(
        step, np.diff(ends)
    ) == 0
    sample = np.sort(order[in_sample])
    chosen = label[sample]
    for _ in range(_POLISH):
        chosen, centroids = _improve(rows, sample, chosen, centroids, pool)
    label = label.copy()
    label[sample] = chosen
    return label, centroids


def _improve(
    rows: Rows, sample: np.ndarray, label: np.ndarray, centroids: np.ndarray, pool: ThreadPoolExecutor
) -> tuple[np.ndarray, np.ndarray]:
    """One round of k-means on a sample: new labels of it and new centroids."""
    near = near_lists(centroids, NEAR, pool)
    order, ends = _group(label, len(centroids))
    chosen = np.empty_like(label)

    def block(first: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        sums = []
        for one in range(first, min(first + _TASK, len(centroids))):
            members = order[ends[one] : ends[one + 1]]
            if not len(members):
                continue
            part = _take(rows, sample[members])
            found = _nearest(part, centroids, near[one], 1)[:, 0]
            chosen[members] = found
            names, place, times = np.unique(found, return_inverse=True, return_counts=True)
            total = torch.zeros((len(names), part.size(1)))
            total.index_add_(0, torch.from_numpy(place.ravel()), part)
            sums.append((names, total.numpy(), times))
        return sums

    total, times = np.zeros(centroids.shape), np.zeros(len(centroids))
    for found in pool.map(block, range(0, len(centroids), _TASK)):
        for names, part, count in found:
            total[names] += part
            times[names] += count
    mean = total / np.maximum(times, 1)[:, None]
    return chosen, np.where(times[:, None] > 0, mean, centroids).astype(np.float32)


def _choose(
    rows: Rows, label: np.ndarray, centroids: np.ndarray, among: int, count: int, pool: ThreadPoolExecutor
) -> np.ndarray:
    """The nearest lists of each sample, out of those near the one that it has, [N, count]."""
    near = near_lists(centroids, among, pool)
    order, ends = _group(label, len(centroids))
    found = np.empty((len(rows), min(count, near.shape[1])), dtype=np.int32)

    def block(first: int) -> None:
        for one in range(first, min(first + _TASK, len(centroids))):
            for part in _parts(order[ends[one] : ends[one + 1]]):
                found[part] = _nearest(_take(rows, part), centroids, near[one], found.shape[1])

    list(pool.map(block, range(0, len(centroids), _TASK)))
    return found


def _settle(probes: np.ndarray, centroids: np.ndarray, size: int) -> tuple[Lists, np.ndarray]:
    """Order the samples by list; cut lists that are still too long (duplicates), wherever."""
    order, ends = _group(probes[:, 0], len(centroids))
    count = np.diff(ends)
    pieces = np.maximum(1, -(-count // (_LONGEST * size)))
    first = (np.cumsum(pieces) - pieces).astype(np.int32)
    probes = probes[order]
    own = probes[:, 0]
    piece = (np.arange(len(order)) - ends[own]) * pieces[own] // np.maximum(count, 1)[own]
    probes = first[probes]
    # A visitor goes to the piece that answers to its own.
    probes[:, 0] += piece.astype(np.int32)
    ends = np.searchsorted(probes[:, 0], np.arange(pieces.sum() + 1))
    return Lists(np.repeat(centroids, pieces, axis=0), order, ends), probes


def _kmeans(sample: np.ndarray, count: int, seed: int) -> np.ndarray:
    faiss: Any = load_faiss()
    count = min(count, len(sample))
    if count == 1:
        return sample.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
    means = faiss.Kmeans(
        sample.shape[1],
        count,
        niter=_ROUNDS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(sample),
    )
    means.train(np.ascontiguousarray(sample))
    return means.centroids.reshape(count, -1)


def _nearest(block: Tensor, centroids: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` nearest of the centroids ``among`` for each row, nearest first, int32 [n, count]."""
    means = torch.from_numpy(centroids[among])
    if len(among) < len(centroids):  # all of them near the block
        block, means = block - means[0], means - means[0]
    table = squared_distances(block, means)
    if count == 1:
        return among[table.argmin(dim=1).numpy()][:, None]
    return among[smallest(table, count)]


def square_norm(x: Tensor) -> Tensor:
    """|x|^2 of each row."""
    return torch.linalg.vector_norm(x, dim=1).square_()


def _take(rows: Rows, index: np.ndarray) -> Tensor:
    return rows.prepare(rows.x.index_select(0, torch.from_numpy(index)))


def _parts(index: np.ndarray) -> list[np.ndarray]:
    return [index[start : start + _BLOCK] for start in range(0, len(index), _BLOCK)]


def _group(label: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples ordered by label, then index, and where each label begins and ends."""
    order = np.argsort(label, kind="stable")
    if len(label) < 2**31:
        order = order.astype(np.int32)
    length = np.bincount(label, minlength=count)
    return order, np.concatenate([[0], np.cumsum(length)])
