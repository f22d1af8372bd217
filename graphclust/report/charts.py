"""Charts of a run: clusters against classes, losses over epochs, scores over a parameter, the tree of a hierarchy.

Every function returns a :class:`matplotlib.figure.Figure` of its own, as in
:mod:`graphclust.report.pictures`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from graphclust._labels import as_array, encode_labels
from graphclust.metrics import match_labels
from graphclust.report._style import FAINT, INK, chart_axes, new_figure, palette, plain_axes, short

__all__ = ["confusion", "dendrogram", "sweep_curve", "training_curves"]

# What a history may hold beside losses.
_NOT_A_LOSS = {"epoch", "stage", "step", "batch", "lr", "learning_rate", "time", "seconds"}


def confusion(
    y_true: Any, y_pred: Any, *, class_names: Sequence[str] | None = None, title: str | None = None
) -> Figure:
    """Classes (rows) against clusters (columns), the clusters in the order of the classes they match one-to-one.

    Colours are shares of the class, so rare classes show as clearly as frequent ones; figures are counts.
    What lies off the diagonal counts as wrong in :func:`graphclust.metrics.clustering_accuracy`.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (N,)
        Classes and clusters, at most 300 of each.
    class_names : sequence of str, optional
        Names of the classes, in their sorted order.
    title : str, optional
    """
    true_codes, classes = encode_labels(y_true, "y_true")
    pred_codes, clusters = encode_labels(y_pred, "y_pred")
    mapping = match_labels(true_codes, pred_codes)
    if max(len(classes), len(clusters)) > 300:
        raise ValueError(
            f"{len(classes)} classes and {len(clusters)} clusters do not fit in a picture (at most 300): "
            "use graphclust.metrics.evaluate"
        )
    if class_names is not None and len(class_names) != len(classes):
        raise ValueError(f"class_names has {len(class_names)} entries and y_true has {len(classes)} classes")
    counts = np.zeros((len(classes), len(clusters)), dtype=np.int64)
    np.add.at(counts, (true_codes, pred_codes), 1)
    order = sorted(range(len(clusters)), key=lambda k: (mapping.get(k, len(classes)), k))
    counts = counts[:, order]
    shares = counts / counts.sum(axis=1, keepdims=True)

    n_rows, n_cols = counts.shape
    with_figures = max(n_rows, n_cols) <= 25
    cell = 0.46 if with_figures else 8 / max(n_rows, n_cols)
    figure = new_figure(max(4.0, cell * n_cols + 2.4), max(3.2, cell * n_rows + 1.4), title)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    row_names = list(class_names) if class_names is not None else classes
    if max(n_rows, n_cols) <= 60:
        axes.set_yticks(range(n_rows), [short(name, 22) for name in row_names], fontsize=9)
        column_names = [short(clusters[k]) for k in order]
        tilted = max(map(len, column_names)) > (3 if n_cols <= 30 else 1)
        axes.set_xticks(range(n_cols), column_names, fontsize=9, rotation=90 if tilted else 0)
    else:
        plain_axes(axes)
    axes.tick_params(length=0)
    axes.set_ylabel("class", color=INK)
    axes.set_xlabel("cluster, matched one-to-one", color=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if with_figures:
        for (row, col), count in np.ndenumerate(counts):
            if count:
                ink = "white" if shares[row, col] > 0.55 else INK
                axes.text(col, row, f"{count}", ha="center", va="center", fontsize=8, color=ink)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=18, ticks=[0, 0.5, 1])
    bar.set_label("share of the class", fontsize=9, color=INK)
    bar.outline.set_visible(False)
    correct = sum(counts[c, order.index(k)] for k, c in mapping.items())
    axes.set_title(f"ACC {100 * correct / len(true_codes):.1f}", loc="left", fontsize=10.5, color=INK)
    return figure


def training_curves(history: Any, *, terms: Sequence[str] | None = None, title: str | None = None) -> Figure:
    """Loss terms over the epochs, one panel per stage of the training.

    Parameters
    ----------
    history : dict, list of dict, or fitted estimator
        Either name -> values, one per epoch (``"stage"`` and ``"epoch"`` may be among the names), or one
        dict per epoch with the keys stage, epoch and the loss terms; what an epoch lacks is left out.
    terms : sequence of str, optional
        Which losses to draw. Default: all numbers that are not a count, a learning rate or a time.
    title : str, optional

    Notes
    -----
    A panel whose losses are all positive and differ by more than a factor of 30 has a logarithmic axis.
    """
    records = _records(history)
    names = [
        name
        for name in dict.fromkeys(key for record in records for key in record)
        if name not in _NOT_A_LOSS and any(_is_number(record.get(name)) for record in records)
    ]
    if terms is not None:
        unknown = [name for name in terms if name not in names]
        if unknown:
            raise ValueError(f"the history has no {unknown[0]!r}: its losses are {', '.join(names)}")
        names = list(terms)
    if not names:
        raise ValueError(
            "the history holds no losses: the model was not fitted, or its fit had nothing to train (epochs=0, or a "
            "view of the data that needs no network)"
        )
    stages = list(dict.fromkeys(record.get("stage") for record in records))
    colors = dict(zip(names, palette(len(names)), strict=True))
    figure = new_figure(max(4.6, 3.9 * len(stages)), 3.3, title)
    for axes, stage in zip(figure.subplots(1, len(stages), squeeze=False).ravel(), stages, strict=True):
        chart_axes(axes)
        of_stage = [record for record in records if record.get("stage") == stage]
        drawn: list[float] = []
        for name in names:
            points = [
                (float(record.get("epoch", number)), float(record[name]))
                for number, record in enumerate(of_stage, start=1)
                if _is_number(record.get(name))
            ]
            if not points:
                continue
            epochs, values = zip(*points, strict=True)
            marker = "o" if len(points) < 3 else None
            axes.plot(
                epochs, values, color=colors[name], label=name, linewidth=1.8, marker=marker, markersize=4
            )
            drawn += [value for value in values if math.isfinite(value)]
        if drawn and min(drawn) > 0 and max(drawn) > 30 * min(drawn):
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("epoch", fontsize=9.5, color=INK)
        if stage is not None:
            axes.set_title(str(stage), loc="left", fontsize=10.5, color=INK)
        if drawn:
            axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    return figure


def sweep_curve(
    values: Sequence[Any],
    scores: Mapping[str, Any],
    xlabel: str,
    *,
    ylabel: str = "score",
    title: str | None = None,
) -> Figure:
    """Scores over the values of a parameter: the mean over seeds, and a band of one standard deviation.

    Parameters
    ----------
    values : sequence of length V
        Of the parameter; numbers are drawn to scale, anything else evenly spaced.
    scores : dict of str to array-like of shape (V, n_seeds) or (V,)
        One curve for each name.
    xlabel, ylabel : str
        What the axes show.
    title : str, optional
    """
    if len(values) == 0 or not scores:
        raise ValueError("there is nothing to draw: give at least one value and one score")
    numeric = all(_is_number(value) for value in values)
    place = np.asarray(values, dtype=float) if numeric else np.arange(len(values), dtype=float)
    order = np.argsort(place, kind="stable")
    figure = new_figure(5.6, 3.9, title)
    axes = figure.add_subplot()
    chart_axes(axes)
    for (name, given), color in zip(scores.items(), palette(len(scores)), strict=True):
        table = as_array(given).astype(float)
        table = table[:, None] if table.ndim == 1 else table
        if table.ndim != 2 or len(table) != len(values):
            raise ValueError(
                f"the scores {name!r} have shape {np.shape(given)}: give one row per value, ({len(values)}, n_seeds)"
            )
        mean = table.mean(axis=1)[order]
        axes.plot(place[order], mean, color=color, label=name, linewidth=2, marker="o", markersize=5)
        if table.shape[1] > 1:
            deviation = table.std(axis=1, ddof=1)[order]
            axes.fill_between(
                place[order], mean - deviation, mean + deviation, color=color, alpha=0.2, linewidth=0
            )
    if len(values) <= 12:
        axes.set_xticks(place, [f"{value:g}" if numeric else short(value) for value in values])
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def dendrogram(
    linkage: Any,
    *,
    n_clusters: int | None = None,
    distance: float | None = None,
    labels: Sequence[Any] | None = None,
    max_leaves: int = 60,
    title: str | None = None,
) -> Figure:
    """Tree of a hierarchical clustering, its clusters coloured and the cut dashed.

    Parameters
    ----------
    linkage : array-like of shape (P - 1, 4), or fitted estimator
        In the form of ``scipy.cluster.hierarchy``; or a method with a tree (`tree_` and `leaf_labels_`), which is cut
        into its ``n_clusters_`` where nothing else is asked for.
    n_clusters : int, optional
        Cut into this many clusters, 1 .. P.
    distance : float, optional
        Or cut at this height.
    labels : sequence of length P, optional
        Names of the leaves; drawn where no more than ``max_leaves`` are there. Without, a leaf that is a part of the
        samples has its number of samples in brackets.
    max_leaves : int
        A larger tree is drawn down to this many branches, 2 .. 500, each with its number of samples in brackets.
    title : str, optional
    """
    from scipy.cluster.hierarchy import dendrogram as scipy_dendrogram
    from scipy.cluster.hierarchy import is_valid_linkage

    sizes = None
    if hasattr(linkage, "tree_"):
        if n_clusters is None and distance is None:
            n_clusters = linkage.n_clusters_
        sizes = np.bincount(linkage.leaf_labels_, minlength=len(linkage.tree_) + 1)
        linkage = linkage.tree_
    tree = as_array(linkage).astype(np.float64)
    is_valid_linkage(tree, throw=True, name="linkage")
    n_leaves = len(tree) + 1
    if n_clusters is not None and distance is not None:
        raise ValueError("n_clusters and distance are both given: a tree is cut by one of them")
    if n_clusters is not None and not 1 <= n_clusters <= n_leaves:
        raise ValueError(f"n_clusters is {n_clusters}: the tree has 1 to {n_leaves}")
    if labels is not None and len(labels) != n_leaves:
        raise ValueError(f"labels has {len(labels)} entries and the tree has {n_leaves} leaves")
    if not 2 <= max_leaves <= 500:
        raise ValueError(
            f"max_leaves is {max_leaves}: a tree has at least 2, and a picture shows at most 500"
        )
    if n_clusters is not None:
        # Between the merge that would leave one cluster fewer and the one before it.
        heights = np.concatenate([[0.0], np.sort(tree[:, 2]), [tree[:, 2].max() * 1.1]])
        distance = float((heights[n_leaves - n_clusters] + heights[n_leaves - n_clusters + 1]) / 2)
    below = tree[:, 2] <= (-np.inf if distance is None else distance)
    if n_clusters is not None:
        # Merges may be equally high, and only their order tells how many clusters are left.
        below = np.argsort(np.argsort(tree[:, 2], kind="stable")) < n_leaves - n_clusters
    node_colors = [INK] * len(tree) if distance is None else _tree_colors(tree, below)
    truncated = n_leaves > max_leaves
    names = _branch_names(tree, sizes, None if truncated else labels)
    drawn = scipy_dendrogram(
        tree,
        no_plot=True,
        p=max_leaves,
        truncate_mode="lastp" if truncated else None,
        leaf_label_func=names.__getitem__,
        count_sort="ascending",
        link_color_func=lambda node: node_colors[node - n_leaves],
    )
    x, height = np.asarray(drawn["icoord"]), np.asarray(drawn["dcoord"])
    figure = new_figure(float(np.clip(0.16 * len(drawn["ivl"]), 5.5, 14)), 4.2, title)
    axes = figure.add_subplot()
    chart_axes(axes)
    lines = np.stack([x, height], axis=2)
    axes.add_collection(LineCollection(list(lines), colors=drawn["color_list"], linewidths=1.5))
    top = float(height.max()) * 1.05
    axes.set_xlim(0, 10 * len(drawn["ivl"]))
    axes.set_ylim(0, top or 1.0)
    long_names = max(len(str(name)) for name in drawn["ivl"]) > 2
    axes.set_xticks(
        5 + 10 * np.arange(len(drawn["ivl"])), drawn["ivl"], rotation=90 if long_names else 0, fontsize=8
    )
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("distance", color=INK)
    if distance is not None:
        axes.axhline(distance, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    return figure


# -- parts ---------------------------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    return isinstance(value, (Real, np.number)) and not isinstance(value, bool)


def _records(history: Any) -> list[Mapping[str, Any]]:
    """One dict per epoch, whichever form the history has."""
    history = getattr(history, "history_", history)
    if isinstance(history, Mapping):
        columns = {name: list(values) for name, values in history.items()}
        n_epochs = max(map(len, columns.values()), default=0)
        return [{name: col[i] for name, col in columns.items() if i < len(col)} for i in range(n_epochs)]
    records = list(history)
    if not all(isinstance(record, Mapping) for record in records):
        raise TypeError("history must be a dict of lists or a list of dicts, one per epoch")
    return records


def _branch_names(tree: np.ndarray, sizes: np.ndarray | None, labels: Sequence[Any] | None) -> list[str]:
    """What stands under each node where the picture ends: a leaf's label or number, else its samples in brackets."""
    n_leaves = len(tree) + 1
    n_samples = ([1] * n_leaves if sizes is None else sizes.tolist()) + [0] * len(tree)
    for i, (first, second) in enumerate(tree[:, :2].astype(int).tolist()):
        n_samples[n_leaves + i] = n_samples[first] + n_samples[second]
    names = [f"({count})" for count in n_samples]
    if labels is not None:
        names[:n_leaves] = [short(label) for label in labels]
    elif sizes is None or (sizes == 1).all():
        names[:n_leaves] = [str(leaf) for leaf in range(n_leaves)]
    return names


def _tree_colors(tree: np.ndarray, below: np.ndarray) -> list[str]:
    """Colour of each merge: one per cluster below the cut, faint above it."""
    n_leaves = len(tree) + 1
    cluster = np.full(len(tree), -1)
    n_found = 0
    for i in range(len(tree) - 1, -1, -1):
        if not below[i]:
            continue
        if cluster[i] < 0:
            cluster[i] = n_found
            n_found += 1
        for child in tree[i, :2].astype(int) - n_leaves:
            if child >= 0:
                cluster[child] = cluster[i]
    from matplotlib.colors import to_hex

    colors = [to_hex(color) for color in palette(max(n_found, 1))]
    return [FAINT if k < 0 else colors[k] for k in cluster]
