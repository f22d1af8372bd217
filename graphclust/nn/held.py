"""A copy of a network that is held for a while, so that a target does not move with every step."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from graphclust._checks import check_count


class HeldAssignments(nn.Module):
    """Assignments as encoder and head gave them at the last renewal: what a fixed target is computed from.

    A target that is held for a period is usually a table [N, K]. The copy gives the same numbers batch by batch, for
    one more pass of the encoder, and takes no more memory for more samples. It is always in evaluation mode, is not
    trained, and is part of checkpoints.

    Parameters
    ----------
    autoencoder : AutoEncoder
    head : Module
        ``head(codes) -> log-probabilities``.
    period : int, default=1
        Epochs between renewals.
    """

    seen: Tensor

    def __init__(self, autoencoder: Any, head: nn.Module, period: int = 1) -> None:
        super().__init__()
        self.period = check_count(period, "period")
        self.encoder = copy.deepcopy(autoencoder.encoder).requires_grad_(False)
        self.head = copy.deepcopy(head).requires_grad_(False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self._n_seen: int | None = (
            None  # the same number, known without waiting for the device; None: not read yet
        )
        self.train()

    def train(self, mode: bool = True) -> HeldAssignments:
        """Evaluation mode, whatever the network around it is in."""
        return super().train(False)

    @torch.no_grad()
    def renew(self, autoencoder: Any, head: nn.Module) -> None:
        """Take over the present weights; a new period begins."""
        self.encoder.load_state_dict(autoencoder.encoder.state_dict())
        self.head.load_state_dict(head.state_dict())
        self.seen.zero_()
        self._n_seen = 0

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._n_seen = None

    @torch.no_grad()
    def advance(self, autoencoder: Any, head: nn.Module, size: int, n_samples: int) -> None:
        """Called before each training step with the sizes of batch and data set; renews when the period is over."""
        if self._n_seen is None:
            self._n_seen = int(self.seen)
        if self._n_seen >= self.period * n_samples:
            self.renew(autoencoder, head)
        self._n_seen += size
        self.seen += size

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Scaled features [N, d] -> log-probabilities [N, K]."""
        return self.head(self.encoder(x).mean)
