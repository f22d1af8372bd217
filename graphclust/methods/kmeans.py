"""KMeans, the yardstick, and the k-means that other methods start from."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.cluster import kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import normalize

from graphclust._checks import check_choice, check_count
from graphclust.graph.engines import load_faiss
from graphclust.methods.centers import CenterClusterer, Distortion
from graphclust.methods.inputs import Input

ENGINES = ("auto", "faiss", "sklearn")
#: Iterations of FAISS between two looks at the gain.
_ROUND = 10
_FAISS_METRICS = ("euclidean", "cosine")
_BLOCK_VALUES = 1 << 22
#: Samples up to which every start runs to its end, and how many of them do beyond.
_ALL_STARTS, _ENDED = 20_000, 3
#: Samples that starts are compared on, in all and for each cluster, where there are more than twice as many.
_COMPARED, _COMPARED_OF_EACH = 50_000, 256
#: Iterations after which starts are compared, and the least gain (a share) for which ten more over all samples pay.
_SHORT, _LEAST_GAIN = 30, 1e-4


class Partition(NamedTuple):
    """Labels [N], centres [K, d], the sum that k-means minimises, and the iterations of the start that reached it."""

    labels: NDArray[np.int64]
    centers: NDArray[np.float32]
    inertia: float
    n_iter: int


def k_means(
    x: NDArray[np.float32],
    n_clusters: int,
    *,
    metric: str = "euclidean",
    p: float = 2.0,
    n_init: int = 10,
    max_iter: int = 300,
    tolerance: float = 1e-6,
    engine: str = "auto",
    random_state: int = 0,
) -> Partition:
    """The best of `n_init` runs of k-means, each started by k-means++ (Arthur & Vassilvitskii 2007).

    See `KMeans` for the parameters.
    """
    distortion = Distortion.make(metric, p)
    metric = distortion.metric
    _check_engine(engine, metric)
    faiss = None if engine == "sklearn" or metric not in _FAISS_METRICS else load_faiss()
    if engine == "faiss" and faiss is None:
        raise ImportError("engine='faiss' needs FAISS: pip install graphclust[cpu], or set engine='sklearn'")
    # Around the mean, where float32 loses least in the expanded square.
    origin = x.mean(axis=0, dtype=np.float64) if metric == "euclidean" else np.zeros(x.shape[1], np.float32)
    points = _moved(distortion.points(x), origin)
    unit = _unit(points) if metric == "euclidean" else 1.0
    points /= np.float32(unit)
    spherical = metric == "cosine"

    def run(
        points: NDArray[np.float32],
        seed: int,
        start: NDArray[Any] | None = None,
        max_iter: int = max_iter,
        tolerance: float = tolerance,
    ) -> Partition:
        if faiss is not None:
            centers, steps = _faiss_run(
                faiss, points, n_clusters, max_iter, tolerance, seed, spherical, start
            )
        elif metric == "euclidean":
            centers, steps = _sklearn_run(points, n_clusters, max_iter, tolerance, seed, start)
        else:
            if start is None:
                start = distortion.start(points, n_clusters, np.random.RandomState(seed))
            descent = distortion.descend(points, start, max_iter=max_iter, tolerance=tolerance)
            centers, steps = descent.centers, max(1, len(descent.sums) - 1)
        centers = normalize(centers) if spherical else centers
        labels, cost = distortion.assign(points, centers)
        return Partition(labels, centers, float(cost.sum()), steps)

    generator = np.random.RandomState(random_state % 2**32)
    seeds = generator.randint(2**31 - 1, size=n_init).tolist()
    few = max(_COMPARED, _COMPARED_OF_EACH * n_clusters)
    if n_init > 1 and len(points) > _ALL_STARTS:
        # Which start is best, some iterations tell, and of very many samples some of them.
        sample, n_ended = points, _ENDED
        if len(points) > 2 * few:
            sample, n_ended = points[np.sort(generator.choice(len(points), few, replace=False))], 1
            tolerance = max(tolerance, _LEAST_GAIN)
        short = [run(sample, seed, max_iter=min(max_iter, _SHORT)) for seed in seeds]
        ahead = sorted(short, key=lambda found: found.inertia)[:n_ended]
        ended = (run(points, seeds[0], found.centers, tolerance=tolerance) for found in ahead)
        best = min(ended, key=lambda found: found.inertia)
    else:
        best = min((run(points, seed) for seed in seeds), key=lambda found: found.inertia)
    centers = (best.centers * np.float64(unit) + origin).astype(np.float32)
    # Far from the origin rounding moves the centres, and `predict` has no others.
    labels, cost = distortion.assign(points, (centers - origin) / np.float64(unit))
    return Partition(labels, centers, float(cost.sum()) * unit**2, best.n_iter)


def _moved(points: NDArray[Any], origin: NDArray[Any]) -> NDArray[np.float32]:
    """Points less the origin in float32; the difference is taken in float64, of some rows at a time."""
    moved = np.empty(points.shape, dtype=np.float32)
    step = max(1, _BLOCK_VALUES // points.shape[1])
    for start in range(0, len(points), step):
        moved[start : start + step] = points[start : start + step] - origin
    return moved


def _unit(points: NDArray[np.float32]) -> float:
    """A power of two that the points are divided by, 1 but where their squares would leave the range of float32.

    FAISS ends the whole process when a distance is infinite; a power of two changes no digit.
    """
    largest = max(float(points.max(initial=0)), -float(points.min(initial=0)))
    return 1.0 if largest == 0 or 1e-12 < largest < 1e12 else 2.0 ** round(math.log2(largest))


def _check_engine(engine: str, metric: str) -> None:
    check_choice(engine, "engine", ENGINES)
    if metric not in _FAISS_METRICS and engine != "auto":
        raise ValueError(f"engine={engine!r} has no k-means for metric={metric!r}; set engine='auto'")


def _sklearn_run(
    x: NDArray[Any], k: int, max_iter: int, tolerance: float, seed: int, start: NDArray[Any] | None
) -> tuple[NDArray[Any], int]:
    init: Any = "k-means++" if start is None else start
    kmeans = SklearnKMeans(k, init=init, n_init=1, max_iter=max_iter, tol=tolerance, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # duplicates: the clusters that stay empty are seen
        kmeans.fit(x)
    return kmeans.cluster_centers_, kmeans.n_iter_


def _faiss_run(
    faiss: Any,
    x: NDArray[Any],
    k: int,
    max_iter: int,
    tolerance: float,
    seed: int,
    spherical: bool,
    start: NDArray[Any] | None,
) -> tuple[NDArray[Any], int]:
    centers = kmeans_plusplus(x, k, random_state=seed)[0] if start is None else start
    before, steps = np.inf, 0
    while steps < max_iter:
        kmeans = faiss.Kmeans(
            x.shape[1],
            k,
            niter=min(_ROUND, max_iter - steps),
            spherical=spherical,
            seed=seed % 2**31,
            min_points_per_centroid=1,
            max_points_per_centroid=len(x),
        )
        kmeans.train(x, init_centroids=np.ascontiguousarray(centers))
        centers = kmeans.centroids
        steps += kmeans.cp.niter
        # Spherical k-means in FAISS adds up similarities, of which more is better.
        after = len(x) - kmeans.obj[-1] if spherical else kmeans.obj[-1]
        if after >= (1 - tolerance) * before:
            break
        before = after
    return centers, steps


@dataclass(eq=False, repr=False, kw_only=True)
class KMeans(CenterClusterer):
    r"""K-means (Lloyd 1982), the yardstick: :math:`\min_{\mu, c} \sum_i |x_i - \mu_{c_i}|^2`, by FAISS where it is.

    With ``metric="cosine"`` the sum is :math:`\sum_i 1 - \cos(x_i, \mu_{c_i})` with centres of length 1 (spherical
    k-means, Dhillon & Modha 2001); with "manhattan" :math:`\sum_i |x_i - \mu_{c_i}|_1`, whose centres are medians
    (Bradley, Mangasarian & Street 1997); with "minkowski" :math:`\sum_i |x_i - \mu_{c_i}|_p^p`, the p-th powers as
    Euclidean k-means takes squares, whose centres are p-means (`graphclust.methods.centers.Distortion`). SDCN's authors
    report ACC 66.8 on USPS.

    Departures: each start is drawn by k-means++ instead of at random, for "manhattan" and "minkowski" with the terms of
    the sum as weights. Beyond 20,000 samples the starts are compared after 30 iterations, and the best three go on;
    beyond 100,000 (and 512 for each cluster) they are compared on a random half or less, at least 50,000, and the best
    of them goes on with all samples, until it lowers the sum by less than a ten-thousandth. Powers other than 1 and 2
    take about fifty times as long as the Euclidean metric.

    Parameters
    ----------
    n_init : int
        Starts, of which the best by the sum above is kept. On USPS (five seeds) ten end at 59 to 66 % of the classes,
        twenty, as in the tables of the literature, at 66 to 67 %.
    max_iter : int
        Most iterations of a start.
    tolerance : float
        A start ends when an iteration (with FAISS ten) lowers the sum by a smaller share; with scikit-learn, when the
        centres move by less, squared and as a share of the variance.
    engine : {"auto", "faiss", "sklearn"}
        "auto" takes FAISS when it is installed. Only the Euclidean metric and the cosine have a choice; the cosine
        without FAISS, "manhattan" and "minkowski" are computed by NumPy and scikit-learn's distances.

    Attributes
    ----------
    n_iter_ : int
        Iterations of the best start.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from graphclust import KMeans
    >>> KMeans(10, random_state=0).fit(load_digits().data).cluster_centers_.shape
    (10, 64)
    """

    n_init: int = 20
    engine: str = "auto"

    def _check_parameters(self) -> None:
        super()._check_parameters()
        _check_engine(self.engine, Distortion.make(self.metric, self.p).metric)
        check_count(self.n_init, "n_init")

    def score(self, X: Input, y: Any = None) -> float:
        """The sum above for other samples, with the sign changed: larger is better, as model selection wants it."""
        distortion = Distortion.make(self.metric, self.p)
        points = distortion.points(self._features(X))
        return -float(distortion.assign(points, self.cluster_centers_)[1].sum())

    def _fit(self, x: NDArray[np.float32], seed: int) -> None:
        options = {
            name: getattr(self, name) for name in ("metric", "p", "n_init", "max_iter", "tolerance", "engine")
        }
        self.labels_, self.cluster_centers_, self.inertia_, self.n_iter_ = k_means(
            x, self.n_clusters_, random_state=seed, **options
        )
