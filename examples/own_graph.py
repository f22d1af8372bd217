"""Cluster the nodes of a graph that you already have: a karate club that split in two.

The members and friendships (Zachary 1977) come with PyG: nothing is downloaded.

Run: python examples/own_graph.py
"""

import torch
from torch_geometric.datasets import KarateClub
from torch_geometric.utils import to_dense_adj

from graphclust import VGDCN, SampleGraph
from graphclust.metrics import modularity


def main() -> None:
    club = KarateClub()[0]

    # The members have no features of their own. Who their friends are (and they themselves) will do: one row each.
    x = to_dense_adj(club.edge_index)[0] + torch.eye(club.num_nodes)

    # The edges are given, so nothing is searched.
    graph = SampleGraph.from_edges(club.edge_index, x)
    print(graph)
    print(graph.summary())

    # So few samples make one step an epoch; the epochs are many and short.
    model = VGDCN(
        n_clusters=2,
        hidden_channels=(32,),
        latent_dim=4,
        pretrain_epochs=200,
        branch_epochs=50,
        epochs=50,
        random_state=0,
    ).fit(graph)
    for cluster in range(2):
        print(f"group {cluster}:", *(model.labels_ == cluster).nonzero()[0])
    print(f"modularity: {modularity(graph, model.labels_):.3f}")


if __name__ == "__main__":
    main()
