"""Sums over the processes that share a batch, for parts of a network that keep sums over all samples.

The training loop says how, for as long as a loss is computed; everywhere else a sum is the number itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

Total = Callable[[Tensor], Tensor]
_total: ContextVar[Total | None] = ContextVar("total", default=None)


def total(part: Tensor) -> Tensor:
    """Sum of a tensor over the processes that share the present batch, each with its part; not differentiated.

    A process that trains alone gets its own tensor back.
    """
    add = _total.get()
    return part if add is None else add(part.detach())


@contextmanager
def summing(add: Total) -> Iterator[None]:
    """For a while, `total` is `add`."""
    token = _total.set(add)
    try:
        yield
    finally:
        _total.reset(token)
