"""Batch normalisation by mean and variance of a whole batch whose parts are in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

Add = Callable[[Tensor], Tensor]


@contextmanager
def sharing_norms(model: nn.Module, add: Add) -> Iterator[None]:
    """For a while, the batch normalisations of a model take mean and variance over all processes' parts.

    Layers keep their own way of counting and mixing running statistics; the one product of theirs that is replaced is
    ``torch.nn.functional.batch_norm``. (torch's own SyncBatchNorm needs CUDA.)

    Parameters
    ----------
    model : Module
    add : callable
        Sums a tensor over the processes.
    """
    hooks: list[Any] = []
    modes: list[_SharedStatistics] = []

    def begin(module: nn.Module, inputs: Any) -> None:
        modes.append(_SharedStatistics(add))
        modes[-1].__enter__()

    def end(module: nn.Module, inputs: Any, output: Any) -> None:
        modes.pop().__exit__(None, None, None)

    for module in model.modules():
        if isinstance(module, _BatchNorm):
            hooks.append(module.register_forward_pre_hook(begin))
            hooks.append(module.register_forward_hook(end, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _SharedStatistics(TorchFunctionMode):
    """Replaces torch's batch normalisation with `shared_batch_norm` where it computes statistics."""

    def __init__(self, add: Add) -> None:
        super().__init__()
        self.add = add

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
            given = dict(zip(names, args)) | kwargs
            if given.pop("training", False):
                return shared_batch_norm(self.add, **given)
        return func(*args, **kwargs)


def shared_batch_norm(
    add: Add,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``torch.nn.functional.batch_norm(..., training=True)`` of a batch whose parts are in several processes.

    Parameters
    ----------
    add : callable
        Sums a tensor over the processes.
    input : Tensor [n, C, ...]
        This process's part. Means and variances are those of all parts; gradients flow through them to all parts.
    """
    over = [dim for dim in range(input.dim()) if dim != 1]
    shape = [1, -1, *[1] * (input.dim() - 2)]
    x = input if input.dtype == torch.float64 else input.float()
    own = x.new_full((1,), x.numel() / x.shape[1])
    sums = _Add.apply(torch.cat([x.sum(dim=over), own]), add)
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centered = x - mean.view(shape)
    variance = _Add.apply(centered.square().sum(dim=over), add) / count
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            unbiased = variance * count / (count - 1).clamp_min(1)
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    result = centered * (variance + eps).rsqrt().view(shape)
    if weight is not None:
        result = result * weight.view(shape)
    if bias is not None:
        result = result + bias.view(shape)
    return result.to(input.dtype)


class _Add(torch.autograd.Function):
    """A sum over processes. What each does with it depends on all parts, so its gradient is a sum over them too."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, add: Add) -> Tensor:
        ctx.add = add
        return add(part)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.add(gradient), None
