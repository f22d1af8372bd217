"""Batches of a graph that is made from what an earlier stage learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphclust.training.batches import BatchSource


class DeferredBatchSource(BatchSource):
    """A `BatchSource` whose graph is made when edges are first asked for: of an earlier stage's codes, say.

    Plain batches serve the features before and after. A resumed run makes the graph anew; it is the same one as long as
    no later stage changes what it is made from.

    Parameters
    ----------
    x : Tensor [N, d]
        Features; may be memory-mapped.
    **options
        Of `BatchSource`.

    Attributes
    ----------
    make_graph : callable -> Data
        Gives the graph, with the same x; to be set before the first batch with edges.
    """

    make_graph: Callable[[], Data]

    def __init__(self, x: Tensor, **options: Any) -> None:
        self._made: Data | None = None
        super().__init__(Data(x=x), **options)
        self._made = None

    # A property where the parent has an attribute: that is what defers it.
    @property
    def graph(self) -> Data:
        """The graph, made now if it is not there yet."""
        if self._made is None:
            with torch.no_grad():
                self._made = self.make_graph()
        return self._made

    @graph.setter
    def graph(self, graph: Data) -> None:
        self._made = graph
