"""Thumbnails of all samples as sprite sheets: a page of 100,000 images loads a few hundred files, each when needed."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, features

from graphclust._labels import as_array
from graphclust.report._style import _stack, value_range

__all__ = ["Sheets", "thumbnail_sheets"]

Progress = Callable[[int, int], None]

_PIXELATED = 40  # images up to this many pixels are drawn with hard edges, as the pixels that they are
_LOSSLESS = 16  # below this a lossy code's blocks would be as large as the image
_SHEET = 768  # side of a sheet in pixels: decoding one for a single thumbnail takes a few milliseconds


@dataclass
class Sheets:
    """Where the thumbnail of each sample lies, and the sheets themselves.

    Attributes
    ----------
    cell : int
        Side of a cell in pixels; sheets are grids of cells, filled row by row.
    columns, per_sheet : int
    widths, heights : ndarray of shape (n_cells,), uint8
        Size of the thumbnail at the upper left of its cell; 0 where an image could not be read.
    pixelated : bool
        Whether the samples are tiny and should be enlarged without smoothing.
    mime : str
    embedded : list of str
        Base64 of each sheet; empty when they are files.
    files : list of str
        Name of each sheet's file in the folder beside the page; empty when they are embedded.
    n_missing : int
        Samples without a readable image.
    n_bytes : int
        Size of all sheets.
    """

    cell: int
    columns: int
    per_sheet: int
    widths: np.ndarray
    heights: np.ndarray
    pixelated: bool
    mime: str
    embedded: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    n_missing: int = 0
    n_bytes: int = 0


def thumbnail_sheets(
    images: Any,
    order: np.ndarray,
    front: np.ndarray,
    *,
    image_shape: Sequence[int] | None,
    size: int,
    max_embedded: int,
    folder: Path,
    progress: Progress | None,
) -> Sheets:
    """Draw the samples in the given order, then those of ``front`` once more, and encode them sheet by sheet.

    Parameters
    ----------
    images
        See `write_report`.
    order : ndarray of shape (N,)
        The sample in each cell.
    front : ndarray of shape (M,)
        Samples that are seen together at first sight; sheets of their own spare the page loading all others. They
        begin at the first cell of a sheet.
    size : int
        Longest side of a thumbnail, in pixels.
    max_embedded : int
        Bytes up to which the sheets are embedded; beyond that they are written into ``folder``.
    """
    source = _source(images, len(order), image_shape, size)
    cell = source.cell
    columns = min(64, _SHEET // cell, math.ceil(math.sqrt(len(order))))
    per_sheet = columns * columns
    blocks = [order[start : start + per_sheet] for start in range(0, len(order), per_sheet)]
    n_ordinary = len(blocks)
    blocks += [front[start : start + per_sheet] for start in range(0, len(front), per_sheet)]
    n_cells = n_ordinary * per_sheet + len(front)
    sheets = Sheets(
        cell=cell,
        columns=columns,
        per_sheet=per_sheet,
        widths=np.zeros(n_cells, dtype=np.uint8),
        heights=np.zeros(n_cells, dtype=np.uint8),
        pixelated=source.pixelated,
        mime="image/webp" if features.check("webp") else "image/png" if cell <= _LOSSLESS else "image/jpeg",
    )

    def draw(block: np.ndarray) -> tuple[bytes, list[tuple[int, int]]]:
        tiles = source.tiles(block)
        sheet = Image.new("RGB", (columns * cell, math.ceil(len(block) / columns) * cell), "white")
        for place, tile in enumerate(tiles):
            if tile is not None:
                sheet.paste(tile, (place % columns * cell, place // columns * cell))
        return _encode(sheet, sheets.mime, cell), [(0, 0) if tile is None else tile.size for tile in tiles]

    kept: list[bytes] = []
    n_done = 0
    for number, (encoded, tile_sizes) in enumerate(_in_order(draw, blocks, source.n_threads)):
        cells = slice(number * per_sheet, number * per_sheet + len(tile_sizes))
        sheets.widths[cells], sheets.heights[cells] = np.array(tile_sizes, dtype=np.uint8).T
        sheets.n_bytes += len(encoded)
        if number < n_ordinary:
            sheets.n_missing += sum(size == (0, 0) for size in tile_sizes)
            n_done += len(tile_sizes)
        kept.append(encoded)
        if sheets.n_bytes > max_embedded:
            folder.mkdir(parents=True, exist_ok=True)
            sheets.files += [_write(folder, encoded, sheets.mime) for encoded in kept]
            kept.clear()
        if progress is not None:
            progress(n_done, len(order))
    if sheets.files:
        sheets.files += [_write(folder, encoded, sheets.mime) for encoded in kept]
    else:
        sheets.embedded = [base64.b64encode(encoded).decode("ascii") for encoded in kept]
    return sheets


def _in_order(
    task: Callable[[np.ndarray], Any], blocks: list[np.ndarray], n_threads: int
) -> Iterator[tuple[bytes, list[tuple[int, int]]]]:
    """Results in the order of the blocks; no more than a few are in memory at once."""
    if n_threads == 1:
        yield from map(task, blocks)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        waiting = [pool.submit(task, block) for block in blocks[: 2 * n_threads]]
        for number in range(len(blocks)):
            yield waiting.pop(0).result()
            following = number + 2 * n_threads
            if following < len(blocks):
                waiting.append(pool.submit(task, blocks[following]))


def _encode(sheet: Image.Image, mime: str, cell: int) -> bytes:
    stream = io.BytesIO()
    if mime == "image/png":
        sheet.save(stream, "PNG", optimize=True)
    elif mime == "image/jpeg":
        sheet.save(stream, "JPEG", quality=80)
    elif cell <= _LOSSLESS:
        sheet.save(stream, "WEBP", lossless=True, quality=60, method=4)
    else:
        sheet.save(stream, "WEBP", quality=76, method=0)
    return stream.getvalue()


def _write(folder: Path, encoded: bytes, mime: str) -> str:
    """Write a sheet under a name made of its content, so that an older page's sheets stay until it is replaced."""
    name = f"sheet-{hashlib.sha256(encoded).hexdigest()[:20]}.{mime.removeprefix('image/')}"
    (folder / name).write_bytes(encoded)
    return name


