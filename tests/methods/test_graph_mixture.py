"""The mixture of t distributions on the graph, and the way of `ConsensusClustering` for many samples."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.stats import multivariate_t
from sklearn.metrics import adjusted_rand_score

from graphclust import ConsensusClustering, load
from graphclust.graph import SampleGraph
from graphclust.graph.linkage import sparse_weights
from graphclust.methods import consensus
from graphclust.methods.graph_mixture import GraphMixture, Projection, refine


def long_clusters(n=900, seed=0, gap=2.6):
    """Two long clusters side by side and a small one: neighbours mix, shapes tell them apart."""
    rng = np.random.default_rng(seed)
    size = (n // 2, n // 2 - n // 10, n // 10)
    x = [rng.normal(size=(m, 6)) * (6, 0.5, 0.5, 0.5, 0.5, 0.5) for m in size]
    x[1][:, 1] += gap
    x[2][:, 2] += 8.0
    y = np.repeat([0, 1, 2], size)
    order = rng.permutation(n)
    return np.concatenate(x)[order].astype(np.float32), y[order]


def test_density_is_scipy_s():
    x, y = long_clusters()
    mixture = GraphMixture.fit(x, y, 3)
    everywhere = sp.csr_matrix(np.ones((len(x), 3), dtype=np.float32))
    found = mixture.log_joint(x, everywhere).toarray()
    nu, constant = mixture.freedom, []
    for k in range(3):
        covariance = np.linalg.inv(mixture.whiten[k].T.astype(float) @ mixture.whiten[k])
        t = multivariate_t(mixture.mean[k], covariance * (nu - 2) / nu, df=nu)
        expected = t.logpdf(x) + np.log((np.sum(y == k) + 1) / (len(x) + 3))
        difference = expected - found[:, k]
        np.testing.assert_allclose(difference, difference[0], atol=2e-3)  # one constant
        constant.append(difference[0])
    np.testing.assert_allclose(constant, constant[0], atol=2e-3)


@pytest.mark.parametrize(("freedom", "low", "high"), [(3, 3, 4), (None, 40, 1000)])
def test_the_tails_are_read_off_the_data(freedom, low, high):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20_000, 5))
    if freedom is not None:
        z *= np.sqrt(freedom / rng.chisquare(freedom, len(z)))[:, None]
    mixture = GraphMixture.fit(z.astype(np.float32), np.zeros(len(z), dtype=np.int64), 1)
    assert low <= mixture.freedom <= high


def test_refining_mends_what_neighbours_get_wrong():
    x, y = long_clusters()
    weights = sparse_weights(SampleGraph.from_features(x, 8))
    rng = np.random.default_rng(1)
    start = np.where(rng.random(len(y)) < 0.1, rng.integers(0, 3, len(y)), y)
    labels, p = refine(x, weights, start, 3)
    assert adjusted_rand_score(y, labels) > 0.97 > adjusted_rand_score(y, start)
    assert p.shape == (len(x), 3) and p.dtype == np.float32
    np.testing.assert_allclose(np.asarray(p.sum(axis=1)).ravel(), 1.0, rtol=1e-5)
    # A sample's candidates are the clusters of its neighbours and its own.
    assert p.nnz < 3 * len(x)
    assert (np.asarray(p.argmax(axis=1)).ravel() == labels).mean() > 0.99


def test_no_cluster_is_emptied():
    x, y = long_clusters()
    weights = sparse_weights(SampleGraph.from_features(x, 8))
    start = y.copy()
    start[:2] = 3  # a cluster of two samples in the middle of others
    labels, _ = refine(x, weights, start, 4)
    assert set(labels.tolist()) == {0, 1, 2, 3}


def test_projection_keeps_the_directions_that_vary():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 20)) + 5.0
    projection = Projection.fit(torch.from_numpy(x.astype(np.float32)))
    assert projection.basis.shape == (20, 3)
    z = projection(torch.from_numpy(x.astype(np.float32)))
    pairs = np.linalg.norm(x[:50, None] - x[None, :50], axis=2)
    np.testing.assert_allclose(np.linalg.norm(z[:50, None] - z[None, :50], axis=2), pairs, atol=1e-3)


@pytest.fixture
def large(monkeypatch):
    """The way for many samples, taken by few."""
    monkeypatch.setattr(consensus, "_MOST_DISTANCES", 0)
    monkeypatch.setattr(consensus, "_MOST_COUNTED", 100)


@pytest.mark.parametrize("dense", [True, False])
def test_consensus_of_many_samples(tmp_path, large, dense, monkeypatch):
    if not dense:
        monkeypatch.setattr(consensus, "_MOST_DENSE", 0)
    x, y = long_clusters(gap=9.0)
    file = tmp_path / "x.npy"
    np.save(file, x)
    model = ConsensusClustering(3, n_neighbors=8, random_state=0).fit(np.load(file, mmap_mode="r"))
    assert adjusted_rand_score(y, model.labels_) > 0.95
    # From a memory map as from an array.
    again = ConsensusClustering(3, n_neighbors=8, random_state=0).fit(x)
    assert np.array_equal(again.labels_, model.labels_)
    assert sp.issparse(model.probabilities_) is not dense
    new, truth = long_clusters(seed=1, gap=9.0)
    assert adjusted_rand_score(truth, model.predict(new)) > 0.95
    model.save(tmp_path / "model")
    opened = load(tmp_path / "model")
    assert np.array_equal(opened.labels_, model.labels_) and np.array_equal(opened.tree_, model.tree_)
    assert np.array_equal(opened.predict(new), model.predict(new))
    difference = opened.probabilities_ - model.probabilities_
    assert abs(difference).max() == 0
    assert model.tree_.shape == (71, 4) and len(model.cut(5)) == len(x)


def test_the_number_of_many_samples_clusters_is_found(large):
    centers = np.random.default_rng(0).normal(size=(12, 8)) * 6
    y = np.repeat(np.arange(12), np.linspace(30, 140, 12).astype(int))
    x = (centers[y] + np.random.default_rng(1).normal(size=(len(y), 8))).astype(np.float32)
    model = ConsensusClustering("auto", n_neighbors=6, random_state=0).fit(x)
    assert model.n_clusters_ == 12 and adjusted_rand_score(y, model.labels_) > 0.99


def test_a_memory_map_is_not_copied_where_scaling_changes_no_neighbours(tmp_path, large):
    x, _ = long_clusters()
    np.save(tmp_path / "x.npy", x)
    rows = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = ConsensusClustering(3, random_state=0).fit(rows)
    assert model.graph_.x.data_ptr() == rows.ctypes.data
