"""Where one image comes from: a file, a part of a tar shard, a row of an array or a table. And what was left out."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphclust.images.decode import UnreadableImage

#: A file beyond that is no picture, and would fill the memory before a decoder could say so.
_MOST_BYTES = 1 << 30


class Skipped(NamedTuple):
    """Something that was not read, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class FileItem:
    """An image file; `name` is its path as text that any table can hold."""

    path: str

    @property
    def name(self) -> str:
        """The path as valid Unicode."""
        return path_as_text(self.path)

    def load(self) -> bytes:
        """The file's bytes; UnreadableImage, with the reason in words, where there are none to be had."""
        try:
            status = os.stat(self.path)
            if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device might never end
                raise UnreadableImage("not a regular file")
            if status.st_size > _MOST_BYTES:
                raise UnreadableImage(
                    f"too large: {status.st_size:,} bytes, at most {_MOST_BYTES:,} are read"
                )
            with open(self.path, "rb") as file:
                return file.read()
        except OSError as error:
            raise UnreadableImage(os_reason(error)) from error


@dataclass(frozen=True, slots=True)
class Item:
    """An image that is no file of its own: its name, and what loads its bytes or pixels."""

    name: str
    loader: Callable[[], Any]

    @property
    def path(self) -> None:
        """No file of its own."""
        return None

    def load(self) -> Any:
        """Bytes of an image file, pixels, or a Pillow image."""
        try:
            return self.loader()
        except (OSError, EOFError) as error:
            raise UnreadableImage(f"damaged: {error}") from error


def os_reason(error: OSError) -> str:
    """Words for a file that the system does not give."""
    words: list[tuple[type[OSError], str]] = [
        (PermissionError, "permission denied"),
        (FileNotFoundError, "does not exist, or is a link to nothing"),
    ]
    for kind, text in words:
        if isinstance(error, kind):
            return text
    return error.strerror or type(error).__name__


def path_as_text(path: str) -> str:
    r"""A path as valid Unicode: bytes of a name that are not UTF-8 become ``\xNN``."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    return path


def text_as_path(text: str) -> str:
    r"""The path that `path_as_text` gave as text: as it stands where that exists, else with ``\xNN`` as bytes."""
    if os.path.lexists(text) or "\\x" not in text:
        return text
    raw = re.sub(rb"\\x([89a-f][0-9a-f])", lambda found: bytes.fromhex(found[1].decode()), text.encode())
    path = os.fsdecode(raw)
    return path if os.path.lexists(path) else text


def printable(text: str) -> str:
    """Text for a terminal: control characters, which could move the cursor or colour the screen, become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_image_row(value: Any) -> bool:
    """Whether a value is one image in memory: pixels [H, W] or [H, W, C], or a Pillow image."""
    from PIL import Image

    return isinstance(value, Image.Image) or (isinstance(value, np.ndarray) and value.ndim in (2, 3))


def as_bytes_in_one_range(
    images: NDArray[Any], value_range: tuple[float, float] | None = None
) -> Callable[[int], NDArray[np.uint8]]:
    """Row by row 8-bit pixels of an array of images, all by one scale, so that a dark image stays dark."""
    if images.dtype == np.uint8:
        return lambda row: np.asarray(images[row])
    if images.dtype == np.bool_:
        return lambda row: images[row].astype(np.uint8) * 255
    low, high = value_range_of(images) if value_range is None else value_range
    factor = 255 / ((high - low) or 1.0)
    return lambda row: np.rint((images[row].astype(np.float32) - low) * factor).clip(0, 255).astype(np.uint8)


def value_range_of(images: NDArray[Any]) -> tuple[float, float]:
    """Which values of an array of images are black and white: 0 and 1, 0 and 255, or its own extremes."""
    if images.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(images.min()), float(images.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("the images hold NaN or infinity: replace them first (numpy.nan_to_num)")
    if low >= 0:
        low, high = 0.0, next((white for white in (1.0, 255.0) if high <= white), high)
    return low, high
