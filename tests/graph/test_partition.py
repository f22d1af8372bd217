import itertools
import math

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, is_monotonic, is_valid_linkage
from scipy.cluster.hierarchy import linkage as scipy_linkage
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_circles, make_moons
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch_geometric.data import Data

from graphclust import ConsensusClustering
from graphclust.graph import SampleGraph
from graphclust.graph.over_segmentation import (
    _apart,
    _large_components,
    consensus_partition,
    least_sizes,
    merged_runs,
)
from graphclust.graph.partition import merge_parts, merge_parts_at
from graphclust.metrics import clustering_accuracy


def problem(n=24, n_parts=8, density=0.4, seed=0, high=1.0):
    """A weighted symmetric graph without ties, and random parts of several samples each."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) < density, 1) * rng.uniform(0.1, high, (n, n))
    weights = upper + upper.T
    parts = np.concatenate([np.arange(n_parts), rng.integers(0, n_parts, n - n_parts)])
    target, source = np.nonzero(weights)
    graph = Data(
        x=torch.zeros(n, 1),
        edge_index=torch.from_numpy(np.stack([source, target])),
        edge_weight=torch.from_numpy(weights[target, source]),
    )
    return graph, torch.from_numpy(rng.permutation(parts)), weights


def upgma(weights, parts, k):
    """Merge the two groups with the largest mean weight over all pairs of samples; groups are sets of samples."""
    groups = [frozenset(np.flatnonzero(parts == p).tolist()) for p in np.unique(parts)]
    merges = []
    while len(groups) > k:
        best, pair = -1.0, None
        for a, b in itertools.combinations(groups, 2):
            mean = sum(weights[i, j] for i in a for j in b) / (len(a) * len(b))
            if mean > best:
                best, pair = mean, (a, b)
        groups = [g for g in groups if g not in pair] + [pair[0] | pair[1]]
        merges.append((pair[0] | pair[1], best))
    return groups, merges


def partition_of(labels):
    return {frozenset(np.flatnonzero(labels == c).tolist()) for c in np.unique(labels)}


def merged_groups(linkage, parts):
    """The set of samples that each merge of a linkage makes."""
    groups = [frozenset(np.flatnonzero(parts == p).tolist()) for p in np.unique(parts)]
    for a, b, _, _ in linkage:
        groups.append(groups[int(a)] | groups[int(b)])
    return groups[len(np.unique(parts)) :]


@pytest.mark.parametrize("seed", range(6))
def test_merges_equal_the_brute_force(seed):
    graph, parts, weights = problem(seed=seed)
    for k in (1, 2, 3, 5, 8):
        tree = merge_parts(graph, parts, k)
        groups, merges = upgma(weights, parts.numpy(), k)
        assert partition_of(tree.labels.numpy()) == set(groups)
        assert tree.labels.dtype == torch.int64
        found = merged_groups(tree.linkage, parts.numpy())
        assert found[: len(merges)] == [group for group, _ in merges]
        heights = [-math.log(mean) for _, mean in merges]
        np.testing.assert_allclose(tree.linkage[: len(merges), 2], heights, rtol=1e-9)
        assert torch.equal(torch.from_numpy(tree.part_labels)[parts], tree.labels)


def test_size_matters():
    """A thin bridge between two large parts counts for less than the same edge between small ones."""
    parts = torch.tensor([0] * 5 + [1] * 5 + [2, 3])
    edges = torch.tensor([[0, 5, 10, 11], [5, 0, 11, 10]])
    graph = Data(x=torch.zeros(12, 1), edge_index=edges, edge_weight=torch.tensor([1.0, 1.0, 0.5, 0.5]))
    labels = merge_parts(graph, parts, 3).labels
    assert labels[10] == labels[11] and labels[0] != labels[5]


@pytest.mark.parametrize("high", [1.0, 50.0])
def test_linkage_is_scipy_s(high):
    graph, parts, _ = problem(high=high)
    tree = merge_parts(graph, parts, 3)
    assert is_valid_linkage(tree.linkage, throw=True) and is_monotonic(tree.linkage)
    assert float(tree.linkage[:, 2].min()) >= 0
    cut = fcluster(tree.linkage, 3, "maxclust")
    assert adjusted_rand_score(cut, tree.part_labels) == 1.0


def test_heights_without_edges_grow_with_the_distance_of_the_means() -> None:
    """Groups at 0, 1, 5 and 20: the first two are merged first."""
    positions = torch.tensor([0.0, 1.0, 5.0, 20.0]).repeat_interleave(3)[:, None]
    graph = Data(x=positions, edge_index=torch.zeros(2, 0, dtype=torch.int64), edge_weight=torch.zeros(0))
    tree = merge_parts(graph, torch.arange(4).repeat_interleave(3), 2, positions)
    none = -math.log(1e-12)
    np.testing.assert_allclose(tree.linkage[:, 2], [none, none + 2 * math.log(4.5), none + 2 * math.log(18)])
    assert tree.linkage[:, :2].tolist() == [[0, 1], [2, 4], [3, 5]]


@pytest.mark.parametrize("seed", range(3))
def test_a_node_that_counts_several_times_is_as_many_equal_samples(seed: int) -> None:
    """Each of them is joined to each of those that its neighbour stands for."""
    graph, parts, weights = problem(seed=seed)
    counts = np.random.default_rng(seed).integers(1, 5, 24)
    node = np.repeat(np.arange(24), counts)
    written_out = weights[np.ix_(node, node)]
    target, source = np.nonzero(written_out)
    many = Data(
        x=torch.zeros(len(node), 1),
        edge_index=torch.from_numpy(np.stack([source, target])),
        edge_weight=torch.from_numpy(written_out[target, source]),
    )
    expected = merge_parts(many, parts[node], 3, min_size=6)
    (found,) = merge_parts_at(graph, parts, 3, None, [6], counts)
    np.testing.assert_allclose(found.linkage, expected.linkage)
    assert torch.equal(found.labels[node], expected.labels)


def test_one_edge_direction_counts_half():
    graph, parts, weights = problem()
    directed = Data(x=graph.x, edge_index=graph.edge_index, edge_weight=graph.edge_weight.clone())
    directed.edge_weight[graph.edge_index[0] > graph.edge_index[1]] = 0.0
    kept = np.zeros_like(weights)
    kept[directed.edge_index[1], directed.edge_index[0]] = directed.edge_weight
    groups, merges = upgma((kept + kept.T) / 2, parts.numpy(), 3)
    tree = merge_parts(directed, parts, 3)
    assert partition_of(tree.labels.numpy()) == set(groups)
    np.testing.assert_allclose(tree.linkage[: len(merges), 2], [-math.log(m) for _, m in merges])


def test_largest_cluster_is_number_0_whatever_the_parts_are_called():
    graph, parts, _ = problem(n=40, n_parts=9)
    labels = merge_parts(graph, parts, 4).labels
    counts = torch.bincount(labels)
    assert counts.tolist() == sorted(counts.tolist(), reverse=True)
    renamed = torch.tensor([70, 3, 900, 1, 8, 55, 2, 10, 4])[parts]
    assert partition_of(merge_parts(graph, renamed, 4).labels.numpy()) == partition_of(labels.numpy())


def components(sizes):
    """Complete graphs without an edge between them; each sample is a part."""
    edges, start = [], 0
    for size in sizes:
        edges += [p for p in itertools.permutations(range(start, start + size), 2)]
        start += size
    index = torch.tensor(edges).T
    return Data(x=torch.zeros(start, 1), edge_index=index, edge_weight=torch.ones(len(edges))), start


def test_more_components_than_clusters():
    sizes = (2, 3, 6, 7, 8)
    graph, n = components(sizes)
    owner = np.repeat(np.arange(5), sizes)
    parts = torch.arange(n)
    apart = merge_parts(graph, parts, 5)
    assert adjusted_rand_score(owner, apart.labels) == 1.0
    # Without positions the two smallest go together, and again.
    by_size = merge_parts(graph, parts, 3)
    assert adjusted_rand_score(np.array([0, 0, 0, 1, 2])[owner], by_size.labels) == 1.0
    # With positions those with the nearest means: the largest two.
    place = torch.tensor([0.0, 100.0, 200.0, 301.0, 302.0])[torch.from_numpy(owner)][:, None]
    by_place = merge_parts(graph, parts, 4, place)
    assert adjusted_rand_score(np.array([0, 1, 2, 3, 3])[owner], by_place.labels) == 1.0
    for tree in (apart, by_size, by_place):
        assert is_valid_linkage(tree.linkage, throw=True) and is_monotonic(tree.linkage)
    for tree in (apart, by_size):
        assert tree.linkage[-1, 2] == pytest.approx(-math.log(1e-12))


def test_means_are_weighted_by_size():
    """9 samples at 0 and one at 4 have their mean at 0.4, not at 2: 4.9 from the third part, not 6.5."""
    nothing = torch.empty(2, 0, dtype=torch.int64)
    graph = Data(x=torch.zeros(13, 1), edge_index=nothing, edge_weight=torch.empty(0))
    parts = torch.tensor([0] * 9 + [1, 2, 3, 4])
    place = torch.tensor([0.0] * 9 + [4.0, -4.5, 30.0, 35.5])[:, None]
    labels = merge_parts(graph, parts, 3, place).labels
    assert labels.tolist() == [0] * 11 + [labels[11], labels[12]] and len(set(labels.tolist())) == 3


@pytest.mark.parametrize("seed", range(3))
def test_without_edges_nearest_means_are_merged(seed):
    """Centroid linkage (UPGMC), as scipy has it for parts of one sample."""
    x = np.random.default_rng(seed).normal(size=(40, 3))
    graph = Data(edge_index=torch.empty(2, 0, dtype=torch.int64), edge_weight=torch.empty(0), num_nodes=40)
    tree = merge_parts(graph, torch.arange(40), 5, torch.from_numpy(x))
    expected = scipy_linkage(x, "centroid")
    np.testing.assert_array_equal(tree.linkage[:, :2], np.sort(expected[:, :2], axis=1))


def test_some_edges_then_nearest_means():
    """After the last edge, what has been merged counts with its mean."""
    x = torch.tensor([[0.0], [1.0], [10.0], [11.0], [13.0], [40.0]], dtype=torch.float64)
    edges = torch.tensor([[0, 2, 1, 3], [1, 3, 0, 2]])
    graph = Data(edge_index=edges, edge_weight=torch.tensor([1.0, 2.0, 1.0, 2.0]), num_nodes=6)
    tree = merge_parts(graph, torch.arange(6), 1, x)
    # 2 + 3, 0 + 1, then 4 to the mean 10.5, the two groups, and 5 at last.
    assert tree.linkage[:, :2].tolist() == [[2, 3], [0, 1], [4, 6], [7, 8], [5, 9]]


def test_as_many_clusters_as_parts_and_one():
    graph, parts, _ = problem()
    whole = merge_parts(graph, parts, 8)
    assert partition_of(whole.labels.numpy()) == partition_of(parts.numpy())
    one = merge_parts(graph, parts, 1)
    assert set(one.labels.tolist()) == {0} and set(one.part_labels.tolist()) == {0}
    assert np.array_equal(one.linkage, whole.linkage)
    single = merge_parts(graph, torch.zeros_like(parts), 1)
    assert single.linkage.shape == (0, 4) and set(single.labels.tolist()) == {0}


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (0, ValueError, "n_clusters=0 must be between 1 and 8; there are 8 parts"),
        (9, ValueError, "n_clusters=9 must be between 1 and 8"),
        (2.5, TypeError, "n_clusters=2.5"),
    ],
)
def test_impossible_numbers_of_clusters(k, error, message):
    graph, parts, _ = problem()
    with pytest.raises(error, match=message):
        merge_parts(graph, parts, k)


def test_parts_must_cover_the_samples():
    graph, parts, _ = problem()
    with pytest.raises(ValueError, match=r"parts has shape \[20\].*24 samples"):
        merge_parts(graph, parts[:20], 3)
    with pytest.raises(ValueError, match=r"parts has shape \[24, 1\]"):
        merge_parts(graph, parts[:, None], 3)


def test_consensus_on_two_moons():
    x, y = make_moons(400, noise=0.05, random_state=0)
    graph = SampleGraph.from_features(x.astype(np.float32), 8)
    tree = consensus_partition(graph, graph.x, 2)
    by_kmeans = KMeans(2, n_init=5, random_state=0).fit_predict(x)
    assert adjusted_rand_score(y, tree.labels) > 0.95 > 0.6 > adjusted_rand_score(y, by_kmeans)


def test_consensus_on_digits_beats_k_means_and_is_reproducible(digits):
    x, y = digits
    graph = SampleGraph.from_features(x, 5)
    weight = graph.edge_weight.clone()
    tree = consensus_partition(graph, graph.x, 10, n_runs=3)
    assert len(set(tree.labels.tolist())) == 10
    by_kmeans = KMeans(10, n_init=3, random_state=0).fit_predict(x)
    assert normalized_mutual_info_score(y, tree.labels) > 0.8
    assert normalized_mutual_info_score(y, tree.labels) > normalized_mutual_info_score(y, by_kmeans) + 0.03
    assert torch.equal(consensus_partition(graph, graph.x, 10, n_runs=3).labels, tree.labels)
    assert torch.equal(graph.edge_weight, weight)  # the graph itself keeps its weights


def test_consensus_of_few_samples():
    graph = SampleGraph.from_features(np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32), 2)
    assert len(set(consensus_partition(graph, graph.x, 4).labels.tolist())) == 4


def test_small_groups_do_not_take_the_place_of_a_cluster() -> None:
    """Two blobs of 60 and a far group of 5: with two clusters wanted, the group joins the blob that is nearer."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, (60, 2)), rng.normal(8, 1, (60, 2)), rng.normal(30, 0.1, (5, 2))])
    graph = SampleGraph.from_features(x.astype(np.float32), 4, symmetrize="mutual")
    parts = torch.from_numpy(KMeans(12, n_init=3, random_state=0).fit_predict(x)).long()
    alone = merge_parts(graph, parts, 2, graph.x)
    joined = merge_parts(graph, parts, 2, graph.x, min_size=20)
    assert sorted(torch.bincount(alone.labels).tolist()) == [5, 120]
    assert sorted(torch.bincount(joined.labels).tolist()) == [60, 65]
    assert len(set(joined.labels[60:].tolist())) == 1  # the group went to the nearer blob
    assert np.array_equal(alone.linkage, joined.linkage)  # the tree itself is the same


