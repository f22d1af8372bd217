"""Modularity on sparse edges: against the dense matrix, networkx, finite differences, and in batches."""

from __future__ import annotations

import math

import networkx as nx
import pytest
import torch
from torch import Tensor
from torch_geometric.utils import to_dense_adj, to_undirected

from graphclust.nn import Adjacency, propagation_weights
from graphclust.nn.modularity import BatchModularity, collapse_penalty, node_degrees, soft_modularity

N, K = 30, 4


def graph(directed: bool = False, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(N, (2, 90), generator=generator)
    edges = edges[:, edges[0] != edges[1]].unique(dim=1)
    weight = torch.rand(edges.shape[1], generator=generator, dtype=torch.float64)
    return (edges, weight) if directed else to_undirected(edges, weight, N, reduce="max")


def soft(seed: int = 1, n: int = N) -> Tensor:
    return torch.randn(n, K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(
        dim=1
    )


def dense_modularity(c: Tensor, edges: Tensor, weight: Tensor) -> Tensor:
    a = to_dense_adj(edges, edge_attr=weight, max_num_nodes=len(c))[0]
    a = (a + a.T) / 2
    d = a.sum(dim=1)
    b = a - torch.outer(d, d) / a.sum()
    return torch.trace(c.T @ b @ c) / a.sum()


def full_adjacency(edges: Tensor, weight: Tensor, n: int = N) -> Adjacency:
    weight = weight.float()
    return Adjacency(edges, weight, *propagation_weights(edges, weight, n))


@pytest.mark.parametrize("directed", [False, True])
def test_is_the_dense_formula(directed: bool) -> None:
    edges, weight = graph(directed)
    c = soft()
    torch.testing.assert_close(soft_modularity(c, edges, weight), dense_modularity(c, edges, weight))


def test_hard_assignments_agree_with_networkx() -> None:
    edges, weight = graph()
    labels = torch.arange(N) % K
    g = nx.Graph()
    g.add_nodes_from(range(N))
    g.add_weighted_edges_from(zip(*edges.tolist(), weight.tolist(), strict=True))
    parts = [set((labels == j).nonzero().flatten().tolist()) for j in range(K)]
    hard = torch.nn.functional.one_hot(labels, K).double()
    assert float(soft_modularity(hard, edges, weight)) == pytest.approx(nx.community.modularity(g, parts))


def test_gradient() -> None:
    edges, weight = graph()
    logits = torch.randn(N, K, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: soft_modularity(z.softmax(dim=1), edges, weight), (logits,))
    assert torch.autograd.gradcheck(lambda z: collapse_penalty(z.softmax(dim=1).sum(dim=0), N), (logits,))


def test_without_edges_it_is_zero() -> None:
    none = torch.empty((2, 0), dtype=torch.int64)
    assert float(soft_modularity(soft(), none, torch.empty(0, dtype=torch.float64))) == 0.0


def test_degrees_are_those_of_the_symmetric_graph() -> None:
    edges, weight = graph(directed=True)
    a = to_dense_adj(edges, edge_attr=weight, max_num_nodes=N)[0]
    torch.testing.assert_close(node_degrees(edges, weight, N), ((a + a.T) / 2).sum(dim=1))


def test_collapse_penalty_at_its_ends() -> None:
    assert float(collapse_penalty(torch.full((K,), N / K), N)) == pytest.approx(0.0, abs=1e-6)
    assert float(collapse_penalty(torch.tensor([N, 0.0, 0.0, 0.0]), N)) == pytest.approx(math.sqrt(K) - 1)


class TestBatches:
    def part(self, edges: Tensor, weight: Tensor, index: Tensor) -> tuple[Tensor, Adjacency]:
        """The batch's own samples first, then all others; all edges into its own."""
        rest = torch.ones(N, dtype=torch.bool)
        rest[index] = False
        local = torch.cat([index, rest.nonzero().flatten()])
        place = torch.empty(N, dtype=torch.int64)
        place[local] = torch.arange(N)
        kept = torch.isin(edges[1], index)
        return local, full_adjacency(place[edges[:, kept]], weight[kept])

    def test_the_full_batch_is_exact(self) -> None:
        edges, weight = graph()
        logits = soft().log().float().requires_grad_()
        head = BatchModularity(K)
        head.set_graph(edges, weight.float(), N)
        for _ in range(2):  # the second time with sums that are not fresh
            found, penalty = head(logits.softmax(dim=1), full_adjacency(edges, weight), torch.arange(N))
        expected = soft_modularity(logits.softmax(dim=1), edges, weight.float())
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(penalty, collapse_penalty(logits.softmax(dim=1).sum(dim=0), N))
        torch.testing.assert_close(
            torch.autograd.grad(found + penalty, logits)[0],
            torch.autograd.grad(expected + collapse_penalty(logits.softmax(dim=1).sum(dim=0), N), logits)[0],
            atol=1e-7,
            rtol=1e-4,
        )

    def test_gradients_of_batches_average_to_that_of_the_graph(self) -> None:
        """With the sums at their true values, the mean over the batches of an epoch is the whole gradient."""
        edges, weight = graph()
        logits = soft().log().float().requires_grad_()
        c = logits.softmax(dim=1)
        whole = soft_modularity(c, edges, weight.float()) + collapse_penalty(c.sum(dim=0), N)
        (expected,) = torch.autograd.grad(whole, logits)
        head = BatchModularity(K)
        head.set_graph(edges, weight.float(), N)
        batches = torch.randperm(N, generator=torch.Generator().manual_seed(0)).split(N // 3)
        mean, values = torch.zeros_like(expected), []
        for index in batches:
            with torch.no_grad():
                full = logits.softmax(dim=1)
                own, degrees = full[index], head.degrees[index]
                # What the running sum becomes when the batch is taken in: the true one.
                head.frequencies.copy_((full.sum(dim=0) - own.sum(dim=0)) * 3 / 2)
                head.degree_sums.copy_((head.degrees @ full - degrees @ own) * 3 / 2)
            local, adjacency = self.part(edges, weight, index)
            terms = head(logits.softmax(dim=1)[local], adjacency, index)
            mean += torch.autograd.grad(sum(terms), logits)[0] / 3
            values.append(float(sum(terms).detach()))
        torch.testing.assert_close(mean, expected, atol=1e-6, rtol=1e-3)
        assert sum(values) / 3 == pytest.approx(float(whole.detach()), abs=1e-5)

    def test_running_sums_forget_their_start(self) -> None:
        edges, weight = graph()
        c = soft().float()
        head = BatchModularity(K)
        head.set_graph(edges, weight.float(), N)
        generator = torch.Generator().manual_seed(0)
        for _ in range(20):
            for index in torch.randperm(N, generator=generator).split(N // 3):
                local, adjacency = self.part(edges, weight, index)
                head(c[local], adjacency, index)
        torch.testing.assert_close(head.frequencies, c.sum(dim=0), rtol=0.1, atol=0.1)
        torch.testing.assert_close(head.degree_sums, head.degrees @ c, rtol=0.1, atol=0.1)
