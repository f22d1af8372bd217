"""What a sample graph looks like, in a dozen numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch_geometric.utils import homophily

if TYPE_CHECKING:
    from graphclust.graph.sample_graph import SampleGraph


@dataclass(frozen=True)
class GraphSummary:
    """Figures of a :class:`SampleGraph`; ``print`` shows them.

    Attributes
    ----------
    n_samples, n_features, n_edges : int
        Edges are directed: a symmetric pair counts twice.
    degree_min, degree_median, degree_max : float
        Edges that a sample receives.
    n_components : int
        Connected components, directions ignored.
    largest_component : int
        Samples in the largest one.
    n_isolated : int
        Samples without any edge.
    hub_skewness : float
        Skewness of the in-degrees: how often a sample is in the neighbour lists of others (Radovanovic et al. 2010,
        "Hubs in space"); above 1 or so, few samples are everybody's neighbours.
    hubs : tuple of (int, int)
        The top five samples and how often they are neighbours.
    recall : float or None
        Estimated recall@k of the search.
    homophily : float or None
        Share of edges between samples of one label.
    """

    n_samples: int
    n_features: int
    n_edges: int
    degree_min: float
    degree_median: float
    degree_max: float
    n_components: int
    largest_component: int
    n_isolated: int
    hub_skewness: float
    hubs: tuple[tuple[int, int], ...]
    recall: float | None = None
    homophily: float | None = None

    def __str__(self) -> str:
        hubs = ", ".join(f"{sample} ({count}x)" for sample, count in self.hubs)
        lines = [
            f"samples      {self.n_samples:,} x {self.n_features:,} features",
            f"edges        {self.n_edges:,}",
            f"degree       {self.degree_min:g} min, {self.degree_median:g} median, {self.degree_max:g} max",
            f"components   {self.n_components:,}, the largest with {self.largest_component:,} samples",
            f"isolated     {self.n_isolated:,}",
            f"hubs         skewness {self.hub_skewness:.2f}; most often a neighbour: {hubs}",
        ]
        lines += [] if self.recall is None else [f"recall       {self.recall:.3f}"]
        lines += [] if self.homophily is None else [f"homophily    {self.homophily:.3f}"]
        return "\n".join(lines)


def summarize(graph: SampleGraph, labels: Any = None) -> GraphSummary:
    """Compute the summary; ``labels`` is a vector of N numbers or strings."""
    n, d = graph.x.shape
    source, target = graph.edge_index.cpu().numpy()
    other = source != target  # normalised graphs carry self loops
    received = np.bincount(target[other], minlength=n)
    given = np.bincount(source[other], minlength=n)
    matrix = csr_matrix((np.ones(len(source), dtype=np.int8), (target, source)), shape=(n, n))
    n_components, component = connected_components(matrix, directed=False)
    lists = graph.get("neighbor_index")
    counts = given if lists is None else np.bincount(lists.flatten().cpu().numpy(), minlength=n)
    spread = counts.std()
    top = np.argsort(-counts, kind="stable")[:5]
    return GraphSummary(
        n_samples=n,
        n_features=d,
        n_edges=len(source),
        degree_min=float(received.min()),
        degree_median=float(np.median(received)),
        degree_max=float(received.max()),
        n_components=int(n_components),
        largest_component=int(np.bincount(component).max()),
        n_isolated=int(((received + given) == 0).sum()),
        hub_skewness=float(((counts - counts.mean()) ** 3).mean() / spread**3) if spread > 0 else 0.0,
        hubs=tuple((int(i), int(counts[i])) for i in top),
        recall=graph.construction.get("estimated_recall"),
        homophily=None if labels is None else _homophily(graph, labels),
    )


def describe(graph: SampleGraph) -> str:
    """One line: "9,298 samples x 256 features, 10 neighbours, euclidean, 137,634 edges, heat/self-tuning, ..."."""
    how, parts = graph.construction, []
    if isinstance(graph.get("x"), torch.Tensor) and graph.x.ndim == 2:
        parts.append(f"{graph.x.size(0):,} samples x {graph.x.size(1):,} features")
    if "metric" in how:
        power = f"(p={how['p']:g})" if how["metric"] == "minkowski" else ""
        parts += [f"{how['n_neighbors']} neighbours", how["metric"] + power]
    if isinstance(graph.get("edge_index"), torch.Tensor):
        parts.append(f"{graph.edge_index.size(1):,} edges")
    if "kernel" in how:
        width = how["bandwidth"] if isinstance(how["bandwidth"], str) else f"t={how['bandwidth']:g}"
        parts.append(f"heat/{width}" if how["kernel"] == "heat" else how["kernel"])
    parts += [how[key] for key in ("symmetrize", "index_name") if key in how]
    parts += [f"{how['normalized']} normalised"] if "normalized" in how else []
    return ", ".join(parts)


def _homophily(graph: SampleGraph, labels: Any) -> float:
    values = labels.cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if values.shape != (graph.x.size(0),):
        raise ValueError(
            f"labels has shape {list(values.shape)}, but one a sample is needed: [{graph.x.size(0)}]"
        )
    codes = torch.from_numpy(np.unique(values, return_inverse=True)[1].reshape(-1))
    edges = graph.edge_index.cpu()
    return float(homophily(edges[:, edges[0] != edges[1]], codes, method="edge"))
