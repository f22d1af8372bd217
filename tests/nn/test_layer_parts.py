"""Convolutions of a sampled batch read what its own samples depend on, and give what the whole batch would."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric import nn as pyg

from graphclust.graph import SampleGraph
from graphclust.nn.adjacency import Adjacency
from graphclust.nn.fusion import GraphFusion
from graphclust.nn.graph_encoder import GraphEncoder
from graphclust.training.batches import Batch, BatchSource


def sampled_batch(n: int = 3000, n_hops: int = 3) -> Batch:
    """64 samples of a random graph and the neighbours sampled for them, four a hop."""
    rng = np.random.default_rng(0)
    edges = torch.from_numpy(rng.integers(0, n, (2, 8 * n)))
    graph = SampleGraph.from_edges(edges, torch.from_numpy(rng.normal(size=(n, 10)).astype(np.float32)))
    source = BatchSource(graph, num_neighbors=[4] * n_hops)
    return next(iter(source.epoch(0, 64, uses_graph=True)))


@pytest.mark.parametrize("conv", ["gcn", "gat", "sage", "gin"])
def test_the_first_rows_are_those_of_the_whole_batch(conv: str) -> None:
    batch = sampled_batch()
    assert batch.adjacency is not None
    torch.manual_seed(0)
    fusion, states = GraphFusion((10, 8, 4, 3), conv, 0.4), [torch.randn(len(batch.x), d) for d in (8, 4)]
    encoder = GraphEncoder((10, 8, 6, 4), conv)
    for network, inputs in ((fusion, (batch.x, states)), (encoder, (batch.x,))):
        found = []
        for rows in (None, 64):
            network.zero_grad()
            out = network(*inputs, batch.adjacency, rows=rows)[:64]
            out.square().sum().backward()
            found.append(
                [out.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]
            )
        for whole, first in zip(*found, strict=True):
            torch.testing.assert_close(first, whole, rtol=1e-5, atol=1e-6)


def test_each_layer_reads_no_more_than_what_the_next_one_needs() -> None:
    batch = sampled_batch()
    assert batch.adjacency is not None
    source, target = batch.adjacency.edge_index
    needed = torch.zeros(len(batch.x), dtype=torch.bool)
    needed[:64] = True
    for part in batch.adjacency.reaching(64, 3)[::-1]:
        edges = needed[target]
        assert part.edge_index.shape[1] == int(edges.sum())
        needed[source[edges]] = True
        assert part.num_nodes == int(needed.sum())
    assert part.num_nodes == len(batch.x)  # nothing was sampled in vain


def test_a_full_batch_stays_whole_and_so_does_what_a_layer_of_the_users_reads() -> None:
    batch = sampled_batch()
    assert batch.adjacency is not None
    weights = (batch.adjacency.edge_index, batch.adjacency.edge_weight, batch.adjacency.propagation_weight)
    full = Adjacency(*weights, batch.adjacency.self_weight, constant=True)
    assert all(part is full for part in full.reaching(64, 3))
    own = GraphEncoder((10, 8, 4), lambda i, o: pyg.GCNConv(i, o))
    torch.testing.assert_close(own(batch.x, batch.adjacency, rows=64), own(batch.x, batch.adjacency)[:64])
