"""Borders between groups of samples: where the sample graph is thinner than inside both."""

from __future__ import annotations

import copy
import warnings
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from torch_geometric.data import Data

from graphclust._random import run_seeds
from graphclust.graph.linkage import sparse_weights
from graphclust.graph.over_segmentation import split_parts
from graphclust.graph.partition import merge_parts
from graphclust.graph.replication import propagation
from graphclust.graph.thinness import ANY_DIMENSION, Thinness, thinness_of, widened

#: A border is real when its cut is thinner by so many standard errors than the cuts inside both clusters, and thin
#: enough for the samples' dimension (`graphclust.graph.thinness`).
LEAST_STRENGTH = 2.5
#: A border is likely from so many standard errors on; in few dimensions, where it has to be thinner, from less.
LIKELY, _LIKELY_THINNER = 2.0, 1.5
#: Groups to begin with, and runs.
START, N_RUNS = 40, 3
_COMPONENTS, _PROPAGATIONS, _STEPS, _OVERSEGMENTATIONS = 32, 16, 20, 3


class BorderedRun(NamedTuple):
    """Groups that were merged at their weakest border, step by step.

    Attributes
    ----------
    groups : ndarray [N], int64
        What it began with.
    joined : list of (int, int)
        The groups that each step joined; the second goes into the first.
    counts : list of int
        Numbers of groups, descending, from the first to the last.
    strengths : list of float
        Strength of the weakest border at each.
    likely : float
        Strength from which on a border is likely.
    """

    groups: NDArray[np.int64]
    joined: list[tuple[int, int]]
    counts: list[int]
    strengths: list[float]
    likely: float = LIKELY

    @property
    def n_clusters(self) -> int:
        """The first number of groups, coming from many, at which every border is real."""
        return next(
            count for count, strength in zip(self.counts, self.strengths) if strength >= LEAST_STRENGTH
        )

    def labels(self, n_clusters: int) -> NDArray[np.int64]:
        """Group of each sample, [N], when so many are left."""
        into = np.arange(int(self.groups.max()) + 1)
        for a, b in self.joined[: self.counts[0] - n_clusters]:
            into[into == b] = a
        return np.unique(into[self.groups], return_inverse=True)[1]


