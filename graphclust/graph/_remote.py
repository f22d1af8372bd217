"""Engines that search on other machines. They stand above this room, which knows them by name and protocol alone."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from graphclust.graph.metric import Rows

Track = Callable[[Iterable], Iterable]


class RemoteEngine(Protocol):
    """What `NeighborSearch` asks of an engine; `graphclust.distributed.RayEngine` is one."""

    def check(self, device: torch.device) -> None:
        """Raise where the engine cannot work: wrong settings, a library that is missing."""

    def source(self, x: Any, data: Tensor) -> Any:
        """Where other machines are to read ``x``; ``data`` is ``x`` as a checked tensor."""

    def describe(self, n: int, d: int, itemsize: int) -> str:
        """Name for ``index_name_``."""

    def self_neighbors(
        self,
        x: Any,
        rows: Rows,
        k: int,
        dtype: torch.dtype,
        folder: str | os.PathLike[str] | None,
        track: Track,
    ) -> tuple[Tensor, Tensor]:
        """Index and distance [N, k] of the nearest others of each row."""

    def neighbors(
        self, x: Any, rows: Rows, query: Tensor, k: int, dtype: torch.dtype, track: Track
    ) -> tuple[Tensor, Tensor]:
        """Index and distance [M, k] of the rows nearest to new samples."""


def remote_engine(engine: Any, index: str, device: torch.device) -> RemoteEngine | None:
    """The engine that a name or object stands for, ready to work; None for "local".

    Raises
    ------
    ValueError
        When it is not known, or ``index`` is not one that it can follow.
    ImportError
        When its library is not installed.
    """
    if isinstance(engine, str) and engine == "local":
        return None
    if isinstance(engine, str) and engine == "ray":
        engine = importlib.import_module("graphclust.distributed").RayEngine()
    if not all(hasattr(engine, name) for name in ("check", "source", "self_neighbors", "neighbors")):
        raise ValueError(
            f"engine={engine!r} is not known; choose 'local', 'ray' or a graphclust.distributed.RayEngine"
        )
    if index not in ("auto", "exact"):
        raise ValueError(
            f"index={index!r} needs engine='local': engine='ray' searches exactly; pass index='auto' or 'exact'"
        )
    engine.check(device)
    return engine
