"""Convolutional encoder and decoder: every size of picture, the order of pixels, batch normalisation, learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphclust.nn import AutoEncoder, ConvDecoder, ConvEncoder
from graphclust.nn.convolutional import BatchNorm, check_image_shape
from graphclust.nn.features import ConvFeatures

SHAPES = [(8, 8), (7, 5), (1, 30), (30, 1), (1, 1), (2, 3), (28, 28), (9, 16, 3), (5, 4, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("variational", [False, True])
def test_every_size_of_picture(shape: tuple[int, ...], variational: bool) -> None:
    torch.manual_seed(0)
    model = AutoEncoder.conv(shape, (8, 16, 12), latent_dim=6, variational=variational)
    height, width, channels = (*shape, 1)[:3]
    x = torch.rand(5, height * width * channels)
    encoding, output = model(x)
    assert output.shape == x.shape and output.dtype == torch.float32
    assert encoding.mean.shape == (5, 6)
    assert model.encoder.in_channels == x.shape[1]
    assert tuple(h.shape[1] for h in encoding.hidden) == model.encoder.hidden_channels
    assert (encoding.log_variance is None) is not variational
    states = model.decoder.hidden_states(encoding.mean)
    assert [s.shape[1] for s in states] == list(model.encoder.hidden_channels[::-1])
    output.sum().backward()
    for name, parameter in model.named_parameters():
        # The sum of outputs does not depend on a shift that batch normalisation takes out again.
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_layers_against_plain_functions_on_an_array_of_images() -> None:
    """Rows are read in the order [N, H, W, C] of an array, and given back in it."""
    torch.manual_seed(0)
    model = AutoEncoder.conv((7, 5, 3), (8, 6), latent_dim=4, variational=True)
    images = np.random.default_rng(0).random((9, 7, 5, 3), dtype=np.float32)
    rows = torch.from_numpy(images.reshape(9, -1))
    h = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    hidden = []
    encoder, decoder = model.encoder, model.decoder
    for layer, kernel in zip(encoder.layers, (5, 3), strict=True):
        h = F.conv2d(h, layer.weight, stride=2, padding=kernel // 2)
        h = (
            (h - h.mean((0, 2, 3), keepdim=True)) / (h.var((0, 2, 3), False, keepdim=True) + 1e-5).sqrt()
        ).relu()
        hidden.append(h)
    assert [tuple(h.shape[1:]) for h in hidden] == [(8, 4, 3), (6, 2, 2)]
    mean = F.linear(hidden[-1].flatten(1), encoder.mean.weight.flatten(1), encoder.mean.bias)
    encoding = encoder(rows)
    for found, wanted in zip(encoding.hidden, hidden, strict=True):
        torch.testing.assert_close(found, wanted.permute(0, 2, 3, 1).flatten(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoding.mean, mean, atol=1e-5, rtol=1e-4)

    model.eval()
    z = torch.randn(9, 4)
    h = F.conv_transpose2d(z[:, :, None, None], decoder.layers[0].weight)
    assert h.shape == (9, 6, 2, 2)
    h = (h / (1 + 1e-5) ** 0.5).relu()
    h = F.conv_transpose2d(h, decoder.layers[1].weight, None, 2, 1, (1, 0))
    h = (h / (1 + 1e-5) ** 0.5).relu()
    h = F.conv_transpose2d(h, decoder.layers[2].weight, decoder.layers[2].bias, 2, 2, (0, 0))
    torch.testing.assert_close(decoder(z), h.permute(0, 2, 3, 1).flatten(1), atol=1e-5, rtol=1e-4)


def test_normalised_after_every_layer_but_the_last() -> None:
    model = AutoEncoder.conv((8, 8), (8, 16), 4)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.encoder.modules()) == 2
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.decoder.modules()) == 2
    assert not any(isinstance(m, nn.MaxPool2d | nn.Linear) for m in model.modules())
    bare = AutoEncoder.conv((8, 8), (8, 16), 4, batch_norm=False)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in bare.modules())
    assert all(layer.bias is not None for layer in bare.encoder.layers)
    assert bare(torch.rand(1, 64))[1].shape == (1, 64)


def test_a_batch_of_one_sample_uses_the_running_statistics(digits: Any) -> None:
    x = torch.from_numpy(digits[0][:200].copy())
    torch.manual_seed(0)
    model = AutoEncoder.conv((8, 8), (8, 8, 8), 4)  # the last map is 1 x 1: torch's own layer would raise
    for _ in range(30):
        model(x)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    one = model.encode(x[:1]).mean
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.eval()
    torch.testing.assert_close(one, model.encode(x[:1]).mean)
    model.train()
    one.sum().backward()
    assert float(model.encoder.layers[0].weight.grad.abs().max()) > 0
    torch.testing.assert_close(
        BatchNorm(3).train()(torch.ones(1, 3, 1, 1)), torch.ones(1, 3, 1, 1), atol=1e-4, rtol=0
    )


def test_running_statistics_are_the_mean_of_the_first_batches() -> None:
    norm = BatchNorm(2).train()
    batches = [torch.randn(30, 2, 3, 3) * 3 + 5 for _ in range(11)]
    for seen, batch in enumerate(batches[:10], start=1):
        norm(batch)
        mean = torch.stack([b.mean((0, 2, 3)) for b in batches[:seen]]).mean(dim=0)
        variance = torch.stack([b.var((0, 2, 3)) for b in batches[:seen]]).mean(dim=0)
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, variance)
    norm(batches[10])
    torch.testing.assert_close(norm.running_mean, 0.9 * mean + 0.1 * batches[10].mean((0, 2, 3)))
    resumed = BatchNorm(2).train()
    resumed.load_state_dict(norm.state_dict())
    for layer in (norm, resumed):
        layer(batches[0])
    assert torch.equal(norm.running_mean, resumed.running_mean)


def test_evaluation_does_not_depend_on_the_batch(digits: Any) -> None:
    x = torch.from_numpy(digits[0][:300].copy())
    model = AutoEncoder.conv((8, 8), (8, 8), 4)
    model(x)
    model.eval()
    whole = model.encode(x).mean
    torch.testing.assert_close(
        torch.cat([model.encode(part).mean for part in x.split(7)]), whole, atol=1e-5, rtol=1e-4
    )


def test_weights_stay_contiguous_and_resumed_training_goes_on_alike() -> None:
    """Moments come back contiguous from a checkpoint; the fused Adam would mix up weights in another order."""

    def train(restart: bool) -> Tensor:
        torch.manual_seed(0)
        model = AutoEncoder.conv((6, 6, 2), (4, 5), 3)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2, fused=True)
        x = torch.rand(8, 72)
        for step in range(6):
            if step == 3 and restart:
                state = optimizer.state_dict()
                for entries in state["state"].values():
                    for name, value in entries.items():
                        entries[name] = value.clone(memory_format=torch.contiguous_format)
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            (model(x)[1] - x).square().sum().backward()
            optimizer.step()
        assert all(p.is_contiguous() for p in model.parameters())
        return model.encoder.layers[1].weight.detach()

    assert torch.equal(train(False), train(True))


def test_learns_pictures(digits: Any) -> None:
    x = torch.from_numpy(digits[0][:400].copy())
    torch.manual_seed(0)
    model = AutoEncoder.conv((8, 8), (16, 32), 10)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for step in range(160):
        part = x[step % 4 :: 4]
        loss = (model(part)[1] - part).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    spread = float((x - x.mean(dim=0)).square().sum(dim=1).mean())
    assert losses[-1] < 0.4 * spread
    with torch.no_grad():
        own = (model.eval()(x)[1] - x).square().sum(dim=1).mean()
    assert float(own) < 0.5 * spread  # with the running statistics, which are what evaluation has


def test_variational_code_begins_calm_and_stays_in_bounds() -> None:
    torch.manual_seed(0)
    encoder = ConvEncoder((8, 8), (8,), 4, variational=True)
    x = torch.rand(20, 64)
    assert float(encoder(x).log_variance.detach().abs().max()) < 0.1
    assert encoder.log_variance.bias.shape == (4,)
    encoder.log_variance.bias.data.fill_(1e4)
    assert encoder(x).log_variance.max().item() == 20.0


def test_mixed_precision_gives_float32_codes() -> None:
    torch.manual_seed(0)
    model = AutoEncoder.conv((4, 4), (4, 4), 3)
    x = torch.rand(6, 16)
    with torch.autocast("cpu", torch.bfloat16):
        encoding, output = model(x)
    assert encoding.mean.dtype == output.dtype == torch.float32
    torch.testing.assert_close(output, model(x)[1], atol=0.1, rtol=0.1)
    output.sum().backward()


def _fill_free_memory() -> None:
    """NaN into memory that is handed out next: what is read without having been written shows."""
    for size in (2**14, 2**16, 2**18, 2**20, 300 * 64 * 16 * 8):
        blocks = [torch.full((size,), float("nan")) for _ in range(2)]
        del blocks


@pytest.mark.parametrize("shape", [(16, 1), (16, 2), (9, 2), (28, 3), (16, 4), (1, 16), (8, 8)], ids=str)
def test_narrow_pictures_in_mixed_precision(shape: tuple[int, int]) -> None:
    """oneDNN's strided products of bfloat16 read beyond pictures of one or two pixels across."""
    for attempt in range(3):
        torch.manual_seed(attempt)
        model = nn.ModuleList([ConvEncoder(shape), ConvDecoder(shape), ConvFeatures(shape)])
        x = torch.rand(44, shape[0] * shape[1])
        _fill_free_memory()
        with torch.autocast("cpu", torch.bfloat16):
            output, features = model[1](model[0](x).mean), model[2](x)
            loss = output.square().mean() + features.square().mean()
        _fill_free_memory()
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        ("8x8", TypeError),
        (8, TypeError),
        ((8,), ValueError),
        ((8, 8, 1, 1), ValueError),
        ((8, 0), ValueError),
        ((8, 2.5), TypeError),
        ((8, True), TypeError),
    ],
)
def test_bad_shapes(shape: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="image_shape"):
        check_image_shape(shape)


def test_bad_layers() -> None:
    assert check_image_shape(np.array([8, 6])) == (8, 6, 1)
    with pytest.raises(ValueError, match="kernel_sizes"):
        ConvEncoder((8, 8), (4, 4), kernel_sizes=(3, 4))
    with pytest.raises(ValueError, match="kernel_sizes"):
        ConvDecoder((8, 8), (4, 4), kernel_sizes=(3,))
    with pytest.raises(ValueError, match="channels is empty"):
        ConvEncoder((8, 8), ())
    with pytest.raises(ValueError, match="latent_dim"):
        ConvEncoder((8, 8), (4,), 0)
