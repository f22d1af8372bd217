"""Time per mini-batch: graphclust's neighbour sampling against PyG's NeighborLoader, in one run on one machine.

Both loaders cut the same batches out of a random graph like those of a 10-nearest-neighbour search: each node is joined
to 10 of the 400 nodes around it, and edges run both ways. PyG's loader needs pyg-lib or torch-sparse; where neither can
be imported, the table has graphclust's times alone.

    python benchmarks/sampling.py [--nodes 1000000] [--batches 30] [--csv benchmarks/results/sampling.csv]
"""

from __future__ import annotations

import argparse
import csv
import platform
import time
import warnings
from collections.abc import Iterable
from importlib import metadata
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch_geometric.typing as pyg_typing
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader

from graphclust.graph.sampling import neighbor_loader

BATCH_SIZE = 1024
FANOUTS = ([10, 10], [15, 10, 5])


def random_graph(num_nodes: int, n_neighbors: int = 10, reach: int = 200, seed: int = 0) -> Data:
    """Make a graph with `n_neighbors` random neighbours within `reach` places, symmetrised and sorted by target."""
    rng = np.random.default_rng(seed)
    node = np.repeat(np.arange(num_nodes), n_neighbors)
    other = (node + rng.integers(1, reach + 1, node.size) * rng.choice([-1, 1], node.size)) % num_nodes
    key = np.unique(np.concatenate([node * num_nodes + other, other * num_nodes + node]))
    edge_index = torch.from_numpy(np.stack([key % num_nodes, key // num_nodes]))
    return Data(x=torch.zeros(num_nodes, 16), edge_index=edge_index, edge_weight=torch.ones(len(key)))


def compiled_library() -> str | None:
    """Name and version of the library that PyG samples with, if any."""
    name = "pyg_lib" if pyg_typing.WITH_PYG_LIB else "torch_sparse" if pyg_typing.WITH_TORCH_SPARSE else None
    if name is None:
        return None
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return name


def milliseconds(loaders: list[Iterable[Data]], batches: int) -> list[list[float]]:
    """Time the loaders' batches by turns, so that other load hits all alike; each first one is dropped."""
    times: list[list[float]] = [[] for _ in loaders]
    iterators = [iter(loader) for loader in loaders]
    for _ in range(batches + 1):
        for iterator, spent in zip(iterators, times, strict=True):
            start = time.perf_counter()
            next(iterator)
            spent.append(1000 * (time.perf_counter() - start))
    return [spent[1:] for spent in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, default=30)
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "sampling.csv")
    parser.add_argument(
        "--append", action="store_true", help="add to the file, as to compare with a second library"
    )
    options = parser.parse_args()

    graph, library = random_graph(options.nodes), compiled_library()
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{graph.num_nodes} nodes, {graph.num_edges} edges, batches of {BATCH_SIZE} seeds; {machine}")
    rows = []
    for fanouts in FANOUTS:
        loaders: list[Iterable[Data]] = [
            neighbor_loader(graph, fanouts, BATCH_SIZE, shuffle=True, random_state=0, backend="torch")
        ]
        if library is not None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*pyg-lib.*")
                loaders.append(NeighborLoader(graph, fanouts, batch_size=BATCH_SIZE, shuffle=True))
        nodes = np.mean([batch.num_nodes for batch in islice(loaders[0], 5)])
        medians = [float(np.median(spent)) for spent in milliseconds(loaders, options.batches)]
        ours, theirs = medians[0], medians[1] if library is not None else None
        rows.append(
            {
                "nodes": graph.num_nodes,
                "edges": graph.num_edges,
                "batch_size": BATCH_SIZE,
                "fanouts": " ".join(map(str, fanouts)),
                "nodes_per_batch": round(nodes),
                "graphclust_ms": round(ours, 1),
                "neighbor_loader_ms": "" if theirs is None else round(theirs, 1),
                "time_ratio": "" if theirs is None else round(ours / theirs, 3),
                "neighbor_loader_library": library or "",
                "batches": options.batches,
                "machine": machine,
            }
        )
        versus = "PyG has no compiled sampler here" if theirs is None else f"{theirs:.1f} ms with {library}"
        ratio = "" if theirs is None else f", ratio {ours / theirs:.2f} (below 1: graphclust is faster)"
        print(f"fanouts {fanouts}: graphclust {ours:.1f} ms a batch, NeighborLoader {versus}{ratio}")
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    with options.csv.open("a" if options.append else "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)
    print(f"written to {options.csv}")


if __name__ == "__main__":
    main()
