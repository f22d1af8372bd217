"""Centres under several metrics: the sum that k-means minimises, and the steps that never raise it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.metrics import pairwise_distances, pairwise_distances_argmin
from sklearn.preprocessing import normalize

from graphclust._checks import check_choice, check_count, check_number
from graphclust.methods.inputs import Input
from graphclust.methods.shallow import ShallowClusterer

METRICS = ("euclidean", "manhattan", "minkowski", "cosine")
#: Beyond, the largest difference alone decides, and the powers leave the range of floating point.
LARGEST_POWER = 16.0
_BLOCK_VALUES = 1 << 22
_NEWTON_STEPS = 30
#: Of a centre, as a share of its cluster's width.
_PRECISION = 1e-6
Array = NDArray[Any]


class Descent(NamedTuple):
    """Labels [N], centres [K, d], and the sum before the first step and after each."""

    labels: NDArray[np.int64]
    centers: Array
    sums: list[float]


@dataclass(frozen=True)
class Distortion:
    r"""The sum :math:`\sum_i D(x_i, \mu_{c_i})` that k-means minimises, and its steps, each of which never raises it.

    ==========  ==========================================  ==============================================
    metric      :math:`D(x, \mu)`                           centre of a cluster
    ==========  ==========================================  ==============================================
    euclidean   :math:`\sum_l (x_l - \mu_l)^2`              mean
    manhattan   :math:`\sum_l |x_l - \mu_l|`                median of each coordinate
    minkowski   :math:`\sum_l |x_l - \mu_l|^p`, the p-th    p-mean of each coordinate: the root of
                power of the distance                       :math:`\sum_i |\mu - x_i|^{p-1} sign(\mu - x_i)`
    cosine      :math:`1 - \cos(x, \mu)`                    sum of the samples at length 1, at length 1
    ==========  ==========================================  ==============================================

    The nearest centre by the distance is the nearest by D, so Lloyd's two steps both lower the sum. The p-mean is the
    minimum of a convex function of one number; it is found for all clusters and coordinates at once by Newton steps
    inside a shrinking bracket, which is halved where they fail.

    Attributes
    ----------
    metric : {"euclidean", "manhattan", "minkowski", "cosine"}
    p : float
        Power of the Minkowski metric, 1 to 16.
    """

    metric: str
    p: float = 2.0

    @classmethod
    def make(cls, metric: str, p: float = 2.0) -> Distortion:
        """Check the two; Minkowski with p = 2 is Euclidean, with p = 1 Manhattan."""
        check_choice(metric, "metric", METRICS)
        p = check_number(p, "p", 1, LARGEST_POWER, remedy="other powers have no centre that can be computed")
        if metric == "minkowski" and p in (1.0, 2.0):
            metric = "manhattan" if p == 1.0 else "euclidean"
        return cls(metric, {"manhattan": 1.0, "minkowski": p}.get(metric, 2.0))

    def points(self, x: Array) -> Array:
        """Samples [N, d] as the steps take them: for the cosine at length 1."""
        return normalize(x) if self.metric == "cosine" else x

    def assign(self, points: Array, centers: Array) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Nearest centre of each point [N], and D to it [N]."""
        step = max(1, _BLOCK_VALUES // max(centers.shape))
        blocks = [self._nearest(points[i : i + step], centers) for i in range(0, len(points), step)]
        labels, cost = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        return labels.astype(np.int64), cost

    def _nearest(self, points: Array, centers: Array) -> tuple[Array, NDArray[np.float64]]:
        """Nearest centre and D, in float64: what float32 rounds is no measure of progress."""
        points, centers = np.asarray(points, dtype=np.float64), np.asarray(centers, dtype=np.float64)
        if self.metric == "cosine":
            # What float32 left to a length of 1 may be more than two cosines differ by.
            points, centers = normalize(points), normalize(centers)
            labels = (points @ centers.T).argmax(axis=1)
            return labels, self._cost(points, centers[labels])
        if self.metric == "euclidean":
            likeness = points @ centers.T
            likeness -= np.einsum("ij,ij->i", centers, centers) / 2
            labels = likeness.argmax(axis=1)
            most = likeness[np.arange(len(points)), labels]
            return labels, np.maximum(np.einsum("ij,ij->i", points, points) - 2 * most, 0.0)
        powers = {"p": self.p} if self.metric == "minkowski" else {}
        labels = pairwise_distances_argmin(points, centers, metric=self.metric, metric_kwargs=powers)
        return labels, self._cost(points, centers[labels])

    def _cost(self, points: Array, centers: Array) -> NDArray[np.float64]:
        """D of each point [n, d] to a centre [n, d] or [d]."""
        points, centers = np.asarray(points, dtype=np.float64), np.asarray(centers, dtype=np.float64)
        if self.metric == "cosine":  # half of the squared chord, which loses nothing where the angle is small
            apart = normalize(points) - normalize(np.atleast_2d(centers))
            zero = ~(points.any(axis=-1) & np.atleast_2d(centers).any(axis=-1))
            return np.where(zero, 1.0, np.einsum("ij,ij->i", apart, apart) / 2)
        difference = np.abs(points - centers)
        if self.metric == "euclidean":
            return np.einsum("ij,ij->i", difference, difference)
        return (difference if self.metric == "manhattan" else difference**self.p).sum(axis=1)

    def move(
        self, points: Array, labels: NDArray[np.int64], centers: Array, cost: NDArray[np.float64]
    ) -> Array:
        """Centres [K, d] of the clusters; one without samples goes to the sample that is worst off, then the next."""
        counts = np.bincount(labels, minlength=len(centers))
        present, empty = np.flatnonzero(counts), np.flatnonzero(counts == 0)
        moved = np.array(centers, dtype=np.float64)
        if self.metric in ("euclidean", "cosine"):
            moved[present] = _sums(points, labels, len(centers))[present] / counts[present, None]
        else:
            segments = _Segments(np.argsort(labels, kind="stable"), counts[present])
            for columns in _column_blocks(points):
                block = np.asarray(points[:, columns], dtype=np.float64)[segments.order]
                if self.metric == "manhattan":
                    moved[present, columns] = segments.medians(block)
                else:
                    moved[present, columns] = segments.power_means(block, self.p, moved[present, columns])
        if self.metric == "cosine":
            length = np.linalg.norm(moved[present], axis=1, keepdims=True)
            # Samples that point everywhere have no mean direction, and any is as good.
            direction = moved[present] / np.maximum(length, 1e-12)
            moved[present] = np.where(length > 1e-12, direction, centers[present])
        if len(empty):
            worst = np.argsort(-cost, kind="stable")[: len(empty)]
            moved[empty[: len(worst)]] = points[worst]
        return moved.astype(centers.dtype)

    def start(self, points: Array, n_clusters: int, generator: np.random.RandomState) -> Array:
        """Centres [K, d] drawn from the points by k-means++ (Arthur & Vassilvitskii 2007), with D as the weight."""
        chosen = [int(generator.randint(len(points)))]
        cost = self._cost(points, points[chosen[0]])
        for _ in range(n_clusters - 1):
            total = np.cumsum(cost)
            draw = generator.random_sample() * total[-1]
            # Where every point is a centre already, any will do.
            following = (
                int(np.searchsorted(total, draw, side="right"))
                if total[-1] > 0
                else generator.randint(len(points))
            )
            chosen.append(min(following, len(points) - 1))
            cost = np.minimum(cost, self._cost(points, points[chosen[-1]]))
        return np.array(points[chosen])

    def distances(self, x: Array, centers: Array) -> NDArray[np.float64]:
        """Distances [N, K] (not D: no squares, no powers)."""
        powers: dict[str, Any] = {"p": self.p} if self.metric == "minkowski" else {}
        return pairwise_distances(
            np.asarray(x, np.float64), np.asarray(centers, np.float64), metric=self.metric, **powers
        )

    def descend(
        self, points: Array, centers: Array, *, max_iter: int = 300, tolerance: float = 1e-6
    ) -> Descent:
        """Lloyd's steps from given centres, until one lowers the sum by a smaller share than `tolerance`."""
        labels, cost = self.assign(points, centers)
        sums = [float(cost.sum())]
        for _ in range(max_iter):
            moved = self.move(points, labels, centers, cost)
            new_labels, new_cost = self.assign(points, moved)
            total = float(new_cost.sum())
            if total > sums[-1]:  # by rounding alone: this is as low as it gets
                break
            labels, centers, cost = new_labels, moved, new_cost
            sums.append(total)
            if sums[-2] - total <= tolerance * sums[-2]:
                break
        return Descent(labels, centers, sums)


def _column_blocks(points: Array) -> Iterator[slice]:
    """Columns in blocks, so that float64 copies stay small."""
    width = max(1, _BLOCK_VALUES // len(points))
    for start in range(0, points.shape[1], width):
        yield slice(start, start + width)


def _sums(points: Array, labels: NDArray[np.int64], n_clusters: int) -> NDArray[np.float64]:
    """Sum of the points of each cluster [K, d]; 0 for one without any."""
    n = len(points)
    member = csc_array((np.ones(n), labels, np.arange(n + 1)), shape=(n_clusters, n)).tocsr()
    blocks = [member @ np.asarray(points[:, c], dtype=np.float64) for c in _column_blocks(points)]
    return np.concatenate(blocks, axis=1)


class _Segments(NamedTuple):
    """Samples in the order of their clusters, and how many each cluster holds (all at least 1)."""

    order: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def starts(self) -> NDArray[np.int64]:
        return np.cumsum(self.counts) - self.counts

    def reduce(self, block: Array, operation: Callable[..., Array] = np.add.reduceat) -> Array:
        return operation(block, self.starts, axis=0)

    def medians(self, block: Array) -> Array:
        ends = np.cumsum(self.counts)
        return np.stack([np.median(block[s:e], axis=0) for s, e in zip(self.starts, ends, strict=True)])

    def power_means(self, block: Array, p: float, first: Array) -> Array:
        """Minima of sum_i |m - x_i|^p, [K, columns]; never worse than `first`."""
        low, high = self.reduce(block, np.minimum.reduceat), self.reduce(block, np.maximum.reduceat)
        tiny = np.finfo(np.float64).tiny
        width = np.maximum(high - low, tiny)
        first = np.asarray(first, dtype=np.float64)
        m, last = np.clip(first, low, high), high - low
        active = np.arange(block.shape[1])
        for step in range(_NEWTON_STEPS):
            at = m[:, active]
            difference = np.repeat(at, self.counts, axis=0) - block[:, active]
            with np.errstate(divide="ignore"):
                weight = np.abs(difference) ** (p - 2)
            weight[difference == 0] = 0.0  # a sample at the centre pulls nowhere
            slope, curvature = self.reduce(weight * difference), (p - 1) * self.reduce(weight)
            high[:, active] = top = np.where(slope >= 0, at, high[:, active])
            low[:, active] = bottom = np.where(slope <= 0, at, low[:, active])
            newton = at - slope / np.maximum(curvature, tiny)
            # Below p = 2 the curvature is infinite at samples, and steps beside one are short wherever the root is.
            halve = (newton < bottom) | (newton > top) | (np.abs(newton - at) > last[:, active] / 2)
            m[:, active] = np.where(halve | (p < 2 and step % 3 == 2), (bottom + top) / 2, newton)
            last[:, active] = np.abs(m[:, active] - at)
            active = active[(last[:, active] > _PRECISION * width[:, active]).any(axis=0)]
            if not len(active):
                break
        before, after = (
            self.reduce(np.abs(np.repeat(c, self.counts, axis=0) - block) ** p) for c in (first, m)
        )
        return np.where(after < before, m, first)


@dataclass(eq=False, repr=False, kw_only=True)
class CenterClusterer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ShallowClusterer):
    """Base of the estimators whose clusters are the samples nearest to a centre.

    Parameters
    ----------
    metric : {"euclidean", "manhattan", "minkowski", "cosine"}
    p : float
        Power of the Minkowski metric, 1 to 16.
    max_iter : int
        Most iterations of Lloyd's algorithm.
    tolerance : float
        They end when one lowers the sum that is minimised by a smaller share.

    Attributes
    ----------
    cluster_centers_ : ndarray [K, d], float32
    inertia_ : float
        The sum that is minimised (`graphclust.methods.centers.Distortion`).
    n_iter_ : int
        Iterations of Lloyd's algorithm.
    """

    metric: str = "euclidean"
    p: float = 2.0
    max_iter: int = 300
    tolerance: float = 1e-6

    _results: ClassVar[tuple[str, ...]] = ("labels", "cluster_centers", "inertia", "n_iter")

    if TYPE_CHECKING:
        cluster_centers_: NDArray[np.float32]

    def _check_parameters(self) -> None:
        super()._check_parameters()
        Distortion.make(self.metric, self.p)
        check_count(self.max_iter, "max_iter")
        check_number(self.tolerance, "tolerance", 0.0)

    def predict(self, X: Input) -> NDArray[np.int64]:
        """Nearest centre of each sample, [M, d] -> [M]."""
        # Before `transform` rounds to float32, in which far samples are as near to all centres.
        return np.concatenate([block.argmin(axis=1) for block in self._distances(X)])

    def _distances(self, X: Input) -> Iterator[NDArray[np.float64]]:
        """Distances to the centres, by blocks of samples [b, K]."""
        x, centers = self._features(X), self.cluster_centers_
        distortion = Distortion.make(self.metric, self.p)
        step = max(1, _BLOCK_VALUES // max(centers.shape))
        for start in range(0, len(x), step):
            yield distortion.distances(x[start : start + step], centers)

    def transform(self, X: Input) -> NDArray[np.float32]:
        """Distances to the centres by the metric, [M, d] -> [M, K]; not squared, and no powers."""
        return np.concatenate([block.astype(np.float32) for block in self._distances(X)])

    def __sklearn_tags__(self) -> Any:
        """Tags for scikit-learn: distances are float32."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.cluster_centers_.shape[0]
