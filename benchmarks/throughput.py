"""Training throughput: graphclust's DAEGC and DinkNet against PyAGC's, the same graph and layers, in one run.

    pip install pyagc
    python benchmarks/throughput.py [--samples 100000] [--full-samples 20000] [--steps 2] [--repeats 5]

The data are `million_data.blobs` with a cluster for each 1,000 samples, 128 features, joined to 10 neighbours. Both
sides train d-256-256 (DAEGC with attention, DinkNet with GCN layers) by Adam through their own training loops, in
float32: `Trainer.fit` here, `train_batch` and `train_full` there, in the stage that trains codes and clusters together.
Mini-batches have 1,024 samples and 10 neighbours in each of two hops; PyAGC takes them from PyG's NeighborLoader, as
its own scripts do, and once more from graphclust's sampler. NeighborLoader needs pyg-lib or torch-sparse, and is left
out where neither can be imported.

graphclust also comes as it is when nothing but batch size, width and (DAEGC) ``hops=1`` is set. DAEGC then samples a
third hop for the codes of a sample's neighbours, whose edges it reconstructs; PyAGC reconstructs the edges that happen
to join two samples of a batch. DinkNet then propagates the codes over five hops more.

Seconds are processor seconds of one thread, medians over repeats taken in turns, after a turn that warms up. Memory is
what resident memory grows by while a trainer has its turn, at most; Linux alone tells. Where pyagc cannot be imported,
the table has graphclust's rows alone. Writes benchmarks/results/throughput.csv.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import read_table, show, write_table
from million_data import blobs
from sampling import compiled_library
from torch import nn
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import MLP

import graphclust
from graphclust.graph import SampleGraph
from graphclust.graph.sampling import neighbor_loader
from graphclust.training.trainer import Trainer

FEATURES = 128
WIDTH = 256
BATCH_SIZE = 1024
FANOUTS = [10, 10]

#: What PyAGC's numbers are compared with: layers, and the neighbours that graphclust samples with the same two hops.
SAME = {
    "DAEGC": {"hops": 1, "num_neighbors": (*FANOUTS, 0)},
    "DinkNet": {"hidden_channels": (WIDTH,), "n_hops": 0, "num_neighbors": tuple(FANOUTS)},
}
OWN = {"DAEGC": {"hops": 1}, "DinkNet": {"hidden_channels": (WIDTH,)}}

#: Trains for a number of steps; turns differ in their random numbers.
Block = Callable[[int], None]


def ours(
    method: str, stage: str, graph: SampleGraph, batch_size: int | None, steps: int, **options: Any
) -> Block:
    """`steps` steps of a stage of graphclust's."""
    k = n_clusters(graph)
    estimator = getattr(graphclust, method)(k, latent_dim=WIDTH, batch_size=batch_size, **options)
    estimator.n_clusters_ = k
    source = estimator._source(graph, torch.device("cpu"))
    model = estimator._build(FEATURES)
    model.scale.fit(graph.x)
    (found,) = (part for part in estimator._stages(model, source, {}) if part.name == stage)
    found = replace(found, epochs=steps if batch_size is None else 1, start=None)
    whole = source.epoch
    source.epoch = lambda *args, **kwargs: islice(whole(*args, **kwargs), steps)

    def run(turn: int) -> None:
        Trainer(seed=turn, device="cpu", precision="32-true").fit(model, [found], source)

    return run


class FirstBatches:
    """The first batches of a loader, with what PyAGC's training loop asks of one."""

    input_nodes = None

    def __init__(self, loader: Iterable[Data], graph: Data, steps: int) -> None:
        self.loader = loader
        self.data = graph
        self.steps = steps

    def __iter__(self) -> Iterator[Data]:
        return islice(iter(self.loader), self.steps)

    def __len__(self) -> int:
        return self.steps


