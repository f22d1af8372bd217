"""Pictures of a clustering, charts of a run, the layout of the sample graph, and a web page of it all."""

from graphclust.report.charts import confusion, dendrogram, sweep_curve, training_curves
from graphclust.report.comparison_chart import method_comparison
from graphclust.report.latent_grid import latent_grid
from graphclust.report.layout import graph_layout
from graphclust.report.page import write_report
from graphclust.report.pictures import cluster_samples, embedding_map, image_grid, overview
from graphclust.report.reliability_chart import reliability_curve

__all__ = [
    "cluster_samples",
    "confusion",
    "dendrogram",
    "embedding_map",
    "graph_layout",
    "image_grid",
    "latent_grid",
    "method_comparison",
    "overview",
    "reliability_curve",
    "sweep_curve",
    "training_curves",
    "write_report",
]
