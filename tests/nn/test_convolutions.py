import pytest
import torch
from torch_geometric import nn as pyg

from graphclust.nn import Adjacency, make_convolution, propagation_weights

N = 30


def graph(seed=0, weighted=True):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(N, N, generator=generator) < 0.2
    mask.fill_diagonal_(False)
    index = mask.nonzero().T.contiguous()
    weight = torch.rand(index.shape[1], generator=generator) + 0.2 if weighted else torch.ones(index.shape[1])
    return index, weight


def adjacency_of(index, weight, **kw):
    return Adjacency(index, weight, *propagation_weights(index, weight, N), **kw)


def pyg_twin(name, i, o):
    if name == "gin":
        mlp = torch.nn.Sequential(torch.nn.Linear(i, o), torch.nn.ReLU(), torch.nn.Linear(o, o))
        return pyg.GINConv(mlp, train_eps=True)
    return {"gcn": pyg.GCNConv, "gat": pyg.GATConv, "sage": pyg.SAGEConv}[name](i, o)


def result_and_gradients(layer, x, *arguments, **keywords):
    layer.zero_grad()
    out = layer(x, *arguments, **keywords)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(9))
    leaves = [p for p in layer.parameters() if p.requires_grad] + ([x] if x.requires_grad else [])
    return out, torch.autograd.grad(out, leaves, upstream)


@pytest.mark.parametrize(("i", "o"), [(4, 9), (9, 4), (5, 5)])
@pytest.mark.parametrize("name", ["gcn", "gat", "sage", "gin"])
def test_equals_the_layer_of_pyg(name, i, o):
    torch.manual_seed(3)
    ours, theirs = make_convolution(name, i, o), pyg_twin(name, i, o)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))  # biases and GIN's eps are not left at 0
    assert theirs.load_state_dict(ours.state_dict()).missing_keys == []
    index, weight = graph(weighted=name == "gcn")  # PyG's other three read no edge weights
    arguments = (index, weight) if name == "gcn" else (index,)
    x = torch.randn(N, i, requires_grad=True)
    found = result_and_gradients(ours, x, adjacency_of(index, weight))
    wanted = result_and_gradients(theirs, x, *arguments)
    torch.testing.assert_close(found[0], wanted[0], atol=1e-5, rtol=1e-4)
    assert len(found[1]) == len(wanted[1]) >= 3
    for ours_gradient, their_gradient in zip(found[1], wanted[1], strict=True):
        torch.testing.assert_close(ours_gradient, their_gradient, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["gcn", "gat", "sage", "gin"])
