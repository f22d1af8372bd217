"""Clusterings of vectors under one scaling: several on the sample graph, and a mixture."""

from __future__ import annotations

import warnings
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from torch import Tensor

from graphclust._checks import check_generator
from graphclust.graph import SampleGraph
from graphclust.graph.borders import N_RUNS, START, bordered_runs, median_run
from graphclust.graph.over_segmentation import merged_runs
from graphclust.graph.sample_graph import on_cpu
from graphclust.graph.separation import count_separated
from graphclust.methods.starts import principal_components
from graphclust.nn.vector_scale import vector_scales

#: Samples times clusters up to which a mixture is one of the runs, and its principal components.
_MOST_MIXED, _COMPONENTS = 1e5, 32
_LEAST_WEIGHT = 0.01
#: Least sizes of a cluster, as shares of the mean, and by how much a lower one has to make runs agree more.
SHARES = (0.3, 0.1, 0.03, 0.01, 0.003)
_MORE_AGREEMENT = 0.05


def scaling_runs(
    graph: SampleGraph,
    codes: Tensor,
    n_clusters: int,
    seed: int,
    *,
    parts_per_cluster: int,
    n_runs: int,
    counts: NDArray[np.int64] | None = None,
) -> tuple[Tensor, list[float]]:
    """Clusterings of the scaled samples of a graph, and what each of them counts.

    Parameters
    ----------
    graph : SampleGraph
        With the scaled features [N, d].
    codes : Tensor [N, c]
        Positions in which samples are split into parts (`graphclust.graph.over_segmentation.merged_runs`).
    n_clusters : int
        K.
    seed : int
    parts_per_cluster, n_runs : int
        Of the runs on the graph.
    counts : ndarray [N], optional
        How many equal samples each node stands for.

    Returns
    -------
    Tensor [S, R, N], int64
        For each of the least sizes `SHARES`, labels of `n_runs` runs on the graph, and of a Gaussian mixture
        (`mixture_labels`) where N K is at most 100,000: it sees clusters that overlap, between which a graph has no
        thin place.
    list of float
        For each of these, the mean adjusted Rand index of all pairs of the runs on the graph, at least 0.01: runs that
        hardly agree with each other say little about the samples.
    """
    runs = merged_runs(
        graph,
        codes,
        n_clusters,
        parts_per_cluster=parts_per_cluster,
        n_runs=n_runs,
        min_share=SHARES,
        random_state=seed,
        keep_apart=True,
        counts=counts,
    )
    weights = [max(_LEAST_WEIGHT, _agreement(same)) if n_runs > 1 else 1.0 for same in runs]
    if len(graph.x) * n_clusters <= _MOST_MIXED:
        mixed = mixture_labels(graph.x, n_clusters, seed)
        runs = torch.cat([runs, mixed.expand(len(runs), 1, -1)], dim=1)
    return runs, weights


def _agreement(runs: Tensor) -> float:
    """Mean adjusted Rand index of all pairs of runs [R, N]."""
    return float(np.mean([adjusted_rand_score(a, b) for a, b in combinations(runs.numpy(), 2)]))


def clearest_share(runs: list[Tensor]) -> int:
    """Which of `SHARES` suits, by the runs of each scaling [S, R, N]: the first, unless runs agree more with another.

    Where a small cluster stands alone and is not taken as one, a large one is split instead, by each run elsewhere.
    One run on each graph and the mixtures are compared; the mean adjusted Rand index of all pairs has to be larger by
    0.05.
    """
    compared = torch.cat([some[:, [0, -1]] for some in runs], dim=1)
    best = 0
    for i in range(1, len(compared)):
        if not torch.equal(compared[i], compared[best]) and (
            _agreement(compared[i]) > _agreement(compared[best]) + _MORE_AGREEMENT
        ):
            best = i
    return best


def count_under_scalings(x: Tensor, graph: SampleGraph, seed: int) -> int:
    """Number of clusters of vectors x [N, d], whose graph shows some borders (`graphclust.graph.separation`)."""
    runs = bordered_runs(on_cpu(graph), START, N_RUNS, check_generator(seed))
    count = count_separated(
        x, lambda rows: [scale(rows) for scale in vector_scales(rows)], borders=median_run(runs), seed=seed
    )
    return count.n_clusters


def mixture_labels(x: Tensor, n_clusters: int, seed: int) -> Tensor:
    """Labels [N] of a Gaussian mixture in the first principal components of rows x [N, d].

    There are at most 32 of these, and half as many as a cluster has samples: fewer samples tell no covariance.
    """
    n_components = min(_COMPONENTS, max(1, len(x) // (2 * n_clusters)))
    codes = principal_components(x, n_components, seed=seed).double().numpy()
    floor = 1e-4 * max(float(codes.var(axis=0).mean()), 1e-30)
    mixture = GaussianMixture(n_clusters, reg_covar=floor, max_iter=50, random_state=seed % 2**32)
    with warnings.catch_warnings():
        # One run among many may stop before it has converged.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return torch.from_numpy(mixture.fit_predict(codes)).long()
