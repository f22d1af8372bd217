"""Sample graphs on disk: a folder with one .npy file a tensor and a graph.json that names them.

Replacing graph.json is the moment at which a save takes effect. The arrays of a new save get new names (a counter), and
the old ones are removed only afterwards, so an interrupted save, or one for which the disk has no room, leaves the
previous graph readable. Arrays are written and checked in pieces: a memory map of any size is copied without being
held.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphclust._checks import share_tensor
from graphclust._files import is_no_folder, open_map
from graphclust._storage import fetch, resolve, sending

FORMAT = "graphclust.SampleGraph"
VERSION = 1
_HEADER = "graph.json"
_PLAIN = (bool, int, float, str)
_PIECE_BYTES = 16 << 20
#: Arrays of at most so many bytes are compared with their checksum whenever they are opened: some milliseconds.
_ALWAYS_COMPARED = 32 << 20
#: Room for headers and the file system's own blocks.
_SPARE_BYTES = 1 << 16


def save(
    folder: str | Path,
    values: dict[str, Any],
    construction: dict[str, Any],
    *,
    references: dict[str, str | Path] | None = None,
) -> Path:
    """Write tensors and plain values by name; returns the folder.

    Parameters
    ----------
    folder : path or address
        See `graphclust._storage`.
    values : dict of str to Tensor, number, text or None
    construction : dict
        Plain types.
    references : dict of str to path, optional
        .npy files that hold some of the tensors already: these are not copied, but named by their absolute path with
        size and checksum.

    Raises
    ------
    OSError
        With errno ENOSPC when the disk has too little room, before anything is written where that can be told. What
        was in the folder stays.
    """
    place = resolve(folder)
    if isinstance(place, str):
        if references:
            raise ValueError(
                f"the features stay in a file of this machine, which who opens {place} may not have: leave features= "
                "out, and they are copied there"
            )
        with sending(place) as partial:
            save(partial, values, construction)
        return Path(folder)
    folder = place
    if is_no_folder(folder):
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
    references = dict(references or {})
    tensors = {key: value.detach() for key, value in values.items() if isinstance(value, Tensor)}
    header["values"] = {
        key: value for key, value in values.items() if value is not None and key not in tensors
    }
    copied = [tensor for key, tensor in tensors.items() if key not in references]
    needed = sum(tensor.numel() * _dtype(tensor).itemsize for tensor in copied) + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise _disk_full(folder, needed, free)
    written: list[Path] = []
    try:
        with _reporting_full_disk(folder, needed):
            for key, tensor in tensors.items():
                if key in references:
                    header["arrays"][key] = _reference(Path(references[key]), key, tensor)
                    continue
                written.append(folder / f"{key}.{counter}.npy")
                header["arrays"][key] = _write(written[-1], tensor)
            written.append(folder / f"{_HEADER}.{counter}.tmp")
            with open(written[-1], "w", encoding="utf-8") as stream:
                json.dump(header, stream, indent=2)
                _flush(stream)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    os.replace(written[-1], folder / _HEADER)
    for entry in (old or {}).get("arrays", {}).values():
        if "path" not in entry:
            (folder / Path(entry["file"]).name).unlink(missing_ok=True)
    return folder


def load(folder: str | Path, *, verify: bool | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what :func:`save` wrote: the values by name (tensors over memory maps) and the construction.

    Size, shape and type of each array are checked against graph.json; its checksum too, for which all of it is read,
    where ``verify`` is true, or None and the array small. What is at an address is fetched into the local cache first,
    and its checksums are compared there.
    """
    place = resolve(folder)
    folder = fetch(place) if isinstance(place, str) else place
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
            values[key] = _map(folder, entry, verify)
        return values, dict(header["construction"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / _HEADER} is damaged (missing or wrong: {error}); save the graph again"
        ) from error


