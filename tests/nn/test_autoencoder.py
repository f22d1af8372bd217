import math

import numpy as np
import pytest
import torch

from graphclust.nn import (
    AutoEncoder,
    Bernoulli,
    Gaussian,
    MLPDecoder,
    MLPEncoder,
    gaussian_sample,
    resolve_likelihood,
)


@pytest.fixture
def x(digits):
    return torch.from_numpy(digits[0][:300].copy())


def test_encoder_shows_all_its_states(x):
    torch.manual_seed(0)
    encoder = MLPEncoder(64, (20, 30, 15), 4)
    encoding = encoder(x)
    h, expected = x, []
    for layer in encoder.layers:
        h = torch.clamp(h @ layer.weight.T + layer.bias, min=0)
        expected.append(h)
    expected.append(h @ encoder.mean.weight.T + encoder.mean.bias)
    assert [s.shape[1] for s in encoding.states] == [20, 30, 15, 4]
    for found, wanted in zip(encoding.states, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert encoding.log_variance is None
    assert encoding.sample() is encoding.mean
    with pytest.raises(ValueError, match="variational=True"):
        encoding.gaussian()


def test_decoder_mirrors_the_encoder(x):
    decoder = MLPDecoder(64, (20, 30, 15), 4)
    widths = [layer.out_features for layer in decoder.layers]
    assert widths == [15, 30, 20] and decoder.output.out_features == 64
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    states = decoder.hidden_states(z)
    assert [s.shape[1] for s in states] == [15, 30, 20]
    torch.testing.assert_close(decoder(z), states[-1] @ decoder.output.weight.T + decoder.output.bias)


def test_variational_encoding_begins_calm_and_stays_in_bounds(x):
    torch.manual_seed(0)
    encoder = MLPEncoder(64, (20,), 4, variational=True)
    encoding = encoder(x)
    assert float(encoding.log_variance.detach().abs().max()) < 0.1
    mean, log_variance = encoding.gaussian(7)
    assert torch.equal(mean, encoding.mean[:7]) and torch.equal(log_variance, encoding.log_variance[:7])
    encoder.log_variance.bias.data.fill_(1e4)
    assert encoder(x).log_variance.max().item() == 20.0


def test_samples_have_the_mean_and_the_variance():
    mean = torch.tensor([[1.0, -2.0]]).expand(40_000, 2)
    log_variance = torch.tensor([[0.0, math.log(0.25)]]).expand(40_000, 2)
    z = gaussian_sample(mean, log_variance, torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(dim=0), mean[0], atol=0.02, rtol=0)
    torch.testing.assert_close(z.var(dim=0), torch.tensor([1.0, 0.25]), atol=0.02, rtol=0)
    again = gaussian_sample(mean, log_variance, torch.Generator().manual_seed(0))
    assert torch.equal(z, again)


def test_sampling_passes_gradients_to_both_parameters():
    mean = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    log_variance = torch.full((3, 2), 0.4, dtype=torch.float64, requires_grad=True)

    def sample(mean, log_variance):
        return gaussian_sample(mean, log_variance, torch.Generator().manual_seed(0))

    assert torch.autograd.gradcheck(sample, (mean, log_variance))


@pytest.mark.parametrize("variational", [False, True])
def test_autoencoder_learns_digits(x, variational):
    torch.manual_seed(0)
    model = AutoEncoder.mlp(64, (64, 32), 8, variational=variational)
    if variational:
        model.encoder.log_variance.bias.data.fill_(-4.0)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    likelihood = Bernoulli()
    errors = []
    for _ in range(60):
        _, output = model(x)
        errors.append(float((likelihood.mean(output) - x).detach().square().mean()))
        optimizer.zero_grad()
        likelihood.negative_log_likelihood(output, x).mean().backward()
        optimizer.step()
    baseline = float((x - x.mean(dim=0)).square().mean())  # the best constant picture
    assert errors[-1] < 0.8 * baseline < errors[0]


def test_likelihoods_equal_loops():
    rng = np.random.default_rng(0)
    output = torch.from_numpy(rng.normal(size=(5, 6)))
    x = torch.from_numpy(rng.uniform(size=(5, 6)))
    for row, (o, v) in enumerate(zip(output.tolist(), x.tolist(), strict=True)):
        s = [1 / (1 + math.exp(-a)) for a in o]
        cross = -sum(b * math.log(p) + (1 - b) * math.log(1 - p) for p, b in zip(s, v, strict=True))
        assert float(Bernoulli().negative_log_likelihood(output, x)[row]) == pytest.approx(cross)
        assert Bernoulli().mean(output)[row].tolist() == pytest.approx(s)
        squared = sum((a - b) ** 2 for a, b in zip(o, v, strict=True)) / (2 * 0.3)
        assert float(Gaussian(0.3).negative_log_likelihood(output, x)[row]) == pytest.approx(squared)
    assert torch.equal(Gaussian().mean(output), output)
    for likelihood in (Bernoulli(), Gaussian(0.3)):
        leaf = output.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda o, f=likelihood: f.negative_log_likelihood(o, x), (leaf,))


def test_likelihood_by_name():
    assert isinstance(resolve_likelihood("auto"), Bernoulli)
    assert isinstance(resolve_likelihood("auto", unit_range=False), Gaussian)
    assert isinstance(resolve_likelihood("gaussian"), Gaussian)
    given = Gaussian(2.0)
    assert resolve_likelihood(given, unit_range=False) is given
    with pytest.raises(ValueError, match=r"values in \[0, 1\].*decoder='gaussian'"):
        resolve_likelihood("bernoulli", unit_range=False)
    with pytest.raises(ValueError, match="'poisson'"):
        resolve_likelihood("poisson")
    with pytest.raises(ValueError, match="variance is 0"):
        Gaussian(0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, (5,), 2), "in_channels holds 0"),
        ((4, (), 2), "hidden_channels is empty"),
        ((4, (5, -1), 2), "hidden_channels holds -1"),
        ((4, (5,), 1.5), "latent_dim holds 1.5"),
    ],
)
def test_impossible_widths(arguments, message):
    for make in (MLPEncoder, MLPDecoder, AutoEncoder.mlp):
        with pytest.raises(ValueError, match=message.replace("in_channels", "(in|out)_channels")):
            make(*arguments)
