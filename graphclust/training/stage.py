"""What a method hands to the training loop: a list of stages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from graphclust.training.batches import Batch


class Step(NamedTuple):
    """Result of a loss function on one batch.

    Attributes
    ----------
    terms : dict of str to Tensor
        Named scalar loss terms, already weighted; their sum is minimised.
    probabilities : Tensor [b, K] or None
        Cluster probabilities (or their logits) of the batch's samples. Their argmax tells the loop how many labels
        change from one epoch to the next, the label-free stopping rule of DEC.
    """

    terms: dict[str, Tensor]
    probabilities: Tensor | None = None


# The model's type is the recipe's own: a loss reads parts of it that nn.Module does not know.
Loss = Callable[[Any, Batch], Step]


@dataclass
class Stage:
    """One part of a training run: what is minimised, over which batches, for how long.

    Attributes
    ----------
    name : str
        Shown by the progress bar and kept in the history.
    loss : callable (model, batch) -> Step, or None
        None for a stage of no epochs, which is its `start` alone.
    epochs : int
        Largest number of passes over the data; 0 skips the stage (its `start` is still called).
    learning_rate : float
        Of Adam, at the start.
    schedule : {"step", "one-cycle"}
        "step": the rate is multiplied by `decay` every `decay_every` epochs. "one-cycle" (Smith 2018): it rises to
        `learning_rate` over the first three tenths of the steps, and falls to 0 along a cosine.
    decay, decay_every : float, int
        Of "step".
    warm_up : int
        Steps over which the rate rises to what the schedule says. Adam's first steps are of the rate's length however
        small the gradients are; without a warm-up they throw off a network that a stage before has trained. The rule
        of `tolerance` counts from there on.
    weight_decay : float
        Decoupled (AdamW).
    batch_size : int or None
        Samples a step; None takes all of them in one.
    uses_graph : bool
        Whether the loss reads the batch's adjacency. Without it batches are plain blocks of samples.
    hops : int or None
        Hops of sampled neighbours that the loss reads, where that is fewer than the method's other stages read.
    start : callable or None
        Called once before the first epoch, never when a run is resumed inside the stage (initialisations).
    parameters : callable model -> parameters, or None
        What is trained; None trains the whole model.
    tolerance : float or None
        Stop when a smaller share of the labels changed in `patience` epochs in a row.
    patience : int
    """

    name: str
    loss: Loss | None
    epochs: int
    learning_rate: float = 1e-3
    schedule: str = "step"
    decay: float = 1.0
    decay_every: int = 10
    warm_up: int = 0
    weight_decay: float = 0.0
    batch_size: int | None = None
    uses_graph: bool = False
    hops: int | None = None
    start: Callable[[], None] | None = None
    parameters: Callable[[Any], Iterable[nn.Parameter]] | None = None
    tolerance: float | None = None
    patience: int = 3

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError(f"stage {self.name!r} has {self.epochs} epochs, it must have 0 or more")
        if not self.learning_rate > 0:
            raise ValueError(
                f"stage {self.name!r} has learning rate {self.learning_rate}, it must be greater than 0"
            )
        if self.schedule not in ("step", "one-cycle"):
            raise ValueError(
                f"stage {self.name!r} has schedule {self.schedule!r}, it must be 'step' or 'one-cycle'"
            )
        if self.warm_up < 0:
            raise ValueError(f"stage {self.name!r} has warm_up {self.warm_up}, it must be 0 or more")
        for name in ("decay_every", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"stage {self.name!r} has {name} {getattr(self, name)}, it must be at least 1"
                )
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(
                f"stage {self.name!r} has batch size {self.batch_size}, it must be at least 1 or None"
            )
        if self.loss is None and self.epochs:
            raise ValueError(f"stage {self.name!r} has {self.epochs} epochs and no loss")

    def rate_of(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of a step, counted from 0."""
        risen = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        return risen * self.rate(step / steps_per_epoch)

    def rate(self, epoch: float) -> float:
        """Learning rate after `epoch` epochs, a number with the share of the present one that is done.

        The warm-up is left out.
        """
        if self.schedule == "step":
            return self.learning_rate * self.decay ** (int(epoch) // self.decay_every)
        done, rise = epoch / self.epochs, 0.3
        wave = math.cos(math.pi * (1 - done / rise if done < rise else (done - rise) / (1 - rise)))
        # It begins at a twenty-fifth: a step of length 0 would be lost.
        return self.learning_rate * max((1 + wave) / 2, 0.04 if done < rise else 0.0)
