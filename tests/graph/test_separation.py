"""The number of clusters by what they gain over data without clusters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine, make_blobs, make_moons
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import silhouette_score

import graphclust
from graphclust.graph.borders import BorderedRun
from graphclust.graph.null_samples import NullSamples, _monotone, _unimodal, _without_clusters
from graphclust.graph.separation import LEAST_GAIN, _silhouette, count_separated
from graphclust.nn.vector_scale import vector_scales


def scaled(rows: torch.Tensor) -> list[torch.Tensor]:
    return [scale(rows) for scale in vector_scales(rows)]


def count(x: np.ndarray, borders: BorderedRun | None = None) -> int:
    return count_separated(torch.from_numpy(x).float(), scaled, borders=borders).n_clusters


def bordered(labels: np.ndarray, strength: float = np.inf) -> BorderedRun:
    """A run that ended with these groups."""
    return BorderedRun(labels, [], [int(labels.max()) + 1], [strength])


def long_blobs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Three long clusters, as scikit-learn draws them in its comparison of clustering methods."""
    x, y = make_blobs(n, random_state=170)
    return x @ np.array([[0.6, -0.6], [-0.4, 0.8]]), y


class TestCount:
    @pytest.mark.parametrize("k", [2, 5, 9])
    def test_blobs(self, k: int) -> None:
        x, _ = make_blobs(50 * k, 6, centers=k, random_state=0)
        assert count(x) == k

    @pytest.mark.parametrize("kind", ["gauss", "long", "cube", "square", "tails"])
    def test_no_clusters(self, kind: str) -> None:
        rng = np.random.default_rng(0)
        normal = rng.normal(size=(300, 6))
        x = {
            "gauss": normal,
            "long": normal * np.array([20, 5, 1, 1, 1, 1]) @ rng.normal(size=(6, 6)),
            "cube": rng.random((300, 6)),
            "square": rng.random((300, 2)),
            "tails": np.exp(normal),
        }[kind]
        assert count(x) == 1

    def test_wine(self) -> None:
        found = count_separated(torch.from_numpy(load_wine().data).float(), scaled)
        assert found.n_clusters == 3
        assert found.strengths[found.candidates == 3] > LEAST_GAIN
        assert len(found.candidates) == len(found.strengths)
        model = graphclust.cluster(load_wine().data)
        assert model.n_clusters_ == 3
        assert graphclust.metrics.clustering_accuracy(load_wine().target, model.labels_) > 0.9

    def test_borders_count_where_silhouettes_say_nothing(self) -> None:
        x, y = make_moons(300, noise=0.06, random_state=0)
        assert count(x) > 4  # the moons are cut into arcs ...
        assert count(x, bordered(y)) == 2  # ... unless two groups have a border: along each there is none
        x, y = make_blobs(300, 6, centers=6, random_state=0)
        assert count(x, bordered(y // 3)) == 6
        assert count(x, bordered(np.arange(300) % 40)) == 40  # more than are tried

    def test_long_clusters_are_not_cut(self) -> None:
        x, y = long_blobs(450)
        assert count(x) > 3
        assert count(x, bordered(y)) == 3
        touching = (0, 2)  # in the graph
        assert count(x, BorderedRun(y, [touching], [3, 2], [2.1, 3.0])) == 3  # one border is likely only
        assert count(x, BorderedRun(y, [touching], [3, 2], [1.9, 3.0])) > 3

    @pytest.mark.parametrize("n", [500, 1500])
    def test_long_clusters_are_counted_from_their_graph(self, n: int) -> None:
        x, y = long_blobs(n)
        model = graphclust.ConsensusClustering("auto", random_state=0).fit(x)
        assert model.n_clusters_ == 3
        assert graphclust.metrics.clustering_accuracy(y, model.labels_) > 0.99

    def test_few_samples(self) -> None:
        for n in (2, 5, 9):
            assert count(np.random.default_rng(0).normal(size=(n, 3))) == 1
        assert count(np.ones((40, 3))) == 1
        assert count(np.repeat(np.eye(3), 20, axis=0)) == 1  # three kinds of samples are three samples


class TestParts:
    def test_silhouette(self) -> None:
        rng = np.random.default_rng(0)
        x, labels = rng.normal(size=(60, 3)), rng.integers(0, 4, 60)
        labels[0] = 4  # one sample alone
        distance = np.linalg.norm(x[:, None] - x[None], axis=2)
        assert _silhouette(distance, labels) == pytest.approx(silhouette_score(x, labels))

    def test_monotone_is_isotonic_regression(self) -> None:
        rng = np.random.default_rng(0)
        value, width = rng.random(12), rng.random(12)
        mean = np.full((12, 12, 1), np.nan)
        for i in range(12):
            for j in range(i, 12):
                mean[i, j, 0] = np.average(value[i : j + 1], weights=width[i : j + 1])
        expected = IsotonicRegression().fit_transform(np.arange(12), value, sample_weight=width)
        np.testing.assert_allclose(_monotone(mean)[:, 0], expected)

    def test_two_humps_become_one_and_a_tail_stays(self) -> None:
        rng = np.random.default_rng(0)
        humps = np.concatenate([rng.normal(-3, 1, 2000), rng.normal(3, 1, 2000)])
        x = np.stack([humps, np.exp(rng.normal(size=4000))], axis=1)
        shares = _unimodal(x)
        assert (np.diff(shares, axis=1) > -1e-12).all() and np.allclose(shares[:, -1], 1)
        even = np.arange(33) / 32
        assert np.abs(shares[0] - even).max() > 0.05 > 0.02 > np.abs(shares[1] - even).max()

    def test_drawn_samples_are_like_the_rows(self) -> None:
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(2000, 9)) @ rng.normal(size=(9, 9)) + 5
        rows[:, 8] = rng.integers(0, 3, 2000)
        drawn = list(_without_clusters(rows, True, rng))
        assert len(drawn) == 5 and all(one.shape == rows.shape for one in drawn)
        for one in drawn:
            assert np.abs(np.corrcoef(one.T) - np.corrcoef(rows.T)).max() < 0.15
        assert set(drawn[-1][:, 8]) == {0, 1, 2}

    def test_drawn_groups_lie_where_the_groups_lie(self) -> None:
        """One of few samples stays as it is, and columns in which a group is all equal do."""
        rng = np.random.default_rng(0)
        groups = np.repeat([0, 1, 2], [400, 300, 3])
        rows = rng.normal(size=(703, 3)) + 20.0 * groups[:, None]
        rows[groups == 1, 2] = 7.0
        drawn = list(NullSamples(rows, groups).draw(rng))
        assert len(drawn) == 4
        for one in drawn:
            for group in (0, 1):
                own = one[groups == group]
                np.testing.assert_allclose(own.mean(axis=0), rows[groups == group].mean(axis=0), atol=1.0)
            assert (one[groups == 1, 2] == 7.0).all()
            np.testing.assert_array_equal(one[groups == 2], rows[groups == 2])
