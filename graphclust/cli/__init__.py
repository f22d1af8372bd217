"""The command line: ``graphclust cluster``, ``predict``, ``graph``, ``compare``, and commands on results of images.

A command reads what it is given, calls an estimator, `SampleGraph` or `compare`, and writes what came out. What takes
long to import is imported inside the commands, so that ``graphclust --help`` answers at once.
"""

from graphclust.cli._app import app, main

# Each registers its command; --help lists them in this order.
from graphclust.cli import cluster, predict, graph, compare, images  # isort: skip

__all__ = ["app", "cluster", "compare", "graph", "images", "main", "predict"]
