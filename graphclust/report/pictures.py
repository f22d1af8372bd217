"""Pictures of a clustering: where the clusters lie and what is in them.

Every function returns a :class:`matplotlib.figure.Figure` that belongs to nobody else (pyplot's global
state is not touched): ``figure.savefig("clusters.png")`` writes it, a notebook shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from graphclust._labels import as_array, encode_labels
from graphclust.metrics import evaluate
from graphclust.report._panels import draw_map, draw_samples
from graphclust.report._style import INK, cells, new_figure, plain_axes, short
from graphclust.report.layout import graph_layout

__all__ = ["cluster_samples", "embedding_map", "image_grid", "overview"]

Layout = Literal["auto", "pca", "graph"]


def embedding_map(
    embedding: Any,
    labels: Any,
    *,
    images: Any = None,
    graph: Any = None,
    layout: Layout = "auto",
    title: str | None = None,
    random_state: int = 0,
) -> Figure:
    """Map of all samples, coloured by cluster, with the cluster's label at its medoid.

    Parameters
    ----------
    embedding : array-like of shape (N, d), or None
        With d = 2 it is drawn as it is. None with a ``graph``.
    labels : array-like of shape (N,)
        Clusters, any hashable labels; -1 (noise) is grey and has no label.
    images : optional
        The samples as images (see :func:`cluster_samples`): some are drawn where they lie.
    graph : Data, optional
        The sample graph, for its layout.
    layout : {"auto", "pca", "graph"}
        How more than two dimensions become two: the two principal components, or :func:`graph_layout` of
        ``graph``. "auto" takes the graph if there is one.
    title : str, optional
    random_state : int
        Seed of the graph layout.

    Raises
    ------
    ValueError
        If lengths differ, the embedding is not finite, or the layout needs a graph that was not given.
    """
    codes, names = encode_labels(labels, "labels")
    position = _two_dimensions(embedding, graph, layout, len(codes), random_state)
    figure = new_figure(7.2, 7.2, title)
    draw_map(figure.add_subplot(), position, codes, names, images)
    return figure


def cluster_samples(
    images: Any,
    labels: Any,
    probabilities: Any = None,
    n_per_cluster: int = 12,
    *,
    max_clusters: int = 20,
    title: str | None = None,
) -> Figure:
    """A row of sample images for each cluster, the most certain first, and the cluster's size.

    Parameters
    ----------
    images : array-like or sequence
        N images: (N, H, W), (N, H, W, C), (N, C, H, W), flat squares (N, H * H), a list of arrays of any
        sizes, or a list of image files.
    labels : array-like of shape (N,)
        Clusters, any hashable labels.
    probabilities : array-like of shape (N, K) or (N,), optional
        Certainty of each sample (of a table, the largest entry of the row). Without it, the row shows
        samples from all over the cluster, evenly spaced in the order of the data.
    n_per_cluster : int
        Images in a row.
    max_clusters : int
        The largest clusters are shown, at most this many.
    title : str, optional
    """
    codes, names = encode_labels(labels, "labels")
    certainty = _certainty(probabilities, len(codes))
    n_rows = min(len(names), max_clusters)
    figure = new_figure(0.55 * n_per_cluster + 1.6, 0.55 * n_rows + (0.5 if title else 0.1), title)
    draw_samples(figure.add_subplot(), images, codes, names, certainty, n_per_cluster, max_clusters)
    return figure


def overview(
    embedding: Any,
    labels: Any,
    images: Any,
    probabilities: Any = None,
    *,
    graph: Any = None,
    layout: Layout = "auto",
    y_true: Any = None,
    n_per_cluster: int = 10,
    max_clusters: int = 20,
    title: str | None = None,
    random_state: int = 0,
) -> Figure:
    """The map (:func:`embedding_map`) and the samples (:func:`cluster_samples`) side by side.

    Parameters
    ----------
    embedding, labels, images, probabilities, graph, layout, n_per_cluster, max_clusters, title, random_state
        As in those.
    y_true : array-like of shape (N,), optional
        Known classes; the scores against them stand below the title.
    """
    codes, names = encode_labels(labels, "labels")
    certainty = _certainty(probabilities, len(codes))
    position = _two_dimensions(embedding, graph, layout, len(codes), random_state)
    figure = new_figure(14.0, 7.4, title)
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    draw_map(left, position, codes, names, None)
    draw_samples(right, images, codes, names, certainty, n_per_cluster, max_clusters)
    facts = f"{len(codes):,} samples, {len(names)} clusters"
    if y_true is not None:
        scores = evaluate(y_true, codes)
        facts += "".join(f"    {key} {100 * scores[key]:.1f}" for key in ("ACC", "NMI", "ARI"))
    left.set_anchor("N")
    right.set_anchor("N")
    left.set_title(facts, loc="left", fontsize=10.5, color=INK)
    return figure


def image_grid(
    images: Any, n_columns: int = 10, titles: Sequence[str] | None = None, *, title: str | None = None
) -> Figure:
    """Images in rows, such as samples that a model has generated.

    Parameters
    ----------
    images : array-like or sequence
        As in :func:`cluster_samples`.
    n_columns : int
        Images in a row.
    titles : sequence of str, optional
        One per image (drawn above it) or one per row (drawn to its left).
    title : str, optional
    """
    if n_columns < 1:
        raise ValueError(f"n_columns is {n_columns}: give at least 1")
    n_images = len(images)
    if n_images == 0:
        raise ValueError("images is empty: give at least one image")
    n_rows = -(-n_images // n_columns)
    n_columns = min(n_columns, n_images)
    if titles is not None and len(titles) not in (n_images, n_rows):
        raise ValueError(
            f"titles has {len(titles)} entries: give one per image ({n_images}) or one per row ({n_rows})"
        )
    above = titles is not None and len(titles) == n_images
    tiles = cells(images, np.arange(n_images))
    figure = new_figure(
        0.62 * n_columns + (0.2 if above or titles is None else 1.4),
        (0.8 if above else 0.62) * n_rows * tiles.shape[1] / tiles.shape[2] + (0.5 if title else 0.1),
        title,
    )
    for i, axes in enumerate(figure.subplots(n_rows, n_columns, squeeze=False).ravel()):
        plain_axes(axes)
        if i < n_images:
            axes.imshow(tiles[i], interpolation="nearest")
        else:
            axes.set_visible(False)
        if titles is not None and above and i < n_images:
            axes.set_title(short(titles[i], 12), fontsize=8, color=INK, pad=2)
        elif titles is not None and not above and i % n_columns == 0:
            label = short(titles[i // n_columns], 20)
            axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, color=INK)
    return figure


def _two_dimensions(embedding: Any, graph: Any, layout: str, n_samples: int, random_state: int) -> np.ndarray:
    if layout not in ("auto", "pca", "graph"):
        raise ValueError(f"layout is {layout!r}: it must be 'auto', 'pca' or 'graph'")
    if embedding is None and graph is None:
        raise ValueError("there is nothing to draw: give an embedding or a graph")
    position: np.ndarray | None = None
    if embedding is not None:
        position = as_array(embedding)
        if position.ndim != 2:
            raise ValueError(f"embedding has shape {position.shape}: it must be (N, d)")
        if len(position) != n_samples:
            raise ValueError(f"embedding has {len(position)} rows and labels has {n_samples} entries")
        if not np.isfinite(position).all():
            raise ValueError("embedding has NaN or infinite values: did the training diverge?")
    if layout == "graph" or (
        layout == "auto" and graph is not None and (position is None or position.shape[1] != 2)
    ):
        if graph is None:
            raise ValueError("layout 'graph' needs the sample graph: give graph=model.graph_")
        if graph.num_nodes != n_samples:
            raise ValueError(f"the graph has {graph.num_nodes} nodes and labels has {n_samples} entries")
        return graph_layout(graph, random_state=random_state)
    if position is None:
        raise ValueError("layout 'pca' needs an embedding")
    if position.shape[1] == 2:
        return position
    if position.shape[1] == 1:
        return np.column_stack([position[:, 0], np.zeros(n_samples)])
    from sklearn.decomposition import PCA

    return PCA(2, svd_solver="full").fit_transform(position)


def _certainty(probabilities: Any, n_samples: int) -> np.ndarray | None:
    if probabilities is None:
        return None
    if hasattr(probabilities, "toarray"):
        probabilities = probabilities.max(axis=1).toarray().reshape(-1)
    certainty = as_array(probabilities)
    certainty = certainty.max(axis=1) if certainty.ndim == 2 else certainty
    if certainty.shape != (n_samples,):
        raise ValueError(
            f"probabilities has {len(certainty)} rows and labels has {n_samples} entries: give one per sample"
        )
    return certainty
