import pytest
import torch
import torch.nn.functional as F

from graphclust.graph import SampleGraph
from graphclust.nn import Adjacency, propagation_weights
from graphclust.nn.edges import EdgeReconstruction, inner_products, propagation_error
from graphclust.training import BatchSource

N = 60


@pytest.fixture
def graph():
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(N, N, generator=generator) < 0.08
    mask = (mask | mask.T).fill_diagonal_(False)
    index = mask.nonzero().T.contiguous()
    return SampleGraph.from_edges(index, torch.rand(N, 3, generator=generator))


@pytest.fixture
def codes():
    return 0.7 * torch.randn(N, 4, generator=torch.Generator().manual_seed(1))


def whole(graph):
    weights = propagation_weights(graph.edge_index, graph.edge_weight, N)
    return Adjacency(graph.edge_index, graph.edge_weight, *weights)


def kipf(z, graph):
    """Kipf & Welling's loss on the dense matrix: weighted cross-entropy over all N^2 pairs, times its constant."""
    label = torch.eye(N)
    label[graph.edge_index[1], graph.edge_index[0]] = 1.0
    ones = label.sum()
    weight = (N * N - ones) / ones
    scale = N * N / (2 * (N * N - ones))
    return scale * F.binary_cross_entropy_with_logits(z @ z.T, label, pos_weight=weight)


def mean_of_draws(loss, n):
    torch.manual_seed(0)
    drawn = torch.stack([loss() for _ in range(n)])
    return drawn.mean(0), drawn.std(0) / n**0.5


def test_inner_products(codes):
    pairs = torch.tensor([[0, 5, 5], [1, 5, 9]])
    expected = torch.stack([codes[i] @ codes[j] for i, j in pairs.T.tolist()])
    torch.testing.assert_close(inner_products(codes, pairs), expected)


@pytest.mark.parametrize("width", [3, 33, 700])
def test_gradient_of_inner_products(width):
    """Also of wide codes, in several blocks, with pairs that are there twice, reversed, and of a row with itself."""
    torch.manual_seed(0)
    z = torch.randn(40, width)
    pairs = torch.cat([torch.randint(40, (2, 500)), torch.tensor([[1, 1, 2, 7], [2, 2, 1, 7]])], dim=1)
    factor = torch.randn(504)
    found, expected = z.clone().requires_grad_(), z.double().requires_grad_()
    products = inner_products(found, pairs)
    (products.tanh() * factor).sum().backward()
    wanted = (expected @ expected.T)[pairs[0], pairs[1]]
    (wanted.tanh() * factor).sum().backward()
    torch.testing.assert_close(products, wanted.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.grad, expected.grad.float(), rtol=1e-4, atol=1e-4)


def test_full_batch_is_kipfs_loss_in_expectation(graph, codes):
    edges = EdgeReconstruction(graph.edge_index, N)
    adjacency, index = whole(graph), torch.arange(N)
    mean, error = mean_of_draws(lambda: edges(codes, index, adjacency), 200)
    assert error < 0.005  # sharp enough to see an error of a per cent
    assert abs(mean - kipf(codes, graph)) < 4 * error


def test_gradient_is_that_of_kipfs_loss_in_expectation(graph, codes):
    edges = EdgeReconstruction(graph.edge_index, N)
    adjacency, index = whole(graph), torch.arange(N)
    z = codes.clone().requires_grad_()
    (expected,) = torch.autograd.grad(kipf(z, graph), z)
    mean, error = mean_of_draws(lambda: torch.autograd.grad(edges(z, index, adjacency), z)[0], 200)
    assert ((mean - expected).abs() < 5 * error + 1e-6).all()
    assert error.norm() < 0.1 * expected.norm()


def test_sampled_pairs_are_uniform_and_never_edges(graph):
    edges = EdgeReconstruction(graph.edge_index, N)
    joined = torch.zeros(N, N, dtype=torch.bool)
    joined[graph.edge_index[1], graph.edge_index[0]] = True
    torch.manual_seed(0)
    n_pairs = 400_000
    target, source = edges.sample_non_edges(torch.arange(N), n_pairs)
    count = torch.zeros(N, N).index_put_((target, source), torch.ones(target.shape[0]), accumulate=True)
    free = ~joined & ~torch.eye(N, dtype=torch.bool)
    assert not count[~free].any()
    expected = n_pairs / N**2
    # Each count is Poisson; chi-squared over the free pairs.
    chi = ((count[free] - expected) ** 2 / expected).mean()
    assert abs(float(chi) - 1) < 5 * (2 / int(free.sum())) ** 0.5
    # Samples are named by their numbers in the data set, pairs by their rows.
    some = torch.randperm(N)[:20]
    target, source = edges.sample_non_edges(some, 5000)
    assert target.max() < 20 and free[some[target], some[source]].all()


def test_knows_its_edges(graph):
    edges = EdgeReconstruction(graph.edge_index[:, torch.randperm(graph.num_edges)], N)
    target, source = torch.meshgrid(torch.arange(N), torch.arange(N), indexing="ij")
    found = edges.contains(target.flatten(), source.flatten()).view(N, N)
    expected = torch.zeros(N, N, dtype=torch.bool)
    expected[graph.edge_index[1], graph.edge_index[0]] = True
    assert torch.equal(found, expected)
    none = EdgeReconstruction(torch.empty(2, 0, dtype=torch.int64), N)
    assert not none.contains(target.flatten(), source.flatten()).any()


