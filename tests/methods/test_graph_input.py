"""Graphs as methods build and take them: the metric's power, the training graph again, nodes without features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from graphclust import GAE, GraphMI, LearnedGraphClustering

TINY: dict[str, Any] = {"latent_dim": 4, "epochs": 1, "random_state": 0}
QUICK: dict[str, Any] = {"part_epochs": 1, "epochs": 1, "rounds": 1, "random_state": 0}


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((80, 6)).astype(np.float32)


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
