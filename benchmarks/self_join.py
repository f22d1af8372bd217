"""The k-nearest-neighbour graph of a large file: graphclust's self-join against FAISS's IVFFlat, in one run.

Both read the same memory map of float32 and find 10 neighbours of every sample. Recall@10 is measured on 1,000
random samples against exact search. IVFFlat gets the smallest `nprobe` whose recall is not below that of the
self-join (found beforehand, not timed) and is trained as usual: 64 samples a list, 10 rounds. Each runs in a process
of its own. "anonymous" is the largest resident memory that is not a page of a mapped file (Linux; such pages are the
system's cache, which it takes back when it needs room). "processor" counts the seconds of all threads: on a
machine with other work, its ratio says more than that of the seconds on the clock.

    python benchmarks/self_join.py [--samples 10000 100000 1000000] [--data FOLDER] [--uniform] [--seed 0]

Threads: OMP_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from common import in_child, show, write_table
from million_data import blobs, uniform

K = 10
QUERIES = 1000
PROBES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 1024)


def exact(path: str, seed: int) -> dict[str, Any]:
    """Exact neighbours of random samples, written beside the data."""
    import faiss

    x = np.load(path, mmap_mode="r")
    queries = np.sort(np.random.default_rng([seed, 7]).choice(len(x), min(QUERIES, len(x)), replace=False))
    best = np.empty((len(queries), 0), dtype=np.float32), np.empty((len(queries), 0), dtype=np.int64)
    for start in range(0, len(x), 65_536):
        block = np.ascontiguousarray(x[start : start + 65_536])
        distance, index = faiss.knn(x[queries], block, min(K + 1, len(block)))
        distance = np.concatenate([best[0], distance], axis=1)
        index = np.concatenate([best[1], index + start], axis=1)
        order = np.argsort(distance, axis=1, kind="stable")[:, : K + 1]
        best = np.take_along_axis(distance, order, axis=1), np.take_along_axis(index, order, axis=1)
    np.savez(f"{path}.truth.npz", queries=queries, index=_without(best[1], queries))
    return {}


def self_join(path: str, seed: int) -> dict[str, Any]:
    """graphclust: `NeighborSearch(index="self-join")`."""
    from graphclust.graph import NeighborSearch

    with _memory() as memory:
        started, used = time.perf_counter(), time.process_time()
        search = NeighborSearch(index="self-join", random_state=seed).fit(np.load(path, mmap_mode="r"))
        index = search.self_neighbors(K)[0].numpy()
        seconds, processor = time.perf_counter() - started, time.process_time() - used
    return {
        "method": search.index_name_,
        "seconds": round(seconds, 2),
        "processor": round(processor, 2),
        "recall": _recall(path, index),
        "built": "",
        **memory,
    }


def inverted_file(path: str, seed: int, recall: float) -> dict[str, Any]:
    """FAISS: IVFFlat with 4 sqrt(N) lists (4,000 for a million)."""
    import faiss

    truth = np.load(f"{path}.truth.npz")
    with _memory() as memory:
        started, used = time.perf_counter(), time.process_time()
        x = np.load(path, mmap_mode="r")
        n, d = x.shape
        lists = int(4 * n**0.5)
        index = faiss.index_factory(d, f"IVF{lists},Flat")
        index.cp.seed, index.cp.niter, index.cp.max_points_per_centroid = seed, 10, 64
        sample = np.sort(np.random.default_rng(seed).choice(n, min(n, 64 * lists), replace=False))
        index.train(x[sample])
        for start in range(0, n, 65_536):
            index.add(np.ascontiguousarray(x[start : start + 65_536]))
        built, building = time.perf_counter() - started, time.process_time() - used
        for probes in PROBES:
            index.nprobe = min(probes, lists)
            found = _without(index.search(x[truth["queries"]], K + 1)[1], truth["queries"])
            if _share(found, truth["index"]) >= recall:
                break
        started, used = time.perf_counter(), time.process_time()
        neighbors = np.empty((n, K), dtype=np.int64)
        for start in range(0, n, 8192):
            rows = np.arange(start, min(start + 8192, n))
            neighbors[rows] = _without(index.search(np.ascontiguousarray(x[rows]), K + 1)[1], rows)
        seconds, processor = time.perf_counter() - started, time.process_time() - used
    name = f"IVF{lists},Flat (nprobe={index.nprobe})"
    return {
        "method": name,
        "seconds": round(built + seconds, 2),
        "processor": round(building + processor, 2),
        "recall": _recall(path, neighbors),
        "built": round(built, 2),
        **memory,
    }


def _without(index: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Take each row's own number out; where it is not there, the last."""
    order = np.argsort(index == own[:, None], axis=1, kind="stable")
    return np.take_along_axis(index, order, axis=1)[:, :K]


def _share(found: np.ndarray, truth: np.ndarray) -> float:
    return float(
        np.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
    )


def _recall(path: str, index: np.ndarray) -> float:
    truth = np.load(f"{path}.truth.npz")
    return round(_share(index[truth["queries"]], truth["index"]), 4)


@contextmanager
def _memory() -> Iterator[dict[str, int]]:
    """Follow the anonymous resident memory; {} where the system does not tell."""
    found: dict[str, int] = {}
    ended = threading.Event()

    def follow() -> None:
        status = Path("/proc/self/status")
        while status.exists() and not ended.wait(0.1):
            line = next(
                (line for line in status.read_text().splitlines() if line.startswith("RssAnon")), None
            )
            if line is not None:
                found["anonymous_mib"] = max(found.get("anonymous_mib", 0), int(line.split()[1]) >> 10)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def main() -> None:
    """Measure each size and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "graphclust-benchmark")
    parser.add_argument("--uniform", action="store_true", help="data without structure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="self_join", help="of the table in benchmarks/results")
    arguments = parser.parse_args()
    arguments.data.mkdir(parents=True, exist_ok=True)
    kind = "uniform" if arguments.uniform else "blobs"
    table = []
    for n in arguments.samples:
        path = str(arguments.data / f"{kind}_{n}_{arguments.features}_{arguments.seed}.npy")
        (uniform if arguments.uniform else blobs)(path, n, arguments.features, seed=arguments.seed)
        in_child("self_join", "exact", path=path, seed=arguments.seed)
        ours = in_child("self_join", "self_join", path=path, seed=arguments.seed)
        theirs = in_child("self_join", "inverted_file", path=path, seed=arguments.seed, recall=ours["recall"])
        for row in (ours, theirs):
            ratio = round(row["seconds"] / theirs["seconds"], 3)
            table.append(
                {"data": kind, "samples": n, "features": arguments.features, **row, "of IVFFlat": ratio}
            )
        show(table[-2:], f"{n:,} x {arguments.features} {kind}")
        note = f"10 nearest neighbours of all samples, recall on {QUERIES} of them; seed {arguments.seed}"
        write_table(arguments.name, table, note)


if __name__ == "__main__":
    main()