def _map(folder: Path, entry: dict[str, Any], verify: bool | None) -> Tensor:
    if "path" in entry:
        path, remedy = Path(entry["path"]), "restore that file, or save the graph with a copy of its features"
    else:
        # A header cannot point out of its folder by a file's name.
        path, remedy = folder / Path(entry["file"]).name, "restore it or save the graph again"
    try:
        # Copy on write: the tensors may be changed in memory, the files stay as they are. Empty files cannot be mapped.
        array = np.load(path, mmap_mode=None if 0 in entry["shape"] else "c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        state = "is missing"
        if path.exists():
            size = f"{path.stat().st_size:,} bytes" + (f" of {entry['bytes']:,}" if "bytes" in entry else "")
            state = f"cannot be read (shorter than its header says, or damaged: {size})"
        raise ValueError(f"{path} {state}; {remedy}") from error
    if list(array.shape) != entry["shape"] or array.dtype.str != entry["dtype"]:
        raise ValueError(
            f"{path} holds {array.dtype.str} {list(array.shape)}, but {_HEADER} says "
            f"{entry['dtype']} {entry['shape']}; {remedy}"
        )
    if "bytes" in entry and path.stat().st_size != entry["bytes"]:
        raise ValueError(
            f"{path} has {path.stat().st_size:,} bytes, but {_HEADER} says {entry['bytes']:,}; {remedy}"
        )
    tensor = share_tensor(array)
    compared = array.nbytes <= _ALWAYS_COMPARED if verify is None else verify
    if compared and "crc32" in entry and (found := checksum(tensor)) != entry["crc32"]:
        raise ValueError(
            f"{path} has checksum {found:08x}, but {_HEADER} says {entry['crc32']:08x}: its content changed; {remedy}"
        )
    return tensor


def _dtype(tensor: Tensor) -> np.dtype[Any]:
    """Type in the file; NumPy has no bfloat16."""
    if tensor.dtype == torch.bfloat16:
        return np.dtype(np.float32)
    return torch.empty(0, dtype=tensor.dtype).numpy().dtype


def _pieces(tensor: Tensor) -> Iterator[memoryview]:
    """The bytes of a tensor in C order, some rows at a time."""
    rows = tensor.reshape(1) if tensor.ndim == 0 else tensor
    width = max(1, rows[:1].numel() * rows.element_size())
    step = max(1, _PIECE_BYTES // width)
    if rows.numel() and len(rows) < 4 and rows.ndim > 1:  # [2, E]: few long rows
        for row in rows:
            yield from _pieces(row)
        return
    for start in range(0, len(rows), step):
        block = rows[start : start + step].cpu()
        array = (block.float() if block.dtype == torch.bfloat16 else block).contiguous().numpy()
        if array.size:
            yield array.data.cast("B")


def _write(path: Path, tensor: Tensor) -> dict[str, Any]:
    """Write a .npy file in pieces; its entry in the header."""
    dtype, crc32 = _dtype(tensor), 0
    with open(path, "wb") as stream:
        description = {"descr": dtype.str, "fortran_order": False, "shape": tuple(tensor.shape)}
        np.lib.format.write_array_header_1_0(stream, description)
        for piece in _pieces(tensor):
            stream.write(piece)
            crc32 = zlib.crc32(piece, crc32)
        _flush(stream)
        size = stream.tell()
    return {
        "file": path.name,
        "shape": list(tensor.shape),
        "dtype": dtype.str,
        "bytes": size,
        "crc32": crc32,
    }


def checksum(tensor: Tensor) -> int:
    """CRC-32 of a tensor's bytes in C order, read once, in pieces."""
    found = 0
    for piece in _pieces(tensor):
        found = zlib.crc32(piece, found)
    return found


def _reference(path: Path, key: str, tensor: Tensor) -> dict[str, Any]:
    """The entry of an array that stays where it is, checked to hold the tensor."""
    path = path.absolute()
    array = open_map(path, path, f"leave it out to copy {key}")
    crc32 = checksum(tensor)
    same = array.shape == tuple(tensor.shape) and array.dtype == _dtype(tensor)
    if not same or checksum(share_tensor(array)) != crc32:
        raise ValueError(
            f"{path} does not hold this graph's {key} ({_dtype(tensor).str} {list(tensor.shape)}), but "
            f"{array.dtype.str} {list(array.shape)} or other values; name the file it was made from, or leave it out "
            f"to copy {key}"
        )
    return {
        "path": str(path),
        "shape": list(tensor.shape),
        "dtype": array.dtype.str,
        "bytes": path.stat().st_size,
        "crc32": crc32,
    }


@contextmanager
def _reporting_full_disk(folder: Path, needed: int) -> Iterator[None]:
    """One message for a disk that runs full while it is written to."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) and error.filename is None:
            raise _disk_full(folder, needed, shutil.disk_usage(folder).free) from error
        raise


def _disk_full(folder: Path, needed: int, free: int) -> OSError:
    return OSError(
        errno.ENOSPC,
        f"no room for the graph: {needed:,} bytes are needed and {free:,} are free; free some, save to another disk, "
        "or leave the features where they are (features=...). A graph that was there before is unchanged",
        str(folder),
    )


def _old_header(folder: Path) -> dict[str, Any] | None:
    try:
        header = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return header if isinstance(header, dict) and header.get("format") == FORMAT else None


def _flush(stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())
