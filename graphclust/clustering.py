"""`cluster`: data in, clusters out, by the method that suits the data."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from torch import Tensor
from torch_geometric.data import Data

from graphclust.graph import SampleGraph
from graphclust.methods import METHODS

#: Pictures up to this side are learnt from their pixels; larger ones need a pretrained network.
_SMALL = 64


def cluster(
    data: Any,
    n_clusters: int | None = None,
    *,
    method: str = "auto",
    random_state: Any = 0,
    verbose: bool = False,
    **parameters: Any,
) -> Any:
    """Cluster anything: the fitted estimator of the method that suits the data.

    ==================================  ==========================================================================
    data                                method
    ==================================  ==========================================================================
    images of at most 64 x 64           `LearnedGraphClustering`: a network learns the sample graph from the pixels
    larger images                       `ConsensusClustering` of a pretrained network's features
    vectors                             `ConsensusClustering` of their sample graph
    edges between samples               `GraphInfomaxClustering`: infomax codes beside propagated features
    ==================================  ==========================================================================

    Rows [N, d] are images when d is a square number of at least 16 and neighbouring entries are alike
    (`LearnedGraphClustering`); a `SampleGraph` that was built from features counts as these features.

    Parameters
    ----------
    data : array, tensor, SampleGraph, PyG Data, path, list of paths, or what `graphclust.images.read_images` takes
        Features [N, d], images [N, H, W] or [N, H, W, C], samples with edges, a folder of images.
    n_clusters : int or None
        K; None estimates it (`graphclust.estimate_n_clusters`).
    method : str, default="auto"
        Name of a method, in any case, to take it instead of the one of the table.
    random_state : int, RandomState or None, default=0
        The only source of randomness.
    verbose : bool, default=False
        Show progress.
    **parameters
        Further parameters of the method.

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
    if _needs_reading(data):
        from graphclust.images import read_images

        images = read_images(data, verbose=verbose)
        data = (
            images.x if images.image_shape is None else images.x.reshape(len(images.x), *images.image_shape)
        )
    name = suitable_method(data) if method == "auto" else _by_name(method)
    estimator = METHODS[name](
        "auto" if n_clusters is None else n_clusters, random_state=random_state, **parameters
    )
    if verbose and "verbose" in estimator.get_params():
        estimator.set_params(verbose=True)
    estimator.fit(data)
    if images is not None:
        estimator.images_ = images
    return estimator


def _needs_reading(data: Any) -> bool:
    """Whether `data` names or holds images that are no array yet, or an array of images too large for their pixels."""
    if isinstance(data, (str, os.PathLike)):
        return True
    if isinstance(data, (Data, Tensor)) or hasattr(data, "toarray"):
        return False
    if isinstance(data, (list, tuple)):
        return len(data) > 0 and (isinstance(data[0], (str, os.PathLike)) or hasattr(data[0], "convert"))
    if isinstance(data, np.ndarray):
        return data.ndim in (3, 4) and data.dtype == np.uint8 and max(data.shape[1:3]) > _SMALL
    return not hasattr(data, "__array__")


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
    if isinstance(data, SampleGraph) and data.construction.get("source") == "features":
        data = data.x
    if isinstance(data, Data):
        if data.edge_index is not None and data.edge_index.numel():
            return GRAPH_METHOD
        data = data.x
    return "LearnedGraphClustering" if _are_images(data) else "ConsensusClustering"


def _are_images(data: Any) -> bool:
    """Whether an array holds images that are small enough to be learnt from their pixels."""
    import torch

    from graphclust.methods.inputs import choose_image_shape

    x = torch.as_tensor(np.asarray(data))
    if x.ndim in (3, 4):
        return max(x.shape[1:3]) <= _SMALL
    return x.ndim == 2 and choose_image_shape("auto", x.shape[1], None, x) is not None


def _by_name(method: str) -> str:
    known = {name.lower(): name for name in METHODS}
    if method.lower() not in known:
        raise ValueError(f"method={method!r} is unknown: use 'auto' or one of {', '.join(METHODS)}")
    return known[method.lower()]


#: What a graph with edges is clustered by.
GRAPH_METHOD = "GraphInfomaxClustering"