def theirs(method: str, stage: str, graph: SampleGraph, batches: str, steps: int) -> Block:
    """`steps` steps of a stage of PyAGC's, on batches of "NeighborLoader", of "graphclust", or the "full" graph."""
    from pyagc import models
    from pyagc.encoders import create_tuned_gnn

    layer, activation = {"DAEGC": ("gat", "elu"), "DinkNet": ("gcn", "prelu")}[method]
    encoder = create_tuned_gnn(layer, FEATURES, WIDTH, num_layers=2, act=activation, act_last=True)
    k = n_clusters(graph)
    model: nn.Module
    if method == "DAEGC":
        model = models.DAEGC(encoder, k, WIDTH)
    else:
        projector = MLP(in_channels=WIDTH, hidden_channels=WIDTH, out_channels=WIDTH, num_layers=1)
        model = models.DinkNet(encoder, projector, k, WIDTH, alpha=10.0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    data = Data(x=graph.x, edge_index=graph.edge_index)
    pretrain = stage == "pretraining"
    loader: Any = None
    if batches == "NeighborLoader":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pyg-lib.*")
            loader = NeighborLoader(data, FANOUTS, batch_size=BATCH_SIZE, shuffle=True)
    elif batches == "graphclust":
        loader = neighbor_loader(data, FANOUTS, BATCH_SIZE, shuffle=True, random_state=0, backend="torch")

    def run(turn: int) -> None:
        if loader is not None:
            first = FirstBatches(loader, data, steps)
            model.train_batch(first, optimizer, turn, verbose=False, pretrain=pretrain)
            return
        for _ in range(steps):
            model.train_full(data, optimizer, turn, verbose=False, pretrain=pretrain)

    return run


def n_clusters(graph: Data) -> int:
    """K."""
    return max(2, graph.num_nodes // 1000)


def make(trainer: str, method: str, stage: str, graph: SampleGraph, steps: int) -> Block:
    """What a row of the table measures, by the row's name."""
    torch.manual_seed(0)
    side, batches = trainer.split(", ")
    if side == "PyAGC":
        return theirs(method, stage, graph, batches.removesuffix("'s sampler"), steps)
    options = {"same two hops": SAME, "full": SAME, "own hops": OWN}[batches][method]
    return ours(method, stage, graph, None if batches == "full" else BATCH_SIZE, steps, **options)


def resident_mib(*, reset: bool = False) -> float | None:
    """Largest resident memory since the last reset; None on systems that do not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**10


def compare(folder: str, trainers: list[str], method: str, stage: str, options: Any) -> list[dict[str, Any]]:
    """Rows of one method and stage."""
    graph = SampleGraph.open(folder)
    blocks = {name: make(name, method, stage, graph, options.steps) for name in trainers}
    times: dict[str, list[float]] = {name: [] for name in blocks}
    memory = dict.fromkeys(blocks, 0.0)
    for turn in range(options.repeats + 1):
        for name, block in blocks.items():
            before = resident_mib(reset=True)
            started = time.process_time()
            block(turn)
            times[name].append((time.process_time() - started) / options.steps)
            if before is not None:
                memory[name] = max(memory[name], (resident_mib() or 0.0) - before)
    rows = []
    for name in trainers:
        full = name.endswith("full")
        spent = times[name][1:]
        row = {
            "method": method,
            "stage": stage,
            "nodes": graph.num_nodes,
            "edges": graph.num_edges,
            "repeats": options.repeats,
            "steps": options.steps,
            "trainer": name,
            "samples per s": round((graph.num_nodes if full else BATCH_SIZE) / median(spent)),
            "CPU s a step": round(median(spent), 3),
            "least": round(min(spent), 3),
            "most": round(max(spent), 3),
        }
        for other in trainers:
            if name.startswith("graphclust") and other.startswith("PyAGC"):
                row["times " + other.split(", ")[1]] = round(median(times[other][1:]) / median(spent), 2)
        if memory[name]:
            row["MiB"] = round(memory[name])
        rows.append(row)
    return rows


def save_graph(samples: int, folder: Path) -> str:
    """Blobs joined to 10 neighbours, saved."""
    path = folder / f"blobs_{samples}.npy"
    blobs(str(path), samples, FEATURES, max(2, samples // 1000), 0)
    graph = SampleGraph.from_features(np.load(path, mmap_mode="r"), 10, random_state=0)
    graph.save(folder / f"graph_{samples}")
    return str(folder / f"graph_{samples}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--samples", type=int, default=100_000, help="of the graph that is sampled; 0 for none"
    )
    parser.add_argument("--full-samples", type=int, default=20_000, help="of the graph that is trained whole")
    parser.add_argument("--steps", type=int, default=2, help="a repeat and trainer")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", nargs="*", default=["DAEGC", "DinkNet"])
    parser.add_argument(
        "--stages", nargs="*", default=["clustering"], help="pretraining has a part of its loss"
    )
    parser.add_argument("--append", action="store_true", help="keep the rows of earlier runs in the file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    library = compiled_library()
    mini, full = ["graphclust, same two hops", "graphclust, own hops"], ["graphclust, full"]
    try:
        import pyagc
    except ImportError as error:
        versions = f"graphclust {graphclust.__version__}"
        print(f"pyagc cannot be imported ({error}): 'pip install pyagc' adds its rows")
    else:
        sampler = library or "no compiled sampler"
        versions = f"graphclust {graphclust.__version__}, pyagc {pyagc.__version__}, {sampler}"
        mini += ["PyAGC, NeighborLoader"] if library is not None else []
        mini += ["PyAGC, graphclust's sampler"]
        full += ["PyAGC, full"]
    note = f"training steps of DAEGC and DinkNet, {FEATURES}-{WIDTH}-{WIDTH}; {versions}"
    rows: list[dict[str, Any]] = read_table("throughput") if options.append else []
    with tempfile.TemporaryDirectory() as place:
        for samples, trainers in ((options.samples, mini), (options.full_samples, full)):
            if not samples:
                continue
            folder = save_graph(samples, Path(place))
            for method in options.methods:
                for stage in options.stages:
                    found = compare(folder, trainers, method, stage, options)
                    show(found, f"{method}, {stage}, {samples:,} samples")
                    rows += found
                    write_table("throughput", rows, note)
    print("written to benchmarks/results/throughput.csv")


if __name__ == "__main__":
    main()
