import pytest
import torch
from torch_geometric import nn as pyg

from graphclust.graph import SampleGraph
from graphclust.nn import (
    Adjacency,
    GraphFusion,
    MLPEncoder,
    make_convolution,
    propagation_weights,
    warm_start,
)
from graphclust.nn.warm_start import set_convolution

N = 150


@pytest.fixture(scope="module")
def graph(digits):
    return SampleGraph.from_features(digits[0][:N], 5)


@pytest.fixture(scope="module")
def adjacency(graph):
    weights = propagation_weights(graph.edge_index, graph.edge_weight, N)
    return Adjacency(graph.edge_index, graph.edge_weight, *weights)


def dense_mean(name, graph, adjacency):
    """The average that each layer takes over a neighbourhood."""
    index = (graph.edge_index[1], graph.edge_index[0])
    ones = torch.zeros(N, N).index_put(index, torch.ones(graph.edge_index.shape[1]))
    if name == "gcn":
        return torch.diag(adjacency.self_weight).index_put(index, adjacency.propagation_weight)
    if name == "sage":
        return 0.5 * (torch.eye(N) + ones / ones.sum(dim=1, keepdim=True).clamp_min(1))
    weighted = torch.zeros(N, N).index_put(index, graph.edge_weight)
    return (torch.eye(N) + weighted) / (1 + float(graph.edge_weight.sum()) / N)


@pytest.mark.parametrize("name", ["gcn", "sage", "gin"])
def test_layer_computes_the_average_of_the_linear_map(name, graph, adjacency, digits):
    x = torch.from_numpy(digits[0][:N].copy())
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(8, 64, generator=generator), torch.randn(8, generator=generator)
    layer = make_convolution(name, 64, 8)
    neighbor_weight = float(graph.edge_weight.sum()) / N
    assert set_convolution(layer, weight, bias, neighbor_weight)
    expected = dense_mean(name, graph, adjacency) @ x @ weight.T + bias
    if name == "gin":
        expected = expected.relu()  # inside its two-layer network
    torch.testing.assert_close(layer(x, adjacency), expected, atol=1e-4, rtol=1e-4)


def test_attention_begins_with_the_same_linear_map(adjacency, digits):
    x = torch.from_numpy(digits[0][:N].copy())
    weight, bias = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), torch.ones(8)
    layer = make_convolution("gat", 64, 8)
    assert set_convolution(layer, weight, bias)
    layer.att_src.data.zero_()
    layer.att_dst.data.zero_()  # equal attention to the sample and each of its neighbours
    source, target = adjacency.edge_index
    a = torch.eye(N).index_put((target, source), torch.ones(source.shape[0]))
    expected = a / a.sum(dim=1, keepdim=True) @ x @ weight.T + bias
    torch.testing.assert_close(layer(x, adjacency), expected, atol=1e-4, rtol=1e-4)


#: With attention made equal, each of these is a mean that is written down below.
OWN = {
    "gcn": lambda i, o: pyg.GCNConv(i, o),
    "gat": lambda i, o: pyg.GATConv(i, o),
    "gatv2": lambda i, o: pyg.GATv2Conv(i, o),
    "gatv2, mean of heads": lambda i, o: pyg.GATv2Conv(i, o, heads=3, concat=False),
    "sage": lambda i, o: pyg.SAGEConv(i, o),
    "transformer": lambda i, o: pyg.TransformerConv(i, o),
    "transformer, mean of heads": lambda i, o: pyg.TransformerConv(i, o, heads=2, concat=False),
}


