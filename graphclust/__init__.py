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
    from graphclust import (
        comparison,
        datasets,
        graph,
        images,
        methods,
        metrics,
        nn,
        report,
        results,
        training,
    )
    from graphclust.clustering import cluster
    from graphclust.comparison import compare
    from graphclust.graph import (
        FaissNeighbors,
        NeighborSampler,
        NeighborSearch,
        SampleGraph,
        estimate_n_clusters,
        neighbor_loader,
    )
    from graphclust.methods import (
        DAEGC,
        DBC,
        DCN,
        DEC,
        DECDA,
        DFCN,
        GAE,
        GCSC,
        IDEC,
        METHODS,
        NS4GC,
        SDCN,
        VGAE,
        VGDCN,
        AEKMeans,
        Agglomerative,
        AgglomerativeDensity,
        ConsensusClustering,
        DeepHierarchical,
        DinkNet,
        DMoN,
        GeneticKMeans,
        GraphContrastClustering,
        GraphMI,
        HierarchicalVAE,
        KMeans,
        LearnedGraphClustering,
        VaDE,
        VAEHierarchical,
        VAEKMeans,
        load,
    )

_ROOMS = (
    "graph",
    "nn",
    "training",
    "methods",
    "metrics",
    "datasets",
    "report",
    "comparison",
    "images",
    "results",
)

# name -> the module that defines it
_EXPORTS = {
    "cluster": "graphclust.clustering",
    "LearnedGraphClustering": "graphclust.methods",
    "ConsensusClustering": "graphclust.methods",
    "VGDCN": "graphclust.methods",
    "SDCN": "graphclust.methods",
    "DFCN": "graphclust.methods",
    "DAEGC": "graphclust.methods",
    "GAE": "graphclust.methods",
    "VGAE": "graphclust.methods",
    "GCSC": "graphclust.methods",
    "GraphContrastClustering": "graphclust.methods",
    "GraphMI": "graphclust.methods",
    "NS4GC": "graphclust.methods",
    "DinkNet": "graphclust.methods",
    "DMoN": "graphclust.methods",
    "VaDE": "graphclust.methods",
    "HierarchicalVAE": "graphclust.methods",
    "VAEHierarchical": "graphclust.methods",
    "DeepHierarchical": "graphclust.methods",
    "DEC": "graphclust.methods",
    "IDEC": "graphclust.methods",
    "DCN": "graphclust.methods",
    "DBC": "graphclust.methods",
    "DECDA": "graphclust.methods",
    "AEKMeans": "graphclust.methods",
    "VAEKMeans": "graphclust.methods",
    "Agglomerative": "graphclust.methods",
    "AgglomerativeDensity": "graphclust.methods",
    "GeneticKMeans": "graphclust.methods",
    "KMeans": "graphclust.methods",
    "METHODS": "graphclust.methods",
    "load": "graphclust.methods",
    "compare": "graphclust.comparison",
    "estimate_n_clusters": "graphclust.graph",
    "SampleGraph": "graphclust.graph",
    "NeighborSearch": "graphclust.graph",
    "FaissNeighbors": "graphclust.graph",
    "NeighborSampler": "graphclust.graph",
    "neighbor_loader": "graphclust.graph",
}

__all__ = [
    "cluster",
    "LearnedGraphClustering",
    "ConsensusClustering",
    "VGDCN",
    "SDCN",
    "DFCN",
    "DAEGC",
    "GAE",
    "VGAE",
    "GCSC",
    "GraphContrastClustering",
    "GraphMI",
    "NS4GC",
    "DinkNet",
    "DMoN",
    "VaDE",
    "HierarchicalVAE",
    "VAEHierarchical",
    "DeepHierarchical",
    "DEC",
    "IDEC",
    "DCN",
    "DBC",
    "DECDA",
    "AEKMeans",
    "VAEKMeans",
    "Agglomerative",
    "AgglomerativeDensity",
    "GeneticKMeans",
    "KMeans",
    "METHODS",
    "load",
    "compare",
    "SampleGraph",
    "estimate_n_clusters",
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
    "comparison",
    "images",
    "results",
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
