"""Clusters of parts by information: against brute force, and over several views."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.metrics import adjusted_rand_score

from graphclust.graph import SampleGraph, informative_partition, neighbor_walk
from graphclust.graph.information import _Search, information, labels_of_parts


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def random_walks(rng: np.random.Generator, n_views: int = 2, n_parts: int = 7) -> list[sp.csr_matrix]:
    tables = [rng.random((30 + 10 * view, n_parts)) ** 6 for view in range(n_views)]
    return [sp.csr_matrix(table / table.sum(axis=1, keepdims=True)) for table in tables]


def plain(walks: list[sp.csr_matrix], label: np.ndarray, n_clusters: int, beta: float) -> float:
    """The formula, with loops."""
    certainty, total = 0.0, np.zeros(n_clusters)
    for walk in walks:
        for row in walk.toarray():
            q = np.array([row[label == k].sum() for k in range(n_clusters)])
            certainty += sum(v * np.log(v) for v in q if v > 0) / (len(walks) * walk.shape[0])
            total += q / (len(walks) * walk.shape[0])
    return certainty - beta * sum(m * np.log(m) for m in total if m > 0)


class TestWalk:
    def test_against_powers_of_the_dense_matrix(self, rng: np.random.Generator) -> None:
        neighbors = torch.from_numpy(np.stack([rng.permutation(12)[:3] for _ in range(12)]))
        neighbors[4, 2] = -1
        neighbors[7] = -1
        step = np.zeros((12, 12))
        for i, row in enumerate(neighbors.tolist()):
            found = [j for j in row if j >= 0] or [i]
            for j in found:
                step[i, j] += 1 / len(found)
        for steps in (1, 2, 3):
            walk = neighbor_walk(neighbors, steps)
            np.testing.assert_allclose(walk.toarray(), np.linalg.matrix_power(step, steps), atol=1e-6)
            np.testing.assert_allclose(walk.sum(axis=1), 1, atol=1e-6)


class TestObjective:
    @pytest.mark.parametrize("beta", [0.0, 0.85, 1.0])
    def test_against_the_formula(self, rng: np.random.Generator, beta: float) -> None:
        walks = random_walks(rng)
        label = np.array([0, 1, 2, 0, 1, 2, 2])
        assert information(walks, label, beta) == pytest.approx(plain(walks, label, 3, beta))

    def test_a_view_with_two_votes_counts_twice(self, rng: np.random.Generator) -> None:
        one, other = random_walks(rng)
        label = np.array([0, 1, 2, 0, 1, 2, 2])
        twice = information([one, one, other], label)
        assert information([one, other], label, weights=[2, 1]) == pytest.approx(twice)
        assert information([one, other], label) != pytest.approx(twice)

    def test_recombined_results_are_better(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Groups of parts that hold each other: one that is alone where it should not be goes back at once."""
        crossed, alone = [], []
        for seed in (4, 6, 7):  # starts that single moves do not lead out of
            rng = np.random.default_rng(seed)
            group = np.arange(60) // 4  # each of 15 groups leans to one of five clusters
            table = 0.9 * (group[:, None] == group) + 0.1 * (group[:, None] % 5 == group % 5)
            table = table + 0.05 * rng.random(table.shape)
            walks = [sp.csr_matrix(table / table.sum(axis=1, keepdims=True))]
            starts = [rng.integers(0, 5, 15)[group] for _ in range(3)]
            crossed.append(informative_partition(walks, starts, 5, random_state=seed).information)
            with monkeypatch.context() as without:
                without.setattr("graphclust.graph.information._CROSSINGS", 0)
                alone.append(informative_partition(walks, starts, 5, random_state=seed).information)
        assert np.all(np.array(crossed) >= np.array(alone) - 1e-12)
        assert np.mean(crossed) > np.mean(alone) + 0.05

    def test_moves_keep_their_sums(self, rng: np.random.Generator) -> None:
        """What is kept up to date from move to move is what is found anew."""
        walks = random_walks(rng, n_parts=20)
        search = _Search(walks, 4, 0.85)
        label = search.run(np.arange(20) % 4, 0.05, rng)
        ends, total = search.ends.copy(), search.total.copy()
        search.place(label)
        np.testing.assert_allclose(ends, search.ends, atol=1e-12)
        np.testing.assert_allclose(total, search.total, atol=1e-12)

    @pytest.mark.parametrize("seed", range(3))
    def test_the_best_of_all_partitions(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        walks = random_walks(rng, n_parts=6)
        every = [np.array(label) for label in product(range(3), repeat=6) if len(set(label)) == 3]
        best = max(plain(walks, label, 3, 0.85) for label in every)
        starts = [every[i] for i in rng.integers(0, len(every), 20)]
        found = informative_partition(walks, starts, 3, random_state=seed)
        assert found.information == pytest.approx(best)
        assert found.information == pytest.approx(plain(walks, found.part_labels, 3, 0.85))

    def test_no_cluster_is_emptied(self, rng: np.random.Generator) -> None:
        """Parts of one blob: fewer clusters would be as good."""
        walks = [sp.csr_matrix(np.full((40, 6), 1 / 6))]
        found = informative_partition(walks, [np.array([0, 1, 2, 3, 3, 3])], 4, size_weight=0.0)
        assert len(np.unique(found.part_labels)) == 4

    def test_another_view_tells_what_one_cannot(self) -> None:
        """Four groups, of which each view joins two pairs: together they tell all."""
        rng = np.random.default_rng(0)
        group = np.repeat(np.arange(4), 100)
        views = [
            rng.normal(size=(400, 2)) + 6 * (group % 2)[:, None],
            rng.normal(size=(400, 2)) + 6 * (group // 2)[:, None],
        ]
        parts = np.repeat(np.arange(40), 10)
        member = sp.csr_matrix((np.ones(400, np.float32), (np.arange(400), parts)))
        walks = [
            neighbor_walk(SampleGraph.from_features(view, n_neighbors=5).neighbor_index) @ member
            for view in views
        ]
        starts = [rng.permutation(np.arange(40) % 4) for _ in range(10)]
        both = informative_partition(walks, starts, 4)
        assert adjusted_rand_score(group, both.part_labels[parts]) == 1.0
        one = informative_partition(walks[:1], starts, 4)
        assert adjusted_rand_score(group, one.part_labels[parts]) < 0.9

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"starts": []}, "at least one"),
            ({"starts": [np.zeros(6, dtype=int)]}, "6, 7"),
            ({"n_clusters": 8}, "8"),
            ({"size_weight": -1.0}, "size_weight"),
            ({"weights": [1.0]}, "2 views"),
            ({"weights": [1.0, 0.0]}, "above 0"),
        ],
    )
    def test_bad_input(self, rng: np.random.Generator, change: dict[str, Any], message: str) -> None:
        given = {"walks": random_walks(rng), "starts": [np.arange(7) % 3], "n_clusters": 3} | change
        with pytest.raises(ValueError, match=message):
            informative_partition(**given)


def test_labels_of_parts() -> None:
    parts = torch.tensor([0, 0, 0, 1, 1, 2])
    labels = torch.tensor([2, 2, 0, 1, 1, 0])
    assert labels_of_parts(labels, parts, 3).tolist() == [2, 1, 0]
    rows = torch.tensor([2, 3])
    assert labels_of_parts(labels[rows], parts, 3, rows).tolist() == [0, 1, 0]
