"""Quality against time: `graphclust.cluster` beside EVoC, UMAP + HDBSCAN, spectral clustering, mixtures and k-means.

    GRAPHCLUST_DATA=<folder> python benchmarks/peers.py [--seeds 3] [--data digits usps ...] [--methods ours evoc ...]

Every run has a process of its own; the seconds are those of the clustering alone, after a warm-up on a few hundred
samples for what compiles itself. All are told the number of clusters, HDBSCAN by the smallest size of a cluster (a
quarter of the mean size), its noise going to the nearest sample that is not. Needs `pip install evoc umap-learn`. Adds
to benchmarks/results/peers.csv and draws docs/images/peers.png.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from common import PICTURES, in_child, read_table, show, summarise, write_table
from default import DATA, read

import graphclust
from graphclust.metrics import evaluate

NAMES = {
    "ours": "graphclust.cluster",
    "evoc": "EVoC",
    "umap": "UMAP + HDBSCAN",
    "spectral": "spectral",
    "mixture": "Gaussian mixture",
    "kmeans": "k-means",
}
SCORES = ("ACC", "NMI", "ARI")


def run(name: str, method: str, seed: int) -> dict[str, Any]:
    """One clustering of one data set."""
    given, y = read(name)
    n_clusters = len(set(y))
    if method == "ours":
        started = time.perf_counter()
        labels = graphclust.cluster(given, n_clusters, random_state=seed).labels_
    else:
        x = np.ascontiguousarray(np.asarray(getattr(given, "x", given)).reshape(len(y), -1), dtype=np.float32)
        function = globals()[f"_{method}"]
        if method in ("evoc", "umap"):
            function(x[:: max(1, len(x) // 400)], 4, seed)
        started = time.perf_counter()
        labels = function(x, n_clusters, seed)
    seconds = round(time.perf_counter() - started, 2)
    scores = evaluate(y, labels)
    return {score: round(100 * scores[score], 2) for score in SCORES} | {
        "clusters": len(set(np.asarray(labels).tolist())),
        "seconds": seconds,
    }


def _evoc(x: np.ndarray, n_clusters: int, seed: int) -> Any:
    from evoc import EVoC

    return EVoC(approx_n_clusters=n_clusters, random_state=seed).fit_predict(x)


def _umap(x: np.ndarray, n_clusters: int, seed: int) -> Any:
    from sklearn.cluster import HDBSCAN
    from sklearn.neighbors import KNeighborsClassifier
    from umap import UMAP

    embedded = UMAP(n_components=10, min_dist=0.0, random_state=seed).fit_transform(x)
    labels = HDBSCAN(min_cluster_size=max(5, len(x) // (4 * n_clusters)), copy=True).fit_predict(embedded)
    known = labels >= 0
    if known.any() and not known.all():
        nearest = KNeighborsClassifier(1).fit(embedded[known], labels[known])
        labels[~known] = nearest.predict(embedded[~known])
    return labels


def _spectral(x: np.ndarray, n_clusters: int, seed: int) -> Any:
    from sklearn.cluster import SpectralClustering

    method = SpectralClustering(n_clusters, affinity="nearest_neighbors", n_neighbors=10, random_state=seed)
    return method.fit_predict(x)


def _mixture(x: np.ndarray, n_clusters: int, seed: int) -> Any:
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    components = PCA(min(32, *x.shape), random_state=seed).fit_transform(x)
    mixture = GaussianMixture(n_clusters, reg_covar=1e-4, n_init=3, random_state=seed)
    return mixture.fit_predict(components.astype(np.float64))


def _kmeans(x: np.ndarray, n_clusters: int, seed: int) -> Any:
    from sklearn.cluster import KMeans

    return KMeans(n_clusters, n_init=20, random_state=seed).fit_predict(x)


def draw(rows: list[dict[str, Any]]) -> None:
    """Accuracy over seconds, a panel for each data set."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["data"] for row in rows))
    figure = Figure(figsize=(4.1 * len(names) + 1.6, 3.9), layout="constrained")
    methods = list(NAMES)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False).ravel(), names, strict=True):
        for row in summarise([r for r in rows if r["data"] == name], "method", ("ACC", "seconds")):
            color = f"C{methods.index(row['method'])}"
            label = NAMES[row["method"]]
            axes.errorbar(
                row["seconds"], row["ACC"], yerr=row["ACC sd"], fmt="o", color=color, capsize=3, label=label
            )
        axes.set_xscale("log")
        axes.margins(x=0.1, y=0.1)
        axes.set_title(name, loc="left")
        axes.set_xlabel("seconds")
        axes.set_ylabel("ACC, per cent")
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(PICTURES / "peers.png", dpi=110)


def main() -> None:
    """Run what is asked for; rows of the same data set and method are made anew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", nargs="*", default=["digits", "usps", "mnist_test", "leaves"], choices=DATA)
    parser.add_argument("--methods", nargs="*", default=list(NAMES), choices=NAMES)
    options = parser.parse_args()
    rows = read_table("peers")
    for name in options.data:
        for method in options.methods:
            rows = [row for row in rows if (row["data"], row["method"]) != (name, method)]
            for seed in range(options.seeds):
                row = {"data": name, "method": method, "seed": seed}
                rows.append(row | in_child("peers", "run", name=name, method=method, seed=seed))
                print(rows[-1], flush=True)
            write_table("peers", rows, "quality against time; K is told")
        here = [row for row in rows if row["data"] == name]
        show(summarise(here, "method", [*SCORES, "seconds", "peak_mib"]), name)
    draw(rows)


if __name__ == "__main__":
    main()
