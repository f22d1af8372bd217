"""Sample graphs that a PyG transform or a user has changed, as methods read them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric.data import Data

from graphclust import GAE, GCSC, ConsensusClustering, SampleGraph
from graphclust.graph import form
from graphclust.graph.form import in_form, is_in_form


@pytest.fixture(scope="module")
def graph() -> SampleGraph:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(90, 5, generator=generator) + 2 * torch.arange(3.0).repeat_interleave(30)[:, None]
    built = SampleGraph.from_features(x, 5)
    built.y = torch.arange(3).repeat_interleave(30)
    return built


def changed(graph: SampleGraph, **values: Any) -> SampleGraph:
    other = copy.copy(graph)
    for name, value in values.items():
        other[name] = value
    return other


def test_what_is_in_form_is_taken_as_it_is(graph: SampleGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_form(graph) is graph
    assert ConsensusClustering(3, random_state=0).fit(graph).graph_ is graph
    no_edges = SampleGraph.from_edges(np.empty((2, 0)), graph.x)
    assert in_form(no_edges) is no_edges
    monkeypatch.setattr(form, "_BLOCK", 7)  # one edge of the block before is seen again
    assert in_form(graph) is graph


def test_loops_are_dropped(graph: SampleGraph) -> None:
    """Propagation adds a loop to each sample, and would add a second one."""
    looped = T.AddSelfLoops(attr="edge_weight")(copy.copy(graph))
    assert isinstance(looped, SampleGraph) and looped.has_self_loops()
    mended = in_form(looped)
    assert torch.equal(mended.edge_index, graph.edge_index)
    assert torch.equal(mended.edge_weight, graph.edge_weight)
    # New samples have a place in it, as in the graph of before.
    assert mended.joins_neighbors and mended.construction == graph.construction
    one, other = (mended.attach(graph.x[:3] + 0.1) for mended in (mended, graph))
    assert torch.equal(one.edge_weight, other.edge_weight)
    assert torch.equal(mended["y"], graph["y"])
    assert looped.has_self_loops()  # the user's own is left alone
    models = [GCSC(3, random_state=0).fit(one) for one in (looped, graph)]
    np.testing.assert_array_equal(models[0].embedding_, models[1].embedding_)


@pytest.mark.parametrize("block", [7, 1 << 20])
def test_edges_are_sorted(block: int, graph: SampleGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form, "_BLOCK", block)
    for order in (torch.arange(graph.num_edges).flip(0), graph.edge_index[0].argsort(stable=True)):
        weight, kind = graph.edge_weight[order], torch.arange(graph.num_edges)
        mended = in_form(
            changed(graph, edge_index=graph.edge_index[:, order], edge_weight=weight, edge_kind=kind)
        )
        assert torch.equal(mended.edge_index, graph.edge_index)
        assert torch.equal(mended.edge_weight, graph.edge_weight)
        assert mended.joins_neighbors
        assert "edge_kind" not in mended  # it names the edges in their old order


def test_repeated_edges_count_once(graph: SampleGraph) -> None:
    for end in (graph.num_edges, 1):
        edges = torch.cat([graph.edge_index, graph.edge_index[:, :end]], dim=1)
        weight = torch.cat([graph.edge_weight, 3 * graph.edge_weight[:end]])
        mended = in_form(changed(graph, edge_index=edges, edge_weight=weight))
        assert torch.equal(mended.edge_index, graph.edge_index)
        assert torch.equal(mended.edge_weight[:end], 3 * graph.edge_weight[:end])
        # Of its weights the kernel knows nothing.
        assert not mended.joins_neighbors and mended.neighbor_index is None
    twice = graph.edge_index[:, :1].repeat(1, 2)
    assert in_form(changed(graph, edge_index=twice, edge_weight=torch.ones(2))).num_edges == 1


def test_missing_weights_are_one(graph: SampleGraph) -> None:
    mended = in_form(changed(graph, edge_weight=None))
    assert torch.equal(mended.edge_weight, torch.ones(graph.num_edges))
    assert not mended.joins_neighbors
    by_attribute = in_form(changed(graph, edge_weight=None, edge_attr=graph.edge_weight[:, None]))
    assert torch.equal(by_attribute.edge_weight, graph.edge_weight)
    assert in_form(SampleGraph(x=graph.x, edge_index=torch.empty((2, 0), dtype=torch.int64))).num_edges == 0
    labels = GCSC(3, random_state=0).fit(changed(graph, edge_weight=None)).labels_
    plain = Data(x=graph.x, edge_index=graph.edge_index)
    np.testing.assert_array_equal(labels, GCSC(3, random_state=0).fit(plain).labels_)


def test_other_types_become_those_of_a_graph(graph: SampleGraph) -> None:
    mended = in_form(
        changed(
            graph,
            x=graph.x.double(),
            edge_index=graph.edge_index.int(),
            edge_weight=graph.edge_weight.double(),
        )
    )
    assert is_in_form(mended) and mended.joins_neighbors
    assert torch.equal(mended.x, graph.x) and torch.equal(mended.edge_weight, graph.edge_weight)


def test_lists_of_other_samples_are_dropped(graph: SampleGraph) -> None:
    mended = in_form(changed(graph, x=torch.cat([graph.x, graph.x[:1]]), edge_index=graph.edge_index.flip(1)))
    assert not mended.joins_neighbors and mended.neighbor_distance is None


@pytest.mark.parametrize("method", [GAE, GCSC, ConsensusClustering])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_bad_weights(value: float, method: Any, graph: SampleGraph) -> None:
    weight = graph.edge_weight.clone()
    weight[3] = value
    with pytest.raises(ValueError, match=r"edge_weight must be finite and at least 0, but that of edge 3"):
        method(3).fit(changed(graph, edge_weight=weight))


@pytest.mark.parametrize(("place", "value"), [((0, 0), -1), ((0, 4), 90), ((1, 0), -2), ((1, -1), 90)])
def test_ends_that_are_no_samples(place: tuple[int, int], value: int, graph: SampleGraph) -> None:
    edges = graph.edge_index.clone()
    edges[place] = value
    with pytest.raises(ValueError, match=f"edge_index names samples from .*{value}"):
        GCSC(3).fit(changed(graph, edge_index=edges))


def test_one_weight_an_edge(graph: SampleGraph) -> None:
    with pytest.raises(ValueError, match="one number an edge"):
        GCSC(3).fit(changed(graph, edge_weight=graph.edge_weight[:-1]))


def test_edges_as_a_sparse_matrix_are_refused(graph: SampleGraph) -> None:
    with pytest.raises(ValueError, match="adj_t"):
        GCSC(3).fit(T.ToSparseTensor(attr="edge_weight")(copy.copy(graph)))


def test_without_edges_the_features_are_joined(graph: SampleGraph) -> None:
    bare = changed(graph, edge_index=None, edge_weight=None)
    labels = GCSC(3, random_state=0).fit(bare).labels_
    np.testing.assert_array_equal(labels, GCSC(3, random_state=0).fit(graph.x).labels_)
