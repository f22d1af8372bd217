"""What reading images gives: features, names, and what could not be read."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from graphclust.images.decode import decode
from graphclust.images.items import FileItem, Item, Skipped


@dataclass(eq=False)
class Images:
    """Images as features, with their names and what could not be read.

    Attributes
    ----------
    x : ndarray [N, d], float32
        Features: pixels in [0, 1], or the output of a network.
    paths : list of str
        Name of each image: its absolute path; ``shard.tar::member`` or ``file.parquet::row``; its row in an array.
    skipped : list of (path, reason)
        What was left out.
    image_shape : tuple of int or None
        (H, W) or (H, W, 3) where the features are pixels.
    settings : dict
        Arguments of `read_images` that read further images in the same way; plain JSON.
    seconds : float
        For decoding and features.
    items : sequence of FileItem or Item
        Where each image comes from; empty for features.
    """

    x: NDArray[np.float32]
    paths: list[str]
    skipped: list[Skipped] = field(default_factory=list)
    image_shape: tuple[int, ...] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    items: Sequence[FileItem | Item] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return (
            f"Images({len(self):,} x {self.x.shape[1]:,} features, {self.settings.get('features')}, "
            f"{len(self.skipped):,} skipped)"
        )

    def open(self, row: int, at_least: int | None = None) -> Image.Image:
        """Image of a row: upright, mode "L" or "RGB"; `at_least` is the longer side that is enough (for thumbnails).

        Raises
        ------
        ValueError
            If the rows are features that no image stands behind, or the file has gone.
        """
        if not self.items:
            raise ValueError("these are features, and no images stand behind them")
        return decode(self.items[row].load(), at_least=at_least)

    def write_skipped(self, path: str | os.PathLike[str]) -> Path:
        """Write `skipped` as a CSV file with the columns path and reason."""
        return write_skipped(path, self.skipped)


def write_skipped(path: str | os.PathLike[str], skipped: Iterable[Skipped]) -> Path:
    """Write what was left out as a CSV file, UTF-8, with the columns path and reason."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Skipped._fields)
        writer.writerows(skipped)
    return Path(path)
