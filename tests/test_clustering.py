"""`cluster`: what newcomers hand over, in every form, and what they are told when it cannot be clustered."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from PIL import Image
from sklearn.datasets import load_iris, make_blobs
from torch_geometric.data import Data, HeteroData

import graphclust
from graphclust import datasets
from graphclust.clustering import _needs_reading, few_samples, suitable_method
from graphclust.methods import METHODS

X = load_iris().data


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return graphclust.cluster(X.astype(np.float32), 3).labels_


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x.astype(object),
        lambda x: np.asfortranarray(x),
        lambda x: np.flip(np.flip(x, 1).copy(), 1),
        lambda x: x.astype(">f8"),
        lambda x: torch.tensor(x, requires_grad=True),
        lambda x: pd.DataFrame(x).astype("Float64"),
        lambda x: pd.DataFrame(x, columns=list("abcd")),
        lambda x: x.tolist(),
    ],
    ids=["object", "fortran", "flipped", "big-endian", "gradient", "nullable", "names", "lists"],
)
def test_same_numbers_same_clusters(form: Any, labels: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = graphclust.cluster(form(X), 3)
    np.testing.assert_array_equal(model.labels_, labels)


def test_read_only_features_give_no_warning(labels: np.ndarray) -> None:
    x = X.astype(np.float32)
    x.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(graphclust.cluster(x, 3).labels_, labels)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (sp.csr_matrix(X), "toarray"),
        (np.array([["a", "b"]] * 20), "holds text"),
        (torch.tensor(X).to_sparse(), "to_dense"),
        (pd.DataFrame(X, columns=list("abcd")).assign(kind="setosa"), "'kind'"),
        (np.ma.masked_greater(X, 6), "masked"),
        (np.array([[1.0, None]] * 20, dtype=object), "20 rows with NaN"),
        (np.ones((50, 4)), "at most 1"),
        (HeteroData(), "to_homogeneous"),
        ([[1, 2], [3]], "differ in length"),
        (None, "NoneType: pass features"),
        ({"a": [1.0]}, "dict: pass features"),
        (networkx.karate_club_graph(), "from_networkx"),
    ],
    ids=["sparse", "text", "sparse tensor", "column", "masked", "None", "equal", "hetero", "ragged"]
    + ["nothing", "dict", "networkx"],
)
def test_one_error_that_says_what_to_do(data: Any, message: str) -> None:
    with warnings.catch_warnings(), pytest.raises((TypeError, ValueError), match=message):
        warnings.simplefilter("error")
        graphclust.cluster(data, 3)


NODES, EDGES = torch.zeros(4, 2), torch.tensor([[0, 1], [1, 2]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(x=NODES, edge_index=EDGES.numpy()), r"X\.edge_index is a ndarray.* torch\.as_tensor"),
        (Data(x=NODES.numpy(), edge_index=EDGES), r"X\.x is a ndarray"),
        (
            (NODES, EDGES),
            r"pair of arrays of shapes \[4, 2\] and \[2, 2\].*Data\(x=\.\.\., edge_index=\.\.\.\)",
        ),
    ],
)
@pytest.mark.parametrize("cluster", [graphclust.cluster, lambda data, k: graphclust.GAE(k).fit(data)])
def test_graphs_in_another_form(data: Any, message: str, cluster: Any) -> None:
    with pytest.raises(TypeError, match=message):
        cluster(data, 2)


def test_lists_that_are_no_samples() -> None:
    graph = Data(x=NODES, edge_index=EDGES)
    with pytest.raises(TypeError, match="list of 2 graphs: pass one PyG Data"):
        graphclust.GAE(2).fit([graph, graph])
    with pytest.raises(TypeError, match="list with paths"):
        graphclust.KMeans(2).fit(["a.png", "b.png"])
    with pytest.raises(TypeError, match="X holds text, such as 'a'"):
        graphclust.KMeans(2).fit(np.array([["a", "b"]] * 3))


def test_sparse_columns_of_a_data_frame(labels: np.ndarray) -> None:
    frame = pd.DataFrame(X.astype(np.float32)).astype(pd.SparseDtype(np.float32))
    np.testing.assert_array_equal(graphclust.cluster(frame, 3).labels_, labels)


def test_predict_is_what_fit_said_where_float32_leaves_few_samples() -> None:
    """A cluster that all of its samples would leave stays as it was found, for `predict` as well."""
    x = make_blobs(200, n_features=5, centers=3, random_state=0)[0] + 1e8
    with pytest.warns(UserWarning, match="float32 does not keep"):
        model = graphclust.cluster(x, 3)
        np.testing.assert_array_equal(model.predict(x), model.labels_)
    np.testing.assert_array_equal(model.probabilities_.argmax(axis=1), model.labels_)
    np.testing.assert_allclose(model.probabilities_.sum(axis=1), 1, atol=1e-5)


def test_a_table_of_pyarrow(labels: np.ndarray) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = graphclust.cluster(pyarrow.Table.from_pandas(frame), 3)
    np.testing.assert_array_equal(model.labels_, labels)
    assert list(model.feature_names_in_) == list("abcd")
    np.testing.assert_array_equal(model.predict(pyarrow.Table.from_pandas(frame[:9])), labels[:9])
    with pytest.raises(TypeError, match="not numbers: 'kind'"):
        graphclust.cluster(pyarrow.Table.from_pandas(frame.assign(kind="setosa")), 3)


def test_a_file_is_spoken_of_in_python_s_terms(tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=list("abcd"))
    kinds = frame.assign(kind="setosa")
    gaps, counted = frame.mask(frame > 6), frame.assign(number=np.arange(150))
    remedy = r"pass it without the column, table\.drop\(columns=\['%s'\]\)$"
    for table, column in ((kinds, "kind"), (gaps, "a")):
        table.to_csv(tmp_path / "a.csv", index=False)
        with pytest.raises(ValueError, match=remedy % column):
            graphclust.cluster(tmp_path / "a.csv", 3)
    counted.to_csv(tmp_path / "a.csv", index=False)
    with pytest.warns(UserWarning, match=remedy % "number"):
        graphclust.cluster(str(tmp_path / "a.csv"), 3, method="KMeans")
    np.savez(tmp_path / "a.npz", first=X, second=X[:, :2])
    with pytest.raises(ValueError, match="say with column= which are the features"):
        graphclust.cluster(tmp_path / "a.npz", 3)
    assert graphclust.cluster(tmp_path / "a.npz", 3, column="second", method="KMeans").n_features_in_ == 2


def test_one_vector_a_row() -> None:
    frame = pd.DataFrame({"name": "a", "v": list(X)})
    with pytest.raises(TypeError, match=r"one vector a row, 'v': .*np\.stack\(X\['v'\]\)"):
        graphclust.cluster(frame, 3)
    with pytest.raises(ValueError, match=r"Series with one vector a row: .*np\.stack\(X\)"):
        graphclust.cluster(pd.Series(list(X)), 3)


def test_edges_in_another_form_are_not_overlooked() -> None:
    data = Data(x=torch.rand(20, 4), adj_t=torch.eye(20).to_sparse_csr())
    with pytest.raises(ValueError, match="adj_t"):
        graphclust.cluster(data, 2)
    with pytest.raises(ValueError, match="adj_t"):
        graphclust.SampleGraph.from_data(data)


def test_unknown_parameter_names_the_known_ones() -> None:
    with pytest.raises(TypeError, match=r"ConsensusClustering has no parameter 'epochs'; it has .*n_runs"):
        graphclust.cluster(X, 3, epochs=3)


def test_names_that_were_probably_meant() -> None:
    with pytest.raises(
        ValueError, match=r"method='kmean' is unknown: did you mean KMeans\? Use 'auto' or one of"
    ):
        graphclust.cluster(X, method="kmean")
    with pytest.raises(
        TypeError, match=r"no parameter 'n_neighbor' \(did you mean 'n_neighbors'\?\); it has"
    ):
        graphclust.cluster(X, 3, n_neighbor=4)
    with pytest.raises(ValueError, match=r"metric='euclid' is not known.*\(did you mean 'euclidean'\?\)"):
        graphclust.cluster(X, 3, metric="euclid")
    with pytest.raises(
        TypeError, match="is an instance: pass the class or its name, method='KMeans', and its"
    ):
        graphclust.cluster(X, method=graphclust.KMeans(3))


def test_long_values_are_not_printed_whole() -> None:
    y = np.arange(150) % 3
    with pytest.raises(
        TypeError, match=r"^n_clusters=<ndarray of shape \[150\]> has type ndarray; pass a whole"
    ):
        graphclust.cluster(X, y)
    with pytest.raises(ValueError, match=r"^method=<ndarray of shape \[150\]> is unknown: use 'auto' or"):
        graphclust.cluster(X, method=y)
    for name in ("conv", "epsilon", "hidden_channels"):
        with pytest.raises((TypeError, ValueError)) as caught:
            graphclust.VGDCN(3, **{name: X}).fit(X)
        assert "<ndarray of shape [150, 4]>" in str(caught.value) or len(str(caught.value)) < 200, name
    for name in ("random_state", "n_runs", "metric", "method"):
        with pytest.raises((TypeError, ValueError)) as caught:
            graphclust.cluster(X, 3, **{name: list(range(1000))})
        assert len(str(caught.value)) < 800 and "0, 1, 2" in str(caught.value), name
    with pytest.raises(TypeError, match=r"n_clusters=2\.0 has type float; pass 2$"):
        graphclust.cluster(X, 2.0)


def test_one_cluster_needs_no_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("graphclust.methods.consensus.scaling_runs", None)  # not called
    model = graphclust.cluster(X, 1)
    assert not model.labels_.any() and model.tree_.shape == (0, 4)
    np.testing.assert_array_equal(model.probabilities_, np.ones((150, 1)))
    read = graphclust.load(model.save(tmp_path / "model"))
    for one in (model, read):
        np.testing.assert_array_equal(one.predict_proba(X[:9] + 1), np.ones((9, 1)))
        assert not one.cut(1).any()


@pytest.mark.parametrize("method", ["ConsensusClustering", "KMeans", "AEKMeans"])
def test_equal_samples_are_told_once(method: str) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        graphclust.cluster(np.ones((40, 5)), method=method)
    assert ["all 40 samples of X are equal" in str(warning.message) for warning in said] == [True]


def test_a_method_by_its_class() -> None:
    assert type(graphclust.cluster(X, 3, method=graphclust.KMeans)) is graphclust.KMeans


@pytest.mark.parametrize("n", [2, 3, 7])
def test_few_samples_have_few_neighbours(n: int) -> None:
    model = graphclust.cluster(X[::20][:n], 2)
    assert model.graph_.neighbor_index.shape == (n, n - 1) and len(set(model.labels_)) == 2
    with pytest.raises(ValueError, match="n_neighbors=9"):
        graphclust.cluster(X[:n], 2, n_neighbors=9)
    assert few_samples(METHODS["KMeans"], X[:n]) == {}
    assert few_samples(METHODS["ConsensusClustering"], X) == {}


def test_size_of_images_decides_whatever_their_type() -> None:
    small, large = np.zeros((3, 8, 9, 3)), np.zeros((3, 80, 60, 3))
    for as_is in (small, small.astype(np.uint16), torch.from_numpy(small), small.transpose(0, 3, 1, 2)):
        assert not _needs_reading(as_is) and suitable_method(as_is) == "LearnedGraphClustering"
    for as_is in (large, large.astype(np.uint8), torch.from_numpy(large), large.transpose(0, 3, 1, 2)):
        assert _needs_reading(as_is)


@pytest.mark.parametrize("scale", [1e30, 1e-30, 1e-38])
def test_scale_of_vectors_changes_nothing(scale: float, labels: np.ndarray) -> None:
    found = graphclust.cluster((X * scale).astype(np.float32), 3).labels_
    assert (found == labels).mean() > 0.95


def test_k_means_of_numbers_whose_squares_overflow(digits: Any) -> None:
    x = digits[0][:200]
    small = graphclust.KMeans(4, random_state=0).fit(x)
    large = graphclust.KMeans(4, random_state=0).fit(x * np.float32(2.0**100))
    np.testing.assert_array_equal(small.labels_, large.labels_)
    np.testing.assert_allclose(large.cluster_centers_, small.cluster_centers_ * 2.0**100, rtol=1e-4)
    assert large.inertia_ == pytest.approx(small.inertia_ * 2.0**200, rel=1e-3)


def test_sparse_matrices_are_refused_where_clusters_are_counted() -> None:
    with pytest.raises(TypeError, match="toarray"):
        graphclust.estimate_n_clusters(sp.csr_matrix(X))


def test_digits_that_float32_does_not_keep_are_told() -> None:
    with pytest.warns(UserWarning, match=r"column 0 lies near 1e\+08 and varies by 0\.\d+.*4 of 4 columns"):
        graphclust.KMeans(3, random_state=0).fit(X + 1e8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graphclust.KMeans(3, random_state=0).fit(X + 1e3)
        graphclust.KMeans(3, random_state=0).fit(np.c_[X, np.full(len(X), 1e15)])  # constant: nothing to keep


def test_a_sample_far_from_all_others_is_told() -> None:
    far = X.copy()
    far[7] = 1e6
    for data in (far, Data(x=torch.tensor(far))):
        with pytest.warns(UserWarning, match=r"row 7 lies 2e\+06 .* \(1 of 150 lie over 1,000 times"):
            graphclust.KMeans(3, random_state=0).fit(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        far[7] = 100
        graphclust.KMeans(3, random_state=0).fit(far)


def test_as_many_clusters_as_samples() -> None:
    x = X[::6]
    for method in ("GCSC", "ConsensusClustering", "KMeans", "Agglomerative"):
        labels = graphclust.cluster(x, len(x), method=method).labels_
        assert sorted(labels.tolist()) == list(range(len(x))), method


def test_a_tree_of_equal_samples_says_so() -> None:
    with pytest.raises(ValueError, match="all equal"):
        graphclust.AgglomerativeDensity(3).fit(np.ones((50, 4)))


def test_equal_pictures_are_one_cluster_without_a_word_of_arithmetic() -> None:
    pictures = np.full((30, 20, 20), 90, np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.warns(UserWarning, match="all 30 samples of X are equal"):
            assert not graphclust.cluster(pictures, epochs=2, splits=1).labels_.any()
        with pytest.raises(ValueError, match="all samples are equal"):
            graphclust.cluster(pictures, 3, epochs=2, splits=1)


def test_a_list_of_arrays_that_are_no_rows_is_read_as_images() -> None:
    rng = np.random.default_rng(0)
    several = [rng.integers(0, 255, (10 + n % 3, 12, 3), dtype=np.uint8) for n in range(12)]
    model = graphclust.cluster(several, 2, method="KMeans", features="pixels", size=8)
    assert model.images_.x.shape == (12, 8 * 8 * 3)
    assert _needs_reading(several) and _needs_reading([np.zeros((80, 80))] * 3)
    assert _needs_reading([torch.zeros(3, 80, 80)] * 3)
    assert not _needs_reading([np.zeros((8, 8))] * 3) and not _needs_reading([np.zeros(200)] * 3)
    with pytest.raises(ValueError, match="empty list"):
        graphclust.cluster([])
    with pytest.raises(ValueError, match="one image that can be read"):
        graphclust.cluster([Image.new("L", (9, 9))])


def test_parameters_say_how_images_are_read() -> None:
    def colours(images: np.ndarray) -> np.ndarray:
        return images[:, ::4, ::4].reshape(len(images), -1).astype(np.float32)

    pictures = np.random.default_rng(0).integers(0, 40, (60, 12, 12, 3), dtype=np.uint8)
    for colour in range(3):
        pictures[20 * colour : 20 * colour + 20, :, :, colour] += 200
    model = graphclust.cluster(pictures, 3, features=colours, size=16, mirror="both", cache=None)
    assert model.n_features_in_ == 48
    assert model.images_.settings["mirror"] == "both"
    assert graphclust.metrics.clustering_accuracy(np.repeat([0, 1, 2], 20), model.labels_) == 1
    with pytest.raises(ValueError, match="leave features out"):
        graphclust.cluster(X, 3, features="pixels")
    with pytest.raises(TypeError, match="'features'"):
        graphclust.cluster(
            Data(x=torch.rand(20, 4), edge_index=torch.zeros(2, 0, dtype=torch.long)), 3, features="pixels"
        )


def test_curves_of_a_square_number_of_points_are_no_pictures(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """Near points of a curve are alike, as near pixels are; what lies a row below is not."""
    generator = np.random.default_rng(0)
    time = np.linspace(0, 1, 361)
    waves = np.sin(2 * np.pi * (time * generator.integers(1, 5, (200, 1)) + generator.random((200, 1))))
    assert suitable_method(waves) == "ConsensusClustering"
    assert suitable_method(generator.normal(size=(200, 64)).cumsum(axis=1)) == "ConsensusClustering"
    assert suitable_method(np.repeat(generator.normal(size=(200, 5)), 20, axis=1)) == "ConsensusClustering"
    # With a period of one row: seven weeks, a year of months, days of hours.
    for side in (5, 7, 12, 24):
        time = np.arange(side * side) / side
        forms = np.stack([np.sin(2 * np.pi * time), np.sign(np.sin(2 * np.pi * time)), 2 * (time % 1) - 1])
        for noise in (0.1, 0.3, 0.6):
            periods = forms[generator.integers(0, 3, 300)] + generator.normal(size=(300, side * side)) * noise
            assert suitable_method(periods) == "ConsensusClustering"
    assert suitable_method(digits[0]) == "LearnedGraphClustering"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            np.eye(40)[:, :6].repeat(1, axis=0),
            "40 samples, vectors of 6 entries, clustered by ConsensusClustering",
        ),
        (np.zeros((40, 8, 6)), "40 samples, images of 8 x 6, clustered by LearnedGraphClustering"),
        (
            Data(x=torch.rand(9, 2), edge_index=torch.tensor([[0, 1], [1, 0]])),
            "9 samples with 2 edges, clustered by",
        ),
    ],
)
def test_verbose_tells_what_was_seen(
    data: Any, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ConsensusClustering", "LearnedGraphClustering", "GraphContrastClustering"):
        monkeypatch.setattr(graphclust.methods.METHODS[name], "fit", lambda self, X: self)
    graphclust.cluster(data, 3, verbose=True)
    assert said in capsys.readouterr().err
    graphclust.cluster(data, 3)
    assert not capsys.readouterr().err


def test_rows_taken_for_images_are_named(
    digits: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphclust.LearnedGraphClustering, "fit", lambda self, X: self)
    graphclust.cluster(digits[0][:300], 10, verbose=True)
    assert "rows of 64 entries taken for images of 8 x 8" in capsys.readouterr().err


def test_one_cluster_is_said_aloud() -> None:
    noise = np.random.default_rng(0).normal(size=(300, 5))
    with pytest.warns(UserWarning, match="all 300 samples are in one cluster.*give n_clusters"):
        model = graphclust.cluster(noise)
    assert model.n_clusters_ == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graphclust.cluster(noise, 2)
    # Every method that estimates K says it, not only the one call.
    for model in (
        graphclust.KMeans("auto", random_state=0),
        graphclust.AEKMeans("auto", random_state=0, pretrain_epochs=1),
    ):
        with pytest.warns(UserWarning, match="all 300 samples are in one cluster"):
            model.fit(noise)


def test_a_data_set_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its graph, else its images, else its features; classes are not read."""
    x, y = np.random.default_rng(0).random((12, 16), dtype=np.float32), np.arange(12) % 2
    edges = np.array([[0, 1], [1, 0]])
    seen: list[Any] = []
    monkeypatch.setattr(graphclust.KMeans, "fit", lambda self, data: seen.append(data))
    for parts in ({"x": x}, {"x": x, "images": x.reshape(-1, 4, 4)}, {"x": x, "edge_index": edges}):
        graphclust.cluster(datasets.Dataset("own", "here", y=y, **parts), 2, method="KMeans")
    assert seen[0] is x and seen[1].shape == (12, 4, 4)
    assert isinstance(seen[2], Data) and seen[2].edge_index.tolist() == edges.tolist()
