"""Probabilities averaged over the neighbours in a sample graph: of its own samples, and of new ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphclust.graph import SampleGraph
from graphclust.graph.kernels import attached_weights
from graphclust.graph.known_samples import search_among
from graphclust.graph.metric import Metric
from graphclust.methods.starts import propagated
from graphclust.training.batches import BatchSource
from graphclust.training.inference import N_TOP

Table: TypeAlias = NDArray[np.float32] | sp.csr_matrix

#: Entries of a dense block of a sparse table.
_BLOCK = 1 << 24
#: Rows whose distances tell the usual one, and the share of it below which two places are the same but for rounding.
_ROWS, _SAME = 5000, 1e-3


def averaged(graph: SampleGraph, p: Table, times: int) -> Table:
    """Probabilities [N, K] averaged `times` times over each sample, of weight 1, and its neighbours in the graph.

    A sparse table stays sparse: after each average the five largest of a row are kept.
    """
    source = BatchSource(graph, normalization="row")
    if isinstance(p, np.ndarray):
        return propagated(source, torch.from_numpy(p), times).numpy()
    assert graph.edge_index is not None
    edges, loops = (weight.numpy() for weight in source.weights)
    pair = graph.edge_index.flip(0).numpy()
    matrix = (sp.csr_matrix((edges, pair), shape=(len(loops),) * 2) + sp.diags(loops)).tocsr()
    for _ in range(times):
        p = _stacked([_largest(block @ p) for block in _blocks(matrix, p.shape[1])], p.shape[1])
    return p


def sharpened_labels(p: Table) -> Tensor:
    """Labels [N] of the largest ``p_ij^2 / f_j`` with the clusters' frequencies f, of probabilities [N, K]."""
    if not isinstance(p, np.ndarray):
        frequency = np.asarray(p.sum(axis=0)).reshape(-1)
        sharp = (p.power(2) @ sp.diags(1.0 / np.maximum(frequency, 1e-30))).tocsr()
        return torch.from_numpy(np.asarray(sharp.argmax(axis=1)).reshape(-1)).long()
    dense = torch.from_numpy(p)
    return (dense.square() / dense.sum(dim=0).clamp_min(1e-30)).argmax(dim=1)


class Neighbors:
    """The samples of a graph that new samples are nearest to, to average probabilities with.

    The search is that of the graph (`search_among`), for as many new samples as will come.

    Parameters
    ----------
    graph : SampleGraph
        Made by `SampleGraph.from_features`.
    probabilities : ndarray or csr_matrix [N, K]
        Of its samples.
    n_new : int
        Number of new samples that will be asked for: a scan is cheaper than an index for a few.
    """

    def __init__(self, graph: SampleGraph, probabilities: Table, n_new: int) -> None:
        how = graph.construction
        n = len(graph.x)
        metric = Metric.make(how["metric"], how["p"])
        self.search = search_among(graph, n_new, metric, index=how["index"], recall=how["recall"])
        self.graph, self.probabilities = graph, probabilities
        assert graph.neighbor_distance is not None
        some = graph.neighbor_distance[:: max(1, n // _ROWS)].double()
        self._same = _SAME * float(some.median())

    def average(self, x: Tensor, own: Tensor) -> Tensor:
        """Probabilities [M, K] of new samples x [M, d]: their own, of weight 1, with those of their neighbours.

        Those that lie where a sample of the graph lies have that one's: labels of training samples are what they were.
        """
        graph, how = self.graph, self.graph.construction
        old_distance = graph.neighbor_distance
        assert old_distance is not None
        index, distance = self.search.neighbors(x, how["n_neighbors"])
        bandwidth = how.get("t", how["bandwidth"])
        weight = attached_weights(index, distance, how["kernel"], bandwidth, x, graph.x, old_distance)
        pointer = np.arange(0, index.numel() + 1, index.shape[1])
        matrix = sp.csr_matrix(
            (weight.numpy().reshape(-1), index.numpy().reshape(-1), pointer), (len(x), len(graph.x))
        )
        shares = matrix @ self.probabilities
        dense = torch.from_numpy(shares.toarray() if sp.issparse(shares) else np.asarray(shares))
        averages = (dense + own) / (1.0 + weight.sum(dim=1, keepdim=True))
        known = distance[:, 0] <= self._same
        rows = self.probabilities[index[known, 0].numpy()]
        averages[known] = torch.from_numpy(rows.toarray() if sp.issparse(rows) else np.asarray(rows))
        return averages


def _blocks(matrix: sp.csr_matrix, width: int) -> Iterator[sp.csr_matrix]:
    step = max(1, _BLOCK // width)
    for start in range(0, matrix.shape[0], step):
        yield matrix[start : start + step]


def _largest(rows: sp.csr_matrix) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The largest entries of each row and their columns, [b, min(5, K)] each."""
    values, columns = torch.from_numpy(rows.toarray()).topk(min(N_TOP, rows.shape[1]), dim=1)
    return values.numpy(), columns.numpy().astype(np.int32)


def _stacked(parts: list[tuple[NDArray[np.float32], NDArray[np.int32]]], width: int) -> sp.csr_matrix:
    values = np.concatenate([part[0] for part in parts])
    columns = np.concatenate([part[1] for part in parts])
    pointer = np.arange(0, values.size + 1, values.shape[1])
    return sp.csr_matrix((values.reshape(-1), columns.reshape(-1), pointer), (len(values), width))
