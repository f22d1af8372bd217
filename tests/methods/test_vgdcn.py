"""VGDCN from end to end: what it takes, what it finds, what it says about new samples, how it refuses."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import ARMAConv, GATConv, GATv2Conv, TransformerConv

from graphclust import VGDCN, SampleGraph
from graphclust.metrics import evaluate, match_labels
from graphclust.nn import GaussianMixture
from graphclust.training import Trainer

Digits = tuple[np.ndarray, np.ndarray]
Arrays = tuple[np.ndarray, np.ndarray]

# Trains in a tenth of a second: for what does not depend on how well.
TINY: dict[str, Any] = {
    "hidden_channels": (16,),
    "latent_dim": 4,
    "pretrain_epochs": 3,
    "branch_epochs": 3,
    "epochs": 3,
    "random_state": 0,
}
# Finds the digits in three seconds.
SHORT: dict[str, Any] = {
    "hidden_channels": (128, 128, 256),
    "branch_epochs": 15,
    "epochs": 10,
    "random_state": 0,
}
KMEANS = 0.792  # ACC of scikit-learn's k-means on the same digits, the best of 20 starts


@pytest.fixture(scope="module")
def x(digits: Digits) -> np.ndarray:
    return digits[0][:200]


@pytest.fixture(scope="module")
def split(digits: Digits) -> tuple[Arrays, Arrays]:
    """Four fifths of the digits, and the rest."""
    held_out = np.arange(len(digits[0])) % 5 == 2
    x, y = digits
    return (x[~held_out], y[~held_out]), (x[held_out], y[held_out])


@pytest.fixture(scope="module")
def fitted(split: tuple[Arrays, Arrays]) -> VGDCN:
    """Default parameters, on the four fifths; tests only read it."""
    return VGDCN(10, random_state=0).fit(split[0][0])


def arma(in_channels: int, out_channels: int) -> torch.nn.Module:
    return ARMAConv(in_channels, out_channels, act=None)  # its own ReLU would cut the logits off


class TestInputs:
    @pytest.mark.parametrize(
        "convert",
        [
            np.array,
            np.asfortranarray,
            lambda a: a.astype(np.float64),
            lambda a: a.tolist(),
            torch.tensor,
            lambda a: torch.tensor(a, requires_grad=True),
            lambda a: torch.tensor(a).bfloat16(),  # sixteenths have few digits
            pd.DataFrame,
            lambda a: Data(x=torch.tensor(a)),
        ],
    )
    def test_all_kinds_of_arrays_give_the_same(self, convert: Callable[..., Any], x: np.ndarray) -> None:
        expected = VGDCN(5, **TINY).fit(x)
        model = VGDCN(5, **TINY).fit(convert(x))
        np.testing.assert_array_equal(model.labels_, expected.labels_)
        np.testing.assert_array_equal(model.predict(convert(x[:9])), expected.predict(x[:9]))
        np.testing.assert_allclose(model.transform(convert(x[:9])), expected.transform(x[:9]), atol=1e-6)

    def test_8_bit_images_stay_8_bit(self, x: np.ndarray) -> None:
        images = (x * 255).astype(np.uint8)
        model = VGDCN(5, **TINY).fit(images)
        assert model.graph_.x.dtype == torch.uint8
        assert model.graph_.x.data_ptr() == images.ctypes.data, "no copy"
        as_float = VGDCN(5, **TINY).fit(images.astype(np.float32))
        np.testing.assert_allclose(model.probabilities_, as_float.probabilities_, atol=1e-5)
        assert model.sample(3, random_state=0)[0].max() > 2, "samples are in the units of the data"

    @pytest.mark.parametrize("batch_size", [None, 64])
    def test_memory_map(self, batch_size: int | None, x: np.ndarray, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", x)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        model = VGDCN(5, batch_size=batch_size, **TINY).fit(mapped)
        assert model.graph_.x.data_ptr() == mapped.ctypes.data, "no copy"
        np.testing.assert_array_equal(model.labels_, VGDCN(5, batch_size=batch_size, **TINY).fit(x).labels_)

    def test_a_graph_is_taken_as_it_is(self, x: np.ndarray) -> None:
        graph = SampleGraph.from_features(x, 7, metric="cosine")
        model = VGDCN(5, **TINY).fit(graph)
        assert model.graph_ is graph
        assert model.predict(x[:3]).shape == (3,)  # attached by the graph's own metric
        empty = SampleGraph.from_edges(torch.empty(2, 0, dtype=torch.long), x)
        assert VGDCN(5, **TINY).fit(empty).graph_.num_edges == 0
        with pytest.raises(ValueError, match="normalised graph.*pass the graph it came from"):
            VGDCN(5, **TINY).fit(graph.normalized())

    @pytest.mark.parametrize(("symmetrize", "n_edges"), [("union", 398), ("none", 199)])
    def test_edges_of_a_data_object(self, symmetrize: str, n_edges: int, x: np.ndarray) -> None:
        chain = torch.stack([torch.arange(199), torch.arange(1, 200)])
        data = Data(x=torch.tensor(x), edge_index=chain)
        model = VGDCN(5, symmetrize=symmetrize, **TINY).fit(data)
        assert model.graph_.num_edges == n_edges
        np.testing.assert_allclose(model.predict_proba(data), model.probabilities_, atol=1e-6)
        with pytest.raises(ValueError, match="given edges.*pass a PyG Data or a SampleGraph"):
            model.predict(x[:5])

    def test_data_without_features(self) -> None:
        data = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
        with pytest.raises(ValueError, match="X has no x; set X.x"):
            VGDCN(1, **TINY).fit(data)

    def test_parameters_of_the_graph_arrive(self, x: np.ndarray) -> None:
        how = {"n_neighbors": 4, "metric": "cosine", "kernel": "binary", "symmetrize": "mutual"}
        construction = VGDCN(5, **how, **TINY).fit(x).graph_.construction
        assert {name: construction[name] for name in how} == how


class TestResults:
    @pytest.mark.parametrize("batch_size", [None, 64])
    def test_shapes_and_meaning(self, batch_size: int | None, x: np.ndarray) -> None:
        model = VGDCN(5, batch_size=batch_size, **TINY).fit(x)
        assert model.probabilities_.shape == (200, 5)
        np.testing.assert_allclose(model.probabilities_.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(model.probabilities_.argmax(axis=1), model.labels_)
        assert model.labels_.dtype == np.int64
        assert model.embedding_.shape == (200, 4)
        np.testing.assert_array_equal(model.embedding_, model.transform(x))
        assert model.n_features_in_ == 64
        stages = [record["stage"] for record in model.history_]
        assert stages == ["pretraining"] * 3 + ["graph branch"] * 3 + ["clustering"] * 3
        last = model.history_[-1]
        assert last["loss"] == pytest.approx(last["elbo"] + last["kl"], rel=1e-5)

    @pytest.mark.parametrize("batch_size", [None, 64])
    def test_the_same_seed_gives_the_same(self, batch_size: int | None, x: np.ndarray) -> None:
        model = VGDCN(5, batch_size=batch_size, **TINY)
        first = model.fit(x).probabilities_.copy()
        np.testing.assert_array_equal(model.fit(x).probabilities_, first)
        other = VGDCN(5, batch_size=batch_size, **{**TINY, "random_state": np.random.RandomState(1)}).fit(x)
        assert not np.array_equal(other.probabilities_, first)

    def test_global_generators_are_left_alone(self, x: np.ndarray) -> None:
        np.random.seed(3)  # noqa: NPY002 (that state is what must not change)
        random.seed(3)
        torch.manual_seed(3)
        before = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()  # noqa: NPY002
        model = VGDCN(5, batch_size=64, **TINY).fit(x)
        model.predict(x[:5])
        model.sample(3)
        np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
        assert random.getstate() == before[1]
        assert torch.equal(torch.get_rng_state(), before[2])

    def test_features_are_not_changed(self, x: np.ndarray) -> None:
        mine = x.copy()
        VGDCN(5, **TINY).fit(mine).predict(mine)
        np.testing.assert_array_equal(mine, x)


class TestQuality:
    """One-to-one accuracy on all 1,797 digits; labels are read after training, by these tests alone."""

    def accuracy(self, digits: Digits, **parameters: Any) -> float:
        return evaluate(digits[1], VGDCN(10, **parameters).fit(digits[0]).labels_)["ACC"]

    def test_default_parameters(self, digits: Digits) -> None:
        assert self.accuracy(digits, random_state=0) > KMEANS + 0.05

    @pytest.mark.parametrize("conv", ["gcn", "gat", "sage", "gin"])
    def test_each_convolution(self, conv: str, digits: Digits) -> None:
        assert self.accuracy(digits, conv=conv, **SHORT) > 0.8

    @pytest.mark.slow
    def test_mini_batches(self, digits: Digits) -> None:
        assert self.accuracy(digits, batch_size=256, **SHORT) > 0.8

    def test_a_convolution_of_the_user_s(self, digits: Digits) -> None:
        """It starts at random, so it takes longer to learn; it must learn all the same."""
        longer = {**SHORT, "branch_epochs": 60}
        assert self.accuracy(digits, conv=arma, **longer) > 0.8

    @pytest.mark.parametrize("kind", [TransformerConv, GATv2Conv])
    def test_attention_of_pyg_begins_with_the_encoder(self, kind: Any, digits: Digits) -> None:
        assert self.accuracy(digits, conv=kind, **SHORT) > 0.8

    def test_a_branch_that_has_not_learnt_is_told(self, digits: Digits) -> None:
        with pytest.warns(
            UserWarning, match="after 2 epochs the graph branch gives the first clusters.*60 to 120"
        ):
            VGDCN(10, conv=arma, **{**SHORT, "branch_epochs": 2}).fit(digits[0][:300])

    @pytest.mark.parametrize("epsilon", [[0.2, 0.5, 0.7, 0.9], "learn"])
    def test_epsilon(self, epsilon: Any, digits: Digits) -> None:
        model = VGDCN(10, epsilon=epsilon, **SHORT).fit(digits[0])
        assert evaluate(digits[1], model.labels_)["ACC"] > 0.8
        learnt = model.model_.fusion.epsilon
        if epsilon == "learn":
            assert ((learnt > 0) & (learnt < 1)).all()
            assert (learnt != 0.5).all()
        else:
            np.testing.assert_allclose(learnt, epsilon)

    def test_standardised_features(self, digits: Digits) -> None:
        x = digits[0] - digits[0].mean(axis=0)
        model = VGDCN(10, **SHORT).fit(x)
        assert evaluate(digits[1], model.labels_)["ACC"] > 0.8
        error = np.square(model.reconstruct(x) - x).mean()
        assert error < 0.7 * np.square(x).mean()  # the Gaussian decoder, against the mean


class TestThesis:
    def test_parameters(self) -> None:
        model = VGDCN.thesis(10)
        expected = {
            "n_clusters": 10,
            "n_neighbors": 3,
            "bandwidth": "median",
            "epsilon": 0.7,
            "hidden_channels": (500, 500, 2000),
            "latent_dim": 10,
            "delta": 0.01,
            "learning_rate": 1e-3,
            "decay": 0.9,
            "decay_every": 10,
            "epochs": 100,
            "init": "mixture",
            "warm_start": False,
            "target": "latent",
            "conv": "gcn",
        }
        assert {name: model.get_params()[name] for name in expected} == expected
        assert VGDCN.thesis(3, epochs=7).epochs == 7

    def test_runs(self, x: np.ndarray) -> None:
        changes = {name: value for name, value in TINY.items() if name != "branch_epochs"}
        model = VGDCN.thesis(5, **changes).fit(x)
        how = model.graph_.construction
        weight = torch.exp(-(model.graph_["neighbor_distance"].double() ** 2) / how["t"])  # one t for all
        kept = model.graph_.edge_weight.double()
        assert kept.max() == pytest.approx(float(weight.max()), rel=1e-5)
        assert kept.min() == pytest.approx(float(weight.min()), rel=1e-5)
        assert {record["stage"] for record in model.history_} == {"pretraining", "clustering"}
        np.testing.assert_allclose(model.probabilities_.sum(axis=1), 1, atol=1e-5)


class TestScales:
    @pytest.mark.parametrize("scale", ["auto", "minmax", "standard", "none"])
    @pytest.mark.parametrize("factor", [1.0, 255.0])
    def test_outputs_are_in_the_units_of_the_data(self, scale: str, factor: float, x: np.ndarray) -> None:
        longer = {**TINY, "pretrain_epochs": 30, "pretrain_batch_size": 20}
        model = VGDCN(5, scale=scale, **longer).fit(factor * x)
        images = model.reconstruct(factor * x)
        assert images.shape == x.shape
        assert 0.2 * factor < images.mean() < 0.4 * factor  # the digits' own mean is 0.3
        in_range = scale in ("auto", "minmax") or (scale == "none" and factor == 1.0)
        assert model.model_.scale.unit_range == in_range

    def test_scaling_by_a_number_changes_nothing(self, x: np.ndarray) -> None:
        """Pixels from 0 to 1 or from 0 to 256 are the same pictures, also to the automatic scale."""
        small = VGDCN(5, **TINY).fit(x)
        large = VGDCN(5, **TINY).fit(256 * x)
        np.testing.assert_allclose(small.probabilities_, large.probabilities_, atol=1e-4)


class TestEdges:
    """Data that has little to cluster."""

    @pytest.mark.parametrize("init", ["linkage", "mixture"])
    @pytest.mark.parametrize("n_clusters", [1, 2])
    def test_few_clusters(self, n_clusters: int, init: str, x: np.ndarray) -> None:
        model = VGDCN(n_clusters, init=init, **TINY).fit(x)
        assert set(model.labels_) == set(range(n_clusters))
        assert model.predict(x[:4]).max() < n_clusters
        assert model.sample(4)[0].shape == (4, 64)

    @pytest.mark.parametrize("init", ["linkage", "mixture"])
    def test_a_cluster_for_each_sample(self, init: str, x: np.ndarray) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="12 clusters were asked for")
            model = VGDCN(12, init=init, **TINY).fit(x[:12])
        assert model.probabilities_.shape == (12, 12)

    @pytest.mark.parametrize("init", ["linkage", "mixture"])
    @pytest.mark.parametrize("value", [0.0, 0.3, 7.0, -2.0])
    def test_all_samples_equal(self, value: float, init: str) -> None:
        with pytest.warns(UserWarning, match="3 clusters were asked for and 1 hold samples"):
            model = VGDCN(3, init=init, **TINY).fit(np.full((60, 4), value))
        assert len(set(model.labels_)) == 1
        assert np.isfinite(model.probabilities_).all()

    @pytest.mark.parametrize("init", ["linkage", "mixture"])
    def test_equal_samples_share_a_cluster(self, init: str, x: np.ndarray) -> None:
        repeated = np.repeat(x[:3], 20, axis=0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="5 clusters were asked for")
            model = VGDCN(5, init=init, **TINY).fit(repeated)
        assert all(len(set(rows)) == 1 for rows in model.labels_.reshape(3, 20))

    def test_constant_columns(self, x: np.ndarray) -> None:
        wide = np.hstack([x, np.full((200, 3), 0.5, dtype=np.float32)])
        model = VGDCN(5, scale="standard", **TINY).fit(wide)
        assert np.isfinite(model.probabilities_).all()
        assert np.isfinite(model.reconstruct(wide)).all()

    def test_one_feature(self, x: np.ndarray) -> None:
        model = VGDCN(2, **TINY).fit(np.linspace(0, 1, 50)[:, None])
        assert model.embedding_.shape == (50, 4)


class TestRefusals:
    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"n_clusters": 0}, "n_clusters=0 must be at least 1"),
            ({"n_clusters": 201}, "n_samples=200 is smaller than n_clusters=201: ask for fewer clusters"),
            ({"n_neighbors": 200}, "n_neighbors=200 must be between 1 and 199"),
            ({"checkpoint": __file__}, "test_vgdcn.py' is a file: name a folder"),
            ({"n_neighbors": 0}, "n_neighbors=0 must be at least 1"),
            ({"init": "kmeans"}, "init='kmeans'.*'linkage', 'mixture'"),
            ({"target": "z"}, "target='z'.*'graph', 'latent'"),
            ({"conv": "gcnn"}, "conv='gcnn'.*'gcn', 'gat', 'sage', 'gin', or pass a callable"),
            ({"decoder": "poisson"}, "decoder='poisson'.*'auto', 'bernoulli', 'gaussian'"),
            ({"scale": "max"}, "scale='max'.*'auto', 'minmax', 'standard', 'none'"),
            ({"precision": "half"}, "precision='half'.*'auto', '32-true', 'bf16-mixed'"),
            ({"device": "gpu"}, "device='gpu'.*'cpu', 'cuda'"),
            ({"normalization": "both"}, "normalization='both'.*'symmetric', 'row'"),
            ({"metric": "euclid"}, "metric='euclid'.*'euclidean'"),
            ({"kernel": "rbf"}, "kernel='rbf'.*'heat'"),
            ({"symmetrize": "both"}, "symmetrize='both'.*'union'"),
            ({"epsilon": 1.5}, "epsilon is 1.5.*\\[0, 1\\]"),
            ({"epsilon": [0.1, 0.2, 0.3]}, "epsilon holds 3 numbers.* 2 bridges"),
            ({"epsilon": "learned"}, "'learned'.*'learn'"),
            ({"delta": -0.1}, "delta=-0.1 must be at least 0"),
            ({"learning_rate": 0}, "learning_rate=0 must be above 0"),
            ({"epochs": -1}, "epochs=-1 must be at least 0"),
            ({"batch_size": 0}, "batch_size=0 must be at least 1; None"),
            ({"latent_dim": 0}, "latent_dim=0 must be at least 1"),
            ({"hidden_channels": ()}, "hidden_channels is empty"),
            ({"num_neighbors": [5, 5]}, "num_neighbors has 2 numbers.* 3 hops"),
            ({"random_state": "seed"}, "random_state='seed' must be a whole number"),
            ({"random_state": -1}, "random_state=-1 must be a whole number from 0"),
            ({"random_state": np.random.default_rng(0)}, "of a Generator pass a number that it draws"),
        ],
    )
    def test_values(self, parameters: dict[str, Any], message: str, x: np.ndarray) -> None:
        with pytest.raises(ValueError, match=message):
            VGDCN(**{"n_clusters": 3, **TINY, **parameters}).fit(x)

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"n_clusters": 3.0}, "n_clusters=3.0 has type float; pass 3"),
            ({"epochs": "many"}, "epochs='many' has type str"),
            ({"tolerance": "low"}, "tolerance='low' has type str"),
            ({"num_neighbors": 5}, "num_neighbors=5 is no sequence"),
            ({"hidden_channels": 64}, "hidden_channels=64 is no sequence.*in brackets"),
            ({"conv": 3}, "conv=3 is a int, it must be a name or a callable"),
            ({"conv": lambda i, o: "layer"}, "conv\\(64, 16\\) gave a str"),
            ({"checkpoint": 3}, "checkpoint=3 is no path"),
            ({"epsilon": None}, "epsilon=None must be a number in \\[0, 1\\], a list of them or 'learn'"),
        ],
    )
    def test_types(self, parameters: dict[str, Any], message: str, x: np.ndarray) -> None:
        with pytest.raises(TypeError, match=message):
            VGDCN(**{"n_clusters": 3, **TINY, **parameters}).fit(x)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
    def test_no_cuda_device(self, x: np.ndarray) -> None:
        with pytest.raises(ValueError, match="device='cuda'.*no CUDA device; use device='cpu'"):
            VGDCN(3, device="cuda", **TINY).fit(x)

    @pytest.mark.parametrize("name", ["init", "conv", "decoder", "scale", "precision", "normalization"])
    def test_nothing_is_computed_before(
        self, name: str, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A slip in a name must not cost a search over a million samples."""

        def search(*_: Any, **__: Any) -> None:
            raise AssertionError("the graph was built")

        monkeypatch.setattr(SampleGraph, "from_features", search)
        with pytest.raises(ValueError, match=f"{name}='wrong'"):
            VGDCN(3, **{**TINY, name: "wrong"}).fit(x)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_values_that_are_not_finite(self, bad: float, x: np.ndarray) -> None:
        broken = x.copy()
        broken[7, 3] = bad
        for form in (broken, torch.tensor(broken), Data(x=torch.tensor(broken))):
            with pytest.raises(ValueError, match="1 row with NaN or infinity, the first is row 7.*drop|fill"):
                VGDCN(3, **TINY).fit(form)
        model = VGDCN(3, **TINY).fit(x)
        for method in (model.predict, model.transform, model.reconstruct):
            with pytest.raises(ValueError, match="X has 1 row with NaN or infinity, the first is row 7"):
                method(broken)

    def test_bernoulli_decoder_outside_its_range(self, x: np.ndarray) -> None:
        with pytest.raises(ValueError, match=r"values in \[0, 1\].*scale='minmax' or decoder='gaussian'"):
            VGDCN(3, decoder="bernoulli", **TINY).fit(x - 1)
        assert VGDCN(3, decoder="bernoulli", scale="minmax", **TINY).fit(x - 1).labels_.shape == (200,)

    def test_not_fitted(self, x: np.ndarray) -> None:
        model = VGDCN(3)
        for call in (model.predict, model.predict_proba, model.transform, model.reconstruct):
            with pytest.raises(ValueError, match="not fitted"):
                call(x)
        with pytest.raises(ValueError, match="not fitted"):
            model.sample()

    def test_another_number_of_features(self, x: np.ndarray) -> None:
        model = VGDCN(3, **TINY).fit(x)
        for method in (model.predict, model.transform):
            with pytest.raises(ValueError, match="63 features, but VGDCN is expecting 64"):
                method(x[:, 1:])
        narrow = SampleGraph.from_features(x[:, 1:], 5)
        for method in (model.predict, model.transform):
            with pytest.raises(ValueError, match="X.x has 63 features, but 64 were fitted"):
                method(narrow)

    def test_a_loss_that_explodes_is_named(self, x: np.ndarray) -> None:
        with pytest.raises(FloatingPointError, match="lower the learning rate|scale the features"):
            VGDCN(3, **{**TINY, "pretrain_learning_rate": 1e20}).fit(x)

    def test_a_failed_fit_leaves_no_half_a_model(self, x: np.ndarray) -> None:
        model = VGDCN(3, **{**TINY, "pretrain_learning_rate": 1e20})
        with pytest.raises(FloatingPointError):
            model.fit(x)
        with pytest.raises(ValueError, match="not fitted"):
            model.predict(x)


