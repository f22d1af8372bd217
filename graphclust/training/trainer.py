"""The one training loop of the package."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from graphclust.training.batches import Batch, BatchSource
from graphclust.training.checkpoint import (
    optimizer_tensors,
    read_folder,
    restore_optimizer,
    write_folder_atomically,
)
from graphclust.training.progress import TrainingProgress
from graphclust.training.stage import Loss, Stage, Step

History = list[dict[str, Any]]


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for; None or "auto" takes CUDA, then Apple's MPS, then the CPU."""
    if device is None or device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device is {device!r} and torch sees no CUDA device here: use device='cpu' or 'auto'"
        )
    return chosen


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


class _Objective(nn.Module):
    """Model and loss as one module, so that Fabric can wrap its forward pass (precision, DDP)."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: Batch) -> Step:
        return self.loss(self.model, batch)


class Trainer:
    """Runs the stages of a method over full or mini-batches.

    Every epoch draws its randomness from (seed, stage, epoch) alone. A run that was killed and resumed from its last
    checkpoint therefore ends exactly as an unbroken one, without random-number state in the checkpoint; the global
    generators of torch are left as they were.

    Parameters
    ----------
    seed : int
    device : str, torch.device or None
        None chooses, see `choose_device`.
    precision : str, default="auto"
        "auto", or a precision of Lightning Fabric ("32-true", "bf16-mixed", ...).
    checkpoint : path or None
        Folder for checkpoints; if it holds one of this same run, training goes on from there.
    checkpoint_every : int, default=10
        Epochs between checkpoints; one is also written after each stage.
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
        if checkpoint_every < 1:
            raise ValueError(f"checkpoint_every is {checkpoint_every}, it must be at least 1")
        self.seed = seed
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.checkpoint_every = checkpoint_every
        self.verbose = verbose

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
        fabric = Fabric(accelerator=self.device.type, devices=devices, precision=self.precision)
        model.to(self.device)
        resumed = self._load(fingerprint)
        history: History = []
        first_stage = first_epoch = 0
        if resumed is not None:
            tensors, meta = resumed
            history, first_stage, first_epoch = meta["history"], meta["stage"], meta["epoch"]
            model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
            memory.update({k[7:]: v for k, v in tensors.items() if k.startswith("memory.")})
        with TrainingProgress(self.verbose) as progress, torch.random.fork_rng(devices=self._cuda_devices()):
            for number in range(first_stage, len(stages)):
                at = first_epoch if number == first_stage else 0
                tensors = resumed[0] if resumed is not None and number == first_stage else {}
                self._run_stage(
                    fabric,
                    model,
                    stages[number],
                    number,
                    at,
                    tensors,
                    batches,
                    history,
                    progress,
                    memory,
                    fingerprint,
                )
        return history

    def _cuda_devices(self) -> list[int]:
        return [self.device.index or 0] if self.device.type == "cuda" else []

    def _run_stage(
        self,
        fabric: Fabric,
        model: nn.Module,
        stage: Stage,
        number: int,
        first_epoch: int,
        tensors: dict[str, Tensor],
        batches: BatchSource,
        history: History,
        progress: TrainingProgress,
        memory: dict[str, Tensor],
        fingerprint: dict[str, Any] | None,
    ) -> None:
        if first_epoch == 0:
            torch.manual_seed(self._epoch_seed(number, 0))
            if stage.start is not None:
                model.eval()
                stage.start()
        parameters = list(stage.parameters(model) if stage.parameters is not None else model.parameters())
        if stage.epochs <= first_epoch or not parameters:
            return
        fused = self.device.type in ("cuda", "cpu")
        optimizer = torch.optim.AdamW(
            parameters, stage.learning_rate, weight_decay=stage.weight_decay, fused=fused
        )
        objective, wrapped = fabric.setup(_Objective(model, stage.loss), optimizer)
        if first_epoch:
            restore_optimizer(optimizer, tensors)
        labels = tensors["labels"] if first_epoch else torch.full((batches.n_samples,), -1, dtype=torch.int32)
        calm = 0
        for record in history[len(history) - first_epoch :]:
            calm = self._calm_epochs(record, stage, calm)
        progress.start_stage(stage.name, stage.epochs, first_epoch)
        for epoch in range(first_epoch, stage.epochs):
            started = time.perf_counter()
            torch.manual_seed(self._epoch_seed(number, epoch + 1))
            rate = stage.learning_rate * stage.decay ** (epoch // stage.decay_every)
            for group in optimizer.param_groups:
                group["lr"] = rate
            record = self._run_epoch(fabric, objective, wrapped, stage, number, epoch, batches, labels)
            record |= {"learning_rate": rate, "seconds": time.perf_counter() - started}
            calm = self._calm_epochs(record, stage, calm)
            history.append(record)
            last = epoch + 1 == stage.epochs or calm >= stage.patience
            progress.epoch(record, stage.epochs, last=last)
            if self.checkpoint is not None and (last or (epoch + 1) % self.checkpoint_every == 0):
                where = {"stage": number + 1, "epoch": 0} if last else {"stage": number, "epoch": epoch + 1}
                tensors = {f"memory.{k}": v for k, v in memory.items()} | {"labels": labels}
                meta = {**where, "history": history, "fingerprint": fingerprint}
                self._save(model, optimizer, tensors, meta)
            if last:
                break

    def _run_epoch(
        self,
        fabric: Fabric,
        objective: Any,
        optimizer: Any,
        stage: Stage,
        number: int,
        epoch: int,
        batches: BatchSource,
        labels: Tensor,
    ) -> dict[str, Any]:
        objective.train()
        sums: dict[str, Tensor] = {}
        changed = None
        for batch in batches.epoch(
            self._epoch_seed(number, epoch + 1), stage.batch_size, uses_graph=stage.uses_graph
        ):
            step: Step = objective(batch)
            loss = torch.stack([term.float() for term in step.terms.values()]).sum()
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss)
            optimizer.step()
            share = batch.size / batches.n_samples
            for name, term in {"loss": loss, **step.terms}.items():
                sums[name] = sums.get(name, 0.0) + term.detach() * share
            if step.probabilities is not None:
                new = step.probabilities.detach().argmax(dim=1).to("cpu", torch.int32)
                index = batch.index.cpu()
                changed = (changed or 0) + int((labels[index] != new).sum())
                labels[index] = new
        values = {name: float(value) for name, value in sums.items()}
        if not all(map(_finite, values.values())):
            raise FloatingPointError(
                f"the loss of stage {stage.name!r} became {values} in epoch {epoch + 1}: lower the learning rate "
                f"({stage.learning_rate}) or scale the features"
            )
        record: dict[str, Any] = {"stage": stage.name, "epoch": epoch + 1, **values}
        if changed is not None:
            record["changed"] = changed / batches.n_samples
        return record

    @staticmethod
    def _calm_epochs(record: dict[str, Any], stage: Stage, calm: int) -> int:
        if stage.tolerance is None or record.get("changed") is None:
            return 0
        return calm + 1 if record["changed"] < stage.tolerance else 0

    def _epoch_seed(self, stage: int, epoch: int) -> int:
        return (self.seed * 1_000_003 + stage * 10_007 + epoch) % 2**62

    def _save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        tensors: dict[str, Tensor],
        meta: dict[str, Any],
    ) -> None:
        assert self.checkpoint is not None
        weights = {f"model.{k}": v for k, v in model.state_dict().items()}
        write_folder_atomically(self.checkpoint, {**weights, **optimizer_tensors(optimizer), **tensors}, meta)

    def _load(self, fingerprint: dict[str, Any] | None) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        found = None if self.checkpoint is None else read_folder(self.checkpoint)
        if found is not None and found[1]["fingerprint"] != fingerprint:
            other = found[1]["fingerprint"] or {}
            differs = sorted(
                k for k in {**other, **(fingerprint or {})} if other.get(k) != (fingerprint or {}).get(k)
            )
            raise ValueError(
                f"the checkpoint in {self.checkpoint} belongs to another run (it differs in {', '.join(differs)}): "
                "name another folder, or delete this one to start anew"
            )
        return found


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")
