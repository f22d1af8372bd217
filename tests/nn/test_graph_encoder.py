import pytest
import torch
import torch.nn.functional as F
from torch.profiler import profile

from graphclust.graph import SampleGraph
from graphclust.nn import FeatureScale, StudentTAssignment
from graphclust.nn.autoencoder import AutoEncoder
from graphclust.nn.graph_encoder import GraphEncoder, GraphEncoderNetwork
from graphclust.nn.proximity import ProximityAttention, proximity
from graphclust.nn.structure_fusion import StructureAttributeFusion, StructureAttributeNetwork
from graphclust.training import BatchSource
from graphclust.training.inference import layerwise_outputs

N = 40
ACTIVATIONS = {"relu": torch.relu, "elu": F.elu, "selu": F.selu, "tanh": torch.tanh, None: lambda x: x}


@pytest.fixture
def graph():
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(N, N, generator=generator) < 0.1).fill_diagonal_(False)
    index = mask.nonzero().T.contiguous()
    weight = torch.rand(index.shape[1], generator=generator) + 0.1
    return SampleGraph.from_edges(index, torch.rand(N, 6, generator=generator), weight, symmetrize="none")


@pytest.fixture
def whole(graph):
    return BatchSource(graph).full(uses_graph=True).adjacency


def dense(graph):
    """A, target by source."""
    a = torch.zeros(N, N)
    a[graph.edge_index[1], graph.edge_index[0]] = graph.edge_weight
    return a


def kipf_welling(graph):
    a = dense(graph) + torch.eye(N)
    scale = a.sum(dim=1).rsqrt()
    return scale[:, None] * a * scale