class TestNewSamples:
    def test_samples_that_were_fitted_keep_their_labels(
        self, fitted: VGDCN, split: tuple[Arrays, Arrays]
    ) -> None:
        x = split[0][0]
        np.testing.assert_array_equal(fitted.predict(x), fitted.labels_)
        few = [5, 3, 3, 8]
        np.testing.assert_allclose(fitted.predict_proba(x[few]), fitted.probabilities_[few], atol=1e-5)
        beside_new = np.concatenate([split[1][0][:2], x[few]])
        np.testing.assert_allclose(
            fitted.predict_proba(beside_new)[2:], fitted.probabilities_[few], atol=1e-5
        )
        np.testing.assert_allclose(
            fitted.predict_proba(beside_new)[:2], fitted.predict_proba(split[1][0][:2]), atol=1e-5
        )

    def test_held_out_samples_reach_their_class(self, fitted: VGDCN, split: tuple[Arrays, Arrays]) -> None:
        (_, old_y), (new_x, new_y) = split
        classes = match_labels(old_y, fitted.labels_)
        right = [
            np.mean([classes[label] == true for label, true in zip(labels.tolist(), truth.tolist())])
            for labels, truth in ((fitted.labels_, old_y), (fitted.predict(new_x), new_y))
        ]
        assert right[0] > KMEANS + 0.03
        assert right[1] > right[0] - 0.04  # one standard error of 360 samples is 0.018

    def test_one_at_a_time_or_all_at_once(self, fitted: VGDCN, split: tuple[Arrays, Arrays]) -> None:
        """New samples do not see each other."""
        new = split[1][0][:20]
        together = fitted.predict_proba(new)
        single = np.concatenate([fitted.predict_proba(row[None]) for row in new])
        np.testing.assert_allclose(single, together, atol=1e-5)
        np.testing.assert_allclose(fitted.predict_proba(new[::-1])[::-1], together, atol=1e-5)
        np.testing.assert_array_equal(fitted.predict(new), together.argmax(axis=1))
        np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)

    def test_a_graph_of_new_samples_is_read_as_it_is(
        self, fitted: VGDCN, split: tuple[Arrays, Arrays]
    ) -> None:
        old, new = split[0][0], split[1][0]
        np.testing.assert_allclose(fitted.predict_proba(fitted.graph_), fitted.probabilities_, atol=1e-5)
        attached = fitted.graph_.attach(new)
        both = fitted.predict_proba(attached)
        np.testing.assert_allclose(both[len(old) :], fitted.predict_proba(new), atol=1e-5)
        # Without edges it is no graph, but features.
        loose = Data(x=torch.tensor(new))
        np.testing.assert_array_equal(fitted.predict_proba(loose), fitted.predict_proba(new))
        np.testing.assert_array_equal(fitted.transform(loose), fitted.transform(new))


