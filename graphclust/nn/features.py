"""Networks from samples to features in which samples of one kind lie together, and their classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from graphclust.nn.convolutional import BatchNorm, check_image_shape
from graphclust.nn.scaling import FeatureScale
from graphclust.nn.vector_scale import VectorScale


class RowNorm(nn.BatchNorm1d):
    """Batch normalisation of rows that takes a batch of one too: with the running statistics, which it leaves alone."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, d] -> normalised, same shape."""
        if self.training and input.shape[0] == 1:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


class ConvFeatures(nn.Module):
    """Features of images: 3 x 3 convolutions with batch normalisation and ReLU, the mean of each quarter, one product.

    The second and the third convolution halve the picture; in pictures of ten pixels or less the third alone, because
    nothing would be left to compare.

    Parameters
    ----------
    image_shape : (H, W) or (H, W, C)
    channels : sequence of int
        Of the convolutions, at least one.
    out_channels : int
        Number of features.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        channels: Sequence[int] = (32, 64, 128, 128),
        out_channels: int = 128,
    ) -> None:
        super().__init__()
        height, width, depth = self.image_shape = check_image_shape(image_shape)
        halved = (2,) if min(height, width) <= 10 else (1, 2)
        layers: list[nn.Module] = []
        for number, wide in enumerate(channels):
            # oneDNN was seen to read memory beyond pictures one or two pixels wide where products are in bfloat16 and a
            # step is two pixels: they are not halved again.
            down, across = (2 if number in halved and side > 2 else 1 for side in (height, width))
            layers += [
                nn.Conv2d(depth, wide, 3, (down, across), 1, bias=False),
                BatchNorm(wide),
                nn.ReLU(inplace=True),
            ]
            height, width, depth = -(-height // down), -(-width // across), wide
        self.body = nn.Sequential(*layers)
        quarters = min(2, height), min(2, width)
        self.pool = nn.AdaptiveAvgPool2d(quarters)
        self.output = nn.Linear(depth * quarters[0] * quarters[1], out_channels, bias=False)
        self.norm = RowNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures in rows [N, H * W * C] -> features [N, out_channels]."""
        maps = x.unflatten(1, self.image_shape).permute(0, 3, 1, 2)
        return self.norm(self.output(self.pool(self.body(maps)).flatten(1)))


class MLPFeatures(nn.Module):
    """Features of vectors: fully connected layers with batch normalisation and ReLU, and one product.

    Parameters
    ----------
    in_channels : int
        d.
    hidden_channels : sequence of int
        Widths of the layers between.
    out_channels : int
        Number of features.
    """

    def __init__(
        self, in_channels: int, hidden_channels: Sequence[int] = (512, 512), out_channels: int = 128
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide in hidden_channels:
            layers += [nn.Linear(in_channels, wide, bias=False), RowNorm(wide), nn.ReLU(inplace=True)]
            in_channels = wide
        self.body = nn.Sequential(*layers)
        self.output = nn.Linear(in_channels, out_channels, bias=False)
        self.norm = RowNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels] -> [N, out_channels]."""
        return self.norm(self.output(self.body(x)))


class FeatureClassifier(nn.Module):
    """Features of samples, and from them the parts and the clusters that the samples belong to.

    Parameters
    ----------
    scale : FeatureScale or VectorScale
        From stored samples to the network's input.
    augment : Module
        Random changes of the input in training, none in evaluation.
    features : Module
        [N, d] -> [N, f].
    n_features : int
        f.
    n_parts : int
        Of one split of the samples; 0 leaves the classifiers of parts out.
    n_clusters : int
    n_splits : int, default=1
        Splits of the same samples into parts, each with a classifier of its own.
    """

    features: Any

    def __init__(
        self,
        scale: FeatureScale | VectorScale,
        augment: nn.Module,
        features: nn.Module,
        n_features: int,
        n_parts: int,
        n_clusters: int,
        n_splits: int = 1,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.augment = augment
        self.features = features
        self.n_splits = n_splits
        self.parts = nn.Linear(n_features, n_splits * n_parts) if n_parts else None
        self.clusters = nn.Linear(n_features, n_clusters)

    def hidden(self, x: Tensor) -> Tensor:
        """What the classifiers read, of changed samples in training: [N, d] -> [N, f], at least 0."""
        return self.features(self.augment(self.scale(x))).relu()

    def part_logits(self, x: Tensor) -> Tensor:
        """[N, d] -> [N, n_splits, n_parts]."""
        assert self.parts is not None
        return self.parts(self.hidden(x)).unflatten(1, (self.n_splits, -1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, d] -> logits of the clusters [N, K]."""
        return self.clusters(self.hidden(x))

    def embed(self, x: Tensor) -> Tensor:
        """Features of length 1, in which the sample graph is built: [N, d] -> [N, f]."""
        return F.normalize(self.features(self.augment(self.scale(x))))

    def embed_and_classify(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What `embed` and `forward` give, from features that are computed once: [N, d] -> [N, f], [N, K]."""
        features = self.features(self.augment(self.scale(x)))
        return F.normalize(features), self.clusters(features.relu())
