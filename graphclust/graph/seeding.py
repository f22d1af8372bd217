"""First centres of k-means with many clusters."""

from __future__ import annotations

import numpy as np


def spread_centers(x: np.ndarray, n_clusters: int, random_state: np.random.RandomState) -> np.ndarray:
    """Greedy k-means++ (Arthur & Vassilvitskii 2007) in the precision of `x`, for scikit-learn's `KMeans(init=...)`.

    Each further centre is the best of 2 + log K samples, drawn in proportion to the squared distance to the centres so
    far. That is scikit-learn's own rule; but of float32 it computes distances in float64, block by block, which takes
    three times as long for hundreds of clusters. `KMeans` centres the samples, so float32 serves.

    Parameters
    ----------
    x : ndarray [N, d]
        Centred.
    n_clusters : int
        K, from 1 to N.
    random_state : RandomState

    Returns
    -------
    ndarray [K, d]
        Rows of `x`; the same one more than once where fewer differ.
    """
    n = len(x)
    n_trials = 2 + int(np.log(n_clusters))
    squares = np.einsum("ij,ij->i", x, x)
    chosen = [int(random_state.randint(n))]
    nearest = np.maximum(squares + squares[chosen[0]] - 2 * (x @ x[chosen[0]]), 0)
    for _ in range(n_clusters - 1):
        # Sums over many samples in float64: in float32 the last ones would be drawn less often.
        upto = np.cumsum(nearest, dtype=np.float64)
        tried = np.searchsorted(upto, random_state.random_sample(n_trials) * upto[-1])
        tried = np.minimum(tried, n - 1)
        distance = x[tried] @ x.T
        distance *= -2
        distance += squares
        distance += squares[tried, None]
        np.clip(distance, 0, nearest, out=distance)
        best = int(distance.sum(axis=1).argmin())
        chosen.append(int(tried[best]))
        nearest = distance[best]
    return x[chosen]
