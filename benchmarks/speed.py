"""Neighbour search against torch_cluster, and one training epoch against a plainly written reference, on USPS.

    GRAPHCLUST_DATA=<folder> python benchmarks/speed.py [--repeats 5] [--device cpu]

The reference is VGDCN as papers write it down: one forward pass for the target P, another one for the gradient,
``A (H W)`` in every layer, a plain Adam. It comes twice: with the sparse COO product of SDCN's published code, and with
PyG's GCNConv as it comes, which gathers and scatters along the edges. All train d-500-500-2000-10 on the same graph, in
turns. Writes benchmarks/results/speed_*.csv.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from common import show, write_table
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

import graphclust
from graphclust.graph import NeighborSearch, SampleGraph
from graphclust.methods.starts import start_mixture
from graphclust.nn.losses import target_distribution
from graphclust.training.batches import BatchSource
from graphclust.training.trainer import Trainer


def clock(function: Callable[[], Any], device: str) -> float:
    """Seconds of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


class Reference(nn.Module):
    """VGDCN line by line."""

    def __init__(self, d: int, k: int, graph: SampleGraph, layers: str, device: str) -> None:
        super().__init__()
        self.layers = layers
        widths = [d, 500, 500, 2000]
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)
        self.mean, self.log_variance = nn.Linear(2000, 10), nn.Linear(2000, 10)
        self.decoder = nn.ModuleList(nn.Linear(b, a) for a, b in [*reversed(pairs[1:]), (500, 500)][:2])
        self.first, self.output = nn.Linear(10, 2000), nn.Linear(500, d)
        branch = [d, 500, 500, 2000, 10, k]
        self.weights = nn.ParameterList(
            nn.init.xavier_uniform_(torch.empty(a, b)) for a, b in zip(branch[:-1], branch[1:], strict=True)
        )
        self.pi = nn.Parameter(torch.ones(k) / k)
        self.mu, self.var = nn.Parameter(torch.randn(k, 10)), nn.Parameter(torch.ones(k, 10))
        pairs = list(zip(branch[:-1], branch[1:], strict=True))
        self.convs = nn.ModuleList(GCNConv(a, b, bias=False, cached=True) for a, b in pairs)
        normal = graph.normalized("symmetric")
        size = (graph.num_nodes, graph.num_nodes)
        coo = torch.sparse_coo_tensor(
            normal.edge_index.flip(0), normal.edge_weight, size, check_invariants=True
        )
        self.adjacency = coo.coalesce().to(device)
        self.edges = (graph.edge_index.to(device), graph.edge_weight.to(device))

    def convolve(self, number: int, x: Tensor) -> Tensor:
        """``A (x W)``."""
        if self.layers == "PyG":
            return self.convs[number](x, *self.edges)
        return torch.sparse.mm(self.adjacency, x @ self.weights[number])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """x -> reconstruction, m, s, z, Z_G."""
        states, h = [], x
        for layer in self.encoder:
            h = layer(h).relu()
            states.append(h)
        m, s = self.mean(h), self.log_variance(h)
        z = m + (s / 2).exp() * torch.randn_like(m)
        h = self.first(z).relu()
        for layer in self.decoder:
            h = layer(h).relu()
        reconstruction = self.output(h).sigmoid()
        g = self.convolve(0, x).relu()
        for number, state in enumerate([*states, m], start=1):
            g = self.convolve(number, 0.3 * g + 0.7 * state)
            g = g.relu() if number < 5 - 1 else g
        return reconstruction, m, s, z, g.softmax(dim=1)

    def soft_assignment(self, m: Tensor) -> Tensor:
        """Student-t of the codes to the centres."""
        q = 1.0 / (1.0 + (m[:, None] - self.mu[None]).square().sum(dim=2))
        return q / q.sum(dim=1, keepdim=True)

    def epoch(self, x: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Target in one pass, gradient in another, as DEC's and SDCN's published loops do."""
        self.eval()
        with torch.no_grad():
            q = self.soft_assignment(self(x)[1])
            p = target_distribution(q)
        self.train()
        reconstruction, m, s, z, z_g = self(x)
        joint = torch.log(self.pi) - 0.5 * (
            torch.log(self.var) + (z[:, None] - self.mu).square() / self.var
        ).sum(dim=2)
        gamma = joint.softmax(dim=1)
        bce = nn.functional.binary_cross_entropy(reconstruction, x, reduction="none").sum(dim=1)
        prior = 0.5 * (
            gamma[:, :, None]
            * (torch.log(self.var) + s.exp()[:, None] / self.var + (m[:, None] - self.mu).square() / self.var)
        ).sum(dim=(1, 2))
        prior = prior - (gamma * torch.log(self.pi / (gamma + 1e-10))).sum(dim=1) - 0.5 * (1 + s).sum(dim=1)
        loss = (bce + prior).mean() + 0.01 * nn.functional.kl_div(
            (z_g + 1e-10).log(), p, reduction="batchmean"
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def search(x: Tensor, repeats: int, device: str) -> list[dict[str, Any]]:
    """10 neighbours of each sample."""
    ours = NeighborSearch(device=device).fit(x)
    times: dict[str, list[float]] = {"graphclust": [], "torch_cluster.knn_graph": []}
    try:
        from torch_cluster import knn_graph
    except ImportError:
        knn_graph = None
    for turn in range(repeats):
        times["graphclust"].append(clock(lambda: ours.self_neighbors(10), device))
        if knn_graph is not None and turn < 2:  # it takes a minute
            times["torch_cluster.knn_graph"].append(clock(lambda: knn_graph(x.to(device), 10), device))
    rows = [{"search": name, "seconds": round(median(t), 3)} for name, t in times.items() if t]
    if len(rows) == 2:
        rows[1]["times slower"] = round(rows[1]["seconds"] / rows[0]["seconds"], 1)
    return rows


def epoch(graph: SampleGraph, repeats: int, device: str) -> list[dict[str, Any]]:
    """One full-batch epoch of the clustering stage."""
    x = graph.x.to(device)
    references = {}
    for layers in ("PyG", "sparse"):
        torch.manual_seed(0)
        reference = Reference(x.shape[1], 10, graph, layers, device).to(device)
        references[f"reference, {layers} layers"] = (
            reference,
            torch.optim.Adam(reference.parameters(), 1e-3),
        )

    times: dict[str, list[float]] = {name: [] for name in references}
    trained = {}
    for precision in ("32-true", "auto"):
        method = graphclust.VGDCN.thesis(10, epochs=1, pretrain_epochs=0, device=device, precision=precision)
        source = BatchSource(graph, device=device)
        method.n_clusters_ = 10
        model = method._build(x.shape[1])
        model.scale.fit(graph.x)
        model.to(device)
        stage = method._stages(model, source, {})[-1]
        start_mixture(
            model.head, torch.randn(len(x), 10, device=device), torch.arange(len(x), device=device) % 10
        )
        trained[precision] = (Trainer(device=device, precision=precision), model, stage, source)
        times[f"graphclust, {precision}"] = []
    for _ in range(repeats + 1):
        for name, (reference, optimizer) in references.items():
            times[name].append(clock(partial(reference.epoch, x, optimizer), device))
        for precision, (trainer, model, stage, source) in trained.items():
            history = trainer.fit(model, [stage], source)
            times[f"graphclust, {precision}"].append(history[-1]["seconds"])
    # The first turn warms caches up, on both sides.
    rows = [{"epoch": name, "seconds": round(median(t[1:]), 3)} for name, t in times.items()]
    for row in rows:
        for number, layers in enumerate(("PyG", "sparse")):
            row[f"times faster than {layers}"] = round(rows[number]["seconds"] / row["seconds"], 2)
    return rows


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", nargs="*", default=["search", "epoch"])
    options = parser.parse_args()
    x = torch.from_numpy(graphclust.datasets.load("usps").x)
    if "search" in options.parts:
        rows = search(x, options.repeats, options.device)
        show(rows, "USPS, 10 neighbours")
        write_table("speed_search", rows, "USPS, 10 nearest neighbours of each of 9,298 samples")
    if "epoch" in options.parts:
        rows = epoch(SampleGraph.from_features(x, 3), options.repeats, options.device)
        show(rows, "USPS, one epoch of VGDCN's clustering stage, full graph, d-500-500-2000-10")
        write_table(
            "speed_epoch", rows, "USPS, one epoch of VGDCN's clustering stage, full graph, d-500-500-2000-10"
        )


if __name__ == "__main__":
    main()
