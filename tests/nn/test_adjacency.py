import numpy as np
import pytest
import torch

from graphclust.graph import SampleGraph
from graphclust.nn import Adjacency, propagation_weights
from graphclust.nn.adjacency import row_pointers


def random_edges(n=12, density=0.3, seed=0, symmetric=False):
    """Edges in a random order (not sorted), without self loops; node n - 1 has none at all."""
    rng = np.random.default_rng(seed)
    mask = rng.random((n, n)) < density
    if symmetric:
        mask |= mask.T
    np.fill_diagonal(mask, False)
    mask[n - 1] = mask[:, n - 1] = False
    edges = np.argwhere(mask)
    index = torch.from_numpy(rng.permutation(edges).T.copy())
    weight = torch.from_numpy(rng.uniform(0.1, 2.0, index.shape[1])).float()
    if symmetric:
        weight = 1.0 / (1.0 + (index[0] * index[1]).float())
    return index, weight


def test_more_edges_than_int32_numbers_are_refused():
    with pytest.raises(ValueError, match=r"2,147,483,648 edges.*2,147,483,647.*batch_size"):
        row_pointers(torch.empty(2**31, dtype=torch.int64, device="meta"), 10)
    assert row_pointers(torch.tensor([0, 0, 2]), 4).tolist() == [0, 2, 2, 3, 3]


def make(index, weight, n, normalization="symmetric", **kw):
    return Adjacency(index, weight, *propagation_weights(index, weight, n, normalization), **kw)


def dense(index, weight, n):
    """A[i, j]: what i receives from j."""
    a = torch.zeros(n, n, dtype=weight.dtype)
    for (source, target), w in zip(index.T.tolist(), weight, strict=True):
        a[target, source] = w
    return a


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("normalization", ["symmetric", "row"])
def test_propagation_weights_are_those_of_the_dense_matrix(symmetric, normalization):
    index, weight = random_edges(symmetric=symmetric)
    a = dense(index, weight.double(), 12) + torch.eye(12, dtype=torch.float64)
    degree = a.sum(dim=1)
    if normalization == "symmetric":
        expected = degree[:, None] ** -0.5 * a * degree[None, :] ** -0.5
    else:
        expected = a / degree[:, None]
    edges, loops = propagation_weights(index, weight, 12, normalization)
    torch.testing.assert_close(dense(index, edges, 12) + torch.diag(loops), expected.float())
    assert loops[11] == 1.0  # a sample without edges keeps itself
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    result = make(index, weight, 12, normalization).propagate(x)
    torch.testing.assert_close(result, (expected @ x.double()).float())


def test_propagation_agrees_with_the_graph_s_own_normalisation(digits):
    graph = SampleGraph.from_features(digits[0][:200], 5)
    edges, loops = propagation_weights(graph.edge_index, graph.edge_weight, 200)
    normalized = graph.normalized("symmetric")
    both = dense(graph.edge_index, edges, 200) + torch.diag(loops)
    torch.testing.assert_close(both, dense(normalized.edge_index, normalized.edge_weight, 200))


def test_unknown_normalization_is_named():
    index, weight = random_edges()
    with pytest.raises(ValueError, match="'rows'.*'symmetric' or 'row'"):
        propagation_weights(index, weight, 12, "rows")


@pytest.mark.parametrize("columns", [1, 5])
def test_matmul_and_both_gradients_equal_the_dense_product(columns):
    index, weight = random_edges()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(12, columns, generator=generator, requires_grad=True)
    weight.requires_grad_()
    upstream = torch.randn(12, columns, generator=generator)
    out = make(index, weight.detach(), 12).matmul(weight, x)
    gradients = torch.autograd.grad(out, [weight, x], upstream)

    a = torch.zeros(12, 12)
    a = a.index_put((index[1], index[0]), weight)
    expected = a @ x
    torch.testing.assert_close(out, expected)
    for found, wanted in zip(gradients, torch.autograd.grad(expected, [weight, x], upstream), strict=True):
        torch.testing.assert_close(found, wanted)


def test_matmul_gradcheck():
    index, weight = random_edges(6, 0.5)
    adjacency = make(index, weight, 6)
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(2))
    # The product is in float32, so steps and tolerances are its own; bilinear, so a large step is exact.
    inputs = (weight.double().requires_grad_(), x.double().requires_grad_())
    assert torch.autograd.gradcheck(
        lambda w, x: adjacency.matmul(w, x).double(), inputs, eps=0.25, atol=1e-4, rtol=1e-4
    )


def test_gradient_of_a_broadcast_is_accepted():
    index, weight = random_edges()
    x = torch.ones(12, 3, requires_grad=True)
    make(index, weight, 12).matmul(weight, x).sum().backward()  # the sum's gradient has strides of 0
    torch.testing.assert_close(x.grad, dense(index, weight, 12).sum(dim=0)[:, None].expand(12, 3))


def test_without_edges_nothing_is_received():
    index, weight = torch.empty(2, 0, dtype=torch.int64), torch.empty(0, requires_grad=True)
    x = torch.ones(4, 3, requires_grad=True)
    adjacency = make(index, weight.detach(), 4)
    out = adjacency.matmul(weight, x)
    assert torch.equal(out, torch.zeros(4, 3))
    out.sum().backward()
    assert torch.equal(x.grad, torch.zeros(4, 3)) and weight.grad.shape == (0,)
    assert torch.equal(adjacency.propagate(x), x)


def test_low_precision_input_is_multiplied_in_float32():
    index, weight = random_edges()
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(3)).bfloat16()
    adjacency = make(index, weight, 12)
    with torch.autocast("cpu", torch.bfloat16):
        out = adjacency.matmul(weight, x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, dense(index, weight, 12) @ x.float())


def test_mean_weight_and_self_loops():
    index, weight = random_edges()
    adjacency = make(index, weight, 12)
    for target, found in zip(index[1].tolist(), adjacency.mean_weight.tolist(), strict=True):
        assert found == pytest.approx(1.0 / index[1].tolist().count(target))
    looped = adjacency.looped()
    expected = dense(index, weight, 12) + torch.eye(12)
    torch.testing.assert_close(dense(looped.edge_index, looped.edge_weight, 12), expected)


def test_memo_computes_once():
    index, weight = random_edges()
    adjacency = make(index, weight, 12)
    calls = []
    values = [adjacency.memo("key", lambda: calls.append(1) or len(calls)) for _ in range(3)]
    assert values == [1, 1, 1] and calls == [1]
    assert make(index, weight, 12).memo("key", lambda: 7) == 7
