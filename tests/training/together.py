"""What two processes do in the tests: started by torchrun, or called by a test for what one process does.

Arguments: a folder for the results. Each process writes ``<rank>.pt`` there.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from graphclust import DEC, VGDCN
from graphclust.graph import SampleGraph
from graphclust.nn.convolutional import BatchNorm
from graphclust.nn.heads import ClusterFrequencies
from graphclust.training import BatchSource, Stage, Step, Trainer


class Net(nn.Module):
    """Convolution, both kinds of batch normalisation, running frequencies; no noise."""

    def __init__(self):
        super().__init__()
        self.conv, self.maps = nn.Conv2d(1, 3, 3), BatchNorm(3)
        self.rows, self.out = nn.BatchNorm1d(3 * 36), nn.Linear(3 * 36, 4)
        self.frequencies = ClusterFrequencies(4)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        maps = self.maps(self.conv(x.unflatten(1, (1, 8, 8)))).relu()
        return self.out(self.rows(maps.flatten(1))).log_softmax(dim=1)


def follow(model, batch):
    """Draws the samples, or means of their neighbours, to rare clusters."""
    # Neighbours are propagated first: what is normalised then is the batch's own samples, in any number of parts.
    x = batch.x if batch.adjacency is None else batch.adjacency.propagate(batch.x).double()
    log_q = model(x[: batch.size])
    target = log_q.detach().exp() / model.frequencies.update(log_q.exp(), batch.n_samples)
    return Step({"rare": -(target * log_q).sum(dim=1).mean(), "size": log_q.square().mean()}, log_q)


def train_exactly(x, folder=None, break_at=None):
    """Batches that are cut, one of three samples at the end that is not, neighbours, a full batch; in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(
            3 + int(os.environ.get("RANK", 0))
        )  # the first process's weights count
        model = Net().double()
    graph = SampleGraph.from_features(x[:120], 4)
    graph.x, graph.edge_weight = graph.x.double(), graph.edge_weight.double()
    memory = {}
    left = [break_at]

    def start():
        memory["of"] = torch.full((3,), int(os.environ.get("RANK", 0)))  # the first process's count here too

    def loss(model, batch):
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return follow(model, batch)

    stages = [
        Stage("cut", loss, 3, 1e-2, batch_size=39, start=start),
        Stage("sampled", loss, 2, 1e-2, batch_size=50, uses_graph=True),
        Stage("full", loss, 2, 1e-2, uses_graph=True),
    ]
    source = BatchSource(graph, num_neighbors=[-1])
    trainer = Trainer(device="cpu", precision="32-true", checkpoint=folder, checkpoint_every=1)
    history = trainer.fit(model, stages, source, memory=memory)
    return {
        "state": model.state_dict(),
        "memory": memory,
        "history": [{k: v for k, v in record.items() if k != "seconds"} for record in history],
    }


def small_fit(x, **settings):
    """A method with noise, sampled neighbours and frequencies."""
    small = {"hidden_channels": (64,), "pretrain_epochs": 10, "branch_epochs": 3, "epochs": 3}
    return VGDCN(10, batch_size=128, precision="32-true", **(small | settings)).fit(x[:900])


def error_of(function):
    try:
        function()
    except ValueError as error:
        return str(error)
    return "none"


def main(folder):
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    x = (load_digits().data / 16).astype(np.float32)
    found = {"exact": train_exactly(x)}
    try:
        train_exactly(x, folder / "run", break_at=4 * 3 + 3)
    except KeyboardInterrupt:
        torch.distributed.barrier()  # the first may still be writing
        found["files"] = sorted(path.name for path in (folder / "run").iterdir())
    found["resumed"] = train_exactly(x, folder / "run")
    few = {"hidden_channels": (8,), "pretrain_epochs": 1, "epochs": 1}
    found["unseeded"] = DEC(10, **few).fit(x[:300]).labels_
    found["other data"] = error_of(lambda: DEC(10, random_state=0, **few).fit(x[rank : 300 + rank]))
    found["other parameters"] = error_of(
        lambda: DEC(10, random_state=0, latent_dim=5 + rank, **few).fit(x[:300])
    )
    found["labels"] = small_fit(x, random_state=0).labels_
    torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
