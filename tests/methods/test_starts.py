"""First labels, and how mixture and graph branch begin with them."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from graphclust import SampleGraph
from graphclust.methods import starts
from graphclust.methods.kmeans import _moved
from graphclust.methods.starts import start_branch, start_centers, start_labels, start_mixture
from graphclust.metrics import evaluate
from graphclust.nn import (
    AutoEncoder,
    AutoEncoderNetwork,
    FeatureScale,
    FusionNetwork,
    GaussianMixture,
    StudentTAssignment,
)
from graphclust.training import BatchSource


@pytest.fixture(scope="module")
def blobs() -> tuple[Tensor, Tensor]:
    """Four groups of 40, 30, 20 and 10 points, far apart."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat_interleave(torch.tensor([40, 30, 20, 10]))
    return torch.randn(100, 4, generator=generator) * 0.1 + 5.0 * torch.eye(4)[labels], labels


def source_of(x: Tensor, n_neighbors: int = 5, normalization: str = "symmetric") -> BatchSource:
    return BatchSource(SampleGraph.from_features(x, n_neighbors), normalization=normalization, seed=3)


@pytest.mark.parametrize("kind", ["linkage", "mixture"])
def test_both_starts_find_groups_that_are_there(kind: str, blobs: tuple[Tensor, Tensor]) -> None:
    x, truth = blobs
    found = start_labels(kind, source_of(x), x, 4)
    assert found.dtype == torch.int64
    assert evaluate(truth.numpy(), found.numpy())["ACC"] == 1.0


def test_unknown_start(blobs: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match="init='kmeans' is not known; choose one of 'linkage', 'mixture'"):
        start_labels("kmeans", source_of(blobs[0]), blobs[0], 4)


def test_linkage_reads_the_graph_and_not_only_the_codes() -> None:
    """Two interleaved rings of points: their edges tell them apart, no mixture of two Gaussians does."""
    angle = torch.linspace(0, 2 * torch.pi, 201)[:200]
    ring = torch.stack([angle.cos(), angle.sin()], dim=1)
    x, truth = torch.cat([ring, 3 * ring]), np.repeat([0, 1], 200)
    source = source_of(x, 4)
    assert evaluate(truth, start_labels("linkage", source, x, 2).numpy())["ACC"] == 1.0
    assert evaluate(truth, start_labels("mixture", source, x, 2).numpy())["ACC"] < 0.9


