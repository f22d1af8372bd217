"""The folder of a result: labels, model and graph of a collection of images, to search, extend and export."""

from graphclust.results.export import export_images
from graphclust.results.folder import Result
from graphclust.results.table import COLUMNS

__all__ = ["COLUMNS", "Result", "export_images"]
