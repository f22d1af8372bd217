"""What lies between the clusters of a latent space: decoded points on the lines that join their means."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from graphclust._checks import check_number
from graphclust.report._style import INK, cells, new_figure, palette, plain_axes

__all__ = ["latent_grid"]

_SIDE = 0.52  # inches a cell


def latent_grid(
    model: Any, *, share: float = 0.4, max_clusters: int = 15, title: str | None = None
) -> Figure:
    """Decoded points between the clusters of a method with a decoder, in rows and columns of clusters.

    On the diagonal, framed, the mean code of each cluster is decoded; the cell of row i and column j lies `share` of
    the way from the mean of i to that of j. Where one cluster turns into the other through samples that look real, the
    latent space has no gap between them; where the picture blurs, it has. Clusters that the tree joins early stand side
    by side.

    Parameters
    ----------
    model : fitted estimator
        With ``decode`` (`VAEHierarchical`, `HierarchicalVAE`, `DeepHierarchical`), fitted to images or to rows of
        square images.
    share : float
        From 0 (the cluster of the row) to 1 (that of the column); at 0.5 the grid is symmetric.
    max_clusters : int
        The largest clusters are shown, 2 .. 30 of them at most.
    title : str, optional

    Raises
    ------
    TypeError
        When the model has no decoder.
    ValueError
        When it was not fitted to images, or a parameter is out of bounds.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from graphclust import VAEHierarchical, report
    >>> model = VAEHierarchical(10, random_state=0).fit(load_digits().images)  # doctest: +SKIP
    >>> report.latent_grid(model).savefig("latent_grid.png")  # doctest: +SKIP
    """
    if not hasattr(model, "decode"):
        raise TypeError(
            f"{type(model).__name__} has no decode: take VAEHierarchical, HierarchicalVAE or DeepHierarchical"
        )
    check_number(share, "share", 0.0, 1.0)
    if not 2 <= max_clusters <= 30:
        raise ValueError(f"max_clusters is {max_clusters}: a grid shows 2 to 30 clusters")
    clusters = _in_tree_order(model, max_clusters)
    n = len(clusters)
    means = np.stack([model.embedding_[model.labels_ == k].mean(axis=0) for k in clusters])
    codes = means[:, None] + share * (means[None] - means[:, None])
    decoded = model.decode(codes.reshape(n * n, -1).astype(np.float32))
    if getattr(model, "image_shape_", None) is not None:
        decoded = decoded.reshape(-1, *model.image_shape_)
    tiles = cells(decoded, np.arange(n * n))
    _, height, width, _ = tiles.shape
    gap = max(2, round(0.08 * height))
    sheet = np.ones((n * (height + gap) - gap, n * (width + gap) - gap, 3))
    corners = [(i * (height + gap), j * (width + gap)) for i in range(n) for j in range(n)]
    for (top, left), tile in zip(corners, tiles, strict=True):
        sheet[top : top + height, left : left + width] = tile

    figure = new_figure(n * _SIDE * width / height + 0.7, n * _SIDE + (0.9 if title else 0.6), title)
    axes = figure.add_subplot()
    axes.imshow(sheet, interpolation="nearest")
    plain_axes(axes)
    axes.set_xlim(-gap, sheet.shape[1] + gap)
    axes.set_ylim(sheet.shape[0] + gap, -gap)
    colors = palette(int(max(clusters)) + 1)
    for i, k in enumerate(clusters):
        top, left = i * (height + gap), i * (width + gap)
        axes.add_patch(
            Rectangle(
                (left - gap / 2 - 0.5, top - gap / 2 - 0.5),
                width + gap,
                height + gap,
                fill=False,
                edgecolor=colors[k],
                linewidth=2.2,
            )
        )
    middle = np.arange(n)
    axes.set_xticks(middle * (width + gap) + width / 2, [str(k) for k in clusters])
    axes.set_yticks(middle * (height + gap) + height / 2, [str(k) for k in clusters])
    axes.tick_params(
        length=0, labelsize=10, labelcolor=INK, top=True, labeltop=True, bottom=False, labelbottom=False
    )
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("to cluster", color=INK, fontsize=9)
    axes.set_ylabel("from cluster", color=INK, fontsize=9)
    return figure


def _in_tree_order(model: Any, max_clusters: int) -> list[int]:
    """The largest clusters, in the order of the tree's leaves where there is a tree."""
    sizes = np.bincount(model.labels_)
    largest = [int(k) for k in np.argsort(-sizes, kind="stable")[:max_clusters] if sizes[k]]
    if len(largest) < 2:
        raise ValueError(f"the model has {len(largest)} cluster: there is nothing between clusters to draw")
    if not len(getattr(model, "tree_", ())):
        return sorted(largest)
    from scipy.cluster.hierarchy import leaves_list

    place = np.empty(len(model.tree_) + 1)
    place[leaves_list(model.tree_)] = np.arange(len(model.tree_) + 1)
    first = {k: place[model.leaf_labels_[model.labels_ == k]].min() for k in largest}
    return sorted(largest, key=lambda k: float(first[k]))
