"""Neighbour sampling: exact properties, the distribution against slow twins, rescaling, loading, errors."""

from __future__ import annotations

import copy
import os
import pickle
import random
from itertools import combinations

import numpy as np
import pytest
import torch
import torch_geometric.typing as pyg_typing
from scipy.stats import chi2, chi2_contingency
from torch_geometric.data import Data
from torch_geometric.sampler import NodeSamplerInput
from torch_geometric.utils import k_hop_subgraph

from graphclust.graph.sampling import NeighborSampler, neighbor_loader

# The draws have fixed seeds, so no test flickers; below this p-value two distributions count as different.
LEAST_P = 1e-3


def random_graph(num_nodes: int = 60, mean_degree: int = 6, seed: int = 0, sort: bool = True) -> Data:
    """Edges without repeats; the last node has no in-edges and node 0 is a hub."""
    rng = np.random.default_rng(seed)
    adjacency = rng.random((num_nodes, num_nodes)) < mean_degree / num_nodes
    adjacency[0] = True
    adjacency[-1] = False
    np.fill_diagonal(adjacency, False)
    target, source = np.nonzero(adjacency)
    order = np.arange(len(target)) if sort else rng.permutation(len(target))
    edge_index = torch.from_numpy(np.stack([source, target])[:, order])
    weight = torch.from_numpy(rng.random(len(target), dtype=np.float32))[order]
    x = torch.from_numpy(rng.random((num_nodes, 3), dtype=np.float32))
    return Data(x=x, edge_index=edge_index, edge_weight=weight, y=torch.arange(num_nodes))


def star(degree: int) -> Data:
    """Node 0 with the in-neighbours 1 ... degree."""
    source = torch.arange(1, degree + 1)
    return Data(edge_index=torch.stack([source, torch.zeros_like(source)]), num_nodes=degree + 1)


def seeds_of(*nodes: int) -> NodeSamplerInput:
    return NodeSamplerInput(input_id=torch.arange(len(nodes)), node=torch.tensor(nodes, dtype=torch.int64))


def same(first, second) -> bool:
    return all(torch.equal(first[key], second[key]) for key in ("n_id", "e_id", "edge_index", "input_id"))


def reference_sample(graph: Data, seeds: list[int], fanouts: list[int], replace: bool, rng: random.Random):
    """NeighborLoader's algorithm, node by node: nodes, (source, target, edge) triples, edges per hop."""
    in_edges: dict[int, list[tuple[int, int]]] = {v: [] for v in range(graph.num_nodes)}
    for edge, (source, target) in enumerate(graph.edge_index.T.tolist()):
        in_edges[target].append((source, edge))
    node, edges = list(seeds), []
    local: dict[int, int] = {}
    for place, seed in enumerate(seeds):
        local.setdefault(seed, place)
    begin, counts = 0, []
    for fanout in fanouts:
        end = len(node)
        before = len(edges)
        for place in range(begin, end):
            known = in_edges[node[place]]
            if fanout < 0 or (not replace and fanout >= len(known)):
                drawn = known
            elif replace:
                drawn = rng.choices(known, k=fanout) if known else []
            else:
                drawn = rng.sample(known, fanout)
            for source, edge in drawn:
                if source not in local:
                    local[source] = len(node)
                    node.append(source)
                edges.append((local[source], place, edge))
        begin = end
        counts.append(len(edges) - before)
    return node, edges, counts


# ------------------------------ exact properties


