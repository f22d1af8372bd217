import itertools

import numpy as np
import pytest
import torch
from torch_geometric import nn as pyg
from torch_geometric.data import Data

from graphclust import _files
from graphclust.graph import SampleGraph
from graphclust.nn import AutoEncoder, FeatureScale, FusionNetwork, GaussianMixture
from graphclust.training import BatchSource, in_blocks, layerwise_logits
from graphclust.training.inference import collect as collect_labels

N, WIDTHS = 140, (64, 16, 24, 6, 3)

CONVOLUTIONS = {
    "gcn": "gcn",
    "gat": "gat",
    "sage": "sage",
    "gin": "gin",
    # These read degrees of their own, or look several hops away.
    "pyg gcn": lambda i, o: pyg.GCNConv(i, o),
    "tag": lambda i, o: pyg.TAGConv(i, o, K=2),
}


@pytest.fixture(scope="module")
def graph(digits):
    return SampleGraph.from_features(digits[0][:N] * 16, 4)


def network(conv):
    torch.manual_seed(0)
    autoencoder = AutoEncoder.mlp(64, (16, 24), 6)
    built = FusionNetwork(FeatureScale(64), autoencoder, GaussianMixture(3, 6), WIDTHS, conv, 0.4)
    with torch.no_grad():
        for parameter in built.fusion.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return built.eval()


def collect(model, source, nodes=None, **kw):
    found = list(layerwise_logits(model.fusion, model.states, source, nodes, prepare=model.scale, **kw))
    return torch.cat([n for n, _ in found]), torch.cat([logits for _, logits in found])


@pytest.mark.parametrize(
    ("name", "block_size", "normalization"),
    [
        *itertools.product(CONVOLUTIONS, [1000, 33], ["symmetric"]),
        ("gcn", 33, "row"),
        ("gcn", 1, "symmetric"),
        ("gat", 1, "symmetric"),
    ],
)
def test_equals_the_forward_pass(graph, name, block_size, normalization):
    model = network(CONVOLUTIONS[name])
    model.scale.fit(graph.x)
    source = BatchSource(graph, normalization=normalization)
    full = source.full(uses_graph=True)
    with torch.no_grad():
        expected = model(full.x, full.adjacency).logits
    nodes, logits = collect(model, source, block_size=block_size)
    assert nodes.tolist() == list(range(N))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    wanted = torch.tensor([99, 3, 99, 57])
    nodes, logits = collect(model, source, wanted, block_size=block_size)
    assert nodes.tolist() == [3, 57, 99]
    torch.testing.assert_close(logits, expected[nodes], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gcn", "gat"])
def test_edges_in_any_order(graph, name):
    model = network(name)
    order = torch.randperm(graph.edge_index.shape[1], generator=torch.Generator().manual_seed(0))
    shuffled = Data(
        x=graph.x, edge_index=graph.edge_index[:, order], edge_weight=graph.edge_weight[order].clone()
    )
    expected = collect(model, BatchSource(graph))[1]
    found = collect(model, BatchSource(shuffled), block_size=20)[1]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_few_nodes_need_their_neighbourhood_alone(digits):
    """Two components: features of the other one may even be broken."""
    x = torch.from_numpy(digits[0][:40].copy())
    ring = torch.stack([torch.arange(20), torch.arange(1, 21) % 20])
    edges = torch.cat([ring, ring.flip(0), ring + 20, ring.flip(0) + 20], dim=1)
    model = network("gcn")
    wanted = torch.tensor([2, 5])
    clean = collect(model, BatchSource(SampleGraph.from_edges(edges, x)), wanted)[1]
    graph = SampleGraph.from_edges(edges, x.clone())
    graph.x[20:] = float("nan")
    assert torch.equal(collect(model, BatchSource(graph), wanted)[1], clean)
    rows = []
    states = model.states
    model.states = lambda x: rows.append(x.shape[0]) or states(x)
    collect(model, BatchSource(graph), wanted)
    # Three hops to both sides of 2 and 5, then two, then one.
    assert rows == [10, 8, 6]


def test_isolated_nodes(digits):
    x = torch.from_numpy(digits[0][:10].copy())
    graph = SampleGraph.from_edges(torch.empty(2, 0, dtype=torch.int64), x)
    model = network("gcn")
    source = BatchSource(graph)
    full = source.full(uses_graph=True)
    with torch.no_grad():
        expected = model(full.x, full.adjacency).logits
    torch.testing.assert_close(collect(model, source, block_size=3)[1], expected)


def test_new_samples_leave_the_old_ones_as_they_are(graph, digits):
    model = network("gcn")
    attached = graph.attach(digits[0][N : N + 20] * 16)
    old = collect(model, BatchSource(graph))[1]
    both = collect(model, BatchSource(attached))[1]
    torch.testing.assert_close(both[:N], old)
    new = collect(model, BatchSource(attached), torch.arange(N, N + 20), block_size=7)[1]
    torch.testing.assert_close(new, both[N:], atol=1e-4, rtol=1e-4)


def test_in_blocks_reads_a_memory_map_piece_by_piece(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (100, 5), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    mapped = torch.from_numpy(np.load(tmp_path / "x.npy", mmap_mode="c"))
    weight = torch.ones(5, 2, requires_grad=True)
    sizes = []

    def function(block):
        sizes.append(len(block))
        return block.float() @ weight

    out = in_blocks(function, mapped, block_size=30)
    assert sizes == [30, 30, 30, 10]
    assert not out.requires_grad
    np.testing.assert_allclose(out.numpy(), x.sum(axis=1, keepdims=True).repeat(2, axis=1))


def test_a_full_disk_is_an_error_before_the_first_label(tmp_path, monkeypatch):
    """Maps of a file that the disk has no room for end the process when they are written to."""
    first = collect_labels([torch.eye(3)], 3, tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files.os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"no room for .* bytes in .* on another disk in out="):
        collect_labels(iter([torch.zeros(2, 3)]), 2, tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), first.labels)  # the older result
    names = {"labels.npy", "top_indices.npy", "top_probabilities.npy"}
    assert {path.name for path in tmp_path.iterdir()} == names
