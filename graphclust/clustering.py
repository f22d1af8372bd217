"""`cluster`: data in, clusters out, by the method that suits the data."""

from __future__ import annotations

import math
import os
import sys
from inspect import signature
from typing import Any

import numpy as np
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from graphclust._checks import sample_rows
from graphclust._messages import meant, shown, unknown_parameters
from graphclust.datasets import Dataset
from graphclust.graph import SampleGraph
from graphclust.methods import METHODS
from graphclust.methods.inputs import as_frame

#: Pictures up to this side are learnt from; larger ones need a pretrained network.
_SMALL = 64
#: Parameters that say how images are read.
_READING = ("features", "size", "resize", "mirror", "column", "cache", "workers")


def cluster(
    data: Any,
    n_clusters: int | str | None = None,
    *,
    method: Any = "auto",
    random_state: Any = 0,
    verbose: bool = False,
    **parameters: Any,
) -> Any:
    """Cluster anything: the fitted estimator of the method that suits the data.

    ==================================  ==========================================================================
    data                                method
    ==================================  ==========================================================================
    images of at most 64 x 64           `LearnedGraphClustering`: a network learns the sample graph from them
    larger images                       `ConsensusClustering` of a pretrained network's features
    vectors                             `ConsensusClustering` of their sample graph
    edges between samples               `GraphContrastClustering`: codes learnt by contrast beside propagated features
    ==================================  ==========================================================================

    Rows [N, d] are images when d is a square number of at least 16 and neighbouring entries are alike
    (`LearnedGraphClustering`); a `SampleGraph` that was built from features counts as these features. Where a
    method joins each sample to more others than there are, all are joined.

    Parameters
    ----------
    data : array, tensor, SampleGraph, PyG Data, path, list of paths, or what `graphclust.images.read_images` takes;
        or a data set of `graphclust.datasets.load`
        Features [N, d], images [N, H, W], [N, H, W, C] or [N, C, H, W], samples with edges, a folder of images.
    n_clusters : int, "auto" or None
        K; "auto" or None lets the method estimate it, with a warning where it finds no groups: by borders
        (`graphclust.estimate_n_clusters`), of vectors also by separation (`ConsensusClustering`), which finds
        clusters of few samples that no border shows.
    method : str or class, default="auto"
        A method, by its name in any case or as its class, to take it instead of the one of the table.
    random_state : int, RandomState or None, default=0
        The only source of randomness.
    verbose : bool, default=False
        Say on standard error what the data were taken for and which method clusters them, and show progress.
    **parameters
        Further parameters of the method; for images also `features`, `size`, `resize`, `mirror`, `column`, `cache`
        and `workers` of `graphclust.images.read_images` (``cluster("photos/", features="dinov2")``).

    Returns
    -------
    estimator
        Fitted: `labels_`, `probabilities_`, `predict`, `save` ... Of images from files it has `images_`, with their
        paths and what could not be read (`graphclust.images.Images`).

    Examples
    --------
    >>> import graphclust
    >>> from sklearn.datasets import load_wine
    >>> model = graphclust.cluster(load_wine().data, 3)
    >>> model.labels_.shape
    (178,)
    """
    images = None
    if isinstance(data, Dataset):
        data = data.samples()
    data = as_frame(data)
    is_graph = isinstance(data, Data)
    _check_form(data)
    reading = {key: parameters.pop(key) for key in _READING if key in parameters and not is_graph}
    if reading or _needs_reading(data):
        from graphclust.images import read_images

        images = read_images(data, verbose=verbose, **reading)
        check_enough(images)
        data = (
            images.x if images.image_shape is None else images.x.reshape(len(images.x), *images.image_shape)
        )
    name = suitable_method(data) if _is_auto(method) else _by_name(method)
    known = signature(METHODS[name]).parameters
    unknown = [parameter for parameter in parameters if parameter not in known]
    if unknown:
        raise TypeError(
            unknown_parameters(name, unknown, known)
            + ("; method= names another one" if _is_auto(method) else "")
        )
    parameters = {**few_samples(METHODS[name], data), **parameters}
    estimator = METHODS[name](
        "auto" if n_clusters is None else n_clusters, random_state=random_state, **parameters
    )
    if verbose:
        # What was taken for what decides most of the result, and nothing else tells before the end.
        sys.stderr.write(f"graphclust: {_seen_as(data)}, clustered by {name}\n")
        if "verbose" in known:
            estimator.set_params(verbose=True)
    estimator.fit(data)
    if images is not None:
        estimator.images_ = images
    return estimator


def _seen_as(data: Any) -> str:
    """What `suitable_method` sees in the data, in words."""
    x = sample_rows(data.x if isinstance(data, Data) else data)
    samples = "samples" if x is None else f"{len(x):,} samples"
    if isinstance(data, Data) and data.edge_index is not None and data.edge_index.numel():
        return f"{samples} with {data.edge_index.shape[1]:,} edges"
    if x is None or not _are_images(data.x if isinstance(data, Data) else data):
        return f"{samples}, vectors" + ("" if x is None else f" of {x[0].numel():,} entries")
    if x.ndim == 2:
        side = math.isqrt(x.shape[1])
        return f"{samples}, rows of {x.shape[1]} entries taken for images of {side} x {side}"
    height, width = _height_and_width(x)
    return f"{samples}, images of {height} x {width}"