class TestGraphEncoder:
    @pytest.mark.parametrize("activation", ["relu", "elu", "selu", None, ["tanh", None, "relu"]])
    def test_equals_the_textbook(self, activation, graph, whole):
        torch.manual_seed(0)
        encoder = GraphEncoder((6, 8, 5, 3), activation=activation)
        names = activation if isinstance(activation, list) else [activation, activation, None]
        z = graph.x
        for name, layer in zip(names, encoder.layers, strict=True):
            z = ACTIVATIONS[name](kipf_welling(graph) @ z @ layer.lin.weight.T + layer.bias)
        torch.testing.assert_close(encoder(graph.x, whole), z, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(encoder(graph.x, whole, constant=True), z, atol=1e-5, rtol=1e-4)

    def test_constant_is_the_callers_word(self, graph, whole):
        encoder = GraphEncoder((6, 8, 3))
        first = encoder(graph.x, whole, constant=True)
        shuffled = graph.x.flip(0)
        assert torch.equal(encoder(shuffled, whole, constant=True), first)  # remembered
        assert not torch.allclose(encoder(shuffled, whole), first)

    def test_prelu_learns_its_slope(self, graph, whole):
        encoder = GraphEncoder((6, 8, 3), activation="prelu")
        encoder(graph.x, whole).square().sum().backward()
        slopes = [p for name, p in encoder.named_parameters() if name.startswith("activations")]
        assert len(slopes) == 1 and slopes[0].grad.abs() > 0

    def test_dropout_in_training_alone(self, graph, whole):
        encoder = GraphEncoder((6, 8, 3), dropout=0.5)
        a, b = (encoder(graph.x, whole, constant=True) for _ in range(2))
        assert not torch.allclose(a, b)
        encoder.eval()
        plain = GraphEncoder((6, 8, 3)).eval()
        plain.load_state_dict(encoder.state_dict())
        assert torch.equal(encoder(graph.x, whole), plain(graph.x, whole))
        encoder.train()
        mean = torch.stack([encoder.step(1, torch.ones(N, 8), whole) for _ in range(400)]).mean(0)
        torch.testing.assert_close(mean, plain.step(1, torch.ones(N, 8), whole), atol=0.25, rtol=0)

    @pytest.mark.parametrize("conv", ["gcn", "gat", "sage", "gin"])
    @pytest.mark.parametrize("block_size", [7, 1000])
    def test_layer_by_layer_is_the_same(self, conv, block_size, graph, whole):
        torch.manual_seed(0)
        encoder = GraphEncoder((6, 8, 5, 3), conv, "elu").eval()
        scale = FeatureScale(6).fit(graph.x, "standard")
        with torch.no_grad():
            expected = encoder(scale(graph.x), whole)
        source = BatchSource(graph)
        found = list(layerwise_outputs(encoder, source, prepare=scale, block_size=block_size))
        torch.testing.assert_close(torch.cat([z for _, z in found]), expected, atol=1e-5, rtol=1e-4)
        # A view would keep the rows of all of the block's neighbours.
        assert all(z.untyped_storage().nbytes() == z.numel() * z.element_size() for _, z in found)
        wanted = torch.tensor([9, 2, 30])
        ((nodes, z),) = layerwise_outputs(encoder, source, wanted, prepare=scale)
        assert nodes.tolist() == [2, 9, 30]
        torch.testing.assert_close(z, expected[nodes], atol=1e-5, rtol=1e-4)

    def test_network_reads_codes_off_a_wider_output(self, graph, whole):
        encoder = GraphEncoder((6, 8, 6))
        network = GraphEncoderNetwork(FeatureScale(6), encoder, StudentTAssignment(4, 3), 4, latent_dim=3)
        assert network.encode(graph.x, whole).shape == (N, 6)
        assert torch.equal(network.embed(graph.x, whole), network.encode(graph.x, whole)[:, :3])
        torch.testing.assert_close(network(graph.x, whole).exp().sum(dim=1), torch.ones(N))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"widths": (6,)}, r"widths is \[6\]"),
            ({"widths": (6, 3), "activation": ["relu", "relu"]}, "names 2, it must name one .* 1 conv"),
            ({"widths": (6, 5, 3), "activation": "gelu"}, "activation='gelu'"),
            ({"widths": (6, 3), "dropout": 1.0}, "dropout=1.0 must be less than 1"),
            ({"widths": (6, 3), "dropout": -0.1}, "dropout=-0.1"),
            ({"widths": (6, 3), "conv": "gnc"}, "conv is 'gnc'"),
        ],
    )
    def test_bad_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            GraphEncoder(**settings)


class TestProximity:
    @pytest.mark.parametrize("hops", [1, 2, 3])
    @pytest.mark.parametrize("normalization", ["row", "symmetric"])
    def test_equals_dense_powers(self, hops, normalization, graph):
        step = dense(graph) + torch.eye(N)
        step = step / step.sum(dim=1, keepdim=True) if normalization == "row" else kipf_welling(graph)
        powers = [torch.linalg.matrix_power(step, t) for t in range(1, hops + 1)]
        expected = torch.stack(powers).mean(dim=0)
        index, weight, diagonal = proximity(graph.edge_index, graph.edge_weight, N, hops, normalization)
        found = torch.diag(diagonal)
        found[index[1], index[0]] = weight
        torch.testing.assert_close(found, expected)
        assert (weight > 0).all() and len(index.unique(dim=1).T) == len(weight)  # sparse, each entry once
        keys = index[1] * N + index[0]
        assert (keys.diff() > 0).all()

    def test_too_many_entries(self, monkeypatch):
        hub = torch.stack([torch.arange(1, 200), torch.zeros(199, dtype=torch.int64)])
        both = torch.cat([hub, hub.flip(0)], dim=1)
        monkeypatch.setattr("graphclust.nn.proximity.MOST_ENTRIES", 30_000)
        assert proximity(both, torch.ones(398), 200, 1)[0].shape[1] == 398
        with pytest.raises(ValueError, match=r"hops=2 may hold 40,\d+ entries.* take hops=1"):
            proximity(both, torch.ones(398), 200, 2)

    @pytest.mark.parametrize("widths", [(6, 4), (4, 6)])
    def test_attention_equals_the_textbook(self, widths, graph, whole):
        torch.manual_seed(0)
        x = graph.x[:, : widths[0]]
        layer = ProximityAttention(*widths, bias=True)
        torch.nn.init.normal_(layer.bias)
        h = x @ layer.lin.weight.T
        score = F.leaky_relu(
            (h @ layer.att_dst.flatten())[:, None] + (h @ layer.att_src.flatten())[None], 0.2
        )
        alpha = kipf_welling(graph) * score.exp()
        expected = alpha / alpha.sum(dim=1, keepdim=True) @ h + layer.bias
        for constant in (False, True):
            found = layer(x, whole, constant=constant)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
            wanted = torch.autograd.grad(expected.square().sum(), layer.parameters(), retain_graph=True)
            got = torch.autograd.grad(found.square().sum(), layer.parameters())
            for a, b in zip(got, wanted, strict=True):
                torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