# -- where the images come from ------------------------------------------------------------------------------


def _source(images: Any, n_samples: int, image_shape: Sequence[int] | None, size: int) -> _Arrays | _Pictures:
    if callable(images):
        return _Pictures(images, size, n_threads=1)
    if hasattr(images, "tolist") and str(getattr(images, "dtype", "")) == "object":
        images = images.tolist()  # a data frame's column, an array of paths
    if len(images) != n_samples:
        raise ValueError(
            f"there are {len(images)} images and labels has {n_samples} entries: give one per sample"
        )
    if hasattr(images, "shape"):
        return _Arrays(images, image_shape, size)
    if all(isinstance(image, np.ndarray) or hasattr(image, "detach") for image in images):
        shapes = {tuple(image.shape) for image in images}
        if len(shapes) == 1:
            return _Arrays(np.stack([as_array(image) for image in images]), image_shape, size)
    files = any(isinstance(image, (str, os.PathLike)) for image in images)
    return _Pictures(images.__getitem__, size, n_threads=min(8, os.cpu_count() or 1) if files else 1)


class _Arrays:
    """Images of one shape in one array, scaled alike."""

    def __init__(self, images: Any, image_shape: Sequence[int] | None, size: int) -> None:
        if image_shape is not None:
            images = _reshaped(images, tuple(int(side) for side in image_shape))
        self.images = images
        self.size = size
        some = np.linspace(0, len(images) - 1, min(len(images), 512)).astype(np.int64)
        sample = _stack(images, np.unique(some))
        if not np.isfinite(sample).all():
            raise ValueError("images has NaN or infinite values: drop those samples first")
        height, width = sample.shape[1:3]
        longest = max(height, width)
        self.low, self.top = value_range(sample)
        border = np.concatenate([sample[:, 0].ravel(), sample[:, -1].ravel()])
        grey = bool((sample == sample[..., :1]).all())
        # As in the pictures: light strokes on a dark ground become ink on paper.
        self.inverted = grey and (np.median(border) - self.low) / (self.top - self.low) < 0.4
        self.pixelated = longest <= _PIXELATED
        side = min(longest, size)
        # A lossy code's blocks of 16 pixels must not straddle two samples.
        self.cell = side if side <= _LOSSLESS else math.ceil(side / 16) * 16
        self.n_threads = 1

    def tiles(self, block: np.ndarray) -> list[Image.Image | None]:
        values = np.clip((_stack(self.images, block) - self.low) / (self.top - self.low), 0, 1)
        values = np.nan_to_num(values)
        levels = np.rint(255 * (1 - values if self.inverted else values)).astype(np.uint8)
        tiles: list[Image.Image | None] = []
        for pixels in levels:
            tile = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
            tile.thumbnail((self.size, self.size))
            tiles.append(tile)
        return tiles


