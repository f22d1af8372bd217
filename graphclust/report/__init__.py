"""Pictures of a clustering, charts of a run, and the layout of the sample graph."""

from graphclust.report.charts import confusion, dendrogram, sweep_curve, training_curves
from graphclust.report.layout import graph_layout
from graphclust.report.pictures import cluster_samples, embedding_map, image_grid, overview

__all__ = [
    "cluster_samples",
    "confusion",
    "dendrogram",
    "embedding_map",
    "graph_layout",
    "image_grid",
    "overview",
    "sweep_curve",
    "training_curves",
]
