"""Views of images: their pixels, the directions of their edges, and what a pretrained network sees in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from graphclust._messages import shown
from graphclust._progress import tracked
from graphclust.images.encoders import EFFICIENTNET_LAYERS, make_encoder
from graphclust.methods.views import View, n_different, view_of
from graphclust.nn.gradient_histograms import GradientHistograms
from graphclust.nn.vector_scale import VectorScale
from graphclust.training.inference import in_blocks

#: Names of the views of images beside their pixels.
VIEWS = ("gradients", "pretrained")
#: Side of images up to which pixels are a view too: few pixels hold few directions, and are compared one by one.
_TINY = 10
#: Share of the pictures that differ that have to differ in a view.
_TOLD = 0.9
#: Pictures that a pretrained network reads: it takes ten times as long as all else.
_READ = 5_000
#: Side that it reads them in, at most so many times their own.
_SIDE, _ENLARGED = 96, 8
#: Columns of its two inner feature maps and of its last one (`graphclust.images.efficientnet.LayerFeatures`).
_DEPTHS = (224, 384, 1280)


def chosen_views(views: Any) -> Sequence[str]:
    """The names of views that `views` stands for: "auto", None, or some of `VIEWS`."""
    if isinstance(views, str) and views == "auto":
        return VIEWS
    chosen = () if views is None else views
    if isinstance(chosen, str) or not set(chosen) <= set(VIEWS):
        raise ValueError(f"views={shown(views)} is unknown: use 'auto', None or some of {list(VIEWS)}")
    return tuple(chosen)


def image_views(
    views: Any, x: Tensor, image_shape: Any, pixels: View, options: dict[str, Any], seed: int, device: Any
) -> list[View]:
    """Views of pictures in rows x [N, H * W * C]: those of all pictures first.

    That of the pixels is one of them where pictures are tiny, or have no edges to look at.

    Parameters
    ----------
    views : "auto", None or sequence of str
        See `chosen_views`; "auto" does without a pretrained network where its weights are not installed.
    x : Tensor
    image_shape : (H, W, C)
    pixels : View
    options : dict
        Of `SampleGraph.from_features`.
    seed : int
    device : torch.device
    """
    chosen = chosen_views(views)
    if n_different(x) == 1:  # a network would read rounding into equal pictures
        return [pixels]
    options = dict(options)
    verbose = bool(options.pop("verbose", False))
    found = [pixels]
    gradients = gradient_view(x, image_shape, options, seed) if "gradients" in chosen else None
    if gradients is not None:
        found = [pixels, gradients] if min(image_shape[:2]) <= _TINY else [gradients]
    if "pretrained" in chosen:
        required = not isinstance(views, str)
        found += pretrained_views(x, image_shape, options, seed, device, required=required, verbose=verbose)
    return found


def gradient_view(x: Tensor, image_shape: Any, options: dict[str, Any], seed: int) -> View | None:
    """By the directions of edges (`GradientHistograms`).

    None where these do not tell pictures apart: below four pixels, and where a tenth of those that differ do not differ
    in them (plain ones, of other colours or brightness).
    """
    if min(image_shape[:2]) < 4:
        return None
    features = in_blocks(GradientHistograms(image_shape), x, block_size=1024)
    told, given = n_different(features), n_different(x)
    return view_of(features, options, seed) if told > 1 and told >= _TOLD * given else None


def pretrained_views(
    x: Tensor,
    image_shape: Any,
    options: dict[str, Any],
    seed: int,
    device: Any,
    *,
    required: bool = False,
    verbose: bool = False,
) -> list[View]:
    """By EfficientNet-Lite0's feature maps of three depths, whitened together and each by itself.

    None without the extra ``images``. Of more than 5,000 pictures a random part of that size is read, the same for
    every seed.
    """
    side = min(_SIDE, _ENLARGED * max(image_shape[:2]))
    try:
        encoder = make_encoder(EFFICIENTNET_LAYERS, side, torch.device(device))
    except ImportError:
        if required:
            raise
        return []
    rows = None
    if len(x) > _READ:
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:_READ].sort().values
    picked = x if rows is None else x[rows]
    low, high = float(picked.min()), float(picked.max())
    read = []
    for block in tracked(picked.split(encoder.batch_size), f"Reading images by {encoder.name}", verbose):
        maps = block.float().unflatten(1, image_shape).permute(0, 3, 1, 2)
        maps = (maps - low) * (255 / max(high - low, 1e-30))
        if maps.shape[1] != 3:
            maps = maps.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
        maps = interpolate(maps, (side, side), mode="bicubic", antialias=True).round().clamp(0, 255)
        read.append(torch.from_numpy(encoder.encode(maps.permute(0, 2, 3, 1).byte().cpu().numpy())))
    features = torch.cat(read)

    def whitened(columns: Tensor) -> Tensor:
        return VectorScale(columns.shape[1], "whitened").fit(columns)(columns)

    together = whitened(features)
    apart = torch.cat([normalize(whitened(columns)) for columns in features.split(_DEPTHS, dim=1)], dim=1)
    return [view_of(f, options, seed, rows) for f in (together, apart)]
