"""Contrast with corrupted samples: the shuffle, the discriminators, and Dink-Net's losses against their sums."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from graphclust.nn.contrast import (
    NodeDiscriminator,
    SummaryDiscriminator,
    dilation_loss,
    discrimination_loss,
    shrink_loss,
    shuffle_samples,
)


def test_shuffle_keeps_every_row_and_moves_most() -> None:
    x = torch.arange(200.0)[:, None].repeat(1, 3)
    shuffled = shuffle_samples(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(shuffled[:, 0].sort().values, x[:, 0])
    assert (shuffled[:, 0] == shuffled[:, 2]).all()  # whole rows
    assert (shuffled != x).any(dim=1).float().mean() > 0.9
    torch.testing.assert_close(shuffled, shuffle_samples(x, torch.Generator().manual_seed(0)))


def test_discrimination_loss_is_binary_cross_entropy() -> None:
    true, false = torch.randn(7), torch.randn(9)
    expected = binary_cross_entropy_with_logits(true, torch.ones(7)) / 2
    expected = expected + binary_cross_entropy_with_logits(false, torch.zeros(9)) / 2
    torch.testing.assert_close(discrimination_loss(true, false), expected)
    assert float(discrimination_loss(torch.zeros(3), torch.zeros(3))) == pytest.approx(math.log(2))
    assert torch.isfinite(discrimination_loss(torch.tensor([-1e4]), torch.tensor([1e4])))


def test_summary_discriminator_is_the_bilinear_form() -> None:
    d = SummaryDiscriminator(5)
    true, false = torch.randn(8, 5), torch.randn(8, 5)
    summary = torch.sigmoid(true.mean(dim=0))
    logits = [torch.stack([h @ d.weight @ summary for h in codes]) for codes in (true, false)]
    torch.testing.assert_close(d(true, false), discrimination_loss(*logits))


def test_node_discriminator_sums_the_projection() -> None:
    d = NodeDiscriminator(4)
    true, false = torch.randn(6, 4), torch.randn(5, 4)
    w, b = d.projector.weight, d.projector.bias
    logits = [(h @ w.T + b).sum(dim=1) for h in (true, false)]
    torch.testing.assert_close(d(true, false), discrimination_loss(*logits))


@pytest.mark.parametrize("discriminator", [SummaryDiscriminator, NodeDiscriminator])
def test_a_discriminator_learns_to_tell_two_clouds(discriminator: type) -> None:
    torch.manual_seed(0)
    d = discriminator(4)
    true, false = torch.randn(100, 4) + 2, torch.randn(100, 4) - 2
    optimizer = torch.optim.Adam(d.parameters(), 0.05)
    before = float(d(true, false))
    for _ in range(50):
        loss = d(true, false)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.1 * before


def test_dilation_is_the_mean_over_pairs() -> None:
    centers = torch.randn(5, 3, dtype=torch.float64)
    pairs = torch.cdist(centers, centers).square()
    torch.testing.assert_close(dilation_loss(centers), -pairs.sum() / (5 * 4))
    assert float(dilation_loss(centers[:1])) == 0.0


def test_shrink_is_the_mean_over_all_centers() -> None:
    codes, centers = torch.randn(9, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(shrink_loss(codes, centers), torch.cdist(codes, centers).square().mean())
    codes.requires_grad_()
    centers.requires_grad_()
    assert torch.autograd.gradcheck(shrink_loss, (codes, centers))
    assert torch.autograd.gradcheck(dilation_loss, (centers,))
