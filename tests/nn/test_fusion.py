import pytest
import torch
from torch_geometric import nn as pyg

from graphclust.nn import Adjacency, AutoEncoder, FeatureScale, FusionNetwork, GraphFusion, StudentTAssignment
from graphclust.nn import propagation_weights as weights_of

N, WIDTHS = 20, (6, 8, 7, 3, 4)  # d, two hidden, latent, K


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(N, N, generator=generator) < 0.25
    mask = (mask | mask.T).fill_diagonal_(False)
    index = mask.nonzero().T.contiguous()
    weight = 1.0 / (1.0 + (index[0] - index[1]).abs())
    edges, loops = weights_of(index, weight, N)
    p = torch.diag(loops).index_put((index[1], index[0]), edges)
    x = torch.rand(N, WIDTHS[0], generator=generator)
    states = [torch.randn(N, w, generator=generator) for w in WIDTHS[1:-1]]
    return x, states, Adjacency(index, weight, edges, loops), p


def textbook(fusion, x, states, p, epsilon):
    """relu(P [(1 - eps) Z + eps H] W), products in the order of the formula, the last layer without relu."""
    weights = [(layer.lin.weight, layer.bias) for layer in fusion.layers]
    z = x
    for number, (weight, bias) in enumerate(weights):
        if number:
            z = (1 - epsilon[number - 1]) * z + epsilon[number - 1] * states[number - 1]
        z = p @ z @ weight.T + bias
        if number < len(weights) - 1:
            z = torch.relu(z)
    return z


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 1, 0.7, [0.1, 0.5, 0.9], "learn"])
def test_equals_the_textbook(problem, epsilon):
    x, states, adjacency, p = problem
    torch.manual_seed(0)
    fusion = GraphFusion(WIDTHS, "gcn", epsilon)
    shares = {"learn": [0.5] * 3}.get(str(epsilon), epsilon)
    shares = shares if isinstance(shares, list) else [float(shares)] * 3
    expected = textbook(fusion, x, states, p, shares)
    out = fusion(x, states, adjacency)
    assert out.shape == (N, 4)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
    found = torch.autograd.grad(out.square().sum(), list(fusion.layers.parameters()), allow_unused=True)
    wanted = torch.autograd.grad(expected.square().sum(), list(fusion.layers.parameters()), allow_unused=True)
    for a, b in zip(found, wanted, strict=True):
        if b is None:  # epsilon = 1 cuts the first layer off in the formula; here its gradient is zero
            assert a is None or not a.any()
        else:
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_epsilon_0_reads_no_states_and_1_reads_them_alone(problem):
    x, states, adjacency, _ = problem
    noise = [s + 1.0 for s in states]
    plain = GraphFusion(WIDTHS, "gcn", 0.0)
    assert torch.equal(plain(x, states, adjacency), plain(x, noise, adjacency))
    states_alone = GraphFusion(WIDTHS, "gcn", 1.0)
    assert torch.equal(states_alone(x, states, adjacency), states_alone(x + 1.0, states, adjacency))
    assert not torch.equal(states_alone(x, states, adjacency), states_alone(x, noise, adjacency))


def test_epsilon_is_learnt_where_asked(problem):
    x, states, adjacency, _ = problem
    torch.manual_seed(0)
    fusion = GraphFusion(WIDTHS, "gcn", "learn")
    assert torch.equal(fusion.epsilon, torch.full((3,), 0.5))
    fusion(x, states, adjacency).square().sum().backward()
    gradient = fusion.epsilon_logits.grad
    assert gradient.shape == (3,) and bool((gradient != 0).all())
    # One coordinate at a time, by central differences of the loss.
    for bridge in range(3):
        losses = []
        for step in (1e-2, -1e-2):
            fusion.epsilon_logits.data.zero_()[bridge] = step
            losses.append(float(fusion(x, states, adjacency).detach().double().square().sum()))
        assert float(gradient[bridge]) == pytest.approx((losses[0] - losses[1]) / 2e-2, rel=1e-2, abs=1e-3)
    fixed = GraphFusion(WIDTHS, "gcn", 0.7)
    assert not any("epsilon" in name for name, _ in fixed.named_parameters())
    assert "fixed_epsilon" in fixed.state_dict()  # it travels with the model


@pytest.mark.parametrize("conv", ["gat", "sage", "gin", lambda i, o: pyg.TAGConv(i, o)])
def test_other_convolutions_train(problem, conv):
    x, states, adjacency, _ = problem
    torch.manual_seed(0)
    fusion = GraphFusion(WIDTHS, conv, 0.5)
    target = states[-1].argmax(dim=1)  # what the last bridge carries
    optimizer = torch.optim.Adam(fusion.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(fusion(x, states, adjacency), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("epsilon", "message"),
    [
        (1.5, r"epsilon is 1.5, it must lie in \[0, 1\]"),
        (-0.1, r"epsilon is -0.1"),
        (float("nan"), r"epsilon is nan"),
        ([0.1, 2.0, 0.3], r"epsilon is 2.0"),
        ([0.1, 0.2], r"holds 2 numbers.*3 bridges"),
        ("learned", r"'learned'.*'learn'"),
    ],
)
def test_wrong_epsilon(epsilon, message):
    with pytest.raises(ValueError, match=message):
        GraphFusion(WIDTHS, "gcn", epsilon)


def test_wrong_widths_and_states(problem):
    x, states, adjacency, _ = problem
    with pytest.raises(ValueError, match=r"widths is \[6, 4\]"):
        GraphFusion((6, 4))
    with pytest.raises(ValueError, match="2 encoder states were given for 3 bridges"):
        GraphFusion(WIDTHS)(x, states[:2], adjacency)


def test_network_joins_its_parts(problem):
    x, _, adjacency, p = problem
    torch.manual_seed(0)
    autoencoder = AutoEncoder.mlp(6, (8, 7), 3)
    scale = FeatureScale(6).fit(10 * x, "minmax")
    network = FusionNetwork(scale, autoencoder, StudentTAssignment(4, 3), WIDTHS, "gcn", 0.3)
    encoding, logits = network(10 * x, adjacency)
    scaled = scale(10 * x)
    states = autoencoder.encode(scaled).states
    torch.testing.assert_close(
        logits, textbook(network.fusion, scaled, states, p, [0.3] * 3), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(encoding.mean, states[-1])
    torch.testing.assert_close(network.embed(10 * x), states[-1])
    assert network.frequencies.frequencies.shape == (4,)
