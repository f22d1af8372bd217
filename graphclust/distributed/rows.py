"""Where the rows of a feature matrix are read: a file that all machines share, or Ray's object store."""

from __future__ import annotations

import mmap
import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from graphclust._files import open_map
from graphclust._storage import address_of, fetch_file, resolve


@dataclass(frozen=True)
class MappedFile:
    """A C-ordered array in a file, such as a .npy file: what another machine needs to map it.

    Attributes
    ----------
    path : str
        Absolute; the same on all machines.
    n_bytes : int
        Size of the file.
    dtype : str
        NumPy's short name, such as "<f4".
    shape : tuple of int
        [N, d].
    offset : int
        Bytes before the first row.
    address : str, optional
        Where each machine fetches the file from, once, instead of reading `path`; see `open_features`.
    """

    path: str
    n_bytes: int
    dtype: str
    shape: tuple[int, ...]
    offset: int
    address: str | None = None

    @classmethod
    def of(cls, x: Any) -> MappedFile | None:
        """The file behind a memory map that was opened for reading, as ``np.load(path, mmap_mode="r")`` does.

        None for anything else: views and maps that can be written to may differ from what the file holds.
        """
        if not isinstance(x, np.memmap) or x.mode != "r":
            return None
        base: Any = x.base
        if not isinstance(base, mmap.mmap):  # a view, whose offset is not known
            return None
        if x.filename is None or x.ndim != 2 or not x.flags.c_contiguous or not os.path.isfile(x.filename):
            return None
        path = os.path.abspath(x.filename)
        return cls(path, os.path.getsize(path), x.dtype.str, x.shape, int(x.offset), address_of(path))

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start ... stop - 1, as a memory map.

        Raises
        ------
        ValueError
            When this machine does not see the file, or sees another one.
        """
        path = self.path if self.address is None else _fetched(self.address)
        found = os.path.getsize(path) if os.path.isfile(path) else None
        if found != self.n_bytes:
            state = "is not there" if found is None else f"has {found:,} bytes instead of {self.n_bytes:,}"
            remedy = (
                f"{self.address} was written again meanwhile: start anew"
                if self.address is not None
                else "put it on storage that all machines see under this path, or pass an array, which Ray carries "
                "to them"
            )
            raise ValueError(f"{path} {state} on the machine {platform.node()!r}; {remedy}")
        array = np.memmap(path, self.dtype, "r", self.offset, self.shape)
        return array[start:stop]


@lru_cache(maxsize=4)
def _fetched(address: str) -> str:
    """Local copy of a file; a process asks for it once, not for each task."""
    return str(fetch_file(address))


def open_features(path: str | os.PathLike[str]) -> np.memmap:
    """A memory map of a .npy file, which may be at an address that fsspec knows, such as ``s3://bucket/x.npy``.

    What is at an address is fetched once into the local cache (GRAPHCLUST_CACHE, else ``~/.cache/graphclust``). Search,
    training and labels on a Ray cluster take the map as any other: each machine then fetches the file for itself, once.

    Parameters
    ----------
    path : path or address

    Returns
    -------
    memmap [N, d], read-only

    Raises
    ------
    FileNotFoundError
        When it is not there.
    ValueError
        When it is no .npy file that can be mapped.
    """
    place = resolve(path)
    local = fetch_file(place) if isinstance(place, str) else place
    if not local.is_file():
        raise FileNotFoundError(f"there is no file {local}")
    return open_map(local, place, "write it with numpy.save")


@dataclass(frozen=True)
class FilePart:
    """Rows start ... stop - 1 of a file; small enough to be sent with each task."""

    file: MappedFile
    start: int
    stop: int


def read(part: FilePart | np.ndarray) -> np.ndarray:
    """The rows of a part, on the machine that works on them."""
    return part.file.rows(part.start, part.stop) if isinstance(part, FilePart) else part


def part_of(ray: Any, x: MappedFile | Tensor, start: int, stop: int) -> Any:
    """Rows for a task: their place in the file, or a reference to a copy in the object store."""
    if isinstance(x, MappedFile):
        return FilePart(x, start, stop)
    return ray.put(x[start:stop].contiguous().numpy())


def cut(n: int, size: int) -> list[tuple[int, int]]:
    """(start, stop) of as equal parts as can be, of at most ``size`` rows.

    Equal parts, so that none at the end is much smaller than the others.
    """
    count = -(-n // size)
    bounds = [n * part // count for part in range(count + 1)]
    return list(zip(bounds[:-1], bounds[1:], strict=True))
