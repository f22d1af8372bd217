"""What a loss over the edges reads of a batch, and codes of those rows alone."""

import pytest
import torch

from graphclust.graph import SampleGraph
from graphclust.nn.edges import EdgeReconstruction, rows_read
from graphclust.nn.graph_encoder import GraphEncoder, GraphEncoderNetwork
from graphclust.nn.heads import StudentTAssignment
from graphclust.nn.scaling import FeatureScale
from graphclust.nn.smoothing import SmoothedEncoder
from graphclust.training import BatchSource

N = 60


@pytest.fixture
def graph() -> SampleGraph:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(N, N, generator=generator) < 0.08
    index = (mask | mask.T).fill_diagonal_(False).nonzero().T.contiguous()
    return SampleGraph.from_edges(index, torch.rand(N, 3, generator=generator))


@pytest.fixture
def batch(graph: SampleGraph):
    return next(BatchSource(graph, num_neighbors=[2, 2], seed=0).epoch(0, 5, uses_graph=True))


def test_rows_behind_those_read_do_not_count(graph, batch):
    loss = EdgeReconstruction(graph.edge_index, N)
    read = rows_read(batch.adjacency, batch.size)
    assert batch.size < read < len(batch.x)
    z = torch.randn(len(batch.x), 4, generator=torch.Generator().manual_seed(1))
    results = []
    for codes in (z, z[:read], torch.cat([z[:read], torch.full_like(z[read:], torch.nan)])):
        codes = codes.clone().requires_grad_()
        torch.manual_seed(0)
        value = loss(codes, batch.index, batch.adjacency)
        value.backward()
        results.append((value.detach(), codes.grad[:read], codes.grad[read:]))
    for value, gradient, rest in results:
        assert torch.equal(value, results[0][0])
        assert torch.equal(gradient, results[0][1])
        assert not rest.count_nonzero()
    z[read - 1] = torch.nan  # the last row that is read
    assert loss(z, batch.index, batch.adjacency).isnan()


def test_all_rows_of_a_full_batch_are_read(graph):
    full = BatchSource(graph).full(uses_graph=True)
    assert rows_read(full.adjacency, full.size) == N


def test_a_batch_without_edges_reads_its_own_samples():
    lonely = SampleGraph.from_edges(torch.tensor([[8, 9], [9, 8]]), torch.rand(10, 3))
    batches = BatchSource(lonely, num_neighbors=[2], seed=0).epoch(0, 1, uses_graph=True)
    read = {int(batch.index): rows_read(batch.adjacency, batch.size) for batch in batches}
    assert read == {sample: 1 if sample < 8 else 2 for sample in range(10)}


def test_codes_of_the_first_rows(batch):
    torch.manual_seed(0)
    network = GraphEncoderNetwork(
        FeatureScale(3), GraphEncoder((3, 6, 4)), StudentTAssignment(2, 4), 2, 4, unit_length=True
    )
    smoothed = SmoothedEncoder((3, 4), n_hops=2)
    whole = network.embed(batch.x, batch.adjacency)
    local = smoothed.local(batch.x, batch.adjacency)
    for rows in (1, 7, len(batch.x), len(batch.x) + 1):
        assert torch.equal(network.embed(batch.x, batch.adjacency, rows), whole[:rows])
        assert torch.equal(
            smoothed.smooth(local, batch.adjacency, rows), smoothed.smooth(local, batch.adjacency)[:rows]
        )


def test_edges_of_a_batch_are_looked_through_once(graph, batch):
    read = rows_read(batch.adjacency, batch.size)
    batch.adjacency.edge_index = None  # nothing to look through any more
    assert rows_read(batch.adjacency, batch.size) == read
