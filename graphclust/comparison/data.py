"""The data that methods are compared on, and how it reaches the processes that they run in."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch_geometric.data import Data

from graphclust import datasets
from graphclust._checks import WITHOUT_FEATURES, check_features
from graphclust._files import READABLE_AS_TEXT, read_features
from graphclust._labels import as_array
from graphclust.graph import SampleGraph

DataLike: TypeAlias = "str | os.PathLike[str] | ArrayLike | Tensor | Data | datasets.Dataset"

_ARRAYS = ("x", "edge_index", "edge_weight")
#: Neighbours in the graph that all clusterings are scored on.
_N_NEIGHBORS = 10


@dataclass(frozen=True, eq=False)
class ComparedData:
    """Samples, and what is known about them.

    Attributes
    ----------
    name : str
    x : ndarray [N, d], float32, float16 or uint8
    labels : ndarray [N] or None
        True classes, read by the scores alone: no process that runs a method has them.
    edge_index : ndarray [2, E], int64, or None
        Of an attributed graph.
    edge_weight : ndarray [E], float32, or None
    image_shape : (H, W) or (H, W, C), or None
        Of a sample, where samples are images; the rows of `x` are then H * W * C pixels.
    """

    name: str
    x: NDArray[Any]
    labels: NDArray[Any] | None = None
    edge_index: NDArray[np.int64] | None = None
    edge_weight: NDArray[np.float32] | None = None
    image_shape: tuple[int, ...] | None = None

    @cached_property
    def digest(self) -> str:
        """Checksum of samples and edges: what was measured on other data has another one."""
        digest = hashlib.sha256(f"{self.image_shape} ".encode())
        for name in _ARRAYS:
            array = getattr(self, name)
            if array is not None:
                digest.update(f"{name} {array.dtype} {array.shape} ".encode())
                for start in range(0, len(array), 4096):  # blocks: a memory map is not copied as a whole
                    digest.update(np.ascontiguousarray(array[start : start + 4096]).data)
        return digest.hexdigest()

    def samples(self) -> NDArray[Any]:
        """What methods get that read no edges: `x`, as images where it is images."""
        return self.x if self.image_shape is None else self.x.reshape(-1, *self.image_shape)

    def save(self, folder: Path) -> None:
        """Write the arrays, without the labels, to a folder."""
        if self.image_shape is not None:
            np.save(folder / "image_shape.npy", self.image_shape)
        for name in _ARRAYS:
            array = getattr(self, name)
            if array is not None:
                np.save(folder / f"{name}.npy", array)

    @classmethod
    def open(cls, folder: Path) -> ComparedData:
        """What `save` wrote, as memory maps."""
        found = {name: folder / f"{name}.npy" for name in _ARRAYS}
        arrays = {name: np.load(path, mmap_mode="r") for name, path in found.items() if path.exists()}
        shape = folder / "image_shape.npy"
        return cls(
            folder.name, **arrays, image_shape=tuple(np.load(shape).tolist()) if shape.exists() else None
        )

    def graph(self) -> Data:
        """The attributed graph as a PyG `Data`; without edges the samples alone."""
        data = Data(x=check_features(self.x))
        if self.edge_index is not None:
            data.edge_index = torch.from_numpy(np.array(self.edge_index))
            if self.edge_weight is not None:
                data.edge_weight = torch.from_numpy(np.array(self.edge_weight))
        return data

    def common_graph(self) -> SampleGraph:
        """The one graph that all clusterings are scored on: the given edges, else 10 neighbours of each sample."""
        if self.edge_index is not None:
            return SampleGraph.from_data(self.graph())
        return SampleGraph.from_features(self.x, min(_N_NEIGHBORS, len(self.x) - 1))


def read_data(
    data: DataLike, labels: Any = None, *, key: str | None = None, ignore: tuple[str, ...] = ()
) -> ComparedData:
    """Samples from whatever the user names or hands over.

    Parameters
    ----------
    data : str, path, array, tensor, Data, SampleGraph or Dataset
        A file with features, the name of a data set (`graphclust.datasets.names`), features [N, d], images
        [N, H, W] or [N, H, W, C] (flattened), or an attributed graph.
    labels : array-like [N] or str, optional
        True classes; for a file the array, column or .npy file that holds them. A data set by name, and a `Data`
        with one `y` a sample, bring their own.
    key, ignore
        Of a file, see `graphclust._files.read_features`.

    Raises
    ------
    FileNotFoundError, ValueError, TypeError
        When there is no such data, or it is no matrix of finite numbers.
    """
    if isinstance(data, (str, os.PathLike)):
        if _is_dataset(data):
            if key is not None or ignore:
                raise ValueError(
                    f"{data} is a data set by name, which has no keys and columns to choose from"
                )
            data = datasets.load(str(data))
        else:
            if Path(data).is_dir():
                raise ValueError(
                    f"{data} is a folder: methods are compared on features; of images numpy.save("
                    '"features.npy", graphclust.images.read_images(folder).x), and compare that file'
                )
            column = labels if isinstance(labels, str) else None
            table = read_features(data, key=key, labels=column, ignore=ignore)
            true = labels if column is None else table.labels
            return _checked(Path(data).name, table.x, true, image_shape=table.image_shape)
    if isinstance(data, datasets.Dataset):
        if data.x is None:
            raise ValueError(
                f"the data set {data.name!r} has images of many sizes and no features: extract features first"
            )
        given = data.y if labels is None else labels
        shape = None if data.images is None else data.images.shape[1:]
        return _checked(data.name, data.x, given, data.edge_index, image_shape=shape)
    if isinstance(data, Data):
        if data.x is None:
            raise ValueError("data has no x; set data.x to the features [N, d], " + WITHOUT_FEATURES)
        own = data.get("y")
        if labels is None and own is not None and own.ndim == 1 and len(own) == len(data.x):
            labels = own
        if data.edge_index is None or data.edge_index.numel() == 0:
            return _checked("graph", data.x, labels)
        graph = SampleGraph.from_data(data)
        return _checked("graph", graph.x, labels, graph.edge_index, graph.edge_weight)
    return _checked("array", data, labels)


def _is_dataset(name: str | os.PathLike[str]) -> bool:
    """Whether it names a data set; a file of that name comes first, a folder (the results of a run, say) does not."""
    if Path(name).is_file():
        return False
    if str(name).lower().replace("-", "_") in datasets.names():
        return True
    if Path(name).is_dir():
        return False
    if Path(name).suffix or len(Path(name).parts) > 1:
        return False
    raise FileNotFoundError(
        f"{name} is neither a file nor a data set: name a file that ends in "
        f"{READABLE_AS_TEXT}, or one of {', '.join(datasets.names())}"
    )


def _checked(
    name: str,
    x: Any,
    labels: Any,
    edge_index: Any = None,
    edge_weight: Any = None,
    image_shape: tuple[int, ...] | None = None,
) -> ComparedData:
    if np.ndim(x) in (3, 4):
        images = as_array(x)
        image_shape, x = images.shape[1:], images.reshape(len(images), -1)
        if x.dtype == np.uint8:
            x = x.astype(np.float32) / 255
    features = check_features(x, "data", min_samples=2).cpu().numpy()
    true = None if labels is None else as_array(labels)
    if true is not None and true.shape != (len(features),):
        raise ValueError(
            f"labels have shape {true.shape}, one for each of the {len(features)} samples is needed"
        )
    edges = None if edge_index is None else as_array(edge_index).astype(np.int64, copy=False)
    weight = None if edge_weight is None else as_array(edge_weight).astype(np.float32, copy=False)
    return ComparedData(name, features, true, edges, weight, image_shape)
