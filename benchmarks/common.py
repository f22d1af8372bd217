"""What the benchmarks share: one child process a measurement, tables on the screen and under version control."""

from __future__ import annotations

import csv
import importlib
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

RESULTS = Path(__file__).parent / "results"
PICTURES = Path(__file__).parent.parent / "docs" / "images"


def in_child(script: str, function: str, **arguments: Any) -> dict[str, Any]:
    """Call `function(**arguments)` of benchmarks/`script`.py in a fresh process.

    Returns its dict with `seconds` (the call alone) and `peak_mib` (largest resident memory of the process, or of one
    that it waited for) added.
    """
    call = json.dumps({"script": script, "function": function, "arguments": arguments})
    command = [sys.executable, __file__, call]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{function}({arguments}) failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> str:
    """Processor, cores and versions, for the head of a table."""
    import faiss
    import torch
    import torch_geometric

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = f"torch {torch.__version__}, PyG {torch_geometric.__version__}, faiss {faiss.__version__}"
    return f"{model}{gpu}, {torch.get_num_threads()} threads, Python {platform.python_version()}, {versions}"


def write_table(name: str, rows: list[dict[str, Any]], note: str) -> Path:
    """Write rows to results/<name>.csv with the machine and the command as comment lines above."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as stream:
        stream.write(f"# {note}\n# {machine()}\n# python {' '.join(sys.argv)}\n")
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_table(name: str) -> list[dict[str, Any]]:
    """Rows that an earlier run wrote, as text; none where there was no run."""
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        return []
    with path.open() as stream:
        return list(csv.DictReader([line for line in stream if not line.startswith("#")]))


def summarise(rows: Iterable[dict[str, Any]], by: str, columns: Iterable[str]) -> list[dict[str, Any]]:
    """Mean and standard deviation of `columns` over the rows that share `by`; of the rows that have them."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[by], []).append(row)
    table = []
    for key, group in groups.items():
        line: dict[str, Any] = {by: key, "runs": len(group)}
        for column in columns:
            values = [float(row[column]) for row in group if column in row]
            if not values:
                continue
            line[column] = round(mean(values), 2)
            line[f"{column} sd"] = round(stdev(values), 2) if len(values) > 1 else 0.0
        table.append(line)
    return table


def show(rows: list[dict[str, Any]], title: str) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(str(row.get(c, "")) for c in columns))
    Console(width=160).print(table)


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    module = importlib.import_module(request["script"])
    called = getattr(module, request["function"])
    started = time.perf_counter()
    result = called(**request["arguments"])
    result.setdefault("seconds", round(time.perf_counter() - started, 2))
    # Linux counts in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    result["peak_mib"] = round(max(peaks) / unit)
    print(json.dumps(result))