@pytest.mark.parametrize("name", OWN)
def test_layers_of_the_user_s_begin_with_the_linear_map_too(name, graph, adjacency, digits):
    x = torch.from_numpy(digits[0][:N].copy())
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(8, 64, generator=generator), torch.randn(8, generator=generator)
    layer = make_convolution(OWN[name], 64, 8)
    assert set_convolution(layer, weight, bias)
    for parameter, values in layer.named_parameters():
        if parameter.startswith(("layer.att", "layer.lin_key", "layer.lin_query")):
            values.data.zero_()  # equal attention
    source, target = adjacency.edge_index
    ones = torch.zeros(N, N).index_put((target, source), torch.ones(source.shape[0]))
    if name == "gcn":
        a = dense_mean("gcn", graph, adjacency)
    elif name.startswith("gat"):
        a = (torch.eye(N) + ones) / (1 + ones.sum(dim=1, keepdim=True))
    else:
        a = dense_mean("sage", graph, adjacency)
    torch.testing.assert_close(layer(x, adjacency), a @ x @ weight.T + bias, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    "conv",
    [
        lambda i, o: pyg.GATConv(i, o, residual=True),
        lambda i, o: pyg.GCNConv(i, o, bias=False),
        lambda i, o: pyg.TransformerConv(i, o, beta=True),
        lambda i, o: pyg.SAGEConv(i, o, project=True),
        lambda i, o: pyg.GATv2Conv(i, o, heads=2),
        lambda i, o: pyg.GINConv(torch.nn.Linear(i, o)),
    ],
    ids=["residual", "no bias", "beta", "project", "heads side by side", "own gin"],
)
def test_layers_that_compute_something_else_are_left_alone(conv):
    layer = make_convolution(conv, 64, 8)
    before = [p.clone() for p in layer.parameters()]
    assert not set_convolution(layer, torch.ones(8, 64), torch.ones(8))
    assert all(torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))


def test_lift_lets_negative_outputs_pass_the_relu_inside_gin(graph, adjacency, digits):
    x = torch.from_numpy(digits[0][:N].copy())
    weight, bias = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), torch.zeros(8)
    layer = make_convolution("gin", 64, 8)
    neighbor_weight = float(graph.edge_weight.sum()) / N
    set_convolution(layer, weight, bias, neighbor_weight, lift=100.0)
    expected = dense_mean("gin", graph, adjacency) @ x @ weight.T
    assert float(expected.min()) < -1
    torch.testing.assert_close(layer(x, adjacency), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["gcn", "gat", "sage", "gin"])
def test_whole_branch_follows_the_encoder(name, adjacency, digits):
    x = torch.from_numpy(digits[0][:N].copy())
    torch.manual_seed(0)
    encoder = MLPEncoder(64, (32, 16), 4)
    classifier = (torch.eye(4), torch.zeros(4))
    fusion = GraphFusion((64, 32, 16, 4, 4), name, 0.5)
    states = encoder(x).states

    def agreement():
        """Correlation of the logits with the code, which the classifier hands through."""
        logits, code = fusion(x, states, adjacency).detach(), states[-1].detach()
        return float(torch.corrcoef(torch.stack([logits.flatten(), code.flatten()]))[0, 1])

    before = agreement()
    assert warm_start(fusion, encoder, classifier, float(adjacency.edge_weight.sum()) / N) == 4
    assert agreement() > max(0.7, abs(before))


def test_what_cannot_be_set_is_left_alone():
    torch.manual_seed(0)
    encoder, classifier = MLPEncoder(64, (32,), 4), (torch.eye(4), torch.zeros(4))
    own = GraphFusion((64, 32, 4, 4), lambda i, o: pyg.TAGConv(i, o))
    before = [p.clone() for p in own.parameters()]
    assert warm_start(own, encoder, classifier) == 0
    assert all(torch.equal(a, b) for a, b in zip(before, own.parameters(), strict=True))
    # An unknown encoder has no weights to take: the last layer alone is set.
    assert warm_start(GraphFusion((64, 32, 4, 4), "gcn"), torch.nn.Identity(), classifier) == 1
    assert not set_convolution(pyg.GATConv(64, 8, heads=2), torch.zeros(8, 64), torch.zeros(8))
