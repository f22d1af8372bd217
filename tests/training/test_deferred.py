"""A graph that is made when it is first asked for."""

from __future__ import annotations

import torch

from graphclust import SampleGraph
from graphclust.training.batches import BatchSource
from graphclust.training.deferred import DeferredBatchSource


def test_the_graph_is_made_once_and_not_before_edges_are_asked_for() -> None:
    x = torch.rand(60, 3, generator=torch.Generator().manual_seed(0))
    source = DeferredBatchSource(x, num_neighbors=[3], seed=1)
    made = []

    def make() -> SampleGraph:
        made.append(1)
        return SampleGraph.from_features(x, 4)

    source.make_graph = make
    assert sum(b.size for b in source.epoch(0, 16, uses_graph=False)) == 60
    assert not made
    plain = BatchSource(SampleGraph.from_features(x, 4), num_neighbors=[3], seed=1)
    for ours, theirs in zip(
        source.epoch(3, 16, uses_graph=True), plain.epoch(3, 16, uses_graph=True), strict=True
    ):
        torch.testing.assert_close(ours.x, theirs.x)
        assert ours.adjacency is not None and theirs.adjacency is not None
        torch.testing.assert_close(ours.adjacency.edge_index, theirs.adjacency.edge_index)
    assert source.full(uses_graph=True).adjacency is not None
    assert len(made) == 1
