"""Images in: folders, shards, arrays and data sets become features, names, and a list of what could not be read."""

from graphclust.images.collection import Images, write_skipped
from graphclust.images.decode import RESIZE, UnreadableImage, decode, fit
from graphclust.images.encoders import NAMES
from graphclust.images.items import FileItem, Item, Skipped, path_as_text, printable, text_as_path
from graphclust.images.pixels import SMALL
from graphclust.images.read import read_images
from graphclust.images.sources import is_image_source, list_images

__all__ = [
    "NAMES",
    "RESIZE",
    "SMALL",
    "FileItem",
    "Images",
    "Item",
    "Skipped",
    "UnreadableImage",
    "decode",
    "fit",
    "is_image_source",
    "list_images",
    "path_as_text",
    "printable",
    "read_images",
    "text_as_path",
    "write_skipped",
]
