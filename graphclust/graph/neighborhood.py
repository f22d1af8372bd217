"""What of a large graph the layers of a network read for a few samples that are joined to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

#: A part of more than this share of the nodes is no cheaper than the whole graph.
_LARGEST_SHARE = 0.25
#: Edges whose order is looked at in one go.
_PIECE = 1 << 22


class PartRows:
    """Some rows of a table, which are copied when they are asked for, and not before.

    Parameters
    ----------
    table : Tensor or StackedRows [N, ...]
    rows : Tensor, int64 [n]
    """

    def __init__(self, table: Any, rows: Tensor) -> None:
        self.table, self.rows = table, rows
        self.shape = torch.Size([len(rows), *table.shape[1:]])
        self.dtype = table.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Rows by their numbers in the part, int64 [m], or a slice of them."""
        wanted: Tensor = self.table[self.rows[index if isinstance(index, slice) else index.cpu()]]
        return wanted

    def split(self, size: int) -> Iterator[Tensor]:
        """Blocks of `size` rows, the last one shorter, as those of a tensor."""
        return (self[start : start + size] for start in range(0, len(self), size))


def around(edge_index: Tensor, n: int, start: Tensor, hops: int) -> tuple[Tensor, Tensor] | None:
    """The nodes from which edges lead to some others, over several steps, and the edges on the way.

    Only the edges that are found are read, so that a memory map may hold all of them.

    Parameters
    ----------
    edge_index : Tensor [2, E]
        Sorted by target.
    n : int
        Nodes.
    start : Tensor, int64 [m]
    hops : int
        Steps, at least 1.

    Returns
    -------
    nodes : Tensor, int64, sorted
        Those that reach a node of `start` in at most `hops` steps, `start` among them.
    columns : Tensor, int64, sorted
        In `edge_index`: all edges into those that reach it in fewer steps.

        None instead of both where that is a large part of the graph, or the edges are in another order.
    """
    source, target = edge_index
    if not _is_sorted(target):
        return None
    nodes = fresh = start.unique()
    columns: list[Tensor] = []
    for _ in range(hops):
        first = torch.searchsorted(target, fresh)
        count = torch.searchsorted(target, fresh, right=True) - first
        offset = (first - (count.cumsum(0) - count)).repeat_interleave(count)
        columns.append(torch.arange(len(offset)) + offset)
        sources = source[columns[-1]].unique()
        fresh = sources[~torch.isin(sources, nodes)]
        nodes = torch.cat([nodes, fresh])
        if len(nodes) > _LARGEST_SHARE * n:
            return None
    return nodes.sort()[0], torch.cat(columns).sort()[0]


def _is_sorted(values: Tensor) -> bool:
    last: Tensor | None = None
    for piece in values.split(_PIECE):
        if (last is not None and piece[0] < last) or not bool((piece[1:] >= piece[:-1]).all()):
            return False
        last = piece[-1]
    return True
