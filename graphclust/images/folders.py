"""Image files in a folder and all folders in it; links are followed once."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from graphclust.images.decode import SUFFIXES
from graphclust.images.items import FileItem, Skipped, os_reason, path_as_text

#: Files that hold many images or features; looked at where a folder has no image files.
CONTAINERS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".parquet")

#: What a folder that `graphclust cluster` wrote holds, whatever its name.
_RESULT = frozenset({"images.json", "labels.parquet", "model", "graph"})


@dataclass
class Walk:
    """What a folder holds.

    Attributes
    ----------
    items : list of FileItem
        Files with the name of an image, and those without any suffix; sorted within each folder.
    containers : list of str
        Tar shards and parquet files.
    skipped : list of Skipped
        Everything else, with the reason.
    """

    items: list[FileItem] = field(default_factory=list)
    containers: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def walk(folder: str) -> Walk:
    """List a folder and the folders in it.

    A folder that several links lead to is read once, so loops end. A link to a folder above this one is a loop too:
    what lies beside this one was not asked for. Names that begin with a dot, and results of graphclust, are left out.
    """
    found, seen = Walk(), set()
    above = _folders_above(folder)
    # Links come last, so that a folder is read under its own name where it lies in the tree.
    waiting, links = [folder], list[str]()
    while waiting or links:
        path = waiting.pop() if waiting else links.pop()
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                found.skipped.append(
                    Skipped(path_as_text(path), "folder that was read already (a link or a loop)")
                )
                continue
            if (status.st_dev, status.st_ino) in above:
                found.skipped.append(Skipped(path_as_text(path), "link to a folder above (a loop)"))
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
            if path != folder and {entry.name for entry in ordered} >= _RESULT:
                found.skipped.append(
                    Skipped(path_as_text(path), "folder of a result, which holds thumbnails")
                )
                continue
        except OSError as error:
            found.skipped.append(Skipped(path_as_text(path), f"folder: {os_reason(error)}"))
            continue
        inner: list[str] = []
        for entry in ordered:
            if entry.name.startswith("."):
                found.skipped.append(Skipped(path_as_text(entry.path), "hidden"))
            elif _is_folder(entry):
                (links if entry.is_symlink() else inner).append(entry.path)
            else:
                _sort_in(entry.path, found)
        waiting += reversed(inner)
    return found


def _folders_above(folder: str) -> set[tuple[int, int]]:
    """Device and number of each folder that holds this one."""
    found = set()
    for parent in Path(os.path.realpath(folder)).parents:
        try:
            status = os.stat(parent)
        except OSError:  # not for this user; no link leads there either
            continue
        found.add((status.st_dev, status.st_ino))
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle; opening it as a file says so
        return False


def _sort_in(path: str, found: Walk) -> None:
    name = os.path.basename(path).lower()
    suffix = Path(name).suffix
    if suffix in SUFFIXES or not suffix:
        found.items.append(FileItem(path))
    elif name.endswith(CONTAINERS):
        found.containers.append(path)
    else:
        found.skipped.append(
            Skipped(path_as_text(path), f"not an image by its name ({path_as_text(suffix)})")
        )
