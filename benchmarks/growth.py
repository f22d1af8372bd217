"""How time and memory grow with the number of samples, stage by stage, with fitted exponents and a picture.

    python benchmarks/growth.py [--samples 10000 100000 1000000] [--folder DIR]

The data are `million_data.blobs` with a cluster for each 1,000 samples, 128 features, from a memory map. For each
size one process runs the stages of `graphclust.cluster` for vectors one after the other, and 50 batches of 1,024
samples of a graph method with sampled neighbours. Time is processor time of all threads, which other work on the
machine changes little (the table has the clock as well). Memory is the largest resident memory of each stage beyond
that of the imported libraries, the pages of the memory map that are in use included; on systems other than Linux that
of the process so far. An exponent is the slope of a line through the logarithms. Writes benchmarks/results/growth.csv
and docs/images/growth.png.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
from common import PICTURES, in_child, show, write_table
from million_data import blobs

#: Training batches that are timed: an epoch has more of them in proportion to the samples.
BATCHES = 50
STAGES = ("graph", "save and open", "linkage", "cut", "mixture", f"{BATCHES} batches")


def _peak_mib(*, reset: bool = False) -> float:
    """Largest resident memory since the last reset."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
            2**20 if sys.platform == "darwin" else 2**10
        )
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**10


def stages(path: str, n_clusters: int) -> dict[str, Any]:
    """Seconds, processor seconds and memory of each stage."""
    import torch

    import graphclust
    from graphclust.graph import SampleGraph
    from graphclust.graph.linkage import cut_tree, join_groups, link_samples, sparse_weights
    from graphclust.methods.graph_mixture import Projection, refine

    x = torch.from_numpy(np.load(path, mmap_mode="c"))
    base = _peak_mib(reset=True)
    result: dict[str, Any] = {"base MiB": round(base)}

    def run(name: str, stage: Callable[[], Any]) -> Any:
        _peak_mib(reset=True)
        started, used = time.perf_counter(), time.process_time()
        value = stage()
        result[f"{name} s"] = round(time.perf_counter() - started, 2)
        result[f"{name} cpu s"] = round(time.process_time() - used, 2)
        result[f"{name} MiB"] = round(_peak_mib() - base)
        return value

    # As `graphclust.cluster` asks for where samples are many.
    graph = run("graph", lambda: SampleGraph.from_features(x, 5, recall=0.9))
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        graph = run("save and open", lambda: SampleGraph.open(graph.save(folder, features=path), verify=True))
        weights = sparse_weights(graph)
        tree = run("linkage", lambda: link_samples(weights, exponent=0.5))
        labels = run("cut", lambda: join_groups(weights, cut_tree(tree, n_clusters), n_clusters))
        run("mixture", lambda: refine(Projection.fit(x)(x), weights, labels, n_clusters))
        method = graphclust.DinkNet(
            n_clusters, latent_dim=32, n_hops=1, pretrain_epochs=1, epochs=0, batch_size=1024, random_state=0
        )
        run(STAGES[-1], lambda: _batches(method, graph))
    return result


def _batches(method: Any, graph: Any) -> None:
    """The first batches of the first stage, without the labelling after it."""
    from graphclust.training.trainer import Trainer

    method.n_clusters_ = method.n_clusters
    model = method._build(graph.x.shape[1])
    model.scale.fit(graph.x)
    source = method._source(graph, "cpu")
    epoch = source.epoch

    def first(number: int, *args: Any, **options: Any) -> Iterator[Any]:
        """Small data have fewer batches in an epoch: more epochs then."""
        batches = chain.from_iterable(epoch(number + i, *args, **options) for i in count())
        return islice(batches, BATCHES)

    source.epoch = first
    Trainer(device="cpu").fit(model, method._stages(model, source, {})[:1], source)


def draw(rows: list[dict[str, Any]], exponents: dict[str, dict[str, float]]) -> Path:
    """Time and memory over the number of samples, both logarithmic."""
    from graphclust.report._style import FAINT, INK, chart_axes, new_figure, palette

    figure = new_figure(11, 4.6, "How cost grows with the number of samples")
    n = np.array([row["samples"] for row in rows], dtype=float)
    labels = {"cpu s": "processor seconds", "MiB": "peak memory beyond the imported libraries, MiB"}
    for axes, (unit, label) in zip(figure.subplots(1, 2), labels.items(), strict=True):
        chart_axes(axes)
        for name, color in zip(STAGES, palette(len(STAGES)), strict=True):
            values = np.array([max(row[f"{name} {unit}"], 0.01) for row in rows])
            power = exponents[name][unit]
            axes.plot(n, values, "o-", color=color, label=f"{name}, N^{power:.2f}", linewidth=2, markersize=5)
        axes.set(xscale="log", yscale="log", xlabel="samples")
        axes.set_ylabel(label, color=INK)
        axes.legend(frameon=False, fontsize=8, labelcolor=INK, edgecolor=FAINT)
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = PICTURES / "growth.png"
    figure.savefig(path)
    return path


def main() -> None:
    """Measure all sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", nargs="*", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the data are made")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for samples in options.samples:
        clusters = max(2, samples // 1000)
        path = str(Path(options.folder) / f"blobs_{samples}_{clusters}.npy")
        blobs(path, samples, 128, clusters, 0)
        rows.append({"samples": samples} | in_child("growth", "stages", path=path, n_clusters=clusters))
        print(rows[-1], flush=True)
    exponents = {}
    if len(rows) > 1:
        n = np.log([row["samples"] for row in rows])
        for name in STAGES:
            exponents[name] = {
                unit: float(np.polyfit(n, np.log([max(row[f"{name} {unit}"], 0.01) for row in rows]), 1)[0])
                for unit in ("cpu s", "MiB")
            }
    note = "stages of graphclust.cluster on blobs of 128 features, a cluster for each 1,000 samples"
    table = [
        {"stage": name}
        | {
            f"{row['samples']:,} {unit}": row[f"{name} {unit}"]
            for unit in ("s", "cpu s", "MiB")
            for row in rows
        }
        | {f"exponent {unit}": round(value, 2) for unit, value in exponents.get(name, {}).items()}
        for name in STAGES
    ]
    show(table, note)
    write_table("growth", table, note)
    if exponents:
        print(draw(rows, exponents))


if __name__ == "__main__":
    main()
