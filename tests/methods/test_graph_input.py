"""Graphs as methods build and take them: the metric's power, the training graph again, nodes without features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch_geometric.data import Data
from torch_geometric.utils import stochastic_blockmodel_graph

import graphclust
from graphclust import (
    GAE,
    GCSC,
    Agglomerative,
    ConsensusClustering,
    GraphContrastClustering,
    GraphMI,
    LearnedGraphClustering,
    SampleGraph,
    load,
)

TINY: dict[str, Any] = {"latent_dim": 4, "epochs": 1, "random_state": 0}
QUICK: dict[str, Any] = {"part_epochs": 1, "epochs": 1, "rounds": 1, "random_state": 0}


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((80, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def edges() -> torch.Tensor:
    """Three groups of 30, joined within more often than between."""
    torch.manual_seed(0)
    return stochastic_blockmodel_graph([30] * 3, torch.full((3, 3), 0.05) + 0.25 * torch.eye(3))


class TestPowerOfTheMetric:
    """Without `p`, "minkowski" was the Euclidean metric."""

    @pytest.mark.parametrize("p", [1.0, 1.5, 4.0])
    def test_neighbours_are_those_of_scikit_learn(self, p: float, x: np.ndarray) -> None:
        model = GAE(3, n_neighbors=5, metric="minkowski", p=p, **TINY).fit(x)
        expected = NearestNeighbors(n_neighbors=5, metric="minkowski", p=p).fit(x)
        found = model.graph_.neighbor_index
        assert found is not None and model.graph_.construction["p"] == p
        np.testing.assert_array_equal(found.numpy(), expected.kneighbors(return_distance=False))
        euclidean = GAE(3, n_neighbors=5, **TINY).fit(x).graph_
        assert euclidean.neighbor_index is not None
        assert not np.array_equal(found.numpy(), euclidean.neighbor_index.numpy())
        # New samples are attached by it.
        new = x[:20] + np.float32(0.3)
        source, nodes = model._new_samples(new)
        assert nodes is not None
        near = source.graph["neighbor_index"][80 : 80 + len(new)]
        np.testing.assert_array_equal(near.numpy(), expected.kneighbors(new, return_distance=False))
        assert model.predict(new).shape == (20,)
        np.testing.assert_array_equal(model.predict(x), model.labels_)

    def test_in_the_space_of_codes_and_before_learning(self, x: np.ndarray) -> None:
        autoencoder = {"autoencoder_channels": [8], "autoencoder_dim": 4, "pretrain_epochs": 1}
        model = GraphMI(3, n_neighbors=5, metric="minkowski", p=1.5, **TINY, **autoencoder).fit(x)
        codes = model.graph_["codes"].numpy()
        expected = NearestNeighbors(n_neighbors=5, metric="minkowski", p=1.5).fit(codes)
        assert model.graph_.neighbor_index is not None
        np.testing.assert_array_equal(
            model.graph_.neighbor_index.numpy(), expected.kneighbors(return_distance=False)
        )
        first = LearnedGraphClustering(3, metric="minkowski", p=1.5, **QUICK)._data_of(x)
        assert (first.construction["metric"], first.construction["p"]) == ("minkowski", 1.5)

    def test_bad_powers(self, x: np.ndarray) -> None:
        with pytest.raises(ValueError, match=r"p=0\.5 must be at least 1; below 1 it is no metric"):
            GAE(3, metric="minkowski", p=0.5).fit(x)
        with pytest.raises(TypeError, match="p='2' has type str"):
            GAE(3, p="2").fit(x)  # type: ignore[arg-type]


class TestTheTrainingGraphAgain:
    """Its nodes have their labels, and not what a new sample in their place would have."""

    @pytest.fixture
    def noisy(self, edges: torch.Tensor) -> Data:
        means = torch.arange(3.0).repeat_interleave(30)[:, None]
        return Data(
            x=means + torch.randn(90, 5, generator=torch.Generator().manual_seed(0)), edge_index=edges
        )

    def test_gcsc(self, noisy: Data, tmp_path: Path) -> None:
        model = GCSC(3, random_state=0).fit(noisy)
        voted = model._affinity(model.embedding_) @ np.eye(3)[model.labels_]
        assert (voted.argmax(axis=1) != model.labels_).any()  # what made it differ
        model.save(tmp_path / "model")
        for same in (noisy, Data(x=noisy.x.double(), edge_index=noisy.edge_index), model.graph_):
            np.testing.assert_array_equal(model.predict(same), model.labels_)
            np.testing.assert_array_equal(load(tmp_path / "model").predict(same), model.labels_)
        others = (
            Data(x=noisy.x, edge_index=noisy.edge_index[:, (noisy.edge_index != 0).all(dim=0)]),
            Data(x=noisy.x, edge_index=noisy.edge_index, edge_weight=torch.rand(noisy.num_edges)),
            noisy.subgraph(torch.arange(60)),
        )
        for other in others:
            assert not model._is_training_graph(other, other.x.numpy())
            assert len(model.predict(other)) == len(other.x)
        model.predict(noisy)[:] = -1
        assert (model.labels_ >= 0).all()

    @pytest.mark.parametrize("linkage", ["ward", "average"])
    def test_agglomerative_of_nodes_without_features(self, linkage: str, edges: torch.Tensor) -> None:
        data = Data(x=torch.ones(90, 1), edge_index=edges)
        model = Agglomerative(3, linkage=linkage).fit(data)
        assert len(set(model.labels_)) == 3
        np.testing.assert_array_equal(model.predict(data), model.labels_)
        np.testing.assert_array_equal(model.predict(SampleGraph.from_data(data)), model.labels_)
        # New rows are placed by their features.
        assert len(set(model.predict(data.x))) == 1
        assert len(set(model.predict(Data(x=data.x)))) == 1


class TestNodesOfTooFewKinds:
    """Their edges may tell what their features do not, and some methods read the features alone in the end."""

    @pytest.mark.parametrize("n_nodes", [30, 210])  # too few to be split into parts, and enough
    @pytest.mark.parametrize("method", [ConsensusClustering, LearnedGraphClustering])
    def test_the_error_names_the_method_for_edges(
        self, method: Any, n_nodes: int, edges: torch.Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def train(*_: Any) -> None:
            raise AssertionError("a network was trained")

        monkeypatch.setattr(LearnedGraphClustering, "_part_loss", train)
        model = method(3, random_state=0)
        with pytest.raises(
            ValueError,
            match=r"n_clusters=3, and all samples are equal: ask for at most 1, or read them from the given edges: "
            r'GraphContrastClustering\(3, view="edges"\), as graphclust\.cluster does',
        ):
            model.fit(Data(x=torch.ones(n_nodes, 1), edge_index=edges % n_nodes))

    def test_two_kinds(self, edges: torch.Tensor) -> None:
        data = Data(x=(torch.arange(90.0) % 2)[:, None], edge_index=edges)
        with pytest.raises(ValueError, match=r"there are 2 kinds .* at most 2, or .*view=\"edges\"\)$"):
            ConsensusClustering(3).fit(data)

    def test_the_remedy_helps(self, edges: torch.Tensor) -> None:
        data = Data(x=torch.ones(90, 1), edge_index=edges)
        for model in (
            GraphContrastClustering(3, view="edges", random_state=0).fit(data),
            graphclust.cluster(data, 3),
        ):
            assert model.view_ == "edges" and len(set(model.labels_)) == 3

    def test_without_edges_there_is_none(self) -> None:
        with pytest.raises(ValueError, match="all samples are equal: ask for at most 1$"):
            ConsensusClustering(3).fit(np.ones((30, 1)))


def test_a_method_without_a_full_batch_says_so(x: np.ndarray) -> None:
    with pytest.raises(TypeError, match="batch_size=None .* always trains in batches: give a number"):
        LearnedGraphClustering(3, batch_size=None).fit(x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1$"):
        LearnedGraphClustering(3, batch_size=0).fit(x)
