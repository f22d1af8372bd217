"""Where float32 is not enough."""

from __future__ import annotations

import torch
from torch import Tensor


def in_double(*tensors: Tensor) -> list[Tensor]:
    """The tensors in float64, which autocast leaves alone; in float32 on MPS, which knows no float64.

    Squared distances written as ``|a|^2 - 2 a b + |b|^2`` cancel: float32 loses all digits where codes lie a thousand
    standard deviations away from a centre, bfloat16 where they lie ten away. The matrices are [N, K], small beside
    the network's.
    """
    return [t.to(torch.float32 if t.device.type == "mps" else torch.float64) for t in tensors]


def in_single(tensor: Tensor) -> torch.autocast:
    """For a while, products are of float32 as they are written, also while the network around computes in bfloat16.

    Sums over samples and what is kept from step to step go through this: bfloat16 has two to three digits.
    """
    return torch.autocast(tensor.device.type, enabled=False)
