"""Lists of near samples for a self-join: k-means in the leading principal directions of the data."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphclust.graph.engines import load_faiss
from graphclust.graph.metric import Rows

#: Principal directions in which lists are made and found; more say little about which lists are near.
DIRECTIONS = 32
#: Rows that are projected and compared with all centroids at once: FAISS needs so many for full speed.
BLOCK = 4096
#: Samples a list of which centroids are computed, and the rounds of k-means.
_SAMPLE, _ROUNDS = 64, 5
#: A list is cut when it is so many times longer than the mean.
_LONGEST = 4
#: Numbers in the sample of which principal directions are computed, and its least and most rows.
_BASIS_SIZE, _BASIS_ROWS = 1 << 23, (2048, 16384)


@dataclass
class Basis:
    """Principal directions.

    Attributes
    ----------
    mean : Tensor, float32, shape [d]
    directions : Tensor, float32, shape [d, q]
        Orthonormal columns, those with most variance first.
    """

    mean: Tensor
    directions: Tensor

    @classmethod
    def fit(cls, rows: Rows, seed: int) -> Basis:
        """All directions with variance in a random sample, of 2,048 to 16,384 rows."""
        d = rows.x.size(1)
        low, high = _BASIS_ROWS
        x = torch.cat(list(draw(rows, min(high, max(low, _BASIS_SIZE // d)), seed))).double()
        mean = x.mean(dim=0)
        x -= mean
        wide = len(x) < d  # then the small matrix is that of the samples
        values, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
        kept = torch.argsort(values, descending=True)[: max(1, int((values > 1e-10 * values[-1]).sum()))]
        directions = vectors[:, kept]
        if wide:
            directions = x.T @ directions / values[kept].clamp_min(1e-300).sqrt()
        return cls(mean.float(), directions.float().contiguous())

    def project(self, x: Tensor, count: int) -> np.ndarray:
        """Coordinates of rows along the first ``count`` directions, [n, count]."""
        directions = self.directions[:, :count].contiguous()
        return torch.addmm(-(self.mean @ directions), x, directions).numpy()

    def back(self, z: np.ndarray) -> np.ndarray:
        """The points that have these coordinates, and the mean's in all other directions, [n, d]."""
        return (self.mean + torch.from_numpy(z) @ self.directions[:, : z.shape[1]].T).numpy()


@dataclass
class Lists:
    """Samples in lists, and long lists in pieces.

    Attributes
    ----------
    centroids : array, float32, shape [L, p]
        In the first principal directions.
    first : array, int64, shape [L + 1]
        The pieces of list l are first[l] to first[l + 1] - 1; mostly one.
    order : array, int32 or int64, shape [N]
        Samples piece by piece; within a piece by index. All other numbers of samples are places in this order.
    ends : array, int64, shape [P + 1]
        Piece i holds the places ends[i] to ends[i + 1] - 1.
    """

    centroids: np.ndarray
    first: np.ndarray
    order: np.ndarray
    ends: np.ndarray

    def __post_init__(self) -> None:
        faiss: Any = load_faiss()
        self._quantizer = faiss.IndexFlatL2(self.centroids.shape[1])
        self._quantizer.add(np.ascontiguousarray(self.centroids))

    def __len__(self) -> int:
        return len(self.centroids)

    def nearest(self, z: np.ndarray, count: int) -> np.ndarray:
        """The ``count`` lists whose centroids are nearest to each row, nearest first, int64 [n, count]."""
        return self._quantizer.search(np.ascontiguousarray(z[:, : self.centroids.shape[1]]), count)[1]

    def visited(self, z: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
        """The pieces that samples visit, [n, count]: one of each of the nearest lists, of the own list the own.

        All pieces, where ``count`` is the number of lists.
        """
        if count >= len(self):
            return np.broadcast_to(np.arange(len(self.ends) - 1), (len(z), len(self.ends) - 1))
        found = self.nearest(z, count)
        piece = np.searchsorted(self.ends, places, side="right") - 1
        own = np.searchsorted(self.first, piece, side="right") - 1
        return np.where(found == own[:, None], piece[:, None], self.first[found])

    def members(self, visited: np.ndarray) -> np.ndarray:
        """All places in the ``visited`` pieces [n, m], int64 [n, c]; -1 behind the last."""
        begin = self.ends[visited].ravel()
        length = self.ends[visited + 1].ravel() - begin
        size = length.reshape(visited.shape).sum(axis=1)
        shift = np.repeat(begin - (np.cumsum(length) - length), length)
        out = np.full((len(visited), int(size.max())), -1, dtype=np.int64)
        out[np.arange(out.shape[1]) < size[:, None]] = shift + np.arange(len(shift))
        return out


def make_lists(rows: Rows, basis: Basis, count: int, seed: int, pool: ThreadPoolExecutor) -> Lists:
    """Put the samples into ``count`` lists or a few more, each to its nearest centroid.

    k-means on 64 samples a list; then each sample is compared with all centroids, in 32 dimensions at the most.
    """
    centroids = pool.submit(_centroids, rows, basis, count, seed).result()
    n, p = len(rows), centroids.shape[1]
    lists = Lists(centroids, np.arange(len(centroids) + 1), np.empty(0), np.zeros(1))
    label = np.empty(n, dtype=np.int32)

    def choose(start: int) -> None:
        part = slice(start, start + BLOCK)
        label[part] = lists.nearest(basis.project(rows.prepare(rows.x[part]), p), 1)[:, 0]

    list(pool.map(choose, range(0, n, BLOCK)))
    order = np.argsort(label, kind="stable").astype(np.int32 if n < 2**31 else np.int64)
    length = np.bincount(label, minlength=len(centroids))
    # What is still too long (duplicates) is cut wherever.
    pieces = np.maximum(1, -(-length // (_LONGEST * -(-n // count))))
    first = np.concatenate([[0], np.cumsum(pieces)])
    start = np.repeat(np.cumsum(length) - length, pieces)
    part = np.arange(first[-1]) - np.repeat(first[:-1], pieces)
    ends = start + part * np.repeat(length, pieces) // np.repeat(pieces, pieces)
    return Lists(centroids, first, order, np.append(ends, n))


def draw(rows: Rows, count: int, seed: int) -> Iterator[Tensor]:
    """Random rows, prepared, in blocks of 4,096: min(count, N) of them."""
    n = len(rows)
    index = np.sort(np.random.default_rng(seed).choice(n, min(n, count), replace=False))
    for start in range(0, len(index), BLOCK):
        yield rows.prepare(rows.x.index_select(0, torch.from_numpy(index[start : start + BLOCK])))


def _centroids(rows: Rows, basis: Basis, count: int, seed: int) -> np.ndarray:
    """Of ``count`` lists, and of the parts of those that came out much too long."""
    sample = np.concatenate([basis.project(part, DIRECTIONS) for part in draw(rows, _SAMPLE * count, seed)])
    centroids = _kmeans(sample, count, seed)
    label = _label(sample, centroids)
    length, mean = np.bincount(label, minlength=len(centroids)), -(-len(sample) // count)
    long = np.flatnonzero(length > _LONGEST * mean)
    parts = [_kmeans(sample[label == one], int(length[one] // mean), seed) for one in long]
    return np.concatenate([np.delete(centroids, long, axis=0), *parts])


def _label(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    faiss: Any = load_faiss()
    return faiss.knn(x, centroids, 1)[1][:, 0]


def _kmeans(sample: np.ndarray, count: int, seed: int) -> np.ndarray:
    faiss: Any = load_faiss()
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
