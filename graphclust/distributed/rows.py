"""Where the rows of a feature matrix are read: a file that all machines share, or Ray's object store."""

from __future__ import annotations

import mmap
import os
import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor


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
    """

    path: str
    n_bytes: int
    dtype: str
    shape: tuple[int, ...]
    offset: int

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
        return cls(path, os.path.getsize(path), x.dtype.str, x.shape, int(x.offset))

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start ... stop - 1, as a memory map.

        Raises
        ------
        ValueError
            When this machine does not see the file, or sees another one.
        """
        found = os.path.getsize(self.path) if os.path.isfile(self.path) else None
        if found != self.n_bytes:
            state = "is not there" if found is None else f"has {found:,} bytes instead of {self.n_bytes:,}"
            raise ValueError(
                f"{self.path} {state} on the machine {platform.node()!r}; put it on storage that all machines see "
                "under this path, or pass an array, which Ray carries to them"
            )
        array = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        return array[start:stop]


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
