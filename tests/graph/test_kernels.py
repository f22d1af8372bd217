import math

import numpy as np
import pytest
import torch

from graphclust.graph import kernels
from graphclust.graph.search import NeighborSearch


@pytest.fixture
def lists():
    x = np.random.default_rng(0).normal(size=(40, 3))
    x[5:12] = x[4]  # seven samples with k = 4 duplicates: scale 0
    index, distance = NeighborSearch().fit(x).self_neighbors(4)
    return torch.from_numpy(x), index, distance


def twin_heat(index, distance, bandwidth):
    n, k = index.shape
    scales = [float(distance[i, k - 1]) for i in range(n)]
    smallest = min(s for s in scales if s > 0)
    scales = [s if s > 0 else smallest for s in scales]
    weight = torch.empty(n, k)
    for i in range(n):
        for a in range(k):
            t = scales[i] * scales[int(index[i, a])] if bandwidth == "self-tuning" else bandwidth
            weight[i, a] = math.exp(-(float(distance[i, a]) ** 2) / t)
    return weight


@pytest.mark.parametrize("bandwidth", ["self-tuning", "median", 0.3])
def test_heat_equals_its_twin(lists, bandwidth):
    _, index, distance = lists
    t = (
        float(np.median(np.sort(distance.numpy().astype(float).reshape(-1) ** 2)[:-1]))
        if bandwidth == "median"
        else bandwidth
    )
    found = kernels.neighbor_weights(index, distance, "heat", bandwidth)
    torch.testing.assert_close(found, twin_heat(index, distance, t), rtol=1e-5, atol=1e-7)
    assert (found[5] == 1).all()  # duplicates


def test_cosine_and_binary_equal_their_twins(lists):
    x, index, distance = lists
    x = x.clone()
    x[0] = 0
    found = kernels.neighbor_weights(index, distance, "cosine", x=x)
    for i in range(40):
        for a in range(4):
            u, v = x[i].numpy(), x[int(index[i, a])].numpy()
            norm = np.linalg.norm(u) * np.linalg.norm(v)
            assert float(found[i, a]) == pytest.approx(max(0.0, u @ v / norm) if norm else 0.0, abs=1e-6)
    assert (found >= 0).all() and found.min() == 0
    assert torch.equal(kernels.neighbor_weights(index, distance, "binary"), torch.ones(40, 4))


def test_scales_of_all_duplicates_are_one():
    assert kernels.local_scales(torch.zeros(5, 3)).tolist() == [1.0] * 5
    assert kernels.median_bandwidth(torch.zeros(5, 3)) == 1.0
    assert kernels.median_bandwidth(torch.tensor([[0.0, 0.0, 3.0]])) == pytest.approx(3.0)


def twin_symmetrize(edges, weights, n, mode):
    a = np.full((n, n), -1.0)
    for (j, i), w in zip(edges, weights, strict=True):
        if i != j:
            a[i, j] = max(a[i, j], w)
    result = {}
    for i in range(n):
        for j in range(n):
            forth, back = a[i, j], a[j, i]
            if mode == "none" and forth >= 0:
                result[i, j] = forth
            if mode == "union" and max(forth, back) >= 0:
                result[i, j] = max(forth, back)
            if mode == "mutual" and min(forth, back) >= 0:
                result[i, j] = min(forth, back)
            if mode == "mean" and max(forth, back) >= 0:
                result[i, j] = (max(forth, 0) + max(back, 0)) / 2
    return result


@pytest.mark.parametrize("mode", kernels.SYMMETRIZE)
def test_symmetrize_equals_its_twin(mode):
    rng = np.random.default_rng(2)
    edges = rng.integers(0, 12, size=(60, 2))  # with repeats and self loops
    weights = rng.random(60).astype(np.float32)
    index, weight = kernels.symmetrize_edges(
        torch.from_numpy(edges.T.copy()), torch.from_numpy(weights), 12, mode
    )
    expected = twin_symmetrize(edges.tolist(), weights.tolist(), 12, mode)
    order = sorted(expected)  # by target, then source
    assert index.flip(0).T.tolist() == [list(pair) for pair in order]
    assert weight.tolist() == pytest.approx([expected[pair] for pair in order])


def test_neighbor_edges_point_to_the_receiver():
    edges = kernels.neighbor_edges(torch.tensor([[2, 1], [0, 2]]), first_target=5)
    assert edges.tolist() == [[2, 1, 0, 2], [5, 5, 6, 6]]


def test_errors(lists):
    _, index, distance = lists
    with pytest.raises(ValueError, match="kernel='gauss'.*'heat', 'binary', 'cosine'"):
        kernels.neighbor_weights(index, distance, "gauss")
    with pytest.raises(ValueError, match="bandwidth='mean'"):
        kernels.neighbor_weights(index, distance, "heat", "mean")
    with pytest.raises(ValueError, match="bandwidth=-1 must be above 0"):
        kernels.neighbor_weights(index, distance, "heat", -1)
    with pytest.raises(ValueError, match="pass x"):
        kernels.neighbor_weights(index, distance, "cosine")
    with pytest.raises(ValueError, match="at least 0"):
        kernels.neighbor_weights(index, -1 - distance, "heat")
    with pytest.raises(ValueError, match="symmetrize='both'.*'none', 'union', 'mutual', 'mean'"):
        kernels.symmetrize_edges(index[:, :2].T, distance[:, 0], 40, "both")
    with pytest.warns(UserWarning, match="makes every edge weight 0"):
        kernels.neighbor_weights(index[:3], distance[:3] + 1, "heat", 1e-4)