def _check_form(data: Any) -> None:
    """TypeError for a graph in a form that no method reads."""
    from graphclust.methods.inputs import check_fields, check_pair

    if isinstance(data, Data):
        check_fields(data)
    elif isinstance(data, (list, tuple)):
        check_pair(data)


def check_enough(images: Any) -> None:
    """ValueError where fewer than two images could be read."""
    if len(images) < 2:
        left_out = f", {len(images.skipped):,} things were left out" if images.skipped else ""
        raise ValueError(f"there is one image that can be read{left_out}: clusters need at least two")


def _needs_reading(data: Any) -> bool:
    """Whether `data` names or holds images that are no array yet, or an array of images too large for their pixels."""
    if isinstance(data, (str, os.PathLike)):
        return True
    if isinstance(data, HeteroData):
        raise TypeError(
            "data is a HeteroData, with several kinds of samples: pass one kind as a Data (data.to_homogeneous())"
        )
    if isinstance(data, Data) or hasattr(data, "toarray"):
        return False
    if isinstance(data, (list, tuple)):
        if not len(data):
            raise ValueError("data is an empty list: pass at least two samples")
        return _holds_images(data)
    if isinstance(data, (np.ndarray, Tensor)):
        return data.ndim in (3, 4) and data.shape[0] > 0 and max(_height_and_width(data)) > _SMALL
    if hasattr(data, "__array__"):
        return False
    if isinstance(data, (dict, int, float)) or data is None or hasattr(data, "adj") or hasattr(data, "obsm"):
        raise TypeError(
            f"data is a {type(data).__name__}: pass features [N, d] as an array or a data frame (of an AnnData "
            'adata.obsm["X_pca"]), images, a folder of images, or a graph with features: a PyG Data (of a networkx '
            "graph torch_geometric.utils.from_networkx) or SampleGraph.from_edges(edges, x)"
        )
    return True


def _holds_images(values: Any) -> bool:
    """Whether a list holds paths, pictures, or arrays of pixels that are large or of several sizes."""
    first = values[0]
    if isinstance(first, (str, bytes, os.PathLike)) or hasattr(first, "convert"):
        return True
    if not isinstance(first, (np.ndarray, Tensor)) or first.ndim not in (2, 3):
        return False
    shapes = {tuple(getattr(value, "shape", ())) for value in values}
    return len(shapes) > 1 or max(_height_and_width(first[None])) > _SMALL


def suitable_method(data: Any) -> str:
    """Name of the method that `cluster` takes for an array or a graph.

    Parameters
    ----------
    data : array [N, d], [N, H, W] or [N, H, W, C], tensor, SampleGraph or PyG Data

    Returns
    -------
    str
        A key of `graphclust.methods.METHODS`.
    """
    if isinstance(data, SampleGraph) and data.joins_neighbors:
        data = data.x
    if isinstance(data, Data):
        if data.edge_index is not None and data.edge_index.numel():
            return GRAPH_METHOD
        data = data.x
    return "LearnedGraphClustering" if _are_images(data) else "ConsensusClustering"


def few_samples(method: Any, data: Any) -> dict[str, int]:
    """Parameters without which a method could not take so few samples: all others as neighbours.

    Parameters
    ----------
    method : class
        A value of `graphclust.methods.METHODS`.
    data : array or graph

    Returns
    -------
    dict
        ``{"n_neighbors": N - 1}`` where the method's default is more than that, else empty.
    """
    if isinstance(data, Data):
        data = data.x
    shape = getattr(data, "shape", None)
    n = shape[0] if shape else len(data) if isinstance(data, (list, tuple)) else 0
    default = signature(method).parameters.get("n_neighbors")
    return {"n_neighbors": n - 1} if default is not None and 2 <= n <= default.default else {}


def _are_images(data: Any) -> bool:
    """Whether an array holds images that are small enough to be learnt from their pixels.

    What is no array of numbers holds none: the method that gets it says what is wrong with it.
    """
    from graphclust.methods.image_arrays import choose_image_shape

    x = sample_rows(data)
    if x is None:
        return False
    if x.ndim in (3, 4):
        return max(_height_and_width(x)) <= _SMALL
    return x.ndim == 2 and x.numel() > 0 and choose_image_shape("auto", x.shape[1], None, x) is not None


def _height_and_width(images: Any) -> tuple[int, int]:
    """Of an array [N, H, W], [N, H, W, C] or, as torch keeps images, [N, C, H, W]."""
    from graphclust.methods.image_arrays import has_channels_first

    first = 2 if has_channels_first(images.shape) else 1
    return images.shape[first], images.shape[first + 1]


def _is_auto(method: Any) -> bool:
    return isinstance(method, str) and method == "auto"


def _by_name(method: Any) -> str:
    if isinstance(method, type) and method in METHODS.values():
        return method.__name__
    if type(method) in METHODS.values():
        name = type(method).__name__
        raise TypeError(
            f"method={shown(method)} is an instance: pass the class or its name, method={name!r}, and its parameters "
            "beside it"
        )
    known = {name.lower(): name for name in METHODS}
    if not isinstance(method, str) or method.lower() not in known:
        hint = meant(method, METHODS) if isinstance(method, str) else ""
        hint += "Use" if hint else "use"
        raise ValueError(f"method={shown(method)} is unknown: {hint} 'auto' or one of {', '.join(METHODS)}")
    return known[method.lower()]


#: What a graph with edges is clustered by.
GRAPH_METHOD = "GraphContrastClustering"
