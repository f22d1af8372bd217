"""GAE, VGAE, DAEGC and DFCN: what is their own; tests/methods/test_recipes.py has what they share with all methods."""

from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

import graphclust
from graphclust import DAEGC, DFCN, GAE, VGAE, SampleGraph
from graphclust.methods.daegc import ProximitySource
from graphclust.metrics import clustering_accuracy
from graphclust.nn import kl_standard_normal, target_distribution
from graphclust.nn.proximity import proximity

SMALL = {"hidden_channels": (32,), "latent_dim": 8, "random_state": 0}
SETTINGS = {
    GAE: SMALL | {"epochs": 15},
    VGAE: SMALL | {"epochs": 15},
    DAEGC: SMALL | {"pretrain_epochs": 10, "epochs": 5},
    DFCN: SMALL
    | {"graph_channels": (32,), "pretrain_epochs": 3, "graph_epochs": 3, "joint_epochs": 3, "epochs": 5},
}
METHODS = list(SETTINGS)


@pytest.fixture(scope="module")
def samples(digits):
    return digits[0][:400], digits[1][:400]


@pytest.fixture(scope="module")
def fitted(samples):
    return {method: method(10, **SETTINGS[method]).fit(samples[0]) for method in METHODS}


@pytest.fixture(scope="module")
def communities():
    """Three groups that only the edges know: 150 samples with random features."""
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(150) % 3
    joined = torch.rand(150, 150, generator=generator) < torch.where(group[:, None] == group, 0.15, 0.01)
    index = joined.triu(1).nonzero().T
    x = torch.rand(150, 12, generator=generator)
    return Data(x=x, edge_index=torch.cat([index, index.flip(0)], dim=1)), group.numpy()


@pytest.mark.parametrize("method", [GAE, VGAE, DAEGC])
@pytest.mark.parametrize("batch_size", [None, 50])
def test_edges_alone_tell_the_groups(method, batch_size, communities):
    data, group = communities
    settings = {"pretrain_epochs": 60, "epochs": 10} if method is DAEGC else {"epochs": 60}
    settings |= {"hidden_channels": (32,), "scale": "standard", "random_state": 0}
    if batch_size is not None:
        settings |= dict.fromkeys(settings.keys() & {"pretrain_epochs", "epochs"}, 20)
    model = method(3, batch_size=batch_size, **settings).fit(data)
    assert clustering_accuracy(group, model.labels_) > 0.8
    # Joined samples have the larger inner products.
    z = torch.from_numpy(model.embedding_)
    product = z @ z.T
    edges = model.graph_.edge_index
    assert product[edges[0], edges[1]].mean() > product.mean() + 0.3


