"""How many clusters `graphclust.cluster` sees in scikit-learn's shapes without being told, beside HDBSCAN.

    python benchmarks/shapes.py [--seeds 5] [--sizes 150 300 500 1500 5000]

The shapes are those of scikit-learn's comparison of clustering methods, and a ring. Both methods run with their
defaults on standardised columns. `found` are the numbers of clusters, one for each seed, and `ARI` is that with the
groups the samples were drawn from, HDBSCAN's noise counted as one more (of a square and a ring 1 where one cluster
was found, else 0). Writes benchmarks/results/shapes.csv and docs/images/shapes.png (500 samples, the first seed).
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from common import PICTURES, show, write_table
from sklearn.cluster import HDBSCAN
from sklearn.datasets import make_blobs, make_circles, make_moons
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler

import graphclust

DRAWN = 500


def shapes(n: int, seed: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, samples [n, 2] and the group of each."""
    rng = np.random.default_rng(seed)
    one = np.zeros(n, dtype=int)
    yield "moons", *make_moons(n, noise=0.05, random_state=seed)
    yield "circles", *make_circles(n, factor=0.5, noise=0.05, random_state=seed)
    centers = np.array([[-6.0, -4.0], [0.0, 5.0], [6.0, -2.0]])
    yield "blobs", *make_blobs(n, centers=centers, random_state=seed)
    x, y = make_blobs(n, centers=make_blobs(3, random_state=170, return_centers=True)[2], random_state=seed)
    yield "stretched", x @ np.array([[0.6, -0.6], [-0.4, 0.8]]), y
    yield "unequal", *make_blobs(n, centers=centers, cluster_std=[1.0, 2.5, 0.5], random_state=seed)
    yield "square", rng.random((n, 2)), one
    angle = 2 * np.pi * rng.random(n)
    yield "ring", np.c_[np.cos(angle), np.sin(angle)] + 0.05 * rng.normal(size=(n, 2)), one


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[150, 300, DRAWN, 1500, 5000])
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="all .* samples are in one cluster")
    rows = []
    figure, axes = plt.subplots(2, 7, figsize=(14, 4.6), layout="constrained")
    for n in options.sizes:
        found: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for seed in range(options.seeds):
            for column, (name, x, y) in enumerate(shapes(n, seed)):
                x = StandardScaler().fit_transform(x).astype(np.float32)
                labels = {
                    "graphclust.cluster": graphclust.cluster(x, random_state=seed).labels_,
                    "HDBSCAN": HDBSCAN(copy=True).fit_predict(x),
                }
                for row, (method, own) in enumerate(labels.items()):
                    count = len(set(own[own >= 0].tolist()))
                    score = adjusted_rand_score(y, own)
                    found.setdefault((name, method), []).append((count, score))
                    if n == DRAWN and seed == 0:
                        draw(axes[row, column], x, own, f"{name}: {count}" if row == 0 else f"{count}")
        for (name, method), results in found.items():
            rows.append(
                {
                    "shape": name,
                    "samples": n,
                    "method": method,
                    "found": " ".join(str(count) for count, _ in results),
                    "ARI": f"{np.mean([score for _, score in results]):.2f}",
                }
            )
        show([row for row in rows if row["samples"] == n], f"{n:,} samples")
    write_table("shapes", rows, "clusters found without being told how many")
    for row, method in enumerate(("graphclust.cluster(X)", "HDBSCAN")):
        axes[row, 0].set_ylabel(method)
    figure.savefig(PICTURES / "shapes.png", dpi=110)


def draw(axis: plt.Axes, x: np.ndarray, labels: np.ndarray, title: str) -> None:
    """Samples in the colour of their cluster, noise in grey; colours begin again after ten."""
    colors = np.where(labels[:, None] < 0, (0.75, 0.75, 0.75, 1.0), plt.get_cmap("tab10")(labels % 10))
    axis.scatter(x[:, 0], x[:, 1], s=4, c=colors, linewidths=0)
    axis.set(xticks=[], yticks=[], aspect="equal")
    axis.set_title(title, fontsize=11)


if __name__ == "__main__":
    main()
