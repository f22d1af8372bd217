"""What each part of the default methods adds: images, vectors and graphs, five seeds, K given, one-to-one accuracy.

    GRAPHCLUST_DATA=<folder> python benchmarks/ablation.py [--seeds 5] [--data digits usps wine cora ...]

Images: `LearnedGraphClustering` as it comes, with its labels noted after each step of the same run, and with one part
left out at a time. Vectors: `ConsensusClustering` with one scaling at a time and with all. Graphs:
`GraphContrastClustering` with each view alone and with both. Writes benchmarks/results/ablation_<data>.csv; labels are
read by the metrics alone.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from common import in_child, show, summarise, write_table
from default import SCORES, kmeans, read

import graphclust
from graphclust.methods.starts import principal_components
from graphclust.methods.views import View
from graphclust.metrics import evaluate
from graphclust.nn.vector_scale import vector_scales
from graphclust.training.inference import in_blocks

IMAGES = ("digits", "usps", "mnist_test", "fashion_mnist_test")
VECTORS = ("iris", "wine", "breast_cancer", "digits_vectors", "leaves")
GRAPHS = ("cora", "citeseer")
#: One part of `LearnedGraphClustering` left out at a time.
WITHOUT: dict[str, dict[str, Any]] = {
    "without parts (the views' clusters from the start)": {"parts_per_cluster": 1},
    "without other views (pixels alone)": {"views": None},
    "without changed copies": {"augmentation": 0.0},
    "one split instead of eight": {"splits": 1},
}


class Noted(graphclust.LearnedGraphClustering):
    """Keeps the clusters that single views give, and those that each round starts from."""

    def _start_parts(self, model: Any, source: Any, memory: Any) -> None:
        super()._start_parts(model, source, memory)
        scaled = in_blocks(model.scale, source.x, device=source.device)
        pixels = View(source.graph, principal_components(scaled, seed=source.seed))
        # Tiny pictures have the view of the pixels first.
        whole = [view for view in self._views_of(model, source) if view.rows is None]
        views = {"pixels": pixels, "edges' directions": whole[-1 if len(whole) < 3 else 1]}
        self.views_ = {
            name: view.consensus(self.n_clusters_, source.seed, self.parts_per_cluster).labels.numpy()
            for name, view in views.items()
        }

    def _start_clusters(self, model: Any, source: Any, memory: Any, stage: Any, *, first: bool) -> None:
        ended = "ended" in memory
        super()._start_clusters(model, source, memory, stage, first=first)
        if not ended and "ended" not in memory:
            self.__dict__.setdefault("steps_", []).append(memory["clusters"].numpy().copy())


def scored(y: Any, labels: Any) -> dict[str, float]:
    """Scores in per cent."""
    scores = evaluate(y, labels)
    return {name: round(100 * scores[name], 2) for name in SCORES}


def steps(name: str, seed: int) -> dict[str, Any]:
    """Scores after each step of one run of the default for images."""
    images, y = read(name)
    model = Noted(len(set(y)), random_state=seed).fit(images)
    found = {f"consensus on the graph of {view}": labels for view, labels in model.views_.items()}
    labels: list[Any] = model.steps_
    found["steps 1 to 3: parts, learnt graph, clusters of all views"] = labels[0]
    found["the labels after one round"] = labels[min(1, len(labels) - 1)]
    found["the labels after as many rounds as help"] = labels[-1]
    x = torch.from_numpy(np.asarray(images, np.float32).reshape(len(y), -1))
    own = model._read_samples(model.model_, x, torch.device("cpu"))[1]
    found["the network by itself, at the end"] = np.asarray(own).argmax(axis=1)
    found["averaged over the learnt graph: as it comes"] = model.labels_
    return {step: scored(y, labels) for step, labels in found.items()}


def variant(name: str, seed: int, **parameters: Any) -> dict[str, Any]:
    """The default for images with other parameters."""
    images, y = read(name)
    model = graphclust.LearnedGraphClustering(len(set(y)), random_state=seed, **parameters).fit(images)
    return scored(y, model.labels_)


def vectors(name: str, seed: int) -> dict[str, Any]:
    """Each scaling by itself, and all of them."""
    x, y = read("digits" if name == "digits_vectors" else name)
    x = np.asarray(x, np.float32).reshape(len(y), -1)
    k, found = len(set(y)), {}
    for scale in vector_scales(torch.from_numpy(x)):
        model = graphclust.ConsensusClustering(k, scale="none", random_state=seed)
        found[f"one scaling: {scale.taken}"] = scored(
            y, model.fit_predict(scale(torch.from_numpy(x)).numpy())
        )
    model = graphclust.ConsensusClustering(k, random_state=seed)
    return found | {"all scalings: as it comes": scored(y, model.fit_predict(x))}


def graphs(name: str, seed: int) -> dict[str, Any]:
    """Each view of a graph's nodes by itself, both, and those that are taken."""
    from sklearn.cluster import KMeans

    data, y = read(name)
    k, found = len(set(y)), {}
    for view in ("features", "edges", "components"):
        model = graphclust.GraphContrastClustering(k, view=view, random_state=seed)
        what = "propagated components" if view == "components" else view
        found[f"{what} alone, nothing trained"] = scored(y, model.fit(data).labels_)
    model = graphclust.GraphContrastClustering(k, view="both", random_state=seed).fit(data)
    start = KMeans(k, n_init=60, random_state=seed)
    found["learnt codes alone"] = scored(y, start.fit_predict(model.embedding_[:, : model.latent_dim]))
    found["both, always"] = scored(y, model.labels_)
    chosen = graphclust.GraphContrastClustering(k, random_state=seed).fit(data)
    return found | {"the encoder where its clusters are found again: as it comes": scored(y, chosen.labels_)}


def main() -> None:
    """Run the data sets asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    every = (*IMAGES, *VECTORS, *GRAPHS)
    parser.add_argument("--data", nargs="*", default=["digits", "usps", *VECTORS, *GRAPHS], choices=every)
    options = parser.parse_args()
    for name in options.data:
        rows = []
        for seed in range(options.seeds):
            plain = "digits" if name == "digits_vectors" else name
            rows.append({"step": "k-means", "seed": seed} | kmeans(plain, seed))
            function = "steps" if name in IMAGES else "vectors" if name in VECTORS else "graphs"
            found = in_child("ablation", function, name=name, seed=seed)
            rows += [
                {"step": step, "seed": seed} | scores
                for step, scores in found.items()
                if isinstance(scores, dict)
            ]
            for left_out, parameters in WITHOUT.items() if name in IMAGES else ():
                scores = in_child("ablation", "variant", name=name, seed=seed, **parameters)
                rows.append({"step": left_out, "seed": seed} | scores)
            print(
                name,
                "seed",
                seed,
                {row["step"]: row["ACC"] for row in rows if row["seed"] == seed},
                flush=True,
            )
        show(summarise(rows, "step", SCORES), f"What each part adds: {name}")
        columns = ("step", "seed", *SCORES)
        write_table(
            f"ablation_{name}",
            [{column: row[column] for column in columns} for row in rows],
            f"What each part of the default adds on {name}, K given",
        )


if __name__ == "__main__":
    main()