@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize("fanouts", [[3], [4, 2], [2, 0, 3], [-1, 2], [50, 1, 1, 1]])
def test_each_batch_is_a_valid_sample(fanouts, sort):
    graph = random_graph(sort=sort)
    degree = torch.bincount(graph.edge_index[1], minlength=graph.num_nodes)
    sampler = NeighborSampler(graph, fanouts, random_state=0)
    for seeds in ([5, 0, 17, 59], [59], [0]):
        out = sampler.sample_from_nodes(seeds_of(*seeds))
        assert out.node[: len(seeds)].tolist() == seeds
        assert out.node.unique().numel() == out.node.numel()
        assert torch.equal(graph.edge_index[:, out.edge], torch.stack([out.node[out.row], out.node[out.col]]))
        assert out.edge.unique().numel() == out.edge.numel()
        assert bool((out.col[1:] >= out.col[:-1]).all())
        assert sum(out.num_sampled_nodes) == out.node.numel()
        assert sum(out.num_sampled_edges) == out.edge.numel() == out.row.numel()
        assert all(part.dtype == torch.int64 for part in (out.node, out.row, out.col, out.edge))
        # min(f, degree) for the nodes of each hop, in-edges of nobody else.
        received = torch.bincount(out.col, minlength=out.node.numel())
        hops = out.node.split(out.num_sampled_nodes)
        wanted = [
            degree[v] if f < 0 else degree[v].clamp(max=f) for v, f in zip(hops, [*fanouts, 0], strict=True)
        ]
        assert torch.equal(received, torch.cat(wanted))
        # New nodes stand in the order in which the edges meet them.
        first_met = list(dict.fromkeys([*range(len(seeds)), *out.row.tolist()]))
        assert first_met == list(range(out.node.numel()))


@pytest.mark.parametrize("sort", [True, False])
def test_without_limit_it_equals_the_reference(sort):
    graph = random_graph(sort=sort)
    for seeds in ([5, 0, 17], [7, 7, 3, 7], [59, 59]):
        out = NeighborSampler(graph, [-1, 100, -1]).sample_from_nodes(seeds_of(*seeds))
        node, edges, counts = reference_sample(graph, seeds, [-1, 100, -1], False, random.Random(0))
        assert out.num_sampled_edges == counts
        assert out.num_sampled_nodes[0] == len(seeds)
        # An edge_index that is not sorted keeps the order within each list, as the reference does.
        assert out.node.tolist() == node
        assert list(zip(out.row.tolist(), out.col.tolist(), out.edge.tolist(), strict=True)) == edges


@pytest.mark.parametrize("num_hops", [1, 2, 3])
def test_all_neighbours_are_the_k_hop_subgraph(num_hops):
    graph = random_graph(mean_degree=2)
    out = NeighborSampler(graph, [-1] * num_hops).sample_from_nodes(seeds_of(4, 9))
    expected, *_ = k_hop_subgraph([4, 9], num_hops, graph.edge_index, num_nodes=graph.num_nodes)
    assert out.node.numel() < graph.num_nodes
    assert torch.equal(out.node.sort().values, expected)


def test_with_replacement_every_node_gets_the_full_fanout():
    graph = random_graph()
    out = NeighborSampler(graph, [40], replace=True, random_state=0).sample_from_nodes(seeds_of(3, 59, 8))
    assert torch.bincount(out.col, minlength=3)[:3].tolist() == [40, 0, 40]
    assert out.edge.unique().numel() < out.edge.numel()
    assert torch.equal(graph.edge_index[:, out.edge], torch.stack([out.node[out.row], out.node[out.col]]))


def test_repeated_edges_count_one_by_one():
    graph = Data(edge_index=torch.tensor([[1, 1, 2], [0, 0, 0]]), num_nodes=3)
    out = NeighborSampler(graph, [-1]).sample_from_nodes(seeds_of(0))
    assert out.node.tolist() == [0, 1, 2]
    assert out.row.tolist() == [1, 1, 2]
    assert out.edge.tolist() == [0, 1, 2]


def test_a_graph_without_edges_and_a_batch_without_seeds():
    graph = Data(edge_index=torch.empty(2, 0, dtype=torch.int64), num_nodes=4)
    out = NeighborSampler(graph, [3, 3]).sample_from_nodes(seeds_of(2, 1))
    assert (out.node.tolist(), out.edge.numel(), out.num_sampled_nodes) == ([2, 1], 0, [2, 0, 0])
    out = NeighborSampler(random_graph(), [3]).sample_from_nodes(seeds_of())
    assert (out.node.numel(), out.num_sampled_nodes, out.num_sampled_edges) == (0, [0, 0], [0])


def test_a_sorted_edge_index_is_not_copied():
    graph = random_graph()
    assert np.shares_memory(NeighborSampler(graph, [2])._source, graph.edge_index.numpy())


