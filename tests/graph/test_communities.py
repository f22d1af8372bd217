"""Communities of limited size, and batches that are made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphclust.graph import SampleGraph, communities, community_loader
from graphclust.training import BatchSource


def planted(
    n_groups: int, size: int, *, inside: int = 8, between: int = 1, seed: int = 0
) -> tuple[Data, Tensor]:
    """Groups of nodes with `inside` random edges of each node in its group and `between` to any node."""
    generator = torch.Generator().manual_seed(seed)
    n = n_groups * size
    group = torch.randperm(n, generator=generator) % n_groups
    order = group.argsort(stable=True)
    node = torch.arange(n)
    near = [order[group * size + torch.randint(size, (n,), generator=generator)] for _ in range(inside)]
    far = [torch.randint(n, (n,), generator=generator) for _ in range(between)]
    edges = torch.stack([node.repeat(inside + between), torch.cat(near + far)])
    edges = edges[:, edges[0] != edges[1]]
    edges = torch.cat([edges, edges.flip(0)], dim=1).unique(dim=1)
    return Data(edge_index=edges, num_nodes=n), group


def share_inside(graph: Data, labels: Tensor) -> float:
    source, target = graph.edge_index
    return float((labels[source] == labels[target]).float().mean())


@pytest.mark.parametrize("max_size", [1, 2, 7, 50, 10_000])
def test_none_is_larger_than_allowed_and_all_have_a_number(max_size: int) -> None:
    graph, _ = planted(12, 40)
    labels = communities(graph, max_size)
    size = torch.bincount(labels)
    assert len(labels) == 480 and int(size.max()) <= max_size and int(size.min()) > 0


def test_planted_groups_are_found_whatever_their_order() -> None:
    graph, group = planted(60, 50)
    labels = communities(graph, 50)
    # Nearly as many edges stay inside as do in the groups themselves, and a group is one community.
    assert share_inside(graph, labels) > 0.95 * share_inside(graph, group)
    table = np.zeros((60, int(labels.max()) + 1))
    np.add.at(table, (group.numpy(), labels.numpy()), 1)
    assert table.max(axis=1).sum() > 0.9 * len(group)


def test_smaller_limits_cut_groups_and_keep_more_edges_than_chance() -> None:
    graph, _ = planted(20, 64)
    labels = communities(graph, 16)
    assert torch.bincount(labels).float().mean() > 8
    random = torch.arange(len(labels))[torch.randperm(len(labels))] // 16
    assert share_inside(graph, labels) > 4 * share_inside(graph, random)


def test_edge_weights_decide() -> None:
    """A ring of pairs: the heavy edge of each pair is kept, whichever of the two comes first."""
    n = 40
    node = torch.arange(n)
    edges = torch.stack([node, (node + 1) % n])
    weight = torch.where(node % 2 == 1, 5.0, 1.0)
    both = Data(edge_index=torch.cat([edges, edges.flip(0)], 1), edge_weight=weight.repeat(2), num_nodes=n)
    labels = communities(both, 2)
    assert bool((labels[1::2] == labels[torch.arange(2, n + 1, 2) % n]).all())


def test_nodes_without_edges_and_loops() -> None:
    edges = torch.tensor([[0, 1, 2], [1, 0, 2]])
    labels = communities(Data(edge_index=edges, num_nodes=5), 3)
    assert labels[0] == labels[1] and len(labels.unique()) == 4
    nothing = communities(Data(edge_index=torch.empty(2, 0, dtype=torch.int64), num_nodes=3), 2)
    assert sorted(nothing.tolist()) == [0, 1, 2]


def test_the_seed_decides() -> None:
    graph, _ = planted(30, 40)
    first, again, other = (communities(graph, 20, random_state=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_batches_are_whole_communities_with_their_edges() -> None:
    graph, group = planted(16, 25)
    graph.x = torch.rand(400, 3)
    dense = torch.zeros(400, 400)
    dense[graph.edge_index[1], graph.edge_index[0]] = 1.0
    loader = community_loader(graph, group, 100, rescale=True, random_state=0)
    seen, orders = [], []
    for _ in range(2):
        nodes = []
        for batch in loader:
            own = batch.n_id
            nodes.append(own)
            assert batch.batch_size == len(own) == 100
            assert sorted(torch.bincount(group[own], minlength=16).tolist()) == [0] * 12 + [25] * 4
            assert torch.equal(batch.x, graph.x[own])
            found = torch.zeros(100, 100)
            found[batch.edge_index[1], batch.edge_index[0]] = batch.edge_weight
            inside = dense[own][:, own]
            expected = inside * (dense[own].sum(1) / inside.sum(1).clamp_min(1))[:, None]
            torch.testing.assert_close(found, expected)
        seen.append(torch.cat(nodes).sort().values)
        orders.append(torch.cat(nodes))
    assert all(torch.equal(nodes, torch.arange(400)) for nodes in seen)
    assert not torch.equal(*orders)


def test_wrong_communities_are_refused() -> None:
    graph, _ = planted(4, 10)
    with pytest.raises(ValueError, match=r"shape \[39\].* 40 nodes"):
        community_loader(graph, torch.zeros(39, dtype=torch.int64), 10)


def test_a_source_serves_communities(digits) -> None:
    graph = SampleGraph.from_features(digits[0][:600], 6)
    source = BatchSource(graph, sampling="communities", seed=1)
    batches = list(source.epoch(0, 160, uses_graph=True))
    assert torch.cat([batch.index for batch in batches]).sort().values.tolist() == list(range(600))
    edges = sum(batch.adjacency.edge_index.shape[1] for batch in batches)
    # In random batches a quarter of the edges would be left.
    assert edges > 0.45 * graph.num_edges
    assert all(len(batch.x) == batch.size for batch in batches)
    again = BatchSource(graph, sampling="communities", seed=1)
    assert all(
        torch.equal(a.index, b.index)
        for a, b in zip(batches, again.epoch(0, 160, uses_graph=True), strict=True)
    )


def test_a_stage_may_read_fewer_hops(digits) -> None:
    graph = SampleGraph.from_features(digits[0][:600], 6)
    source = BatchSource(graph, num_neighbors=[3, 3, 3], seed=1)
    near, far = (next(source.epoch(0, 20, uses_graph=True, hops=hops)) for hops in (1, None))
    assert torch.equal(near.index, far.index)
    assert int(near.adjacency.edge_index[1].max()) < 20 <= int(far.adjacency.edge_index[1].max())
