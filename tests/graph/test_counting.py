"""The number of clusters without labels: borders, structureless samples, real digits."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.datasets import make_circles, make_moons
from torch_geometric.data import Data

from graphclust import KMeans, SampleGraph, VaDE, estimate_n_clusters, load
from graphclust.graph.borders import (
    LEAST_STRENGTH,
    BorderedRun,
    border_strength,
    median_run,
)
from graphclust.graph.counting import ClusterCount
from graphclust.graph.linkage import sparse_weights
from graphclust.graph.thinness import Thinness, thinness_of


def blobs(sizes: list[int], d: int = 5, box: float = 10.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centers = rng.uniform(-box, box, (len(sizes), d))
    y = np.repeat(np.arange(len(sizes)), sizes)
    return (centers[y] + rng.normal(size=(len(y), d))).astype(np.float32), y


class TestBorders:
    def test_against_sums_over_all_pairs(self) -> None:
        """The definition, term by term, on a path of unequal weights whose order by diffusion is known."""
        weights = np.array([4.0, 5, 4, 1, 5, 6, 5])  # between samples i and i + 1; the border is the fourth
        dense = np.diag(weights, 1) + np.diag(weights, -1)
        left, right = np.arange(4), np.arange(4, 8)
        # The largest cuts inside are 5 and 6, so H = 5, which the two ends of that edge have 5 each in; V = 1.
        effective = 5.0**2 / (5.0**2 + 5.0**2)
        expected = np.sqrt(2 * effective) * (1 - np.sqrt(1 / 5))
        assert border_strength(sp.csr_matrix(dense), left, right) == pytest.approx(expected)
        assert border_strength(sp.csr_matrix(dense), right, left) == pytest.approx(expected)

    def test_no_strength_without_a_valley(self) -> None:
        weights = np.array([5.0, 5, 5, 4, 5, 5, 5])  # 4 is more than three quarters of 5
        dense = np.diag(weights, 1) + np.diag(weights, -1)
        assert border_strength(sp.csr_matrix(dense), np.arange(4), np.arange(4, 8)) == 0.0

    def test_between_clusters_and_across_one(self) -> None:
        x, _ = blobs([300, 300], box=1.0, seed=1)
        x[300:] += 4.0 / np.sqrt(5) * np.sign(x[300:].mean(axis=0) - x[:300].mean(axis=0))
        weights = sparse_weights(SampleGraph.from_features(x, 10))
        between = border_strength(weights, np.arange(300), np.arange(300, 600))
        first = np.argsort(x[:300] @ np.ones(5))
        across = border_strength(weights, first[:150], first[150:])
        assert between > LEAST_STRENGTH > across


def _depth(graph: SampleGraph) -> float:
    return thinness_of(graph, sparse_weights(graph)).depth


class TestDepth:
    @pytest.mark.parametrize(("d", "expected"), [(1, 0.15), (2, 0.25), (3, 0.5), (8, 0.75)])
    def test_by_the_dimension(self, d: int, expected: float) -> None:
        """Of the samples, wherever they lie; cosine distances are half the square."""
        rng = np.random.default_rng(0)
        flat = rng.random((4000, d)) @ rng.normal(size=(d, 20))
        assert _depth(SampleGraph.from_features(flat, 10)) == pytest.approx(expected, abs=0.06)
        near = 1 + 0.05 * np.hstack([rng.random((4000, d)), np.zeros((4000, 5))])
        sphere = SampleGraph.from_features(near, 10, metric="cosine")
        assert _depth(sphere) == pytest.approx(expected, abs=0.06)

    def test_without_distances(self) -> None:
        edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        assert _depth(SampleGraph.from_edges(edges, torch.ones(3, 2))) == 0.75
        assert _depth(SampleGraph.from_features(np.ones((30, 2)), 5)) == 0.75  # all samples are equal

    def test_where_samples_lie_thinly(self) -> None:
        """Against the definition, by loops: the mean over the neighbours and the sample itself, twice."""
        rng = np.random.default_rng(0)
        x = rng.random((3000, 2)) * [4, 1]
        graph = SampleGraph.from_features(x, 15)
        weights = sparse_weights(graph).astype(np.float64)
        thinness = thinness_of(graph, weights)
        assert thinness.spacing is not None and thinness.full_rise == pytest.approx(np.log(2) / 2, abs=0.05)
        distance = graph["neighbor_distance"].numpy().astype(np.float64)
        expected = np.log(np.sqrt((distance**2).mean(axis=1)))
        for _ in range(2):
            expected = np.array([expected[[*weights[i].indices, i]].mean() for i in range(len(expected))])
        np.testing.assert_allclose(thinness.spacing, expected, rtol=1e-6)

    def test_a_thin_place_is_a_border_and_a_waist_is_none(self) -> None:
        """A strip across which as few edges are left, because few samples lie there or because it is narrow."""
        rng = np.random.default_rng(0)
        x = rng.random((6000, 2)) * [4, 1]
        near = np.abs(x[:, 0] - 2) < 0.15
        strengths = {}
        for name, kept in {
            "thin": ~near | (rng.random(len(x)) < 0.15),
            "narrow": ~near | (x[:, 1] < 0.15),
        }.items():
            graph = SampleGraph.from_features(x[kept], 15)
            weights = sparse_weights(graph).astype(np.float64)
            left = x[kept, 0] < 2
            sides = np.flatnonzero(left), np.flatnonzero(~left)
            assert border_strength(weights, *sides, Thinness(0.3)) > LEAST_STRENGTH
            strengths[name] = border_strength(weights, *sides, thinness_of(graph, weights))
        assert strengths["thin"] > LEAST_STRENGTH and strengths["narrow"] == 0.0


class TestRun:
    def test_labels_at_each_number_of_groups(self) -> None:
        run = BorderedRun(np.array([0, 1, 2, 3, 3]), [(1, 3), (0, 1)], [4, 3, 2], [0.0, 2.6, np.inf])
        assert run.n_clusters == 3
        assert run.labels(4).tolist() == [0, 1, 2, 3, 3]
        assert run.labels(3).tolist() == [0, 1, 2, 1, 1]
        assert run.labels(2).tolist() == [0, 0, 1, 0, 0]

    def test_median(self) -> None:
        runs = [BorderedRun(np.arange(k), [], [k], [np.inf]) for k in (5, 2, 3)]
        assert median_run(runs).n_clusters == 3 and median_run(runs[:2]).n_clusters == 2


class TestCount:
    @pytest.mark.parametrize("sizes", [[400] * 2, [200] * 10, [800, 400, 200, 100, 50], [60] * 25])
    def test_blobs(self, sizes: list[int]) -> None:
        x, _ = blobs(sizes, d=8)
        assert estimate_n_clusters(x) == len(sizes)

    @pytest.mark.parametrize("d", [2, 3, 10, 50])
    @pytest.mark.parametrize("n", [1000, 4000])
    def test_one_cloud(self, n: int, d: int) -> None:
        """Also in a plane, where the thinnest cut through a random graph is much thinner than the others."""
        rng = np.random.default_rng(0)
        assert estimate_n_clusters(rng.normal(size=(n, d)).astype(np.float32)) == 1
        assert estimate_n_clusters(rng.random(size=(n, d)).astype(np.float32)) == 1

    @pytest.mark.parametrize("n", [1000, 5000, 8000])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_bands(self, n: int, seed: int) -> None:
        """Bands of many samples have many places for a thin cut."""
        for noise in (0.05, 0.1):
            assert estimate_n_clusters(make_moons(n, noise=noise, random_state=seed)[0]) == 2
        circles, _ = make_circles(n, factor=0.5, noise=0.05, random_state=seed)
        assert estimate_n_clusters(circles) == 2
        turn = np.random.default_rng(seed).random(n) * 2 * np.pi
        if n == 1000:  # of a ring of so few some have two thin places
            return
        ring = np.column_stack([np.cos(turn), np.sin(turn)])
        assert estimate_n_clusters(ring + 0.05 * np.random.default_rng(seed).normal(size=(n, 2))) == 1

    def test_digits_and_the_curve(self, digits: tuple[np.ndarray, np.ndarray]) -> None:
        count = estimate_n_clusters(digits[0], return_scores=True)
        assert isinstance(count, ClusterCount)
        assert 8 <= count.n_clusters <= 12
        assert sorted(count.each_run)[1] == count.n_clusters
        assert list(count.candidates) == list(range(1, count.candidates[-1] + 1))
        real = count.strengths >= LEAST_STRENGTH
        assert real[count.n_clusters - 1] and not real[count.n_clusters :].any()
        assert estimate_n_clusters(digits[0]) == count.n_clusters
        from graphclust.report import sweep_curve

        shown = np.isfinite(count.strengths)
        curve = {"weakest border": count.strengths[shown]}
        assert sweep_curve(count.candidates[shown], curve, "clusters").axes[0].lines

    @pytest.mark.slow
    def test_usps(self, usps: tuple[np.ndarray, np.ndarray]) -> None:
        assert 8 <= estimate_n_clusters(usps[0]) <= 12

    def test_scale_and_order_do_not_matter(self) -> None:
        x, _ = blobs([150] * 6)
        order = np.random.default_rng(0).permutation(len(x))
        assert estimate_n_clusters(1e3 * x[order] + 5) == estimate_n_clusters(x) == 6

    def test_given_edges_are_used_and_not_the_features(self) -> None:
        """Features without structure, edges with three communities."""
        x, _ = blobs([200] * 3)
        edges = SampleGraph.from_features(x, 10).edge_index
        noise = torch.from_numpy(np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32))
        assert estimate_n_clusters(Data(x=noise, edge_index=edges)) == 3
        assert estimate_n_clusters(SampleGraph.from_edges(edges, noise)) == 3
        assert estimate_n_clusters(Data(x=torch.from_numpy(x))) == 3  # no edges: the features count

    def test_few_samples_and_copies(self) -> None:
        assert estimate_n_clusters(np.arange(6.0).reshape(3, 2)) == 1
        assert estimate_n_clusters(np.ones((60, 3), dtype=np.float32)) >= 1

    def test_global_random_state_is_left_alone(self) -> None:
        x, _ = blobs([60, 60])
        before = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
        estimate_n_clusters(x)
        np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[1])

    def test_bad_input(self) -> None:
        x, _ = blobs([30, 30])
        with pytest.raises(ValueError, match="start=1 must be at least 2"):
            estimate_n_clusters(x, start=1)
        with pytest.raises(ValueError, match="n_runs=0"):
            estimate_n_clusters(x, n_runs=0)
        with pytest.raises(ValueError, match="at least 2 are needed"):
            estimate_n_clusters(x[:1])
        with pytest.raises(ValueError, match="NaN"):
            estimate_n_clusters(np.full((20, 2), np.nan))
        with pytest.raises(ValueError, match="has no x"):
            estimate_n_clusters(Data(edge_index=torch.zeros((2, 1), dtype=torch.long)))


class TestAuto:
    def test_shallow_and_deep(self, tmp_path: object) -> None:
        x, _ = blobs([100] * 4)
        model = KMeans("auto", random_state=0).fit(x)
        assert (model.n_clusters, model.n_clusters_) == ("auto", 4)
        assert model.cluster_centers_.shape == (4, 5)
        folder = model.save(f"{tmp_path}/model")
        assert (load(folder).n_clusters, load(folder).n_clusters_) == ("auto", 4)
        tiny = {"hidden_channels": (16,), "latent_dim": 3, "pretrain_epochs": 2, "epochs": 2}
        deep = VaDE("auto", random_state=0, **tiny).fit(x)
        assert deep.probabilities_.shape == (400, 4)
        assert load(deep.save(f"{tmp_path}/deep")).n_clusters_ == 4

    @pytest.mark.parametrize("wrong", ["ten", "Auto", None, 2.5])
    def test_what_is_no_number(self, wrong: object) -> None:
        with pytest.raises((ValueError, TypeError), match="n_clusters"):
            KMeans(wrong).fit(blobs([30, 30])[0])
