"""Sample graphs on disk: a folder with one .npy file a tensor and a graph.json that names them.

Replacing graph.json is the moment at which a save takes effect. The arrays of each save have names that no other save
gives, and the old ones are removed only afterwards. So an interrupted save, or one for which the disk has no room,
leaves the previous graph readable; of several saves at once the last one counts, as a whole; and who opens the graph
meanwhile gets one of them. Arrays are written and checked in pieces: a memory map of any size is copied without being
held.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphclust._checks import share_tensor
from graphclust._files import is_no_folder, open_map, sync
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
#: What a save writes, with the token of the save: its arrays, and its header until it counts.
_OWN = re.compile(r".+\.([0-9a-f]{32})\.(?:npy|tmp)")
#: A save that has begun no array for so long was killed.
_STALE_SECONDS = 24 * 3600
#: Times that a folder is read while others save to it.
_ATTEMPTS = 100


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
    token = uuid.uuid4().hex
    header: dict[str, Any] = {"format": FORMAT, "version": VERSION}
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
    own = _own_header(folder, token)
    written = [own]
    try:
        with _reporting_full_disk(folder, needed):
            for key, tensor in tensors.items():
                own.touch()  # before the array: it tells others that this save is going on, see `_tidy`
                if key in references:
                    header["arrays"][key] = _reference(Path(references[key]), key, tensor)
                    continue
                written.append(folder / f"{key}.{token}.npy")
                header["arrays"][key] = _write(written[-1], tensor)
            with open(own, "w", encoding="utf-8") as stream:
                json.dump(header, stream, indent=2)
                _flush(stream)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    replaced = _old_header(folder)  # not the one at the beginning: another save may have ended since
    os.replace(own, folder / _HEADER)
    if os.name == "posix":
        sync(folder)  # before anything of the old graph goes
    _tidy(folder, replaced)
    return folder


def load(folder: str | Path, *, verify: bool | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what :func:`save` wrote: the values by name (tensors over memory maps) and the construction.

    Size, shape and type of each array are checked against graph.json; its checksum too, for which all of it is read,
    where ``verify`` is true, or None and the array small. What is at an address is fetched into the local cache first,
    and its checksums are compared there.
    """
    place = resolve(folder)
    folder = fetch(place) if isinstance(place, str) else place
    header = _read_header(folder)
    for _ in range(_ATTEMPTS):
        try:
            return _open(folder, header, verify)
        except ValueError:
            newer = _read_header(folder)
            if newer == header:
                raise
            header = newer  # saved meanwhile, which removed the arrays of the graph before
    return _open(folder, header, verify)


def _read_header(folder: Path) -> dict[str, Any]:
    """What graph.json says, checked to be of this format and version."""
    try:
        header = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise FileNotFoundError(
            f"there is no saved graph in {folder} (no {_HEADER}); make one with SampleGraph.save"
        ) from error
    except ValueError as error:
        raise ValueError(f"{folder / _HEADER} is damaged ({error}); save the graph again") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{folder / _HEADER} does not describe a sample graph (format {FORMAT!r} is needed)")
    if header.get("version") != VERSION:
        raise ValueError(
            f"{folder} has format version {header.get('version')!r}, but this graphclust reads version {VERSION}; "
            "open it with the graphclust that wrote it, or save the graph again"
        )
    return header


def _open(folder: Path, header: dict[str, Any], verify: bool | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values and the construction that a header names."""
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
        size = path.stat().st_size
    except (OSError, ValueError, EOFError) as error:
        state = "is missing"
        with suppress(FileNotFoundError):  # a save may remove it at any moment
            found = f"{path.stat().st_size:,} bytes" + (f" of {entry['bytes']:,}" if "bytes" in entry else "")
            state = f"cannot be read (shorter than its header says, or damaged: {found})"
        raise ValueError(f"{path} {state}; {remedy}") from error
    if list(array.shape) != entry["shape"] or array.dtype.str != entry["dtype"]:
        raise ValueError(
            f"{path} holds {array.dtype.str} {list(array.shape)}, but {_HEADER} says "
            f"{entry['dtype']} {entry['shape']}; {remedy}"
        )
    if "bytes" in entry and size != entry["bytes"]:
        raise ValueError(f"{path} has {size:,} bytes, but {_HEADER} says {entry['bytes']:,}; {remedy}")
    tensor = share_tensor(array)
    compared = array.nbytes <= _ALWAYS_COMPARED if verify is None else verify
    if compared and "crc32" in entry and (crc32 := checksum(tensor)) != entry["crc32"]:
        raise ValueError(
            f"{path} has checksum {crc32:08x}, but {_HEADER} says {entry['crc32']:08x}: its content changed; {remedy}"
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


def _own_header(folder: Path, token: str) -> Path:
    """Where a save writes its header before it counts."""
    return folder / f"{_HEADER}.{token}.tmp"


def _arrays_of(header: dict[str, Any]) -> set[str]:
    """Names of the files in its folder that a header names."""
    arrays = header.get("arrays")
    entries = arrays.values() if isinstance(arrays, dict) else []
    return {Path(str(entry["file"])).name for entry in entries if isinstance(entry, dict) and "file" in entry}


def _tidy(folder: Path, replaced: dict[str, Any] | None) -> None:
    """Remove the arrays of the replaced graph, and what saves left that were killed or ended just before another.

    The order matters. A save makes its own header before its arrays, and that becomes graph.json: so an array that was
    there already, whose save has no header of its own any more and is not in graph.json after that, is no graph's.
    """
    found = [(path, match.group(1)) for path in folder.iterdir() if (match := _OWN.fullmatch(path.name))]
    found = [(path, token) for path, token in found if not _is_saving(_own_header(folder, token))]
    header = _old_header(folder)
    if header is None:
        return
    dead = {path.name for path, _ in found} | (_arrays_of(replaced) if replaced else set())
    for name in dead - _arrays_of(header):
        with suppress(OSError):  # Windows keeps what a reader has mapped; the next save removes it
            (folder / name).unlink()


def _is_saving(own: Path) -> bool:
    try:
        return time.time() - own.stat().st_mtime < _STALE_SECONDS
    except FileNotFoundError:
        return False


def _flush(stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())
