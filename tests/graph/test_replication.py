"""Clusters that come again in the other half of the data: halves, agreement, views, the number of clusters."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.metrics import adjusted_rand_score
from torch_geometric.data import Data

from graphclust import estimate_n_clusters
from graphclust.graph import replication
from graphclust.graph.counting import LEAST_AGREEMENT
from graphclust.graph.replication import (
    VIEWS,
    Replication,
    _half_weights,
    _principal,
    propagation,
    spectral_positions,
)


def blocks(
    sizes: list[int], degree: float = 8.0, noise: float = 0.1, shift: int = 0, seed: int = 0
) -> tuple[sp.csr_matrix, np.ndarray]:
    """Edges between samples of one block, or of blocks `shift` apart; a share `noise` of them is random."""
    generator = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    n = len(y)
    members = [np.flatnonzero(y == k) for k in range(len(sizes))]
    source = generator.integers(n, size=int(n * degree / 2))
    inside = np.array([generator.choice(members[(y[i] + shift) % len(sizes)]) for i in source])
    target = np.where(generator.random(len(source)) < noise, generator.integers(n, size=len(source)), inside)
    a = sp.coo_matrix((np.ones(len(source)), (source, target)), shape=(n, n)).tocsr()
    a = ((a + a.T) > 0).astype(np.float64).tolil()
    a.setdiag(0)
    a = a.tocsr()
    a.eliminate_zeros()
    return a, y


def points(y: np.ndarray, distance: float, d: int = 16, seed: int = 1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(y.max() + 1, d))
    centers *= distance / np.linalg.norm(centers, axis=1, keepdims=True)
    return (centers[y] + generator.normal(size=(len(y), d))).astype(np.float32)


def as_data(a: sp.csr_matrix, x: np.ndarray) -> Data:
    pairs = a.tocoo()
    edges = torch.from_numpy(np.stack([pairs.row, pairs.col]).astype(np.int64))
    return Data(x=torch.from_numpy(x), edge_index=edges)


class TestHalves:
    def test_share_no_edge_and_no_column(self) -> None:
        a, y = blocks([60, 60])
        replication = Replication(points(y, 3.0), a)
        for i in range(10):
            split = replication._split(i)
            first, second = (_half_weights(replication._edges, split.chosen, half) for half in (0, 1))
            assert 0.3 * a.nnz < first.nnz < 0.7 * a.nnz
            assert (first.multiply(second)).nnz == 0
            np.testing.assert_array_equal((first + second).toarray(), a.toarray())
            assert sorted(np.concatenate(split.columns)) == list(range(16))
            degrees = [np.asarray(half.sum(axis=1)).ravel() for half in (first, second)]
            np.testing.assert_array_equal(split.rows, np.flatnonzero((degrees[0] > 0) & (degrees[1] > 0)))

    def test_what_is_propagated_is_that_of_the_whole_half(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("graphclust.graph.replication._ROWS", 15)  # of 160 nodes
        a, y = blocks([80, 80])
        x = points(y, 3.0)
        replication = Replication(x, a, seed=4)
        split = replication._split(1)
        assert len(split.rows) == 15
        whole = propagation(_half_weights(replication._edges, split.chosen, 1))
        expected = _principal((whole @ whole @ x[:, split.columns[1]])[split.rows], 4)
        found = replication._half("both", 2, 1, 1)
        np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)

    def test_the_agreement_is_that_of_halves_clustered_alone(self) -> None:
        a, y = blocks([80, 80, 80], degree=14.0)
        x = points(y, 6.0)
        replication = Replication(x, a, n_splits=2)
        for view in VIEWS:
            found = replication.agreements(view, 3)
            for i in range(2):
                labels = [replication._labels(view, 3, i, half) for half in (0, 1)]
                assert found[i] == adjusted_rand_score(*labels)
        assert replication.agreements("both", 3).min() > 0.9

    def test_the_same_seed_gives_the_same(self) -> None:
        a, y = blocks([60, 60])
        x = points(y, 2.0)
        first, again, other = (Replication(x, a, seed=seed).agreements("both", 2) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_edges_are_not_read_where_their_eigenvectors_are_too_many(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a, _ = blocks([80, 80, 80], degree=14.0)
        noise = np.random.default_rng(3).normal(size=(240, 16)).astype(np.float32)
        assert Replication(noise, a).best_view(3) == "edges"
        monkeypatch.setattr(replication, "_LARGEST_SEARCH", 240 * 2**2)
        monkeypatch.setattr(
            replication, "spectral_positions", lambda *_, **options: pytest.fail(f"searched {options}")
        )
        assert Replication(noise, a).best_view(3) != "edges"
        assert not Replication(noise, a).agreements("edges", 3).any()

    @pytest.mark.parametrize("d", [1, 16])
    def test_what_cannot_be_split(self, d: int) -> None:
        a, y = blocks([60, 60])
        pairs = sp.kron(sp.identity(60), np.array([[0.0, 1.0], [1.0, 0.0]])).tocsr()  # one edge a node
        replication = Replication(points(y, 3.0)[:, :d], pairs if d == 16 else a)
        assert not replication.is_possible
        assert replication.best_view(2) == "both"


class TestViews:
    @pytest.mark.parametrize(
        ("noise", "shift", "distance", "expected"),
        [
            (0.1, 0, 0.0, "edges"),  # features that are noise
            (1.0, 0, 5.0, "features"),  # edges that are noise
            (0.1, 1, 5.0, "features"),  # edges that join unlike nodes
            (0.3, 0, 2.5, "both"),
        ],
    )
    def test_noise_is_told_without_labels(
        self, noise: float, shift: int, distance: float, expected: str
    ) -> None:
        a, y = blocks([120] * 4, noise=noise, shift=shift)
        x = (
            points(y, distance)
            if distance
            else np.random.default_rng(3).normal(size=(len(y), 16)).astype("f4")
        )
        assert Replication(x, a).best_view(4) == expected

    def test_sparse_features_give_what_dense_ones_give(self) -> None:
        a, y = blocks([60, 60])
        x = np.zeros((120, 200), dtype=np.float32)
        generator = np.random.default_rng(0)
        for i in range(120):
            x[i, generator.choice(100, 5, replace=False) + 100 * y[i]] = 1.0
        sparse, dense = Replication(x, a), Replication(x, a)
        assert sp.issparse(sparse.x)
        dense.x = x
        np.testing.assert_allclose(sparse.agreements("both", 2), dense.agreements("both", 2), atol=1e-6)

    def test_propagation_against_its_formula(self) -> None:
        a, _ = blocks([20, 20])
        joined = a.toarray() + np.eye(40)
        degree = joined.sum(axis=1)
        expected = joined / np.sqrt(np.outer(degree, degree))
        np.testing.assert_allclose(propagation(a).toarray(), expected, atol=1e-6)

    @pytest.mark.parametrize("n", [12, 150])
    def test_spectral_positions_are_eigenvectors(self, n: int) -> None:
        a, _ = blocks([n, n])
        degree = np.asarray(a.sum(axis=1)).ravel()
        matrix = a.toarray() / np.sqrt(np.outer(degree + degree.mean(), degree + degree.mean()))
        values, vectors = np.linalg.eigh(matrix)
        found = spectral_positions(a, 2)
        for column in (-1, -2):
            assert abs(found[:, column] @ vectors[:, column]) == pytest.approx(1.0, abs=1e-3)
        assert values[-1] > values[-2]

    def test_spectral_positions_without_edges(self) -> None:
        assert spectral_positions(sp.csr_matrix((50, 50)), 3).shape == (50, 3)


class TestCount:
    @pytest.mark.parametrize(
        ("n", "degree", "distance"), [(50, 10.0, 2.0), (100, 4.0, 2.0), (300, 10.0, 0.0)]
    )
    def test_three_blocks_with_noise_edges(self, n: int, degree: float, distance: float) -> None:
        a, y = blocks([n] * 3, degree=degree)
        x = (
            points(y, distance)
            if distance
            else np.random.default_rng(3).normal(size=(len(y), 16)).astype("f4")
        )
        count = estimate_n_clusters(as_data(a, x), start=12, return_scores=True)
        assert count.n_clusters == 3
        assert count.strengths[list(count.candidates).index(3)] == count.strengths.max() > LEAST_AGREEMENT

    def test_features_tell_where_edges_are_noise(self) -> None:
        a, y = blocks([80] * 5, noise=1.0)
        assert estimate_n_clusters(as_data(a, points(y, 6.0)), start=12) == 5

    def test_no_structure_is_one_cluster(self) -> None:
        a, _ = blocks([300], degree=6.0)
        assert (
            estimate_n_clusters(as_data(a, np.random.default_rng(3).normal(size=(300, 16)).astype("f4"))) == 1
        )
