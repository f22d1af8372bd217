"""What "near" means: the metrics, how rows are prepared for a search, and distances computed directly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from graphclust._checks import check_choice, check_number

METRICS = ("euclidean", "cosine", "inner_product", "manhattan", "minkowski")

#: Unit round-off of float32, in which the engines compute; 16 covers the sums over features seen in practice.
_ROUND_OFF = 16 * 6e-8
_SAMPLE_ROWS = 1000
_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class Metric:
    """A metric, and the distances that users see (smaller is nearer).

    =============  ==========================================
    name           distance
    =============  ==========================================
    euclidean      (sum_l (x_l - y_l)^2)^(1/2)
    cosine         1 - <x, y> / (|x| |y|), 1 for zero vectors
    inner_product  -<x, y>
    manhattan      sum_l |x_l - y_l|
    minkowski      (sum_l |x_l - y_l|^p)^(1/p)
    =============  ==========================================
    """

    name: str
    p: float = 2.0

    @classmethod
    def make(cls, name: str, p: float = 2.0) -> Metric:
        """Check the names; Minkowski with p = 2 is Euclidean, with p = 1 Manhattan (and much faster so)."""
        check_choice(name, "metric", METRICS)
        p = check_number(p, "p", low=1, remedy="below 1 it is no metric")
        if name == "minkowski" and p in (1.0, 2.0):
            name = "manhattan" if p == 1.0 else "euclidean"
        return cls(name, p if name == "minkowski" else 2.0)

    def direct(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Distances from differences, summed in float64: no cancellation, and duplicates get exactly 0.

        Parameters
        ----------
        queries : Tensor, shape [b, d]
        candidates : Tensor, shape [b, c, d]

        Returns
        -------
        Tensor, float64, shape [b, c]
        """
        x, y = queries.unsqueeze(1), candidates
        if self.name in ("euclidean", "manhattan"):
            wide = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
            order = 2 if self.name == "euclidean" else 1
            return torch.linalg.vector_norm(y.to(wide) - x.to(wide), order, dim=2, dtype=torch.float64)
        x, y = x.double(), y.double()
        if self.name == "inner_product":
            return -(y @ x.transpose(1, 2)).squeeze(2)
        tiny = torch.finfo(torch.float64).tiny
        if self.name == "cosine":
            # |u - v|^2 / 2 = 1 - <u, v> for unit vectors, and exact for small angles.
            x_norm, y_norm = x.norm(dim=2), y.norm(dim=2)
            x, y = x / x_norm.clamp_min(tiny).unsqueeze(2), y / y_norm.clamp_min(tiny).unsqueeze(2)
            half_chord = (y - x).square_().sum(dim=2) / 2
            return half_chord.masked_fill_((x_norm == 0) | (y_norm == 0), 1.0)
        difference = (y - x).abs_()
        largest = difference.amax(dim=2)  # taken out before the power, which could overflow
        if math.isinf(self.p):
            return largest
        difference.div_(largest.clamp_min(tiny).unsqueeze(2))
        return difference.pow_(self.p).sum(dim=2).pow_(1 / self.p).mul_(largest)

    def is_separated(self, kth: Tensor, last: Tensor, norm: Tensor, largest_norm: float) -> Tensor:
        """Tell whether ``last`` is so far behind ``kth`` that no float32 engine can have confused the two.

        ``norm`` [b] is the length of the queries and ``largest_norm`` that of the longest candidate, as prepared
        for the engine.
        """
        if self.name == "euclidean":  # engines compute |x|^2 + |y|^2 - 2 <x, y>, and |y| <= |x| + |x - y|
            return last.square() - kth.square() > _ROUND_OFF * (norm + last).square()
        if self.name == "cosine":
            return last - kth > _ROUND_OFF
        if self.name == "inner_product":
            return last - kth > _ROUND_OFF * norm * largest_norm
        return last - kth > 100 * _ROUND_OFF * last


class Rows:
    """Rows of a feature matrix as the engines want them: float32, and centred, scaled or of unit length.

    Nothing is converted in advance: blocks are made when they are asked for, and ``whole`` tells that the
    matrix itself can be used without a copy.
    """

    def __init__(self, x: Tensor, metric: Metric, like: Rows | None = None):
        self.x, self.metric = x, metric
        self.shift: Tensor | None
        self.scale: float
        self.shift, self.scale = (like.shift, like.scale) if like is not None else _affine(x, metric)
        self.whole = (
            x.dtype == torch.float32
            and x.is_contiguous()
            and self.shift is None
            and self.scale == 1.0
            and metric.name != "cosine"
        )

    def __len__(self) -> int:
        return self.x.size(0)

    def prepare(self, rows: Tensor) -> Tensor:
        """float32 rows, [n, d] -> [n, d]; the rows themselves when there is nothing to do."""
        if self.shift is not None:
            rows = (rows.double() - self.shift).mul_(self.scale)
        elif self.scale != 1.0:
            rows = rows.double() * self.scale
        if self.metric.name == "cosine":
            rows = torch.nn.functional.normalize(
                rows if rows.dtype == torch.float64 else rows.float(), eps=1e-30
            )
        return rows.float().contiguous()

    def blocks(self, whole: bool = False, block_bytes: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """Yield (start, prepared block); ``whole`` allows the matrix itself as the single block."""
        if whole and self.whole:
            yield 0, self.x
            return
        size = max(1, (block_bytes or _BLOCK_BYTES) // (4 * self.x.size(1)))
        for start in range(0, len(self), size):
            yield start, self.prepare(self.x[start : start + size])


def _affine(x: Tensor, metric: Metric) -> tuple[Tensor | None, float]:
    """Shift and scale that keep float32 arithmetic accurate and finite; (None, 1.0) when ``x`` is fine as it is."""
    sample = x[:: max(1, x.size(0) // _SAMPLE_ROWS)].double()
    if metric.name == "cosine":
        largest = float(sample.abs().max())
        return None, 1.0 if largest == 0 or 1e-12 < largest < 1e12 else 1.0 / largest
    shift = None
    if metric.name != "inner_product":
        mean = sample.mean(dim=0)
        spread = float((sample - mean).square().sum(dim=1).mean())
        # Far from the origin |x|^2 + |y|^2 - 2 <x, y> cancels, and float64 loses digits in float32.
        if x.dtype == torch.float64 or float(mean.square().sum()) > 100 * spread:
            shift, sample = mean, sample - mean
    largest = float(sample.abs().max())
    # FAISS returns sums of p-th powers, which overflow or vanish unless the differences are about 1.
    fine = metric.name != "minkowski" and 1e-12 < largest < 1e12
    return shift, 1.0 if fine or largest == 0 else 1.0 / largest
