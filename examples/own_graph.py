"""Cluster the nodes of a graph that you already have: a karate club that split in two.

The members and friendships (Zachary 1977) come with PyG: nothing is downloaded.

Run: python examples/own_graph.py
"""

import torch
from torch_geometric.datasets import KarateClub
from torch_geometric.utils import to_dense_adj

from graphclust import VGDCN, SampleGraph
from graphclust.metrics import evaluate, modularity

# Who stayed with the instructor (member 0) when the club split; the others left with the president (member 33).
STAYED = {0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 16, 17, 19, 21}


def whom_a_walk_meets(edge_index: torch.Tensor, length: int) -> torch.Tensor:
    """Share of the steps 1 ... length of a random walk from i that are spent at j, [N, N]."""
    step = to_dense_adj(edge_index)[0] + torch.eye(int(edge_index.max()) + 1)
    step /= step.sum(dim=1, keepdim=True)
    return torch.stack([torch.matrix_power(step, n) for n in range(1, length + 1)]).mean(dim=0)


def main() -> None:
    club = KarateClub()[0]

    # The members have no features of their own. Whom they meet, walking from friend to friend, will do: one row each.
    x = whom_a_walk_meets(club.edge_index, 4)

    # The edges are given, so nothing is searched.
    graph = SampleGraph.from_edges(club.edge_index, x)
    print(graph)
    print(graph.summary())

    # 34 members are too few for the default's start, which takes groups of them for a sample; and as all of them fit in
    # one step, an epoch is a single step, so there are more of them.
    model = VGDCN(
        n_clusters=2,
        init="mixture",
        scale="standard",
        hidden_channels=(32,),
        latent_dim=4,
        pretrain_epochs=200,
        random_state=0,
    ).fit(graph)

    for cluster in range(2):
        print(f"group {cluster}:", *(model.labels_ == cluster).nonzero()[0])
    split = [member in STAYED for member in range(club.num_nodes)]
    print(f"modularity: {modularity(graph, model.labels_):.3f}; of the split as it happened: ", end="")
    print(f"{modularity(graph, split):.3f}")
    print(f"members on the side that they took: {evaluate(split, model.labels_)['ACC']:.1%}")


if __name__ == "__main__":
    main()
