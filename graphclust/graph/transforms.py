"""The search and the sample graph as parts of other libraries: scikit-learn and PyG."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from graphclust._checks import check_choice, check_count
from graphclust._refits import all_or_nothing
from graphclust.graph.sample_graph import SampleGraph
from graphclust.graph.search import NeighborSearch

_MODES = ("distance", "connectivity")


class FaissNeighbors(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Turn samples into the sparse matrix of their nearest neighbours, by FAISS.

    Has the interface of :class:`sklearn.neighbors.KNeighborsTransformer` and can take its place in pipelines, with
    ``SpectralClustering(affinity="precomputed_nearest_neighbors")``, ``DBSCAN(metric="precomputed")`` or scanpy.

    Parameters
    ----------
    n_neighbors : int
        In mode "distance" a row has one entry more: each fitted sample counts itself, at distance 0.
    mode : {"distance", "connectivity"}
        Entries: distances, or ones.
    metric, p, index, recall, device, random_state
        See :class:`NeighborSearch`.

    Attributes
    ----------
    n_features_in_ : int
    n_samples_fit_ : int
    search_ : NeighborSearch

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> FaissNeighbors(n_neighbors=5).fit_transform(load_digits().data).shape
    (1797, 1797)
    """

    def __init__(
        self,
        n_neighbors: int = 5,
        *,
        mode: str = "distance",
        metric: str = "euclidean",
        p: float = 2,
        index: str = "auto",
        recall: float = 0.95,
        device: Any = None,
        random_state: Any = 0,
    ):
        self.n_neighbors = n_neighbors
        self.mode = mode
        self.metric = metric
        self.p = p
        self.index = index
        self.recall = recall
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> FaissNeighbors:
        """Take the samples [N, d] among which neighbours are searched; ``y`` is ignored."""
        with all_or_nothing(self):
            X = self._validate(X, reset=True)
            check_count(self.n_neighbors, "n_neighbors")
            check_choice(self.mode, "mode", _MODES)
            self.search_ = NeighborSearch(
                self.metric,
                p=self.p,
                index=self.index,
                recall=self.recall,
                device=self.device,
                random_state=self.random_state,
            ).fit(X)
            self.n_samples_fit_ = self._n_features_out = X.shape[0]
        return self

    def transform(self, X: Any) -> csr_matrix:
        """Find the neighbours of samples [M, d] among the fitted ones: sparse [M, N], rows sorted by distance."""
        check_is_fitted(self)
        return self.kneighbors_graph(X, self.n_neighbors + (self.mode == "distance"), self.mode)

    def fit_transform(self, X: Any, y: Any = None) -> csr_matrix:
        """Fit, and find the neighbours of the fitted samples themselves; the diagonal is always there."""
        self.fit(X)
        n = self.n_samples_fit_
        k = self.n_neighbors + (self.mode == "distance")
        _check_k(k, n)
        index, distance = np.arange(n).reshape(-1, 1), np.zeros((n, 1))
        if self.metric == "inner_product" or k == n:  # there a sample need not be its own nearest
            return self.transform(X)
        if k > 1:
            others = self.search_.self_neighbors(k - 1, dtype=torch.float64)
            index = np.hstack([index, others[0].cpu().numpy()])
            distance = np.hstack([distance, others[1].cpu().numpy()])
        return _csr(index, distance, n, self.mode)

    def kneighbors(
        self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> tuple[np.ndarray, np.ndarray] | np.ndarray:
        """Find the nearest fitted samples, nearest first.

        Parameters
        ----------
        X : array, optional, shape [M, d]
            Without it: the fitted samples, each without itself.
        n_neighbors : int, optional
            ``self.n_neighbors`` by default.
        return_distance : bool

        Returns
        -------
        distance : array, float64, shape [M, k]
            Only when ``return_distance``.
        index : array, int64, shape [M, k]
        """
        check_is_fitted(self)
        k = self.n_neighbors if n_neighbors is None else check_count(n_neighbors, "n_neighbors")
        _check_k(k + (X is None), self.n_samples_fit_)
        if X is None:
            found = self.search_.self_neighbors(k, dtype=torch.float64)
        else:
            found = self.search_.neighbors(self._validate(X, reset=False), k, dtype=torch.float64)
        index, distance = found[0].cpu().numpy(), found[1].cpu().numpy()
        return (distance, index) if return_distance else index

    def kneighbors_graph(
        self, X: Any = None, n_neighbors: int | None = None, mode: str = "connectivity"
    ) -> csr_matrix:
        """Find the nearest fitted samples as a sparse matrix [M, N] of ones or distances; see :meth:`kneighbors`."""
        check_choice(mode, "mode", _MODES)
        distance, index = self.kneighbors(X, n_neighbors)
        return _csr(index, distance, self.n_samples_fit_, mode)

    def _validate(self, X: Any, reset: bool) -> np.ndarray:
        types = (np.float64, np.float32, np.float16, np.uint8)
        return validate_data(self, X, dtype=types, reset=reset)


class KNNSampleGraph(BaseTransform):
    """PyG transform: give a ``Data`` the edges (``edge_index``, ``edge_weight``) of the sample graph of its ``x``.

    Parameters
    ----------
    n_neighbors : int
    **kwargs
        See :meth:`SampleGraph.from_features`.
    """

    def __init__(self, n_neighbors: int = 10, **kwargs: Any):
        self.n_neighbors = n_neighbors
        self.kwargs = kwargs

    def forward(self, data: Data) -> Data:
        """Add the edges to ``data`` (the call hands over a shallow copy)."""
        if data.x is None:
            raise ValueError("data has no x to search neighbours by; set data.x to the features [N, d]")
        graph = SampleGraph.from_features(data.x, self.n_neighbors, **self.kwargs)
        data.edge_index, data.edge_weight = graph.edge_index, graph.edge_weight
        return data

    def __repr__(self) -> str:
        settings = "".join(f", {key}={value!r}" for key, value in self.kwargs.items())
        return f"{type(self).__name__}(n_neighbors={self.n_neighbors}{settings})"


def _csr(index: np.ndarray, distance: np.ndarray, n_columns: int, mode: str) -> csr_matrix:
    rows, k = index.shape
    data = distance.reshape(-1) if mode == "distance" else np.ones(rows * k)
    return csr_matrix((data, index.reshape(-1), np.arange(0, rows * k + 1, k)), shape=(rows, n_columns))


def _check_k(k: int, n_samples: int) -> None:
    if k > n_samples:
        raise ValueError(
            f"{k} neighbours (a sample itself included) are asked for, but only {n_samples} samples were fitted "
            f"(n_samples = {n_samples}); lower n_neighbors or fit more samples"
        )