@pytest.mark.parametrize("kind", ["linkage", "mixture"])
def test_fewer_distinct_samples_than_clusters(kind: str, blobs: tuple[Tensor, Tensor]) -> None:
    """Each distinct sample is a cluster: equal samples stay together, and nothing is said about K-means."""
    x = blobs[0][[0, 50]].repeat_interleave(torch.tensor([30, 20]), dim=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = start_labels(kind, source_of(x), x, 5)
        assert len(labels[:30].unique()) == len(labels[30:].unique()) == 1
        assert labels[0] != labels[-1]
        assert len(start_labels(kind, source_of(torch.ones(20, 3)), torch.ones(20, 3), 3).unique()) == 1
        assert len(start_labels(kind, source_of(torch.zeros(20, 3)), torch.zeros(20, 3), 3).unique()) == 1


def test_samples_that_are_all_joined() -> None:
    """One propagation over a complete graph makes all codes equal; the start falls back on the codes themselves."""
    x = torch.eye(6)
    graph = SampleGraph.from_features(x, 5, kernel="binary")
    labels = start_labels("linkage", BatchSource(graph, normalization="row"), x, 3)
    assert len(labels.unique()) == 3


def test_mixture_has_the_moments_of_the_clusters(blobs: tuple[Tensor, Tensor]) -> None:
    x, labels = blobs
    mixture = GaussianMixture(4, 4)
    shared = start_mixture(mixture, x, labels)
    for cluster in range(4):
        rows = x[labels == cluster]
        torch.testing.assert_close(mixture.centers[cluster].detach(), rows.mean(dim=0), atol=1e-5, rtol=0)
        # The rule, written out: the cluster's own scatter, and ten samples' worth of the shared one.
        own = (rows - rows.mean(dim=0)).square().sum(dim=0)
        expected = (own + 10 * shared) / (len(rows) + 10)
        torch.testing.assert_close(mixture.log_variances[cluster].exp().detach(), expected, rtol=1e-4, atol=0)
    weights = (torch.tensor([40.0, 30.0, 20.0, 10.0]) + 1) / 104
    torch.testing.assert_close(mixture.log_weights.exp().detach(), weights)
    assert torch.equal(mixture(x).argmax(dim=1), labels)


def test_mixture_of_an_empty_cluster_stays_finite(blobs: tuple[Tensor, Tensor]) -> None:
    x, labels = blobs
    mixture = GaussianMixture(6, 4)
    start_mixture(mixture, torch.ones_like(x), labels)
    assert all(torch.isfinite(parameter).all() for parameter in mixture.parameters())


def test_no_table_of_all_samples_and_clusters_is_held(
    blobs: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, labels = blobs

    def started() -> tuple[GaussianMixture, Tensor]:
        torch.manual_seed(0)
        mixture, head = GaussianMixture(4, 4), StudentTAssignment(4, 4)
        start_mixture(mixture, x, labels)
        model = AutoEncoderNetwork(FeatureScale(4), AutoEncoder.mlp(4, (8,), 4), head, 4)
        start_centers(model, source_of(x), 4, x)
        return mixture, model.frequencies.frequencies

    whole, tables = started(), []
    one_hot, in_blocks = starts.one_hot, starts.in_blocks

    def watched(found: Tensor) -> Tensor:
        tables.append(found.numel())
        return found

    monkeypatch.setattr(starts, "_TABLE", 60)
    monkeypatch.setattr(starts, "one_hot", lambda *a: watched(one_hot(*a)))
    monkeypatch.setattr(starts, "in_blocks", lambda *a, **options: watched(in_blocks(*a, **options)))
    parts = started()
    assert len(tables) > 12 and max(tables) <= 60
    torch.testing.assert_close(parts[0].state_dict(), whole[0].state_dict())
    torch.testing.assert_close(parts[1], whole[1])


def test_points_are_moved_without_a_copy_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(1e4, 1.0, size=(50_000, 20)).astype(np.float32)
    origin = x.mean(axis=0, dtype=np.float64)
    monkeypatch.setattr("graphclust.methods.kmeans._BLOCK_VALUES", 1 << 14)
    tracemalloc.start()
    moved = _moved(x, origin)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(moved, (x - origin).astype(np.float32))
    assert peak < 1.2 * moved.nbytes


@pytest.mark.parametrize("conv", ["gcn", "sage", "gin", "gat"])
@pytest.mark.parametrize("n_clusters", [2, 4])
def test_branch_begins_with_the_start_s_labels(
    conv: str, n_clusters: int, blobs: tuple[Tensor, Tensor]
) -> None:
    """Before any training the branch gives most samples the cluster that the start gave them."""
    x, labels = blobs
    labels = labels.clamp_max(n_clusters - 1)
    torch.manual_seed(1)
    model = FusionNetwork(
        FeatureScale(4),
        AutoEncoder.mlp(4, (16,), 8, variational=True),
        GaussianMixture(n_clusters, 8),
        (4, 16, 8, n_clusters),
        conv,
    )
    source = source_of(x)
    start_branch(model, source, model.embed(x).detach(), labels)
    with torch.no_grad():
        logits = model(x, source.full(uses_graph=True).adjacency).logits
    assert (logits.argmax(dim=1) == labels).float().mean() > 0.9


@pytest.mark.parametrize("n_found", [1, 100])
def test_branch_where_no_discriminant_exists(n_found: int, blobs: tuple[Tensor, Tensor]) -> None:
    """One cluster, or a cluster for each sample: nothing to tell apart, or nothing to learn it from."""
    x = blobs[0]
    model = FusionNetwork(
        FeatureScale(4),
        AutoEncoder.mlp(4, (16,), 8, variational=True),
        GaussianMixture(n_found, 8),
        (4, 16, 8, n_found),
    )
    source = source_of(x)
    start_branch(model, source, model.embed(x).detach(), torch.arange(100) % n_found)
    with torch.no_grad():
        assert torch.isfinite(model(x, source.full(uses_graph=True).adjacency).logits).all()
