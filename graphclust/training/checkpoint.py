"""Checkpoints of a training run: safetensors and JSON, written so that a killed run never leaves half a file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT_VERSION = 1


def write_folder_atomically(folder: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write `state.safetensors` and `state.json` into `folder`, replacing what was there in one rename.

    The new files are complete before the old ones go: a run killed in between finds one or the other.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(folder.name + ".partial")
    previous = folder.with_name(folder.name + ".previous")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial / "state.safetensors")
    (partial / "state.json").write_text(json.dumps({"format_version": FORMAT_VERSION, **meta}, indent=1))
    if previous.exists():
        shutil.rmtree(previous)
    if folder.exists():
        os.replace(folder, previous)
    os.replace(partial, folder)
    if previous.exists():
        shutil.rmtree(previous)


def read_folder(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and meta data of the last complete checkpoint in `folder`, None when there is none."""
    if not folder.exists():
        previous = folder.with_name(folder.name + ".previous")
        if not previous.exists():
            return None
        folder = previous  # killed between the two renames
    try:
        meta = json.loads((folder / "state.json").read_text())
        tensors = load_file(folder / "state.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"the checkpoint in {folder} cannot be read ({error}): delete the folder to start anew"
        ) from error
    if meta.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"the checkpoint in {folder} has format version {meta.get('format_version')}, this graphclust reads "
            f"version {FORMAT_VERSION}: delete the folder to start anew"
        )
    return tensors, meta


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of an optimiser as a flat dict ``optimizer.<parameter>.<name>`` of tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{number}.{name}": value
        for number, entries in state.items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".", 2)
            state.setdefault(int(number), {})[name] = value
    full = optimizer.state_dict()
    full["state"] = state
    optimizer.load_state_dict(full)