def test_an_interrupted_call_leaves_no_trace(monkeypatch):
    sampler = NeighborSampler(random_graph(), [3, 3], random_state=0)
    expected = sampler.sample_from_nodes(seeds_of(1, 2))
    sampler.seed(0)
    whole, calls = np.concatenate, []

    def interrupt(parts, *args, **kwargs):
        calls.append(parts)
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "concatenate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sampler.sample_from_nodes(seeds_of(8, 9))
    monkeypatch.setattr(np, "concatenate", whole)
    assert calls
    assert torch.equal(sampler.sample_from_nodes(seeds_of(1, 2)).node, expected.node)


# ------------------------------ distribution


def in_neighbour_draws(degree: int, fanout: int, repeats: int, replace: bool = False) -> np.ndarray:
    """Sampled in-neighbours [repeats, fanout] of a star's centre, numbered from 0."""
    # One call with many seeds draws them all independently: a forest of stars, centres last.
    centre = torch.arange(repeats) + degree
    source = torch.arange(degree).repeat(repeats)
    graph = Data(
        edge_index=torch.stack([source, centre.repeat_interleave(degree)]), num_nodes=degree + repeats
    )
    sampler = NeighborSampler(graph, [fanout], replace=replace, random_state=7)
    out = sampler.sample_from_nodes(seeds_of(*centre.tolist()))
    return out.node[out.row].reshape(repeats, fanout).numpy()


@pytest.mark.parametrize(("degree", "fanout"), [(2, 1), (5, 1), (5, 4), (7, 3), (12, 5), (40, 20)])
def test_each_neighbour_and_each_pair_is_equally_likely(degree, fanout):
    repeats = 20_000
    draws = in_neighbour_draws(degree, fanout, repeats)
    chosen = np.zeros((repeats, degree))
    np.put_along_axis(chosen, draws, 1, axis=1)
    assert (chosen.sum(axis=1) == fanout).all()
    # The counts have variance p (1 - p) n and correlation -1 / (d - 1): the sum of their squared deviations,
    # scaled by (d - 1) / d, is chi-square with d - 1 degrees of freedom.
    p = fanout / degree
    deviation = chosen.sum(axis=0) - repeats * p
    statistic = (deviation**2).sum() / (repeats * p * (1 - p)) * (degree - 1) / degree
    assert chi2.sf(statistic, degree - 1) > LEAST_P
    # Joint inclusion f (f - 1) / (d (d - 1)); each pair to five standard deviations.
    joint = p * (fanout - 1) / (degree - 1)
    together = chosen.T @ chosen
    pairs = together[np.triu_indices(degree, 1)]
    assert np.abs(pairs - repeats * joint).max() <= 5 * np.sqrt(repeats * joint * (1 - joint))


@pytest.mark.parametrize(("degree", "fanout"), [(4, 2), (5, 2), (5, 3), (6, 4)])
def test_each_subset_is_equally_likely(degree, fanout):
    draws = np.sort(in_neighbour_draws(degree, fanout, 20_000), axis=1)
    subsets = list(combinations(range(degree), fanout))
    counts = np.array([(draws == subset).all(axis=1).sum() for subset in subsets])
    statistic = ((counts - 20_000 / len(subsets)) ** 2).sum() / (20_000 / len(subsets))
    assert chi2.sf(statistic, len(subsets) - 1) > LEAST_P


def test_draws_with_replacement_are_independent():
    draws = in_neighbour_draws(4, 2, 20_000, replace=True)
    counts = np.bincount(draws[:, 0] * 4 + draws[:, 1], minlength=16)
    assert chi2.sf(((counts - 1250) ** 2).sum() / 1250, 15) > LEAST_P


