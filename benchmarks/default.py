"""`graphclust.cluster` as it comes, on images, vectors and graphs; K given, labels read by the metrics alone.

    GRAPHCLUST_DATA=<folder> python benchmarks/default.py [--seeds 5] [--data digits usps mnist_test ...]

Writes benchmarks/results/default_<data>.csv. `ECE` is the expected calibration error of the largest probability (15
bins), in per cent; `unseen` the accuracy on a fifth of the samples that was left out (`--unseen`).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from common import PICTURES, in_child, show, summarise, write_table

import graphclust
from graphclust.metrics import calibration_error, clustering_accuracy, evaluate, match_labels
from graphclust.report import reliability_curve

DATA = (
    "iris",
    "wine",
    "breast_cancer",
    "digits",
    "leaves",
    "leaves_mirror",
    "leaves_10",
    "leaves_10_mirror",
    "usps",
    "mnist_test",
    "fashion_mnist",
    "fashion_mnist_test",
    "fashion_mnist_test_layers",
    "cora",
    "citeseer",
)
SCORES = ("ACC", "NMI", "ARI")


def read(name: str) -> tuple[Any, Any]:
    """Features or images, and classes."""
    if name in ("iris", "wine", "breast_cancer"):
        from sklearn import datasets

        return getattr(datasets, f"load_{name}")(return_X_y=True)
    if name.startswith("leaves"):
        data = graphclust.datasets.load("leaves")
        how: dict[str, Any] = {}
        if "mirror" in name:  # a silhouette has no upright position, and is less than a photograph
            how = {"features": "efficientnet-lite0-layers", "mirror": "both"}
        images = graphclust.images.read_images(data.paths, **how)
        row = {str(path): i for i, path in enumerate(data.paths)}
        x, y = images.x, data.y[[row[path] for path in images.paths]]
        kept = np.isin(y, np.unique(y)[3::10]) if "_10" in name else slice(None)
        return x[kept], y[kept]
    if name in ("cora", "citeseer"):
        from torch_geometric.data import Data

        given = graphclust.datasets.load(name)
        return Data(x=torch.as_tensor(given.x), edge_index=torch.as_tensor(given.edge_index)), given.y
    if name.endswith("_layers"):  # small photographs, by what a pretrained network sees in them
        images, y = read(name.removesuffix("_layers"))
        return graphclust.images.read_images(images, "efficientnet-lite0-layers", size=96).x, y
    data = graphclust.datasets.load(name)
    return data.images, data.y


def fit(name: str, seed: int, unseen: bool = False, picture: bool = False) -> dict[str, Any]:
    """One call of `graphclust.cluster`; the time leaves out reading the data."""
    x, y = read(name)
    order = np.random.default_rng(seed).permutation(len(y))
    part = order[: len(x) * 4 // 5] if unseen else np.arange(len(y))
    started = time.perf_counter()
    model = graphclust.cluster(x[part] if unseen else x, len(set(y)), random_state=seed)
    seconds = round(time.perf_counter() - started, 1)
    scores = evaluate(y[part], model.labels_)
    row = {score: round(100 * scores[score], 2) for score in SCORES}
    if picture:
        figure = reliability_curve(y[part], model.probabilities_, title=name)
        figure.savefig(PICTURES / f"reliability_{name}.png", dpi=110)
    row["ECE"] = round(100 * calibration_error(y[part], model.probabilities_), 2)
    if unseen:
        rest = order[len(part) :]
        matching = match_labels(y[part], model.labels_)
        predicted = np.array([matching.get(c, -1) for c in model.predict(x[rest])])
        row["unseen"] = round(100 * float((predicted == y[rest]).mean()), 2)
    return row | {"seconds": seconds, "method": type(model).__name__}


def kmeans(name: str, seed: int) -> dict[str, Any]:
    """scikit-learn's k-means, 20 starts, on the same features."""
    from sklearn.cluster import KMeans

    x, y = read(name)
    rows = np.asarray(getattr(x, "x", x)).reshape(len(y), -1)
    started = time.perf_counter()
    labels = KMeans(len(set(y)), n_init=20, random_state=seed).fit_predict(rows)
    seconds = round(time.perf_counter() - started, 1)
    scores = evaluate(y, labels)
    assert scores["ACC"] == clustering_accuracy(y, labels)
    return {score: round(100 * scores[score], 2) for score in SCORES} | {
        "seconds": seconds,
        "method": "k-means",
    }


def main() -> None:
    """Run the data sets asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", nargs="*", default=list(DATA), choices=DATA)
    parser.add_argument("--unseen", action="store_true", help="leave out a fifth, and label it by predict")
    parser.add_argument(
        "--pictures", action="store_true", help="draw docs/images/reliability_<data>.png of the last seed"
    )
    options = parser.parse_args()
    for name in options.data:
        rows = []
        for seed in range(options.seeds):
            if not options.unseen:
                rows.append({"seed": seed} | in_child("default", "kmeans", name=name, seed=seed))
            drawn = options.pictures and seed == options.seeds - 1
            arguments = {"unseen": options.unseen, "picture": drawn}
            rows.append({"seed": seed} | in_child("default", "fit", name=name, seed=seed, **arguments))
            print(name, rows[-1], flush=True)
        columns = [*SCORES, *(["unseen"] if options.unseen else ["ECE"]), "seconds", "peak_mib"]
        show(summarise(rows, "method", columns), name)
        suffix = "_unseen" if options.unseen else ""
        write_table(f"default_{name}{suffix}", rows, f"graphclust.cluster on {name}, K given")


if __name__ == "__main__":
    main()
