"""Moves between clusters: what is joined and split, and what is left alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from torch_geometric.data import Data

from graphclust.graph import SampleGraph
from graphclust.graph.over_segmentation import consensus_partition
from graphclust.graph.partition import MergeTree
from graphclust.graph.rearrangement import rearranged
from graphclust.metrics import clustering_accuracy, modularity


def blocks(sizes: list[int], between: dict[tuple[int, int], float], seed: int = 0) -> tuple[Data, np.ndarray]:
    """A graph of blocks: inside a block an edge with probability 0.5, between some pairs with the given one."""
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(len(sizes)), sizes)
    p = np.full((len(sizes), len(sizes)), 0.0)
    np.fill_diagonal(p, 0.5)
    for (a, b), value in between.items():
        p[a, b] = p[b, a] = value
    upper = np.triu(rng.random((len(block),) * 2) < p[block][:, block], 1)
    edges = np.stack(np.nonzero(upper | upper.T))
    graph = Data(
        edge_index=torch.from_numpy(edges),
        edge_weight=torch.ones(edges.shape[1]),
        num_nodes=len(block),
    )
    return graph, block


def tree_of(part_labels: list[int], parts: np.ndarray) -> MergeTree:
    label = np.array(part_labels)
    return MergeTree(
        torch.from_numpy(label[parts]),
        np.zeros((len(label) - 1, 4)),
        label,
        torch.from_numpy(parts),
    )


def q(graph: Data, labels: torch.Tensor) -> float:
    """Modularity by its definition, over all pairs."""
    n = int(graph.num_nodes or 0)
    w = np.zeros((n, n))
    w[tuple(graph.edge_index.numpy())] = graph.edge_weight.numpy()
    d, same = w.sum(axis=1), labels.numpy()[:, None] == labels.numpy()
    return float(((w / w.sum() - np.outer(d, d) / w.sum() ** 2) * same).sum())


def same_partition(a: torch.Tensor, b: np.ndarray) -> bool:
    return clustering_accuracy(b, a.numpy()) == 1.0


def test_a_wrong_merge_is_undone() -> None:
    """Two styles of one kind were kept apart, and two kinds joined instead."""
    graph, block = blocks([60, 60, 60, 60], {(0, 1): 0.2, (2, 3): 0.02})
    found = rearranged(graph, tree_of([1, 2, 0, 0], block), min_size=20)
    assert same_partition(found.labels, np.array([0, 0, 1, 2])[block])
    np.testing.assert_array_equal(found.part_labels[block], found.labels.numpy())
    assert found.labels.bincount().tolist() == [120, 60, 60]


def test_a_half_changes_sides() -> None:
    graph, block = blocks([60, 60, 60], {(0, 1): 0.2, (1, 2): 0.05})
    found = rearranged(graph, tree_of([1, 0, 0], block), min_size=20)
    assert same_partition(found.labels, np.array([0, 0, 1])[block])


def test_the_best_partition_stays() -> None:
    graph, block = blocks([80, 50, 30], {(0, 1): 0.05})
    tree = tree_of([0, 1, 2], block)
    found = rearranged(graph, tree, min_size=10)
    torch.testing.assert_close(found.labels, tree.labels)


def test_unlinked_clusters_are_not_joined_to_split_a_large_one() -> None:
    """Modularity alone would do so: its resolution limit."""
    sizes = [200, 200, 8, 8]
    graph, block = blocks(sizes, {(0, 1): 0.03})
    label = np.array([0, 0, 1, 2])
    other = np.array([0, 1, 2, 2])
    assert q(graph, torch.from_numpy(other[block])) > q(graph, torch.from_numpy(label[block]))
    found = rearranged(graph, tree_of(label.tolist(), block), min_size=5)
    assert same_partition(found.labels, label[block])


@pytest.mark.parametrize("seed", range(4))
def test_modularity_never_falls(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = itertools.combinations(range(8), 2)
    graph, block = blocks([20] * 8, {pair: rng.uniform(0, 0.2) for pair in pairs}, seed)
    tree = tree_of([0, 1, 2, 3, 0, 1, 2, 3], block)
    found = rearranged(graph, tree)
    assert len(found.labels.unique()) == 4
    assert q(graph, found.labels) >= q(graph, tree.labels) - 1e-9
    assert q(graph, found.labels) == pytest.approx(
        modularity(graph.edge_index, found.labels.numpy(), graph.edge_weight), abs=1e-6
    )


def test_halves_below_the_least_size_are_not_split_off() -> None:
    graph, block = blocks([60, 60, 60, 60], {(0, 1): 0.2, (2, 3): 0.02})
    tree = tree_of([1, 2, 0, 0], block)
    torch.testing.assert_close(rearranged(graph, tree, min_size=70).labels, tree.labels)


def test_clusters_of_very_different_sizes_stay() -> None:
    x, y = make_blobs([3000, 300, 150, 80], 2, centers=[[0, 0], [9, 0], [0, 9], [9, 9]], random_state=0)
    graph = SampleGraph.from_features(x.astype(np.float32), n_neighbors=7)
    tree = consensus_partition(graph, graph.x, 4, min_share=0.05)
    found = rearranged(graph, tree, min_size=20)
    assert clustering_accuracy(y, found.labels.numpy()) >= clustering_accuracy(y, tree.labels.numpy())


def test_one_cluster_is_left_alone() -> None:
    graph, block = blocks([10, 10], {})
    tree = tree_of([0, 0], block)
    assert rearranged(graph, tree) is tree
