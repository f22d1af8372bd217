"""The layout keeps neighbours together, on whatever graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import ArpackNoConvergence
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness
from sklearn.neighbors import kneighbors_graph
from torch_geometric.data import Data

from graphclust.report import graph_layout, layout


def _neighbour_graph(x: np.ndarray, k: int = 10) -> Data:
    """Directed k-nearest-neighbour graph with a heat kernel, as a plain PyG object."""
    distances = kneighbors_graph(x, k, mode="distance").tocoo()
    weight = np.exp(-np.square(distances.data / distances.data.mean()))
    edge_index = torch.from_numpy(np.stack([distances.col, distances.row]).astype(np.int64))
    return Data(edge_index=edge_index, edge_weight=torch.from_numpy(weight).float(), num_nodes=len(x))


def test_neighbours_of_digits_stay_near() -> None:
    x = load_digits().data / 16
    graph = _neighbour_graph(x)
    start = graph_layout(graph, n_epochs=0)
    position = graph_layout(graph)
    assert position.shape == (1797, 2) and position.dtype == np.float32
    np.testing.assert_allclose(position.mean(axis=0), 0, atol=1e-4)
    assert trustworthiness(x, start) > 0.85
    assert trustworthiness(x, position) > 0.97
    assert np.array_equal(position, graph_layout(graph))
    assert not np.array_equal(position, graph_layout(graph, random_state=1))


def test_weights_matter() -> None:
    """A ring whose chords all have weight 0 is laid out as if the chords were not there."""
    ring = torch.stack([torch.arange(60), (torch.arange(60) + 1) % 60])
    chords = torch.stack([torch.arange(60), (torch.arange(60) + 23) % 60])
    weight = torch.cat([torch.ones(60), torch.zeros(60)])
    both = Data(edge_index=torch.cat([ring, chords], 1), edge_weight=weight, num_nodes=60)
    alone = Data(edge_index=ring, num_nodes=60)
    np.testing.assert_array_equal(graph_layout(both), graph_layout(alone))


def test_large_graph() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(20, 8)) * 2)[rng.integers(20, size=10_000)] + rng.normal(size=(10_000, 8))
    graph = _neighbour_graph(x)
    position = graph_layout(graph)
    assert trustworthiness(x[:2000], position[:2000]) > 0.9


def test_parts_of_a_disconnected_graph_do_not_mix() -> None:
    rng = np.random.default_rng(0)
    sizes = [300, 150, 40, 8, 3, 2]
    part = np.repeat(np.arange(len(sizes)), sizes)
    edges = [np.zeros((2, 0), dtype=np.int64)]
    for k in range(len(sizes)):
        members = np.flatnonzero(part == k)
        x = rng.normal(size=(len(members), 3))
        near = kneighbors_graph(x, min(8, len(members) - 1)).tocoo()
        edges.append(np.stack([members[near.col], members[near.row]]))
    n_isolated = 5
    graph = Data(edge_index=torch.from_numpy(np.hstack(edges)), num_nodes=len(part) + n_isolated)
    position = graph_layout(graph)
    assert np.isfinite(position).all()
    # Nobody is flung out of the picture.
    assert np.abs(position).max() < 10 * np.abs(position).mean()
    nearest = kneighbors_graph(position[: len(part)], 1).indices
    large = part < 3
    assert (part[nearest] == part)[large].mean() > 0.98


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_small_and_degenerate_graphs(dim: int) -> None:
    no_edges = torch.zeros((2, 0), dtype=torch.long)
    pair = torch.tensor([[0, 1], [1, 0]])
    star = torch.stack([torch.zeros(30, dtype=torch.long), torch.arange(1, 31)])
    self_loop = torch.tensor([[0], [0]])
    clique = torch.combinations(torch.arange(25)).T
    for edge_index, n_nodes in [
        (no_edges, 1),
        (no_edges, 50),
        (pair, 2),
        (star, 31),
        (self_loop, 2),
        (clique, 25),
    ]:
        position = graph_layout(Data(edge_index=edge_index, num_nodes=n_nodes), dim=dim)
        assert position.shape == (n_nodes, dim) and np.isfinite(position).all()
        assert len(np.unique(position, axis=0)) == n_nodes


def test_the_eigensolver_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ArpackNoConvergence("no convergence", np.zeros(0), np.zeros((0, 0)))

    x = load_digits().data[:600]
    monkeypatch.setattr(layout, "eigsh", fail)
    assert trustworthiness(x, graph_layout(_neighbour_graph(x))) > 0.95


@pytest.mark.parametrize(
    ("graph", "dim", "message"),
    [
        (Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2), 0, "dim is 0"),
        (Data(edge_index=torch.zeros((2, 0), dtype=torch.long), num_nodes=0), 2, "no nodes"),
        (
            Data(edge_index=torch.tensor([[0], [1]]), edge_weight=torch.tensor([-1.0]), num_nodes=2),
            2,
            "negative",
        ),
        (
            Data(edge_index=torch.tensor([[0], [1]]), edge_weight=torch.tensor([torch.nan]), num_nodes=2),
            2,
            "non-finite",
        ),
    ],
)
def test_bad_input(graph: Data, dim: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graph_layout(graph, dim=dim)
