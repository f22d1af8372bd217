import numpy as np
import pytest
import torch

from graphclust.graph import SampleGraph
from graphclust.nn import AutoEncoder, FeatureScale, FusionNetwork, GaussianMixture, propagation_weights
from graphclust.training import BatchSource

N = 150


@pytest.fixture(scope="module")
def graph(digits):
    return SampleGraph.from_features(digits[0][:N], 4)


@pytest.mark.parametrize("uses_graph", [False, True])
@pytest.mark.parametrize("size", [1, 64, 149, 150, 1000, None])
def test_an_epoch_visits_every_sample_once(graph, size, uses_graph):
    source = BatchSource(graph, num_neighbors=[2, 2])
    batches = list(source.epoch(3, size, uses_graph=uses_graph))
    assert len(batches) == source.n_batches(size)
    assert torch.cat([b.index for b in batches]).sort().values.tolist() == list(range(N))
    for batch in batches:
        assert torch.equal(batch.x[: batch.size], graph.x[batch.index])
        assert batch.n_samples == N
        assert (batch.adjacency is not None) is uses_graph


@pytest.mark.parametrize("uses_graph", [False, True])
def test_same_seed_and_epoch_same_batches(graph, uses_graph):
    def batches(seed, number):
        source = BatchSource(graph, num_neighbors=[2, 2], seed=seed)
        return list(source.epoch(number, 40, uses_graph=uses_graph))

    def same(a, b):
        return all(
            x.x.shape == y.x.shape
            and torch.equal(x.x, y.x)
            and torch.equal(x.index, y.index)
            and (x.adjacency is None or torch.equal(x.adjacency.edge_index, y.adjacency.edge_index))
            for x, y in zip(a, b, strict=True)
        )

    assert same(batches(0, 5), batches(0, 5))
    assert not same(batches(0, 5), batches(0, 6))
    assert not same(batches(0, 5), batches(1, 5))
    source = BatchSource(graph, num_neighbors=[2, 2], seed=0)
    list(source.epoch(4, 40, uses_graph=uses_graph))
    assert same(list(source.epoch(5, 40, uses_graph=uses_graph)), batches(0, 5))  # whatever came before


def test_full_batch_is_the_graph_and_is_made_once(graph):
    source = BatchSource(graph)
    (batch,) = source.epoch(0, None, uses_graph=True)
    assert next(source.epoch(9, N + 1, uses_graph=True)) is batch is source.full(uses_graph=True)
    assert batch.x.data_ptr() == graph.x.data_ptr()
    assert torch.equal(batch.adjacency.edge_index, graph.edge_index) and batch.adjacency.constant
    edges, loops = propagation_weights(graph.edge_index, graph.edge_weight, N)
    assert torch.equal(batch.adjacency.propagation_weight, edges)
    assert torch.equal(batch.adjacency.self_weight, loops)
    assert source.full(uses_graph=False).adjacency is None


def test_row_normalisation_reaches_the_batches(graph):
    source = BatchSource(graph, normalization="row")
    ones = torch.ones(N, 1)
    torch.testing.assert_close(source.full(uses_graph=True).adjacency.propagate(ones), ones)
    symmetric = BatchSource(graph).full(uses_graph=True).adjacency.propagate(ones)
    assert not torch.allclose(symmetric, ones)


@pytest.mark.parametrize("conv", ["gcn", "gat", "sage", "gin"])
def test_batches_with_all_neighbours_compute_what_the_full_batch_does(graph, conv):
    torch.manual_seed(0)
    widths = (64, 16, 8, 3)
    network = FusionNetwork(
        FeatureScale(64), AutoEncoder.mlp(64, (16,), 8), GaussianMixture(3, 8), widths, conv, 0.4
    )
    source = BatchSource(graph, num_neighbors=[-1] * 3)
    full = source.full(uses_graph=True)
    with torch.no_grad():
        expected = network(full.x, full.adjacency).logits
        for batch in source.epoch(1, 40, uses_graph=True):
            found = network(batch.x, batch.adjacency).logits[: batch.size]
            torch.testing.assert_close(found, expected[batch.index], atol=1e-5, rtol=1e-4)


def test_sampled_propagation_is_unbiased(graph):
    """Over many epochs the mean of the sampled sums is the full sum; without rescaling it would fall short."""
    source = BatchSource(graph, num_neighbors=[2])
    full = source.full(uses_graph=True)
    expected = full.adjacency.propagate(graph.x)
    total, unscaled = torch.zeros(N, 64), torch.zeros(N, 64)
    epochs = 60
    for number in range(epochs):
        for batch in source.epoch(number, 75, uses_graph=True):
            total[batch.index] += batch.adjacency.propagate(batch.x)[: batch.size] / epochs
            ones = torch.ones_like(batch.adjacency.propagation_weight)
            plain = batch.adjacency.matmul(ones, batch.x)[: batch.size]
            unscaled[batch.index] += plain / epochs
    error = float((total - expected).norm() / expected.norm())
    assert error < 0.05
    neighbours = full.adjacency.matmul(torch.ones_like(full.adjacency.propagation_weight), graph.x)
    assert float(unscaled.sum() / neighbours.sum()) < 0.8
    single = next(source.epoch(0, 75, uses_graph=True))
    one = single.adjacency.propagate(single.x)[: single.size]
    assert float((one - expected[single.index]).norm() / expected[single.index].norm()) > 2 * error


def test_propagation_weights_of_samples_come_from_the_whole_graph(graph):
    source = BatchSource(graph, num_neighbors=[-1])
    loops = source.weights[1]
    batch = next(source.epoch(0, 20, uses_graph=True))
    assert torch.equal(batch.adjacency.self_weight[: batch.size], loops[batch.index])


def test_memory_mapped_features(graph, digits, tmp_path):
    np.save(tmp_path / "x.npy", digits[0][:N])
    mapped = SampleGraph.from_features(np.load(tmp_path / "x.npy", mmap_mode="r"), 4)
    for uses_graph in (False, True):
        from_file = BatchSource(mapped, num_neighbors=[2]).epoch(1, 40, uses_graph=uses_graph)
        from_memory = BatchSource(graph, num_neighbors=[2]).epoch(1, 40, uses_graph=uses_graph)
        for a, b in zip(from_file, from_memory, strict=True):
            assert torch.equal(a.x, b.x)
