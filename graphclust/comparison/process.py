"""Starts a process for one run, waits for it, and says in one line what went wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import graphclust
from graphclust.comparison.contenders import Contender


class Outcome(NamedTuple):
    """What a run gave: measurements, and labels [N] or an error of one line; `log` is what the process printed."""

    measured: dict[str, float]
    labels: NDArray[Any] | None
    error: str
    log: str


def run_in_process(
    contender: Contender, seed: int, data: Path, work: Path, time_limit: float | None
) -> Outcome:
    """Fit a method with a seed in a fresh process.

    Parameters
    ----------
    contender : Contender
    seed : int
    data : Path
        Folder that `ComparedData.save` wrote.
    work : Path
        Folder for the files that the two processes exchange.
    time_limit : float or None
        Seconds after which the process is ended.
    """
    job_file, result, labels, log = (
        work / name for name in ("job.json", "result.json", "labels.npy", "log.txt")
    )
    result.unlink(missing_ok=True)
    job = {
        "method": contender.method,
        "parameters": contender.with_seed(seed),
        "data": str(data.absolute()),
        "result": str(result.absolute()),
        "labels": str(labels.absolute()),
    }
    job_file.write_text(json.dumps(job), encoding="utf-8")
    command = [sys.executable, "-m", "graphclust.comparison.child", str(job_file.absolute())]
    timed_out = False
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,  # the processes that a method starts end with it
        )
        try:
            process.wait(timeout=time_limit)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            _end(process)
    printed = log.read_text(encoding="utf-8", errors="replace")
    measured = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}
    error = str(measured.pop("error", ""))
    if timed_out:
        error = f"ended after the time limit of {time_limit:g} s"
    elif not error and (process.returncode != 0 or not measured):
        error = _death(process.returncode, printed)
    if error:
        return Outcome({}, None, error, printed or error)
    return Outcome(measured, np.load(labels), "", printed)


def _environment() -> dict[str, str]:
    """Variables of the child: the parent's, and where to import this graphclust from."""
    home = str(Path(graphclust.__file__).parents[1])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, where it has not ended by itself, and those that it started."""
    try:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        elif process.poll() is None:
            process.kill()
    except (ProcessLookupError, PermissionError):  # nobody is left (macOS: or only what has ended)
        pass
    process.wait()


def _death(code: int, printed: str) -> str:
    """Why a process ended that could not say so itself."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = ", most likely because the memory ran out" if name == "SIGKILL" else ""
        return f"the process was killed by {name}{hint}"
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return f"the process ended with code {code}" + (f": {lines[-1][:200]}" if lines else "")
