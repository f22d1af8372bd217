"""Attributed graphs of up to a million nodes: clusters, time and memory of the default, beside simpler ways.

    python benchmarks/attributed.py [--nodes 10000 100000 1000000] [--seeds 1] [--neighbors-up-to 100000]

The graph is generated (`graph`): 40 unequal classes; communities of 200 nodes of one class; half of the edges stay
in the community, a fifth in the class, the others lead anywhere (70 % join nodes of one class); mean degree 14 with a
heavy tail; 128 features, a weak class mean and noise. Each row is a process of its own with one thread:

- "k-means, features" and "k-means, propagated": FAISS on the features, and on the features propagated twice
- "GraphContrastClustering": as `graphclust.cluster` calls it, and with both views; the second is also trained on
  sampled neighbours, as batches were before they were made of communities

Labels are read by the scores alone. Writes benchmarks/results/attributed.csv.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import numpy as np
import torch
from common import in_child, show, write_table
from torch_geometric.data import Data

CLASSES, DEGREE, FEATURES, COMMUNITY = 40, 14, 128, 200
WAYS = (
    "k-means, features",
    "k-means, propagated",
    "GraphContrastClustering",
    "GraphContrastClustering, both views",
    "GraphContrastClustering, both views, sampled neighbours",
)


def graph(n_nodes: int, seed: int) -> tuple[Data, np.ndarray]:
    """The generated graph, and the class of each node."""
    generator = np.random.default_rng(seed)
    classes = np.sort(generator.choice(CLASSES, n_nodes, p=generator.dirichlet(np.full(CLASSES, 2.0))))
    first = np.searchsorted(classes, np.arange(CLASSES + 1))
    activity = np.minimum(generator.pareto(2.5, n_nodes) + 0.3, 30)
    one = generator.choice(n_nodes, n_nodes * DEGREE // 2, p=activity / activity.sum())
    kind = generator.random(len(one))
    near = one // COMMUNITY * COMMUNITY
    low = np.where(kind < 0.5, near, np.where(kind < 0.7, first[classes[one]], 0))
    high = np.where(kind < 0.7, first[classes[one] + 1], n_nodes)
    high = np.where(kind < 0.5, np.minimum(near + COMMUNITY, n_nodes), high)
    other = (low + generator.random(len(one)) * (high - low)).astype(np.int64)
    means = generator.normal(size=(CLASSES, FEATURES)).astype(np.float32)
    x = generator.normal(size=(n_nodes, FEATURES)).astype(np.float32)
    x += 0.22 * means[classes]
    place = generator.permutation(n_nodes)  # the order shall tell nothing
    one, other = place[one[one != other]], place[other[one != other]]
    pairs = np.unique(np.concatenate([one * n_nodes + other, other * n_nodes + one]))
    features, labels = np.empty_like(x), np.empty_like(classes)
    features[place], labels[place] = x, classes
    edges = torch.from_numpy(np.stack([pairs // n_nodes, pairs % n_nodes]))
    return Data(x=torch.from_numpy(features), edge_index=edges), labels


def run(way: str, n_nodes: int, seed: int) -> dict[str, Any]:
    """Scores, seconds and memory of one way."""
    import graphclust
    from graphclust.graph import SampleGraph
    from graphclust.methods.starts import propagated
    from graphclust.metrics import evaluate
    from graphclust.training import BatchSource

    torch.set_num_threads(1)
    data, classes = graph(n_nodes, seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, used = time.perf_counter(), time.process_time()
    if way.startswith("k-means"):
        x = data.x
        if way.endswith("propagated"):
            x = propagated(BatchSource(SampleGraph.from_data(data)), x, 2)
        model = graphclust.KMeans(CLASSES, random_state=seed).fit(x)
    elif way == "GraphContrastClustering":
        model = graphclust.cluster(data, CLASSES, random_state=seed)
    else:
        sampling = "neighbors" if way.endswith("neighbours") else "auto"
        model = graphclust.GraphContrastClustering(
            CLASSES, view="both", sampling=sampling, random_state=seed
        ).fit(data)
    found = evaluate(classes, model.labels_)
    return {
        "nodes": n_nodes,
        "edges": data.edge_index.shape[1],
        "way": way,
        "view": getattr(model, "view_", ""),
        "seed": seed,
        **{name: round(100 * found[name], 1) for name in ("ACC", "NMI", "ARI")},
        "seconds": round(time.perf_counter() - started, 1),
        "cpu s": round(time.process_time() - used, 1),
        "MiB before": round(before / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--neighbors-up-to", type=int, default=100_000, help="largest graph for sampled neighbours"
    )
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for n_nodes in arguments.nodes:
        for seed in range(arguments.seeds):
            for way in WAYS:
                if way.endswith("neighbours") and not 50_000 < n_nodes <= arguments.neighbors_up_to:
                    continue  # up to 50,000 nodes a step takes them all
                rows.append(in_child("attributed", "run", way=way, n_nodes=n_nodes, seed=seed))
                print(rows[-1], flush=True)
                note = "generated attributed graphs, K given, one thread; memory of the process with the data"
                write_table("attributed", rows, note)
    show(rows, "attributed graphs")


if __name__ == "__main__":
    main()
