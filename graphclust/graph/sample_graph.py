"""The sample graph: samples, who is near whom, how near, and how that was found out."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import add_remaining_self_loops, coalesce, scatter

from graphclust._checks import (
    WITHOUT_FEATURES,
    check_choice,
    check_edges,
    check_edges_are_read,
    check_features,
)
from graphclust.graph import attachment, storage
from graphclust.graph.kernels import (
    SYMMETRIZE,
    check_kernel,
    median_bandwidth,
    neighbor_edges,
    neighbor_weights,
    symmetrize_edges,
)
from graphclust.graph.search import NeighborSearch
from graphclust.graph.summary import GraphSummary, describe, summarize


class SampleGraph(Data):
    """Samples joined to their nearest neighbours: a PyG ``Data`` that remembers how it was built.

    Make one with :meth:`from_features`, :meth:`from_edges`, :meth:`from_data` or :meth:`open`.

    Attributes
    ----------
    x : Tensor, shape [N, d]
        The samples: float32, float16 or uint8.
    edge_index : Tensor, int64, shape [2, E]
        Row 0 the neighbour j (source), row 1 the sample i that receives (target); no self loops, no duplicates,
        sorted by target, then source.
    edge_weight : Tensor, float32, shape [E]
    neighbor_index : Tensor or None, int64, shape [N, k]
        The k nearest others of each sample, nearest first.
    neighbor_distance : Tensor or None, float32, shape [N, k]
    construction : dict
        Metric, kernel, index and so on, in plain types.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> graph = SampleGraph.from_features(load_digits().data, n_neighbors=5)
    >>> graph.num_nodes, graph.neighbor_index.shape
    (1797, torch.Size([1797, 5]))
    """

    # In the instance, not in PyG's store, whose loaders and batches would cut a dictionary up.
    @property
    def construction(self) -> dict[str, Any]:
        """How the graph was built, in plain types that JSON can hold."""
        return self.__dict__.get("_construction", {})

    @construction.setter
    def construction(self, value: dict[str, Any]) -> None:
        self.__dict__["_construction"] = dict(value)

    # PyG's store drops values that are None, so that reading them would fail.
    @property
    def neighbor_index(self) -> Tensor | None:
        """The nearest others of each sample, nearest first [N, k]; None where the edges were given."""
        return self._store.get("neighbor_index")

    @property
    def neighbor_distance(self) -> Tensor | None:
        """The distances to ``neighbor_index`` [N, k]; None where the edges were given."""
        return self._store.get("neighbor_distance")

    @classmethod
    def from_features(
        cls,
        x: Any,
        n_neighbors: int = 10,
        *,
        metric: str = "euclidean",
        p: float = 2.0,
        kernel: str = "heat",
        bandwidth: float | str = "self-tuning",
        symmetrize: str = "union",
        index: str = "auto",
        recall: float = 0.95,
        device: str | torch.device | None = None,
        random_state: Any = 0,
        verbose: bool = False,
        folder: str | Path | None = None,
        engine: Any = "local",
    ) -> SampleGraph:
        """Join every sample to its nearest others.

        Parameters
        ----------
        x : array, tensor or memory map, shape [N, d]
            Shared, not copied, when it is float32, float16 or uint8; else converted to float32.
        n_neighbors : int
            k, from 1 to N - 1.
        metric, p, index, recall, device, random_state, verbose, engine
            See :class:`NeighborSearch`.
        folder : path, optional
            Where a large search keeps its state, see :meth:`NeighborSearch.self_neighbors`.
        kernel, bandwidth
            See :func:`graphclust.graph.kernels.neighbor_weights`.
        symmetrize : {"none", "union", "mutual", "mean"}
            See :func:`graphclust.graph.kernels.symmetrize_edges`.

        Returns
        -------
        SampleGraph

        Raises
        ------
        ValueError, TypeError
            When the features or a parameter are not valid.

        Notes
        -----
        Besides the features a sample takes 12 k bytes for its neighbour list and 20 for each edge that it receives:
        some 450 with k = 10 and "union". Weighing and symmetrising work on blocks and on sparse matrices of 8 bytes an
        edge: about as much again while the graph is built.
        """
        check_kernel(kernel, bandwidth)
        check_choice(symmetrize, "symmetrize", SYMMETRIZE)
        if kernel == "heat" and metric == "inner_product":
            raise ValueError(
                "kernel='heat' needs distances of at least 0, but metric='inner_product' has none; "
                "use kernel='binary' or kernel='cosine'"
            )
        features = check_features(x)
        search = NeighborSearch(
            metric,
            p=p,
            index=index,
            recall=recall,
            device=device,
            random_state=random_state,
            verbose=verbose,
            engine=engine,
        )
        # Another machine opens a memory map again; what was converted has no file behind it.
        shared = search.engine != "local" and isinstance(x, np.memmap) and x.dtype != np.float64
        search.fit(x if shared else features)
        neighbor_index, distance = search.self_neighbors(n_neighbors, folder=folder)
        weight = neighbor_weights(neighbor_index, distance, kernel, bandwidth, x=features)
        edges = neighbor_edges(neighbor_index)
        edge_index, edge_weight = symmetrize_edges(edges, weight.flatten(), len(features), symmetrize)
        graph = cls(x=features, edge_index=edge_index, edge_weight=edge_weight)
        graph["neighbor_index"], graph["neighbor_distance"] = neighbor_index, distance
        graph.construction = {
            "source": "features",
            "n_neighbors": int(n_neighbors),
            "metric": metric,
            "p": float(p),
            "kernel": kernel,
            "bandwidth": bandwidth if isinstance(bandwidth, str) else float(bandwidth),
            "symmetrize": symmetrize,
            "index": index,
            "index_name": search.index_name_,
            "recall": float(recall),
            "estimated_recall": search.recall_,
        }
        if kernel == "heat" and bandwidth == "median":
            graph.construction["t"] = median_bandwidth(distance)
        return graph

    @classmethod
    def from_edges(
        cls, edge_index: Any, x: Any, edge_weight: Any = None, symmetrize: str = "union"
    ) -> SampleGraph:
        """Take edges that are already known (citations, friendships).

        Parameters
        ----------
        edge_index : Tensor or array, int, shape [2, E], or sparse matrix [N, N]
            Row 0 sources, row 1 targets. Of a SciPy sparse matrix the entries are the weights of the edges from row to
            column, as in scanpy's ``adata.obsp["connectivities"]``. Self loops are dropped; repeated edges count
            once, the heaviest.
        x : array, tensor or memory map, shape [N, d]
        edge_weight : Tensor or array, optional, shape [E]
            Finite and at least 0; 1 by default.
        symmetrize : {"none", "union", "mutual", "mean"}

        Returns
        -------
        SampleGraph
            With ``neighbor_index`` and ``neighbor_distance`` None.
        """
        if x is None:
            raise TypeError(
                "x is None, and every sample needs features [N, d]; samples without any can take torch.ones(N, 1), or "
                "their degrees"
            )
        features = check_features(x)
        n = features.size(0)
        edges, weight = check_edges(edge_index, edge_weight, n, features.device)
        edges, weight = symmetrize_edges(edges, weight, n, symmetrize)
        graph = cls(x=features, edge_index=edges, edge_weight=weight)
        graph.construction = {"source": "edges", "symmetrize": symmetrize}
        return graph

    @classmethod
    def from_data(cls, data: Data, **kwargs: Any) -> SampleGraph:
        """Take a PyG ``Data``: its edges if it has any (:meth:`from_edges`), else its ``x`` (:meth:`from_features`).

        ``edge_weight``, or a one-column ``edge_attr``, gives the weights; other attributes of edges are not read.
        Labels and other per-sample tensors (``y``, masks) come along. A ``SampleGraph`` without further arguments is
        returned as it is.
        """
        if not isinstance(data, Data):
            raise TypeError(
                f"data is a {type(data).__name__}; pass a torch_geometric.data.Data (of a networkx graph: "
                "torch_geometric.utils.from_networkx), or edges to SampleGraph.from_edges"
            )
        if isinstance(data, cls) and not kwargs:
            return data
        if data.x is None:
            raise ValueError("data has no x; set data.x to the features [N, d], " + WITHOUT_FEATURES)
        check_edges_are_read(data)
        if data.edge_index is None or data.edge_index.numel() == 0:
            graph = cls.from_features(data.x, **kwargs)
        else:
            unknown = sorted(set(kwargs) - {"symmetrize"})
            if unknown:
                raise ValueError(
                    f"data has edges, for which {', '.join(unknown)} cannot apply; to search neighbours "
                    "instead use SampleGraph.from_features(data.x, ...)"
                )
            graph = cls.from_edges(data.edge_index, data.x, edge_weight_of(data), **kwargs)
        for key, value in data.items():
            if key not in graph and isinstance(value, Tensor) and data.is_node_attr(key):
                graph[key] = value
        return graph

    def search(self, x: Any, k: int = 10) -> tuple[Tensor, Tensor]:
        """Find the samples of the graph that are nearest to others: "more like this".

        Parameters
        ----------
        x : array or tensor [d], [M, d], or images [M, H, W], [M, H, W, C] of d values each
            A sample of the graph that is asked for finds itself.
        k : int
            From 1 to N.

        Returns
        -------
        index : Tensor, int64, shape [M, k]
            Nearest first; M is 1 for a single sample.
        distance : Tensor, float32, shape [M, k]
            By the graph's metric.

        Raises
        ------
        ValueError
            When this graph was made from edges, or when the features do not fit.
        """
        from graphclust.graph.retrieval import nearest

        rows, d = x if isinstance(x, Tensor) else np.asarray(x), self.x.shape[1]
        if rows.ndim == 1:
            rows = rows[None]
        elif rows.ndim > 2 and int(np.prod(rows.shape[1:])) == d:
            rows = rows.reshape(-1, d)
        return nearest(self, rows, k)

    @property
    def joins_neighbors(self) -> bool:
        """Whether the edges were built from the samples, as those between nearest neighbours; else they were given."""
        return self.construction.get("source") in ("features", "codes")

    def attach(self, x_new: Any) -> SampleGraph:
        """Join new samples to their nearest neighbours in this graph, by the same metric and kernel.

        Only edges from old samples to new ones are added, so whatever was computed for the old samples stays valid.

        Parameters
        ----------
        x_new : array, tensor or memory map, shape [M, d]

        Returns
        -------
        SampleGraph
            N + M samples, the old ones first; ``num_old`` is N. Other attributes (labels) are left behind. Features
            keep their type, but where it cannot hold the new ones (fractions beside uint8).

        Raises
        ------
        ValueError
            When this graph was made from edges or is normalised, or when the features do not fit.
        """
        stacked = attachment.attach(self, x_new)
        graph = type(self)(
            x=stacked.x.tensor(), edge_index=stacked.edge_index, edge_weight=stacked.edge_weight
        )
        for name in ("neighbor_index", "neighbor_distance"):
            graph[name] = stacked[name].tensor()
        graph.num_old = stacked.num_old
        graph.construction = stacked.construction
        return graph

    def normalized(self, kind: str = "symmetric", self_loops: bool = True) -> SampleGraph:
        r"""Normalise the weights for propagation.

        ``symmetric``: :math:`\tilde D^{-1/2} \tilde A \tilde D^{-1/2}` (Kipf and Welling 2017, by PyG's ``gcn_norm``);
        ``row``: :math:`\tilde D^{-1} \tilde A`, so that the weights which a sample receives sum to 1. With
        ``self_loops``, :math:`\tilde A = A + I`.

        Returns
        -------
        SampleGraph
            The same samples with new edges; the tensors that do not change are shared.
        """
        check_choice(kind, "kind", ("symmetric", "row"))
        if "normalized" in self.construction:
            raise ValueError("the graph is already normalised; normalise the one it came from")
        n = self.x.size(0)
        if kind == "symmetric":
            edges, weight = gcn_norm(self.edge_index, self.edge_weight, n, False, self_loops)
        else:
            edges, weight = self.edge_index, self.edge_weight
            if self_loops:
                edges, weight = add_remaining_self_loops(edges, weight, 1.0, n)
            degree = scatter(weight, edges[1], dim_size=n, reduce="sum")
            weight = weight / degree.clamp_min(torch.finfo(weight.dtype).tiny)[edges[1]]
        graph = copy.copy(self)
        graph.edge_index, graph.edge_weight = coalesce(edges, weight, n, sort_by_row=False)
        graph.construction = {**self.construction, "normalized": kind, "self_loops": bool(self_loops)}
        return graph

    def summary(self, labels: Any = None) -> GraphSummary:
        """Describe the graph: degrees, components, hubs, recall and, given ``labels`` [N], the edges' homophily."""
        return summarize(self, labels)

    def save(self, folder: str | Path, *, features: str | Path | None = None) -> Path:
        """Write the graph to a folder, one .npy file a tensor and graph.json; replaces an older graph safely.

        Parameters
        ----------
        folder : path
        features : path, optional
            The .npy file that holds ``x``: it is then named, not copied (absolute path, size, checksum), and has to
            stay where it is.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        OSError
            When the disk has too little room; the message says how many bytes are needed and free. What was in the
            folder stays.
        ValueError, TypeError
            When ``folder`` is a file, ``features`` holds something else, or an attribute cannot be written.

        Notes
        -----
        On disk a sample takes ``d * itemsize`` bytes for its features (none with ``features=``), 12 k for its
        neighbour list and 20 for each edge: with k = 10 and ``symmetrize="union"`` some 450 besides the features. It is
        written in pieces of 16 MiB.
        """
        references = {} if features is None else {"x": features}
        return storage.save(folder, dict(self.items()), self.construction, references=references)

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool | None = None) -> SampleGraph:
        """Open a saved graph; its arrays are memory maps, read when they are needed.

        Parameters
        ----------
        folder : path
        verify : bool, optional
            Whether to read all arrays once and compare their checksums; None does so with arrays of at most 32 MiB.
            Their sizes, shapes and types are always checked.

        Raises
        ------
        FileNotFoundError
            When there is no graph in the folder.
        ValueError
            When its format is another one, or a file is missing, too short or damaged.
        """
        values, construction = storage.load(folder, verify=verify)
        graph = cls(**values)
        graph.construction = construction
        return graph

    def subgraph(self, subset: Tensor) -> SampleGraph:
        """Keep some samples (PyG's ``Data.subgraph``); neighbour lists, which name absent samples, are left out."""
        graph = super().subgraph(subset)
        for key in ("neighbor_index", "neighbor_distance"):
            graph._store.pop(key, None)
        graph.construction = {"source": "subgraph"}
        return graph

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        # PyG takes every name with "index" in it for edges; the neighbour lists are rows of samples.
        return 0 if key == "neighbor_index" else super().__cat_dim__(key, value, *args, **kwargs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({describe(self)})"


def on_cpu(graph: Data) -> Any:
    """The graph itself where its features are on the CPU, else a copy there: what PyG moves, it moves in place."""
    assert graph.x is not None
    return graph if graph.x.device.type == "cpu" else copy.copy(graph).cpu()


def edge_weight_of(data: Data) -> Tensor | None:
    """Weights of the edges of a graph: ``edge_weight``, a one-column ``edge_attr``, or None."""
    if data.get("edge_weight") is not None:
        return data.edge_weight
    attribute = data.get("edge_attr")
    if isinstance(attribute, Tensor) and attribute.numel() == data.edge_index.size(1):
        return attribute.reshape(-1)
    for name in ("edge_attr", "weight"):  # from_networkx leaves "weight", whatever it is, under that name
        unread = data.get(name)
        if isinstance(unread, Tensor) and unread.ndim and unread.size(0) == data.edge_index.size(1):
            column = f"{name}[:, 0]" if unread.ndim > 1 else name
            warnings.warn(
                f"all edges weigh the same: data.{name} {list(unread.shape)} is not read; for weights set "
                f"data.edge_weight = data.{column}",
                stacklevel=3,
            )
    return None
