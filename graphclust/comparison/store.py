"""The folder of a comparison: finished runs, tables, logs, each file written in one step."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphclust._files import is_running, replacing

_WORK = ".work-"
#: Folders of comparisons of this process, of which several may run at a time.
_OWN: set[Path] = set()


class Result(NamedTuple):
    """A finished run: what was measured, and the labels [N]."""

    record: dict[str, Any]
    labels: NDArray[Any]


class RunStore:
    """Results by the key of their run (`Contender.run_key`), so that those of other data or parameters never mix.

    Parameters
    ----------
    out : Path
        Made when it is not there.

    Raises
    ------
    ValueError
        When it is a file, or holds other files and no earlier comparison.
    """

    def __init__(self, out: Path) -> None:
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out} is a file: name a folder")
        inside = (
            [child.name for child in out.iterdir() if not child.name.startswith(".")] if out.exists() else []
        )
        if inside and "runs" not in inside:
            raise ValueError(
                f"{out} holds other files and no earlier comparison: name an empty or a new folder"
            )
        self.out = out
        (out / "runs").mkdir(parents=True, exist_ok=True)

    def work_folder(self) -> Path:
        """A new hidden folder for what processes exchange; those that killed comparisons left behind are removed."""
        host = re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())
        for old in self.out.glob(f"{_WORK}{host}-*-*"):
            number = old.name.split("-")[-2]
            # In a container the process that was killed may have had the number of this one.
            mine = number == str(os.getpid())
            if number.isdigit() and (old not in _OWN if mine else not is_running(int(number))):
                shutil.rmtree(old, ignore_errors=True)
        made = Path(tempfile.mkdtemp(prefix=f"{_WORK}{host}-{os.getpid()}-", dir=self.out))
        _OWN.add(made)
        return made

    def read(self, key: str) -> Result | None:
        """The finished run of that key; None when there is none, or its files are damaged."""
        place = self.out / "runs" / key
        if not place.with_suffix(".json").exists():
            return None
        try:
            record = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
            labels = np.load(place.with_suffix(".npy"))
            return Result({**record, "seconds": float(record["seconds"])}, labels)
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"{place}.json or .npy is damaged ({error}): that run is repeated", stacklevel=2)
            return None

    def write(self, key: str, result: Result) -> None:
        """Keep a finished run."""
        place = self.out / "runs" / key
        with replacing(place.with_suffix(".npy")) as partial:
            np.save(partial, result.labels)
        # Last, because its presence says that the run is complete.
        self.write_text(f"runs/{key}.json", json.dumps(result.record, indent=1))

    def write_log(self, key: str, text: str) -> str:
        """Keep what a failed run printed; returns the file's name within the folder."""
        name = f"logs/{key}.log"
        self.write_text(name, text)
        return name

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the folder."""
        with replacing(self.out / name) as partial:
            partial.write_text(text, encoding="utf-8")
