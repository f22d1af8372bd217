"""GraphContrastClustering: its second view against brute force, bags of words, isolated nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import normalize
from torch_geometric.data import Data

from graphclust import GraphContrastClustering
from graphclust.methods.graph_contrast import _found_again
from graphclust.metrics import clustering_accuracy
from graphclust.nn.term_scale import TermScale

TINY: dict[str, Any] = {"latent_dim": 8, "epochs": 3, "random_state": 0, "view": "both"}


@pytest.fixture
def words() -> Data:
    """Sixty documents of four words out of 200, on a ring, and two without edges."""
    generator = np.random.default_rng(0)
    x = np.zeros((62, 200), dtype=np.float32)
    for i in range(62):
        x[i, generator.choice(100, 4, replace=False) + 100 * (i % 2)] = generator.integers(1, 4, 4)
    ring = np.arange(60)
    edges = np.stack([np.concatenate([ring, (ring + 2) % 60]), np.concatenate([(ring + 2) % 60, ring])])
    return Data(x=torch.from_numpy(x), edge_index=torch.from_numpy(edges))


def test_term_weights_are_inverse_document_frequencies(words: Data) -> None:
    assert words.x is not None
    x = words.x.numpy()
    scale = TermScale(200).fit(words.x)
    assert scale.is_terms
    count = (x > 0).sum(axis=0)
    idf = np.where(count > 0, np.log(len(x) / np.maximum(count, 1)), 0.0)
    np.testing.assert_allclose(scale(words.x), normalize(x * idf), atol=1e-6)
    # The scale of a document's counts does not matter.
    np.testing.assert_allclose(scale(3 * words.x), scale(words.x), atol=1e-6)


@pytest.mark.parametrize("change", ["dense", "negative"])
def test_other_features_are_scaled_as_a_whole(change: str) -> None:
    x = torch.rand(50, 30)
    if change == "negative":
        x = x * (torch.rand(50, 30) < 0.03)
        x[0, 0] = -1.0
    scale = TermScale(30).fit(x)
    assert not scale.is_terms
    np.testing.assert_allclose(scale(x), scale.plain(x))


def test_words_keep_their_weights_in_a_file(words: Data, tmp_path: Any) -> None:
    model = GraphContrastClustering(2, n_components=4, **TINY).fit(words)
    opened = GraphContrastClustering.load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(opened.predict(words), model.labels_)
    assert opened.model_.scale.is_terms


def test_second_view_is_the_svd_of_propagated_features(words: Data) -> None:
    model = GraphContrastClustering(2, n_components=4, component_weight=0.5, **TINY).fit(words)
    n = 62
    a = np.eye(n)
    assert words.edge_index is not None
    a[tuple(words.edge_index.numpy())] = 1.0
    degree = a.sum(axis=1)
    a = a / np.sqrt(np.outer(degree, degree))
    scaled = model.model_.scale(words.x).numpy().astype(float)
    h = normalize(a @ a @ scaled)
    v = np.linalg.svd(h, full_matrices=False)[2][:4].T
    expected = 0.5 * normalize(a @ a @ scaled @ v)
    found = model.embedding_[:, 8:]
    # Singular vectors have no sign.
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(model.embedding_[:, :8], axis=1), 1.0, atol=1e-5)


def test_rows_are_sampled_and_columns_taken_in_pieces(words: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = GraphContrastClustering(2, n_components=4, **TINY).fit(words).embedding_
    monkeypatch.setattr("graphclust.methods.graph_contrast._ENTRIES", 62 * 7)
    pieces = GraphContrastClustering(2, n_components=4, **TINY).fit(words).embedding_
    np.testing.assert_allclose(pieces, whole, atol=1e-5)
    monkeypatch.setattr("graphclust.methods.graph_contrast._ROWS", 40)
    sampled = GraphContrastClustering(2, n_components=4, **TINY).fit(words).embedding_
    assert sampled.shape == whole.shape
    assert np.abs(sampled[:, 8:]).max() > 0.1


def test_more_components_than_features(digits: Any) -> None:
    x = digits[0][:120, 20:26]
    model = GraphContrastClustering(3, **TINY).fit(x)
    assert model.embedding_.shape == (120, 8 + 6)


def test_without_the_second_view(words: Data) -> None:
    model = GraphContrastClustering(2, n_components=0, **TINY).fit(words)
    assert model.embedding_.shape == (62, 8)


@pytest.mark.parametrize(
    ("name", "value"), [("n_components", -1), ("component_weight", -0.5), ("view", "all")]
)
def test_bad_parameters(name: str, value: Any, words: Data) -> None:
    parameters: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        GraphContrastClustering(2, **parameters).fit(words)


def test_features_alone_need_components(words: Data) -> None:
    with pytest.raises(ValueError, match="n_components=0: give at least 1"):
        GraphContrastClustering(2, view="features", n_components=0).fit(words)


def four_groups(edges_tell: bool, features_tell: bool, seed: int = 0) -> tuple[Data, np.ndarray]:
    """400 samples in four groups; edges and features of the groups, or noise."""
    generator = np.random.default_rng(seed)
    y = np.repeat(np.arange(4), 100)
    source = generator.integers(400, size=1600)
    target = generator.integers(400, size=1600)
    if edges_tell:
        target = np.where(generator.random(1600) < 0.85, 100 * y[source] + target % 100, target)
    centers = generator.normal(size=(4, 16)) * 1.2 * features_tell
    x = (centers[y] + generator.normal(size=(400, 16))).astype(np.float32)
    edges = np.stack([np.concatenate([source, target]), np.concatenate([target, source])])
    return Data(x=torch.from_numpy(x), edge_index=torch.from_numpy(edges)), y


@pytest.mark.parametrize(
    ("edges_tell", "features_tell", "view"), [(True, False, "edges"), (False, True, "features")]
)
def test_noise_costs_nothing(edges_tell: bool, features_tell: bool, view: str, tmp_path: Any) -> None:
    data, y = four_groups(edges_tell, features_tell)
    model = GraphContrastClustering(4, latent_dim=16, epochs=3, random_state=0).fit(data)
    assert model.view_ == view
    assert clustering_accuracy(y, model.labels_) > 0.9
    together = GraphContrastClustering(4, latent_dim=16, epochs=30, random_state=0, view="both").fit(data)
    assert together.view_ == "both"
    assert clustering_accuracy(y, model.labels_) > clustering_accuracy(y, together.labels_) + 0.1
    # Nothing was trained, the rest of the code is zero, and probabilities are no more certain than they may be.
    assert not any(stage["name"] == "training" for stage in model.history_)
    assert (np.abs(model.embedding_).max(axis=0) == 0).sum() >= 16
    assert 0.5 < model.probabilities_.max(axis=1).mean() < clustering_accuracy(y, model.labels_) + 0.05
    opened = GraphContrastClustering.load(model.save(tmp_path / "model"))
    assert opened.view_ == view
    np.testing.assert_array_equal(opened.predict(data), model.labels_)
    np.testing.assert_allclose(opened.transform(data), model.embedding_, atol=1e-5)


def test_nodes_without_features_are_clustered_by_their_edges() -> None:
    data, y = four_groups(True, False)
    alike = Data(x=torch.ones(400, 1), edge_index=data.edge_index)
    model = GraphContrastClustering(4, latent_dim=16, random_state=0).fit(alike)
    assert model.view_ == "edges" and clustering_accuracy(y, model.labels_) > 0.9


def test_eigenvectors_know_no_other_graph() -> None:
    data, _ = four_groups(True, False)
    model = GraphContrastClustering(4, latent_dim=16, random_state=0, view="edges").fit(data)
    other, _ = four_groups(True, False, seed=1)
    with pytest.raises(ValueError, match="fit a model to that graph, or set view='both'"):
        model.predict(other)
    assert data.edge_index is not None
    weights = torch.rand(data.edge_index.shape[1], generator=torch.Generator().manual_seed(0)) + 0.1
    with pytest.raises(ValueError, match="fit a model to that graph"):
        model.predict(Data(x=data.x, edge_index=data.edge_index, edge_weight=weights))
    # Ends of two edges change places: as many edges, and each node has as many as before.
    source, target = data.edge_index[:, : data.edge_index.shape[1] // 2].clone()
    a, b = 0, int((target != target[0]).nonzero()[0])
    target[[a, b]] = target[[b, a]]
    rewired = torch.stack([torch.cat([source, target]), torch.cat([target, source])])
    with pytest.raises(ValueError, match="fit a model to that graph"):
        model.predict(Data(x=data.x, edge_index=rewired))
    by_features = GraphContrastClustering(4, latent_dim=16, random_state=0, view="features").fit(data)
    assert by_features.predict(other).shape == (400,)


def test_eigenvectors_know_no_graph_with_other_whole_weights() -> None:
    data, y = four_groups(True, False)
    assert data.edge_index is not None
    inside = torch.from_numpy(y)[data.edge_index]
    first, second = (torch.where((inside[0] // d == inside[1] // d), 12.0, 1.0) for d in (1, 2))
    model = GraphContrastClustering(4, latent_dim=16, random_state=0, view="edges")
    model.fit(Data(x=data.x, edge_index=data.edge_index, edge_weight=first))
    with pytest.raises(ValueError, match="fit a model to that graph"):
        model.predict(Data(x=data.x, edge_index=data.edge_index, edge_weight=second))


def test_edges_built_from_features_are_no_second_source(digits: Any) -> None:
    model = GraphContrastClustering(3, latent_dim=8, epochs=3, random_state=0).fit(digits[0][:120])
    assert model.view_ == "both"


def test_clusters_are_found_again_in_codes_that_have_some() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 60)
    noise = rng.normal(size=(180, 5)).astype(np.float32)
    clear = noise + 10 * np.eye(3, 5, dtype=np.float32)[y]
    splits = [rng.random(180) < 0.5 for _ in range(4)]
    assert _found_again(clear, 3, splits) == 1.0
    assert _found_again(noise, 3, splits) < 0.8
    assert _found_again(clear, 3, [np.arange(180) < 2]) == 0.0  # no half to compare


@pytest.mark.parametrize("worse", [True, False])
def test_an_encoder_that_is_found_again_worse_is_left_out(
    words: Data, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, worse: bool
) -> None:
    """The first call is about its codes, the second about the components."""
    scores = iter([0.4, 0.5] if worse else [0.5, 0.4])
    widths = []

    def compared(codes: np.ndarray, n_clusters: int, splits: Any) -> float:
        widths.append(codes.shape[1])
        return next(scores)

    monkeypatch.setattr("graphclust.methods.graph_contrast._found_again", compared)
    monkeypatch.setattr(GraphContrastClustering, "_chosen_view", lambda *_: "both")
    model = GraphContrastClustering(2, n_components=4, **TINY | {"view": "auto"}).fit(words)
    assert widths == [8, 4]
    assert model.view_ == ("components" if worse else "both")
    assert (model.embedding_[:, :8] == 0).all() == worse
    assert (model.embedding_[:, 8:] != 0).any()
    opened = GraphContrastClustering.load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(opened.predict(words), model.labels_)
    assert opened.view_ == model.view_


@pytest.mark.parametrize("view", ["both", "components"])
def test_told_what_to_read_it_does(words: Data, view: str) -> None:
    model = GraphContrastClustering(2, n_components=4, **TINY | {"view": view}).fit(words)
    assert model.view_ == view
    assert bool(model.history_) == (view == "both")  # what does not read the encoder need not train it