class TestDecoder:
    def test_samples_of_a_cluster_look_like_it(self, fitted: VGDCN) -> None:
        """Encoded again, and given to the mixture, most drawn images come back to the cluster they were drawn from."""
        for cluster in range(10):
            images, clusters = fitted.sample(40, cluster=cluster, random_state=0)
            assert images.shape == (40, 64) and set(clusters) == {cluster}
            assert images.min() >= 0 and images.max() <= 1
            codes = torch.from_numpy(fitted.transform(images))
            mixture: GaussianMixture = fitted.model_.head
            back = mixture(codes).argmax(dim=1).numpy()
            assert (back == cluster).mean() > 0.5

    def test_clusters_are_drawn_by_their_weights(self, fitted: VGDCN) -> None:
        clusters = fitted.sample(5000, random_state=1)[1]
        weights = fitted.model_.head.log_weights.exp().detach().numpy()
        np.testing.assert_allclose(np.bincount(clusters, minlength=10) / 5000, weights, atol=0.03)

    def test_random_state(self, fitted: VGDCN) -> None:
        first = fitted.sample(5, random_state=0)
        for one, other in zip(first, fitted.sample(5, random_state=0)):
            np.testing.assert_array_equal(one, other)
        assert not np.array_equal(first[0], fitted.sample(5, random_state=1)[0])

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"n_samples": 0}, ValueError, "n_samples=0 must be at least 1"),
            ({"cluster": 10}, ValueError, "cluster=10 must be between 0 and 9"),
            ({"cluster": -1}, ValueError, "cluster=-1 must be between 0 and 9"),
            ({"cluster": "a"}, TypeError, "cluster='a' has type str"),
        ],
    )
    def test_refuses(
        self, arguments: dict[str, Any], error: type[Exception], message: str, fitted: VGDCN
    ) -> None:
        with pytest.raises(error, match=message):
            fitted.sample(**arguments)

    def test_reconstruction_is_better_than_the_mean_image(
        self, fitted: VGDCN, split: tuple[Arrays, Arrays]
    ) -> None:
        old, new = split[0][0], split[1][0]
        error = np.square(fitted.reconstruct(new) - new).mean()
        assert error < 0.5 * np.square(old.mean(axis=0) - new).mean()


