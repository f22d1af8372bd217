"""Auto-encoders that show all their hidden states, because the graph branch reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphclust.nn.likelihoods import gaussian_sample


@dataclass
class Encoding:
    """What an encoder gives for N samples.

    Attributes
    ----------
    hidden : list of Tensor
        Hidden states H(1) ... H(L), each [N, width of the layer].
    mean : Tensor
        Latent code, or the mean of its Gaussian, [N, latent_dim].
    log_variance : Tensor or None
        Log-variance of the latent Gaussian, [N, latent_dim]; None for a plain auto-encoder.
    """

    hidden: list[Tensor]
    mean: Tensor
    log_variance: Tensor | None = None

    @property
    def states(self) -> list[Tensor]:
        """H(1) ... H(L) and the latent code: what the epsilon bridge mixes in, layer by layer."""
        return [*self.hidden, self.mean]

    def gaussian(self, n: int | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the first `n` samples (all for None); a plain auto-encoder has none."""
        if self.log_variance is None:
            raise ValueError("the encoder gives no log-variance: make it with variational=True")
        return self.mean[:n], self.log_variance[:n]

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """z = mean + exp(log_variance / 2) * noise, or the code itself without a variance; [N, latent_dim]."""
        if self.log_variance is None:
            return self.mean
        return gaussian_sample(self.mean, self.log_variance, generator)


def check_widths(in_channels: int, hidden_channels: Sequence[int], latent_dim: int) -> None:
    """Raise ValueError unless all widths are positive integers and there is a hidden layer."""
    if not hidden_channels:
        raise ValueError("hidden_channels is empty, it must name the width of at least one hidden layer")
    for name, width in [
        ("in_channels", in_channels),
        *(("hidden_channels", w) for w in hidden_channels),
        ("latent_dim", latent_dim),
    ]:
        if int(width) != width or width < 1:
            raise ValueError(f"{name} holds {width!r}, a width must be an integer of at least 1")


class MLPEncoder(nn.Module):
    """Fully connected encoder d -> hidden widths -> latent, ReLU between.

    Parameters
    ----------
    in_channels : int
        Number of features d.
    hidden_channels : sequence of int, default=(500, 500, 2000)
        Widths of the hidden layers, those of DEC (Xie et al. 2016).
    latent_dim : int, default=10
        Width of the latent code.
    variational : bool, default=False
        Also give a log-variance.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int] = (500, 500, 2000),
        latent_dim: int = 10,
        *,
        variational: bool = False,
    ) -> None:
        super().__init__()
        check_widths(in_channels, hidden_channels, latent_dim)
        widths = [in_channels, *hidden_channels]
        self.in_channels = in_channels
        self.hidden_channels = tuple(hidden_channels)
        self.latent_dim = latent_dim
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.mean = nn.Linear(widths[-1], latent_dim)
        self.log_variance = nn.Linear(widths[-1], latent_dim) if variational else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation of the ReLU layers; a small start for the log-variance, so that exp() stays tame."""
        for layer in self.layers:
            _init_linear(layer, gain="relu")
        _init_linear(self.mean, gain="linear")
        if self.log_variance is not None:
            nn.init.normal_(self.log_variance.weight, std=1e-3)
            nn.init.zeros_(self.log_variance.bias)

    def forward(self, x: Tensor) -> Encoding:
        """[N, d] -> hidden states, latent mean and (variational) log-variance."""
        hidden: list[Tensor] = []
        h = x
        for layer in self.layers:
            h = layer(h).relu_()
            hidden.append(h)
        log_variance = None if self.log_variance is None else self.log_variance(h).float().clamp(-20.0, 20.0)
        return Encoding(hidden, self.mean(h).float(), log_variance)


class MLPDecoder(nn.Module):
    """Fully connected decoder, the encoder mirrored: latent -> reversed hidden widths -> d (raw output).

    Parameters
    ----------
    out_channels : int
        Number of features d.
    hidden_channels : sequence of int, default=(500, 500, 2000)
        Widths of the *encoder's* hidden layers; the decoder takes them in reverse.
    latent_dim : int, default=10
        Width of the latent code.
    """

    def __init__(
        self, out_channels: int, hidden_channels: Sequence[int] = (500, 500, 2000), latent_dim: int = 10
    ) -> None:
        super().__init__()
        check_widths(out_channels, hidden_channels, latent_dim)
        widths = [latent_dim, *reversed(hidden_channels)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.output = nn.Linear(widths[-1], out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation of the ReLU layers."""
        for layer in self.layers:
            _init_linear(layer, gain="relu")
        _init_linear(self.output, gain="linear")

    def hidden_states(self, z: Tensor) -> list[Tensor]:
        """Hidden states of the decoder, in its order."""
        states: list[Tensor] = []
        for layer in self.layers:
            z = layer(z).relu_()
            states.append(z)
        return states

    def forward(self, z: Tensor) -> Tensor:
        """[N, latent_dim] -> raw output [N, d]; a `Likelihood` gives it a meaning."""
        return self.output(self.hidden_states(z)[-1]).float()


class AutoEncoder(nn.Module):
    """An encoder and a decoder, whichever they are.

    Parameters
    ----------
    encoder : Module
        ``encoder(x) -> Encoding``; with a log-variance the model is a variational auto-encoder.
    decoder : Module
        ``decoder(z) -> raw output`` of the shape of x.
    """

    encoder: Any
    decoder: Any

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    @classmethod
    def mlp(
        cls,
        in_channels: int,
        hidden_channels: Sequence[int] = (500, 500, 2000),
        latent_dim: int = 10,
        *,
        variational: bool = False,
    ) -> AutoEncoder:
        """The fully connected auto-encoder d-500-500-2000-10 (or other widths), mirrored."""
        return cls(
            MLPEncoder(in_channels, hidden_channels, latent_dim, variational=variational),
            MLPDecoder(in_channels, hidden_channels, latent_dim),
        )

    @classmethod
    def conv(
        cls,
        image_shape: Sequence[int],
        channels: Sequence[int] = (32, 64, 128),
        latent_dim: int = 10,
        *,
        variational: bool = False,
        kernel_sizes: Sequence[int] | None = None,
        batch_norm: bool = True,
    ) -> AutoEncoder:
        """The fully convolutional auto-encoder of images in flat rows [N, H * W * C], see `ConvEncoder`; mirrored."""
        from graphclust.nn.convolutional import ConvDecoder, ConvEncoder  # it imports this module

        layers: dict[str, Any] = {"kernel_sizes": kernel_sizes, "batch_norm": batch_norm}
        return cls(
            ConvEncoder(image_shape, channels, latent_dim, variational=variational, **layers),
            ConvDecoder(image_shape, channels, latent_dim, **layers),
        )

    def encode(self, x: Tensor) -> Encoding:
        """[N, d] -> `Encoding`."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """[N, latent_dim] -> raw output [N, d]."""
        return self.decoder(z)

    def forward(self, x: Tensor) -> tuple[Encoding, Tensor]:
        """[N, d] -> encoding, raw reconstruction (through a sampled z when variational)."""
        encoding = self.encode(x)
        return encoding, self.decode(encoding.sample())


def _init_linear(layer: nn.Module, *, gain: str) -> None:
    assert isinstance(layer, nn.Linear)
    if gain == "relu":
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    else:
        nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
