"""Scores against their brute-force or library twins, and what bad input says."""

from __future__ import annotations

import tracemalloc
from itertools import permutations

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import (
    adjusted_rand_score,
    confusion_matrix,
    f1_score,
    normalized_mutual_info_score,
    silhouette_score,
)
from torch_geometric.data import Data

from graphclust import metrics


def _noisy_labels(n: int, n_classes: int, n_clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y_true = rng.integers(n_classes, size=n)
    y_pred = np.where(rng.random(n) < 0.6, (y_true * 7 + 3) % n_clusters, rng.integers(n_clusters, size=n))
    return y_true, y_pred


def _brute_force_accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Try every one-to-one assignment."""
    clusters, classes = sorted(set(y_pred)), sorted(set(y_true))
    short, long, swap = (
        (clusters, classes, False) if len(clusters) <= len(classes) else (classes, clusters, True)
    )
    best = 0
    for chosen in permutations(long, len(short)):
        pairs = zip(short, chosen, strict=True)
        hits = (
            ((y_true == a) & (y_pred == b)) if swap else ((y_pred == a) & (y_true == b)) for a, b in pairs
        )
        best = max(best, sum(int(hit.sum()) for hit in hits))
    return best / len(y_true)


@pytest.mark.parametrize(("n_classes", "n_clusters"), [(4, 4), (3, 6), (6, 3), (1, 4), (4, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_accuracy_equals_brute_force(n_classes: int, n_clusters: int, seed: int) -> None:
    y_true, y_pred = _noisy_labels(60, n_classes, n_clusters, seed)
    assert metrics.clustering_accuracy(y_true, y_pred) == pytest.approx(_brute_force_accuracy(y_true, y_pred))


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_equals_dense_hungarian(seed: int) -> None:
    y_true, y_pred = _noisy_labels(500, 40, 55, seed)
    table = np.zeros((55, 40), dtype=int)
    np.add.at(table, (y_pred, y_true), 1)
    rows, cols = linear_sum_assignment(table, maximize=True)
    assert metrics.clustering_accuracy(y_true, y_pred) == pytest.approx(table[rows, cols].sum() / 500)


@pytest.mark.parametrize(("n_classes", "n_clusters"), [(5, 5), (5, 8), (8, 5)])
def test_library_scores_and_f1(n_classes: int, n_clusters: int) -> None:
    y_true, y_pred = _noisy_labels(400, n_classes, n_clusters, 0)
    scores = metrics.evaluate(y_true, y_pred)
    assert list(scores) == ["ACC", "NMI", "ARI", "F1", "purity"]
    assert scores["NMI"] == pytest.approx(normalized_mutual_info_score(y_true, y_pred))
    assert scores["ARI"] == pytest.approx(adjusted_rand_score(y_true, y_pred))
    mapping = metrics.match_labels(y_true, y_pred)
    relabelled = np.array([mapping.get(cluster, -9) for cluster in y_pred])
    assert scores["ACC"] == pytest.approx((relabelled == y_true).mean())
    classes = np.unique(y_true)
    assert scores["F1"] == pytest.approx(f1_score(y_true, relabelled, labels=classes, average="macro"))
    counts = confusion_matrix(y_true, y_pred)
    assert scores["purity"] == pytest.approx(counts.max(axis=0).sum() / len(y_true))
    separate = [
        metrics.clustering_accuracy(y_true, y_pred),
        metrics.normalized_mutual_info(y_true, y_pred),
        metrics.adjusted_rand(y_true, y_pred),
        metrics.macro_f1(y_true, y_pred),
        metrics.purity(y_true, y_pred),
    ]
    assert separate == list(scores.values())


def test_purity_flatters_where_accuracy_does_not() -> None:
    y_true = np.repeat([0, 1], 50)
    every_sample_alone = np.arange(100)
    assert metrics.purity(y_true, every_sample_alone) == 1.0
    assert metrics.clustering_accuracy(y_true, every_sample_alone) == pytest.approx(0.02)


def test_match_is_one_to_one_and_as_large_as_possible() -> None:
    y_true, y_pred = _noisy_labels(300, 6, 9, 1)
    mapping = metrics.match_labels(y_true, y_pred)
    assert len(mapping) == 6
    assert len(set(mapping.values())) == 6
    # "b" shares samples with class 0 only, which "a" needs more, and so it gets the class that is left.
    assert metrics.match_labels([0, 0, 0, 0, 1], ["a", "a", "a", "b", "a"]) == {"a": 0, "b": 1}
    assert len(metrics.match_labels([0, 0, 1], ["a", "a", "a"])) == 1


def test_noise_is_a_cluster_of_its_own() -> None:
    assert metrics.clustering_accuracy([0, 0, 1, 1], [5, -1, -1, -1]) == 0.75
    assert metrics.match_labels([0, 0, 1, 1], [5, -1, -1, -1]) == {-1: 1, 5: 0}


@pytest.mark.parametrize(
    "convert",
    [
        list,
        np.asarray,
        torch.as_tensor,
        lambda y: np.asarray(y, dtype=np.uint8),
        lambda y: [f"class {value}" for value in y],
        lambda y: [("tuple", value) for value in y],
        lambda y: [value if value else "zero" for value in y],
        lambda y: np.asarray([f"c{value}" for value in y], dtype=object),
    ],
)
def test_any_hashable_labels(convert) -> None:
    y_true, y_pred = [0, 0, 1, 1, 2, 2], [1, 1, 0, 0, 0, 2]
    assert metrics.evaluate(convert(y_true), convert(y_pred)) == metrics.evaluate(y_true, y_pred)


def test_many_clusters_fit_in_memory() -> None:
    rng = np.random.default_rng(0)
    y_true = rng.integers(5000, size=200_000)
    y_pred = np.where(rng.random(200_000) < 0.7, y_true * 3 % 5000, rng.integers(5000, size=200_000))
    tracemalloc.start()
    scores = metrics.evaluate(y_true, y_pred)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The dense table alone would be 200 MB.
    assert peak < 100e6
    assert 0.6 < scores["ACC"] < 0.8


@pytest.mark.parametrize(
    ("y_true", "y_pred", "message"),
    [
        ([0, 1, 1], [0, 1], "3 labels and y_pred has 2"),
        ([], [], "y_true is empty"),
        ([0.0, float("nan")], [0, 1], "y_true has 1 missing"),
        (["a", None], [0, 1], "y_true has 1 missing"),
        ([0, 1], np.eye(2), "one label per sample"),
    ],
)
def test_bad_labels(y_true, y_pred, message: str) -> None:
    for score in (metrics.evaluate, metrics.clustering_accuracy, metrics.match_labels):
        with pytest.raises(ValueError, match=message):
            score(y_true, y_pred)


@pytest.mark.parametrize("labels", [None, 3, "setosa"])
def test_what_is_no_list_of_labels(labels) -> None:
    with pytest.raises(TypeError, match=r"y_pred=.* give one label per sample"):
        metrics.evaluate([0, 1], labels)


# -- on graphs -----------------------------------------------------------------------------------------------


def _weighted_graph(seed: int) -> tuple[nx.Graph, np.ndarray, np.ndarray, np.ndarray]:
    """A random weighted graph without self-loops, its edges both ways, and labels that fit it a little."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=60)
    graph = nx.Graph()
    graph.add_nodes_from(range(60))
    for i in range(60):
        for j in range(i):
            if rng.random() < (0.3 if labels[i] == labels[j] else 0.08):
                graph.add_edge(i, j, weight=float(rng.uniform(0.1, 3)))
    edges = np.array(graph.edges).T
    weight = np.array([graph.edges[i, j]["weight"] for i, j in edges.T])
    return graph, np.hstack([edges, edges[::-1]]), np.tile(weight, 2), labels


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("resolution", [0.5, 1.0, 2.0])
def test_modularity_equals_networkx(seed: int, resolution: float) -> None:
    graph, edges, weight, labels = _weighted_graph(seed)
    communities = [set(np.flatnonzero(labels == k).tolist()) for k in np.unique(labels)]
    twin = nx.community.modularity(graph, communities, resolution=resolution)
    assert metrics.modularity(edges, labels, weight, resolution=resolution) == pytest.approx(twin)
    # An edge list that names each edge once is the same undirected graph.
    half = slice(0, edges.shape[1] // 2)
    assert metrics.modularity(edges[:, half], labels, weight[half], resolution=resolution) == pytest.approx(
        twin
    )
    unweighted = nx.community.modularity(graph, communities, weight=None, resolution=resolution)
    assert metrics.modularity(edges, labels, resolution=resolution) == pytest.approx(unweighted)


@pytest.mark.parametrize("seed", range(3))
def test_conductance_equals_networkx(seed: int) -> None:
    graph, edges, weight, labels = _weighted_graph(seed)
    names = np.array(["north", "east", "south", "west"])[labels]
    twin = [nx.conductance(graph, np.flatnonzero(names == k), weight="weight") for k in np.unique(names)]
    np.testing.assert_allclose(metrics.conductance(edges, names, weight, per_cluster=True), twin)
    assert metrics.conductance(edges, names, weight) == pytest.approx(np.mean(twin))


def test_graph_scores_take_a_pyg_graph() -> None:
    _, edges, weight, labels = _weighted_graph(0)
    data = Data(
        edge_index=torch.from_numpy(edges),
        edge_weight=torch.from_numpy(weight).float(),
        num_nodes=len(labels),
    )
    for score in (metrics.modularity, metrics.conductance):
        assert score(data, torch.from_numpy(labels)) == pytest.approx(score(edges, labels, weight), rel=1e-5)


def test_graph_scores_at_the_edges_of_their_definition() -> None:
    edges = [[0, 1, 2, 3], [1, 0, 3, 2]]
    assert metrics.modularity(edges, [0, 0, 0, 0]) == pytest.approx(0.0)
    assert metrics.conductance(edges, [0, 0, 0, 0]) == 0.0
    assert metrics.conductance(edges, [0, 0, 1, 1]) == 0.0
    assert metrics.conductance(edges, [0, 1, 0, 1]) == 1.0
    isolated = metrics.conductance(edges, [0, 1, 0, 1, 2], per_cluster=True)
    np.testing.assert_array_equal(isolated, [1.0, 1.0, np.nan])
    assert metrics.conductance(edges, [0, 1, 0, 1, 2]) == 1.0


@pytest.mark.parametrize(
    ("edges", "labels", "weight", "message"),
    [
        (np.zeros((2, 0), dtype=int), [0, 1], None, "no edges"),
        ([[0, 1]], [0, 1], None, r"\(1, 2\)"),
        ([[0], [2]], [0, 1], None, "0 to 2, but labels has 2"),
        ([[-1], [1]], [0, 1], None, "-1 to 1"),
        ([[0.0], [1.0]], [0, 1], None, "integers"),
        ([[0], [1]], [0, 1], [1.0, 2.0], "2 entries and edge_index has 1"),
        ([[0], [1]], [0, 1], [-1.0], "negative or non-finite"),
        ([[0], [1]], [0, 1], [float("nan")], "negative or non-finite"),
        ([[0], [1]], [0, 1], [0.0], "all edge weights are 0"),
        (Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2), [0, 1, 1], None, "2 nodes and labels has 3"),
    ],
)
def test_bad_graphs(edges, labels, weight, message: str) -> None:
    for score in (metrics.modularity, metrics.conductance):
        with pytest.raises(ValueError, match=message):
            score(edges, labels, weight)


def test_bad_resolution() -> None:
    with pytest.raises(ValueError, match="resolution is 0"):
        metrics.modularity([[0], [1]], [0, 1], resolution=0)


# -- on features, and between runs ---------------------------------------------------------------------------


def _blobs(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return (rng.normal(size=(len(sizes), 5)) * 3)[labels] + rng.normal(size=(len(labels), 5)), labels


def test_silhouette_of_all_samples_is_scikit_learns() -> None:
    x, labels = _blobs([80, 50, 20])
    names = np.array(["a", "b", "c"])[labels]
    assert metrics.silhouette(x, names) == pytest.approx(silhouette_score(x, labels), abs=1e-5)
    assert metrics.silhouette(torch.from_numpy(x), names, sample_size=None) == pytest.approx(
        silhouette_score(x, labels), abs=1e-5
    )


def test_silhouette_far_from_the_origin() -> None:
    x, labels = _blobs([80, 50, 20])
    assert metrics.silhouette(x + 1e8, labels) == pytest.approx(silhouette_score(x, labels), abs=1e-5)


def test_silhouette_sample_is_near_the_whole_and_keeps_rare_clusters() -> None:
    x, labels = _blobs([3000, 1500, 12, 6])
    whole = silhouette_score(x, labels)
    sampled = metrics.silhouette(x, labels, sample_size=400)
    assert sampled == pytest.approx(whole, abs=0.05)
    assert sampled == metrics.silhouette(x, labels, sample_size=400)
    assert sampled != metrics.silhouette(x, labels, sample_size=400, random_state=1)
    chosen = metrics.structure._stratified(labels, np.bincount(labels), 400, 0)
    drawn = np.bincount(labels[chosen])
    assert drawn[2] == 10 and drawn[3] == 6
    assert 390 <= drawn.sum() <= 430


@pytest.mark.parametrize(
    ("x", "labels", "kwargs", "message"),
    [
        (np.zeros((4, 2)), [0, 0, 0, 0], {}, "more clusters"),
        (np.zeros((4, 2)), [0, 1, 2, 3], {}, "fewer clusters"),
        (np.zeros((4, 2)), [0, 1, 1], {}, "4 rows and labels has 3"),
        (np.zeros((4, 2, 2)), [0, 1, 1, 0], {}, "flatten"),
        (np.full((4, 2), np.nan), [0, 1, 1, 0], {}, "NaN or infinite"),
        (np.zeros((4, 2)), [0, 1, 1, 0], {"sample_size": 1}, "sample_size is 1"),
    ],
)
def test_bad_silhouette(x, labels, kwargs, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.silhouette(x, labels, **kwargs)


def test_graphs_as_sparse_matrices() -> None:
    rng = np.random.default_rng(0)
    edges, weight, labels = rng.integers(0, 20, (2, 90)), rng.random(90), np.arange(20) % 3
    adjacency = sp.coo_matrix((weight, edges), (20, 20))
    for score in (metrics.modularity, metrics.conductance):
        assert score(adjacency.tocsr(), labels) == pytest.approx(score(edges, labels, edge_weight=weight))


def test_agreement_of_unequal_lengths() -> None:
    with pytest.raises(ValueError, match=r"the labellings have \[3, 2\] labels"):
        metrics.agreement([[0, 1, 1], [0, 1]])


def test_agreement_is_the_mean_over_pairs() -> None:
    runs = [_noisy_labels(200, 4, 4, seed)[1] for seed in range(3)]
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = np.mean([adjusted_rand_score(runs[i], runs[j]) for i, j in pairs])
    assert metrics.agreement(runs) == pytest.approx(expected)
    assert metrics.agreement([runs[0], (runs[0] + 1) % 4]) == 1.0
    with pytest.raises(ValueError, match="1 was given"):
        metrics.agreement(runs[:1])


# -- calibration -----------------------------------------------------------------------------------------------


def test_rows_of_probabilities_sum_to_1() -> None:
    with pytest.raises(ValueError, match="probabilities of row 2 sum to 1.5"):
        metrics.calibration_error([0, 1, 1], [[0.5, 0.5], [1, 0], [0.5, 1]])


def test_calibration_of_sparse_probabilities() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5) * 0.5, 300) * (rng.random((300, 5)) < 0.6)
    p[:, 2] += 1e-3
    p /= p.sum(axis=1, keepdims=True)
    y = rng.integers(0, 5, 300)
    assert metrics.calibration_error(y, sp.csr_matrix(p)) == pytest.approx(metrics.calibration_error(y, p))
    with pytest.raises(ValueError, match="299 classes and 300 rows"):
        metrics.reliability(y[1:], sp.csr_array(p))


def test_calibration_against_a_loop() -> None:
    rng = np.random.default_rng(3)
    n, k, bins = 4000, 4, 10
    p = rng.dirichlet(np.ones(k) * 0.7, n)
    chosen = np.array([rng.choice(k, p=row) for row in p])
    y = np.array(list("cadb"))[chosen]  # right with the probability that is said
    curve = metrics.reliability(y, p, bins)
    error, share = 0.0, []
    for b in range(bins):
        inside = [
            i
            for i in range(n)
            if b / bins <= p[i].max() < (b + 1) / bins or (b == bins - 1 and p[i].max() == 1)
        ]
        if inside:
            right = np.mean([chosen[i] == p[i].argmax() for i in inside])
            sure = np.mean([p[i].max() for i in inside])
            error += len(inside) / n * abs(right - sure)
            share.append(len(inside) / n)
    np.testing.assert_allclose(curve["share"], share)
    assert metrics.calibration_error(y, p, bins) == pytest.approx(error)
    assert error < 0.04  # drawn from these very probabilities
    sharper = p**3 / (p**3).sum(axis=1, keepdims=True)
    assert metrics.calibration_error(y, sharper, bins) > 0.1
    as_tensors = metrics.calibration_error(torch.from_numpy(chosen), torch.from_numpy(p), bins)
    assert as_tensors == pytest.approx(error)


def test_clusters_without_a_class_are_wrong() -> None:
    p = np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert metrics.calibration_error([5, 5, 7, 7], p) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("p", "bins", "message"),
    [
        (np.ones((3, 2)) * 1.2, 15, "from 1.2 to 1.2"),
        (np.full((3, 2), np.nan), 15, "nan"),
        (np.ones((2, 2)), 15, "3 classes and 2 rows"),
        (np.ones(3), 15, r"shape \[3\]"),
        (np.ones((3, 2)) / 2, 0, "n_bins=0"),
    ],
)
def test_bad_probabilities_are_refused(p: np.ndarray, bins: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.calibration_error([0, 1, 1], p, bins)