def two_hop_tables(sample, repeats: int, num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each node was in the batch, and how often the batch had each size, over repeated draws."""
    included, sizes = np.zeros(num_nodes, dtype=int), np.zeros(num_nodes + 1, dtype=int)
    for _ in range(repeats):
        node = np.asarray(sample())
        included[node] += 1
        sizes[len(node)] += 1
    return included, sizes


def assert_same_distribution(ours, theirs, repeats: int, num_nodes: int) -> None:
    """Two-sample chi-square tests on the inclusion of each node and on the batch sizes."""
    (included, sizes), (included_2, sizes_2) = (two_hop_tables(f, repeats, num_nodes) for f in (ours, theirs))
    p_values = []
    for ours_count, theirs_count in zip(included, included_2, strict=True):
        table = np.array([[ours_count, repeats - ours_count], [theirs_count, repeats - theirs_count]])
        if (table.sum(axis=0) > 0).all():
            p_values.append(chi2_contingency(table, correction=False).pvalue)
    assert len(p_values) > 10
    assert min(p_values) > LEAST_P / len(p_values)  # Bonferroni
    frequent = np.flatnonzero(sizes + sizes_2 >= 20)
    table = np.array([[part[frequent].sum(), *part[frequent]] for part in (sizes, sizes_2)])
    table[:, 0] = repeats - table[:, 0]  # the rare sizes together
    table = table[:, table.sum(axis=0) > 0]
    assert chi2_contingency(table).pvalue > LEAST_P


@pytest.mark.parametrize("replace", [False, True])
def test_two_hops_follow_the_reference(replace):
    graph = random_graph(num_nodes=40, mean_degree=5, seed=3)
    seeds, fanouts, rng = [5, 11], [3, 2], random.Random(0)
    sampler = NeighborSampler(graph, fanouts, replace=replace, random_state=1)
    assert_same_distribution(
        lambda: sampler.sample_from_nodes(seeds_of(*seeds)).node,
        lambda: reference_sample(graph, seeds, fanouts, replace, rng)[0],
        repeats=3000,
        num_nodes=40,
    )


@pytest.mark.parametrize("replace", [False, True])
def test_two_hops_follow_neighbor_loader(replace):
    if not pyg_typing.WITH_PYG_LIB:
        pytest.importorskip("torch_sparse")
        if not replace:
            pytest.skip("torch-sparse is biased without replacement (see test_the_bias_of_torch_sparse)")
    graph = random_graph(num_nodes=40, mean_degree=5, seed=3)
    ours, theirs = (
        NeighborSampler(graph, [3, 2], replace=replace, random_state=1, backend=b) for b in ("torch", "pyg")
    )
    assert_same_distribution(
        lambda: ours.sample_from_nodes(seeds_of(5, 11)).node,
        lambda: theirs.sample_from_nodes(seeds_of(5, 11)).node,
        repeats=3000,
        num_nodes=40,
    )


@pytest.mark.skipif(pyg_typing.WITH_PYG_LIB, reason="PyG prefers pyg-lib")
def test_the_bias_of_torch_sparse():
    """Why "auto" never takes torch-sparse. If this fails, a release has mended it."""
    pytest.importorskip("torch_sparse")
    sampler = NeighborSampler(star(3), [1], backend="pyg", random_state=0)
    drawn = [int(sampler.sample_from_nodes(seeds_of(0)).node[1]) for _ in range(300)]
    assert set(drawn) == {1, 2}


@pytest.mark.parametrize("sort", [True, False])
def test_the_compiled_backend_keeps_the_contract(sort):
    if not pyg_typing.WITH_PYG_LIB:
        pytest.importorskip("torch_sparse")
    graph = random_graph(sort=sort)
    state = torch.get_rng_state()
    for fanouts in ([-1, -1], [3, 2]):
        ours = NeighborSampler(graph, fanouts, backend="torch", random_state=0).sample_from_nodes(
            seeds_of(5, 1)
        )
        theirs = NeighborSampler(graph, fanouts, backend="pyg", random_state=0).sample_from_nodes(
            seeds_of(5, 1)
        )
        again = NeighborSampler(graph, fanouts, backend="pyg", random_state=0).sample_from_nodes(
            seeds_of(5, 1)
        )
        ends = torch.stack([theirs.node[theirs.row], theirs.node[theirs.col]])
        assert torch.equal(graph.edge_index[:, theirs.edge], ends)
        assert torch.equal(theirs.edge, again.edge)
        assert sum(theirs.num_sampled_nodes) == theirs.node.numel()
        assert sum(theirs.num_sampled_edges) == theirs.edge.numel()
        assert theirs.num_sampled_edges[0] == ours.num_sampled_edges[0]
        if fanouts == [-1, -1]:
            assert torch.equal(ours.edge, theirs.edge)
            assert ours.num_sampled_nodes == theirs.num_sampled_nodes
    assert torch.equal(state, torch.get_rng_state())


# ------------------------------ reproducibility


def test_the_same_random_state_gives_the_same_batches_and_no_global_state_moves():
    graph = random_graph()
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002
    for make in (lambda: 3, lambda: torch.Generator().manual_seed(3), lambda: np.random.default_rng(3)):
        first, second = (
            list(neighbor_loader(graph, [3, 2], 16, shuffle=True, random_state=make())) for _ in range(2)
        )
        assert len(first) == 4
        assert all(map(same, first, second))
    other = list(neighbor_loader(graph, [3, 2], 16, shuffle=True, random_state=4))
    assert not any(map(same, first, other))
    list(neighbor_loader(graph, [3, 2], 16, shuffle=True))
    assert torch.equal(torch_state, torch.get_rng_state())
    assert all(np.array_equal(a, b) for a, b in zip(numpy_state, np.random.get_state(), strict=True))  # noqa: NPY002
    assert python_state == random.getstate()


def test_without_random_state_two_samplers_differ():
    graph = star(1000)
    one, two = (
        NeighborSampler(graph, [10], backend="torch").sample_from_nodes(seeds_of(0)) for _ in range(2)
    )
    assert not torch.equal(one.edge, two.edge)


def test_repeats_and_epochs_draw_anew_and_an_epoch_can_be_resumed():
    graph = star(1000)
    sampler = NeighborSampler(graph, [10], random_state=0)
    run = []
    for epoch in range(3):
        sampler.seed(epoch)
        run += [[sampler.sample_from_nodes(seeds_of(0)).edge.tolist() for _ in range(2)]]
    assert len({tuple(edges) for pair in run for edges in pair}) == 6
    resumed = NeighborSampler(graph, [10], random_state=0)
    resumed.seed(2)
    assert sampler.epoch == resumed.epoch == 2
    assert [resumed.sample_from_nodes(seeds_of(0)).edge.tolist() for _ in range(2)] == run[2]


def test_a_resumed_loader_draws_the_batches_of_an_unbroken_run():
    graph = random_graph()
    loader = neighbor_loader(graph, [3, 2], 16, shuffle=True, random_state=0)
    epochs = [list(loader) for _ in range(3)]
    assert sorted(torch.cat([b.input_id for b in epochs[0]]).tolist()) == list(range(60))
    assert not any(map(same, epochs[0], epochs[1]))
    resumed = neighbor_loader(graph, [3, 2], 16, shuffle=True, random_state=0)
    resumed.set_epoch(2)
    assert all(map(same, resumed, epochs[2]))
    assert resumed.epoch == 3


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_draw_the_same_batches(persistent):
    graph = random_graph()
    plain = neighbor_loader(graph, [3, 2], 16, shuffle=True, random_state=0)
    parallel = neighbor_loader(
        graph, [3, 2], 16, shuffle=True, random_state=0, num_workers=2, persistent_workers=persistent
    )
    for _ in range(2):
        assert all(map(same, list(plain), list(parallel)))


def test_workers_that_start_afresh_get_the_sampler_but_not_the_features():
    graph = random_graph()
    options = {"num_workers": 1, "multiprocessing_context": "spawn"}
    loader = neighbor_loader(graph, [3, 2], 16, random_state=0, **options)
    assert len(pickle.dumps(loader.collate_fn)) < 40_000
    loader.data.x = torch.zeros(60, 10_000)
    assert len(pickle.dumps(loader.collate_fn)) < 40_000
    out = pickle.loads(pickle.dumps(loader.node_sampler)).sample_from_nodes(seeds_of(1))
    assert torch.equal(out.edge, copy.deepcopy(loader.node_sampler).sample_from_nodes(seeds_of(1)).edge)


# ------------------------------ loader


def test_a_batch_carries_what_was_asked_for():
    graph = random_graph(sort=False)
    graph.neighbor_index = torch.zeros(60, 10, dtype=torch.int64)
    loader = neighbor_loader(graph, [3, 2], 8, attributes=["y"], input_nodes=[4, 2, 50], random_state=0)
    (batch,) = loader
    assert batch.batch_size == 3
    assert batch.n_id[:3].tolist() == [4, 2, 50]
    assert batch.input_id.tolist() == [0, 1, 2]
    assert torch.equal(batch.x, graph.x[batch.n_id])
    assert torch.equal(batch.y, batch.n_id)
    assert torch.equal(batch.edge_weight, graph.edge_weight[batch.e_id])
    assert torch.equal(batch.n_id[batch.edge_index], graph.edge_index[:, batch.e_id])
    assert "neighbor_index" not in batch
    assert "y" not in next(iter(neighbor_loader(graph, [3], 8)))


def test_a_mask_names_the_seeds():
    mask = torch.zeros(60, dtype=torch.bool)
    mask[[3, 40, 41]] = True
    batches = list(neighbor_loader(random_graph(), [2], 2, input_nodes=mask, shuffle=True, random_state=0))
    assert sorted(torch.cat([b.n_id[: b.batch_size] for b in batches]).tolist()) == [3, 40, 41]


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="reads Linux's memory counters")
def test_of_a_memory_map_only_the_batch_is_read(tmp_path):
    num_nodes, width = 4000, 16_384  # 262 MB, a sparse file
    x = np.memmap(tmp_path / "x.bin", dtype=np.float32, mode="w+", shape=(num_nodes, width))
    x[17, :3] = 1, 2, 3
    source = torch.arange(num_nodes)
    graph = Data(x=torch.from_numpy(x), edge_index=torch.stack([(source + 1) % num_nodes, source]))

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    batch = next(iter(neighbor_loader(graph, [1], 8, input_nodes=torch.arange(17, 25), rescale=True)))
    assert resident() - before < 100e6
    assert batch.x.shape == (9, width)
    assert batch.x[0, :4].tolist() == [1, 2, 3, 0]


# ------------------------------ rescale


@pytest.mark.parametrize("replace", [False, True])
def test_the_rescaled_aggregate_is_unbiased(replace):
    graph = random_graph()
    seeds = torch.tensor([0, 5, 9])
    loader = neighbor_loader(graph, [4], 3, input_nodes=seeds, replace=replace, rescale=True, random_state=0)
    draws = []
    for _ in range(1500):
        (batch,) = loader
        source, target = batch.edge_index
        message = batch.edge_weight[:, None] * batch.x[source]
        draws.append(torch.zeros(batch.num_nodes, 3).index_add_(0, target, message)[:3])
    full = torch.zeros_like(graph.x)
    full.index_add_(0, graph.edge_index[1], graph.edge_weight[:, None] * graph.x[graph.edge_index[0]])
    mean, deviation = torch.stack(draws).mean(0), torch.stack(draws).std(0) / 1500**0.5
    assert bool((deviation > 0).any())
    assert bool(((mean - full[seeds]).abs() <= 4 * deviation + 1e-4).all())


def test_full_neighbourhoods_keep_their_weights():
    (batch,) = neighbor_loader(random_graph(), [-1, -1], 60, rescale=True)
    assert torch.equal(batch.edge_weight, random_graph().edge_weight[batch.e_id])


def test_without_weights_each_edge_counts_one_and_the_users_transform_comes_last():
    (batch,) = neighbor_loader(
        star(10), [4], 1, input_nodes=[0], rescale=True, transform=lambda b: b.update({"seen": b.edge_weight})
    )
    assert batch.seen.tolist() == [2.5] * 4


def test_a_seed_given_twice_is_rescaled_twice():
    (batch,) = neighbor_loader(star(10), [4], 2, input_nodes=[0, 0], rescale=True, random_state=0)
    assert batch.edge_weight.tolist() == [2.5] * 8
    assert torch.bincount(batch.edge_index[1]).tolist() == [4, 4]


# ------------------------------ errors


@pytest.mark.parametrize(
    ("fanouts", "error", "message"),
    [
        ([3, -2], ValueError, r"num_neighbors\[1\]=-2"),
        ([], ValueError, "num_neighbors is empty"),
        (10, TypeError, r"such as \[10, 10\]; got 10"),
        ("10", TypeError, "got '10'"),
        ([2.5], TypeError, r"num_neighbors\[0\]=2.5"),
        ([True], TypeError, r"num_neighbors\[0\]=True"),
    ],
)
def test_wrong_fanouts(fanouts, error, message):
    with pytest.raises(error, match=message):
        NeighborSampler(random_graph(), fanouts)


@pytest.mark.parametrize(
    ("graph", "error", "message"),
    [
        (
            Data(edge_index=torch.tensor([[0, 4], [1, 0]]), num_nodes=3),
            ValueError,
            "holds node 4, .* has 3 nodes",
        ),
        (Data(edge_index=torch.tensor([[0, -1], [1, 0]]), num_nodes=3), ValueError, "holds node -1"),
        (Data(edge_index=torch.zeros(3, 2, dtype=torch.int64), num_nodes=2), ValueError, r"got \[3, 2\]"),
        (Data(edge_index=torch.zeros(2, 2), num_nodes=2), TypeError, "torch.float32"),
        (Data(num_nodes=2), TypeError, "NoneType"),
        (torch.zeros(2, 2, dtype=torch.int64), TypeError, "got Tensor"),
    ],
)
def test_wrong_graphs(graph, error, message):
    with pytest.raises(error, match=message):
        NeighborSampler(graph, [2])


def test_wrong_seeds():
    sampler = NeighborSampler(random_graph(), [2])
    with pytest.raises(ValueError, match="seed holds node 60, but the graph has nodes 0 to 59"):
        sampler.sample_from_nodes(seeds_of(3, 60))
    with pytest.raises(ValueError, match="seed holds node -1"):
        sampler.sample_from_nodes(seeds_of(-1))
    with pytest.raises(TypeError, match="float32"):
        sampler.sample_from_nodes(NodeSamplerInput(None, torch.zeros(3)))
    with pytest.raises(ValueError, match="temporal"):
        sampler.sample_from_nodes(NodeSamplerInput(None, torch.tensor([1]), time=torch.tensor([1])))
    with pytest.raises(NotImplementedError, match="LinkNeighborLoader"):
        sampler.sample_from_edges(None)
    # A call that failed must not spoil the next one.
    assert sampler.sample_from_nodes(seeds_of(3)).node[0] == 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"batch_size": 2.0}, TypeError, "batch_size=2.0"),
        ({"backend": "dgl"}, ValueError, "backend='dgl'"),
        ({"random_state": "zero"}, TypeError, "random_state='zero'"),
        ({"random_state": -1}, ValueError, "random_state=-1"),
        ({"input_nodes": [60]}, ValueError, "input_nodes holds node 60"),
        ({"input_nodes": torch.ones(3, dtype=torch.bool)}, ValueError, "mask of 3 entries"),
        ({"input_nodes": torch.zeros(2, 2, dtype=torch.int64)}, ValueError, r"shape \[2, 2\]"),
        ({"attributes": ["z"]}, ValueError, "'z', which is not a node-level attribute"),
        ({"attributes": "y"}, TypeError, r"use \['y'\]"),
        ({"shuffle": True, "sampler": [0]}, ValueError, "excludes sampler"),
    ],
)
def test_wrong_loader_options(options, error, message):
    with pytest.raises(error, match=message):
        neighbor_loader(random_graph(), **{"num_neighbors": [2], "batch_size": 4, **options})


def test_weights_that_do_not_fit_and_epochs_below_zero():
    graph = random_graph()
    graph.edge_weight = graph.edge_weight[1:]
    with pytest.raises(ValueError, match="edge_weight has shape"):
        neighbor_loader(graph, [2], 4)
    with pytest.raises(ValueError, match="epoch=-1"):
        NeighborSampler(random_graph(), [2]).seed(-1)


@pytest.mark.skipif(
    pyg_typing.WITH_PYG_LIB or pyg_typing.WITH_TORCH_SPARSE, reason="a compiled sampler is installed"
)
def test_the_compiled_backend_must_be_there():
    with pytest.raises(ValueError, match="needs pyg-lib or torch-sparse"):
        NeighborSampler(random_graph(), [2], backend="pyg")
