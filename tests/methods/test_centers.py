"""Centres under four metrics: against brute force, and the sum that never goes up."""

from __future__ import annotations

import tracemalloc
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from graphclust import GeneticKMeans, KMeans
from graphclust.methods import kmeans
from graphclust.methods.centers import Distortion

METRICS = [
    ("euclidean", 2.0),
    ("manhattan", 2.0),
    ("minkowski", 1.2),
    ("minkowski", 3.0),
    ("minkowski", 16.0),
]
ALL = [*METRICS, ("cosine", 2.0)]


def cost(metric: str, p: float, x: np.ndarray, center: np.ndarray) -> np.ndarray:
    """D of the docstring, written down once more."""
    if metric == "cosine":
        return 1 - x @ center / (np.linalg.norm(x, axis=1) * np.linalg.norm(center))
    power = {"euclidean": 2.0, "manhattan": 1.0}.get(metric, p)
    return (np.abs(x - center) ** power).sum(axis=1)


@pytest.mark.parametrize(("metric", "p"), METRICS)
def test_centre_of_a_cluster_is_the_best_point(metric: str, p: float) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(150, 4)) ** 3  # long tails, where mean, median and p-means differ
    x[:40, 0] = 0.5  # ties
    x[:, 3] = 2.0  # nothing to choose
    labels = random.integers(3, size=150)
    distortion = Distortion.make(metric, p)
    centers = distortion.move(x, labels, random.normal(size=(3, 4)), np.ones(150))
    for k in range(3):
        for column in range(4):
            part = x[labels == k, column : column + 1]

            def total(at: float, part: np.ndarray = part) -> float:
                return cost(metric, p, part, np.array([at])).sum()

            bounds = (part.min() - 1e-3, part.max() + 1e-3)
            best = minimize_scalar(total, bounds=bounds, method="bounded", options={"xatol": 1e-9}).fun
            assert total(centers[k, column]) <= best * (1 + 1e-6) + 1e-9


def test_spherical_centre_is_the_mean_direction() -> None:
    x = np.random.default_rng(0).normal(size=(60, 3)) + [1, 2, 0]
    distortion = Distortion.make("cosine")
    points = distortion.points(x)
    (center,) = distortion.move(points, np.zeros(60, int), np.eye(3)[:1], np.ones(60))
    best = cost("cosine", 2, x, center).sum()
    for other in np.random.default_rng(1).normal(size=(500, 3)) * 0.1 + center:
        assert cost("cosine", 2, x, other).sum() >= best - 1e-9


@pytest.mark.parametrize(("metric", "p"), ALL)
@pytest.mark.parametrize("n_features", [1, 3, 20])
def test_the_sum_never_goes_up(metric: str, p: float, n_features: int) -> None:
    x = np.random.default_rng(n_features).gamma(1.0, size=(200, n_features)).astype(np.float32)
    distortion = Distortion.make(metric, p)
    points = distortion.points(x)
    generator = np.random.RandomState(0)
    labels, costs = distortion.assign(points, distortion.start(points, 8, generator))
    centers = points[generator.choice(200, 8)]  # with repetition: some clusters may be empty
    before = np.inf
    for _ in range(12):
        labels, costs = distortion.assign(points, centers)
        np.testing.assert_allclose(
            costs,
            np.min([cost(metric, p, x, c) for c in centers.astype(float)], axis=0),
            rtol=1e-4,
            atol=1e-5,
        )
        assert costs.sum() <= before * (1 + 1e-7)  # centres are float32
        before = costs.sum()
        centers = distortion.move(points, labels, centers, costs)
    descent = distortion.descend(points, distortion.start(points, 8, generator), tolerance=0.0)
    assert (np.diff(descent.sums) <= 0).all() and len(descent.sums) > 1


@pytest.mark.parametrize(("metric", "p"), METRICS)
def test_kmeans_finds_the_best_partition_of_a_line(metric: str, p: float) -> None:
    """Clusters on a line are intervals, so that all partitions can be tried."""
    x = np.sort(np.random.default_rng(5).normal(size=14) ** 3)[:, None].astype(np.float32)

    def best_of(part: np.ndarray) -> float:
        if metric in ("euclidean", "manhattan"):
            center = part.mean(axis=0) if metric == "euclidean" else np.median(part, axis=0)
            return cost(metric, p, part, center).sum()
        bounds = (part.min(), part.max() + 1e-9)
        return minimize_scalar(lambda at: cost(metric, p, part, np.array([at])).sum(), bounds=bounds).fun

    sums = [
        sum(best_of(part) for part in np.split(x.astype(float), cuts))
        for cuts in combinations(range(1, 14), 2)
    ]
    model = KMeans(3, metric=metric, p=p, n_init=30, random_state=0).fit(x)
    assert model.inertia_ == pytest.approx(min(sums), rel=1e-4)
    distance = model.transform(x).min(axis=1).astype(float)
    assert (distance ** {"euclidean": 2, "manhattan": 1}.get(metric, p)).sum() == pytest.approx(
        model.inertia_, rel=1e-3
    )


def test_powers_1_and_2_have_names() -> None:
    x = np.random.default_rng(0).normal(size=(60, 2))
    for p, metric in ((1, "manhattan"), (2, "euclidean")):
        by_power = KMeans(3, metric="minkowski", p=p, random_state=0).fit(x)
        np.testing.assert_array_equal(
            by_power.labels_, KMeans(3, metric=metric, random_state=0).fit(x).labels_
        )