def _reshaped(images: Any, image_shape: tuple[int, ...]) -> Any:
    if len(image_shape) not in (2, 3) or math.prod(image_shape) != math.prod(images.shape[1:]):
        raise ValueError(
            f"image_shape is {image_shape} and a sample has {math.prod(images.shape[1:])} values: "
            "give (H, W), (H, W, C) or (C, H, W) with as many"
        )
    return images.reshape(len(images), *image_shape)


class _Pictures:
    """Images one by one: files, Pillow images, arrays of any size, or whatever a callable returns."""

    pixelated = False

    def __init__(self, get: Callable[[int], Any], size: int, n_threads: int) -> None:
        self.get = get
        self.size = size
        self.cell = math.ceil(size / 16) * 16
        self.n_threads = n_threads

    def tiles(self, block: np.ndarray) -> list[Image.Image | None]:
        return [self._tile(int(sample)) for sample in block]

    def _tile(self, sample: int) -> Image.Image | None:
        try:
            image = self.get(sample)
            if image is None:
                return None
            if isinstance(image, (str, os.PathLike)):
                with Image.open(image) as file:
                    # A JPEG decoder can leave out detail that a thumbnail has no use for, several times faster.
                    file.draft(None, (2 * self.size, 2 * self.size))
                    return _on_paper(ImageOps.exif_transpose(file), self.size)
            picture = image if isinstance(image, Image.Image) else _picture(as_array(image))
            return _on_paper(ImageOps.exif_transpose(picture), self.size)
        except (
            Exception
        ):  # decoders raise what they like; a sample without a picture must not stop the report
            return None


def _on_paper(image: Image.Image, size: int) -> Image.Image:
    """A small RGB copy: 16-bit and float images scaled to their range, transparency over white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _picture(np.asarray(image))
    has_alpha = image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info
    image = image.convert("RGBA" if has_alpha else "RGB")
    image.thumbnail((size, size), reducing_gap=2.0)
    if has_alpha:
        paper = Image.new("RGB", image.size, "white")
        paper.paste(image, mask=image.getchannel("A"))
        return paper
    return image


def _picture(values: np.ndarray) -> Image.Image:
    """An array (H, W), (H, W, C) or (C, H, W) as an image; bytes as they are, other numbers over their range."""
    if values.ndim == 3 and values.shape[-1] not in (1, 3, 4) and values.shape[0] in (1, 3, 4):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.dtype != np.uint8:
        values = values.astype(np.float64)
        low, high = min(0.0, float(values.min())), float(values.max())
        values = np.rint(255 * (values - low) / max(high - low, 1e-12)).astype(np.uint8)
    return Image.fromarray(values)
