"""Convolutional encoders and decoders of images, with the interface of the fully connected ones."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphclust._checks import check_count
from graphclust._messages import shown
from graphclust.nn.autoencoder import Encoding

Pair = tuple[int, int]

#: Pixels across. Seen with one and two (torch 2.13), and only where a step is two pixels.
_NARROW = 2


def check_image_shape(image_shape: Any, name: str = "image_shape") -> tuple[int, int, int]:
    """Return (H, W) or (H, W, C) as (height, width, channels), all at least 1; else raise ValueError or TypeError."""
    if isinstance(image_shape, (str, numbers.Number)) or not hasattr(image_shape, "__len__"):
        raise TypeError(
            f"{name}={shown(image_shape)} is no shape; give (height, width) or (height, width, channels)"
        )
    if len(image_shape) not in (2, 3):
        raise ValueError(
            f"{name}={shown(image_shape)} must be (height, width) or (height, width, channels), it has "
            f"{len(image_shape)} numbers"
        )
    height, width, *channels = (check_count(size, f"a size of {name}") for size in image_shape)
    return height, width, channels[0] if channels else 1


def check_channels(channels: Sequence[int]) -> list[int]:
    """Return the channels of the layers, at least one layer and one channel in each; else raise."""
    if not len(channels):
        raise ValueError("channels is empty, it must name the channels of at least one layer")
    return [check_count(number, "channels") for number in channels]


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that can be evaluated after few batches, and takes a batch of one sample.

    - The first ten batches count alike in the running statistics, later ones a tenth: torch's own layer mixes the start
      (mean 0, variance 1) in, which after two full batches is still four fifths of what evaluation reads.
    - One sample is no estimate of a mean and a variance: it is normalised by the running statistics, and leaves them
      alone. Torch's own layer raises an error, or normalises the picture by itself alone.
    """

    _young = True

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] -> normalised, same shape."""
        if self.training and input.shape[0] == 1:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        if self.training and self._young:
            assert self.num_batches_tracked is not None
            seen = int(self.num_batches_tracked)
            self.momentum = max(0.1, 1.0 / (seen + 1))
            self._young = seen < 10
        return super().forward(input)


class _Strided(NamedTuple):
    """One convolution with stride 2: from maps of `size` with `in_channels` to the next."""

    in_channels: int
    out_channels: int
    size: Pair
    kernel: Pair

    @property
    def padding(self) -> Pair:
        return self.kernel[0] // 2, self.kernel[1] // 2

    @property
    def next_size(self) -> Pair:
        return (self.size[0] + 1) // 2, (self.size[1] + 1) // 2


def _strided(image_shape: Any, channels: Sequence[int], kernel_sizes: Sequence[int] | None) -> list[_Strided]:
    """The encoder's layers.

    A convolution of odd width k with stride 2 and padding (k - 1) / 2 takes n pixels to ceil(n / 2), for every n >= 1,
    and the transposed one goes back to n with the right output padding: no size of picture is cut or filled up.
    """
    height, width, depth = check_image_shape(image_shape)
    channels = check_channels(channels)
    if kernel_sizes is None:
        kernel_sizes = [*[5] * (len(channels) - 1), 3]
    if len(kernel_sizes) != len(channels) or any(k < 1 or k % 2 == 0 for k in kernel_sizes):
        raise ValueError(
            f"kernel_sizes={tuple(kernel_sizes)!r} must hold one odd number for each of the {len(channels)} layers"
        )
    layers: list[_Strided] = []
    size = height, width
    for out_channels, k in zip(channels, kernel_sizes, strict=True):
        # What reaches further than the picture on both sides would read zeros alone.
        kernel = min(k, 2 * size[0] - 1), min(k, 2 * size[1] - 1)
        layers.append(_Strided(depth, out_channels, size, kernel))
        size, depth = layers[-1].next_size, out_channels
    return layers


def _channels_last(weight: Tensor) -> Tensor:
    """The weight in the order of its input, in which a step on the CPU was measured a quarter faster.

    The parameter itself stays contiguous: an optimiser restored from a checkpoint has contiguous moments, and the fused
    Adam reads parameter and moments side by side in memory.
    """
    return weight.contiguous(memory_format=torch.channels_last)


@contextmanager
def _exact_where_narrow(maps: Tensor) -> Iterator[Tensor]:
    """Maps for a strided product: those so narrow that oneDNN's in bfloat16 reads memory beyond them, in float32."""
    if maps.shape[-1] > _NARROW:
        yield maps
        return
    with torch.autocast(maps.device.type, enabled=False):
        yield maps.float()


