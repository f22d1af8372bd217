"""VGDCN on USPS: convolutions, mini-batches, unseen samples; five seeds, last epoch, one-to-one accuracy.

    GRAPHCLUST_DATA=<folder> python benchmarks/usps.py [--seeds 5] [--parts graph convolutions batches unseen]

Writes benchmarks/results/usps_*.csv. Labels are read by the metrics alone.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from common import in_child, show, summarise, write_table

import graphclust
from graphclust.metrics import evaluate

SCORES = ("ACC", "NMI", "ARI")
VARIANTS: dict[str, dict[str, Any]] = {
    "gcn": {"conv": "gcn"},
    "gat": {"conv": "gat"},
    "sage": {"conv": "sage"},
    "gin": {"conv": "gin"},
    # An epoch of batches has ten steps where the full graph has one.
    "gcn, batches of 1024": {"conv": "gcn", "batch_size": 1024, "branch_epochs": 6, "epochs": 5},
}


def percent(scores: dict[str, float]) -> dict[str, float]:
    """Scores in per cent."""
    return {name: round(100 * scores[name], 2) for name in SCORES}


def fit(seed: int, **parameters: Any) -> dict[str, Any]:
    """One VGDCN on all of USPS; the time leaves out loading."""
    data = graphclust.datasets.load("usps")
    started = time.perf_counter()
    model = graphclust.VGDCN(10, random_state=seed, **parameters).fit(data.x)
    return percent(evaluate(data.y, model.labels_)) | {"seconds": round(time.perf_counter() - started, 1)}


def kmeans(seed: int) -> dict[str, Any]:
    """scikit-learn's k-means, 20 starts."""
    from sklearn.cluster import KMeans

    data = graphclust.datasets.load("usps")
    started = time.perf_counter()
    labels = KMeans(10, n_init=20, random_state=seed).fit_predict(data.x)
    return percent(evaluate(data.y, labels)) | {"seconds": round(time.perf_counter() - started, 1)}


def unseen(seed: int) -> dict[str, Any]:
    """Fit on four fifths, predict the rest, score both by the matching found on the first."""
    from graphclust.metrics import clustering_accuracy, match_labels

    data = graphclust.datasets.load("usps")
    order = np.random.default_rng(seed).permutation(len(data.x))
    train, test = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
    model = graphclust.VGDCN(10, random_state=seed).fit(data.x[train])
    matching = match_labels(data.y[train], model.labels_)
    started = time.perf_counter()
    predicted = np.array([matching.get(c, -1) for c in model.predict(data.x[test])])
    return {
        "ACC train": round(100 * clustering_accuracy(data.y[train], model.labels_), 2),
        "ACC unseen": round(100 * float((predicted == data.y[test]).mean()), 2),
        "predict seconds": round(time.perf_counter() - started, 2),
    }


def graph_edges() -> list[dict[str, Any]]:
    """Share of SDCN's published edges that the exact search finds."""
    import os
    from pathlib import Path

    data = graphclust.datasets.load("usps")
    rows = []
    for k in (1, 3, 5, 10):
        path = Path(os.environ["GRAPHCLUST_DATA"]) / f"usps{k}_sdcn_graph.npz"
        published = {tuple(edge) for edge in np.load(path)["edges"].tolist()}
        index, _ = graphclust.NeighborSearch().fit(data.x * 2).self_neighbors(k)
        found = {(i, j) for i, row in enumerate(index.tolist()) for j in row}
        rows.append({"k": k, "edges": len(published), "equal": len(found & published)})
    return rows


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--parts", nargs="*", default=["graph", "convolutions", "unseen"])
    options = parser.parse_args()
    if "graph" in options.parts:
        rows = graph_edges()
        show(rows, "SDCN's published neighbour lists of USPS")
        write_table("usps_graph", rows, "USPS: directed neighbour lists equal to those that SDCN published")
    if "convolutions" in options.parts:
        rows = [
            {"method": "k-means", **in_child("usps", "kmeans", seed=s), "seed": s}
            for s in range(options.seeds)
        ]
        for name, parameters in VARIANTS.items():
            for seed in range(options.seeds):
                rows.append(
                    {"method": name, **in_child("usps", "fit", seed=seed, **parameters), "seed": seed}
                )
                print(rows[-1], flush=True)
            write_table("usps_runs", rows, "USPS, every run: last epoch, one-to-one ACC")
        table = summarise(rows, "method", (*SCORES, "seconds", "peak_mib"))
        show(table, "USPS (9,298 x 256), VGDCN by convolution; SDCN reports 78.08 / 79.51 / 71.84")
        write_table("usps", table, "USPS, mean and deviation over the seeds, last epoch, one-to-one ACC")
    if "unseen" in options.parts:
        rows = [{"part": "unseen", **in_child("usps", "unseen", seed=s)} for s in range(options.seeds)]
        table = summarise(rows, "part", ("ACC train", "ACC unseen", "predict seconds"))
        show(table, "USPS, fitted on four fifths, predicted on the rest")
        write_table("usps_unseen", table, "USPS, fitted on four fifths, predicted on the rest, one matching")


if __name__ == "__main__":
    main()
