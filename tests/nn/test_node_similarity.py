"""NS4GC's loss against brute force over all pairs, and the views that it compares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from graphclust.nn import node_similarity
from graphclust.nn.adjacency import Adjacency
from graphclust.nn.graph_encoder import GraphEncoder
from graphclust.nn.node_similarity import changed_view, node_similarity_loss


def adjacency(n: int, n_edges: int, seed: int = 0) -> Adjacency:
    rng = np.random.default_rng(seed)
    pairs = rng.choice(n * n, n_edges, replace=False)
    edges = torch.from_numpy(np.stack([pairs // n, pairs % n]))
    weight = torch.from_numpy(rng.random(n_edges)).float() + 0.1
    return Adjacency(edges, weight, weight / 3, torch.ones(n))


@pytest.mark.parametrize("size", [12, 7])
def test_loss_is_the_mean_over_pairs(size: int) -> None:
    graph = adjacency(12, 30)
    generator = torch.Generator().manual_seed(0)
    first, second = (normalize(torch.randn(12, 5, generator=generator)) for _ in range(2))
    found = node_similarity_loss(first, second, graph, size, threshold=0.3, temperature=0.2)
    s = first @ second.T
    assert float(found["alignment"]) == pytest.approx(-float(s.diagonal()[:size].mean()), rel=1e-5)
    source, target = graph.edge_index
    total = weight = 0.0
    for e in range(30):
        if target[e] < size:
            total += float(graph.edge_weight[e] * s[target[e], source[e]])
            weight += float(graph.edge_weight[e])
    assert float(found["neighbors"]) == pytest.approx(-total / weight, rel=1e-5)
    pairs = 1 / (1 + np.exp(-(s[:size, :size].numpy() - 0.3) / 0.2))
    assert float(found["sparsity"]) == pytest.approx(pairs.mean(), rel=1e-5)


def test_a_draw_of_the_pairs_has_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = adjacency(40, 60)
    generator = torch.Generator().manual_seed(0)
    first, second = (normalize(torch.randn(40, 3, generator=generator)) for _ in range(2))

    def sparsity() -> float:
        return float(
            node_similarity_loss(first, second, graph, 40, threshold=0.5, temperature=0.1)["sparsity"]
        )

    whole = sparsity()
    monkeypatch.setattr(node_similarity, "_COMPARED", 10)
    torch.manual_seed(0)
    drawn = [sparsity() for _ in range(400)]
    assert np.std(drawn) > 0
    assert np.mean(drawn) == pytest.approx(whole, abs=4 * np.std(drawn) / 20)


def test_without_edges_neighbours_cost_nothing() -> None:
    empty = Adjacency(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0), torch.zeros(0), torch.ones(4))
    z = normalize(torch.randn(4, 3)).requires_grad_()
    terms = node_similarity_loss(z, z, empty, 4, threshold=0.6, temperature=0.1)
    assert float(terms["neighbors"]) == 0.0
    sum(terms.values()).backward()
    assert torch.isfinite(z.grad).all()


def test_views_lose_columns_and_edges_and_keep_the_mean() -> None:
    graph = adjacency(50, 1000)
    torch.manual_seed(0)
    columns, thinned = changed_view(400, graph, edge_dropout=0.3, feature_dropout=0.2)
    assert set(columns.tolist()) == {0.0, 1.0} and 0.7 < float(columns.mean()) < 0.9
    assert 0.6 < thinned.edge_weight.shape[0] / 1000 < 0.8
    drawn = [changed_view(400, graph, edge_dropout=0.3, feature_dropout=0.0)[1] for _ in range(200)]
    for name in (
        "propagation_weight",
        "edge_weight",
    ):  # GCN sums with the one, GIN and a user's layer with the other
        total = torch.stack([getattr(one, name).sum() for one in drawn]).mean()
        assert float(total) == pytest.approx(float(getattr(graph, name).sum()), rel=0.01)
    same, whole = changed_view(400, graph, edge_dropout=0.0, feature_dropout=0.0)
    assert same.all() and torch.equal(whole.propagation_weight, graph.propagation_weight)


@pytest.mark.parametrize("conv", ["gcn", "gin", "sage", "gat"])
@pytest.mark.parametrize("share", [0.02, 1.0])
def test_columns_are_left_out_as_if_they_were_zero(conv: str, share: float) -> None:
    """Sparse features stay compressed; features and gradients are those of the product written out."""
    parts = adjacency(50, 300)
    weights = (parts.edge_index, parts.edge_weight, parts.propagation_weight, parts.self_weight)
    graph = Adjacency(*weights, constant=True)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(50, 200, generator=generator) * (torch.rand(50, 200, generator=generator) < share)
    torch.manual_seed(0)
    encoder = GraphEncoder((200, 16, 4), conv, "selu")
    columns, thinned = changed_view(200, graph, edge_dropout=0.3, feature_dropout=0.5)
    encoder.some_columns(x, columns, thinned).square().sum().backward()
    found = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    kept = (thinned.edge_index, thinned.edge_weight, thinned.propagation_weight, thinned.self_weight)
    encoder(x * columns, Adjacency(*kept)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-5)
    is_kept = graph.memo("sparse_features", lambda: None) is not None
    assert is_kept == (conv == "gcn" and share < 1)
