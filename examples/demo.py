"""Cluster 1,797 real handwritten digits with VGDCN, and set the result beside k-means.

Prints progress and scores. Writes to a folder the fitted model and a picture: a map of the samples coloured by cluster,
and sample images of each cluster. The digits come with scikit-learn: nothing is downloaded.

Run: make demo, or python examples/demo.py [--out FOLDER] [--seed SEED]
"""

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from graphclust import VGDCN
from graphclust.metrics import evaluate
from graphclust.report import overview

SCORES = ("ACC", "NMI", "ARI")


def main() -> None:
    parser = argparse.ArgumentParser(description="Cluster handwritten digits with VGDCN and with k-means.")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for picture and model")
    parser.add_argument("--seed", type=int, default=0, help="random_state of both methods")
    arguments = parser.parse_args()
    console = Console(highlight=False)

    digits = load_digits()
    x = digits.data / 16  # grey values in [0, 1]
    console.print(
        f"[bold]{len(x):,} handwritten digits[/bold], 8 x 8 pixels each. No label is used for clustering.\n"
    )

    started = time.perf_counter()
    kmeans = KMeans(n_clusters=10, n_init=20, random_state=arguments.seed).fit(x)
    kmeans_seconds = time.perf_counter() - started

    started = time.perf_counter()
    model = VGDCN(n_clusters=10, random_state=arguments.seed, verbose=True).fit(x)
    seconds = time.perf_counter() - started

    console.print("\n[bold]The sample graph[/bold]")
    console.print(str(model.graph_.summary()), markup=False, soft_wrap=True)

    # From here on labels are read: they tell how well it went, and change nothing.
    table = Table(
        "method", *SCORES, "seconds", title="Against the true digits, in per cent", title_justify="left"
    )
    for name, labels, taken in (
        ("k-means", kmeans.labels_, kmeans_seconds),
        ("VGDCN", model.labels_, seconds),
    ):
        scores = evaluate(digits.target, labels)
        table.add_row(name, *(f"{100 * scores[score]:.1f}" for score in SCORES), f"{taken:.1f}")
    console.print()
    console.print(table)

    arguments.out.mkdir(parents=True, exist_ok=True)
    picture, folder = arguments.out / "overview.png", arguments.out / "model"
    overview(
        model.embedding_,
        model.labels_,
        digits.images / 16,
        model.probabilities_,
        graph=model.graph_,
        title="VGDCN on 1,797 handwritten digits",
    ).savefig(picture, dpi=110)
    model.save(folder)
    console.print(f"\nLook at [bold]{picture}[/bold]. The model is in [bold]{folder}[/bold]; to use it:")
    console.print(f'  graphclust.load("{folder}").predict(new_digits)', markup=False)


if __name__ == "__main__":
    main()