@pytest.mark.parametrize("method", METHODS)
def test_codes_of_training_samples_are_theirs(method, fitted, samples):
    model, x = fitted[method], samples[0]
    np.testing.assert_allclose(model.transform(x), model.embedding_, atol=1e-5)
    np.testing.assert_array_equal(model.predict(x), model.labels_)
    mixed = np.concatenate([x[7:9], x[7:8] + 0.01, x[7:8]])
    codes = model.transform(mixed)
    np.testing.assert_allclose(codes[[0, 1, 3]], model.embedding_[[7, 8, 7]], atol=1e-5)
    np.testing.assert_allclose(
        model.predict_proba(mixed)[[0, 1, 3]], model.probabilities_[[7, 8, 7]], atol=1e-5
    )
    assert not np.allclose(codes[2], codes[0], atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_new_samples_are_read_in_the_graph(method, fitted, digits):
    """A new sample's code depends on the neighbours that it is joined to, not on other new samples."""
    model, new = fitted[method], digits[0][400:450]
    codes = model.transform(new)
    np.testing.assert_allclose(model.transform(new[10:11])[0], codes[10], atol=1e-4)
    alone = model.model_.scale(torch.from_numpy(new.copy()))
    edgeless = SampleGraph.from_edges(torch.empty(2, 0, dtype=torch.int64), alone)
    assert not np.allclose(model._codes(model._source(edgeless, torch.device("cpu")), None), codes, atol=1e-2)
    assert (model.predict(new) == model.predict_proba(new).argmax(axis=1)).all()


@pytest.mark.parametrize("method", METHODS)
def test_codes_are_exact_and_whole(method, fitted):
    """Layer by layer and in blocks, they are those of the training's forward pass."""
    model = fitted[method]
    source = model._source(model.graph_, torch.device("cpu"))
    batch = source.full(uses_graph=True)
    with torch.no_grad():
        if method is DFCN:
            scaled = model.model_.scale(batch.x)
            codes = model.model_(scaled, batch.adjacency, batch.size).fused
        else:
            codes = model.model_.embed(batch.x, batch.adjacency)
    np.testing.assert_allclose(codes.numpy(), model.embedding_, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_loss_falls_and_batches_train(method, samples):
    settings = SETTINGS[method] | {"epochs": 6, "batch_size": 100}
    model = method(10, **settings).fit(samples[0])
    stages: dict = {}
    for record in model.history_:
        stages.setdefault(record["stage"], []).append(record["loss"])
    for stage, losses in stages.items():
        # DEC's target moves while it is followed, so the last stage's loss need not fall.
        if stage != "clustering":
            assert losses[-1] < losses[0], stage
    assert clustering_accuracy(samples[1], model.labels_) > 0.3
    at_once = method(10, **settings | {"batch_size": None}).fit(samples[0])
    assert not np.array_equal(model.embedding_, at_once.embedding_)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("conv", ["sage", "gin", "gat", "gcn"])
def test_takes_every_convolution(method, conv, samples):
    few = dict.fromkeys(
        SETTINGS[method].keys() & {"epochs", "pretrain_epochs", "graph_epochs", "joint_epochs"}, 1
    )
    model = method(4, **SETTINGS[method] | few | {"conv": conv, "batch_size": 60}).fit(samples[0][:120])
    assert np.isfinite(model.embedding_).all() and model.transform(samples[0][200:203]).shape == (3, 8)


class TestVGAE:
    def test_divergence_is_weighed_by_the_pairs(self, samples):
        model = VGAE(3, **SMALL, epochs=1, learning_rate=1e-12, precision="32-true").fit(samples[0])
        batch = model._source(model.graph_, torch.device("cpu")).full(uses_graph=True)
        with torch.no_grad():
            mean, log_variance = model.model_.encode(batch.x, batch.adjacency).chunk(2, dim=1)
        expected = kl_standard_normal(mean, log_variance).sum() / 400**2
        assert model.history_[0]["kl"] == pytest.approx(float(expected), rel=1e-4)

    def test_codes_are_drawn_in_training_and_means_afterwards(self, fitted):
        model = fitted[VGAE]
        assert model.embedding_.shape == (400, 8)
        source = model._source(model.graph_, torch.device("cpu"))
        batch = source.full(uses_graph=True)
        model.model_.edges = model._edges(source)  # which training alone has
        draws = [float(model._loss(model.model_, batch).terms["edges"].detach()) for _ in range(2)]
        assert draws[0] != draws[1]


class TestDAEGC:
    def test_how_long_to_pretrain(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By where the edges come from, if nothing is said."""
        from graphclust.methods import daegc

        monkeypatch.setattr(daegc, "_EPOCHS_GIVEN", 2)
        monkeypatch.setattr(daegc, "_EPOCHS_NEAREST", 3)
        x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
        nearest = SampleGraph.from_features(x, 4)
        given = SampleGraph.from_edges(nearest.edge_index, x)
        for graph, pretrain_epochs, expected in ((given, "auto", 2), (nearest, "auto", 3), (given, 1, 1)):
            settings = SETTINGS[DAEGC] | {"pretrain_epochs": pretrain_epochs, "epochs": 1}
            model = DAEGC(3, **settings).fit(graph)
            assert [row["stage"] for row in model.history_].count("pretraining") == expected
        with pytest.raises(ValueError, match="pretrain_epochs"):
            DAEGC(3, pretrain_epochs="long").fit(x)

    def test_source_has_the_proximity_and_the_edges(self, samples):
        graph = SampleGraph.from_features(samples[0][:100], 4)
        source = ProximitySource(graph, hops=2, normalization="row", num_neighbors=[-1, -1])
        index, weight, diagonal = proximity(graph.edge_index, graph.edge_weight, 100, 2)
        assert torch.equal(source.graph.edge_index, index)
        assert source.weights[0].equal(weight) and source.weights[1].equal(diagonal)
        kept = source.graph.edge_weight > 0
        order = torch.argsort(graph.edge_index[1] * 100 + graph.edge_index[0])
        assert torch.equal(index[:, kept], graph.edge_index[:, order])
        assert torch.equal(source.graph.edge_weight[kept], graph.edge_weight[order])
        assert kept.sum() < len(kept) / 2  # the second hop is most of it
        # In sampled batches the weights of all neighbours still add up to 1 on average: rows of M are distributions.
        source = ProximitySource(graph, hops=2, normalization="row", num_neighbors=[3])
        sums = torch.zeros(100)
        for epoch in range(60):
            for batch in source.epoch(epoch, 20, uses_graph=True):
                part = batch.adjacency
                of_each = part.self_weight.clone()
                of_each.index_add_(0, part.edge_index[1], part.propagation_weight)
                sums[batch.index] += of_each[: batch.size] / 60
        assert abs(float(sums.mean()) - 1) < 0.02

    def test_keeps_the_graph_as_it_was(self, samples, tmp_path):
        graph = SampleGraph.from_features(samples[0], 3)
        model = DAEGC(10, **SETTINGS[DAEGC]).fit(graph)
        assert model.graph_ is graph
        read = graphclust.load(model.save(tmp_path / "model"))
        assert torch.equal(read.graph_.edge_index, graph.edge_index)
        np.testing.assert_array_equal(read.predict(graph), model.labels_)
        other = DAEGC(10, **SETTINGS[DAEGC] | {"hops": 1}).fit(graph)
        assert not np.allclose(other.embedding_, model.embedding_, atol=1e-2)

    def test_the_target_sharpens(self, samples):
        """Assignments grow surer than they are at the start, and than the edges alone make them."""
        settings = SETTINGS[DAEGC] | {"learning_rate": 5e-3}
        runs = [
            DAEGC(10, **settings | changes).fit(samples[0])
            for changes in ({"epochs": 0}, {"epochs": 30, "gamma": 0.0}, {"epochs": 30, "gamma": 100.0})
        ]
        assert [r["stage"] for r in runs[2].history_] == ["pretraining"] * 10 + ["clustering"] * 30
        start, edges, both = (float(run.probabilities_.max(axis=1).mean()) for run in runs)
        assert both > 1.05 * start and both > 1.05 * edges


class TestDFCN:
    def test_saved_over_an_older_one(self, fitted, tmp_path):
        for _ in range(2):
            fitted[DFCN].save(tmp_path / "model")
        np.testing.assert_array_equal(graphclust.load(tmp_path / "model").labels_, fitted[DFCN].labels_)

    def test_stages(self, fitted):
        stages = [record["stage"] for record in fitted[DFCN].history_]
        assert list(dict.fromkeys(stages)) == ["pretraining", "graph", "joint", "clustering"]
        assert {"reconstruction", "input", "graph", "kl"} < fitted[DFCN].history_[-1].keys()

    def test_graph_stage_leaves_the_auto_encoder_alone(self, samples):
        settings = SETTINGS[DFCN] | {"joint_epochs": 0, "epochs": 0}
        few, more = (DFCN(4, **settings | {"graph_epochs": n}).fit(samples[0][:100]) for n in (0, 3))
        for (name, a), b in zip(few.model_.named_parameters(), more.model_.parameters(), strict=True):
            same = not name.startswith(("encoder.", "decoder.", "head."))
            assert torch.equal(a, b) == same, name

    def test_one_target_for_three_assignments(self, fitted):
        model = fitted[DFCN]
        network = model.model_
        batch = model._source(model.graph_, torch.device("cpu")).full(uses_graph=True)
        codes = network(network.scale(batch.x), batch.adjacency, batch.size)
        q = [network.head(z).exp() for z in (codes.fused, codes.attributes, codes.structure)]
        p = target_distribution(q[0])
        expected = 10 * (p * (p / (q[0] * q[1] * q[2]) ** (1 / 3)).log()).sum() / 400
        found = model._loss(network, batch).terms["kl"]
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)

    def test_keys_travel(self, fitted, samples, tmp_path):
        model = fitted[DFCN]
        assert model.keys_.shape == (400, 8)
        read = graphclust.load(model.save(tmp_path / "model"))
        assert torch.equal(read.keys_, model.keys_)
        batched = DFCN(10, **SETTINGS[DFCN] | {"batch_size": 90}).fit(samples[0])
        assert batched.keys_.shape == (90, 8) and len(batched.keys_.unique(dim=0)) == 90
        (tmp_path / "model" / "keys.safetensors").unlink()
        with pytest.raises(ValueError, match="cannot be read"):
            graphclust.load(tmp_path / "model")

    def test_reconstructs(self, samples):
        settings = SETTINGS[DFCN] | {
            "pretrain_epochs": 30,
            "joint_epochs": 30,
            "pretrain_learning_rate": 5e-3,
        }
        decoded = DFCN(10, **settings).fit(samples[0]).reconstruct(samples[0][:20])
        assert decoded.shape == (20, 64)
        assert np.square(decoded - samples[0][:20]).mean() < 0.9 * samples[0].var(axis=0).mean()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (GAE(4, num_neighbors=[5, 5]), "num_neighbors has 2 numbers, it must have one for each of the 3"),
        (GAE(4, hidden_channels=(0,)), "hidden_channels=0"),
        (GAE(4, learning_rate=0.0), "learning_rate=0.0"),
        (GAE(4, weight_decay=-1.0), "weight_decay=-1.0"),
        (VGAE(4, latent_dim=0), "latent_dim=0"),
        (DAEGC(4, hops=0), "hops=0"),
        (DAEGC(4, gamma=-1), "gamma=-1"),
        (DAEGC(4, pretrain_epochs=-1), "pretrain_epochs=-1"),
        (DFCN(4, kl_weight=-1), "kl_weight=-1"),
        (DFCN(4, joint_epochs=-1), "joint_epochs=-1"),
        (DFCN(4, conv="gnc"), "conv='gnc'"),
        (DFCN(4, num_neighbors=[5] * 5), "num_neighbors has 5 numbers, .* each of the 7 hops"),
    ],
)
def test_bad_parameters(model, message, samples):
    with pytest.raises(ValueError, match=message):
        model.fit(samples[0][:50])


def test_widths_in_no_brackets(samples):
    with pytest.raises(TypeError, match=r"hidden_channels=64 is no sequence.*\(256,\)"):
        GAE(4, hidden_channels=64).fit(samples[0][:50])


def test_batches_of_daegc_are_sampled_by_as_many_processes_as_asked_for(samples):
    model = DAEGC(10, num_workers=3, **SETTINGS[DAEGC])
    graph = SampleGraph.from_features(samples[0][:100], 5)
    assert model._source(graph, torch.device("cpu")).num_workers == 3


@pytest.mark.parametrize("method", [GAE, DAEGC])
def test_bags_of_words_have_rows_of_length_1(method: Any) -> None:
    """A document that says everything twice is the same document."""
    generator = np.random.default_rng(0)
    x = (generator.random((60, 200)) < 0.03).astype(np.float32)
    x[:, 0] += x.sum(axis=1) == 0
    ring = np.arange(60)
    edges = torch.from_numpy(np.stack([np.r_[ring, (ring + 1) % 60], np.r_[(ring + 1) % 60, ring]]))
    times = generator.integers(1, 5, (60, 1)).astype(np.float32)
    model, other = (
        method(3, epochs=3, random_state=0, precision="32-true").fit(
            Data(x=torch.from_numpy(rows), edge_index=edges)
        )
        for rows in (x, times * x)
    )
    length = np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(model.model_.scale(torch.from_numpy(x)), x / length, atol=1e-6)
    np.testing.assert_allclose(model.embedding_, other.embedding_, atol=1e-3)


def test_edges_that_all_weigh_nothing(communities):
    data = communities[0].clone()
    data.edge_weight = torch.zeros(data.edge_index.shape[1])
    model = DAEGC(3, hidden_channels=(8,), latent_dim=4, pretrain_epochs=1, epochs=1, random_state=0).fit(
        data
    )
    assert model.labels_.shape == (150,)
