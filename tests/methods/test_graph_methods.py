"""GCSC, GraphMI, DinkNet and DMoN: their mathematics, given edges, batches, new samples, resumed runs."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel
from torch.nn.functional import one_hot
from torch_geometric.data import Data
from torch_geometric.utils import stochastic_blockmodel_graph, to_dense_adj

from graphclust import ConsensusClustering, SampleGraph
from graphclust.datasets import load
from graphclust.graph import NeighborSearch, outlier_scores
from graphclust.methods.dinknet import DinkNet
from graphclust.methods.dmon import DMoN
from graphclust.methods.gcsc import GCSC
from graphclust.methods.graph_contrast import GraphContrastClustering
from graphclust.methods.graphmi import GraphMI
from graphclust.methods.ns4gc import NS4GC
from graphclust.metrics import clustering_accuracy
from graphclust.nn.modularity import soft_modularity
from graphclust.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*clusters were asked for")

TINY: dict[str, Any] = {"latent_dim": 8, "epochs": 3, "random_state": 0}
TINY_MI: dict[str, Any] = TINY | {"autoencoder_channels": [16], "autoencoder_dim": 4, "pretrain_epochs": 3}
TINY_DINK: dict[str, Any] = TINY | {"pretrain_epochs": 4}
DEEP = [
    pytest.param(GraphMI, TINY_MI, id="GraphMI"),
    pytest.param(GraphContrastClustering, TINY, id="GraphContrastClustering"),
    pytest.param(DinkNet, TINY_DINK, id="DinkNet"),
    pytest.param(DMoN, TINY, id="DMoN"),
    pytest.param(NS4GC, TINY, id="NS4GC"),
]


@pytest.fixture(scope="module")
def x(digits: Any) -> np.ndarray:
    return digits[0][:200]


@pytest.fixture(scope="module")
def blocks() -> tuple[Data, np.ndarray]:
    """Three groups of 40, joined within much more often than between; their features alone are not enough."""
    torch.manual_seed(0)
    y = torch.arange(3).repeat_interleave(40)
    edges = stochastic_blockmodel_graph([40] * 3, torch.full((3, 3), 0.02) + 0.23 * torch.eye(3))
    return Data(x=one_hot(y, 3) + torch.randn(120, 3), edge_index=edges), y.numpy()


@pytest.fixture(scope="module")
def cora(data_folder: Path) -> tuple[Data, np.ndarray]:
    data = load("cora", data_folder)
    assert data.x is not None and data.y is not None and data.edge_index is not None
    # Citation papers give each row the sum 1.
    features = data.x / np.maximum(data.x.sum(axis=1, keepdims=True), 1)
    return Data(x=torch.from_numpy(features), edge_index=torch.from_numpy(data.edge_index)), data.y


class TestGCSC:
    @pytest.mark.parametrize(("similarity", "n_features"), [("linear", 6), ("linear", 60), ("rbf", 6)])
    def test_is_the_closed_form(self, similarity: str, n_features: int) -> None:
        """Affinities of the leading directions of the ridge's C, formed with all its N x N numbers."""
        x = np.random.default_rng(0).random((40, n_features)).astype(np.float32)
        model = GCSC(2, n_neighbors=5, n_hops=2, subspace_dim=2, ridge=0.3, similarity=similarity).fit(x)
        dense = model.graph_.normalized()
        a = (
            to_dense_adj(dense.edge_index, edge_attr=dense.edge_weight, max_num_nodes=40)[0]
            .T.double()
            .numpy()
        )
        gram = rbf_kernel(x, gamma=model.used_gamma_) if similarity == "rbf" else x @ x.T
        gram = a @ a @ gram.astype(np.float64) @ a.T @ a.T
        leading = np.sort(np.linalg.eigvalsh(gram))[-5:]
        ridge = 0.3 * leading.mean()
        c = np.linalg.solve(gram + ridge * np.eye(40), gram)
        np.testing.assert_allclose(c, c.T, atol=1e-8)
        values, vectors = np.linalg.eigh((c + c.T) / 2)
        m = vectors[:, -5:] * np.sqrt(values[-5:])
        m /= np.linalg.norm(m, axis=1, keepdims=True)
        found = model.embedding_ @ model.embedding_.T
        np.testing.assert_allclose(found, m @ m.T, atol=2e-3)

    def test_affinity_keeps_the_largest(self, x: np.ndarray) -> None:
        model = GCSC(4, n_affine=7, exponent=3.0, random_state=0).fit(x)
        dense = np.maximum(model.embedding_ @ model.embedding_.T, 0) ** 3
        np.fill_diagonal(dense, 0)
        found = model._affinity(model.embedding_, exclude_own=True).toarray()
        assert ((found > 0).sum(axis=1) <= 7).all()
        np.testing.assert_allclose(np.sort(found, axis=1)[:, -7:], np.sort(dense, axis=1)[:, -7:], atol=1e-5)
        np.testing.assert_allclose(found[found > 0], dense[found > 0], atol=1e-5)

    def test_does_not_depend_on_the_scale(self, x: np.ndarray) -> None:
        one, other = GCSC(4, random_state=0).fit(x), GCSC(4, random_state=0).fit(1000 * x)
        np.testing.assert_allclose(
            one.embedding_ @ one.embedding_.T, other.embedding_ @ other.embedding_.T, atol=1e-2
        )

    def test_samples_of_a_graph_and_new_ones(self, blocks: tuple[Data, np.ndarray]) -> None:
        data, y = blocks
        model = GCSC(3, subspace_dim=1, n_affine=20, random_state=0).fit(data)
        assert clustering_accuracy(y, model.labels_) > 0.9
        assert torch.equal(model.graph_.edge_index, SampleGraph.from_data(data).edge_index)
        np.testing.assert_allclose(model.transform(data), model.embedding_, atol=1e-5)
        np.testing.assert_array_equal(model.predict(data), model.labels_)
        with pytest.raises(ValueError, match="new rows have no place"):
            model.predict(data.x)

    @pytest.mark.parametrize("similarity", ["linear", "rbf"])
    def test_predict(self, similarity: str, x: np.ndarray) -> None:
        model = GCSC(4, similarity=similarity, random_state=0).fit(x)
        np.testing.assert_array_equal(model.predict(x), model.labels_)
        np.testing.assert_allclose(model.transform(x), model.embedding_, atol=1e-4)
        noisy = x + np.random.default_rng(0).normal(0, 0.02, x.shape).astype(np.float32)
        assert (model.predict(noisy) == model.labels_).mean() > 0.9

    @pytest.mark.parametrize("similarity", ["linear", "rbf"])
    def test_too_many_samples_are_refused_before_the_search(
        self, similarity: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def search(*_: Any, **__: Any) -> None:
            raise AssertionError("the graph was built")

        monkeypatch.setattr(SampleGraph, "from_features", search)
        big = np.zeros((20_001, 4), dtype=np.float32)
        with pytest.raises(ValueError, match=r"n_samples=20001 .* max_samples=20000.* GB"):
            GCSC(3, similarity=similarity).fit(big)

    @pytest.mark.parametrize(
        "parameters",
        [{"n_hops": -1}, {"ridge": 0.0}, {"exponent": 0.5}, {"similarity": "cosine"}, {"gamma": -1.0}],
    )
    def test_bad_parameters(self, parameters: dict[str, Any], x: np.ndarray) -> None:
        with pytest.raises(ValueError, match=next(iter(parameters))):
            GCSC(3, **parameters).fit(x)

    def test_one_cluster_and_features_of_zeros(self) -> None:
        assert not GCSC(1, random_state=0).fit(np.eye(20)).labels_.any()
        assert not GCSC(1, n_neighbors=3).fit(np.zeros((20, 3))).labels_.any()

    @pytest.mark.parametrize("features", [np.zeros((20, 3)), 1 + np.arange(20.0)[:, None]])
    def test_rows_that_are_equal_at_length_one(self, features: np.ndarray) -> None:
        with pytest.raises(ValueError, match=rf"equal .*length 1.*n_features = {features.shape[1]}"):
            GCSC(2, n_neighbors=3).fit(features)


class TestDMoN:
    def test_finds_the_blocks_of_a_graph(self, blocks: tuple[Data, np.ndarray]) -> None:
        data, y = blocks
        model = DMoN(3, latent_dim=16, epochs=80, random_state=0).fit(data)
        assert clustering_accuracy(y, model.labels_) > 0.9

    def test_minimises_what_it_says(self, blocks: tuple[Data, np.ndarray]) -> None:
        """The loss of the last epoch is that of C; it ends far below the start's."""
        data, _ = blocks
        options = {"dropout": 0.0, "latent_dim": 16, "random_state": 0}
        model = DMoN(3, epochs=100, **options).fit(data)
        c, graph = torch.from_numpy(model.probabilities_), model.graph_
        found = soft_modularity(c, graph.edge_index, graph.edge_weight)
        last = model.history_[-1]
        assert -last["modularity"] == pytest.approx(float(found), abs=0.01)
        penalty = 3**0.5 / 120 * float(c.sum(dim=0).norm()) - 1
        assert last["collapse"] == pytest.approx(penalty, abs=0.01)
        assert last["loss"] < model.history_[0]["loss"] - 0.3

    def test_batches_know_the_whole_graph(self, blocks: tuple[Data, np.ndarray]) -> None:
        data, y = blocks
        model = DMoN(3, latent_dim=16, epochs=40, batch_size=40, random_state=0).fit(data)
        assert clustering_accuracy(y, model.labels_) > 0.9
        kept = model.model_.modularity
        assert float(kept.frequencies.sum()) == pytest.approx(120, rel=1e-3)
        total = float(model.graph_.edge_weight.sum())
        assert float(kept.degree_sums.sum()) == pytest.approx(total, rel=0.1)

    def test_bad_parameters(self, x: np.ndarray) -> None:
        for parameters in ({"dropout": 1.0}, {"collapse_weight": -1.0}, {"num_neighbors": [5]}):
            with pytest.raises(ValueError, match=next(iter(parameters))):
                DMoN(3, **parameters).fit(x)


class TestDinkNet:
    def test_second_stage_lowers_its_loss_and_dilates(self, x: np.ndarray) -> None:
        options = {"latent_dim": 32, "pretrain_epochs": 40, "random_state": 0}
        model = DinkNet(4, epochs=30, **options).fit(x)
        records = [r for r in model.history_ if r["stage"] == "clustering"]
        assert records[-1]["loss"] < records[0]["loss"]
        assert records[-1]["dilation"] < records[0]["dilation"]
        pretraining = [r["loss"] for r in model.history_ if r["stage"] == "pretraining"]
        assert len(pretraining) == 40 and pretraining[-1] < 0.8 * pretraining[0]

    def test_codes_have_length_one_and_the_nearest_centre(self, x: np.ndarray) -> None:
        model = DinkNet(4, **TINY_DINK).fit(x)
        np.testing.assert_allclose(np.linalg.norm(model.embedding_, axis=1), 1, rtol=1e-5)
        distance = torch.cdist(torch.from_numpy(model.embedding_), model.model_.head.centers.detach())
        np.testing.assert_array_equal(distance.argmin(dim=1).numpy(), model.labels_)


class TestGraphMI:
    def test_the_codes_are_indexed_once(self, x: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        model = GraphMI(4, **TINY_MI).fit(x)
        built, fit = [], NeighborSearch.fit
        monkeypatch.setattr(
            NeighborSearch, "fit", lambda search, rows: built.append(rows) or fit(search, rows)
        )
        first = model.predict_proba(x[:5] + 0.01)
        np.testing.assert_array_equal(model.predict_proba(x[:5] + 0.01), first)
        assert len(built) == 1

    def test_the_graph_is_made_while_the_network_trains_on(self, x: np.ndarray) -> None:
        model = GraphMI(4, **TINY_MI).fit(x)
        for training in (True, False):
            network = model.model_.train(training)
            model._code_graph(network, torch.from_numpy(x))
            assert network.training is training and network.autoencoder.training is training

    def test_graph_is_that_of_the_codes(self, x: np.ndarray) -> None:
        model = GraphMI(4, **TINY_MI).fit(x)
        network = model.model_
        with torch.no_grad():
            codes = network.autoencoder.encode(network.scale(torch.from_numpy(x.copy()))).mean
        torch.testing.assert_close(model.graph_["codes"], codes, atol=1e-5, rtol=1e-4)
        expected = SampleGraph.from_features(model.graph_["codes"], 5)
        assert torch.equal(model.graph_.edge_index, expected.edge_index)
        torch.testing.assert_close(model.graph_.x, torch.from_numpy(x.copy()))
        assert {r["stage"] for r in model.history_} == {"pretraining", "training"}

    def test_given_edges_need_no_auto_encoder(self, x: np.ndarray) -> None:
        graph = SampleGraph.from_features(x, 3)
        model = GraphMI(4, **TINY_MI).fit(Data(x=graph.x, edge_index=graph.edge_index))
        assert torch.equal(model.graph_.edge_index, graph.edge_index)
        assert {r["stage"] for r in model.history_} == {"training"}

    def test_new_samples_have_a_place_in_a_given_sample_graph(self, x: np.ndarray) -> None:
        model = GraphMI(4, **TINY_MI).fit(SampleGraph.from_features(x, 5))
        np.testing.assert_array_equal(model.predict(x[:9]), model.labels_[:9])
        assert model.predict(x[:1] + 0.01).shape == (1,)

    def test_bad_parameters(self, x: np.ndarray) -> None:
        with pytest.raises(TypeError, match="autoencoder_channels"):
            GraphMI(3, autoencoder_channels=16).fit(x)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="n_neighbors=9"):
            GraphMI(3, **TINY_MI, n_neighbors=9).fit(x[:9])


@pytest.mark.parametrize(("method", "parameters"), DEEP)
def test_a_sample_that_is_known_keeps_its_code(
    method: Any, parameters: dict[str, Any], x: np.ndarray
) -> None:
    model = method(4, **parameters).fit(x)
    np.testing.assert_allclose(model.transform(x[:20]), model.embedding_[:20], atol=1e-5)
    np.testing.assert_array_equal(model.predict(x[:20]), model.labels_[:20])


@pytest.mark.parametrize("batch_size", [None, 64])
@pytest.mark.parametrize(("method", "parameters"), DEEP)
def test_a_broken_run_ends_as_an_unbroken_one(
    method: Any,
    parameters: dict[str, Any],
    batch_size: int | None,
    x: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = method(4, batch_size=batch_size, **parameters).fit(x)
    run_epoch, calls = Trainer._run_epoch, []

    def interrupted(*arguments: Any, **named: Any) -> Any:
        if len(calls) == len(whole.history_) - 1:
            raise KeyboardInterrupt
        calls.append(1)
        return run_epoch(*arguments, **named)

    monkeypatch.setattr("graphclust.training.trainer.Trainer._run_epoch", interrupted)
    model = method(4, batch_size=batch_size, checkpoint=tmp_path / "run", **parameters)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x)
    monkeypatch.undo()
    model.fit(x)
    np.testing.assert_array_equal(model.embedding_, whole.embedding_)
    np.testing.assert_array_equal(model.labels_, whole.labels_)
    assert [r["loss"] for r in model.history_] == [r["loss"] for r in whole.history_]


def test_many_new_samples_among_which_are_training_samples_are_written(
    x: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = DinkNet(8, **TINY_DINK).fit(x[:150])
    mixed = x[::-1].copy()
    expected = model.predict(mixed)
    monkeypatch.setattr("graphclust.training.inference.MOST_DENSE", 0)  # as of many samples: sparse tables
    np.testing.assert_array_equal(model.predict(mixed, out=tmp_path / "labels"), expected)


def test_the_largest_probabilities_are_written_whether_samples_repeat_or_not(
    x: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = DMoN(12, **TINY).fit(x[:150])
    monkeypatch.setattr("graphclust.training.inference.MOST_DENSE", 0)
    rows = [4, 9, 30]
    for name, chosen in (("once", rows), ("again", [*rows, 4])):
        model.predict(x[chosen], out=tmp_path / name)
    once, again = (np.load(tmp_path / name / "top_probabilities.npy") for name in ("once", "again"))
    np.testing.assert_allclose(again[:3], once, rtol=1e-6)
    np.testing.assert_allclose(again[3], once[0], rtol=1e-6)
    assert (once.sum(axis=1) < 0.99).all()


def test_samples_attached_to_another_graph_are_not_those_of_the_fit(x: np.ndarray) -> None:
    model = GCSC(5, n_neighbors=8).fit(x)
    order = np.random.default_rng(0).permutation(len(x))
    others = SampleGraph.from_features(x[order], 8).attach(x[:5] + 0.01)
    plain = copy.copy(others)
    del plain.num_old
    expected = model.predict(plain)
    np.testing.assert_array_equal(model.predict(others), expected)
    assert (expected[:200] == model.labels_[order]).mean() > 0.9


@pytest.mark.parametrize("method", [GCSC, ConsensusClustering, DMoN])
def test_normalised_graphs_are_refused(x: np.ndarray, method: Any) -> None:
    graph = SampleGraph.from_features(x, 5).normalized()
    with pytest.raises(ValueError, match=r"normalised graph.*pass the graph it came from"):
        method(3).fit(graph)


def test_features_have_no_place_in_a_graph_of_codes(x: np.ndarray) -> None:
    model = GraphMI(4, **TINY_MI).fit(x[:150])
    for use in (model.graph_.attach, partial(outlier_scores, model.graph_)):
        with pytest.raises(ValueError, match=r"codes of a network.*`predict`"):
            use(x[150:])
    assert outlier_scores(model.graph_).shape == (150,)
    assert model.predict(x[150:]).shape == (50,)


def test_the_first_of_equal_directions_is_not_the_equal_sample(x: np.ndarray) -> None:
    """To the cosine a row and its double are the same; a new sample is the one that it equals."""
    both = np.concatenate([2 * x[:80], x[:80]])
    model = DMoN(4, metric="cosine", scale="none", **TINY).fit(both)
    np.testing.assert_array_equal(model.predict(both), model.labels_)
    assert model._new_samples(both)[1].tolist() == list(range(160))


# Least accuracy: well above k-means (33); narrow networks and short training but for DMoN.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "parameters", "least"),
    [
        pytest.param(GCSC, {}, 0.60, id="GCSC"),
        pytest.param(DMoN, {"epochs": 200, "learning_rate": 1e-2}, 0.40, id="DMoN"),
        pytest.param(NS4GC, {"epochs": 100}, 0.62, id="NS4GC"),
        pytest.param(DinkNet, {"latent_dim": 128, "pretrain_epochs": 50, "epochs": 10}, 0.55, id="DinkNet"),
        pytest.param(GraphMI, {"latent_dim": 128, "epochs": 50}, 0.55, id="GraphMI"),
        pytest.param(
            GraphContrastClustering, {"latent_dim": 128, "epochs": 50}, 0.68, id="GraphContrastClustering"
        ),
    ],
)
def test_cora(method: Any, parameters: dict[str, Any], least: float, cora: tuple[Data, np.ndarray]) -> None:
    data, y = cora
    assert clustering_accuracy(y, method(7, random_state=0, **parameters).fit(data).labels_) > least
