"""Random numbers: seeds of several runs, and torch's global generators, lent to one thread at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# Networks draw their first weights, dropout and noise from the global generators, which all threads share: two
# trainings at a time would draw each other's numbers, and no seed would say what comes.
_lock = threading.RLock()


def _renew() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # a child has not the thread that may hold it
    os.register_at_fork(after_in_child=_renew)


def run_seeds(seed: int, n_runs: int) -> list[int]:
    """Seeds of several runs under one, [n_runs], in [0, 2^32): those of another `seed` are others.

    Seeds counted on from `seed` would be shared: run 1 of seed 0 would be run 0 of seed 1, and results of several seeds
    would differ by less than chance makes them.
    """
    return [int(one) for one in np.random.SeedSequence(seed).generate_state(n_runs)]


@contextmanager
def private_randomness(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """The generators of the CPU and of `device` seeded, for this thread alone; afterwards they are as before.

    Other threads that ask for them wait. torch.manual_seed would seed all CUDA devices.
    """
    kind = "cpu" if device is None else device.type
    with (
        _lock,
        torch.random.fork_rng(devices=[device.index or 0] if device is not None and kind == "cuda" else []),
    ):
        torch.default_generator.manual_seed(seed)
        if kind == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif kind == "mps":
            torch.mps.manual_seed(seed)
        yield
