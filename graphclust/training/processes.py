"""The processes that train one network together: what the training loop asks of them.

Each takes its part of every batch. Gradients are averaged over the batch as a whole, sums over all samples (cluster
frequencies, statistics of batch normalisation) are taken over all parts, and the first process writes the files. So
what is computed is what one process computes; what differs is the order in which numbers are added, and the noise.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from graphclust._processes import summing
from graphclust.training.shared_norm import sharing_norms

T = TypeVar("T")

#: A part of fewer samples has no variance: batches that would be cut into such are computed whole by all.
_LEAST = 2


@dataclass(frozen=True)
class Share:
    """Which part of each batch a process takes: part `rank` of `count`.

    A batch that is too small to give each process two samples is not cut: all of them compute all of it.
    """

    rank: int = 0
    count: int = 1

    def cuts(self, size: int) -> bool:
        """Whether a batch of this many samples is cut."""
        return self.count > 1 and size >= _LEAST * self.count

    def of(self, size: int) -> slice:
        """Samples of a batch of `size` that this process takes; the parts differ by one at most."""
        if not self.cuts(size):
            return slice(0, size)
        return slice(size * self.rank // self.count, size * (self.rank + 1) // self.count)


ALONE = Share()


class Processes:
    """A process that trains alone, and the questions that the training loop asks.

    Attributes
    ----------
    share : Share
    """

    def __init__(self, share: Share = ALONE) -> None:
        self.share = share

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and shows the progress."""
        return self.share.rank == 0

    def weight(self, size: int, whole: int) -> float:
        """Share of a batch of `whole` samples that is this process's, which holds `size` of them."""
        return 1.0

    def agreed(self, make: Callable[[], T]) -> T:
        """What `make` returns, or raises, in the first process; it is called nowhere else."""
        return make()

    def check_same(self, description: dict[str, Any]) -> None:
        """Raise ValueError, in all processes, where they are given different things to do."""

    def take_over(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by the first process's, in place."""

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        return tensor

    @contextmanager
    def sharing(self, model: nn.Module, *, cut: bool) -> Iterator[None]:
        """While a loss is computed: sums over samples are over all processes' parts of the batch."""
        yield

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum the gradients over the processes; each has weighed its loss by its share of the batch."""


class Group(Processes):
    """The processes of torch's default group (`torch.distributed`); see `Processes`."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(Share(dist.get_rank(), dist.get_world_size()))
        # A group with NCCL alone moves nothing that lies on the processor.
        on_cpu = "cpu:" in str(dist.get_backend_config())
        if not on_cpu and device.type != "cuda":
            raise ValueError(
                f"the processes are joined by {dist.get_backend()}, which needs CUDA devices, but device='{device}': "
                "make the group with init_process_group('gloo')"
            )
        self._through = None if on_cpu else device
        if not on_cpu:
            torch.cuda.set_device(device)  # what is no tensor goes through the present device

    def weight(self, size: int, whole: int) -> float:
        """Share of a batch of `whole` samples that is this process's, which holds `size` of them."""
        return size / whole if size < whole else 1.0 / self.share.count

    def agreed(self, make: Callable[[], T]) -> T:
        """What `make` returns, or raises, in the first process; it is called nowhere else."""
        answer: list[Any] = [None, None]
        if self.is_first:
            try:
                answer[0] = make()
            except Exception as error:
                answer[1] = error
        dist.broadcast_object_list(answer, src=0)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def check_same(self, description: dict[str, Any]) -> None:
        """Raise ValueError, in all processes, where they are given different things to do."""
        mine = {name: json.dumps(value, sort_keys=True, default=str) for name, value in description.items()}
        found: list[Any] = [None] * self.share.count
        dist.all_gather_object(found, mine)
        for rank, other in enumerate(found):
            differs = sorted(k for k in {**found[0], **other} if found[0].get(k) != other.get(k))
            if differs:
                values = ", ".join(f"{k} = {found[0].get(k)} and {other.get(k)}" for k in differs[:3])
                raise ValueError(
                    f"processes 0 and {rank} of {self.share.count} that train together were given different data or "
                    f"parameters ({values}): call fit with the same in all of them, the parts are handed out inside"
                )

    def take_over(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by the first process's, in place."""
        with torch.no_grad():
            for tensor in tensors:
                self._all(lambda t: dist.broadcast(t, src=0), tensor)

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        result = tensor.detach().clone(memory_format=torch.contiguous_format)
        self._all(dist.all_reduce, result)
        return result

    def _all(self, collective: Callable[[Tensor], Any], tensor: Tensor) -> None:
        """Run an in-place collective on a tensor, wherever it lies and whatever its strides."""
        if tensor.numel() == 0:
            return
        moved = tensor.detach().contiguous()
        if self._through is not None and not moved.is_cuda:
            moved = moved.to(self._through)
        collective(moved)
        if moved.data_ptr() != tensor.data_ptr():
            tensor.copy_(moved)

    @contextmanager
    def sharing(self, model: nn.Module, *, cut: bool) -> Iterator[None]:
        """While a loss is computed: sums over samples are over all processes' parts of the batch."""
        # All have all of a batch that is not cut: their sum counts it many times.
        scale = 1.0 if cut else 1.0 / self.share.count

        def add(part: Tensor) -> Tensor:
            return self.add_up(part) * scale

        with summing(add), sharing_norms(model, add):
            yield

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum the gradients over the processes; each has weighed its loss by its share of the batch."""
        kinds: dict[tuple[torch.device, torch.dtype], list[nn.Parameter]] = {}
        for parameter in parameters:
            kinds.setdefault((parameter.device, parameter.dtype), []).append(parameter)
        for same in kinds.values():
            # One message for all; a flag each, because a part of a batch may leave a parameter unused.
            used = same[0].new_tensor([parameter.grad is not None for parameter in same])
            parts = [p.new_zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in same]
            flags, *sums = self.add_up(torch.cat([used, *parts])).split(
                [len(same), *(p.numel() for p in same)]
            )
            for parameter, flag, gradient in zip(same, flags.tolist(), sums, strict=True):
                parameter.grad = gradient.view_as(parameter) if flag else None


def join_processes(device: torch.device) -> Processes:
    """The processes that this one trains with: torch's default group, or the one that torchrun describes.

    torchrun's description (RANK, WORLD_SIZE, MASTER_ADDR in the environment) is followed where no group has been made:
    gloo between processors, NCCL between CUDA devices.
    """
    if not dist.is_available():
        return Processes()
    if not dist.is_initialized():
        launched = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
        if not launched or int(os.environ["WORLD_SIZE"]) < 2:
            return Processes()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    return Group(device) if dist.get_world_size() > 1 else Processes()


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
