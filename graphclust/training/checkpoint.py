"""Checkpoints of a training run: one safetensors file, replaced in one step, so that a killed run leaves no half."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from graphclust._files import naming_full_disk, replacing
from graphclust._storage import fetch, resolve, sending, version_at

FORMAT_VERSION = 1
FILE_NAME = "checkpoint.safetensors"


def write_checkpoint(folder: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write the tensors, and `meta` as JSON in the header, to ``checkpoint.safetensors`` in `folder`.

    The new file is complete before it takes the old one's name: a run killed in between finds one or the other.
    Other files in the folder are left alone. The folder may be at an address (`graphclust._storage`).
    """
    place = resolve(folder)
    if isinstance(place, str):
        with sending(place) as local:
            write_checkpoint(local, tensors, meta)
        return
    separate = _separate(tensors)
    noted = {"format_version": FORMAT_VERSION, "crc32": _checksum(separate), **meta}
    header = {"graphclust": json.dumps(noted)}
    with replacing(place / FILE_NAME) as partial, naming_full_disk(place, "the checkpoint"):
        save_file(separate, partial, metadata=header)


def is_checkpoint(folder: str | Path) -> bool:
    """Whether the folder, which may be at an address, holds a checkpoint; it is not read."""
    place = resolve(folder)
    return version_at(place) is not None if isinstance(place, str) else (place / FILE_NAME).exists()


def read_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and meta data of the checkpoint in `folder`, None when there is none.

    Raises
    ------
    ValueError
        When the file is damaged or of another format version. It is left as it is.
    """
    place = resolve(folder)
    if isinstance(place, str):
        if version_at(place) is None:
            return None
        place = fetch(place)
    path = place / FILE_NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})["graphclust"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ValueError(
            f"the checkpoint {path} cannot be read ({error}): delete it to start anew"
        ) from error
    if meta.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"the checkpoint {path} has format version {meta.get('format_version')}, this graphclust reads "
            f"version {FORMAT_VERSION}: delete it to start anew"
        )
    if "crc32" in meta and _checksum(tensors) != meta.pop("crc32"):
        raise ValueError(
            f"the checkpoint {path} has another checksum than when it was written: its content changed; restore it, or "
            "delete it to start anew"
        )
    return tensors, meta


def _checksum(tensors: dict[str, Tensor]) -> int:
    """CRC-32 of the tensors' bytes, in the order of their names."""
    found = 0
    for name in sorted(tensors):
        found = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, found)
    return found


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, none of them sharing memory with another (tied weights): safetensors refuses that."""
    seen: set[int] = set()
    separate: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        separate[name] = tensor
    return separate


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
