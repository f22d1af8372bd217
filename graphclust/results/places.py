"""Where the images of a result lie: full paths, short names, new places of what was moved with the result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from graphclust.images import path_as_text, text_as_path


def follow(meta: dict[str, Any], paths: pd.Series, folder: Path) -> pd.Series:
    """Paths of images, of which those that were moved with the folder of the result have their new place.

    A source is taken to have moved where it is no longer there, and lies as seen from the folder where it lay before.
    What is where it was stays as it is. Nothing is written.

    Parameters
    ----------
    meta : dict
        Of the result: `folder`, where it was written, and `sources`; both are brought up to date.
    paths : Series of str
    folder : Path
        Where the result lies now.

    Returns
    -------
    Series of str
    """
    here, before = path_as_text(os.path.abspath(folder)), meta.get("folder")
    meta["folder"] = here
    if before is None or before == here:
        return paths
    moved = {}
    for source in meta["sources"]:
        try:
            place = os.path.normpath(os.path.join(here, os.path.relpath(source, before)))
        except ValueError:  # on another drive
            continue
        if not os.path.lexists(text_as_path(source)) and os.path.lexists(text_as_path(place)):
            moved[source] = place
    for source, place in moved.items():
        inside = (paths == source) | paths.str.startswith((source + os.sep, source + "::"))
        paths = paths.where(~inside, place + paths.str.slice(len(source)))
    meta["sources"] = [moved.get(source, source) for source in meta["sources"]]
    return paths


def names_and_files(paths: list[str]) -> dict[str, Any]:
    """For the page: short names, seen from the folder that holds all images, and the files that are there."""
    on_disk = [path for path in paths if os.path.isabs(path) and "::" not in path]
    try:
        common = os.path.commonpath([os.path.dirname(path) for path in on_disk])
    except ValueError:  # none is a file, or they lie on several drives
        return {"names": paths}
    known = set(on_disk)
    files = [text_as_path(path) if path in known else None for path in paths]
    return {
        "names": [os.path.relpath(path, common) if path in known else path for path in paths],
        "files": [file if file is not None and os.path.lexists(file) else None for file in files],
    }


def as_paths(source: Any) -> list[str]:
    """Full paths, as text, of what names a file or folder in a source."""
    values = source if isinstance(source, (list, tuple)) else [source]
    named = [os.fspath(value) for value in values if isinstance(value, (str, os.PathLike))]
    return [path_as_text(os.path.abspath(os.path.expanduser(value))) for value in named]
