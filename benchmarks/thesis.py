"""The thesis's own observations on USPS, reproduced and drawn.

    GRAPHCLUST_DATA=<folder> python benchmarks/thesis.py [--seeds 3] [--parts prior epsilon neighbors samples] [--wide]

- prior: an ordinary VAE with k-means against the same auto-encoder with a Gaussian mixture;
- epsilon: the bridge, 0 to 1; neighbors: M in 1, 3, 5, 10; both with `VGDCN.thesis`, but for a graph branch that starts
  from the encoder's weights: from random ones it is far from converged after 40 full-batch steps (--cold shows that);
- samples: images drawn from the decoder after 1, 40 and 100 epochs.

Without --wide the networks are d-256-256-512-10 and the sweeps take 20 epochs at a rate of 2e-4, a tenth of the time of
the thesis's d-500-500-2000-10 with 100. Writes benchmarks/results/thesis_*.csv and docs/images/thesis_*.png,
the wide sweeps under names of their own.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from common import PICTURES, in_child, show, summarise, write_table
from usps import SCORES, percent

import graphclust
from graphclust import nn, report, training
from graphclust.metrics import evaluate, modularity

EPSILONS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
NEIGHBORS = (1, 3, 5, 10)


def prior(seed: int, kind: str, epochs: int) -> dict[str, Any]:
    """`epochs` of a plain VAE (prior N(0, 1)) or of the auto-encoder alone; then k-means and a mixture on the codes."""
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

    data = graphclust.datasets.load("usps")
    graph = graphclust.SampleGraph.from_features(data.x, 3)
    torch.manual_seed(seed)
    model = nn.AutoEncoder.mlp(256, (256, 256, 512), 10, variational=True)
    likelihood = nn.Bernoulli()

    def loss(m: nn.AutoEncoder, batch: training.Batch) -> training.Step:
        encoding = m.encode(batch.x)
        if kind == "VAE":
            mean, log_variance = encoding.gaussian()
            z = nn.gaussian_sample(mean, log_variance)
            terms = {"kl": nn.kl_standard_normal(mean, log_variance).mean()}
        else:
            z, terms = encoding.mean, {}
        terms["reconstruction"] = likelihood.negative_log_likelihood(m.decode(z), batch.x).mean()
        return training.Step(terms)

    stage = training.Stage("auto-encoder", loss, epochs, batch_size=256)
    training.Trainer(seed=seed).fit(model, [stage], training.BatchSource(graph, seed=seed))
    codes = training.in_blocks(lambda x: model.encode(x).mean, graph.x).numpy()
    kmeans = KMeans(10, n_init=10, random_state=seed).fit_predict(codes)
    mixture = GaussianMixture(10, covariance_type="diag", n_init=3, random_state=seed).fit_predict(codes)
    scores = {f"{n} k-means": v for n, v in percent(evaluate(data.y, kmeans)).items()}
    return scores | {f"{n} mixture": v for n, v in percent(evaluate(data.y, mixture)).items()}


def fit(seed: int, **parameters: Any) -> dict[str, Any]:
    """One `VGDCN.thesis`, scored with labels, and by modularity without."""
    data = graphclust.datasets.load("usps")
    model = graphclust.VGDCN.thesis(10, random_state=seed, **parameters).fit(data.x)
    yardstick = graphclust.SampleGraph.from_features(data.x, 10, kernel="binary")
    scores = percent(evaluate(data.y, model.labels_))
    return scores | {"modularity": round(100 * modularity(yardstick, model.labels_), 2)}


def samples(epochs: int, **parameters: Any) -> dict[str, Any]:
    """Ten images a cluster from the decoder after `epochs`."""
    data = graphclust.datasets.load("usps")
    model = graphclust.VGDCN.thesis(10, random_state=0, epochs=epochs, **parameters).fit(data.x)
    images = [model.sample(10, cluster=c, random_state=c)[0] for c in range(10)]
    return {"images": np.concatenate(images).round(3).tolist()}


def sweep(
    name: str, values: tuple[Any, ...], seeds: int, shape: dict[str, Any], label: str, suffix: str
) -> None:
    """Fit for each value and seed, write the table, draw the curve."""
    rows = []
    for value in values:
        for seed in range(seeds):
            arguments = {**shape, name: value}
            rows.append({name: value, "seed": seed, **in_child("thesis", "fit", seed=seed, **arguments)})
            print(rows[-1], flush=True)
    columns = (*SCORES, "modularity")
    table = summarise(rows, name, columns)
    show(table, f"VGDCN.thesis on USPS, {label}")
    write_table(f"thesis_{name}{suffix}", table, f"VGDCN.thesis on USPS, {shape}, {seeds} seeds, last epoch")
    curves = {c: [[r[c] for r in rows if r[name] == v] for v in values] for c in columns}
    report.sweep_curve(list(values), curves, label, ylabel="per cent").savefig(
        PICTURES / f"thesis_{name}{suffix}.png", dpi=120
    )


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", nargs="*", default=["prior", "epsilon", "neighbors", "samples"])
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()
    widths = [500, 500, 2000] if options.wide else [256, 256, 512]
    shape: dict[str, Any] = {"hidden_channels": widths, "epochs": 100}
    if not options.wide:
        shape |= {"epochs": 40} if options.cold else {"epochs": 20, "learning_rate": 2e-4}
    shape["warm_start"] = not options.cold
    suffix = "_wide" if options.wide else ""
    if "prior" in options.parts:
        rows = []
        for kind in ("VAE", "auto-encoder"):
            for seed in range(options.seeds):
                rows.append({"model": kind, **in_child("thesis", "prior", seed=seed, kind=kind, epochs=30)})
        table = summarise(rows, "model", [f"{s} {m}" for m in ("k-means", "mixture") for s in SCORES])
        show(table, "USPS: codes of a VAE and of an auto-encoder")
        write_table(
            "thesis_prior", table, "USPS, 30 epochs, codes clustered by k-means and by a Gaussian mixture"
        )
    if "epsilon" in options.parts:
        sweep("epsilon", EPSILONS, options.seeds, shape, "epsilon (share of the encoder's state)", suffix)
    if "neighbors" in options.parts:
        sweep("n_neighbors", NEIGHBORS, options.seeds, shape, "M (neighbours of a sample)", suffix)
    if "samples" in options.parts:
        for epochs in (1, 40, 100):
            images = in_child("thesis", "samples", epochs=epochs, hidden_channels=widths)["images"]
            figure = report.image_grid(np.reshape(images, (-1, 16, 16)), 10, title=f"after epoch {epochs}")
            figure.savefig(PICTURES / f"thesis_samples_{epochs}.png", dpi=90)


if __name__ == "__main__":
    main()