class TestCheckpoints:
    PARAMETERS = {**TINY, "pretrain_epochs": 12, "branch_epochs": 12, "epochs": 12, "tolerance": None}

    @pytest.mark.parametrize("batch_size", [None, 64])
    # 5: before the first checkpoint; 11: inside a stage, after one; 12: at its end; 24, 35: in the last stage.
    @pytest.mark.parametrize("epochs_done", [5, 11, 12, 24, 35])
    def test_a_broken_run_ends_as_an_unbroken_one(
        self,
        epochs_done: int,
        batch_size: int | None,
        x: np.ndarray,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        whole = VGDCN(5, batch_size=batch_size, **self.PARAMETERS).fit(x)
        model = VGDCN(5, batch_size=batch_size, checkpoint=tmp_path / "run", **self.PARAMETERS)
        run_epoch, calls = Trainer._run_epoch, []

        def interrupted(*arguments: Any, **named: Any) -> Any:
            if len(calls) == epochs_done:
                raise KeyboardInterrupt
            calls.append(1)
            return run_epoch(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_run_epoch", interrupted)
            with pytest.raises(KeyboardInterrupt):
                model.fit(x)
        assert not hasattr(model, "labels_")

        def counted(*arguments: Any, **named: Any) -> Any:
            calls.append(1)
            return run_epoch(*arguments, **named)

        monkeypatch.setattr(Trainer, "_run_epoch", counted)
        calls.clear()
        model.fit(x)
        assert len(calls) <= 36 - 10 * (epochs_done // 10), "what was done is not done again"
        np.testing.assert_array_equal(model.probabilities_, whole.probabilities_)
        np.testing.assert_array_equal(model.embedding_, whole.embedding_)
        assert [r["loss"] for r in model.history_] == [r["loss"] for r in whole.history_]

    def test_a_finished_run_is_not_repeated(
        self, x: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = VGDCN(5, checkpoint=tmp_path / "run", **TINY).fit(x)

        def never(*_: Any, **__: Any) -> None:
            raise AssertionError("trained again")

        monkeypatch.setattr(Trainer, "_run_epoch", never)
        again = VGDCN(5, checkpoint=tmp_path / "run", **TINY).fit(x)
        np.testing.assert_array_equal(again.probabilities_, first.probabilities_)

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"epsilon": 0.5}, "epsilon"),
            ({"random_state": 1}, "random_state, seed"),
            ({"latent_dim": 3}, "latent_dim"),
            ({"conv": arma}, "conv, network"),
        ],
    )
    def test_another_run_is_refused(
        self, change: dict[str, Any], named: str, x: np.ndarray, tmp_path: Path
    ) -> None:
        VGDCN(5, checkpoint=tmp_path / "run", **TINY).fit(x)
        message = rf"another run \(it differs in {named}\).*another folder, or delete"
        with pytest.raises(ValueError, match=message):
            VGDCN(**{"n_clusters": 5, "checkpoint": tmp_path / "run", **TINY, **change}).fit(x)

    def test_functions_of_one_name_are_told_apart(self, x: np.ndarray, tmp_path: Path) -> None:
        def attention(heads: int) -> Any:
            return lambda i, o: GATConv(i, o, heads=heads, concat=False)

        VGDCN(5, checkpoint=tmp_path / "run", conv=attention(1), **TINY).fit(x)
        with pytest.raises(ValueError, match=r"differs in network\)"):
            VGDCN(5, checkpoint=tmp_path / "run", conv=attention(2), **TINY).fit(x)

    def test_other_data_are_refused(self, x: np.ndarray, tmp_path: Path) -> None:
        VGDCN(5, checkpoint=tmp_path / "run", **TINY).fit(x)
        with pytest.raises(ValueError, match="differs in .*data_digest"):
            VGDCN(5, checkpoint=tmp_path / "run", **TINY).fit(x * 0.9)

    def test_data_that_differ_in_one_value_are_refused(self, x: np.ndarray, tmp_path: Path) -> None:
        other = x.copy()
        other[5, 3] += 0.5
        VGDCN(5, checkpoint=tmp_path / "run", **TINY).fit(x)
        with pytest.raises(ValueError, match="differs in .*data_checksum"):
            VGDCN(5, checkpoint=tmp_path / "run", **TINY).fit(other)

    def test_a_graph_with_other_edges_is_refused(self, x: np.ndarray, tmp_path: Path) -> None:
        edges = torch.tensor([[0, 1], [1, 2]])
        VGDCN(5, checkpoint=tmp_path / "run", **TINY).fit(Data(x=torch.tensor(x), edge_index=edges))
        with pytest.raises(ValueError, match="differs in edge_checksum"):
            VGDCN(5, checkpoint=tmp_path / "run", **TINY).fit(Data(x=torch.tensor(x), edge_index=edges + 3))

    def test_it_needs_a_seed(self, x: np.ndarray, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="random_state=None.*set random_state to a number"):
            VGDCN(5, checkpoint=tmp_path / "run", **{**TINY, "random_state": None}).fit(x)
