from __future__ import annotations
import torch
from torch import Tensor
from torch_geometric.data import Data
from sklearn.cluster import KMeans
from graphclust.graph.partition import merge_parts
from graphclust.nn.adjacency import Adjacency, propagation_weights

def graph_linkage_start(graph: Data, codes: Tensor, n_clusters: int, *, seed: int = 0, steps: int = 10, parts: int = 12) -> Tensor:
    n = codes.shape[0]
    edges, loops = propagation_weights(graph.edge_index, graph.edge_weight, n)
    adjacency = Adjacency(graph.edge_index, graph.edge_weight, edges, loops)
    z = codes
    for _ in range(steps):
        z = adjacency.propagate(z)
    P = max(n_clusters, min(parts * n_clusters, n // 10))
    p = KMeans(P, n_init=1, random_state=seed % 2**31).fit_predict(z.numpy())
    return merge_parts(graph, torch.from_numpy(p).long(), n_clusters, z).labels
