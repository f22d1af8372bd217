"""Random changes of samples that leave their class as it is: small movements of pictures, noise on vectors.

Both are modules from rows [N, d] to rows [N, d] on the rows' own device, each sample changed by itself; in evaluation
mode they change nothing. Own code, because the libraries with such transforms do not fit: torchvision brings its own
binaries, and kornia (0.9) wants Python 3.11, takes a second to import and was measured at two and a half times the time
of one call of torch's `grid_sample`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphclust._checks import check_choice, check_number
from graphclust.nn.convolutional import check_image_shape


def affine_matrices(angle: Tensor, zoom: Tensor, shear: Tensor, shift: Tensor) -> Tensor:
    """Matrices that tell for each pixel of the result where it is read, in pixels from the picture's centre.

    The picture is zoomed, then sheared (x grows by tan(shear) y), turned, and moved. With y pointing down, a positive
    angle turns it clockwise. The matrix is the inverse of that: ``p_in = Z^-1 S^-1 R^-1 (p_out - shift)``.

    Parameters
    ----------
    angle, zoom, shear : Tensor [N]
        Radians, factor, radians.
    shift : Tensor [N, 2]
        To the right and down, in pixels.

    Returns
    -------
    Tensor [N, 2, 3]
    """
    cos, sin, tan = angle.cos(), angle.sin(), shear.tan()
    # Z^-1 S^-1 R^-1 with R^-1 = [[cos, sin], [-sin, cos]] and S^-1 = [[1, -tan], [0, 1]].
    rows = [torch.stack([cos + tan * sin, sin - tan * cos], dim=1), torch.stack([-sin, cos], dim=1)]
    linear = torch.stack(rows, dim=1) / zoom[:, None, None]
    return torch.cat([linear, -(linear * shift[:, None]).sum(dim=2, keepdim=True)], dim=2)


def warp_rows(x: Tensor, image_shape: Sequence[int], matrices: Tensor, padding: str = "zeros") -> Tensor:
    """Pictures in rows [N, H * W * C], read at other places by bilinear interpolation; same shape.

    Parameters
    ----------
    matrices : Tensor [N, 2, 3]
        As `affine_matrices` gives them.
    padding : {"zeros", "border"}
        What stands outside of a picture.
    """
    height, width, channels = check_image_shape(image_shape)
    pictures = x.float().unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)
    # torch measures from the centre in halves of the picture's size.
    half = torch.tensor([width / 2, height / 2], device=x.device)
    ones = torch.ones(1, device=x.device)
    # Without autocast: a place in bfloat16 is off by a tenth of a pixel.
    with torch.autocast(x.device.type, enabled=False):
        theta = matrices * torch.cat([half, ones]) / half[:, None]
        grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
        moved = F.grid_sample(pictures, grid, padding_mode=padding, align_corners=False)
    return moved.permute(0, 2, 3, 1).flatten(1).to(x.dtype)


class RandomAffine(nn.Module):
    """Each picture shifted, turned, zoomed and sheared at random, in one pass over the batch.

    Parameters
    ----------
    image_shape : (H, W) or (H, W, C)
    degrees : float, default=10.0
        Angles are drawn from [-degrees, degrees].
    translate : float, default=0.1
        Shifts are drawn from [-translate, translate], as a share of width and height.
    scale : (float, float), default=(0.9, 1.1)
        Range of the zoom; (1, 1) leaves the size.
    shear : float, default=0.0
        Angles of the shear along a row are drawn from [-shear, shear], in degrees below 90.
    padding : {"zeros", "border"}, default="zeros"
        What comes in from outside: zeros, or the pixel at the border.
    generator : torch.Generator, optional
        Of the rows' device; by default torch's own of that device, which a `Trainer` seeds.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        degrees: float = 10.0,
        translate: float = 0.1,
        scale: tuple[float, float] = (0.9, 1.1),
        shear: float = 0.0,
        *,
        padding: str = "zeros",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.image_shape = check_image_shape(image_shape)
        self.degrees = check_number(degrees, "degrees", 0.0)
        self.translate = check_number(translate, "translate", 0.0)
        low = check_number(scale[0], "scale[0]", 0.0, open_low=True)
        self.scale = low, check_number(scale[1], "scale[1]", low)
        self.shear = check_number(shear, "shear", 0.0, 89.0)
        self.padding = check_choice(padding, "padding", ("zeros", "border"))
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """Rows [N, d] -> changed rows [N, d]; in evaluation mode the same rows."""
        if not self.training:
            return x
        u = torch.rand(5, x.shape[0], device=x.device, generator=self.generator)
        symmetric = 2.0 * u - 1.0
        height, width, _ = self.image_shape
        size = torch.tensor([width, height], device=x.device)
        low, high = self.scale
        matrices = affine_matrices(
            math.radians(self.degrees) * symmetric[0],
            low + (high - low) * u[1],
            math.radians(self.shear) * symmetric[2],
            self.translate * size * symmetric[3:].T,
        )
        return warp_rows(x, self.image_shape, matrices, self.padding)


class RandomNoise(nn.Module):
    """For samples that are no pictures: some features are set to zero, then Gaussian noise is added.

    The masking noise of denoising auto-encoders (Vincent et al. 2010): what is left is not scaled up.

    Parameters
    ----------
    dropout : float, default=0.2
        Share of the features that are set to zero, in [0, 1].
    noise : float, default=0.1
        Standard deviation of the noise, in the units of the rows.
    generator : torch.Generator, optional
        Of the rows' device; by default torch's own of that device, which a `Trainer` seeds.
    """

    def __init__(
        self, dropout: float = 0.2, noise: float = 0.1, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.dropout = check_number(dropout, "dropout", 0.0, 1.0)
        self.noise = check_number(noise, "noise", 0.0)
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """Rows [N, d] -> changed rows [N, d]; in evaluation mode the same rows."""
        if not self.training:
            return x
        kept = torch.rand(x.shape, device=x.device, generator=self.generator) >= self.dropout
        noise = torch.randn(x.shape, device=x.device, generator=self.generator)
        return (x * kept + self.noise * noise).to(x.dtype)