class TestStructureAttributeFusion:
    def test_equals_the_textbook(self):
        generator = torch.Generator().manual_seed(0)
        a, g, local, keys = (torch.randn(30, 5, generator=generator) for _ in range(4))
        fusion = StructureAttributeFusion(5)
        torch.testing.assert_close(fusion.blend(a, g), (a + g) / 2)
        assert torch.equal(fusion.correlate(local, keys), local)  # beta begins at 0
        with torch.no_grad():
            fusion.share.copy_(torch.tensor([0.0, 1.0, 0.25, 0.5, 0.75]))
            fusion.correlation.fill_(0.7)
        expected = fusion.share * a + (1 - fusion.share) * g
        torch.testing.assert_close(fusion.blend(a, g), expected)
        expected = local + 0.7 * (local @ keys.T).softmax(dim=1) @ keys
        torch.testing.assert_close(fusion.correlate(local, keys), expected)

    def test_the_self_correlation_is_not_stored(self):
        n = 6000
        local = (0.3 * torch.randn(n, 8)).requires_grad_()
        fusion = StructureAttributeFusion(8)
        torch.nn.init.ones_(fusion.correlation)
        with profile(profile_memory=True) as watch:
            fusion.correlate(local, local).square().sum().backward()
        largest = max(event.cpu_memory_usage for event in watch.events())
        assert 0 < largest < n * n * 4 / 20
        assert local.grad.abs().sum() > 0

    def test_layer_by_layer_is_the_same(self, graph, whole):
        torch.manual_seed(0)
        autoencoder = AutoEncoder.mlp(6, (8,), 3)
        network = StructureAttributeNetwork(
            FeatureScale(6), autoencoder, StudentTAssignment(4, 3), 4, (6, 7, 5, 3)
        )
        torch.nn.init.constant_(network.fusion.correlation, 0.5)
        torch.nn.init.uniform_(network.fusion.share)
        network.eval()
        with torch.no_grad():
            codes = network(graph.x, whole, N)
        stack, source = network.local_stack(), BatchSource(graph)
        found = list(layerwise_outputs(stack, source, states=stack.states, block_size=9))
        local = torch.cat([z for _, z in found])
        with torch.no_grad():
            torch.testing.assert_close(
                network.fusion.correlate(local, local), codes.fused, atol=1e-5, rtol=1e-4
            )

    def test_input_error(self, graph, whole):
        network = StructureAttributeNetwork(
            FeatureScale(6), AutoEncoder.mlp(6, (8,), 3), StudentTAssignment(4, 3), 4, (6, 5, 3)
        )
        decoded = torch.rand(N, 6)
        expected = (decoded - kipf_welling(graph) @ graph.x)[:10].square().mean()
        for _ in range(2):
            torch.testing.assert_close(network.input_error(decoded, graph.x, whole, 10), expected)
