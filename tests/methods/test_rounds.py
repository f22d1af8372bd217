"""Rounds: labels that settle are taken, others end them and bring back the network that gave those before."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphclust.methods.rounds import take_labels


def labels_after(share: float, n: int = 1000) -> Tensor:
    return (torch.arange(n) < round(share * n)).long()


def test_rounds_that_settle_go_on_and_one_that_does_not_is_undone() -> None:
    model = nn.ModuleDict({"body": nn.Linear(2, 2), "parts": nn.Linear(2, 3)})
    memory = {"clusters": torch.zeros(1000, dtype=torch.long)}
    # Half of the labels at first, then less than 0.8 times as many: 39 % of all, then 1 % whatever was before.
    for share in (0.5, 0.11, 0.105, 0.095):
        assert take_labels(model, memory, labels_after(share), left_out="parts.")
    assert torch.equal(memory["clusters"], labels_after(0.095)) and "ended" not in memory
    kept = model["body"].weight.clone()
    with torch.no_grad():
        model["body"].weight += 1
        model["parts"].weight += 1
    other = model["parts"].weight.clone()
    assert not take_labels(model, memory, labels_after(0.2), left_out="parts.")
    assert float(memory["ended"]) > 0.1 and torch.equal(memory["clusters"], labels_after(0.095))
    assert torch.equal(model["body"].weight, kept) and torch.equal(model["parts"].weight, other)


def test_what_is_kept_does_not_change_with_the_network() -> None:
    model, memory = nn.Linear(2, 2), {"clusters": labels_after(0.0)}
    assert take_labels(model, memory, labels_after(0.005))
    with torch.no_grad():
        model.weight.zero_()
    assert memory["network.weight"].any()


def test_a_round_that_changes_no_label_ends_them_and_keeps_the_network() -> None:
    model, memory = nn.Linear(2, 2), {"clusters": labels_after(0.0)}
    assert take_labels(model, memory, labels_after(0.3))
    with torch.no_grad():
        model.weight += 1
    learnt = model.weight.clone()
    assert not take_labels(model, memory, labels_after(0.3))
    assert float(memory["ended"]) == 0 and torch.equal(model.weight, learnt)