class _Conv(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        with _exact_where_narrow(input) as maps:
            return self._conv_forward(maps, _channels_last(self.weight), self.bias)


class _ConvTranspose(nn.ConvTranspose2d):
    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        weight, stride = _channels_last(self.weight), self.stride
        pads: Any = (self.padding, self.output_padding)  # tuples, whatever the base class allows
        with _exact_where_narrow(input) as maps:
            return F.conv_transpose2d(maps, weight, self.bias, stride, *pads)


def _rows(maps: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, H * W * C]: a view of a tensor in channels-last order."""
    return maps.permute(0, 2, 3, 1).flatten(1)


class ConvEncoder(nn.Module):
    """Fully convolutional encoder of images (after DBC, Li et al. 2018): strided convolutions, no pooling.

    Each layer is a convolution with stride 2, batch normalisation and ReLU; the code comes from a convolution as large
    as the map that is left. The default widths are those of DEC-DA (Guo et al. 2018): 5 x 5 with 32 channels, 5 x 5
    with 64, 3 x 3 with 128. Pictures are flat rows [N, H * W * C] in the order of an array [N, H, W, C]. That is
    torch's channels-last order: no copy is made, and convolutions on the CPU are fastest in it.

    Parameters
    ----------
    image_shape : (H, W) or (H, W, C)
        Any size, also odd ones and pictures of one row.
    channels : sequence of int, default=(32, 64, 128)
        Channels of the layers; each halves height and width, rounded up.
    latent_dim : int, default=10
        Width of the latent code.
    variational : bool, default=False
        Also give a log-variance.
    kernel_sizes : sequence of int, optional
        Odd, one a layer; by default 5, and 3 for the last.
    batch_norm : bool, default=True
        Normalise after every layer but the last.

    Attributes
    ----------
    in_channels : int
        H * W * C.
    hidden_channels : tuple of int
        Widths of the hidden states as rows.
    """

    layers: Any
    norms: Any

    def __init__(
        self,
        image_shape: Sequence[int],
        channels: Sequence[int] = (32, 64, 128),
        latent_dim: int = 10,
        *,
        variational: bool = False,
        kernel_sizes: Sequence[int] | None = None,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.image_shape = height, width, depth = check_image_shape(image_shape)
        check_count(latent_dim, "latent_dim")
        plan = _strided(image_shape, channels, kernel_sizes)
        self.in_channels = height * width * depth
        self.hidden_channels = tuple(p.next_size[0] * p.next_size[1] * p.out_channels for p in plan)
        self.latent_dim = latent_dim
        self.layers = nn.ModuleList(
            _Conv(p.in_channels, p.out_channels, p.kernel, 2, p.padding, bias=not batch_norm) for p in plan
        )
        self.norms = nn.ModuleList(BatchNorm(c) if batch_norm else nn.Identity() for c in channels)
        self.mean = _Conv(channels[-1], latent_dim, plan[-1].next_size)
        self.log_variance = _Conv(channels[-1], latent_dim, plan[-1].next_size) if variational else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation of the ReLU layers; a small start for the log-variance, so that exp() stays tame."""
        for layer in self.layers:
            _init_conv(layer, layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1], gain=2.0)
        nn.init.xavier_normal_(self.mean.weight)
        nn.init.zeros_(_bias(self.mean))
        if self.log_variance is not None:
            nn.init.normal_(self.log_variance.weight, std=1e-3)
            nn.init.zeros_(_bias(self.log_variance))

    def forward(self, x: Tensor) -> Encoding:
        """[N, H * W * C] -> hidden states (rows as well), latent mean and (variational) log-variance."""
        h = x.unflatten(1, self.image_shape).permute(0, 3, 1, 2)
        hidden: list[Tensor] = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = norm(layer(h)).relu_()
            hidden.append(_rows(h))
        log_variance = None
        if self.log_variance is not None:
            log_variance = _rows(self.log_variance(h)).float().clamp(-20.0, 20.0)
        return Encoding(hidden, _rows(self.mean(h)).float(), log_variance)


class ConvDecoder(nn.Module):
    """Fully convolutional decoder, the encoder mirrored: a map from the code, then transposed convolutions.

    Batch normalisation and ReLU after every layer but the last.

    Parameters
    ----------
    image_shape, channels, latent_dim, kernel_sizes, batch_norm
        Those of the `ConvEncoder`; the decoder takes its layers in reverse.
    """

    layers: Any
    norms: Any

    def __init__(
        self,
        image_shape: Sequence[int],
        channels: Sequence[int] = (32, 64, 128),
        latent_dim: int = 10,
        *,
        kernel_sizes: Sequence[int] | None = None,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.image_shape = check_image_shape(image_shape)
        check_count(latent_dim, "latent_dim")
        plan = _strided(image_shape, channels, kernel_sizes)[::-1]
        self.layers = nn.ModuleList(
            [_ConvTranspose(latent_dim, channels[-1], plan[0].next_size, bias=not batch_norm)]
        )
        for p in plan:
            # With stride 2 an even size and the odd one below it have the same map: this tells them apart.
            filled = 1 - p.size[0] % 2, 1 - p.size[1] % 2
            bias = not batch_norm or p is plan[-1]
            layer = _ConvTranspose(p.out_channels, p.in_channels, p.kernel, 2, p.padding, filled, bias=bias)
            self.layers.append(layer)
        self.norms = nn.ModuleList(BatchNorm(p.out_channels) if batch_norm else nn.Identity() for p in plan)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation of the ReLU layers, by the inputs that one output reads."""
        first, *strided = self.layers
        _init_conv(first, first.in_channels, gain=2.0)
        for layer in strided:
            read = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1] / 4
            _init_conv(layer, read, gain=1.0 if layer is strided[-1] else 2.0)

    def _maps(self, z: Tensor) -> list[Tensor]:
        h, maps = z[:, :, None, None], []
        for layer, norm in zip(self.layers[:-1], self.norms, strict=True):
            h = norm(layer(h)).relu_()
            maps.append(h)
        return maps

    def hidden_states(self, z: Tensor) -> list[Tensor]:
        """Hidden states of the decoder as rows, in its order."""
        return [_rows(h) for h in self._maps(z)]

    def forward(self, z: Tensor) -> Tensor:
        """[N, latent_dim] -> raw output [N, H * W * C]; a `Likelihood` gives it a meaning."""
        return _rows(self.layers[-1](self._maps(z)[-1])).float()


def _init_conv(layer: Any, fan_in: float, *, gain: float) -> None:
    """Normal weights of variance gain / fan_in (2 before a ReLU: He et al. 2015), no bias."""
    nn.init.normal_(layer.weight, std=(gain / max(fan_in, 1.0)) ** 0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
