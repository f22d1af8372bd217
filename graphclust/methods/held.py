"""What the estimators share whose target is held for a period."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from graphclust._checks import check_count
from graphclust.methods.deep_autoencoder import FineTuned
from graphclust.nn.held import HeldAssignments
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.stage import Stage


@dataclass(eq=False, repr=False, kw_only=True)
class HeldTarget(FineTuned):
    """Adds assignments that are held for a period, from which a target is computed (`HeldAssignments`).

    Parameters
    ----------
    period : int
        Epochs for which one target is held.
    tolerance : float or None
        With a number, the last stage ends when a smaller share of the labels changed at three renewals of the target
        in a row.
    """

    period: int = 1

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_count(self.period, "period")

    def _build(self, n_features: int) -> Any:
        model = super()._build(n_features)
        model.held = HeldAssignments(model.autoencoder, model.head, self.period)
        return model

    def _start(self, model: Any, source: BatchSource, memory: dict[str, Tensor]) -> None:
        super()._start(model, source, memory)
        model.held.renew(model.autoencoder, model.head)

    def _clustering(self, start: Callable[[], None] | None = None) -> Stage:
        stage = super()._clustering(start)
        # Between two renewals no label changes, which says nothing.
        return replace(stage, patience=stage.patience * self.period)

    def _held(self, model: Any, x: Tensor, batch: Batch) -> Tensor:
        """Log-assignments [b, K] of the batch's scaled samples, as they were when the period began."""
        if model.training:
            model.held.advance(model.autoencoder, model.head, batch.whole, batch.n_samples)
        return model.held(x)
