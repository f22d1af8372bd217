"""One word changes the graph convolution: GCN, GAT, GraphSAGE, GIN, or a layer of your own.

Run: python examples/swap_convolution.py
"""

import time

from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import nn
from torch_geometric.nn import ARMAConv

from graphclust import VGDCN, SampleGraph
from graphclust.metrics import evaluate


def arma(in_channels: int, out_channels: int) -> nn.Module:
    """Any callable (in_channels, out_channels) -> PyG layer will do; this one is ARMA of Bianchi et al.

    The activation is the branch's: a ReLU inside the layer would cut the last one's negative logits off.
    """
    return ARMAConv(in_channels, out_channels, num_stacks=1, num_layers=1, act=None)


def main() -> None:
    x, classes = load_digits(return_X_y=True)
    # All of them read the same graph, which is built once.
    graph = SampleGraph.from_features(x / 16, n_neighbors=5)

    table = Table("convolution", "ACC", "NMI", "ARI", "seconds")
    for conv in ("gcn", "gat", "sage", "gin", arma):
        started = time.perf_counter()
        model = VGDCN(
            n_clusters=10,
            conv=conv,
            # The four named ones begin with the encoder's weights (as PyG's TransformerConv would), ARMA at random:
            # it takes longer to learn.
            branch_epochs=25 if isinstance(conv, str) else 60,
            hidden_channels=(128, 128, 256),
            random_state=0,
        ).fit(graph)
        seconds = time.perf_counter() - started
        scores = evaluate(classes, model.labels_)
        name = conv if isinstance(conv, str) else conv.__name__
        table.add_row(name, *(f"{scores[score]:.3f}" for score in ("ACC", "NMI", "ARI")), f"{seconds:.1f}")
    Console().print(table)
    print("One seed, narrow networks, to show how it is done; benchmarks/ compares them properly.")


if __name__ == "__main__":
    main()
