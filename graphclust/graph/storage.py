"""Sample graphs on disk: a folder with one .npy file a tensor and a graph.json that names them.

Replacing graph.json is the moment at which a save takes effect. The arrays of a new save get new names (a counter), and
the old ones are removed only afterwards, so an interrupted save leaves the previous graph readable.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphclust._checks import share_tensor

FORMAT = "graphclust.SampleGraph"
VERSION = 1
_HEADER = "graph.json"
_PLAIN = (bool, int, float, str)


def save(folder: str | Path, values: dict[str, Any], construction: dict[str, Any]) -> Path:
    """Write tensors and plain values by name; returns the folder."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; pass a folder")
    unknown = [
        key for key, value in values.items() if not (value is None or isinstance(value, (Tensor, *_PLAIN)))
    ]
    if unknown:
        raise TypeError(
            f"the attributes {unknown} are neither tensors nor numbers and text; remove them before saving"
        )
    folder.mkdir(parents=True, exist_ok=True)
    old = _old_header(folder)
    counter = old.get("counter", 0) + 1 if old else 1
    header: dict[str, Any] = {"format": FORMAT, "version": VERSION, "counter": counter}
    header |= {"construction": construction, "arrays": {}, "values": {}}
    for key, value in values.items():
        if isinstance(value, Tensor):
            tensor = value.detach().cpu()
            array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
            file = f"{key}.{counter}.npy"
            with open(folder / file, "wb") as stream:
                np.save(stream, array, allow_pickle=False)
                _flush(stream)
            header["arrays"][key] = {"file": file, "shape": list(array.shape), "dtype": array.dtype.str}
        elif value is not None:
            header["values"][key] = value
    temporary = folder / f"{_HEADER}.{counter}.tmp"
    with open(temporary, "w", encoding="utf-8") as stream:
        json.dump(header, stream, indent=2)
        _flush(stream)
    os.replace(temporary, folder / _HEADER)
    for entry in (old or {}).get("arrays", {}).values():
        (folder / Path(entry["file"]).name).unlink(missing_ok=True)
    return folder


def load(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what :func:`save` wrote: the values by name (tensors over memory maps) and the construction."""
    folder = Path(folder)
    if not (folder / _HEADER).is_file():
        raise FileNotFoundError(
            f"there is no saved graph in {folder} (no {_HEADER}); make one with SampleGraph.save"
        )
    try:
        header = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / _HEADER} is damaged ({error}); save the graph again") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{folder / _HEADER} does not describe a sample graph (format {FORMAT!r} is needed)")
    if header.get("version") != VERSION:
        raise ValueError(
            f"{folder} has format version {header.get('version')!r}, but this graphclust reads version {VERSION}; "
            "open it with the graphclust that wrote it, or save the graph again"
        )
    try:
        values = dict(header["values"])
        for key, entry in header["arrays"].items():
            values[key] = _map(folder, entry)
        return values, dict(header["construction"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / _HEADER} is damaged (missing or wrong: {error}); save the graph again"
        ) from error


def _map(folder: Path, entry: dict[str, Any]) -> Tensor:
    path = folder / Path(entry["file"]).name  # a header cannot point out of its folder
    try:
        # Copy on write: the tensors may be changed in memory, the files stay as they are. Empty files cannot be mapped.
        array = np.load(path, mmap_mode=None if 0 in entry["shape"] else "c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        state = "cannot be read (shorter than its header says, or damaged)" if path.exists() else "is missing"
        raise ValueError(f"{path} {state}; restore it or save the graph again") from error
    if list(array.shape) != entry["shape"] or array.dtype.str != entry["dtype"]:
        raise ValueError(
            f"{path} holds {array.dtype.str} {list(array.shape)}, but {_HEADER} says "
            f"{entry['dtype']} {entry['shape']}; restore the file or save the graph again"
        )
    return share_tensor(array)


def _old_header(folder: Path) -> dict[str, Any] | None:
    try:
        header = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return header if isinstance(header, dict) and header.get("format") == FORMAT else None


def _flush(stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())