def test_consensus_on_digits_counts_no_stray_component() -> None:
    """The graph of the digits has a component of 27 ones, which is no cluster; measured ACC 94.5 against 87.7."""
    x, y = load_digits(return_X_y=True)
    graph = SampleGraph.from_features(x.astype(np.float32), 5)
    labels = consensus_partition(graph, graph.x, 10, random_state=0, min_share=0.3).labels
    stray = consensus_partition(graph, graph.x, 10, random_state=0, min_share=0.0).labels
    assert int(torch.bincount(labels).min()) > 0.3 * len(x) / 10
    assert clustering_accuracy(y, labels) > clustering_accuracy(y, stray)


def test_one_tree_is_cut_for_several_least_sizes() -> None:
    x = np.random.default_rng(0).normal(size=(120, 2)) + np.repeat(
        [[0, 0], [9, 0], [0, 9]], [80, 32, 8], axis=0
    )
    graph = SampleGraph.from_features(torch.from_numpy(x).float(), 5, random_state=0)
    codes = torch.from_numpy(x)
    both = merged_runs(graph, codes, 3, n_runs=2, min_share=(0.3, 0.1))
    assert both.shape == (2, 2, 120)
    for share, runs in zip((0.3, 0.1), both):
        assert torch.equal(runs, merged_runs(graph, codes, 3, n_runs=2, min_share=share))
    assert all(sorted(np.bincount(run)) == [8, 32, 80] for run in both[1].numpy())
    assert not torch.equal(both[0], both[1])


