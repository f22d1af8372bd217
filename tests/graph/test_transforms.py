import numpy as np
import pytest
import torch
from sklearn.cluster import DBSCAN, SpectralClustering
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsTransformer
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch_geometric.data import Data

from graphclust.graph import FaissNeighbors, KNNSampleGraph, SampleGraph


@parametrize_with_checks([FaissNeighbors(n_neighbors=2), FaissNeighbors(n_neighbors=2, mode="connectivity")])
def test_estimator_checks(estimator, check):
    check(estimator)


@pytest.fixture
def blobs():
    return make_blobs(n_samples=300, centers=4, n_features=6, cluster_std=0.8, random_state=0)


@pytest.mark.parametrize("mode", ["distance", "connectivity"])
@pytest.mark.parametrize(
    ("metric", "p"), [("euclidean", 2), ("manhattan", 2), ("minkowski", 3), ("cosine", 2)]
)
def test_same_matrix_as_scikit_learn(blobs, mode, metric, p):
    x = blobs[0]
    ours = FaissNeighbors(4, mode=mode, metric=metric, p=p).fit(x[:250])
    theirs = KNeighborsTransformer(n_neighbors=4, mode=mode, metric=metric, p=p).fit(x[:250])
    for a, b in (
        (ours.transform(x[250:]), theirs.transform(x[250:])),
        (ours.transform(x[:250]), theirs.transform(x[:250])),
        (ours.fit_transform(x[:250]), theirs.fit_transform(x[:250])),
        (ours.kneighbors_graph(), theirs.kneighbors_graph()),
        (ours.kneighbors_graph(x[250:], 3, "distance"), theirs.kneighbors_graph(x[250:], 3, "distance")),
    ):
        assert a.shape == b.shape and a.nnz == b.nnz and a.format == "csr" and a.dtype == b.dtype
        np.testing.assert_allclose(a.toarray(), b.toarray(), atol=1e-7)
    assert ours.n_samples_fit_ == 250 and ours.n_features_in_ == 6
    for a, b in zip(ours.kneighbors(), theirs.kneighbors(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    assert ours.get_feature_names_out()[1] == "faissneighbors1"


def test_rows_are_sorted_and_start_with_the_sample(blobs):
    x = blobs[0].copy()
    x[20:30] = x[0]
    matrix = FaissNeighbors(5).fit_transform(x)
    assert (matrix.indices.reshape(300, 6)[:, 0] == np.arange(300)).all()
    assert (np.diff(matrix.data.reshape(300, 6), axis=1) >= 0).all()
    assert (np.diff(np.sort(matrix.indices.reshape(300, 6), axis=1), axis=1) > 0).all()


def test_pipelines(blobs):
    x, y = blobs
    spectral = make_pipeline(
        FaissNeighbors(10),
        SpectralClustering(4, affinity="precomputed_nearest_neighbors", n_neighbors=10, random_state=0),
    )
    assert adjusted_rand_score(y, spectral.fit_predict(x)) > 0.9
    dense = make_pipeline(FaissNeighbors(20), DBSCAN(eps=1.5, metric="precomputed"))
    reference = make_pipeline(KNeighborsTransformer(n_neighbors=20), DBSCAN(eps=1.5, metric="precomputed"))
    np.testing.assert_array_equal(dense.fit_predict(x), reference.fit_predict(x))


def test_too_many_neighbours(blobs):
    with pytest.raises(ValueError, match="only 300 samples"):
        FaissNeighbors(300).fit_transform(blobs[0])
    with pytest.raises(ValueError, match="mode='both'"):
        FaissNeighbors(mode="both").fit(blobs[0])
    assert FaissNeighbors(299).fit_transform(blobs[0]).nnz == 300 * 300


def test_pyg_transform(blobs):
    data = Data(x=torch.from_numpy(blobs[0]).float())
    transform = KNNSampleGraph(4, kernel="binary", symmetrize="mutual")
    out = transform(data)
    graph = SampleGraph.from_features(blobs[0].astype(np.float32), 4, kernel="binary", symmetrize="mutual")
    assert data.edge_index is None  # the transform works on a copy
    assert out.edge_index.equal(graph.edge_index) and out.edge_weight.equal(graph.edge_weight)
    assert repr(transform) == "KNNSampleGraph(n_neighbors=4, kernel='binary', symmetrize='mutual')"
    with pytest.raises(ValueError, match="no x"):
        transform(Data(edge_index=out.edge_index))
