"""Parts joined by the density between them, against brute force; earlier clusterings weigh the links."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import is_valid_linkage

from graphclust.graph import SampleGraph
from graphclust.graph.metric import Metric
from graphclust.methods.agglomerative_density import PairDensities, join_parts, pair_densities, part_links
from graphclust.methods.trees import cut_leaves


def make(seed: int, n: int = 60, n_parts: int = 12) -> tuple[PairDensities, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    graph = SampleGraph.from_features(torch.from_numpy(x), 8, kernel="binary", random_state=0)
    return pair_densities(graph, Metric.make("euclidean")), np.append(
        np.arange(n_parts), rng.integers(n_parts, size=n - n_parts)
    )


def by_hand(densities: PairDensities, leaf: np.ndarray, runs: list[np.ndarray]) -> np.ndarray:
    """Heights of average linkage of the parts, the mean density as similarity."""
    pairs, links, _ = part_links(densities, leaf, runs)
    n = int(leaf.max()) + 1
    total = np.zeros((n, n))
    total[pairs[:, 0], pairs[:, 1]] = total[pairs[:, 1], pairs[:, 0]] = links
    groups = [[part] for part in range(n)]
    size = np.bincount(leaf)
    found = []
    while len(groups) > 1:
        best = (-1.0, 0, 0)
        for a in range(len(groups)):
            for b in range(a):
                mean = total[np.ix_(groups[a], groups[b])].sum() / (
                    size[groups[a]].sum() * size[groups[b]].sum()
                )
                best = max(best, (mean, a, b))
        mean, a, b = best
        groups[b] += groups.pop(a)
        found.append(-np.log(mean))
    return np.array(found) - found[0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_runs", [0, 3])
def test_average_linkage_of_densities(seed: int, n_runs: int) -> None:
    densities, leaf = make(seed)
    runs = [np.random.default_rng(run).integers(4, size=len(leaf)) for run in range(n_runs)]
    tree = join_parts(densities, leaf, 1, relative=False, runs=runs).tree
    assert is_valid_linkage(tree)
    np.testing.assert_allclose(tree[:, 2], by_hand(densities, leaf, runs), atol=1e-9)


def test_what_all_runs_part_is_parted_last() -> None:
    densities, leaf = make(5)
    halves = (leaf < 6).astype(np.int64)
    tree = join_parts(densities, leaf, 1, relative=False, runs=[halves, halves]).tree
    cut = cut_leaves(tree, 2)
    assert len(set(zip(cut.tolist(), (np.arange(12) < 6).tolist(), strict=True))) == 2


def test_no_runs_change_nothing() -> None:
    densities, leaf = make(6)
    same = np.zeros_like(leaf)
    plain = join_parts(densities, leaf, 1)
    np.testing.assert_allclose(
        join_parts(densities, leaf, 1, runs=[same]).tree, plain.tree, rtol=1e-4, atol=1e-5
    )
