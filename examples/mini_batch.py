"""The same method by mini-batches: seeds and sampled neighbours in each step, from a memory-mapped graph.

Run: python examples/mini_batch.py
"""

import tempfile
from pathlib import Path

from sklearn.datasets import load_digits

from graphclust import VGDCN, SampleGraph, neighbor_loader
from graphclust.metrics import evaluate


def main() -> None:
    digits = load_digits()
    with tempfile.TemporaryDirectory() as folder:
        SampleGraph.from_features(digits.data / 16, n_neighbors=5).save(Path(folder) / "graph")
        graph = SampleGraph.open(Path(folder) / "graph")

        # What the model will see in one step: 256 seeds first, then the neighbours that they read.
        batch = next(iter(neighbor_loader(graph, [5, 5], batch_size=256, shuffle=True, random_state=0)))
        print(f"one batch: {batch.batch_size} seeds, {batch.num_nodes} samples, {batch.num_edges} edges")

        for batch_size in (None, 256):
            # Narrower than the default, so that the example is short.
            model = VGDCN(
                n_clusters=10, hidden_channels=(128, 128, 256), batch_size=batch_size, random_state=0
            ).fit(graph)
            scores = evaluate(digits.target, model.labels_)
            name = "full graph" if batch_size is None else f"batches of {batch_size}"
            print(f"{name:<16} ACC {scores['ACC']:.3f}, NMI {scores['NMI']:.3f}, ARI {scores['ARI']:.3f}")


if __name__ == "__main__":
    main()
