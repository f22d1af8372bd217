"""Rounds in which a network learns the labels that the last one gave: how long they go on, and how one is undone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Share of the labels that the round before changed, of which the next may change no more.
SETTLING = 0.8
#: Share of the labels that may change in any round.
SETTLED = 0.01
#: What the network's values are called in the memory of a run.
_KEPT = "network."


def take_labels(model: nn.Module, memory: dict[str, Tensor], labels: Tensor, *, left_out: str = "") -> bool:
    """Take labels for the next round, if they settle; else the network becomes the one that gave those before.

    Rounds that help change fewer and fewer labels. One that would change over 1 % of them and over 0.8 times as many
    as the one before ends them. So does one that would change none: the network has learnt just these.

    Parameters
    ----------
    model : Module
        As the last round left it.
    memory : dict of Tensor
        Of the run, so part of its checkpoints: ``clusters`` [N], the labels learnt last; ``changed``, the share that
        the round before changed; the network's values then. With ``ended`` in it, there are no more rounds.
    labels : Tensor [N]
        What the network and its graph say now.
    left_out : str, optional
        Beginning of the names of values that no round changes.

    Returns
    -------
    bool
        Whether they are taken.
    """
    changed = (labels != memory["clusters"]).float().mean()
    if changed == 0:
        memory["ended"] = changed
        return False
    if changed > max(SETTLED, SETTLING * float(memory.get("changed", torch.inf))):
        memory["ended"] = changed
        # The network has learnt what is refused.
        kept = {name.removeprefix(_KEPT): value for name, value in memory.items() if name.startswith(_KEPT)}
        model.load_state_dict(kept, strict=False)
        return False
    memory["clusters"], memory["changed"] = labels, changed
    state = model.state_dict().items()
    changing = {name: value for name, value in state if not (left_out and name.startswith(left_out))}
    memory.update({_KEPT + name: value.clone() for name, value in changing.items()})
    return True
