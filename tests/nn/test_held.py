"""The held copy: it stays as it is for a period, whatever happens to the network, and takes over at its end."""

from __future__ import annotations

import torch

from graphclust.nn import AutoEncoder, HeldAssignments, StudentTAssignment


def test_held_for_a_period_and_then_renewed() -> None:
    torch.manual_seed(0)
    network, head = AutoEncoder.conv((4, 4), (4,), 3), StudentTAssignment(5, 3)
    held = HeldAssignments(network, head, period=2)
    x = torch.rand(10, 16)
    network.eval()
    first = held(x)
    torch.testing.assert_close(first, head(network.encode(x).mean).detach())
    network.train()
    network(x)  # the running statistics move too
    with torch.no_grad():
        for parameter in [*network.parameters(), *head.parameters()]:
            parameter.add_(0.1)
    held.train()
    assert not any(module.training for module in held.modules())
    for _ in range(5):  # two epochs of 20 samples in batches of 8
        held.advance(network, head, 8, 20)
        assert torch.equal(held(x), first)
    held.advance(network, head, 8, 20)
    network.eval()
    torch.testing.assert_close(held(x), head(network.encode(x).mean).detach())
    assert int(held.seen) == 8


def test_nothing_of_it_is_trained_and_all_of_it_is_saved() -> None:
    network, head = AutoEncoder.mlp(6, (4,), 3), StudentTAssignment(5, 3)
    held = HeldAssignments(network, head)
    assert not any(p.requires_grad for p in held.parameters())
    assert all(p.requires_grad for p in [*network.parameters(), *head.parameters()])
    held.advance(network, head, 7, 20)
    other = HeldAssignments(AutoEncoder.mlp(6, (4,), 3), StudentTAssignment(5, 3))
    other.load_state_dict(held.state_dict())
    x = torch.rand(4, 6)
    assert torch.equal(other(x), held(x)) and int(other.seen) == 7
