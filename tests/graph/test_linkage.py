"""Linkage from single samples up, against a twin that merges one pair at a time over all pairs."""

import itertools
import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.cluster.hierarchy import is_monotonic, is_valid_linkage
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from torch_geometric.data import Data

from graphclust.graph import SampleGraph
from graphclust.graph.linkage import (
    SampleTree,
    count_groups,
    cut_tree,
    join_groups,
    link_samples,
    sparse_weights,
)


def weights_of(n=30, density=0.25, seed=0):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) < density, 1) * rng.uniform(0.1, 1.0, (n, n))
    return sp.csr_matrix((upper + upper.T).astype(np.float32))


def one_by_one(weights, exponent):
    """Groups and heights in order: the most similar pair of all groups is merged, again and again."""
    dense = weights.toarray().astype(np.float64)
    groups, merges = [frozenset([i]) for i in range(len(dense))], []
    while len(groups) > 1:
        best, pair = -1.0, None
        for a, b in itertools.combinations(groups, 2):
            value = dense[np.ix_(sorted(a), sorted(b))].sum() / (len(a) * len(b)) ** exponent
            if value > best:
                best, pair = value, (a, b)
        if best <= 0:
            break
        groups = [g for g in groups if g not in pair] + [pair[0] | pair[1]]
        merges.append((pair[0] | pair[1], -math.log(best)))
    return merges


def groups_of(tree):
    n = tree.n_samples
    groups = [frozenset([i]) for i in range(n)]
    for a, b in tree.linkage[:, :2].astype(int):
        groups.append(groups[a] | groups[b])
    return groups[n:]


@pytest.fixture(scope="module")
def blobs():
    x, y = make_blobs(
        [400, 300, 200, 60, 40],
        n_features=4,
        centers=None,
        cluster_std=1.0,
        random_state=3,
        center_box=(-20, 20),
    )
    graph = SampleGraph.from_features(x.astype(np.float32), 6)
    return x.astype(np.float32), y, graph, sparse_weights(graph)


@pytest.mark.parametrize("share", [0.0, 0.02, 1.1])
@pytest.mark.parametrize("seed", range(4))
def test_average_linkage_is_the_twin_s(seed, share, monkeypatch):
    """Rounds of mutual pairs, the heap, and both in turn: one tree."""
    monkeypatch.setattr("graphclust.graph.linkage._LEAST_SHARE", share)
    weights = weights_of(seed=seed)
    tree = link_samples(weights, exponent=1.0)
    merges = one_by_one(weights, 1.0)
    assert set(groups_of(tree)[: len(merges)]) == {group for group, _ in merges}
    heights = np.sort([height for _, height in merges])
    np.testing.assert_allclose(np.sort(tree.linkage[: len(merges), 2]), heights, rtol=1e-4)


@pytest.mark.parametrize("exponent", [0.5, 0.75, 1.0])
def test_trees_are_scipy_s(exponent, blobs):
    tree = link_samples(blobs[3], exponent=exponent)
    assert is_valid_linkage(tree.linkage, throw=True) and is_monotonic(tree.linkage)
    assert tree.linkage[-1, 3] == 1000 and float(tree.linkage[0, 2]) >= 0
    top, leaf = tree.top(40)
    assert is_valid_linkage(top, throw=True) and top.shape == (39, 4) and top[-1, 3] == 40
    assert np.array_equal(leaf, tree.cut(1000 - 40))
    np.testing.assert_array_equal(top[:, 2], tree.linkage[-39:, 2])
    # The tree of the leaves, cut, is the tree of the samples, cut.
    upper = SampleTree(top)
    for k in (1, 2, 7, 39):
        assert adjusted_rand_score(upper.cut(40 - k)[leaf], tree.cut(1000 - k)) == 1.0


def test_groups_are_counted_as_they_are(blobs):
    tree = link_samples(blobs[3])
    for least in (1, 2, 30):
        count = tree.n_groups(least)
        assert count.shape == (1000,)
        for merges in (0, 1, 500, 900, 990, 999):
            assert count[merges] == (np.bincount(tree.cut(merges)) >= least).sum()


def test_unequal_clusters_are_found_and_counted(blobs):
    _, y, _, weights = blobs
    for exponent in (0.5, 0.75):
        tree = link_samples(weights, exponent=exponent)
        labels = join_groups(weights, cut_tree(tree, 5), 5)
        assert set(labels.tolist()) == set(range(5))
        assert adjusted_rand_score(y, labels) > 0.99
    assert count_groups(link_samples(weights, exponent=0.5), 20) == 5


def test_one_cloud_is_one_group_in_the_end(blobs):
    cloud = np.random.default_rng(0).normal(size=(800, 4)).astype(np.float32)
    tree = link_samples(sparse_weights(SampleGraph.from_features(cloud, 8)), exponent=0.5)
    assert tree.n_groups(20)[-1] == 1 and count_groups(tree, 400) == 1


def test_components_come_together_at_last():
    block = np.ones((3, 3)) - np.eye(3)
    weights = sp.csr_matrix(sp.block_diag([block, block, block]).astype(np.float32))
    tree = link_samples(weights)
    assert sorted(np.bincount(tree.cut(6)).tolist()) == [3, 3, 3]
    assert tree.linkage[-1, 2] - tree.linkage[0, 2] > 20
    empty = link_samples(sp.csr_matrix((4, 4), dtype=np.float32))
    assert is_valid_linkage(empty.linkage, throw=True)
    labels = cut_tree(tree, 4)
    assert len(set(labels[labels >= 0].tolist())) == 4


def test_strays_join_the_cluster_that_their_edges_lead_to():
    weights = sp.lil_matrix((6, 6), dtype=np.float32)
    for a, b, w in ((0, 1, 1.0), (2, 3, 1.0), (4, 0, 0.2), (4, 2, 0.3), (5, 4, 1.0)):
        weights[a, b] = weights[b, a] = w
    labels = np.array([0, 0, 1, 1, -1, -1])
    assert join_groups(weights.tocsr(), labels, 2).tolist() == [0, 0, 1, 1, 1, 1]
    alone = sp.csr_matrix((6, 6), dtype=np.float32)
    assert join_groups(alone, labels, 2).tolist() == [0, 0, 1, 1, 0, 0]


def test_weights_of_directed_and_unsorted_graphs():
    edges = torch.tensor([[3, 0, 1, 2], [0, 3, 0, 2]])
    graph = Data(x=torch.zeros(4, 1), edge_index=edges, edge_weight=torch.tensor([2.0, 4.0, 1.0, 9.0]))
    expected = np.zeros((4, 4))
    expected[0, 3] = expected[3, 0] = 3.0
    expected[0, 1] = expected[1, 0] = 0.5
    assert np.array_equal(sparse_weights(graph).toarray(), expected)


def test_impossible_parameters(blobs):
    weights = blobs[3]
    with pytest.raises(ValueError, match=r"exponent=0\.3 must be at least 0\.5"):
        link_samples(weights, exponent=0.3)
    with pytest.raises(ValueError, match="n_clusters=1001 must be between 1 and 1000"):
        cut_tree(link_samples(weights), 1001)
