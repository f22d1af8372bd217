"""What people hand over (a folder, paths, arrays, shards, a data set) as one list of images, or as features."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphclust._files import READABLE, read_features
from graphclust.images.containers import (
    hugging_face_images,
    open_hugging_face_folder,
    parquet_image_column,
    parquet_images,
    tar_images,
)
from graphclust.images.decode import SUFFIXES
from graphclust.images.folders import CONTAINERS, walk
from graphclust.images.items import (
    FileItem,
    Item,
    Skipped,
    as_bytes_in_one_range,
    is_image_row,
    path_as_text,
    text_as_path,
)

_HUGGING_FACE = ("dataset_info.json", "dataset_dict.json")


@dataclass
class Source:
    """One list of images, or features as they are.

    Attributes
    ----------
    where : str
        For messages.
    items : list of FileItem or Item
    skipped : list of Skipped
    pixels : ndarray [N, H, W] or [N, H, W, C], or None
        The images of `items`, where all are in one array.
    features : ndarray [N, d] or None
        Rows that are no images; then there are no items.
    """

    where: str
    items: list[FileItem | Item] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    pixels: NDArray[Any] | None = None
    features: NDArray[Any] | None = None

    def in_range(self, value_range: tuple[float, float]) -> Source:
        """The same pixels with other values for black and white."""
        assert self.pixels is not None
        row = as_bytes_in_one_range(self.pixels, value_range)
        items = [Item(item.name, partial(row, n)) for n, item in enumerate(self.items)]
        return replace(self, items=list(items))


def open_source(source: Any, *, column: str | None = None) -> Source:
    """List what a source holds, without decoding anything.

    Parameters
    ----------
    source : path, sequence of paths, array, sequence of images, or datasets.Dataset
        See `graphclust.images.read_images`.
    column : str, optional
        Of a data set with several columns of images; array of an .npz, or column of vectors of a table.

    Raises
    ------
    FileNotFoundError
        If a path names nothing.
    TypeError, ValueError
        If the source is of another kind.
    """
    if isinstance(source, (str, os.PathLike)):
        return _from_path(os.fspath(source), column)
    if type(source).__module__.partition(".")[0] == "datasets":
        return Source("the data set", list(hugging_face_images(source, column)))
    if hasattr(source, "detach"):
        source = source.detach().cpu().numpy()
    if isinstance(source, np.ndarray) and source.dtype.kind not in "OSU":
        return _from_array(source, "the array")
    if isinstance(source, (Sequence, np.ndarray)):
        return _from_sequence(list(source))
    raise TypeError(
        f"source is a {type(source).__name__}: pass a folder, paths, an array of images [N, H, W] or [N, H, W, C], "
        "Pillow images or a datasets.Dataset"
    )


def list_images(source: Any, *, column: str | None = None) -> list[FileItem | Item]:
    """The images of a source, without reading them; see `graphclust.images.read_images`."""
    return open_source(source, column=column).items


def is_image_source(path: Path) -> bool:
    """Whether a path is to be read as images: a folder, an image, a tar file, a pattern, or parquet with images."""
    name = str(path).lower()
    if name.endswith(".parquet"):
        return path.is_file() and parquet_image_column(str(path)) is not None
    return path.is_dir() or name.endswith((*CONTAINERS, *SUFFIXES)) or any(c in name for c in "*{")


def _from_path(path: str, column: str | None) -> Source:
    path = text_as_path(os.path.expanduser(path))
    shown = path_as_text(path)
    if os.path.isdir(path):
        return _from_folder(path, column)
    if not os.path.lexists(path):
        matches = sorted(match for part in _braces(path) for match in glob.glob(part, recursive=True))
        if not matches:
            raise FileNotFoundError(
                f"{shown} does not exist: name a folder, a file, or a pattern that matches some"
            )
        return _from_sequence(list(matches), shown)
    lowered = path.lower()
    if lowered.endswith(CONTAINERS) and not lowered.endswith(".parquet"):
        # By a full path, as files go by: a result finds them again from any working folder.
        items, skipped = tar_images(os.path.abspath(path))
        return Source(shown, list(items), skipped)
    if lowered.endswith(".parquet") and column is None and parquet_image_column(path) is not None:
        return Source(shown, list(parquet_images(os.path.abspath(path))))
    if lowered.endswith(READABLE):
        table = read_features(path, key=column, by_command=False)
        if table.image_shape is None:
            return Source(shown, features=table.x)
        return _from_array(
            table.x.reshape(-1, *table.image_shape), shown, path_as_text(os.path.abspath(path))
        )
    return Source(shown, [FileItem(os.path.abspath(path))])


def _from_folder(path: str, column: str | None) -> Source:
    shown = path_as_text(path)
    if any(os.path.isfile(os.path.join(path, name)) for name in _HUGGING_FACE):
        dataset = open_hugging_face_folder(path)
        place = path_as_text(os.path.abspath(path))
        items = hugging_face_images(dataset, column)
        return Source(shown, [Item(f"{place}::{item.name}", item.loader) for item in items])
    found = walk(os.path.abspath(path))
    source = Source(shown, list(found.items), found.skipped)
    for container in found.containers:
        if found.items:
            source.skipped.append(
                Skipped(path_as_text(container), "archive beside image files: give it by name")
            )
        elif container.lower().endswith(".parquet"):
            if parquet_image_column(container) is None:
                source.skipped.append(Skipped(path_as_text(container), "parquet without a column of images"))
            else:
                source.items += parquet_images(container)
        else:
            items, skipped = tar_images(container)
            source.items += items
            source.skipped += skipped
    if not source.items:
        kinds = sorted({entry.reason for entry in source.skipped})
        held = f" ({'; '.join(kinds[:3])})" if kinds else ""
        raise ValueError(
            f"{shown} holds no images{held}: name a folder with PNG, JPEG, TIFF, BMP, GIF or WebP files"
        )
    return source


def _from_sequence(values: list[Any], where: str = "the list") -> Source:
    if not values:
        raise ValueError(f"{where} is empty: pass at least one image")
    if all(isinstance(value, (str, os.PathLike)) for value in values):
        source = Source(where)
        for value in values:
            try:
                part = _from_path(os.fspath(value), None)
            except (FileNotFoundError, ValueError) as error:
                source.skipped.append(Skipped(path_as_text(os.fspath(value)), str(error)))
                continue
            if part.features is not None:
                raise ValueError(f"{part.where} holds features, no images: pass it alone, not in a list")
            source.items += part.items
            source.skipped += part.skipped
        return source
    values = [value.detach().cpu().numpy() if hasattr(value, "detach") else value for value in values]
    if all(is_image_row(value) for value in values):
        return Source(where, [Item(str(row), partial(values.__getitem__, row)) for row in range(len(values))])
    kinds = ", ".join(sorted({type(value).__name__ for value in values}))
    raise TypeError(
        f"{where} holds {kinds}: pass paths alone, or images alone (arrays [H, W(, C)] or Pillow images)"
    )


def _from_array(array: NDArray[Any], where: str, file: str | None = None) -> Source:
    """Images of an array, named by their row; of a file, as parquet's, so that a result finds them again."""
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{where} has type {array.dtype}: numbers are needed")
    if array.ndim == 2:
        return Source(where, features=array)
    # torch keeps channels first.
    if array.ndim == 4 and array.shape[3] not in (1, 3, 4) and array.shape[1] in (1, 3, 4):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim not in (3, 4) or array.size == 0 or (array.ndim == 4 and array.shape[3] not in (1, 3, 4)):
        raise ValueError(
            f"{where} has shape {list(array.shape)}: features [N, d] or images [N, H, W] or [N, H, W, C] with "
            "C = 1, 3 or 4 are needed"
        )
    row = as_bytes_in_one_range(array)
    prefix = "" if file is None else f"{file}::"
    return Source(where, [Item(f"{prefix}{n}", partial(row, n)) for n in range(len(array))], pixels=array)


def _braces(pattern: str) -> list[str]:
    """Number ranges as WebDataset writes them: ``a-{000..002}.tar`` to three names."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if found is None:
        return [pattern]
    first, last = found[1], found[2]
    names = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    return [
        part for name in names for part in _braces(pattern[: found.start()] + name + pattern[found.end() :])
    ]
