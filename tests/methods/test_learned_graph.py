"""LearnedGraphClustering, ConsensusClustering and `cluster`: what is their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, issparse
from sklearn.datasets import load_breast_cancer, load_iris, load_wine, make_blobs
from torch_geometric.data import Data

import graphclust
from graphclust import ConsensusClustering, LearnedGraphClustering, SampleGraph
from graphclust.methods import learned_graph
from graphclust.methods.neighbor_average import Neighbors, sharpened_labels
from graphclust.methods.starts import propagated
from graphclust.metrics import clustering_accuracy
from graphclust.nn.augmentation import RandomNoise
from graphclust.nn.features import ConvFeatures, FeatureClassifier, MLPFeatures
from graphclust.nn.vector_scale import VectorScale
from graphclust.training import Stage
from graphclust.training.batches import BatchSource

SMALL: dict[str, Any] = {
    "channels": (16, 32, 32),
    "part_epochs": 10,
    "epochs": 4,
    "rounds": 1,
    "views": None,
    "random_state": 0,
}
LARGER = {**SMALL, "channels": (24, 48, 96, 96), "part_epochs": 15, "views": "auto"}


@pytest.fixture(scope="module")
def model(digits: Any) -> LearnedGraphClustering:
    return LearnedGraphClustering(10, **LARGER).fit(digits[0].reshape(-1, 8, 8))


class TestLearnedGraph:
    def test_a_failed_fit_leaves_nothing_behind(self, digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(learned_graph, "_LEARNT", 100)
        monkeypatch.setattr(learned_graph, "_LEARNT_PER_CLUSTER", 1)
        model = LearnedGraphClustering(10, **SMALL)
        monkeypatch.setattr(LearnedGraphClustering, "_take_results", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model.fit(digits[0][:300])
        assert not {"_all", "_views", "_n_samples"} & set(vars(model))

    def test_the_learnt_graph_joins_more_of_a_kind(self, model: LearnedGraphClustering, digits: Any) -> None:
        """Than the graph of the pixels, on which the network was trained without labels."""
        x, y = digits

        def share(graph: SampleGraph) -> float:
            source, target = graph.edge_index
            return float((y[source] == y[target]).mean())

        assert share(model.graph_) > share(SampleGraph.from_features(x, n_neighbors=5)) + 0.005
        assert clustering_accuracy(y, model.labels_) > 0.9
        np.testing.assert_allclose(np.linalg.norm(model.embedding_, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(model.probabilities_.sum(axis=1), 1, atol=1e-4)

    def test_training_samples_keep_their_labels(self, model: LearnedGraphClustering, digits: Any) -> None:
        images = digits[0].reshape(-1, 8, 8)
        np.testing.assert_array_equal(model.predict(images), model.labels_)
        np.testing.assert_allclose(model.predict_proba(images[5:9]), model.probabilities_[5:9], atol=1e-5)

    def test_clusters_are_counted_in_the_units_in_which_neighbours_are_near(self) -> None:
        """A column of another unit, which tells nothing, hid them."""
        blobs, _ = make_blobs(1200, centers=[[0, 0], [8, 0], [0, 8]], random_state=0)
        noise = np.random.default_rng(0).normal(scale=1000, size=(1200, 1))
        small = {**SMALL, "hidden_channels": (16,), "part_epochs": 1, "epochs": 1}
        model = LearnedGraphClustering("auto", **small).fit(np.hstack([blobs, noise]))
        assert model.n_clusters_ == 3

    def test_rows_are_read_as_images(self, digits: Any) -> None:
        images = digits[0][:600]
        rows = LearnedGraphClustering(10, **SMALL).fit(images)
        assert rows.image_shape_ == (8, 8, 1)
        pictures = LearnedGraphClustering(10, **SMALL).fit(images.reshape(-1, 8, 8))
        np.testing.assert_array_equal(rows.labels_, pictures.labels_)

    def test_moved_images_keep_their_cluster(self, model: LearnedGraphClustering, digits: Any) -> None:
        pictures = digits[0].reshape(-1, 8, 8)
        turned = torch.nn.functional.pad(torch.from_numpy(pictures.copy()), (1, 0))[
            :, :, :8
        ].numpy()  # a pixel right
        assert (model.predict(turned) == model.labels_).mean() > 0.75
        assert (model.predict(pictures) == model.labels_).mean() > 0.97

    def test_vectors_get_a_fully_connected_network(self, digits: Any) -> None:
        x = digits[0][:, np.random.default_rng(0).permutation(64)]
        model = LearnedGraphClustering(10, **SMALL).fit(x)
        assert model.image_shape_ is None and isinstance(model.model_.features, MLPFeatures)
        assert clustering_accuracy(digits[1], model.labels_) > 0.85

    def test_rounds_end_where_labels_do_not_settle(self, digits: Any, monkeypatch: Any) -> None:
        shares = iter([0.05, 0.03, 0.029, 0.0])

        def unsettled(graph: Any, p: Any, times: int) -> Any:
            """Probabilities that move a given share of the labels on to the next cluster."""
            share = next(shares, None)
            if share is None:
                return p
            labels = current["clusters"].clone()
            moved = round(share * len(labels))
            labels[:moved] = (labels[:moved] + 1) % p.shape[1]
            # Squares over frequencies have their largest entry where a row is sure.
            return torch.nn.functional.one_hot(labels, p.shape[1]).float().numpy()

        current: dict[str, Any] = {}
        taken = LearnedGraphClustering._stages

        def watched(self: Any, model: Any, source: Any, memory: dict[str, Any]) -> Any:
            nonlocal current
            current = memory
            return taken(self, model, source, memory)

        monkeypatch.setattr(LearnedGraphClustering, "_stages", watched)
        monkeypatch.setattr("graphclust.methods.learned_graph.averaged", unsettled)
        few = {**SMALL, "rounds": 6, "part_epochs": 1, "epochs": 1}
        model = LearnedGraphClustering(10, **few).fit(digits[0][:400])
        # 3 % after 5 % is taken, 2.9 % after 3 % is not.
        # So few samples have no parts.
        assert {r["stage"] for r in model.history_} == {"clusters 1", "clusters 2", "clusters 3"}
        assert float(current["ended"]) == pytest.approx(0.029, abs=1.3e-3)

    def test_a_refused_round_is_undone(self, digits: Any, monkeypatch: Any) -> None:
        few = {**SMALL, "part_epochs": 1, "epochs": 2}
        once = LearnedGraphClustering(10, **{**few, "rounds": 1}).fit(digits[0][:600])
        # Any change after the first is too much.
        monkeypatch.setattr("graphclust.methods.rounds.SETTLED", 1e-9)
        monkeypatch.setattr("graphclust.methods.rounds.SETTLING", 1e-9)
        model = LearnedGraphClustering(10, **{**few, "rounds": 4}).fit(digits[0][:600])
        assert "clusters 2" in {record["stage"] for record in model.history_}
        assert "clusters 3" not in {record["stage"] for record in model.history_}
        np.testing.assert_array_equal(model.probabilities_, once.probabilities_)

    def test_goes_on_after_a_kill(self, digits: Any, tmp_path: Path, monkeypatch: Any) -> None:
        x = digits[0][:400]
        parameters = {**SMALL, "rounds": 2, "part_epochs": 3, "epochs": 2, "checkpoint": tmp_path / "run"}
        unbroken = LearnedGraphClustering(10, **{**parameters, "checkpoint": None}).fit(x)
        taken = LearnedGraphClustering._start_clusters
        calls = []

        def killed(self: Any, *args: Any, **kwargs: Any) -> None:
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            taken(self, *args, **kwargs)

        monkeypatch.setattr(LearnedGraphClustering, "_start_clusters", killed)
        with pytest.raises(KeyboardInterrupt):
            LearnedGraphClustering(10, **parameters).fit(x)
        monkeypatch.setattr(LearnedGraphClustering, "_start_clusters", taken)
        resumed = LearnedGraphClustering(10, **parameters).fit(x)
        np.testing.assert_array_equal(resumed.labels_, unbroken.labels_)
        np.testing.assert_allclose(resumed.probabilities_, unbroken.probabilities_, atol=1e-6)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"rounds": 0}, "rounds"),
            ({"channels": 3}, "channels"),
            ({"augmentation": -1.0}, "augmentation"),
            ({"image_shape": (7, 9)}, "image_shape"),
            ({"part_epochs": -1}, "part_epochs"),
        ],
    )
    def test_bad_parameters(self, changes: dict[str, Any], message: str, digits: Any) -> None:
        with pytest.raises((ValueError, TypeError), match=message):
            LearnedGraphClustering(10, **{**SMALL, **changes}).fit(digits[0][:100])


class TestManySamples:
    """More samples than are learnt from: a part is drawn, and the network reads them all."""

    @pytest.fixture
    def pictures(self, digits: Any, tmp_path: Path, monkeypatch: Any) -> Any:
        """A memory map of uint8, as large data are."""
        monkeypatch.setattr(learned_graph, "_LEARNT", 900)
        monkeypatch.setattr(learned_graph, "_LEARNT_PER_CLUSTER", 10)
        path = tmp_path / "pictures.npy"
        np.save(path, np.round(255 * digits[0].reshape(-1, 8, 8)).astype(np.uint8))
        return np.load(path, mmap_mode="r")

    def test_labels_all(self, pictures: Any, digits: Any, tmp_path: Path) -> None:
        read: list[int] = []
        model = LearnedGraphClustering(10, **LARGER, checkpoint=tmp_path / "run")
        taken = LearnedGraphClustering._start_parts

        def watched(self: Any, model: Any, source: Any, memory: Any) -> None:
            read.append(source.n_samples)
            assert source.x.dtype == torch.uint8
            taken(self, model, source, memory)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LearnedGraphClustering, "_start_parts", watched)
            model.fit(pictures)
        assert read == [900]
        assert clustering_accuracy(digits[1], model.labels_) > 0.88
        assert model.labels_.shape == (1797,) and model.probabilities_.shape == (1797, 10)
        assert model.graph_.num_nodes == 1797 and model.embedding_.shape == (1797, 128)
        np.testing.assert_allclose(model.probabilities_.sum(axis=1), 1, atol=1e-5)
        assert not hasattr(model, "_all") and not hasattr(model, "_n_samples")
        # The same part is drawn again, and the end of training is found in the checkpoint.
        again = LearnedGraphClustering(10, **LARGER, checkpoint=tmp_path / "run").fit(pictures)
        np.testing.assert_array_equal(again.labels_, model.labels_)
        with pytest.raises(ValueError, match="another run"):
            LearnedGraphClustering(10, **LARGER, checkpoint=tmp_path / "run").fit(pictures[:1700])
        # New samples, from the estimator and from its file, and into files.
        own = model.predict(pictures)
        assert (own == model.labels_).mean() > 0.97
        model.save(tmp_path / "model")
        opened = graphclust.load(tmp_path / "model")
        np.testing.assert_array_equal(opened.predict(pictures, out=tmp_path / "labels"), own)
        np.testing.assert_array_equal(np.load(tmp_path / "labels" / "labels.npy"), own)

    def test_sparse_probabilities(self, pictures: Any, monkeypatch: Any) -> None:
        """Where N K is large, the five largest of each sample are kept, and the labels stay."""
        few = {**SMALL, "rounds": 2}
        dense = LearnedGraphClustering(10, **few).fit(pictures)
        expected = dense.predict(pictures)
        monkeypatch.setattr("graphclust.training.inference.MOST_DENSE", 1000)
        sparse = LearnedGraphClustering(10, **few).fit(pictures)
        assert issparse(sparse.probabilities_) and (np.diff(sparse.probabilities_.indptr) == 5).all()
        assert (sparse.labels_ == dense.labels_).mean() > 0.98
        assert (sparse.predict(pictures) == expected).mean() > 0.98

    def test_new_samples_are_averaged_with_their_neighbours(self, digits: Any) -> None:
        """As the graph with them attached to it says."""
        x = digits[0]
        generator = torch.Generator().manual_seed(0)
        p, own = torch.rand(1000, 4, generator=generator), torch.rand(60, 4, generator=generator)
        new = torch.as_tensor(x[1000:1060], dtype=torch.float32)
        for options in ({}, {"bandwidth": "median"}, {"kernel": "binary"}):
            graph = SampleGraph.from_features(x[:1000], 5, **options)
            found = Neighbors(graph, p.numpy(), 60).average(new, own)
            attached = BatchSource(graph.attach(new), normalization="row")
            expected = propagated(attached, torch.cat([p, own]), 1)[1000:]
            torch.testing.assert_close(found, expected)

    def test_given_edges_are_all_read(self, pictures: Any) -> None:
        graph = SampleGraph.from_features(pictures.reshape(-1, 64), 4)
        few = {**SMALL, "part_epochs": 1, "epochs": 1}
        model = LearnedGraphClustering(10, **few).fit(Data(x=graph.x, edge_index=graph.edge_index))
        assert model.labels_.shape == (1797,)


class TestConsensus:
    @pytest.mark.parametrize(
        ("data", "least"), [(load_wine, 0.88), (load_breast_cancer, 0.90), (load_iris, 0.85)]
    )
    def test_measurements(self, data: Any, least: float) -> None:
        x, y = data(return_X_y=True)
        model = ConsensusClustering(len(set(y)), random_state=0).fit(x)
        assert clustering_accuracy(y, model.labels_) > least
        assert (model.predict(x) == model.labels_).mean() > 0.95

    def test_tree_and_labels_agree(self, digits: Any) -> None:
        model = ConsensusClustering(10, random_state=0).fit(digits[0])
        coarse, labels = model.cut(2), model.labels_
        # Each of the ten clusters lies in one of the two nearly whole: small groups alone may go elsewhere.
        share = [np.bincount(coarse[labels == j]).max() / (labels == j).sum() for j in range(10)]
        assert min(share) > 0.8

    def test_given_graphs(self, digits: Any) -> None:
        graph = SampleGraph.from_features(digits[0][:300], n_neighbors=4)
        model = ConsensusClustering(5, random_state=0).fit(Data(x=graph.x, edge_index=graph.edge_index))
        assert len(set(model.labels_)) == 5
        with pytest.raises(ValueError, match="no place"):
            model.predict(digits[0][:3])


class TestVectorScale:
    def test_embeddings_are_whitened(self) -> None:
        torch.manual_seed(0)
        x = torch.randn(600, 300) @ torch.diag(torch.linspace(5, 0.1, 300)) + 3
        scale = VectorScale(300).fit(x)
        z = scale(x)
        assert torch.allclose(z.norm(dim=1), torch.ones(600), atol=1e-5)
        covariance = np.cov(x.double().numpy().T, bias=True)
        values, vectors = np.linalg.eigh(covariance)
        expected = (x.double().numpy() - x.double().numpy().mean(0)) @ vectors
        expected = expected / np.sqrt(values + values.mean()) @ vectors.T
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(z.numpy(), expected, atol=1e-4)

    def test_units(self) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(100, 6, generator=generator) * torch.tensor([1e-3, 1.0, 1.0, 50.0, 1e4, 0.0]) + 7
        z = VectorScale(6).fit(x)(x)
        assert torch.allclose(z[:, :5].std(dim=0), torch.ones(5), atol=0.02) and z[:, 5].abs().max() < 1e-3
        same = torch.randn(100, 5, generator=generator) * 3
        z = VectorScale(5).fit(same)(same)
        distance = torch.pdist(z) / torch.pdist(same)
        assert torch.allclose(distance, distance[0].expand_as(distance), rtol=1e-3)  # one factor for all

    def test_constant(self) -> None:
        x = torch.full((20, 4), 2.0)
        assert torch.equal(VectorScale(4).fit(x)(x), torch.zeros(20, 4))


@pytest.mark.parametrize("shape", [(8, 8), (16, 16, 3), (28, 28), (7, 5), (1, 30), (64, 48, 3)])
def test_features_of_any_size(shape: tuple[int, ...]) -> None:
    network = ConvFeatures(shape, (4, 8, 8), 12)
    x = torch.rand(3, int(np.prod(shape)))
    assert network(x).shape == (3, 12)
    assert torch.isfinite(network(x[:1])).all()  # a batch of one


def test_every_split_has_its_own_classifier() -> None:
    features = MLPFeatures(5, (8,), 6)
    network = FeatureClassifier(VectorScale(5), RandomNoise(0.0, 0.0), features, 6, 7, 3, n_splits=4).eval()
    x = torch.randn(9, 5)
    logits = network.part_logits(x)
    assert logits.shape == (9, 4, 7)
    for split in range(4):
        rows = slice(7 * split, 7 * (split + 1))
        alone = network.hidden(x) @ network.parts.weight[rows].T + network.parts.bias[rows]
        torch.testing.assert_close(logits[:, split], alone)


def test_splits_differ_and_seeds_share_none(digits: Any) -> None:
    kept: dict[int, torch.Tensor] = {}

    class Kept(LearnedGraphClustering):
        def _start_parts(self, model: Any, source: Any, memory: dict[str, torch.Tensor]) -> None:
            super()._start_parts(model, source, memory)
            kept[self.random_state] = memory["parts"]

    for seed in (0, 1):
        Kept(10, **{**SMALL, "random_state": seed, "part_epochs": 1, "epochs": 1, "splits": 3}).fit(digits[0])
    columns = torch.cat([kept[0], kept[1]], dim=1).T
    assert columns.shape == (6, len(digits[0]))
    assert len(columns.unique(dim=0)) == 6


def test_one_cycle() -> None:
    stage = Stage("s", lambda m, b: None, 10, 0.5, schedule="one-cycle")  # type: ignore[arg-type,return-value]
    rates = np.array([stage.rate(e) for e in np.linspace(0, 10, 1001)])
    assert rates.max() == pytest.approx(0.5) and rates.argmax() == 300
    assert rates[0] == pytest.approx(0.02) and rates[-1] == pytest.approx(0, abs=1e-12)
    assert (np.diff(rates[:300]) >= 0).all() and (np.diff(rates[300:]) <= 0).all()
    with pytest.raises(ValueError, match="schedule"):
        Stage("s", None, 0, schedule="cosine")


class TestCluster:
    def test_chooses_by_the_data(self, digits: Any) -> None:
        x = digits[0][:300]
        few = {"part_epochs": 1, "epochs": 1, "rounds": 1}
        assert type(graphclust.cluster(x, 5, **few)) is LearnedGraphClustering
        assert type(graphclust.cluster(x.reshape(-1, 8, 8), 5, **few)) is LearnedGraphClustering
        assert type(graphclust.cluster(load_wine().data, 3)) is ConsensusClustering
        shuffled = x[:, np.random.default_rng(0).permutation(64)]
        assert type(graphclust.cluster(shuffled, 5)) is ConsensusClustering
        assert type(graphclust.cluster(x, 5, method="kmeans")) is graphclust.KMeans
        graph = SampleGraph.from_features(x, n_neighbors=4)
        given = Data(x=graph.x, edge_index=graph.edge_index)
        assert type(graphclust.cluster(given, 5, epochs=1)) is graphclust.GraphContrastClustering

    def test_counts_the_clusters(self) -> None:
        x, y = make_blobs(600, 10, centers=4, random_state=0)
        model = graphclust.cluster(x)
        assert model.n_clusters_ == 4 and clustering_accuracy(y, model.labels_) == 1.0

    def test_a_folder_of_images(self, digits: Any, tmp_path: Path) -> None:
        from PIL import Image

        pictures = (digits[0][:120].reshape(-1, 8, 8) * 255).astype(np.uint8)
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / f"{i:03}.png")
        few = {"part_epochs": 1, "epochs": 1, "rounds": 1}
        model = graphclust.cluster(tmp_path, 3, **few)
        assert type(model) is LearnedGraphClustering and len(model.images_.paths) == 120
        np.testing.assert_array_equal(
            model.labels_, graphclust.cluster(pictures / np.float32(255), 3, **few).labels_
        )

    def test_unknown_method(self, digits: Any) -> None:
        with pytest.raises(ValueError, match="dbscan"):
            graphclust.cluster(digits[0], 5, method="dbscan")


def test_a_cluster_that_no_sample_is_in_gets_none() -> None:
    p = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]], dtype=np.float32)
    for table in (p, csr_matrix(p)):
        assert sharpened_labels(table).tolist() == [0, 1]
