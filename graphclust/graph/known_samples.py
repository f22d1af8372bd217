"""The search among the samples of a graph for the neighbours of new ones, kept from one call to the next."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from graphclust.graph.indexes import is_exact_affordable
from graphclust.graph.metric import Metric
from graphclust.graph.search import NeighborSearch

#: Of each table of samples, by its id while it is there: graphs are copied, their features are not. An index of a
#: million samples takes a minute to build, and a model is asked more than once.
_KEPT: dict[int, dict[tuple[str, Metric, float], NeighborSearch]] = {}
_lock = threading.RLock()  # also of the same thread, where the garbage collector ends a table meanwhile


def search_among(
    graph: Any, n_new: int, metric: Metric, *, index: str = "auto", recall: float = 0.95
) -> NeighborSearch:
    """A search among the samples of a graph, for `n_new` new ones: by a scan where that is cheaper than an index.

    Parameters
    ----------
    graph : SampleGraph
        With features.
    n_new : int
    metric : Metric
    index, recall
        See `NeighborSearch`.
    """
    n, d = graph.x.shape
    chosen = "exact" if is_exact_affordable(n_new, n, d, metric) else index
    how = chosen, metric, recall
    with _lock:
        if id(graph.x) not in _KEPT:
            weakref.finalize(graph.x, _KEPT.pop, id(graph.x), None)
        kept = _KEPT.setdefault(id(graph.x), {})
        if how not in kept:
            search = NeighborSearch(metric.name, p=metric.p, index=chosen, recall=recall)
            # What holds the table itself would keep it there for ever.
            kept[how] = search.fit(graph.x.detach())
        return kept[how]