def test_a_constant_input_gives_the_same_again_and_again(name):
    index, weight = graph()
    x = torch.randn(N, 9, generator=torch.Generator().manual_seed(0))
    layer = make_convolution(name, 9, 4)
    wanted = result_and_gradients(layer, x, adjacency_of(index, weight))
    kept = adjacency_of(index, weight, constant=True)
    for _ in range(2):  # the second pass reads what the first one kept
        found = result_and_gradients(layer, x, kept, constant=True)
        torch.testing.assert_close(found[0], wanted[0], atol=1e-5, rtol=1e-4)
        for a, b in zip(found[1], wanted[1], strict=True):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(2.0)
    changed = layer(x, kept, constant=True)
    torch.testing.assert_close(changed, layer(x, adjacency_of(index, weight)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("i", "o"), [(4, 9), (9, 4)])
def test_gin_sums_with_the_graph_s_weights(i, o):
    index, weight = graph()
    layer = make_convolution("gin", i, o)
    layer.eps.data.fill_(0.4)
    x = torch.randn(N, i, generator=torch.Generator().manual_seed(1))
    a = torch.zeros(N, N).index_put((index[1], index[0]), weight)
    expected = layer.nn(1.4 * x + a @ x)
    torch.testing.assert_close(layer(x, adjacency_of(index, weight)), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "conv",
    [
        lambda i, o: pyg.ARMAConv(i, o),
        lambda i, o: pyg.TAGConv(i, o),
        lambda i, o: pyg.TransformerConv(i, o, heads=1),
        lambda i, o: pyg.GATv2Conv(i, o),
    ],
    ids=["arma", "tag", "transformer", "gatv2"],
)
def test_any_layer_of_pyg_is_called_as_pyg_calls_it(conv):
    index, weight = graph()
    torch.manual_seed(0)
    wrapped = make_convolution(conv, 5, 3)
    x = torch.randn(N, 5)
    takes_weight = isinstance(wrapped.layer, (pyg.ARMAConv, pyg.TAGConv))
    expected = wrapped.layer(x, index, weight) if takes_weight else wrapped.layer(x, index)
    assert expected.shape == (N, 3)
    assert torch.equal(wrapped(x, adjacency_of(index, weight)), expected)
    if takes_weight:
        unweighted = wrapped.layer(x, index)
        assert not torch.allclose(expected, unweighted)


def test_any_layer_resets_its_parameters():
    wrapped = make_convolution(lambda i, o: pyg.TAGConv(i, o), 5, 3)
    before = [p.clone() for p in wrapped.parameters()]
    wrapped.reset_parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, wrapped.parameters(), strict=True))


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="'gcnn'.*'gat', 'gcn', 'gin', 'sage'.*callable"):
        make_convolution("gcnn", 3, 2)
    with pytest.raises(TypeError, match="conv=3 is a int"):
        make_convolution(3, 3, 2)
    with pytest.raises(
        TypeError, match=r"called as conv\(3, 2\), failed: .*'K'.*lambda i, o: ChebConv\(i, o, "
    ):
        make_convolution(pyg.ChebConv, 3, 2)
    with pytest.raises(TypeError, match=r"called as conv\(3, 2\), failed: .*lambda i, o: EdgeConv"):
        make_convolution(pyg.EdgeConv, 3, 2)  # which takes a network, not two numbers
    with pytest.raises(TypeError, match=r"conv\(3, 2\) gave a str"):
        make_convolution(lambda i, o: "layer", 3, 2)
    with pytest.raises(TypeError, match=r"conv is one layer, GCNConv\(3, 2\).*lambda i, o: GCNConv\(i, o\)"):
        make_convolution(pyg.GCNConv(3, 2), 3, 2)
    with pytest.raises(TypeError, match=r"conv\(3, 2\) gave a Linear, whose forward takes input alone"):
        make_convolution(torch.nn.Linear, 3, 2)


@pytest.mark.parametrize(
    ("conv", "kind", "message"),
    [
        (lambda i, o: pyg.GATConv(i, o, heads=4), ValueError, r"\[30, 12\], but \[30, 3\].*concat=False"),
        (
            lambda i, o: pyg.GINEConv(torch.nn.Linear(i, o)),
            TypeError,
            r"GINEConv.*\(x, edge_index\).*edge_dim=1",
        ),
        (lambda i, o: pyg.TransformerConv(i, o, edge_dim=7), TypeError, "TransformerConv.*AssertionError"),
        (lambda i, o: torch.nn.Bilinear(i, i, o), RuntimeError, None),  # torch's own error, which says enough
    ],
)
def test_a_layer_that_does_not_fit_is_named(conv, kind, message):
    wrapped = make_convolution(conv, 5, 3)
    with pytest.raises(kind, match=message):
        wrapped(torch.randn(N, 5), adjacency_of(*graph()))


@pytest.mark.parametrize("kind", [pyg.TransformerConv, pyg.GATv2Conv, pyg.GATConv])
def test_attention_over_edges_reads_their_weights(kind):
    torch.manual_seed(0)
    wrapped = make_convolution(lambda i, o: kind(i, o, edge_dim=1), 5, 3)
    index, weight = graph()
    x = torch.randn(N, 5)
    found = wrapped(x, adjacency_of(index, weight))
    torch.testing.assert_close(found, wrapped.layer(x, index, edge_attr=weight[:, None]))
    assert not torch.allclose(found, wrapped(x, adjacency_of(index, torch.ones_like(weight))), atol=1e-3)
