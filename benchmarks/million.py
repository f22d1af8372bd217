"""A million vectors from the file to labels: `graphclust.cluster` beside EVoC, k-means and UMAP with HDBSCAN.

    python benchmarks/million.py [--samples 1000000] [--clusters 1000] [--folder DIR] [--run ours evoc ...] [--add]

The data are `million_data.blobs` (128 features, clusters of unequal size and shape, seed 0), read from a memory map.
Each line is a process of its own: seconds without imports and reading the labels, largest resident memory with both.
ARI counts all samples, those that a peer calls noise as one more cluster. UMAP with HDBSCAN takes the first `--umap-
samples` rows. EVoC returns several layers: `ARI` is that of its own choice, `best layer` that of the layer which is
best by the true labels. It compiles itself on its first call, which is made on 2,000 rows before the clock starts.
Writes benchmarks/results/million.csv; with `--add` the rows of other methods that are there already stay. `cpu s` is
processor time of all threads, imports and scores included: on a busy machine it tells more than the clock.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from common import RESULTS, in_child, show, write_table
from million_data import blobs, labels_path

NAMES = {
    "ours": "graphclust.cluster",
    "ours_auto": "graphclust.cluster, K estimated",
    "evoc": "EVoC",
    "faiss": "FAISS k-means",
    "minibatch": "MiniBatchKMeans",
    "umap": "UMAP + HDBSCAN",
}


def _scored(path: str, labels: np.ndarray, seconds: float, **more: Any) -> dict[str, Any]:
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    y = np.load(labels_path(path))[: len(labels)]
    return {
        "samples": len(labels),
        "found": len(set(labels.tolist()) - {-1}),
        "ARI": round(adjusted_rand_score(y, labels), 4),
        "NMI": round(normalized_mutual_info_score(y, labels), 4),
        "noise": round(float((labels == -1).mean()), 3),
        "seconds": round(seconds, 1),
        "cpu s": round(time.process_time(), 1),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        **more,
    }


def ours(path: str, n_clusters: int | None, n_neighbors: int = 5) -> dict[str, Any]:
    """`graphclust.cluster`, five neighbours; the graph's share of the time is taken beside."""
    import graphclust
    from graphclust.methods.consensus import ConsensusClustering

    x = np.load(path, mmap_mode="r")
    search = ConsensusClustering._sample_graph
    spent: list[float] = []

    def timed(self: Any, features: Any) -> Any:
        begun = time.perf_counter()
        graph = search(self, features)
        spent.append(time.perf_counter() - begun)
        return graph

    with patch.object(ConsensusClustering, "_sample_graph", timed):
        started = time.perf_counter()
        model = graphclust.cluster(
            x, n_clusters, method="ConsensusClustering", n_neighbors=n_neighbors, random_state=0
        )
        seconds = time.perf_counter() - started
    recall = model.graph_.construction["estimated_recall"]
    more = {"graph s": round(spent[0], 1), "recall": round(float(recall), 3)}
    return _scored(path, model.labels_, seconds, **more)


def ours_auto(path: str, n_clusters: int) -> dict[str, Any]:
    """The same without being told K."""
    return ours(path, None)


def evoc(path: str, n_clusters: int) -> dict[str, Any]:
    """EVoC, by its defaults; it counts the clusters by itself."""
    from evoc import EVoC

    x = np.ascontiguousarray(np.load(path, mmap_mode="r"))
    EVoC(random_state=0).fit_predict(x[:2000])
    started = time.perf_counter()
    model = EVoC(random_state=0)
    labels = np.asarray(model.fit_predict(x))
    seconds = time.perf_counter() - started
    layers = [_scored(path, np.asarray(layer), seconds)["ARI"] for layer in model.cluster_layers_]
    return _scored(path, labels, seconds, **{"best layer": max(layers)})


def faiss(path: str, n_clusters: int) -> dict[str, Any]:
    """FAISS k-means on all rows, 20 iterations, one start."""
    import faiss as library

    x = np.ascontiguousarray(np.load(path, mmap_mode="r"))
    started = time.perf_counter()
    kmeans = library.Kmeans(x.shape[1], n_clusters, niter=20, seed=0, max_points_per_centroid=len(x))
    kmeans.train(x)
    labels = kmeans.index.search(x, 1)[1].ravel()
    return _scored(path, labels, time.perf_counter() - started)


def minibatch(path: str, n_clusters: int) -> dict[str, Any]:
    """scikit-learn's MiniBatchKMeans, batches of 10,000."""
    from sklearn.cluster import MiniBatchKMeans

    x = np.load(path, mmap_mode="r")
    started = time.perf_counter()
    labels = MiniBatchKMeans(n_clusters, batch_size=10_000, n_init=1, random_state=0).fit_predict(x)
    return _scored(path, labels, time.perf_counter() - started)


def umap(path: str, n_clusters: int, samples: int = 50_000) -> dict[str, Any]:
    """UMAP to five dimensions, then HDBSCAN of scikit-learn, on the first rows."""
    from sklearn.cluster import HDBSCAN
    from umap import UMAP

    x = np.ascontiguousarray(np.load(path, mmap_mode="r")[:samples])
    started = time.perf_counter()
    low = UMAP(n_neighbors=15, n_components=5, min_dist=0.0).fit_transform(x)
    labels = HDBSCAN(min_cluster_size=max(5, len(x) // (10 * n_clusters))).fit_predict(low)
    return _scored(path, labels, time.perf_counter() - started)


def _written(name: str) -> tuple[list[dict[str, Any]], str]:
    """Rows and head of a table of an earlier run; none where there is none."""
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        return [], ""
    lines = path.read_text().splitlines(keepends=True)
    head = [line for line in lines if line.startswith("#")]
    return list(csv.DictReader(lines[len(head) :])), "".join(head)


def main() -> None:
    """Run ours and the peers asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the data are made")
    parser.add_argument("--run", nargs="*", default=["ours", "evoc", "faiss", "minibatch"], choices=NAMES)
    parser.add_argument("--umap-samples", type=int, default=50_000)
    parser.add_argument("--add", action="store_true", help="keep the rows of other methods in the table")
    options = parser.parse_args()
    path = str(Path(options.folder) / f"blobs_{options.samples}_{options.clusters}.npy")
    blobs(path, options.samples, 128, options.clusters, 0)
    size = "million" if options.samples == 1_000_000 else f"million_{options.samples}"
    note = f"{options.samples} x 128, {options.clusters} overlapping unequal clusters (million_data.blobs, seed 0)"
    rows, head = _written(size) if options.add else ([], "")
    for name in options.run:
        more = {"samples": options.umap_samples} if name == "umap" else {}
        try:
            row = in_child("million", name, path=path, n_clusters=options.clusters, **more)
        except RuntimeError as error:  # a peer that is not installed, or too large for the memory
            row = {"remark": str(error).strip().splitlines()[-1][:120]}
        rows = [old for old in rows if old["method"] != NAMES[name]]
        rows.append({"method": NAMES[name]} | row)
        print(rows[-1], flush=True)
        table = write_table(
            size, rows, note if not head else "Added to the above, with the number of threads:"
        )
        table.write_text(head + table.read_text())
    show(rows, note)


if __name__ == "__main__":
    main()
