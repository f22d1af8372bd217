"""Pixels as features: flattened, in [0, 1]."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from graphclust.images.decode import UnreadableImage, read_size
from graphclust.images.encoders import Encoder
from graphclust.images.items import FileItem, Item
from graphclust.images.sources import Source

#: Images of one size, at most this long, are clustered by their pixels.
SMALL = 64
#: Beyond that, pixels are no features, and the images of a folder would fill the memory.
_MOST_PIXELS = 512 * 512
#: ITU-R 601, as Pillow turns colour into grey.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def are_small(opened: Source) -> bool:
    """Whether all images that can be read have one size of at most 64 x 64, by their headers."""
    if opened.pixels is not None:
        return max(opened.pixels.shape[1:3]) <= SMALL
    sizes = set()
    for item in opened.items:
        try:
            sizes.add(_size(item))
        except UnreadableImage:
            continue
        if len(sizes) > 1 or max(next(iter(sizes))) > SMALL:
            return False
    return True


def _size(item: FileItem | Item) -> tuple[int, int]:
    data = item.load()
    if isinstance(data, Image.Image):
        return data.size
    if isinstance(data, np.ndarray):
        return data.shape[1], data.shape[0]
    return read_size(io.BytesIO(data))


def pixel_encoder(size: tuple[int, int] | None) -> Encoder:
    """Hands pixels on as they are; ValueError for images that are large and keep their size."""

    def encode(images: NDArray[np.uint8]) -> NDArray[Any]:
        height, width = images.shape[1:3]
        if size is None and height * width > _MOST_PIXELS:
            raise ValueError(
                f"the pixels of images of {width} x {height} are too many for features: give a smaller size (size=64), "
                "or take the features of a network"
            )
        return images

    return Encoder("pixels", size, encode, "pixels", 32 if size else 1)  # at their own sizes they may differ


def as_features(pixels: NDArray[np.uint8], channels: int | None) -> NDArray[np.float32]:
    """Colour pixels [N, H, W, 3] in [0, 1]: [N, H, W] where grey is asked for, or where all of them are grey."""
    first = pixels[..., :1]
    grey = all(bool((first[..., 0] == pixels[..., other]).all()) for other in (1, 2))
    x = pixels.astype(np.float32)
    x /= 255
    if channels == 1 or (channels is None and grey):
        return x[..., 0] if grey else (x @ _LUMA).astype(np.float32)
    return x


def array_features(
    pixels: NDArray[Any], channels: int | None, value_range: tuple[float, float]
) -> NDArray[np.float32]:
    """An array of images [N, H, W] or [N, H, W, C] (C = 1 or 3) in [0, 1], by one scale for all of them.

    `value_range` are the values that become 0 and 1.
    """
    x = pixels.astype(np.float32)
    x = x[..., 0] if x.shape[3:] == (1,) else x
    low, high = value_range
    x = (x - np.float32(low)) / np.float32((high - low) or 1.0)
    if channels == 1 and x.ndim == 4:
        x = (x @ _LUMA).astype(np.float32)
    if channels == 3 and x.ndim == 3:
        x = np.repeat(x[..., None], 3, axis=3)
    return x
