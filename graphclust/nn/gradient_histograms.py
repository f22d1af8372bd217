"""Histograms of oriented gradients: what lines there are, and where, whatever the brightness."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphclust._checks import check_count
from graphclust.nn.convolutional import check_image_shape

#: Share of a picture's mean energy that each cell's is raised by, so that noise on plain ground stays small.
_FLOOR = 0.05


class GradientHistograms(nn.Module):
    r"""Pictures by the directions of their edges, in cells, each relative to the energy around it.

    The gradient of each pixel, of the channel where it is largest, votes with its length for the two nearest of B
    directions in [0, pi). Votes are averaged over 3 x 3 pixels and over cells, and divided by the root of the energy
    in the 3 x 3 cells around,

    .. math:: f_{cb} = \frac{h_{cb}}{\sqrt{E_c + 0.05 \bar E}}, \quad E_c = \frac19 \sum_{c' \sim c} \sum_b h_{c'b}^2

    (Dalal & Triggs 2005; their blocks, here one around each cell). Neighbours of pixels are alike in brightness,
    stroke width and place; neighbours of these features are alike in shape. No network is needed for it.

    Own code, because scikit-image's `hog` takes one picture at a time, without the energy around each cell.

    Parameters
    ----------
    image_shape : (H, W) or (H, W, C)
    n_cells : int, default=7
        Along each side; no more than half as many as the picture has pixels.
    n_bins : int, default=9
        B.
    """

    def __init__(self, image_shape: Sequence[int], n_cells: int = 7, n_bins: int = 9) -> None:
        super().__init__()
        self.image_shape = check_image_shape(image_shape)
        check_count(n_cells, "n_cells")
        # A cell of less than two pixels is moved away by what a hand does not notice.
        height, width, _ = self.image_shape
        self.n_cells = min(n_cells, max(1, height // 2)), min(n_cells, max(1, width // 2))
        self.n_bins = check_count(n_bins, "n_bins")

    @property
    def n_features(self) -> int:
        """Columns of the result."""
        return self.n_cells[0] * self.n_cells[1] * self.n_bins

    def forward(self, x: Tensor) -> Tensor:
        """Pictures in rows [N, H * W * C] -> [N, cells * n_bins]; plain pictures are all zeros."""
        maps = x.float().unflatten(1, self.image_shape).permute(0, 3, 1, 2)
        around = F.pad(maps, (1, 1, 1, 1), mode="replicate")
        right = around[:, :, 1:-1, 2:] - around[:, :, 1:-1, :-2]
        down = around[:, :, 2:, 1:-1] - around[:, :, :-2, 1:-1]
        length, channel = torch.hypot(right, down).max(dim=1, keepdim=True)
        right, down = right.gather(1, channel), down.gather(1, channel)
        # Directions without a sign: a dark line on light ground is the line that a light one on dark ground is.
        direction = torch.atan2(down, right).remainder(math.pi) * (self.n_bins / math.pi)
        lower = direction.floor()
        share = direction - lower
        lower = lower.long() % self.n_bins
        votes = maps.new_zeros(len(maps), self.n_bins, *maps.shape[2:])
        votes.scatter_add_(1, lower, length * (1 - share))
        votes.scatter_add_(1, (lower + 1) % self.n_bins, length * share)
        cells = F.adaptive_avg_pool2d(F.avg_pool2d(votes, 3, 1, 1), self.n_cells)
        energy = cells.square().sum(dim=1, keepdim=True)
        near = F.avg_pool2d(F.pad(energy, (1, 1, 1, 1), mode="replicate"), 3, 1)
        scale = near + _FLOOR * energy.mean(dim=(1, 2, 3), keepdim=True)
        return (cells * scale.clamp_min(torch.finfo(scale.dtype).tiny).rsqrt()).flatten(1)
