"""Graphs that a user keeps on a GPU: read on the processor, from where batches go to the device, and left in place.

Tensors without values tell devices apart on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch_geometric.data import Data

from graphclust import SDCN
from graphclust.graph import SampleGraph
from graphclust.graph.counting import _graph_of
from graphclust.graph.sample_graph import on_cpu


@pytest.fixture
def graph() -> Iterator[SampleGraph]:
    with FakeTensorMode():
        yield SampleGraph(
            x=torch.empty(4, 2, device="cuda"),
            edge_index=torch.empty(2, 6, dtype=torch.long, device="cuda"),
            edge_weight=torch.empty(6, device="cuda"),
        )


def test_a_copy_is_moved(graph: SampleGraph) -> None:
    graph.construction = {"source": "edges"}
    for found in (on_cpu(graph), _graph_of(graph, 5)):
        assert isinstance(found, SampleGraph) and found.construction == graph.construction
        assert {value.device.type for _, value in found.items()} == {"cpu"}
        assert {value.device.type for _, value in graph.items()} == {"cuda"}


def test_what_is_on_the_processor_is_not_copied() -> None:
    data = Data(x=torch.zeros(3, 2))
    assert on_cpu(data) is data


def test_graph_methods_say_at_once_that_a_device_is_none_for_them() -> None:
    with pytest.raises(ValueError, match="device='mps' has no products of sparse matrices"):
        SDCN(2, device="mps").fit(np.eye(4, dtype=np.float32))