@pytest.mark.parametrize(("metric", "p"), ALL)
def test_a_centre_without_samples_moves_to_where_it_helps(metric: str, p: float) -> None:
    x = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    distortion = Distortion.make(metric, p)
    points = distortion.points(x)
    centers = points[[0, 0]]  # equal: all samples go to the first
    labels, costs = distortion.assign(points, centers)
    assert set(labels) == {0}
    moved = distortion.move(points, labels, centers, costs)
    np.testing.assert_allclose(moved[1], points[2])


def test_kmeans_with_more_clusters_than_points() -> None:
    x = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    for metric in ("manhattan", "cosine"):
        with pytest.warns(UserWarning, match="5 clusters were asked for and 3 hold samples"):
            model = KMeans(5, metric=metric, engine="auto", random_state=0).fit(x)
        assert model.inertia_ == pytest.approx(0, abs=1e-6)


def test_a_median_shrugs_off_outliers() -> None:
    x = np.concatenate([np.random.default_rng(0).normal(0, 0.1, (50, 2)), [[300.0, 300.0]] * 3])
    centers = {
        m: KMeans(1, metric=m, random_state=0).fit(x).cluster_centers_[0] for m in ("manhattan", "euclidean")
    }
    np.testing.assert_allclose(centers["manhattan"], np.median(x, axis=0), rtol=1e-5)
    np.testing.assert_allclose(centers["euclidean"], x.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(("metric", "p"), ALL)
def test_labels_of_new_samples_are_those_of_the_nearest_centres(
    metric: str, p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    model = KMeans(5, metric=metric, p=p, n_init=1, random_state=0).fit(random.normal(size=(60, 3)))
    new = random.normal(size=(50, 3))
    expected = model.transform(new).argmin(axis=1)
    sizes, distances = [], Distortion.distances

    def watched(self: Distortion, x: np.ndarray, centers: np.ndarray) -> np.ndarray:
        sizes.append(len(x) * len(centers))
        return distances(self, x, centers)

    monkeypatch.setattr(Distortion, "distances", watched)
    monkeypatch.setattr("graphclust.methods.centers._BLOCK_VALUES", 40)
    np.testing.assert_array_equal(model.predict(new), expected)
    assert max(sizes) <= 40  # never all samples times all centres


def test_a_sample_far_away_has_one_nearest_centre() -> None:
    model = KMeans(2, random_state=0).fit([[0.0], [1.0]])
    right = int(model.labels_[1])
    assert float(np.ptp(model.transform([[1e9]]))) == 0.0  # in float32 both are as near
    assert model.predict([[1e9]]).tolist() == [right]
    assert model.predict([[-1e9]]).tolist() == [1 - right]


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
@pytest.mark.parametrize("engine", ["auto", "sklearn"])
def test_starts_compared_on_a_sample(
    metric: str, engine: str, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many samples; what comes out is a k-means of all of them, and hardly worse."""
    if engine == "sklearn" and metric != "euclidean":
        pytest.skip("one engine alone")
    x = digits[0]
    settings: dict[str, Any] = {"metric": metric, "engine": engine, "random_state": 0}
    whole = KMeans(10, **settings).fit(x)
    monkeypatch.setattr(kmeans, "_ALL_STARTS", 1000)
    monkeypatch.setattr(kmeans, "_SHORT", 3)
    ended = KMeans(10, **settings).fit(x)  # three of the starts alone
    assert whole.inertia_ * 0.999999 <= ended.inertia_ < 1.01 * whole.inertia_
    monkeypatch.setattr(kmeans, "_COMPARED", 600)
    monkeypatch.setattr(kmeans, "_COMPARED_OF_EACH", 1)
    found = KMeans(10, **settings).fit(x)
    assert found.inertia_ != whole.inertia_  # the sample was used
    assert found.inertia_ < 1.03 * whole.inertia_
    distortion = Distortion.make(metric, 2.0)
    points = distortion.points(x)
    labels, terms = distortion.assign(points, found.cluster_centers_)
    np.testing.assert_array_equal(labels, found.labels_)
    again = distortion.descend(points, found.cluster_centers_, max_iter=30, tolerance=1e-6)
    assert again.sums[-1] > 0.999 * terms.sum()  # converged on all samples
    np.testing.assert_array_equal(KMeans(10, **settings).fit(x).labels_, found.labels_)


@pytest.mark.parametrize("method", [KMeans, GeneticKMeans])
@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_labels_are_those_of_predict_far_from_the_origin(method: Any, offset: float) -> None:
    x = (np.random.default_rng(0).normal(size=(2000, 3)) + offset).astype(np.float32)
    model = method(20, random_state=0).fit(x)
    assert np.mean(model.predict(x) != model.labels_) < 0.002  # ties of what float32 leaves


def test_no_table_of_samples_by_clusters() -> None:
    """Of 40,000 samples and 2,000 clusters it would take 640 MB."""
    random = np.random.default_rng(0)
    x, centers = random.normal(size=(40_000, 4)), random.normal(size=(2_000, 4))
    tracemalloc.start()
    labels, terms = Distortion.make("euclidean", 2.0).assign(x, centers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6
    np.testing.assert_allclose(terms[:50], ((x[:50, None] - centers) ** 2).sum(axis=2).min(axis=1))
    assert labels[:50].tolist() == ((x[:50, None] - centers) ** 2).sum(axis=2).argmin(axis=1).tolist()
