"""What the pictures share: colours, images as cells of one size, and labels that do not cover each other."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from graphclust._labels import as_array

INK, FAINT, NOISE = "#262626", "#8c8c8c", "#cccccc"

# Ten colours that differ under the common colour-vision deficiencies and in grey (M. Petroff, Accessible
# Color Sequences for Data Visualization, arXiv:2107.02270), without its greys first.
_TEN = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#832db6",
    "#92dadd",
    "#a96b59",
    "#e76300",
    "#94a4a2",
    "#b9ac70",
    "#717581",
)


def palette(n_colors: int) -> list[Any]:
    """Colours for n clusters: a colour-blind-safe sequence up to ten, beyond that hue and lightness vary together."""
    if n_colors <= len(_TEN):
        return list(_TEN[:n_colors])
    k = np.arange(n_colors)
    # Steps of the golden angle never repeat a hue; the cycle of lightness separates those that come close.
    hue = k * math.pi * (3 - math.sqrt(5))
    lightness = np.array([58.0, 76.0, 42.0])[k % 3]
    return list(_lab_to_rgb(lightness, 48 * np.cos(hue), 48 * np.sin(hue)))


def _lab_to_rgb(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """CIELAB (white D65) to sRGB in [0, 1], clipped to the gamut."""
    fy = (lightness + 16) / 116
    f = np.stack([fy + a / 500, fy, fy - b / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * np.array([[0.9505], [1.0], [1.089]])
    matrix = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    linear = np.clip(matrix @ xyz, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).T


def cluster_colors(names: Sequence[Hashable]) -> list[Any]:
    """One colour per cluster; noise (-1) is light grey and takes none of the others."""
    colors = iter(palette(sum(name != -1 for name in names)))
    return [NOISE if name == -1 else next(colors) for name in names]


def short(name: Hashable, length: int = 14) -> str:
    """A label that fits its place."""
    text = str(name)
    if len(text) > length:  # names that begin alike differ in how they end
        end = (length - 1) // 3
        text = f"{text[: length - 1 - end]}…{text[len(text) - end :]}"
    return text.replace("$", r"\$")  # matplotlib would read what stands between two as a formula


def new_figure(width: float, height: float, title: str | None) -> Figure:
    """A figure of its own, outside pyplot's global list, with its title at the upper left."""
    figure = Figure(figsize=(width, height), dpi=120, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    if title:
        figure.suptitle(title, x=0.1 / width, ha="left", fontsize=13, fontweight="bold", color=INK)
    return figure


def plain_axes(axes: Axes) -> None:
    """No frame and no ticks, for pictures without a scale."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_frame_on(False)


def chart_axes(axes: Axes) -> None:
    """Two spines and a faint grid, for curves."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def spread(centres: np.ndarray, sizes: np.ndarray, n_rounds: int = 1000) -> np.ndarray:
    """Centres of boxes moved as little as needed for no two of them to overlap.

    Parameters
    ----------
    centres, sizes : ndarray of shape (K, 2)
        Centres, and widths and heights, in one unit.
    """
    moved = centres.astype(float) + np.arange(len(centres))[:, None] * 1e-6  # equal centres need a direction
    reach = (sizes[:, None] + sizes[None]) / 2
    for _ in range(n_rounds):
        gap = moved[:, None] - moved[None]
        overlap = reach - np.abs(gap)
        meets = (overlap > 0).all(axis=2)
        np.fill_diagonal(meets, False)
        if not meets.any():
            break
        # The shorter way out, each box going a part of it; the constant ends what halving would not.
        axis = overlap.argmin(axis=2)
        along = (np.take_along_axis(overlap, axis[..., None], 2)[..., 0] * 0.3 + 0.05) * meets
        direction = np.where(np.take_along_axis(gap, axis[..., None], 2)[..., 0] >= 0, 1.0, -1.0)
        moved[:, 0] += (along * direction * (axis == 0)).sum(axis=1)
        moved[:, 1] += (along * direction * (axis == 1)).sum(axis=1)
    return moved


# -- images --------------------------------------------------------------------------------------------------


def cells(images: Any, indices: Sequence[int] | np.ndarray, smallest: int = 32) -> np.ndarray:
    """Some of the images as RGB cells of one size.

    Parameters
    ----------
    images : array-like of shape (N, H, W), (N, H, W, C), (N, C, H, W) or (N, H * H), or sequence
        Or a sequence of arrays (H, W) or (H, W, C) of any sizes, or of image files.
    indices : sequence of int
        Which of them.
    smallest : int
        Images below this height are enlarged by a whole factor.

    Returns
    -------
    ndarray of shape (n, h, w, 3), float in [0, 1]
        Light images on a dark ground (scanned digits) are inverted: ink on paper.
    """
    chosen = _stack(images, np.asarray(indices, dtype=np.int64))
    low, top = value_range(chosen)
    chosen = (chosen - low) / (top - low)
    if (chosen == chosen[..., :1]).all():
        chosen = chosen[..., :1]
        border = np.concatenate([chosen[:, 0].ravel(), chosen[:, -1].ravel()])
        if np.median(border) < 0.4:
            chosen = 1 - chosen
        chosen = np.repeat(chosen, 3, axis=-1)
    factor = max(1, math.ceil(smallest / chosen.shape[1]))
    return chosen.repeat(factor, axis=1).repeat(factor, axis=2)


def value_range(images: np.ndarray) -> tuple[float, float]:
    """The values that are drawn black and white: of bytes 0 and 255, of others those of the data, and at least [0, 1].

    Small whole numbers, such as the 17 levels of a scanned digit, are no bytes.
    """
    low, high = min(images.min(), 0.0), max(images.max(), 1e-12)
    is_byte = 32 < high <= 255 and low >= 0 and bool(np.all(images == np.rint(images)))
    return float(low), 255.0 if is_byte else float(max(high, 1.0))


def _stack(images: Any, indices: np.ndarray) -> np.ndarray:
    """The chosen images as float (n, H, W, C) with C = 1 or 3."""
    if isinstance(images, (list, tuple)) and (
        isinstance(images[0], (str, os.PathLike)) or len({np.shape(image) for image in images}) > 1
    ):
        return np.stack([_fit(images[i]) for i in indices])
    array = images if hasattr(images, "shape") else np.asarray(images)
    if len(indices) and indices.max() >= len(array):
        raise ValueError(
            f"there are {len(array)} images and the labels number at least {indices.max() + 1} samples"
        )
    chosen = as_array(array[indices]).astype(np.float64)
    if chosen.ndim == 2:
        side = math.isqrt(chosen.shape[1])
        if side * side != chosen.shape[1]:
            raise ValueError(
                f"images has shape {tuple(array.shape)}: {chosen.shape[1]} values are no square image, "
                "reshape to (N, H, W) first"
            )
        chosen = chosen.reshape(-1, side, side)
    if chosen.ndim == 3:
        return chosen[..., None]
    if chosen.ndim == 4 and chosen.shape[-1] in (1, 3, 4):
        return chosen[..., :3]
    if chosen.ndim == 4 and chosen.shape[1] in (1, 3):
        return chosen.transpose(0, 2, 3, 1)
    raise ValueError(f"images has shape {tuple(array.shape)}: give (N, H, W), (N, H, W, C) or (N, C, H, W)")


def _fit(image: Any, side: int = 64) -> np.ndarray:
    """One image of any size in the middle of a square, (side, side, 3), in 0 .. 255."""
    from PIL import Image, ImageOps

    if isinstance(image, (str, os.PathLike)):
        with Image.open(image) as file:
            picture = file.convert("RGB")
    else:
        values = as_array(image).astype(np.float64)
        values = values * 255 if values.max() <= 1 else values
        picture = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8).squeeze()).convert("RGB")
    background = picture.getpixel((0, 0))
    return np.asarray(ImageOps.pad(picture, (side, side), color=background), dtype=np.float64)
