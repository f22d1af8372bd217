"""`RayEngine`: a search cut into (block of queries, shard of rows), spread over the machines of a Ray cluster."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphclust._checks import check_count, check_number, share_tensor
from graphclust._storage import resolve
from graphclust.distributed._ray import connect, load_ray, run_blocks
from graphclust.distributed.rows import MappedFile, cut, part_of
from graphclust.distributed.search import FAN_IN, Found, merge, search_shard
from graphclust.graph.metric import Metric, Rows
from graphclust.graph.self_join_state import JoinState, checksum

_SMALLEST_BLOCK, _LARGEST_BLOCK = 8192, 65_536
_SMALLEST_SHARD = 65_536
_SHARD_BYTES = 1 << 30

Track = Callable[[Iterable], Iterable]


@dataclass(kw_only=True)
class RayEngine:
    """Exact nearest neighbours on a Ray cluster: ``NeighborSearch(engine="ray")``, or an engine with other settings.

    The rows are cut into shards and the queries into blocks. Each (block, shard) is a task: the package's own exact
    search, whose distances are float64. The partial results of a block are merged by (distance, index), so the
    neighbours and distances are those of an exact search on one machine. The one exception is where more than about
    a thousand samples tie at the k-th place; which of them are kept is then not defined on one machine either.
    A shard with fewer than k rows gives all of them.

    A task whose machine is lost is done again on another, ``max_retries`` times; machines that join get tasks from
    then on.

    A memory map of a file (``np.load(path, mmap_mode="r")``) is mapped by each machine from the same path, which has to
    be on storage that all of them share. Other arrays are put into Ray's object store once, shard by shard.

    Parameters
    ----------
    address : str, optional
        Of the cluster, such as "auto" or "ray://host:10001". None: the connection that there is, else what RAY_ADDRESS
        says, else this machine alone. For the first form this package must be installed on every machine.
    shard_rows : int, optional
        Most rows of a shard. None: a 64th of the data, at least 65,536 and at most 1 GiB.
    block_rows : int, optional
        Most queries of a block. None: a 128th, at least 8,192 and at most 65,536.
    cpus_per_task : int
        Processors, and threads, of a task.
    max_retries : int
        How often a task is done again after its machine or process was lost.

    Attributes
    ----------
    tasks_ : Counter
        Searches of the latest call that came back from each machine, by Ray's node id; grows while the search runs.
    """

    address: str | None = None
    shard_rows: int | None = None
    block_rows: int | None = None
    cpus_per_task: int = 1
    max_retries: int = 5
    tasks_: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    def check(self, device: torch.device) -> None:
        """Refuse settings that cannot work, and a missing Ray, before anything is computed."""
        for name in ("shard_rows", "block_rows"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name, 1)
        check_count(self.cpus_per_task, "cpus_per_task", 1)
        check_number(self.max_retries, "max_retries", 0)
        if device.type != "cpu":
            raise ValueError(
                f"engine='ray' searches on processors, but device={str(device)!r}; pass device='cpu' or engine='local'"
            )
        load_ray()

    def source(self, x: Any, data: Tensor) -> MappedFile | Tensor:
        """Where the machines are to read ``x``: its file where it is a memory map, else the checked tensor."""
        return MappedFile.of(x) or data

    def describe(self, n: int, d: int, itemsize: int) -> str:
        """For example "exact (ray, 16 shards)"."""
        shards = len(cut(n, self._shard_rows(n, d * itemsize)))
        return f"exact (ray, {shards} shard{'s' if shards > 1 else ''})"

    def block_size(self, n: int) -> int:
        """Most queries of a block, of n in all: ``block_rows``, or the default."""
        # Of the data alone, not of the cluster: a search goes on in its folder when machines have come or gone.
        return self.block_rows or min(max(_SMALLEST_BLOCK, n // 128), _LARGEST_BLOCK)

    def self_neighbors(
        self,
        x: MappedFile | Tensor,
        rows: Rows,
        k: int,
        dtype: torch.dtype,
        folder: str | os.PathLike[str] | None,
        track: Track,
    ) -> tuple[Tensor, Tensor]:
        """The k nearest others of each row, see `NeighborSearch.self_neighbors`.

        With ``folder`` the result of each block is written as it comes, and the same call goes on with the blocks that
        are missing; the result is then a memory map of the folder's files.
        """
        n = len(rows)
        blocks = cut(n, self.block_size(n))
        if folder is None:
            tables = np.empty((n, k), np.int64), np.empty((n, k), _numpy(dtype))
            done = np.zeros(len(blocks), np.uint8)
            self._fill(tables, done, x, blocks, rows, k, track)
            return torch.from_numpy(tables[0]), torch.from_numpy(tables[1])
        place = resolve(folder)
        if isinstance(place, str):
            raise ValueError(
                f"folder={place!r} is written to block by block, which needs a file system: name a folder of "
                "this machine or a mounted one"
            )
        state = JoinState(place, self._fingerprint(rows, k, dtype, len(blocks)))
        try:
            tables = state.array("index", (n, k), np.int64), state.array("distance", (n, k), _numpy(dtype))
            self._fill(tables, state.array("done", (len(blocks),), np.uint8), x, blocks, rows, k, track)
            return share_tensor(tables[0]), share_tensor(tables[1])
        finally:
            state.close()

    def _fill(
        self,
        tables: tuple[np.ndarray, np.ndarray],
        done: np.ndarray,
        x: MappedFile | Tensor,
        blocks: list[tuple[int, int]],
        rows: Rows,
        k: int,
        track: Track,
    ) -> None:
        """Write the blocks that are not done into index and distance, and note each."""
        numbers = {block: number for number, block in enumerate(blocks)}
        left = [block for block in blocks if not done[numbers[block]]]
        for (start, stop), found in self._search(x, x, left, rows, k, True, track):
            for table, values in zip(tables, (found.index, found.distance), strict=True):
                table[start:stop] = values
                if isinstance(table, np.memmap):
                    table.flush()  # on the disk before the block counts as done
            done[numbers[start, stop]] = 1

    def neighbors(
        self, x: MappedFile | Tensor, rows: Rows, query: Tensor, k: int, dtype: torch.dtype, track: Track
    ) -> tuple[Tensor, Tensor]:
        """The k nearest rows of new samples, see `NeighborSearch.neighbors`."""
        m = len(query)
        index, distance = torch.empty((m, k), dtype=torch.long), torch.empty((m, k), dtype=dtype)
        for (start, stop), found in self._search(x, query, cut(m, self.block_size(m)), rows, k, False, track):
            index[start:stop] = torch.from_numpy(found.index)
            distance[start:stop] = torch.from_numpy(found.distance).to(dtype)
        return index, distance

    def _search(
        self,
        x: MappedFile | Tensor,
        query: MappedFile | Tensor,
        blocks: list[tuple[int, int]],
        rows: Rows,
        k: int,
        is_self: bool,
        track: Track,
    ) -> Iterator[tuple[tuple[int, int], Found]]:
        """Each block with its neighbours, in the order in which they come."""
        self.tasks_.clear()
        if not blocks:
            return
        ray = connect(self.address)
        options = {"num_cpus": self.cpus_per_task, "max_retries": self.max_retries}
        search_task = ray.remote(**options)(search_shard)
        merge_task = ray.remote(**options)(merge)
        n, d = rows.x.shape
        places = cut(n, self._shard_rows(n, d * rows.x.element_size()))
        shards = [(start, part_of(ray, x, start, stop)) for start, stop in places]
        wanted, metric = k + is_self, rows.metric

        def submit(block: tuple[int, int]) -> Any:
            queries = part_of(ray, query, *block)
            parts = [
                search_task.remote(shard, queries, first, wanted, metric.name, metric.p)
                for first, shard in shards
            ]
            while len(parts) > FAN_IN:
                parts = [
                    merge_task.remote(wanted, None, *parts[at : at + FAN_IN])
                    for at in range(0, len(parts), FAN_IN)
                ]
            return merge_task.remote(k, block[0] if is_self else None, *parts)

        results = run_blocks(ray, blocks, submit, len(shards))
        for _, (block, found) in zip(track(range(len(blocks))), results):
            self.tasks_.update(found.tasks)
            yield block, found

    def _shard_rows(self, n: int, row_bytes: int) -> int:
        most = max(1, _SHARD_BYTES // row_bytes)
        return self.shard_rows or min(max(_SMALLEST_SHARD, n // 64), most)

    @staticmethod
    def _fingerprint(rows: Rows, k: int, dtype: torch.dtype, blocks: int) -> dict[str, Any]:
        metric: Metric = rows.metric
        return {
            "engine": "ray",
            "data": checksum(rows),
            "shape": list(rows.x.shape),
            "dtype": str(rows.x.dtype).removeprefix("torch."),
            "metric": metric.name,
            "p": metric.p,
            "n_neighbors": k,
            "distances": str(dtype).removeprefix("torch."),
            "blocks": blocks,
        }


def _numpy(dtype: torch.dtype) -> np.dtype[Any]:
    return torch.empty(0, dtype=dtype).numpy().dtype
