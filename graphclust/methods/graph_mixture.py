"""A mixture of t distributions whose samples may only be in the clusters of their neighbours: sharpens a partition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.special import gammaln
from torch import Tensor

from graphclust.graph.linkage import row_maxima

#: Degrees of freedom that are tried; the last one is a Gaussian.
_FREEDOM = (3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0, 1000.0)
_BLOCK = 65_536
#: Covariances that are factored at once.
_CLUSTERS = 256
_SAMPLE = 100_000


@dataclass(frozen=True)
class Projection:
    """Principal components of features, computed from a random part of the rows, applied in blocks.

    Attributes
    ----------
    mean : Tensor [d]
    basis : Tensor [d, p]
    """

    mean: Tensor
    basis: Tensor

    @classmethod
    def fit(cls, x: Tensor, *, variance: float = 0.98, most: int = 32, seed: int = 0) -> Projection:
        """The fewest components that hold a share `variance` of all variance, at most `most`; of rows x [N, d]."""
        n = x.shape[0]
        rows = np.random.default_rng(seed).choice(n, min(n, _SAMPLE), replace=False)
        part = x[torch.from_numpy(np.sort(rows))].double()
        mean = part.mean(dim=0)
        values, vectors = torch.linalg.eigh((part - mean).T @ (part - mean))
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        held = values.cumsum(0) / values.sum().clamp_min(1e-300)
        p = min(most, int((held < variance).sum()) + 1, x.shape[1])
        return cls(mean.float(), vectors[:, :p].float().contiguous())

    def __call__(self, x: Tensor) -> NDArray[np.float32]:
        """Rows [N, d] of any numeric type, a memory map too -> [N, p]."""
        out = np.empty((x.shape[0], self.basis.shape[1]), dtype=np.float32)
        for start in range(0, len(out), _BLOCK):
            rows = x[start : start + _BLOCK].float()
            out[start : start + _BLOCK] = ((rows - self.mean) @ self.basis).numpy()
        return out


@dataclass(frozen=True)
class GraphMixture:
    r"""Clusters as multivariate t distributions, each sample in one of the clusters that its neighbours are in.

    .. math:: \log p_{ik} = \log \frac{n_k}{N} - \tfrac12 \log |\Sigma_k|
        - \frac{\nu + p}{2} \log\Big(1 + \frac{(z_i - \mu_k)^T \Sigma_k^{-1} (z_i - \mu_k)}{\nu - 2}\Big)

    for the clusters k that edges lead to from sample i, and its own. The sums of each cluster are joined with the
    covariance within clusters, as p samples of it, so that a cluster of few samples has one too; the degrees of freedom
    :math:`\nu` are common to all, of the largest likelihood (heavy tails would otherwise fall to the widest cluster).
    Because a sample has two or three candidates instead of K, a step costs :math:`N p^2` times that, whatever K, and
    nothing of size N x K is stored.

    Attributes
    ----------
    mean : ndarray [K, p], float32
    whiten : ndarray [K, p, p], float32
        Inverse of the Cholesky factor of each covariance.
    offset : ndarray [K]
        What does not depend on the sample.
    freedom : float
    """

    mean: NDArray[np.float32]
    whiten: NDArray[np.float32]
    offset: NDArray[np.float64]
    freedom: float

    @classmethod
    def fit(cls, z: NDArray[np.float32], labels: NDArray[np.int64], n_clusters: int) -> GraphMixture:
        """From positions [N, p] and the cluster of each."""
        n, p = z.shape
        order = np.argsort(labels, kind="stable")
        size = np.bincount(labels, minlength=n_clusters)
        ends = np.cumsum(size)
        mean = np.zeros((n_clusters, p))
        scatter = np.zeros((n_clusters, p, p))
        for k in range(n_clusters):
            rows = z[order[ends[k] - size[k] : ends[k]]].astype(np.float64)
            if len(rows):
                mean[k] = rows.mean(axis=0)
                rows -= mean[k]
                scatter[k] = rows.T @ rows
        pooled = scatter.sum(axis=0) / n
        pooled += (1e-6 * np.trace(pooled) / p + 1e-30) * np.eye(p)
        whiten = np.empty((n_clusters, p, p), dtype=np.float32)
        offset = np.log((size + 1.0) / (n + n_clusters))
        for start in range(0, n_clusters, _CLUSTERS):
            some = slice(start, start + _CLUSTERS)
            lower = np.linalg.cholesky((scatter[some] + p * pooled) / (size[some] + p)[:, None, None])
            offset[some] -= np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
            whiten[some] = np.linalg.inv(lower)
        del scatter
        mixture = cls(mean.astype(np.float32), whiten, offset, 0.0)
        rows = np.random.default_rng(0).choice(n, min(n, _SAMPLE), replace=False)
        part = labels[rows]
        own = sp.csr_matrix(
            (np.ones(len(part), np.float32), part, np.arange(len(part) + 1)), (len(part), n_clusters)
        )
        distance = mixture._distances(z[rows], own).astype(np.float64)
        fit = [_log_likelihood(distance, f, p) for f in _FREEDOM]
        return cls(mixture.mean, mixture.whiten, offset, _FREEDOM[int(np.argmax(fit))])

    def log_joint(self, z: NDArray[np.float32], candidates: sp.csr_matrix) -> sp.csr_matrix:
        """``log p_ik`` up to a constant for the entries of `candidates` [N, K], in its pattern."""
        squared = self._distances(z, candidates)
        nu, p = self.freedom, z.shape[1]
        value = self.offset[candidates.indices] - (nu + p) / 2 * np.log1p(squared / (nu - 2))
        return sp.csr_matrix((value, candidates.indices, candidates.indptr), shape=candidates.shape)

    def probabilities(self, z: NDArray[np.float32], candidates: sp.csr_matrix) -> sp.csr_matrix:
        """Probabilities among the `candidates` [N, K] of each sample, in their pattern; rows sum to 1."""
        joint = self.log_joint(z, candidates)
        rows = np.repeat(np.arange(joint.shape[0], dtype=np.int32), np.diff(joint.indptr))
        most = row_maxima(joint.data, joint.indices, joint.indptr, rows)[0]
        value = np.exp(joint.data - most[rows])
        value /= np.bincount(rows, weights=value, minlength=joint.shape[0])[rows]
        return sp.csr_matrix((value.astype(np.float32), joint.indices, joint.indptr), shape=joint.shape)

    def _distances(self, z: NDArray[np.float32], candidates: sp.csr_matrix) -> NDArray[np.float32]:
        """Squared Mahalanobis distance for each entry of `candidates`."""
        number = sp.csr_matrix(
            (np.arange(candidates.nnz, dtype=np.int64), candidates.indices, candidates.indptr),
            candidates.shape,
        ).tocsc()
        squared = np.empty(candidates.nnz, dtype=np.float32)
        for k in range(candidates.shape[1]):
            entries = slice(number.indptr[k], number.indptr[k + 1])
            white = (z[number.indices[entries]] - self.mean[k]) @ self.whiten[k].T
            squared[number.data[entries]] = np.einsum("ij,ij->i", white, white)
        return squared


def _log_likelihood(squared: NDArray[np.float64], freedom: float, p: int) -> float:
    """Mean log density of a t distribution with unit covariance, up to a constant."""
    constant = gammaln((freedom + p) / 2) - gammaln(freedom / 2) - p / 2 * np.log(freedom - 2)
    return float(constant - (freedom + p) / 2 * np.log1p(squared / (freedom - 2)).mean())


def refine(
    z: NDArray[np.float32],
    weights: sp.csr_matrix,
    labels: NDArray[np.int64],
    n_clusters: int,
    *,
    max_iter: int = 10,
    tolerance: float = 1e-3,
) -> tuple[NDArray[np.int64], sp.csr_matrix]:
    """Fit a `GraphMixture` and label the samples by it, in turns, until fewer than `tolerance` of the labels change.

    Parameters
    ----------
    z : ndarray [N, p]
        Positions (`Projection`).
    weights : csr_matrix [N, N]
        The graph.
    labels : ndarray [N]
        First cluster of each sample; each cluster has one at least.
    n_clusters : int

    Returns
    -------
    labels : ndarray [N], int64
    probabilities : csr_matrix [N, K], float32
        Of each sample's candidates, rows sum to 1; the label's is the largest, but where its cluster would be empty
        without the sample.
    """
    for iteration in range(max(1, max_iter)):
        mixture = GraphMixture.fit(z, labels, n_clusters)
        probabilities = mixture.probabilities(z, _candidates(weights, labels, n_clusters))
        rows = np.repeat(np.arange(len(labels), dtype=np.int32), np.diff(probabilities.indptr))
        moved = row_maxima(probabilities.data, probabilities.indices, probabilities.indptr, rows)[1]
        empty = np.bincount(moved, minlength=n_clusters) == 0
        moved = np.where(empty[labels], labels, moved)  # a cluster keeps its samples rather than none
        changed = float((moved != labels).mean())
        labels = moved
        if changed < tolerance or iteration + 1 == max_iter:
            break
    return labels, probabilities


def _candidates(weights: sp.csr_matrix, labels: NDArray[np.int64], n_clusters: int) -> sp.csr_matrix:
    """Clusters of each sample's neighbours and its own, as the pattern of a sparse matrix [N, K]."""
    n = len(labels)
    member = sp.csr_matrix(
        (np.ones(n, dtype=np.float32), labels.astype(np.int32), np.arange(n + 1, dtype=np.int32)),
        shape=(n, n_clusters),
    )
    # Weights of 0 would drop out of the pattern.
    found = (weights @ member + member).tocsr()
    found.sort_indices()
    return found