@pytest.mark.parametrize("seed", [0, 1, 3, 4])
def test_where_k_large_groups_never_stand_the_kth_is_as_large_as_can_be(seed):
    graph, parts, _ = problem(n=60, n_parts=20, seed=seed)
    k, most = 3, 0
    whole = merge_parts(graph, parts, k, graph.x)
    groups = [frozenset(np.flatnonzero(parts == p).tolist()) for p in range(20)]
    standing = set(groups)
    for made in merged_groups(whole.linkage, parts):
        if len(standing) >= k:
            most = max(most, sorted(map(len, standing))[-k])
        standing = {group for group in standing if not group <= made} | {made}
    # Nowhere are there three groups of more than that.
    found = merge_parts(graph, parts, k, graph.x, min_size=most + 1)
    assert torch.bincount(found.labels).min() >= most
    assert np.array_equal(found.linkage, whole.linkage)
    assert most > torch.bincount(whole.labels).min(), (
        "the last three groups are of that size too: another seed"
    )


class TestComponents:
    """Parts do not reach from one large component of the graph into another."""

    def test_parts_are_split(self):
        parts = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
        component = np.array([0, 0, 1, -1, 0, -1, -1, -1])  # of the third part no sample is in a large one
        found = _apart(parts, component).tolist()
        assert found[0] == found[1] == found[3] != found[2]
        assert found[4] == found[5] and found[6] == found[7]
        assert sorted(set(found)) == [0, 1, 2, 3]

    def test_large_components(self):
        edges = torch.tensor([[0, 1, 3, 4, 6], [1, 2, 4, 5, 7]])
        graph = Data(edge_index=edges)
        assert _large_components(graph, 9, 3).tolist() == [0, 0, 0, 1, 1, 1, -1, -1, -1]
        assert _large_components(graph, 9, 4) is None

    @pytest.mark.parametrize("seed", [0, 1])
    def test_circles(self, seed):
        """One within the other: their parts' means lie near each other, and no edge joins them."""
        x, y = make_circles(1500, factor=0.5, noise=0.05, random_state=seed)
        graph = SampleGraph.from_features(x.astype(np.float32), 7, random_state=0)
        runs = merged_runs(graph, graph.x, 2, random_state=seed, keep_apart=True)
        assert all(adjusted_rand_score(y, run) == 1.0 for run in runs.numpy())
        labels = ConsensusClustering(2, random_state=seed).fit(x).labels_
        assert adjusted_rand_score(y, labels) > 0.99


def test_few_samples_are_no_cluster_whatever_the_share() -> None:
    assert least_sizes([0.3, 0.1, 0.003], 1000, 2) == [150.0, 50.0, 8.0]
    assert least_sizes([0.003], 1000, 2) == [8.0]
    assert least_sizes([0.3, 0.03], 40, 4) == [3.0, 3.0]  # of few samples a cluster may have fewer than 8
