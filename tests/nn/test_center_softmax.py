"""CenterSoftmax: probabilities against scipy, and the temperature that neighbours' clusters make most likely."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from graphclust.nn.center_softmax import CenterSoftmax


def head(centers: Tensor, temperature: float = 1.0) -> CenterSoftmax:
    found = CenterSoftmax(*centers.shape)
    found.centers.copy_(centers)
    found.temperature.fill_(temperature)
    return found


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_probabilities() -> None:
    z, centers = torch.randn(20, 4), torch.randn(3, 4)
    squares = ((z[:, None] - centers[None]) ** 2).sum(dim=2).numpy()
    expected = log_softmax(-squares / 0.7, axis=1)
    np.testing.assert_allclose(head(centers, 0.7)(z).numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def noisy() -> tuple[Tensor, Tensor, Tensor]:
    """Two groups of 500 codes, each sample with four neighbours, a fifth of them in the other group."""
    torch.manual_seed(0)
    centers = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    labels = torch.arange(1000) % 2
    z = centers[labels] + 0.3 * torch.randn(1000, 2)
    source = torch.arange(1000).repeat_interleave(4)
    other = (torch.rand(4000) < 0.2).long()
    target = 2 * torch.randint(500, (4000,)) + (labels[source] + other) % 2
    return z, centers, torch.stack([source, target])


def test_no_temperature_is_likelier(noisy: tuple[Tensor, Tensor, Tensor]) -> None:
    z, centers, edges = noisy
    fitted = head(centers)
    fitted.fit_temperature(z, edges, generator())
    clusters = torch.cdist(z, centers).argmin(dim=1)

    def likelihood(temperature: float) -> float:
        return float(head(centers, temperature)(z)[edges[0], clusters[edges[1]]].mean())

    best = likelihood(float(fitted.temperature))
    assert best > max(likelihood(t) for t in (0.01, 0.1, 0.5, 1.0, 2.0, 4.0, 10.0, 100.0)) - 1e-6


def test_certainty_is_the_share_of_neighbours_in_the_same_cluster(
    noisy: tuple[Tensor, Tensor, Tensor],
) -> None:
    z, centers, edges = noisy
    fitted = head(centers)
    fitted.fit_temperature(z, edges, generator())
    assert float(fitted(z).exp().amax(dim=1).mean()) == pytest.approx(0.8, abs=0.03)


def test_without_edges_or_spread_it_stays() -> None:
    fitted = head(torch.zeros(2, 3))
    fitted.fit_temperature(torch.randn(5, 3), torch.empty(2, 0, dtype=torch.long), generator())
    fitted.fit_temperature(torch.zeros(5, 3), torch.tensor([[0, 1], [1, 0]]), generator())
    assert float(fitted.temperature) == 1.0


def test_many_edges_are_sampled(
    noisy: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    z, centers, edges = noisy
    whole, some = head(centers), head(centers)
    whole.fit_temperature(z, edges, generator())
    monkeypatch.setattr("graphclust.nn.center_softmax._EDGES", 1000)
    some.fit_temperature(z, edges, generator())
    assert some.temperature != whole.temperature
    assert float(some.temperature) == pytest.approx(float(whole.temperature), rel=0.3)


def test_codes_on_another_device_than_the_centres() -> None:
    # Tensors without values tell devices apart on every machine.
    with FakeTensorMode():
        fitted = CenterSoftmax(3, 4)
        fitted.centers = torch.empty(3, 4, device="cuda")
        with pytest.raises(RuntimeError, match="same device"):
            fitted(torch.empty(5, 4))
        found = fitted.squares(torch.empty(5, 4))
    assert found.device.type == "cpu" and found.shape == (5, 3)


def test_of_many_codes_those_without_an_edge_are_not_looked_at(
    noisy: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    z, centers, edges = noisy
    whole, some = head(centers), head(centers)
    whole.fit_temperature(z, edges, generator())
    monkeypatch.setattr("graphclust.nn.center_softmax._EDGES", edges.shape[1])
    read: list[int] = []
    squares = some.squares
    monkeypatch.setattr(some, "squares", lambda codes: read.append(len(codes)) or squares(codes))
    far = torch.full((2 * edges.shape[1], 2), 1e6)
    some.fit_temperature(torch.cat([z, far]), edges, generator())
    assert read == [len(z)] and some.temperature == whole.temperature
