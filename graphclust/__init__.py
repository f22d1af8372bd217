"""Deep clustering of images, feature vectors and attributed graphs over an explicit sample graph.

The names below are imported when they are first used (PEP 562), so that ``import graphclust`` and ``graphclust --help``
do not wait for torch.

Examples
--------
>>> import graphclust
>>> from sklearn.datasets import load_digits
>>> x = load_digits().data / 16
>>> model = graphclust.VGDCN(n_clusters=10, random_state=0)
>>> labels = model.fit_predict(x)  # doctest: +SKIP
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# A hidden layer of all samples is tens of megabytes, which Linux hands out page by page and takes back after each
# step. With huge pages torch's element-wise operations on such tensors were measured three times faster. torch reads
# this when it allocates its first tensor; a setting of the user's is left alone.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

if TYPE_CHECKING:
    from graphclust import datasets, graph, methods, metrics, nn, report, training
    from graphclust.graph import (
        FaissNeighbors,
        NeighborSampler,
        NeighborSearch,
        SampleGraph,
        neighbor_loader,
    )
    from graphclust.methods import (
        DCN,
        DEC,
        IDEC,
        SDCN,
        VGDCN,
        AEKMeans,
        KMeans,
        VaDE,
        VAEKMeans,
        load,
    )

_ROOMS = ("graph", "nn", "training", "methods", "metrics", "datasets", "report")

# name -> the module that defines it
_EXPORTS = {
    "VGDCN": "graphclust.methods",
    "SDCN": "graphclust.methods",
    "VaDE": "graphclust.methods",
    "DEC": "graphclust.methods",
    "IDEC": "graphclust.methods",
    "DCN": "graphclust.methods",
    "AEKMeans": "graphclust.methods",
    "VAEKMeans": "graphclust.methods",
    "KMeans": "graphclust.methods",
    "load": "graphclust.methods",
    "SampleGraph": "graphclust.graph",
    "NeighborSearch": "graphclust.graph",
    "FaissNeighbors": "graphclust.graph",
    "NeighborSampler": "graphclust.graph",
    "neighbor_loader": "graphclust.graph",
}

__all__ = [
    "VGDCN",
    "SDCN",
    "VaDE",
    "DEC",
    "IDEC",
    "DCN",
    "AEKMeans",
    "VAEKMeans",
    "KMeans",
    "load",
    "SampleGraph",
    "NeighborSearch",
    "FaissNeighbors",
    "NeighborSampler",
    "neighbor_loader",
    "graph",
    "nn",
    "training",
    "methods",
    "metrics",
    "datasets",
    "report",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in _EXPORTS:
        value = getattr(import_module(_EXPORTS[name]), name)
        globals()[name] = value  # the next access does not come here any more
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
