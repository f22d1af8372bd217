"""The one training loop of the package."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn

from graphclust._checks import check_count, check_device
from graphclust._random import private_randomness
from graphclust.training.batches import Batch, BatchSource
from graphclust.training.checkpoint import (
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)
from graphclust.training.processes import join_processes
from graphclust.training.progress import TrainingProgress
from graphclust.training.stage import Loss, Stage, Step

History = list[dict[str, Any]]

#: Seconds after which a checkpoint is due, however few epochs went by: no loss costs more than this and an epoch.
_CHECKPOINT_AFTER = 300.0
#: Products that the CPU's library keeps compiled at most, and what it calls that number.
_MOST_COMPILED = 256
_COMPILED = "PRIMITIVE_CACHE_CAPACITY"


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for; None takes CUDA, else the CPU (Apple's MPS lacks the sparse products)."""
    if device is None:
        if torch.cuda.is_available():
            return _own_cuda_device()
        return torch.device("cpu")
    chosen = check_device(device)
    assert chosen is not None
    if str(chosen) == "cuda":  # all that follows has to mean the same one
        return _own_cuda_device()
    return chosen


def _own_cuda_device() -> torch.device:
    """Of several processes on a machine, each has a device: torchrun numbers them."""
    number = int(os.environ.get("LOCAL_RANK", torch.cuda.current_device()))
    return torch.device("cuda", number % torch.cuda.device_count())


def choose_precision(precision: str, device: torch.device) -> Any:
    """Fabric's name of the precision: "auto" is bfloat16 where the hardware multiplies it faster than float32.

    That is CUDA from compute capability 8 and CPUs with AVX512-BF16 or AMX; elsewhere torch emulates bfloat16, which
    was measured at a sixth of float32's speed.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        pays = torch.cuda.get_device_capability(device)[0] >= 8
    else:
        # No public query exists: these are torch's own, absent on some platforms.
        queries = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        pays = device.type == "cpu" and any(getattr(torch.cpu, q, lambda: False)() for q in queries)
    return "bf16-mixed" if pays else "32-true"


class _Bfloat16(MixedPrecision):
    """Products in bfloat16, of batches that stay as they are.

    Fabric's own rounds features, edge weights and targets to bfloat16 before the model sees them, so that losses
    compare with rounded data (three digits), and announces itself on standard error in each fit.
    """

    def convert_input(self, data: Any) -> Any:
        return data


def _bound_compiled_products() -> None:
    """Keep fewer compiled products of the CPU's library than it would, unless the user has said how many.

    It compiles one for each shape, of half a megabyte, and keeps 1,024 of them; sampled batches have a new number of
    rows every time. It reads the number when it is first asked for a product, so a later call does nothing.
    """
    if not any(f"{prefix}{_COMPILED}" in os.environ for prefix in ("ONEDNN_", "DNNL_")):
        os.environ[f"ONEDNN_{_COMPILED}"] = str(_MOST_COMPILED)


class _Objective(nn.Module):
    """Model and loss as one module, so that Fabric can wrap its forward pass (precision, DDP)."""

    def __init__(self, model: nn.Module, loss: Loss | None) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: Batch) -> Step:
        assert self.loss is not None
        return self.loss(self.model, batch)


@dataclass
class _Run:
    """What all stages of one call of `fit` share."""

    fabric: Fabric
    model: nn.Module
    batches: BatchSource
    memory: dict[str, Tensor]
    fingerprint: dict[str, Any]
    progress: TrainingProgress
    history: History


@dataclass
class _RunningStage:
    """A stage while its epochs go by."""

    stage: Stage
    number: int
    objective: Any
    optimizer: Any  # as Fabric wraps it
    labels: Tensor  # [N], int32; -1 before the first epoch


class _Resumed(NamedTuple):
    """Where training goes on: stage, epochs of it that are done, and the checkpoint's tensors."""

    stage: int = 0
    epoch: int = 0
    tensors: dict[str, Tensor] = {}


