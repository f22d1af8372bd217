"""GCSC: graph convolutional subspace clustering, in closed form."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse import coo_matrix, csr_matrix
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.cluster import spectral_clustering
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import normalize
from torch_geometric.data import Data

from graphclust._checks import check_choice, check_count, check_number
from graphclust.graph import SampleGraph
from graphclust.graph.attachment import nodes_of
from graphclust.graph.copies import first_of_copies
from graphclust.methods.inputs import Input
from graphclust.methods.shallow_graph import ShallowGraphClusterer
from graphclust.nn.adjacency import Adjacency, propagation_weights

SIMILARITIES = ("linear", "rbf")
_BLOCK_ROWS = 1024


@dataclass(eq=False, repr=False, kw_only=True)
class GCSC(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ShallowGraphClusterer):
    r"""Graph convolutional subspace clustering (Cai, Zhang, Cai, Liu, Jiang & Yan 2020), in closed form.

    Samples are propagated over the graph, :math:`Z = \hat A^h X`, and each is written as a sum of the others,

    .. math::
        \min_C \tfrac12 |C Z - Z|_F^2 + \tfrac\lambda2 |C|_F^2
        \quad\Rightarrow\quad C = (Z Z^T + \lambda I)^{-1} Z Z^T = U \frac{S^2}{S^2 + \lambda} U^T

    with the singular vectors U and values S of Z. As in the paper, which takes it from deep subspace clustering (Ji et
    al. 2017), the affinity is that of the r = `subspace_dim` K + 1 leading directions,

    .. math::
        M = U_r \Big(\frac{S_r^2}{S_r^2 + \lambda}\Big)^{1/2}, \quad m_i \leftarrow m_i / |m_i|, \quad
        W_{ij} = \max(m_i^T m_j, 0)^\alpha,

    and spectral clustering of W gives the labels. ``similarity="rbf"`` is the kernel version (EKGCSC), with
    :math:`\hat A^h K (\hat A^h)^T` in the place of :math:`Z Z^T`. The paper reports hyperspectral images
    only. This one gave 89.0, NMI 87.2, ARI 81.9 on digits, 66.5, 80.1, 66.1 on USPS, and 67.4, 53.6, 43.5 on Cora (seed
    0, rows of features with sum 1); `n_hops` was set with the scores of digits and Cora in view. Scale the rows of bags
    of words: on Cora's words as they are, where long documents lead the singular directions, it gave 63.6.

    Where d < N, U and S come from :math:`Z^T Z`, which is d x d (Woodbury's identity for C), so that nothing of size
    N x N is held: W is made a block of rows at a time and keeps the largest of each. The kernel, and d >= N, hold one
    matrix of N^2 numbers. Time grows with N^2 in any case, hence `max_samples`.

    A new sample is attached to the graph, propagated with it and projected as the training samples were; it takes the
    cluster to which its largest affinities with training samples add up to most. One that equals a training sample is
    that sample.

    Departures: the paper's C reconstructs X from Z, here Z itself, whose C is symmetric and has the closed form above;
    W is sparse by keeping the largest affinities of each sample, where the paper cuts small coefficients of C before;
    :math:`\lambda` is given in units of the mean of the leading :math:`S^2` and so does not depend on the scale of the
    data; several propagations (`n_hops`), where the paper has one.

    Parameters
    ----------
    n_hops : int
        h, propagations of the features.
    ridge : float
        :math:`\lambda`, as a multiple of the mean of the r leading :math:`S^2`.
    subspace_dim : int
        Dimensions of a cluster's subspace.
    exponent : float
        :math:`\alpha`, at least 1: more makes close pairs count more.
    n_affine : int
        Largest affinities of a sample that are kept.
    similarity : {"linear", "rbf"}
        Of samples before propagation; "rbf" is :math:`\exp(-\gamma |x - y|^2)`.
    gamma : float or None
        Of "rbf"; None takes 1 / (d times the variance of all features).
    max_samples : int
        More are refused with a ValueError that tells the memory it would take; raise it to go on.

    Attributes
    ----------
    embedding_ : ndarray [N, r], float32
        Rows m of length 1.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from graphclust import GCSC
    >>> GCSC(10, random_state=0).fit(load_digits().data).embedding_.shape
    (1797, 41)
    """

    n_hops: int = 3
    ridge: float = 1.0
    subspace_dim: int = 4
    exponent: float = 4.0
    n_affine: int = 50
    similarity: str = "linear"
    gamma: float | None = None
    max_samples: int = 20_000

    _results: ClassVar[tuple[str, ...]] = ("labels", "embedding", "projection", "used_gamma")

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_count(self.n_hops, "n_hops", 0)
        check_number(self.ridge, "ridge", 0.0, open_low=True)
        check_count(self.subspace_dim, "subspace_dim")
        check_number(self.exponent, "exponent", 1.0)
        check_count(self.n_affine, "n_affine")
        check_choice(self.similarity, "similarity", SIMILARITIES)
        if self.gamma is not None:
            check_number(self.gamma, "gamma", 0.0, open_low=True)
        check_count(self.max_samples, "max_samples")

    def _data_of(self, X: Input) -> torch.Tensor:
        # Before the neighbours are searched, where the number of samples can be seen without reading them.
        shape: tuple[int, ...] = tuple(getattr(X.x if isinstance(X, Data) else X, "shape", ()))
        if len(shape) > 1:
            self._check_size(int(shape[0]), math.prod(shape[1:]))
        return super()._data_of(X)

    def _check_size(self, n: int, d: int) -> None:
        if n <= self.max_samples:
            return
        pairs = n * n if self.similarity == "rbf" or d >= n else 0
        needed = 8 * (2 * pairs + 3 * n * (d + self.n_affine))
        raise ValueError(
            f"n_samples={n} is more than max_samples={self.max_samples}: GCSC compares all pairs of samples and would "
            f"take about {needed / 1e9:.1f} GB and a time that grows with n_samples^2; cluster a part of them, raise "
            "max_samples, or take a method that trains on batches (DMoN, DinkNet)"
        )

    def _fit(self, x: NDArray[np.float32], seed: int) -> None:
        n = len(x)
        self._check_size(*x.shape)
        variance = float(x.astype(np.float64).var())
        default = 1.0 / (x.shape[1] * variance) if variance > 0 else 1.0
        self.used_gamma_ = float(default if self.gamma is None else self.gamma)
        rank = min(self.subspace_dim * self.n_clusters_ + 1, n)
        self.projection_ = self._directions(x, rank)
        self.embedding_ = self._embed(self.graph_)
        labels = np.zeros(n, dtype=np.int64)
        if self.n_clusters_ > 1:
            if np.allclose(self.embedding_, self.embedding_[0], atol=1e-5):
                raise ValueError(
                    f"n_clusters={self.n_clusters_}, and all samples are equal after their rows are brought to length "
                    f"1, which GCSC does (n_features = {x.shape[1]}): of a single column no more than the sign is "
                    "left. Take KMeans or ConsensusClustering"
                )
            labels = _spectral(self._affinity(self.embedding_, exclude_own=True), self.n_clusters_, seed)
        first = first_of_copies(self.graph_)
        if first is not None:
            labels, self.embedding_ = labels[first.numpy()], self.embedding_[first.numpy()]
        self.labels_ = labels

    def _directions(self, x: NDArray[np.float32], rank: int) -> NDArray[np.float32]:
        """P [d, r], or [N, r] for a kernel: the rows of ``A^h k(X) P`` are M before their length is made 1.

        With Z = U S V^T, U_r is Z V_r / S_r, or Z Z^T U_r / S_r^2; with a kernel, U_r is A^h K (A^h)^T U_r / S_r^2.
        """
        p: NDArray[Any]
        if self.similarity == "rbf":
            # A K A^T, as A (A K)^T: K is symmetric.
            half = self._propagate(self.graph_, self._kernel(x))
            gram = self._propagate(self.graph_, np.ascontiguousarray(half.T))
            values, u = _leading(gram.astype(np.float64), rank)
            p = self._propagate(self.graph_, (u / values).astype(np.float32), transposed=True)
        else:
            z = self._propagate(self.graph_, x).astype(np.float64)
            if x.shape[1] < len(x):
                values, v = _leading(z.T @ z, rank)
                p = v / np.sqrt(values)
            else:
                values, u = _leading(z @ z.T, rank)
                p = z.T @ (u / values)
        return np.ascontiguousarray(p * np.sqrt(values / (values + self.ridge * values.mean())), np.float32)

    def _kernel(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return rbf_kernel(x, self._training_features(), gamma=self.used_gamma_).astype(np.float32)

    def _training_features(self) -> NDArray[np.float32]:
        return self.graph_.x.float().cpu().numpy()

    def _embed(self, graph: SampleGraph) -> NDArray[np.float32]:
        """Rows m [N, r] of all samples of a graph."""
        x = graph.x.float().cpu().numpy()
        if self.similarity == "rbf":
            blocks = [
                self._kernel(x[i : i + _BLOCK_ROWS]) @ self.projection_ for i in range(0, len(x), _BLOCK_ROWS)
            ]
            projected = np.concatenate(blocks)
        else:
            projected = x @ self.projection_
        return normalize(self._propagate(graph, projected))

    def _propagate(
        self, graph: SampleGraph, x: NDArray[np.float32], transposed: bool = False
    ) -> NDArray[np.float32]:
        """``A^h x``, or ``(A^h)^T x``, with the normalised propagation matrix of a graph, self loops included."""
        assert graph.edge_index is not None
        edges, weight = graph.edge_index.cpu(), graph.edge_weight.cpu()
        weights = propagation_weights(edges, weight, len(x))
        adjacency = Adjacency(edges.flip(0) if transposed else edges, weight, *weights)
        result = torch.from_numpy(np.ascontiguousarray(x))
        for _ in range(self.n_hops):
            result = adjacency.propagate(result)
        return result.numpy()

    def _affinity(self, rows: NDArray[np.float32], *, exclude_own: bool = False) -> csr_matrix:
        """The `n_affine` largest entries of W between samples m [M, r] and the training samples, [M, N]."""
        n = len(self.embedding_)
        kept = min(self.n_affine, n - exclude_own)
        columns, values = [], []
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = rows[start : start + _BLOCK_ROWS]
            w = np.maximum(block @ self.embedding_.T, 0.0) ** self.exponent
            if exclude_own:
                w[np.arange(len(block)), start + np.arange(len(block))] = -1.0
            largest = np.argpartition(-w, kept - 1, axis=1)[:, :kept]
            columns.append(largest)
            values.append(np.take_along_axis(w, largest, axis=1))
        # scikit-learn takes indices of 32 bits alone.
        row = np.arange(len(rows), dtype=np.int32).repeat(kept)
        column = np.concatenate(columns).ravel().astype(np.int32)
        entries = np.concatenate(values).ravel(), (row, column)
        return coo_matrix(entries, shape=(len(rows), n)).tocsr()

    def predict(self, X: Input) -> NDArray[np.int64]:
        """Cluster of each new sample, [M]: that of its largest affinities, see the class.

        Parameters
        ----------
        X : array, memory map or tensor [M, d], SampleGraph, or PyG Data
            Features are attached to the training graph; a graph is read as it is, but the nodes of the training graph
            itself have `labels_`.
        """
        if self._is_training_graph(X, self._features(X)):
            return self.labels_.copy()
        graph, nodes = self._new_samples(X)
        # What was attached to another graph is beside other samples than those that have these labels.
        known = (nodes < len(self.labels_)) & (self._given_graph(X) is None)
        member = np.eye(self.n_clusters_, dtype=np.float32)[self.labels_]
        votes = (self._affinity(self._embed(graph)[nodes]) @ member).argmax(axis=1)
        return np.where(known, self.labels_[np.where(known, nodes, 0)], votes).astype(np.int64)

    def transform(self, X: Input) -> NDArray[np.float32]:
        """Rows m of new samples, [M, r]; see `predict`."""
        graph, nodes = self._new_samples(X)
        return self._embed(graph)[nodes]

    def _new_samples(self, X: Input) -> tuple[SampleGraph, NDArray[np.int64]]:
        """A graph that holds the samples, and which of its nodes they are."""
        x = torch.from_numpy(self._features(X))
        given = self._given_graph(X)
        if given is not None:
            first = first_of_copies(given)
            return given, np.arange(len(x)) if first is None else first.numpy()
        if not self.graph_.joins_neighbors:
            raise ValueError(
                "the model was fitted to given edges, so new rows have no place in its graph: pass a PyG Data or a "
                "SampleGraph that holds the samples and their edges"
            )
        attached = self.graph_.attach(x)
        neighbors = attached.neighbor_index
        assert neighbors is not None
        return attached, nodes_of(self.graph_.x, x, neighbors[len(self.labels_) :]).numpy()

    def __sklearn_tags__(self) -> Any:
        """Tags for scikit-learn: the embedding is float32."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.embedding_.shape[1]


def _leading(matrix: NDArray[np.float64], rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The `rank` largest eigenvalues of a symmetric positive matrix [n, n], those above rounding, and their vectors."""
    n = len(matrix)
    values, vectors = eigh(matrix, subset_by_index=(max(0, n - rank), n - 1))
    positive = values > max(values[-1], 0.0) * 1e-10
    positive[-1] = True  # features that are all zero leave one direction, of zeros
    return np.maximum(values[positive], 1e-30), vectors[:, positive]


def _spectral(affinity: csr_matrix, n_clusters: int, seed: int) -> NDArray[np.int64]:
    if n_clusters == affinity.shape[0]:  # ARPACK finds fewer eigenvectors than there are samples
        return np.arange(n_clusters)
    symmetric = affinity.maximum(affinity.T)
    with warnings.catch_warnings():
        # Parts of the data that nothing joins are clusters, and duplicates leave some empty.
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        warnings.filterwarnings("ignore", message="Number of distinct clusters")
        labels = spectral_clustering(symmetric, n_clusters=n_clusters, random_state=seed % 2**32)
    return labels.astype(np.int64)
