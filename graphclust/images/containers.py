"""Files that hold many images: tar shards (WebDataset) and parquet tables; and Hugging Face data sets."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import tarfile
import tempfile
import threading
from collections import OrderedDict
from functools import partial
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from graphclust.images.decode import SUFFIXES
from graphclust.images.items import Item, Skipped, path_as_text

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".tgz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}


# -- tar -----------------------------------------------------------------------------------------------------------


def tar_images(path: str) -> tuple[list[Item], list[Skipped]]:
    """Images in a tar file, named ``shard.tar::member.jpg``; nothing is unpacked to disk under a name of the archive.

    Their places in the file are read once; afterwards each is read directly, in any order. A compressed archive is
    first expanded to a nameless temporary file. Of a truncated one the images before the break are used.
    """
    shard = path_as_text(path)
    items: list[Item] = []
    skipped: list[Skipped] = []
    try:
        reader = _Slices(_expanded(path))
        with tarfile.open(fileobj=reader.file, mode="r:") as archive:
            for member in archive:
                name = f"{shard}::{path_as_text(member.name)}"
                if not member.isfile() or PurePosixPath(member.name).suffix.lower() not in SUFFIXES:
                    continue  # class, caption and metadata of a sample
                items.append(Item(name, partial(reader.read, member.offset_data, member.size)))
    except (tarfile.TarError, OSError, EOFError, lzma.LZMAError, ValueError) as error:
        skipped.append(Skipped(shard, f"damaged archive after {len(items)} images: {error}"))
    return items, skipped


def _expanded(path: str) -> BinaryIO:
    opener = next((opener for suffix, opener in _OPENERS.items() if path.lower().endswith(suffix)), None)
    if opener is None:
        return open(path, "rb")
    expanded = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the items do)
    try:
        with opener(path, "rb") as packed:
            shutil.copyfileobj(cast(BinaryIO, packed), expanded)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError):
        if not expanded.tell():
            raise
    expanded.seek(0)
    return cast(BinaryIO, expanded)


class _Slices:
    """Parts of an open file, for several threads."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.lock = threading.Lock()

    def read(self, start: int, size: int) -> bytes:
        with self.lock:
            self.file.seek(start)
            data = self.file.read(size)
        if len(data) < size:
            raise EOFError(f"the archive ends {size - len(data)} bytes early")
        return data


# -- parquet -------------------------------------------------------------------------------------------------------


def parquet_image_column(path: str) -> str | None:
    """The column of a parquet file that holds encoded images (bytes, or a struct with ``bytes``); None for features."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return None  # whoever reads it as features says what is wrong with it
    for column in schema:
        kind = column.type
        is_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        if is_struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return str(column.name)
    return None


def parquet_images(path: str) -> list[Item]:
    """Images of a parquet file, as Hugging Face writes them: named by their ``path`` or their row."""
    table = _Rows(path)
    shown = path_as_text(path)
    return [
        Item(f"{shown}::{row}", partial(table.read, group, inside))
        for row, (group, inside) in enumerate(table.places())
    ]


class _Rows:
    """Rows of one column; the two row groups read last are kept, as threads read nearly in order."""

    def __init__(self, path: str) -> None:
        import pyarrow.parquet as pq

        self.column = str(parquet_image_column(path))
        self.file = pq.ParquetFile(path)
        self.groups: OrderedDict[int, Any] = OrderedDict()
        self.lock = threading.Lock()

    def places(self) -> list[tuple[int, int]]:
        meta = self.file.metadata
        return [(g, row) for g in range(meta.num_row_groups) for row in range(meta.row_group(g).num_rows)]

    def read(self, group: int, row: int) -> bytes:
        with self.lock:
            if group not in self.groups:
                self.groups[group] = self.file.read_row_group(group, columns=[self.column]).column(0)
                if len(self.groups) > 2:
                    self.groups.popitem(last=False)
            value = self.groups[group][row].as_py()
        return (value.get("bytes") if isinstance(value, dict) else value) or b""


# -- Hugging Face --------------------------------------------------------------------------------------------------


def hugging_face_images(dataset: Any, column: str | None = None) -> list[Item]:
    """Rows of a ``datasets.Dataset``; the images are taken undecoded, as bytes."""
    import datasets

    if isinstance(dataset, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        raise ValueError(
            f"the data set has the parts {', '.join(dataset)}: pass one, for example dataset['train']"
        )
    if isinstance(dataset, datasets.IterableDataset):
        raise TypeError("a streamed data set has no length: load it without streaming=True")
    named = [name for name, kind in dataset.features.items() if isinstance(kind, datasets.Image)]
    if column is None and len(named) != 1:
        raise ValueError(
            f"the data set has {len(named)} columns of images ({', '.join(named) or 'none'}) among "
            f"{', '.join(dataset.features)}: name one with column="
        )
    chosen = column or named[0]
    if chosen not in named:
        raise ValueError(
            f"column={chosen!r} holds no images; columns of images: {', '.join(named) or 'none'}"
        )
    raw = dataset.select_columns([chosen]).cast_column(chosen, datasets.Image(decode=False))
    lock = threading.Lock()

    def load(row: int) -> bytes:
        with lock:  # the reader is not made for several threads
            value = raw[row][chosen]
        if value.get("bytes"):
            return bytes(value["bytes"])
        with open(value["path"], "rb") as file:
            return file.read()

    return [Item(str(row), partial(load, row)) for row in range(len(raw))]


def open_hugging_face_folder(path: str) -> Any:
    """A data set that ``save_to_disk`` wrote; ImportError without the library."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"{path} is a Hugging Face data set, which needs the library datasets: pip install 'graphclust[datasets]'"
        ) from error
    return datasets.load_from_disk(path)
