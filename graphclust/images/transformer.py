"""Vision networks of the library transformers: DINOv2, DINOv3, CLIP, SigLIP and others, without torchvision."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

_PROCESSOR = "preprocessor_config.json"
_DEFAULT_SIZE = 224


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A network, and how it wants its images: their side, mean and standard deviation of pixels in [0, 1]."""

    model: nn.Module
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class _ImageTower(nn.Module):
    """The image side of a network of images and texts (CLIP, SigLIP)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Any:
        return self.model.get_image_features(pixel_values=pixel_values)


def load_transformer(name: str) -> LoadedNetwork:
    """Load a network by its name on the hub, which downloads it once, or from a local folder.

    The preprocessing is read from the network's own ``preprocessor_config.json``; decoding and sizing are ours, as for
    every other network.

    Raises
    ------
    ImportError
        Without transformers.
    OSError
        If the network is neither in the folder or the cache nor to be had from the hub.
    """
    try:
        from transformers import AutoModel
        from transformers.utils import cached_file
    except ImportError as error:
        raise ImportError(
            f"the network {name!r} needs the library transformers: pip install 'graphclust[transformers]'"
        ) from error
    try:
        model = AutoModel.from_pretrained(name)
        config = cached_file(name, _PROCESSOR, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"the network {name!r} cannot be loaded ({reason}): name a local folder that save_pretrained wrote, or a "
            "network that the hub has and that you may download"
        ) from error
    how: dict[str, Any] = {}
    if config is not None:
        with open(config, encoding="utf-8") as file:
            how = json.load(file)
    size = _side(how.get("crop_size") if how.get("do_center_crop", True) else None) or _side(how.get("size"))
    mean, std = (tuple(how.get(key) or (0.5,) * 3) for key in ("image_mean", "image_std"))
    tower = _ImageTower(model) if hasattr(model, "get_image_features") else model
    return LoadedNetwork(tower.eval().requires_grad_(False), size or _DEFAULT_SIZE, mean, std)


def _side(size: Any) -> int | None:
    """Side of the square from the forms that configurations use: a number, or a mapping of sides."""
    if isinstance(size, dict):
        return next((int(size[key]) for key in ("height", "shortest_edge", "width") if size.get(key)), None)
    return int(size) if size else None
