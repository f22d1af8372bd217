"""Questions to the neighbour lists, against brute force and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import LocalOutlierFactor

from graphclust.graph import (
    SampleGraph,
    duplicate_groups,
    duplicate_threshold,
    nearest,
    outlier_scores,
    similar,
)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """200 samples; 150 to 159 are ten copies of 0, 160 to 162 lie next to 1 in a chain, 199 is far away."""
    x = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    x[150:160] = x[0]
    for step, row in enumerate(range(160, 163), start=1):
        x[row] = x[1]
        x[row, 0] += 0.05 * step
    x[199] = 30
    return x


@pytest.fixture(scope="module")
def graph(x: np.ndarray) -> SampleGraph:
    return SampleGraph.from_features(x, n_neighbors=5)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_nearest_is_brute_force(x: np.ndarray, metric: str) -> None:
    graph = SampleGraph.from_features(x, n_neighbors=5, metric=metric)
    queries = np.random.default_rng(1).normal(size=(7, 6)).astype(np.float32)
    index, distance = nearest(graph, queries, k=20)
    a, b = queries[:, None].astype(float), x[None].astype(float)
    if metric == "cosine":
        expected = 1 - (a * b).sum(2) / np.linalg.norm(a, axis=2) / np.linalg.norm(b, axis=2)
    else:
        expected = np.linalg.norm(a - b, ord=1 if metric == "manhattan" else 2, axis=2)
    assert np.allclose(distance, np.sort(expected, axis=1)[:, :20], atol=1e-5)
    assert np.allclose(np.take_along_axis(expected, index.numpy(), axis=1), distance, atol=1e-5)


def test_similar_reads_the_list_and_searches_beyond_it(graph: SampleGraph) -> None:
    assert graph.neighbor_index is not None
    index, distance = similar(graph, 1, k=3)
    assert index.tolist() == [160, 161, 162]
    assert torch.allclose(distance, torch.tensor([0.05, 0.10, 0.15]), atol=1e-5)
    index, distance = similar(graph, 1, k=40)
    assert index[:5].tolist() == graph.neighbor_index[1].tolist()
    assert len(index) == 40
    assert 1 not in index
    assert (distance.diff() >= 0).all()
    assert len(similar(graph, 0, k=199)[0]) == 199  # with ten copies of the sample among them


def test_duplicates_are_components_of_close_pairs(x: np.ndarray, graph: SampleGraph) -> None:
    groups = duplicate_groups(graph, 0.06).numpy()
    assert set(np.flatnonzero(groups == 0)) == {0, *range(150, 160)}  # the larger group first
    assert set(np.flatnonzero(groups == 1)) == {1, 160, 161, 162}  # a chain: its ends are 0.15 apart
    assert (np.delete(groups, [0, 1, *range(150, 163)]) == -1).all()
    exact = duplicate_groups(graph, 0).numpy()
    assert set(np.flatnonzero(exact >= 0)) == {0, *range(150, 160)}
    everything = duplicate_groups(graph, 1000).numpy()
    assert (everything == 0).sum() > 190


def test_duplicates_among_attached_samples_are_found(x: np.ndarray, graph: SampleGraph) -> None:
    new = np.random.default_rng(2).normal(size=(6, 6)).astype(np.float32) * 4
    new[3], new[4] = new[0], x[7]  # one pair among the new, one between old and new
    attached = graph.attach(new)
    groups = duplicate_groups(attached, 0.06).numpy()
    assert groups[200] == groups[203] != -1
    assert groups[7] == groups[204] != -1
    assert groups[200] != groups[7]
    assert (groups[[201, 202, 205]] == -1).all()
    assert similar(attached, 7, k=1)[0].tolist() == [204]


def test_the_threshold_follows_the_scale_of_the_data(x: np.ndarray, graph: SampleGraph) -> None:
    threshold = duplicate_threshold(graph)
    assert graph.neighbor_distance is not None
    assert threshold == pytest.approx(0.4 * float(graph.neighbor_distance[:, 2].median()))
    scaled = SampleGraph.from_features(x * 100, n_neighbors=5)
    assert duplicate_threshold(scaled) == pytest.approx(100 * threshold, rel=1e-5)
    assert torch.equal(duplicate_groups(scaled), duplicate_groups(graph))
    assert torch.equal(duplicate_groups(graph), duplicate_groups(graph, threshold))


def test_copies_do_not_move_the_threshold(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x = digits[0][:400]
    noise = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    twice = np.vstack([x, x + 0.01 * noise])
    groups = duplicate_groups(SampleGraph.from_features(twice, n_neighbors=15)).numpy()
    found = (groups[:400] == groups[400:]) & (groups[:400] >= 0)
    assert found.mean() > 0.99
    assert (duplicate_groups(SampleGraph.from_features(x, n_neighbors=15)).numpy() >= 0).mean() < 0.02


def test_outlier_scores_of_new_samples_are_those_of_scikit_learn(
    digits: tuple[np.ndarray, np.ndarray],
) -> None:
    # Grey values of 17 levels have many ties, which neighbour lists may break in one way or another.
    jitter = np.random.default_rng(1).normal(size=digits[0].shape)
    x = (digits[0] + 1e-3 * jitter).astype(np.float32)
    graph = SampleGraph.from_features(x[:1000], 12)
    model = LocalOutlierFactor(12, novelty=True).fit(x[:1000])
    noise = np.random.default_rng(0).random((50, x.shape[1])).astype(np.float32) * x.max()
    for new in (x[1000:1200], noise):
        assert np.allclose(outlier_scores(graph, new).numpy(), -model.score_samples(new), rtol=1e-3)


def test_outlier_scores_are_those_of_scikit_learn(digits: tuple[np.ndarray, np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    jittered = digits[0][:500] + 1e-3 * rng.normal(size=(500, 64))
    for x, k in ((rng.normal(size=(200, 20)), 5), (jittered, 15)):
        graph = SampleGraph.from_features(x, n_neighbors=k)
        assert graph.neighbor_distance is not None
        assert float(graph.neighbor_distance.min()) > duplicate_threshold(graph)
        expected = -LocalOutlierFactor(k).fit(x).negative_outlier_factor_
        assert np.allclose(outlier_scores(graph).numpy(), expected, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:Duplicate values")
def test_copies_make_no_outliers(x: np.ndarray, graph: SampleGraph) -> None:
    scores = outlier_scores(graph)
    assert int(scores.argmax()) == 199
    others = torch.cat([scores[:150], scores[160:199]])
    assert float(others.max()) < 4
    plain = -LocalOutlierFactor(5).fit(x.astype(np.float64)).negative_outlier_factor_
    assert plain[:199].max() > 1e6  # what the threshold is for
    assert torch.allclose(
        scores[150:160], torch.ones(10), atol=1e-3
    )  # as dense as their neighbours, themselves
    same = SampleGraph.from_features(np.ones((10, 3), np.float32), n_neighbors=3)
    assert torch.allclose(outlier_scores(same), torch.ones(10))


def test_graphs_that_cannot_answer(x: np.ndarray) -> None:
    edges = SampleGraph.from_edges(torch.tensor([[0, 1], [1, 2]]), x[:3])
    for question in (duplicate_groups, outlier_scores, lambda g: nearest(g, x[:1]), lambda g: similar(g, 0)):
        with pytest.raises(ValueError, match="made from edges"):
            question(edges)
    products = SampleGraph.from_features(x, 5, metric="inner_product", kernel="binary")
    with pytest.raises(ValueError, match="at least 0"):
        outlier_scores(products)
    graph = SampleGraph.from_features(x, 5)
    with pytest.raises(ValueError, match="threshold"):
        duplicate_groups(graph, -1)
    with pytest.raises(ValueError, match="sample=200"):
        similar(graph, 200)
    with pytest.raises(TypeError, match="SampleGraph"):
        outlier_scores(x)  # type: ignore[arg-type]


class TestSearch:
    def test_shapes_of_what_is_asked_for(self, digits: Any) -> None:
        x = digits[0][:300]
        graph = SampleGraph.from_features(x, n_neighbors=5)
        expected, distance = nearest(graph, x[7:9], 4)
        for asked in (x[7:9], x[7:9].reshape(2, 8, 8), torch.from_numpy(x[7:9])):
            index, found = graph.search(asked, 4)
            assert torch.equal(index, expected) and torch.equal(found, distance)
        for asked in (x[7], x[7].reshape(1, 8, 8)):
            assert torch.equal(graph.search(asked, 4)[0], expected[:1])

    def test_other_widths(self, digits: Any) -> None:
        graph = SampleGraph.from_features(digits[0][:50], n_neighbors=5)
        with pytest.raises(ValueError, match="63"):
            graph.search(digits[0][:3, :63])
        with pytest.raises(ValueError, match="32"):  # as many values as one sample has
            graph.search(digits[0][:2, :32])
