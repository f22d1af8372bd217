"""Rows of two tables as one, and new samples that are read beside a graph's own without a copy of these."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from graphclust import VGDCN, ConsensusClustering, DinkNet, GraphMI, SampleGraph
from graphclust.graph import NeighborSearch
from graphclust.graph.attachment import StackedRows, attach


@pytest.fixture
def rows() -> tuple[StackedRows, Tensor]:
    first, second = torch.arange(21).view(7, 3).float(), -torch.arange(12).view(4, 3).float()
    return StackedRows(first, second), torch.cat([first, second])


def test_rows_are_those_of_the_tables_one_after_the_other(rows: tuple[StackedRows, Tensor]) -> None:
    stacked, together = rows
    assert len(stacked) == 11 and stacked.shape == together.shape and stacked.dtype == torch.float32
    for index in (torch.tensor([10, 0, 7, 6, 6]), torch.tensor([1, 2]), torch.tensor([8]), torch.arange(0)):
        assert torch.equal(stacked[index], together[index])
    for part in (slice(None), slice(2, 5), slice(5, 9), slice(7, 11), slice(9, 30), slice(3, 3)):
        assert torch.equal(stacked[part], together[part])
    for size in (1, 3, 4, 7, 50):
        for found, expected in zip(stacked.split(size), together.split(size), strict=True):
            assert torch.equal(found, expected)
    assert torch.equal(stacked.tensor(), together)


def test_rows_of_two_types_lose_nothing() -> None:
    bytes_, halves = torch.tensor([[7], [255]], dtype=torch.uint8), torch.tensor([[0.5], [-3.0], [300.0]])
    stacked = StackedRows(bytes_, halves)
    assert stacked[torch.tensor([3, 1])].tolist() == [[-3.0], [255.0]]
    assert stacked.tensor().tolist() == [[7.0], [255.0], [0.5], [-3.0], [300.0]]
    whole = StackedRows(bytes_, torch.tensor([[12.0]])).tensor()
    assert whole.dtype == torch.uint8 and whole.tolist() == [[7], [255], [12]]


def test_features_and_lists_of_the_graph_are_not_copied(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x = digits[0]
    graph = SampleGraph.from_features(x[:200], 5)
    stacked, whole = attach(graph, x[200:230]), graph.attach(x[200:230])
    assert stacked.num_nodes == whole.num_nodes == 230 and stacked.num_old == 200
    for name in ("x", "neighbor_index", "neighbor_distance"):
        assert stacked[name].first.data_ptr() == graph[name].data_ptr()
        assert torch.equal(stacked[name].tensor(), whole[name])
    assert torch.equal(stacked.edge_index, whole.edge_index)
    assert torch.equal(stacked.edge_weight, whole.edge_weight)
    assert set(whole.keys()) == {*graph.keys(), "num_old"}


def test_new_samples_of_another_type_keep_their_values(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x = (digits[0] * 15).astype(np.uint8)
    graph = SampleGraph.from_features(x[:200], 5)
    assert graph.attach(x[200:230].astype(np.float32)).x.dtype == torch.uint8
    halves = x[200:230] - np.float32(0.5)
    np.testing.assert_array_equal(graph.attach(halves).x[200:], halves)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (VGDCN, {"pretrain_epochs": 2, "branch_epochs": 2, "epochs": 2, "hidden_channels": (16,)}),
        (DinkNet, {"pretrain_epochs": 2, "epochs": 2, "latent_dim": 8}),
        (GraphMI, {"pretrain_epochs": 2, "epochs": 2, "latent_dim": 8, "autoencoder_channels": (16,)}),
        (ConsensusClustering, {}),
    ],
)
def test_labelling_copies_no_features_and_cuts_no_fractions(
    method: Any,
    parameters: dict[str, Any],
    digits: tuple[np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = (digits[0] * 15).astype(np.uint8)[:300]
    on_bytes = method(4, random_state=0, **parameters).fit(x)
    on_floats = method(4, random_state=0, **parameters).fit(x.astype(np.float32))
    new = (digits[0][300:330] * 15).astype(np.float32) - 0.4
    monkeypatch.setattr(StackedRows, "tensor", lambda rows: pytest.fail("all rows were copied"))
    np.testing.assert_allclose(on_bytes.predict_proba(new), on_floats.predict_proba(new), atol=1e-5)


def test_an_index_is_built_once_for_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often new samples are joined to it; other features have another one, and it goes with its graph."""
    built = []
    fit = NeighborSearch.fit

    def counting(self: NeighborSearch, x: Any) -> NeighborSearch:
        built.append(self.index)
        return fit(self, x)

    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    graph = SampleGraph.from_features(x, 5)
    monkeypatch.setattr(NeighborSearch, "fit", counting)
    first = graph.attach(x[:3] + 0.1)
    again = graph.attach(x[:3] + 0.1)
    assert built == ["exact"]
    assert torch.equal(first.edge_index, again.edge_index)
    graph.x = x.flip(0)
    moved = graph.attach(x[:3] + 0.1)
    assert built == ["exact"] * 2 and not torch.equal(first.neighbor_index[-3:], moved.neighbor_index[-3:])
    held = weakref.ref(graph)
    del graph, first, again, moved
    gc.collect()
    assert held() is None
