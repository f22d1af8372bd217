"""Scaling of the input inside the model, so that stored features stay as the user gave them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SCALES = ("auto", "minmax", "standard", "none")


class FeatureScale(nn.Module):
    """``(x - shift) * factor`` with one factor for all features: distances keep their proportions.

    - "minmax": to [0, 1] by the smallest and the largest value of the whole matrix (pixels, counts).
    - "standard": each feature's mean to 0, the mean variance of the features to 1.
    - "none": as given.
    - "auto": "standard" where values are negative, "none" for data that fill [0, 1] (the smallest value is at most
      1/4, the largest at least 1/2), else "minmax".

    Attributes
    ----------
    unit_range : bool
        Whether the scaled training data lie in [0, 1], where a Bernoulli decoder is defined.
    """

    shift: Tensor
    factor: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(n_features))
        self.register_buffer("factor", torch.ones(()))
        self.unit_range = False

    def fit(self, x: Tensor, scale: str = "auto", *, block_size: int = 65536) -> FeatureScale:
        """Read the scale off the data x [N, d], block by block (x may be memory-mapped)."""
        if scale not in SCALES:
            raise ValueError(f"scale is {scale!r}, it must be one of {list(SCALES)}")
        # 32 MiB of float64, however wide the rows.
        block_size = max(1, min(block_size, (1 << 22) // x.shape[1]))
        low, high = float("inf"), float("-inf")
        total = torch.zeros(x.shape[1], dtype=torch.float64)
        squares = torch.zeros(x.shape[1], dtype=torch.float64)
        for block in x.split(block_size):
            block = block.to("cpu", torch.float64)
            low, high = min(low, float(block.min())), max(high, float(block.max()))
            total += block.sum(dim=0)
            squares += block.square().sum(dim=0)
        if scale == "auto":
            # What lies far from 0, or near it, networks with small first weights take for a constant.
            fills = low <= 0.25 and 0.5 <= high <= 1
            scale = "standard" if low < 0 else "none" if fills or low == high else "minmax"
        if scale == "minmax":
            self.shift.fill_(low)
            self.factor.fill_(1.0 / (high - low) if high > low else 1.0)
        elif scale == "standard":
            mean = total / x.shape[0]
            variance = float((squares / x.shape[0] - mean.square()).clamp_min(0).mean())
            self.shift.copy_(mean)
            self.factor.fill_(variance**-0.5 if variance > 0 else 1.0)
        self.unit_range = scale == "minmax" or (scale == "none" and low >= 0 and high <= 1)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Stored features of any numeric type [n, d] -> scaled float32 [n, d]."""
        return (x.float() - self.shift) * self.factor

    def inverse(self, x: Tensor) -> Tensor:
        """Back to the units of the data."""
        return x / self.factor + self.shift
