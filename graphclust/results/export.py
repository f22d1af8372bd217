"""Images of each cluster in a folder of its own: copies or links; nothing is moved or deleted."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from graphclust.images import text_as_path

HOW = ("copy", "symlink")
_SIGNATURES = (
    (b"\x89PNG", ".png"),
    (b"\xff\xd8", ".jpg"),
    (b"GIF8", ".gif"),
    (b"RIFF", ".webp"),
    (b"BM", ".bmp"),
)


def export_images(
    paths: Iterable[str],
    labels: Iterable[int],
    out: str | os.PathLike[str],
    how: str = "copy",
    load: Callable[[str], Any] | None = None,
) -> tuple[int, list[str]]:
    """Put images into ``out/cluster_<k>/``, noise into ``out/noise/``.

    Parameters
    ----------
    paths : iterable of str
        Of `Images.paths`.
    labels : iterable of int
    out : path
        A new or empty folder.
    how : {"copy", "symlink"}
        Links are absolute, and need images that are files of their own.
    load : callable, optional
        Gives the bytes of an image that is no file of its own (in a tar shard, in a table).

    Returns
    -------
    written : int
    missing : list of str
        Paths whose file, or the file that held them, has gone since.

    Raises
    ------
    ValueError
        If `out` holds anything, an image that is no file cannot be exported in this way, or none at all is found.
    """
    if how not in HOW:
        raise ValueError(f"how={how!r} is unknown: use 'copy' or 'symlink'")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is a file or holds files: name a new or empty folder, nothing is replaced")
    labels = [int(label) for label in labels]
    width = len(str(max([0, *labels])))
    written, missing = 0, list[str]()
    failure: ValueError | None = None
    numbers: dict[Path, int] = {}
    for row, (path, label) in enumerate(zip(paths, labels)):
        folder = out / ("noise" if label < 0 else f"cluster_{label:0{width}d}")
        source = text_as_path(path)
        if not path.isdigit() and os.path.isfile(source):  # a digit is the row of an array
            folder.mkdir(parents=True, exist_ok=True)
            target = _free(folder, os.path.basename(source), numbers)
            if how == "symlink":
                os.symlink(os.path.abspath(source), target)
            else:
                shutil.copy2(source, target)
        elif "::" not in path and not path.isdigit():
            missing.append(path)
            continue
        elif how == "symlink" or load is None:
            raise ValueError(f"{path} is no file of its own, which a link could lead to: export copies")
        else:
            try:
                data = load(path)
            except ValueError as error:
                failure = failure or error
                missing.append(path)
                continue
            folder.mkdir(parents=True, exist_ok=True)
            # Of a member's name the last part, however its parts are divided.
            _write(
                data, folder, re.split(r"[/\\]", path.rpartition("::")[2])[-1].replace(":", "_"), row, numbers
            )
        written += 1
    if failure is not None and not written:
        raise failure
    return written, missing


def _write(data: Any, folder: Path, name: str, row: int, numbers: dict[Path, int]) -> None:
    """Bytes as they are, under the member's own name; pixels as PNG."""
    if name in ("", "..", ".") or name.isdigit():
        name = f"{row}"
    if isinstance(data, bytes):
        if not Path(name).suffix:
            name += next((suffix for start, suffix in _SIGNATURES if data.startswith(start)), "")
        _free(folder, name, numbers).write_bytes(data)
    else:
        from graphclust.images import decode

        decode(data).save(_free(folder, f"{Path(name).stem}.png", numbers))


def _free(folder: Path, name: str, numbers: dict[Path, int]) -> Path:
    """A name that is not taken: files of one name from several folders may be of one cluster.

    `numbers` keeps the last one that was tried for each name: a million files may all be called ``0.png``.
    """
    first = path = folder / name
    number = numbers.get(first, 1)
    while os.path.lexists(path):
        number += 1
        path = folder / f"{first.stem}_{number}{first.suffix}"
    numbers[first] = number
    return path
