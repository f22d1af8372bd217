"""GeneticKMeans: never worse than its start; its operators one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphclust
from graphclust import GeneticKMeans, KMeans, report
from graphclust.methods.centers import Distortion
from graphclust.methods.genetic import crossover, mutate

EUCLIDEAN = Distortion.make("euclidean")


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "minkowski", "cosine"])
@pytest.mark.parametrize("mutation", [0.0, 1.0])
def test_never_worse_than_its_best_start(metric: str, mutation: float, digits: Any) -> None:
    x = digits[0][:200]
    model = GeneticKMeans(
        10, metric=metric, p=3, population=5, generations=6, mutation=mutation, random_state=0
    ).fit(x)
    best = [record["best"] for record in model.history_]
    assert len(best) == 7
    assert (np.diff(best) <= 0).all() and best[-1] < best[0]
    assert model.inertia_ <= best[-1]
    assert all(record["best"] <= record["mean"] for record in model.history_)
    distortion = Distortion.make(metric, 3)
    _, cost = distortion.assign(distortion.points(x), model.cluster_centers_)
    assert cost.sum() == pytest.approx(model.inertia_, rel=1e-4)
    np.testing.assert_array_equal(model.predict(x), model.labels_)


def test_no_generation_is_kmeans_from_the_best_start(digits: Any) -> None:
    model = GeneticKMeans(10, generations=0, population=4, random_state=0).fit(digits[0][:300])
    (record,) = model.history_
    assert model.inertia_ < record["best"] < record["mean"]


def test_finds_what_single_starts_miss() -> None:
    """Many small groups, of which k-means from one start merges some more often than not."""
    random = np.random.default_rng(0)
    centers = random.uniform(0, 100, (40, 2))
    x = (centers[:, None] + random.normal(0, 0.3, (40, 15, 2))).reshape(-1, 2)
    single = [KMeans(40, n_init=1, random_state=seed).fit(x).inertia_ for seed in range(5)]
    model = GeneticKMeans(40, generations=30, population=10, random_state=0).fit(x)
    assert model.inertia_ < 1.0001 * min(single) and model.inertia_ < 0.95 * np.median(single)
    assert (
        model.inertia_
        < 1.01 * ((x.reshape(40, 15, 2) - x.reshape(40, 15, 2).mean(1, keepdims=True)) ** 2).sum()
    )


class TestOperators:
    def test_child_of_the_same_parents_in_another_order_is_the_same(self) -> None:
        centers = np.random.default_rng(0).normal(size=(6, 3))
        generator = np.random.RandomState(0)
        child = crossover(EUCLIDEAN, centers, centers[::-1].copy(), generator)
        np.testing.assert_array_equal(child, centers)

    def test_child_takes_one_of_each_matched_pair(self) -> None:
        random = np.random.default_rng(0)
        first = 100.0 * np.arange(8)[:, None] + random.normal(size=(8, 2))
        second = first[random.permutation(8)] + 1.0
        child = crossover(EUCLIDEAN, first, second, np.random.RandomState(1))
        from_first = (child == first).all(axis=1)
        np.testing.assert_allclose(child[~from_first], first[~from_first] + 1.0)
        assert 0 < from_first.sum() < 8

    def test_mutation_moves_one_centre_to_a_far_sample(self) -> None:
        points = np.concatenate([np.zeros((50, 2)), [[9.0, 9.0]]])
        centers = np.array([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1]])
        for seed in range(5):
            mutant = mutate(EUCLIDEAN, points, centers, np.random.RandomState(seed))
            changed = (mutant != centers).any(axis=1)
            assert changed.sum() == 1
            np.testing.assert_array_equal(mutant[changed], [[9.0, 9.0]])

    def test_mutation_of_a_single_centre(self) -> None:
        points = np.arange(6.0)[:, None]
        drawn = {
            float(mutate(EUCLIDEAN, points, points[:1], np.random.RandomState(s))[0, 0]) for s in range(60)
        }
        assert drawn == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}


def test_history_is_saved_and_drawn(digits: Any, tmp_path: Path) -> None:
    model = GeneticKMeans(4, population=3, generations=3, random_state=0).fit(digits[0][:100])
    read = graphclust.load(model.save(tmp_path / "model"))
    assert read.history_ == model.history_
    assert read.inertia_ == model.inertia_
    axes = report.training_curves(read.history_).axes[0]
    assert {line.get_label() for line in axes.lines} == {"best", "mean"}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"population": 1}, "population=1 must be at least 2; a child has two parents"),
        ({"generations": -1}, "generations=-1"),
        ({"mutation": 1.1}, "mutation=1.1"),
        ({"metric": "l3"}, "metric='l3'"),
        ({"metric": "minkowski", "p": 0}, "p=0"),
        ({"tolerance": -1}, "tolerance"),
        ({"n_clusters": 51}, "n_samples=50 is smaller than n_clusters=51"),
    ],
)
def test_bad_parameters(parameters: dict[str, Any], message: str, digits: Any) -> None:
    with pytest.raises(ValueError, match=message):
        GeneticKMeans(**parameters).fit(digits[0][:50])
