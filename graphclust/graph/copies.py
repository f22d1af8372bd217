"""Samples that are equal to each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Values that are read at once.
_BLOCK = 1 << 22


def first_equal(x: Tensor) -> Tensor | None:
    """The first sample that each one equals, [N, d] -> [N], int64; None where all differ.

    Rows are told apart by a sum of their bits, weighed by random odd numbers (modulo 2^64), and what has the same sum
    is compared. The table may be a memory map, which is read in blocks.
    """
    n, d = x.shape
    short = x.dtype == torch.float32 or x.dtype.itemsize < 4
    dtype, words = (torch.float32, d) if short else (torch.float64, 2 * d)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(-(2**62), 2**62, (words,), generator=generator) * 2 + 1
    step = max(1, _BLOCK // max(1, words))
    # Adding 0 makes the zero with a sign the one without, which it equals.
    sums = [((block.to(dtype).cpu() + 0.0).view(torch.int32) * weights).sum(dim=1) for block in x.split(step)]
    order = torch.cat(sums).sort(stable=True)
    new = torch.ones(n, dtype=torch.bool)
    new[1:] = order.values.diff() != 0
    if bool(new.all()):
        return None
    group = new.cumsum(0) - 1
    first = torch.empty(n, dtype=torch.int64)
    first[order.indices] = order.indices[new][group]
    copies = (first != torch.arange(n)).nonzero().squeeze(1)
    for rows in copies.split(step):
        differ = (x[rows.to(x.device)] != x[first[rows].to(x.device)]).any(dim=1).cpu()
        first[rows[differ]] = rows[differ]
    return None if bool((first == torch.arange(n)).all()) else first


def first_of_copies(graph: Any) -> Tensor | None:
    """The sample of a sample graph that stands for each one where some are equal, [N], else None.

    Where there are more copies than neighbours they are joined to different ones and would be told apart; a new sample
    that equals them is the first. Given edges are a reason to tell copies apart.
    """
    return first_equal(graph.x) if graph.joins_neighbors else None
