"""The sample graph: search neighbours, weigh edges, store, sample, extend."""

from graphclust.graph.communities import communities
from graphclust.graph.counting import ClusterCount, estimate_n_clusters
from graphclust.graph.information import InformativePartition, informative_partition, neighbor_walk
from graphclust.graph.kernels import neighbor_weights, symmetrize_edges
from graphclust.graph.over_segmentation import consensus_partition
from graphclust.graph.partition import MergeTree, merge_parts
from graphclust.graph.rearrangement import rearranged
from graphclust.graph.retrieval import (
    duplicate_groups,
    duplicate_threshold,
    nearest,
    outlier_scores,
    similar,
)
from graphclust.graph.sample_graph import SampleGraph
from graphclust.graph.search import NeighborSearch
from graphclust.graph.summary import GraphSummary
from graphclust.graph.transforms import FaissNeighbors, KNNSampleGraph

__all__ = [
    "ClusterCount",
    "estimate_n_clusters",
    "FaissNeighbors",
    "GraphSummary",
    "InformativePartition",
    "KNNSampleGraph",
    "MergeTree",
    "NeighborSampler",
    "NeighborSearch",
    "SampleGraph",
    "communities",
    "community_loader",
    "consensus_partition",
    "duplicate_groups",
    "duplicate_threshold",
    "informative_partition",
    "merge_parts",
    "nearest",
    "neighbor_loader",
    "neighbor_walk",
    "neighbor_weights",
    "outlier_scores",
    "rearranged",
    "similar",
    "symmetrize_edges",
]

from graphclust.graph.sampling import NeighborSampler, community_loader, neighbor_loader
