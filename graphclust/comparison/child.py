"""One run of one method, in a process of its own: ``python -m graphclust.comparison.child JOB``.

The parent (`graphclust.comparison.process`) writes the job; this writes the labels, then what was measured. Memory is
that of the method and the library alone, and a crash ends nothing but this process.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

_MIB = 2**20


def main(job_file: str) -> int:
    """Read the job, fit, write labels and measurements; 1 when the method raised an error."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    _be_killed_first()
    try:
        result = _fit(job)
    except Exception as error:
        traceback.print_exc()
        text = " ".join(str(error).split())
        result = {"error": f"{type(error).__name__}: {text}" if text else type(error).__name__}
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")
    return int("error" in result)


def _fit(job: dict[str, Any]) -> dict[str, Any]:
    from graphclust.comparison.data import ComparedData
    from graphclust.methods import METHODS

    data = ComparedData.open(Path(job["data"]))
    method = METHODS[job["method"]]
    estimator = method(**job["parameters"])
    takes_edges = getattr(method, "uses_graph", False) and data.edge_index is not None
    X = data.graph() if takes_edges else data.samples()
    before = peak_memory()
    started = time.perf_counter()
    estimator.fit(X)
    seconds = time.perf_counter() - started
    measured = {"seconds": seconds, "peak_mib": peak_memory(), "start_mib": before}
    on_gpu = _peak_gpu_memory()
    if on_gpu:
        measured["gpu_mib"] = on_gpu
    labels = np.asarray(estimator.labels_)
    if labels.shape != (len(data.x),):
        raise ValueError(f"labels_ has shape {labels.shape} for {len(data.x)} samples")
    np.save(job["labels"], labels)
    return measured


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MiB."""
    try:
        # ru_maxrss would not do on Linux: it starts from the parent's, and the parent may be large.
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows has no such module
        return float("nan")
    # macOS counts in bytes, others in KiB.
    unit = _MIB if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _peak_gpu_memory() -> float:
    """Largest memory that torch took on a CUDA device, in MiB; 0 without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0.0
    return sum(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())) / _MIB


def _be_killed_first() -> None:
    """Where memory runs out, Linux shall kill this process and not the comparison."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
    except OSError:
        pass


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of a library that do not end would keep a process alive whose work is done.
    os._exit(code)