def bordered_runs(graph: Data, start: int, n_runs: int, generator: np.random.Generator) -> list[BorderedRun]:
    """Over-segment samples several times, and merge the groups at their weakest borders (`estimate_n_clusters`)."""
    assert graph.x is not None
    n = graph.x.shape[0]
    parts = min(6 * start, n // 5)
    start = min(start, parts // 2)
    if start <= 1:  # too few samples for two groups
        return [BorderedRun(np.zeros(n, dtype=np.int64), [], [1], [np.inf])]
    graph = widened(graph)
    weights = sparse_weights(graph).astype(np.float64)
    thinness = thinness_of(graph, weights)
    codes = _smooth_codes(graph, weights, int(generator.integers(2**31)))
    return [
        _merge_weakest(weights, _groups(graph, weights, codes, start, parts, seed), thinness)
        for seed in generator.integers(2**31, size=n_runs).tolist()
    ]


def median_run(runs: list[BorderedRun]) -> BorderedRun:
    """The run whose number of clusters is the median; of two in the middle, the lower one."""
    order = np.argsort([run.n_clusters for run in runs], kind="stable")
    return runs[int(order[(len(runs) - 1) // 2])]


def _smooth_codes(graph: Data, weights: sp.csr_matrix, seed: int) -> torch.Tensor:
    """Principal components of the features, propagated over the graph, [N, <= 32]."""
    x = graph.x.float().numpy()
    if x.shape[1] > _COMPONENTS and len(x) > _COMPONENTS:
        x = PCA(_COMPONENTS, svd_solver="randomized", random_state=seed % 2**32).fit_transform(x)
    propagate = propagation(weights)
    for _ in range(_PROPAGATIONS):
        x = propagate @ x
    return torch.from_numpy(np.ascontiguousarray(x))


def _groups(
    graph: Data, weights: sp.csr_matrix, codes: torch.Tensor, n_groups: int, n_parts: int, seed: int
) -> NDArray[np.int64]:
    """An over-segmentation whose borders several runs agree on, [N]."""
    assert graph.edge_index is not None
    source, target = graph.edge_index
    least = 0.3 * len(codes) / n_groups
    together = torch.zeros(source.shape[0])
    merged = copy.copy(graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # about duplicates among the many parts
        for run, run_seed in enumerate(run_seeds(seed, _OVERSEGMENTATIONS + 1)):
            parts = split_parts(codes, n_parts, random_state=run_seed)
            k = min(n_groups, len(parts.unique()))
            if run == _OVERSEGMENTATIONS:
                # A small rest keeps parts linked where the runs never agreed.
                share = together / _OVERSEGMENTATIONS
                merged.edge_weight = graph.edge_weight * (share.square() + 1e-6)
            labels = merge_parts(merged, parts, k, codes, min_size=least).labels
            together += (labels[source] == labels[target]).float()
    return _join_neighbors(weights, labels.numpy())


def _join_neighbors(weights: sp.csr_matrix, labels: NDArray[np.int64], rounds: int = 5) -> NDArray[np.int64]:
    """Each sample joins the group that most of its edge weight leads to, so that groups hang together."""
    n = len(labels)
    for _ in range(rounds):
        member = sp.csr_matrix((np.ones(n), (np.arange(n), labels)), shape=(n, labels.max() + 1))
        # A little more for its own group decides ties, and where a sample has no edge.
        moved = np.asarray((weights @ member + 1e-9 * member).tocsr().argmax(axis=1)).ravel()
        if (moved == labels).all():
            break
        labels = moved
    return np.unique(labels, return_inverse=True)[1]


def _merge_weakest(weights: sp.csr_matrix, labels: NDArray[np.int64], thinness: Thinness) -> BorderedRun:
    """Merge the groups with the weakest border, again and again."""
    members = {group: np.flatnonzero(labels == group) for group in range(int(labels.max()) + 1)}
    n = len(labels)
    one = sp.csr_matrix((np.ones(n), (np.arange(n), labels)), shape=(n, len(members)))
    link = (one.T @ weights @ one).tocoo()
    borders = {
        (a, b): (border_strength(weights, members[a], members[b], thinness), -value)
        for a, b, value in zip(link.row.tolist(), link.col.tolist(), link.data.tolist())
        if a < b and value > 0
    }
    likely = LIKELY if thinness.spacing is None else _LIKELY_THINNER
    run = BorderedRun(labels, [], [len(members)], [np.inf], likely)
    while borders:
        # Of borders that are equally weak, the one with the most edges across.
        weakest = min(borders, key=borders.__getitem__)
        run.strengths[-1] = borders[weakest][0]
        a, b = weakest
        run.joined.append(weakest)
        members[a] = np.concatenate([members[a], members.pop(b)])
        borders = {pair: value for pair, value in borders.items() if a not in pair and b not in pair}
        across = np.asarray(weights[members[a]].sum(axis=0)).ravel()
        for other in members:
            value = float(across[members[other]].sum())
            if other != a and value > 0:
                pair = (min(a, other), max(a, other))
                borders[pair] = (border_strength(weights, members[a], members[other], thinness), -value)
        run.counts.append(len(members))
        run.strengths.append(np.inf)
    return run


def border_strength(
    weights: sp.csr_matrix,
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    thinness: Thinness = ANY_DIMENSION,
) -> float:
    """How much thinner the graph is between two groups than inside both, in standard errors (`estimate_n_clusters`).

    Parameters
    ----------
    weights : csr_matrix [N, N]
        Symmetric edge weights.
    a, b : ndarray of int
        The samples of each group.
    thinness : Thinness, optional
        How thin it has to be. By default the cut between them has at most three quarters of the cuts inside.

    Returns
    -------
    float
        At least 0; 0 where it is not that thin.
    """
    chosen = np.concatenate([a, b])
    w = weights[chosen][:, chosen].tocsr()
    n, border = len(chosen), len(a) - 1
    side = np.repeat([-1.0, 1.0], [len(a), len(b)])
    degree = np.maximum(np.asarray(w.sum(axis=1)).ravel(), 1e-12)
    heat = side.copy()
    for _ in range(_STEPS):
        heat = (heat + (w @ heat) / degree) / 2
    # Group a comes first; where no heat has come to, the order means nothing.
    order = np.argsort(heat + 4 * side, kind="stable")
    reached = (np.abs(heat) < 1 - 1e-9)[order]
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    entries = w.tocoo()
    first = np.minimum(rank[entries.row], rank[entries.col])
    last = np.maximum(rank[entries.row], rank[entries.col])
    opened = np.bincount(first, weights=entries.data, minlength=n)
    closed = np.bincount(last, weights=entries.data, minlength=n)
    cut = np.where(reached, np.cumsum(opened - closed) / 2, 0.0)  # each edge is there twice
    valley = float(np.cumsum(opened - closed)[border] / 2)
    tops = (int(cut[: border + 1].argmax()), border + 1 + int(cut[border + 1 :].argmax()))
    top = min(tops, key=cut.__getitem__)
    hump = float(cut[top])
    if valley > thinness.depth * thinness.share(w, border, chosen) * hump:
        return 0.0
    before = (rank <= top).astype(np.float64)
    crossing = np.where(before > 0, w @ (1 - before), w @ before)
    n_effective = hump**2 / max(float((crossing**2).sum()), 1e-12)
    return float(np.sqrt(2 * n_effective) * (1 - np.sqrt(max(valley, 0.0) / hump)))