class Trainer:
    """Runs the stages of a method over full or mini-batches.

    Every epoch draws its randomness from (seed, stage, epoch) alone. A run that was killed and resumed from its last
    checkpoint therefore ends exactly as an unbroken one on the processor, without random-number state in the
    checkpoint (on CUDA up to the order in which sums are taken); the global generators of torch are left as they were.

    Where several processes train together (torchrun, or a group of `torch.distributed`), each takes its part of every
    batch, see `graphclust.training.processes`; all of them call `fit`, and end with the same weights.

    Parameters
    ----------
    seed : int
        Of several processes, that of the first counts.
    device : str, torch.device or None
        None chooses, see `choose_device`.
    precision : str, default="auto"
        "auto", or a precision of Lightning Fabric ("32-true", "bf16-mixed", ...).
    checkpoint : path or None
        Folder for checkpoints; if it holds one of this same run, training goes on from there.
    checkpoint_every : int, default=10
        Epochs between checkpoints; one is also written after each stage, and after five minutes without one.
    verbose : bool
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        device: str | torch.device | None = None,
        precision: str = "auto",
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 10,
        verbose: bool = False,
    ) -> None:
        self.device = choose_device(device)
        self.processes = join_processes(self.device)
        self.seed = self.processes.agreed(lambda: seed)
        self.precision = choose_precision(precision, self.device)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.checkpoint_every = check_count(checkpoint_every, "checkpoint_every")
        self.verbose = verbose
        self._saved_at = time.monotonic()

    def fit(
        self,
        model: nn.Module,
        stages: Sequence[Stage],
        batches: BatchSource,
        *,
        memory: dict[str, Tensor] | None = None,
        fingerprint: dict[str, Any] | None = None,
    ) -> History:
        """Train `model` in place, stage after stage.

        Parameters
        ----------
        model : Module
        stages : sequence of Stage
        batches : BatchSource
        memory : dict of Tensor, optional
            What the stages hand on to each other besides the model (first labels, fixed targets). It is part of the
            checkpoints, and filled from them when a run is resumed.
        fingerprint : dict, optional
            JSON-able description of the run (parameters, data). A checkpoint of a run with another one is refused.

        Returns
        -------
        list of dict
            A record per epoch: stage, epoch (from 1), loss, its terms, changed (share of labels), learning_rate,
            seconds.
        """
        memory = {} if memory is None else memory
        index = 0 if self.device.index is None else self.device.index
        devices: Any = [index] if self.device.type == "cuda" else 1
        precision: dict[str, Any] = {"precision": self.precision}
        if self.precision == "bf16-mixed":
            _bound_compiled_products()
            precision = {"plugins": _Bfloat16(self.precision, self.device.type)}
        fabric = Fabric(accelerator=self.device.type, devices=devices, **precision)
        model.to(self.device)
        fingerprint = fingerprint or {}
        self.processes.check_same({"n_samples": batches.n_samples, "stages": len(stages), **fingerprint})
        self.processes.take_over(model.state_dict().values())
        whole = [stage.name for stage in stages if stage.epochs and stage.batch_size is None]
        if self.processes.share.count > 1 and self.processes.is_first and whole:
            warnings.warn(
                f"{self.processes.share.count} processes train together, but each of them computes all of the stages "
                f"{', '.join(whole)}, which take the full graph in a step: pass batch_size to share the work",
                stacklevel=3,
            )
        shown = self.verbose and self.processes.is_first
        with TrainingProgress(shown) as progress:
            run = _Run(fabric, model, batches, memory, fingerprint, progress, [])
            resumed = self._resume(run)
            for number in range(resumed.stage, len(stages)):
                self._run_stage(
                    run, stages[number], number, resumed if number == resumed.stage else _Resumed()
                )
        self.processes.take_over(model.state_dict().values())
        return run.history

    def _run_stage(self, run: _Run, stage: Stage, number: int, resumed: _Resumed) -> None:
        if resumed.epoch == 0 and stage.start is not None:
            run.model.eval()
            with private_randomness(self._epoch_seed(number, 0), self.device):
                stage.start()
            state = {**run.model.state_dict(), **{f"memory.{k}": v for k, v in run.memory.items()}}
            self.processes.check_same(
                {"epochs": stage.epochs} | {name: list(value.shape) for name, value in state.items()}
            )
            self.processes.take_over(state.values())
        chosen = stage.parameters(run.model) if stage.parameters is not None else run.model.parameters()
        parameters = list(chosen)
        if stage.epochs <= resumed.epoch or not parameters:
            return
        running = self._set_up(run, stage, number, parameters, resumed)
        calm = 0
        # Epochs whose first steps warm up tell nothing of an end.
        rising = -(-stage.warm_up // run.batches.n_batches(stage.batch_size))
        for record in run.history[len(run.history) - resumed.epoch :]:
            calm = self._calm_epochs(record, stage, calm, rising)
        run.progress.start_stage(stage.name, stage.epochs, resumed.epoch)
        for epoch in range(resumed.epoch, stage.epochs):
            record = self._run_epoch(run, running, epoch)
            calm = self._calm_epochs(record, stage, calm, rising)
            run.history.append(record)
            last = epoch + 1 == stage.epochs or calm >= stage.patience
            run.progress.epoch(record, stage.epochs, last=last)
            overdue = time.monotonic() - self._saved_at > _CHECKPOINT_AFTER
            if last or overdue or (epoch + 1) % self.checkpoint_every == 0:
                self._save(run, running, *((number + 1, 0) if last else (number, epoch + 1)))
            if last:
                break

    def _set_up(
        self, run: _Run, stage: Stage, number: int, parameters: list[nn.Parameter], resumed: _Resumed
    ) -> _RunningStage:
        fused = self.device.type in ("cuda", "cpu")
        optimizer = torch.optim.AdamW(
            parameters, stage.learning_rate, weight_decay=stage.weight_decay, fused=fused
        )
        objective, wrapped = run.fabric.setup(_Objective(run.model, stage.loss), optimizer)
        labels = torch.full((run.batches.n_samples,), -1, dtype=torch.int32)
        if resumed.epoch:
            restore_optimizer(optimizer, resumed.tensors)
            labels = resumed.tensors["labels"]
        return _RunningStage(stage, number, objective, wrapped, labels)

    def _run_epoch(self, run: _Run, running: _RunningStage, epoch: int) -> dict[str, Any]:
        size, share = running.stage.batch_size, self.processes.share
        seed = self._epoch_seed(running.number, epoch + 1)
        cut = size is not None and share.cuts(min(size, run.batches.n_samples))
        # Each part has noise of its own.
        with private_randomness(seed + 2**61 * share.rank // share.count if cut else seed, self.device):
            return self._run_steps(run, running, epoch, seed)

    def _run_steps(self, run: _Run, running: _RunningStage, epoch: int, seed: int) -> dict[str, Any]:
        started = time.perf_counter()
        stage, optimizer, labels = running.stage, running.optimizer, running.labels
        steps = run.batches.n_batches(stage.batch_size)
        running.objective.train()
        sums: dict[str, Tensor] = {}
        moved: Tensor | None = None
        before = labels.to(self.device)  # read in every step
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        batches = run.batches.epoch(
            seed,
            stage.batch_size,
            uses_graph=stage.uses_graph,
            hops=stage.hops,
            share=self.processes.share,
        )
        for number, batch in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = stage.rate_of(epoch * steps + number, steps)
            weight = self.processes.weight(batch.size, batch.whole)
            with self.processes.sharing(run.model, cut=batch.is_part):
                step: Step = running.objective(batch)
            loss = torch.stack([term.float() for term in step.terms.values()]).sum()
            optimizer.zero_grad(set_to_none=True)
            run.fabric.backward(loss * weight)
            self.processes.average(parameters)
            optimizer.step()
            part = batch.whole / run.batches.n_samples * weight
            for name, term in {"loss": loss, **step.terms}.items():
                sums[name] = sums.get(name, 0.0) + term.detach() * part
            if step.probabilities is not None:
                new = step.probabilities.detach().argmax(dim=1).to(torch.int32)
                index = batch.index.to(self.device)
                moved = torch.zeros_like(before) if moved is None else moved
                if batch.is_part or self.processes.is_first:
                    moved[index] = new - before[index]
        own = torch.tensor([float(value) for value in sums.values()], dtype=torch.float64)
        totals = self.processes.add_up(own).tolist()
        values = dict(zip(sums, totals, strict=True))
        if not all(map(math.isfinite, values.values())):
            raise FloatingPointError(
                f"the loss of stage {stage.name!r} became {values} in epoch {epoch + 1}: lower the learning rate "
                f"({stage.learning_rate}) or scale the features"
            )
        record: dict[str, Any] = {"stage": stage.name, "epoch": epoch + 1, **values}
        if moved is not None:
            moved = self.processes.add_up(moved.cpu())
            labels += moved
            record["changed"] = int(moved.count_nonzero()) / run.batches.n_samples
        return record | {
            "learning_rate": stage.rate_of(epoch * steps, steps),
            "seconds": time.perf_counter() - started,
        }

    @staticmethod
    def _calm_epochs(record: dict[str, Any], stage: Stage, calm: int, rising: int) -> int:
        if stage.tolerance is None or record.get("changed") is None or record["epoch"] <= rising:
            return 0
        return calm + 1 if record["changed"] < stage.tolerance else 0

    def _epoch_seed(self, stage: int, epoch: int) -> int:
        return (self.seed * 1_000_003 + stage * 10_007 + epoch) % 2**62

    def _save(self, run: _Run, running: _RunningStage, stage: int, epoch: int) -> None:
        """Write a checkpoint from which training goes on with `epoch` epochs of stage number `stage` done."""
        self._saved_at = time.monotonic()
        if self.checkpoint is None or not self.processes.is_first:
            return
        tensors = {f"model.{k}": v for k, v in run.model.state_dict().items()}
        tensors |= optimizer_tensors(running.optimizer.optimizer)
        tensors |= {f"memory.{k}": v for k, v in run.memory.items()} | {"labels": running.labels}
        where = {"stage": stage, "epoch": epoch}
        write_checkpoint(
            self.checkpoint, tensors, {**where, "history": run.history, "fingerprint": run.fingerprint}
        )

    def _resume(self, run: _Run) -> _Resumed:
        """Fill model, memory and history from the checkpoint, if there is one of this run."""
        folder = self.checkpoint
        found = None if folder is None else self.processes.agreed(lambda: read_checkpoint(folder))
        if found is None:
            return _Resumed()
        tensors, meta = found
        old, new = meta["fingerprint"], run.fingerprint
        # As JSON, because that is how it was kept: tuples come back as lists.
        differs = sorted(k for k in {**old, **new} if _as_json(old.get(k)) != _as_json(new.get(k)))
        if differs:
            raise ValueError(
                f"the checkpoint in {self.checkpoint} belongs to another run (it differs in {', '.join(differs)}): "
                "name another folder, or delete this one to start anew"
            )
        try:
            run.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        except RuntimeError as error:
            raise ValueError(
                f"the checkpoint in {self.checkpoint} is of another model ({error}): name another folder, or delete "
                "this one to start anew"
            ) from error
        run.memory.update({k[7:]: v for k, v in tensors.items() if k.startswith("memory.")})
        run.history.extend(meta["history"])
        return _Resumed(meta["stage"], meta["epoch"], tensors)


def _as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
