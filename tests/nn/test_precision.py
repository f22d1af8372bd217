"""What is kept from step to step is as exact while the network around computes in bfloat16."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graphclust.nn.adjacency import Adjacency, propagation_weights
from graphclust.nn.cluster_tree import ClusterTree
from graphclust.nn.heads import RunningCenters
from graphclust.nn.modularity import BatchModularity


def far_codes() -> Tensor:
    return torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) + 5


def running_centers() -> Tensor:
    head = RunningCenters(3, 6)
    head.update(far_codes(), torch.arange(500) % 3)
    return head.centers


def planted_tree() -> ClusterTree:
    tree, z = ClusterTree(4, 6), far_codes()
    tree.plant(z)
    tree.split(0, torch.stack([z[:250].mean(dim=0) - 1, z[250:].mean(dim=0) + 1]), torch.tensor([250, 250]))
    return tree


def leaves() -> Tensor:
    tree, z = planted_tree(), far_codes()
    tree.update(z, tree.nearest(z), len(z))
    return tree.centers


def inner_nodes() -> Tensor:
    return planted_tree().split_nodes().centers


def compression() -> Tensor:
    tree, z = planted_tree(), far_codes()
    return tree.compression(z, tree.nearest(z))


def modularity() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(200, (2, 3000), generator=generator)
    edges = edges[:, edges[0] != edges[1]]
    weight = torch.ones(edges.shape[1])
    part = BatchModularity(4)
    part.set_graph(edges, weight, 200)
    assignments = torch.randn(200, 4, generator=generator).softmax(dim=1)
    adjacency = Adjacency(edges, weight, *propagation_weights(edges, weight, 200))
    return part(assignments, adjacency, torch.arange(200))[0]


@pytest.mark.parametrize("compute", [running_centers, leaves, inner_nodes, compression, modularity])
def test_sums_are_not_hurt_by_bfloat16(compute: Callable[[], Tensor]) -> None:
    exact = compute()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compute(), exact)
