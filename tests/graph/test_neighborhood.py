"""What a network reads of a large graph for a few new samples: found without reading the rest, labels the same."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.nn import TAGConv

from graphclust import DAEGC, GAE, NS4GC, VGAE, VGDCN, DinkNet, DMoN, GraphContrastClustering, SampleGraph
from graphclust.graph import neighborhood
from graphclust.graph.attachment import StackedRows, attach
from graphclust.graph.neighborhood import PartRows, around


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """Samples along a line: few hops lead to few of them."""
    noise = np.random.default_rng(0).normal(size=(3000, 8))
    return (noise + np.linspace(0, 3000, 3000)[:, None]).astype(np.float32)


@pytest.fixture(scope="module")
def graph(x: np.ndarray) -> SampleGraph:
    return SampleGraph.from_features(x, 4)


@pytest.mark.parametrize("hops", [1, 2, 4])
@pytest.mark.parametrize("piece", [7, 1 << 22])
def test_nodes_and_edges_against_brute_force(
    graph: SampleGraph, hops: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighborhood, "_PIECE", piece)
    start = torch.tensor([2000, 17, 17, 400])
    found = around(graph.edge_index, 3000, start, hops)
    assert found is not None
    source, target = graph.edge_index.tolist()
    reached, inner = set(start.tolist()), set()
    for _ in range(hops):
        inner = set(reached)
        reached |= {s for s, t in zip(source, target) if t in inner}
    assert found[0].tolist() == sorted(reached)
    assert found[1].tolist() == [column for column, t in enumerate(target) if t in inner]


def test_what_is_no_small_part_or_in_another_order(graph: SampleGraph) -> None:
    start = torch.arange(0, 3000, 10)
    assert around(graph.edge_index, 3000, start, 3) is None
    assert around(graph.edge_index.flip(1), 3000, start[:2], 1) is None
    assert around(graph.edge_index, 3000, start[:2], 1) is not None
    assert attach(graph, graph.x[::10] + 0.1, 3).get("part") is None


def test_rows_of_a_part(graph: SampleGraph) -> None:
    table, rows = torch.arange(30.0).view(10, 3), torch.tensor([1, 4, 7, 9])
    part = PartRows(StackedRows(table[:5], table[5:]), rows)
    assert part.shape == (4, 3) and len(part) == 4 and part.dtype == torch.float32
    assert torch.equal(part[torch.tensor([3, 0])], table[[9, 1]])
    assert torch.equal(part[1:3], table[[4, 7]])
    assert torch.equal(torch.cat(list(part.split(3))), table[rows]) and len(list(part.split(3))) == 2


@pytest.mark.parametrize("normalization", ["symmetric", "row"])
@pytest.mark.parametrize("conv", ["gcn", "gat", "sage", "gin"])
def test_labels_are_those_of_the_whole_graph(
    x: np.ndarray, graph: SampleGraph, conv: str, normalization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small: dict[str, Any] = {"hidden_channels": (16,), "pretrain_epochs": 2, "branch_epochs": 2, "epochs": 2}
    model = VGDCN(5, conv=conv, normalization=normalization, random_state=0, batch_size=500, **small)
    _compare_with_whole(model, x, graph, monkeypatch)


@pytest.mark.parametrize("method", [GAE, VGAE, DMoN, DinkNet, NS4GC, GraphContrastClustering])
def test_graph_encoders_read_what_is_near_too(
    x: np.ndarray, graph: SampleGraph, method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"n_hops": 1} if method is DinkNet else {}
    model = method(5, hidden_channels=(16,), latent_dim=4, epochs=2, random_state=0, **few)
    _compare_with_whole(model, x, graph, monkeypatch)
    far = method(5, hidden_channels=(16,), latent_dim=4, epochs=1, conv=partial(TAGConv, K=6)).fit(graph)
    assert (
        far._new_samples(x[:1] + 1)[0].n_samples == 3001
    )  # nobody knows how far a layer of the user's looks


@pytest.mark.parametrize("normalization", ["symmetric", "row"])
@pytest.mark.parametrize("conv", ["gat", "gcn"])
def test_proximities_too(
    x: np.ndarray, graph: SampleGraph, conv: str, normalization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small: dict[str, Any] = {"hidden_channels": (16,), "latent_dim": 4, "pretrain_epochs": 2, "epochs": 2}
    model = DAEGC(5, conv=conv, normalization=normalization, random_state=0, **small)
    _compare_with_whole(model, x, graph, monkeypatch)


def _compare_with_whole(
    model: Any, x: np.ndarray, graph: SampleGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probabilities from the part of the graph that is near new samples, and from all of it."""
    model.fit(graph)
    known = model.predict_proba(x[[1500, 7]])  # samples of the graph are what they were
    np.testing.assert_allclose(known, model.probabilities_[[1500, 7]], rtol=0, atol=1e-6)
    assert model._new_samples(x[[1500, 7]])[0].n_samples < 200
    new = x[[1500, 7, 2990, 7]] + np.float32(0.3)
    source, nodes = model._new_samples(new)
    assert source.n_samples < 200 and nodes.tolist() == list(range(source.n_samples - 4, source.n_samples))
    found = model.predict_proba(new)
    monkeypatch.setattr(type(model), "_hops", lambda self: None)
    source, nodes = model._new_samples(new)
    assert source.n_samples == 3004 and nodes.tolist() == [3000, 3001, 3002, 3003]
    np.testing.assert_allclose(found, model.predict_proba(new), rtol=0, atol=1e-6)
