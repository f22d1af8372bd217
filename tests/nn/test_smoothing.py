"""The smoothed encoder: its codes, the same layer by layer, the shared product of true and shuffled samples."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from graphclust import SampleGraph
from graphclust.nn.contrast import shuffle_samples
from graphclust.nn.smoothing import SmoothedEncoder
from graphclust.nn.sparse_features import constant_linear
from graphclust.training.batches import BatchSource
from graphclust.training.inference import layerwise_outputs


@pytest.fixture(scope="module")
def source() -> BatchSource:
    x = torch.rand(80, 12, generator=torch.Generator().manual_seed(0))
    x[x < 0.97] = 0.0  # so sparse that the sparse path is taken
    assert 0 < float((x > 0).float().mean()) < 0.05
    return BatchSource(SampleGraph.from_features(x, 4))


def encoder(n_hops: int, widths: tuple[int, ...] = (12, 7, 5), conv: str = "gcn") -> SmoothedEncoder:
    torch.manual_seed(1)
    return SmoothedEncoder(widths, conv, ["prelu"] * (len(widths) - 1), n_hops=n_hops).eval()


@pytest.mark.parametrize("n_hops", [0, 1, 3])
def test_codes_are_local_plus_global_at_length_one(n_hops: int, source: BatchSource) -> None:
    model, adjacency = encoder(n_hops), source.full(uses_graph=True).adjacency
    assert adjacency is not None
    local = model.local(source.x, adjacency)
    far = local
    for _ in range(n_hops):
        far = adjacency.propagate(far)
    torch.testing.assert_close(model(source.x, adjacency), normalize(local + far))


@pytest.mark.parametrize("n_hops", [0, 2])
@pytest.mark.parametrize("nodes", [None, [3, 70]])
def test_layer_by_layer_gives_the_same(n_hops: int, nodes: list[int] | None, source: BatchSource) -> None:
    model, adjacency = encoder(n_hops), source.full(uses_graph=True).adjacency
    assert adjacency is not None
    wanted = None if nodes is None else torch.tensor(nodes)
    blocks = layerwise_outputs(model, source, wanted, block_size=17)
    found = torch.cat([codes for _, codes in blocks])
    expected = model(source.x, adjacency).detach()
    torch.testing.assert_close(found, expected if nodes is None else expected[nodes])


@pytest.mark.parametrize(
    ("conv", "widths"), [("gcn", (12, 7, 5)), ("gcn", (12, 5)), ("gcn", (12, 20)), ("sage", (12, 5))]
)
def test_the_pair_is_what_two_passes_give(conv: str, widths: tuple[int, ...], source: BatchSource) -> None:
    """Outputs and gradients, whichever way the pair is computed."""
    model, adjacency = encoder(0, widths, conv), source.full(uses_graph=True).adjacency
    assert adjacency is not None

    def results(true: Tensor, false: Tensor) -> list[Tensor]:
        loss = (true * torch.arange(true.shape[1])).sum() + false.square().sum()
        return [true, false, *torch.autograd.grad(loss, list(model.parameters()))]

    torch.manual_seed(5)
    found = results(*model.local_pair(source.x, adjacency))
    torch.manual_seed(5)
    shuffled = shuffle_samples(source.x)
    expected = results(model.local(source.x, adjacency), model.local(shuffled, adjacency))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("density", [0.02, 0.5])
def test_constant_linear_is_a_linear_layer(density: float, source: BatchSource) -> None:
    adjacency = BatchSource(source.graph).full(uses_graph=True).adjacency  # with a memory of its own
    assert adjacency is not None
    x = torch.rand(80, 30, generator=torch.Generator().manual_seed(2))
    x[x > density] = 0.0
    weight = torch.randn(6, 30, requires_grad=True)
    out = constant_linear(x, weight, adjacency)
    torch.testing.assert_close(out, x @ weight.T)
    assert (adjacency.memo("sparse_features", lambda: None) is not None) == (density < 0.05)
    (gradient,) = torch.autograd.grad(out.square().sum(), weight)
    torch.testing.assert_close(gradient, torch.autograd.grad((x @ weight.T).square().sum(), weight)[0])


def test_number_of_hops_is_checked() -> None:
    with pytest.raises(ValueError, match="n_hops=-1"):
        SmoothedEncoder((3, 2), activation="relu", n_hops=-1)
