"""Agglomerative and AgglomerativeDensity: against scipy, scikit-learn and brute force; components and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import is_valid_linkage, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist, pdist, squareform
from sklearn.cluster import AgglomerativeClustering
from sklearn.datasets import make_moons
from torch_geometric.data import Data

import graphclust
from graphclust import Agglomerative, AgglomerativeDensity, KMeans, SampleGraph
from graphclust.graph.links import linked_pairs, pair_distances
from graphclust.graph.metric import Metric
from graphclust.methods.agglomerative import agglomerate
from graphclust.methods.agglomerative_density import pair_densities, part_links
from graphclust.methods.merging import merge_linked
from graphclust.methods.trees import cut_leaves
from graphclust.metrics import adjusted_rand, clustering_accuracy

SCIPY = {"euclidean": {}, "manhattan": {}, "minkowski": {"p": 3.0}, "cosine": {}}
NAMES = {"manhattan": "cityblock"}


def scipy_distance(x: np.ndarray, metric: str) -> np.ndarray:
    return pdist(x.astype(float), NAMES.get(metric, metric), **SCIPY[metric])


@pytest.fixture(scope="module")
def x(digits: Any) -> np.ndarray:
    """Digits with a little noise, so that no two distances are equal and every order is the only one."""
    noise = np.random.default_rng(0).normal(0, 0.01, (300, 64))
    return (digits[0][:300] + noise).astype(np.float32)


class TestUnconstrained:
    @pytest.mark.parametrize("metric", SCIPY)
    @pytest.mark.parametrize("method", ["average", "complete", "single"])
    def test_as_scipy(self, method: str, metric: str, x: np.ndarray) -> None:
        expected = linkage(scipy_distance(x, metric), method)
        tree = agglomerate(x, None, linkage=method, metric=metric, **SCIPY[metric])
        np.testing.assert_allclose(tree[:, 2], expected[:, 2], rtol=1e-6, atol=1e-9)
        for n in (3, 10):
            assert adjusted_rand(cut_leaves(expected, n), cut_leaves(tree, n)) == 1.0

    def test_ward_as_scipy(self, x: np.ndarray) -> None:
        model = Agglomerative(10, constrained=False).fit(x)
        np.testing.assert_allclose(model.tree_, linkage(x.astype(float), "ward"), rtol=1e-6)

    def test_zero_vectors_have_cosine_distance_1(self) -> None:
        x = np.array([[1.0, 0], [0, 0], [1, 0.1], [0, 0], [0, 1]])
        links = np.array([[0, 1], [0, 2], [1, 3], [3, 4], [2, 4]])
        for pairs in (None, links):
            for method in ("single", "complete"):
                tree = agglomerate(x, pairs, linkage=method, metric="cosine")
                near = {"single": 0.900496}.get(method, 1.0 if pairs is None else 0.900496)
                np.testing.assert_allclose(tree[:, 2], [0.004963, near, 1, 1], atol=1e-5)

    def test_too_many_samples(self) -> None:
        with pytest.raises(ValueError, match=r"n_samples=20001 .* needs 1\.6 GB .* constrained=True"):
            agglomerate(np.zeros((20_001, 1)), None)


class TestConstrained:
    @pytest.mark.parametrize("metric", SCIPY)
    def test_average_is_that_of_all_pairs(self, metric: str, x: np.ndarray) -> None:
        """Sparse sums give what scipy finds in the full matrix, in which unjoined pairs are at 1.01 longest edges."""
        model = Agglomerative(10, linkage="average", metric=metric, n_neighbors=7, **SCIPY[metric]).fit(x)
        pairs = linked_pairs(model.graph_, Metric.make(metric, model.p))
        full = squareform(scipy_distance(x, metric))
        far = 1.01 * full[pairs[:, 0], pairs[:, 1]].max()
        truncated = np.full_like(full, far)
        truncated[pairs[:, 0], pairs[:, 1]] = full[pairs[:, 0], pairs[:, 1]]
        truncated = np.minimum(truncated, truncated.T)
        np.fill_diagonal(truncated, 0)
        expected = linkage(squareform(truncated, checks=False), "average")
        np.testing.assert_allclose(model.tree_[:, 2], -np.log(1 - expected[:, 2] / far), rtol=1e-3, atol=1e-4)
        for n in (2, 10, 40):
            assert adjusted_rand(cut_leaves(expected, n), model.cut(n)) == 1.0

    @pytest.mark.parametrize("method", ["ward", "complete", "single"])
    def test_others_as_scikit_learn(self, method: str, x: np.ndarray) -> None:
        model = Agglomerative(10, linkage=method).fit(x)
        pairs = linked_pairs(model.graph_, Metric.make("euclidean"))
        joined = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(300, 300))
        expected = AgglomerativeClustering(10, linkage=method, connectivity=joined + joined.T).fit(x)
        assert adjusted_rand(expected.labels_, model.labels_) == 1.0

    @pytest.mark.parametrize(
        ("method", "metric"), [("ward", "euclidean"), ("average", "manhattan"), ("complete", "minkowski")]
    )
    def test_clusters_hang_together(self, method: str, metric: str, x: np.ndarray) -> None:
        model = Agglomerative(10, linkage=method, metric=metric, p=3, n_neighbors=5).fit(x)
        assert is_valid_linkage(model.tree_) and len(model.tree_) == 299
        pairs = linked_pairs(model.graph_, Metric.make(metric, 3))
        for labels in (model.labels_, model.cut(25)):
            inside = pairs[labels[pairs[:, 0]] == labels[pairs[:, 1]]]
            joined = coo_array((np.ones(len(inside)), tuple(inside.T)), shape=(300, 300))
            assert connected_components(joined, directed=False)[0] == labels.max() + 1

    def test_finds_moons_that_no_center_finds(self) -> None:
        x, y = make_moons(400, noise=0.06, random_state=0)
        assert clustering_accuracy(y, KMeans(2, random_state=0).fit(x).labels_) < 0.9
        for method in ("average", "single"):
            model = Agglomerative(2, linkage=method).fit(x)
            assert clustering_accuracy(y, model.labels_) == 1.0
            assert clustering_accuracy(y, model.predict(x + 0.01)) == 1.0


def test_training_samples_have_the_labels_of_the_fit(digits: Any) -> None:
    """Also where most of their neighbours have another one."""
    x = digits[0][:700]
    model = Agglomerative(10).fit(x)
    np.testing.assert_array_equal(model.predict(x), model.labels_)
    assert (model.predict(x + 1e-3) != model.labels_).any()  # which the votes alone would not give


class TestComponents:
    @pytest.fixture
    def data(self) -> Data:
        """Three groups far apart, joined by no edge, and a sample without any."""
        random = np.random.default_rng(0)
        x = np.concatenate([random.normal(c, 0.3, (20, 2)) for c in (0, 5, 20)] + [[[21.0, 23.0]]])
        edges = [[i, i + 1] for start in (0, 20, 40) for i in range(start, start + 19)]
        return Data(x=torch.from_numpy(x).float(), edge_index=torch.tensor(edges).T)

    @pytest.mark.parametrize("metric", SCIPY)
    def test_are_joined_at_their_nearest_samples(self, metric: str, data: Data) -> None:
        graph, chosen = SampleGraph.from_data(data), Metric.make(metric, 3.0)
        pairs = linked_pairs(graph, chosen)
        assert len(pairs) == 57 + 3  # the chains, and what makes a tree of four components
        component = np.repeat([0, 1, 2, 3], [20, 20, 20, 1])
        full = squareform(scipy_distance(data.x.numpy(), metric))
        joined = {(a, b) for a, b in pairs.tolist() if component[a] != component[b]}
        for c in range(4):
            outside = np.where((component == c)[:, None] & (component != c), full, np.inf)
            a, b = np.unravel_index(outside.argmin(), outside.shape)
            assert (min(a, b), max(a, b)) in joined
        np.testing.assert_allclose(
            pair_distances(graph.x, pairs, chosen), full[pairs[:, 0], pairs[:, 1]], rtol=1e-5, atol=1e-6
        )

    @pytest.mark.parametrize("offset", [1e3, 1e5])
    def test_are_joined_alike_far_from_the_origin(self, offset: float) -> None:
        """Squares of float32 there have no digits left for distances."""
        random = np.random.default_rng(0)
        x = np.concatenate([random.integers(c, c + 9, (40, 6)) for c in (0, 30)]).astype(np.float32)
        edges = torch.tensor([[i, i + 1] for start in (0, 40) for i in range(start, start + 39)]).T
        far = Data(x=torch.from_numpy(x + np.float32(offset)), edge_index=edges)
        pairs = linked_pairs(SampleGraph.from_data(far), Metric.make("euclidean", 2.0))
        between = [(a, b) for a, b in pairs.tolist() if (a < 40) != (b < 40)]
        nearest = cdist(x[:40], x[40:]).min()
        assert min(np.linalg.norm(x[a] - x[b]) for a, b in between) == pytest.approx(nearest)

    @pytest.mark.parametrize("method", ["ward", "average", "complete", "single"])
    def test_give_one_whole_tree(self, method: str, data: Data) -> None:
        model = Agglomerative(3, linkage=method).fit(data)
        assert is_valid_linkage(model.tree_) and len(model.tree_) == 60
        # Along a chain the largest distance of a few edges says little.
        least = 0.5 if method == "complete" else 0.95
        assert adjusted_rand(np.repeat([0, 1, 2], [20, 20, 21]), model.labels_) > least
        assert set(model.cut(61)) == set(range(61))
        # New samples have no edges, and are placed by their features.
        assert model.predict(data.x[:3] + 0.01).tolist() == model.labels_[:3].tolist()

    def test_density_on_given_edges(self, data: Data) -> None:
        model = AgglomerativeDensity(3, n_parts=8, random_state=0).fit(data)
        assert adjusted_rand(np.repeat([0, 1, 2], [20, 20, 21]), model.labels_) == 1.0

    def test_no_edges_at_all(self, data: Data) -> None:
        alone = SampleGraph(x=data.x, edge_index=torch.empty((2, 0), dtype=torch.long))
        pairs = linked_pairs(alone, Metric.make("euclidean"))
        expected = linkage(data.x.double().numpy(), "single")[:, 2]  # a shortest spanning tree
        distances = pair_distances(alone.x, pairs, Metric.make("euclidean"))
        np.testing.assert_allclose(np.sort(distances), expected, rtol=1e-5)


def test_predict_is_the_majority_of_the_nearest(x: np.ndarray, digits: Any) -> None:
    new = digits[0][300:400]
    model = Agglomerative(10, linkage="average", metric="manhattan", n_neighbors=5).fit(x)
    order = np.argsort(cdist(new, x, "cityblock"), axis=1, kind="stable")[:, :5]
    for label, votes in zip(model.predict(new), model.labels_[order], strict=True):
        counts = np.bincount(votes, minlength=10)
        assert counts[label] == counts.max()
        assert label == next(v for v in votes if counts[v] == counts.max())


def test_tree_and_graph_are_saved(x: np.ndarray, tmp_path: Path) -> None:
    for model in (Agglomerative(5), AgglomerativeDensity(5, random_state=0)):
        read = graphclust.load(model.fit(x).save(tmp_path / "model"))
        np.testing.assert_array_equal(read.tree_, model.tree_)
        np.testing.assert_array_equal(read.leaf_labels_, model.leaf_labels_)
        np.testing.assert_array_equal(read.cut(7), model.cut(7))
        np.testing.assert_array_equal(read.predict(x), model.predict(x))
        assert torch.equal(read.graph_.edge_index, model.graph_.edge_index)


def test_merging_needs_links_between_all() -> None:
    with pytest.raises(ValueError, match="2 groups are left"):
        merge_linked(np.array([[0, 1]]), [1.0], np.ones(3), np.zeros(3), lambda link, *_: (-link,))


class TestDensity:
    def test_sums_of_links(self, x: np.ndarray) -> None:
        graph = SampleGraph.from_features(x, 6)
        leaf = KMeans(12, random_state=0).fit(x).labels_
        pairs, links, own = part_links(pair_densities(graph, Metric.make("euclidean")), leaf)
        full = squareform(scipy_distance(x, "euclidean"))
        core = graph.neighbor_distance.double().mean(dim=1).numpy()
        joined = np.zeros((300, 300), bool)
        a, b = linked_pairs(graph, Metric.make("euclidean")).T
        joined[a, b] = joined[b, a] = True
        density = np.where(joined, 1 / np.maximum(np.maximum(full, core), core[:, None]).clip(1e-9), 0)
        np.fill_diagonal(density, 1 / core)
        member = np.eye(12)[leaf]
        expected = member.T @ density @ member
        np.testing.assert_allclose(own, np.diag(expected), rtol=1e-4)
        np.testing.assert_allclose(links, expected[pairs[:, 0], pairs[:, 1]], rtol=1e-4)
        assert len(pairs) == (np.triu(expected, 1) > 0).sum()

    @pytest.mark.parametrize("least", [1, 25])
    def test_merges_the_two_nearest_each_time(self, least: int, x: np.ndarray) -> None:
        """Every density distance computed anew after every merge, from the samples."""
        model = AgglomerativeDensity(3, n_parts=20, min_size=least, random_state=0).fit(x)
        n_parts = len(model.part_centers_)
        densities = pair_densities(model.graph_, Metric.make("euclidean"))
        leaf, node = model.leaf_labels_.copy(), list(range(n_parts))
        for a, b, *_ in model.tree_:
            pairs, links, own = part_links(densities, leaf)
            size = np.bincount(leaf)
            distance = 0.5 * np.log(own[pairs]).sum(axis=1) - np.log(links)
            small = (size[pairs] < least).any(axis=1)
            distance[~small] += 1e6 * small.any()
            first, second = pairs[distance.argmin()]
            assert {node[first], node[second]} == {int(a), int(b)}
            # Renumbered as part_links wants it: without a gap.
            merged = n_parts + n_parts - len(node)
            leaf[leaf == second] = first
            leaf = np.unique(leaf, return_inverse=True)[1]
            node = [merged if k == first else n for k, n in enumerate(node) if k != second]

    def test_smallest_size_instead_of_a_number(self, x: np.ndarray) -> None:
        free = AgglomerativeDensity(None, min_size=20, random_state=0).fit(x)
        sizes = np.bincount(free.labels_)
        assert len(sizes) == free.n_clusters_ > 3 and sizes.min() >= 20
        np.testing.assert_array_equal(free.labels_, free.cut(free.n_clusters_))
        # One cluster more, and one of them would be smaller.
        assert np.bincount(free.cut(free.n_clusters_ + 1)).min() < 20
        both = AgglomerativeDensity(5, min_size=20, random_state=0).fit(x)
        assert len(set(both.labels_)) == 5 and np.bincount(both.labels_).min() >= 20

    def test_is_the_same_for_duplicates(self) -> None:
        x = np.repeat(np.random.default_rng(0).normal(size=(12, 2)), 15, axis=0)
        model = AgglomerativeDensity(3, random_state=0).fit(x)
        assert np.isfinite(model.tree_).all()
        assert all(len(set(model.labels_[i : i + 15])) == 1 for i in range(0, 180, 15))

    @pytest.mark.parametrize("metric", SCIPY)
    def test_metrics(self, metric: str, digits: Any) -> None:
        model = AgglomerativeDensity(10, metric=metric, p=3, n_parts=60, random_state=0).fit(digits[0][:500])
        assert clustering_accuracy(digits[1][:500], model.labels_) > 0.6
        np.testing.assert_array_equal(model.predict(digits[0][:500]), model.labels_)

    def test_moons(self) -> None:
        x, y = make_moons(600, noise=0.06, random_state=0)
        assert clustering_accuracy(y, AgglomerativeDensity(2, random_state=0).fit(x).labels_) == 1.0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Agglomerative(3, linkage="median"), "linkage='median'"),
        (Agglomerative(3, metric="manhattan"), "linkage='ward' adds up squared Euclidean"),
        (Agglomerative(3, metric="minkowski", p=3), "linkage='ward'"),
        (Agglomerative(3, linkage="average", metric="minkowski", p=0.5), "p=0.5 must be at least 1"),
        (Agglomerative(3, metric="correlation"), "metric='correlation'"),
        (Agglomerative(0), "n_clusters=0"),
        (Agglomerative(31), "n_clusters=31"),
        (Agglomerative(3, n_neighbors=0), "n_neighbors=0"),
        (Agglomerative(3, n_neighbors=30), "n_neighbors=30 must be between 1 and 29"),
        (AgglomerativeDensity(None), "set min_size"),
        (AgglomerativeDensity(3, min_size=0), "min_size=0"),
        (AgglomerativeDensity(3, min_size=31), "min_size=31 must be at most 30"),
        (AgglomerativeDensity(3, n_parts=2), "n_parts=2 must be at least 3"),
        (AgglomerativeDensity(3, n_parts=31), "n_parts=31 must be between 3 and 30"),
        (AgglomerativeDensity(3, metric="minkowski", p=20), "p=20 must be at least 1 and at most 16"),
    ],
)
def test_bad_parameters(model: Any, message: str, x: np.ndarray) -> None:
    with pytest.raises(ValueError, match=message):
        model.fit(x[:30])


def test_only_one_method_finds_the_number_by_itself(x: np.ndarray) -> None:
    with pytest.raises(TypeError, match="n_clusters=None"):
        Agglomerative(None).fit(x)
