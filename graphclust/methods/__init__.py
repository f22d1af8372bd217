"""The published methods as estimators with one interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphclust.methods.ae_kmeans import AEKMeans, VAEKMeans
from graphclust.methods.agglomerative import Agglomerative
from graphclust.methods.agglomerative_density import AgglomerativeDensity
from graphclust.methods.base import DeepClusterer
from graphclust.methods.consensus import ConsensusClustering
from graphclust.methods.daegc import DAEGC
from graphclust.methods.dbc import DBC
from graphclust.methods.dcn import DCN
from graphclust.methods.dec import DEC, IDEC
from graphclust.methods.decda import DECDA
from graphclust.methods.deep_hierarchical import DeepHierarchical
from graphclust.methods.dfcn import DFCN
from graphclust.methods.dinknet import DinkNet
from graphclust.methods.dmon import DMoN
from graphclust.methods.files import has_meta, read_meta, saved_folder
from graphclust.methods.gae import GAE, VGAE
from graphclust.methods.gcsc import GCSC
from graphclust.methods.genetic import GeneticKMeans
from graphclust.methods.graph import GraphClusterer
from graphclust.methods.graph_contrast import GraphContrastClustering
from graphclust.methods.graphmi import GraphMI
from graphclust.methods.hierarchical_vae import HierarchicalVAE
from graphclust.methods.kmeans import KMeans
from graphclust.methods.learned_graph import LearnedGraphClustering
from graphclust.methods.ns4gc import NS4GC
from graphclust.methods.sdcn import SDCN
from graphclust.methods.shallow import ShallowClusterer
from graphclust.methods.vade import VaDE
from graphclust.methods.vae_hierarchical import VAEHierarchical
from graphclust.methods.vgdcn import VGDCN

#: Every method, by its name.
METHODS: dict[str, Any] = {
    method.__name__: method
    for method in (
        VGDCN,
        LearnedGraphClustering,
        ConsensusClustering,
        SDCN,
        DFCN,
        DAEGC,
        GAE,
        VGAE,
        GCSC,
        GraphContrastClustering,
        GraphMI,
        NS4GC,
        DinkNet,
        DMoN,
        VaDE,
        HierarchicalVAE,
        VAEHierarchical,
        DeepHierarchical,
        DEC,
        IDEC,
        DCN,
        DBC,
        DECDA,
        AEKMeans,
        VAEKMeans,
        Agglomerative,
        AgglomerativeDensity,
        GeneticKMeans,
        KMeans,
    )
}

__all__ = [*METHODS, "DeepClusterer", "GraphClusterer", "ShallowClusterer", "load"]


def load(folder: str | Path, **parameters: Any) -> Any:
    """Read a saved estimator of any method, or that of a result of ``graphclust cluster``; see `DeepClusterer.load`."""
    folder = saved_folder(folder)
    if not has_meta(folder) and has_meta(folder / "model"):
        folder = folder / "model"
    method = read_meta(folder)["method"]
    if method not in METHODS:
        raise ValueError(
            f"{folder} holds a {method!r}, which this graphclust does not have; it has {', '.join(METHODS)}"
        )
    return METHODS[method].load(folder, **parameters)