def sampled(graph, codes, loss, n_epochs=60):
    """Losses of batches of half the samples, with three of each one's neighbours."""
    # The code of a row is found by its features.
    row = {x: i for i, x in enumerate(graph.x[:, 0].tolist())}
    source = BatchSource(graph, num_neighbors=[3, 2])
    losses = []
    for epoch in range(n_epochs):
        for batch in source.epoch(epoch, N // 2, uses_graph=True):
            losses.append(loss(codes[[row[x] for x in batch.x[:, 0].tolist()]], batch))
    return torch.stack(losses)


def test_mini_batches_estimate_the_same(graph, codes):
    """Edges are weighed up to those that were not sampled."""
    edges = EdgeReconstruction(graph.edge_index, N)
    expected = kipf(codes, graph)
    losses = sampled(graph, codes, lambda z, batch: edges(z, batch.index, batch.adjacency))
    assert abs(losses.mean() - expected) < 0.02 * expected
    assert losses.std() / len(losses) ** 0.5 < 0.01 * expected


def test_weights_of_edges_count(graph, codes):
    """An edge of weight 2 counts as two, one of weight 0 not at all (though it still is no non-edge)."""
    weight = torch.randint(0, 3, (graph.num_edges,), generator=torch.Generator().manual_seed(0)).float()
    loops = torch.ones(N)
    edges = EdgeReconstruction(graph.edge_index, N)
    torch.manual_seed(0)
    found = edges(codes, torch.arange(N), Adjacency(graph.edge_index, weight, weight, loops))
    repeated = graph.edge_index.repeat_interleave(weight.long(), dim=1)
    own = torch.arange(N).expand(2, -1)
    joined = F.softplus(-inner_products(codes, torch.cat([repeated, own], dim=1))).mean()
    torch.manual_seed(0)
    apart = edges.sample_non_edges(torch.arange(N), int((weight > 0).sum()) + N)
    torch.testing.assert_close(found, 0.5 * (joined + F.softplus(inner_products(codes, apart)).mean()))


def test_graphs_without_non_edges_and_without_edges(codes):
    everyone = (~torch.eye(N, dtype=torch.bool)).nonzero().T.contiguous()
    x = torch.zeros(N, 2)
    for index in (everyone, torch.empty(2, 0, dtype=torch.int64)):
        graph = SampleGraph.from_edges(index, x)
        edges = EdgeReconstruction(graph.edge_index, N)
        z = codes.clone().requires_grad_()
        loss = edges(z, torch.arange(N), whole(graph))
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(z.grad).all()
    # One sample alone has no pair.
    nothing = torch.empty(0)
    alone = Adjacency(torch.empty(2, 0, dtype=torch.int64), nothing, nothing, torch.ones(1))
    loss = EdgeReconstruction(alone.edge_index, 1)(codes[:1], torch.zeros(1, dtype=torch.int64), alone)
    torch.testing.assert_close(loss, 0.5 * F.softplus(-codes[0] @ codes[0]))


def dense_error(z, graph, normalization="symmetric"):
    """Mean squared difference over all N^2 pairs, less its constant."""
    edges, loops = propagation_weights(graph.edge_index, graph.edge_weight, N, normalization)
    a = torch.diag(loops)
    a[graph.edge_index[1], graph.edge_index[0]] = edges
    decoded = sum((c @ c.T).sigmoid() for c in z)
    return (decoded - a).square().mean() - a.square().mean()


def test_propagation_error_in_expectation(graph, codes):
    z = [codes, codes[:, :2] - 0.3]
    adjacency, index = whole(graph), torch.arange(N)
    mean, error = mean_of_draws(lambda: propagation_error(z, index, adjacency, N), 200)
    assert error < 0.005 and abs(mean - dense_error(z, graph)) < 4 * error
    own = codes.clone().requires_grad_()
    (expected,) = torch.autograd.grad(dense_error([own], graph), own)
    draw = lambda: torch.autograd.grad(propagation_error([own], index, adjacency, N), own)[0]  # noqa: E731
    mean, error = mean_of_draws(draw, 200)
    assert ((mean - expected).abs() < 5 * error + 1e-7).all() and error.norm() < 0.2 * expected.norm()


def test_propagation_error_in_mini_batches(graph, codes):
    """Both parts by themselves: of the edges, which is much the smaller one, and of all pairs."""

    def parts(z, batch):
        part = batch.adjacency
        nothing = Adjacency(
            part.edge_index, part.edge_weight, 0 * part.propagation_weight, 0 * part.self_weight
        )
        found = []
        for adjacency in (part, nothing):
            torch.manual_seed(int(batch.index[0]))
            found.append(propagation_error([z], batch.index, adjacency, N))
        return torch.stack([found[0] - found[1], found[1]])

    found = sampled(graph, codes, parts)
    squares = (codes @ codes.T).sigmoid().square().mean()
    expected = torch.stack([dense_error([codes], graph) - squares, squares])
    error = found.std(dim=0) / len(found) ** 0.5
    assert ((found.mean(dim=0) - expected).abs() < 4 * error).all()
    assert (error < 0.02 * expected.abs()).all()
    alone = whole(SampleGraph.from_edges(torch.empty(2, 0, dtype=torch.int64), torch.zeros(N, 2)))
    assert torch.isfinite(propagation_error([codes[:1]], torch.tensor([3]), alone, N))
