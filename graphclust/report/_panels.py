"""The parts that pictures are put together from; each draws on axes that it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from graphclust.report._style import FAINT, INK, cells, cluster_colors, plain_axes, short, spread


def draw_map(axes: Axes, position: np.ndarray, codes: np.ndarray, names: list[Any], images: Any) -> None:
    colors = cluster_colors(names)
    n_samples = len(codes)
    # All clusters in one mixed order: drawn one after the other, the last would cover the others.
    order = np.random.default_rng(0).permutation(n_samples)
    is_noise = np.array([name == -1 for name in names])[codes[order]]
    order = np.concatenate([order[is_noise], order[~is_noise]])
    color_table = np.array([to_rgb(color) for color in colors])
    axes.scatter(
        position[order, 0],
        position[order, 1],
        c=color_table[codes[order]],
        s=float(np.clip(16_000 / n_samples, 1.5, 22)),
        alpha=0.8 if images is None else 0.5,
        linewidths=0,
        rasterized=True,
    )
    plain_axes(axes)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.04)
    # Where a point falls in pixels is known once the layout of the figure is.
    figure = axes.figure  # never a subfigure: the figures are made in this package
    figure.draw_without_rendering()  # type: ignore[union-attr]
    pixels = axes.transData.transform(position)
    taken = _draw_numbers(axes, position, pixels, codes, names, color_table)
    if images is not None:
        _draw_thumbnails(axes, position, pixels, codes, color_table, images, taken)


def _draw_numbers(
    axes: Axes,
    position: np.ndarray,
    pixels: np.ndarray,
    codes: np.ndarray,
    names: list[Any],
    color_table: np.ndarray,
) -> np.ndarray:
    """The label of each cluster at its medoid, moved aside where labels would cover each other; their boxes."""
    scale = axes.figure.dpi / 72
    font = 11 if len(names) <= 20 else 8
    sizes = np.bincount(codes, minlength=len(names))
    by_size = [k for k in np.argsort(-sizes, kind="stable") if names[k] != -1]
    boxes = np.array([[0.72 * font * len(short(names[k])) + 9, 1.85 * font] for k in by_size]) * scale
    # Labels that would fill the picture tell nothing: the largest clusters are named, on a sixth of the
    # area at most.
    area = float(np.prod(axes.get_window_extent().size))
    fits = np.cumsum(boxes.reshape(-1, 2).prod(axis=1)) <= max(area / 6, 1.0)
    shown = [k for k, fit in zip(by_size, fits, strict=True) if fit]
    if not shown:
        return np.zeros((0, 4))
    boxes = boxes[: len(shown)]
    medoids = []
    for k in shown:
        members = np.flatnonzero(codes == k)
        centre = np.median(position[members], axis=0)
        medoids.append(members[np.square(position[members] - centre).sum(axis=1).argmin()])
    texts = [short(names[k]) for k in shown]
    centres = spread(pixels[medoids], boxes)
    places = axes.transData.inverted().transform(centres)
    for k, medoid, text, place in zip(shown, medoids, texts, places, strict=True):
        color = color_table[k]
        moved = np.abs(axes.transData.transform(place) - pixels[medoid]).max() > 8 * scale
        axes.annotate(
            text,
            xy=tuple(position[medoid]),
            xytext=tuple(place),
            ha="center",
            va="center",
            fontsize=font,
            fontweight="bold",
            color=INK,
            bbox={
                "boxstyle": "round,pad=0.22",
                "facecolor": "white",
                "edgecolor": color,
                "linewidth": 1.4,
                "alpha": 0.92,
            },
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 1.0} if moved else None,
            zorder=5,
        )
    return np.hstack([centres, boxes])


def _draw_thumbnails(
    axes: Axes,
    position: np.ndarray,
    pixels: np.ndarray,
    codes: np.ndarray,
    color_table: np.ndarray,
    images: Any,
    taken: np.ndarray,
    side: float = 15.0,
) -> None:
    """Images of some samples where they lie, none over another or over the labels (boxes ``taken``)."""
    scale = axes.figure.dpi / 72
    step = (side + 5) * scale
    # At most one candidate in a square of a grid over the map: the sample nearest to its middle.
    square = np.floor(pixels / step)
    off_centre = np.abs(pixels / step - square - 0.5).max(axis=1)
    order = np.lexsort((off_centre, square[:, 1], square[:, 0]))
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(square[order], axis=0) != 0).any(axis=1)
    candidates = order[first]
    candidates = candidates[np.argsort(off_centre[candidates], kind="stable")]
    centres, reach = taken[:, :2], (taken[:, 2:] + step) / 2
    chosen = []
    for i in candidates:
        if (np.abs(centres - pixels[i]) < reach).all(axis=1).any():
            continue
        chosen.append(i)
        centres = np.vstack([centres, pixels[i]])
        reach = np.vstack([reach, [step, step]])
    if not chosen:
        return
    for tile, i in zip(cells(images, chosen), chosen, strict=True):
        box = AnnotationBbox(
            OffsetImage(tile, zoom=side / tile.shape[0], interpolation="nearest"),
            tuple(position[i]),
            pad=0.06,
            bboxprops={"edgecolor": color_table[codes[i]], "linewidth": 1.2},
            zorder=3,
        )
        axes.add_artist(box)


def draw_samples(
    axes: Axes,
    images: Any,
    codes: np.ndarray,
    names: list[Any],
    certainty: np.ndarray | None,
    n_per_cluster: int,
    max_clusters: int,
) -> None:
    if n_per_cluster < 1 or max_clusters < 1:
        raise ValueError(
            f"n_per_cluster is {n_per_cluster} and max_clusters {max_clusters}: give at least 1 of each"
        )
    if len(images) != len(codes):
        raise ValueError(f"there are {len(images)} images and {len(codes)} labels: give one per sample")
    sizes = np.bincount(codes, minlength=len(names))
    shown = np.sort(np.argsort(-sizes, kind="stable")[:max_clusters])
    rows = []
    for k in shown:
        members = np.flatnonzero(codes == k)
        if certainty is None:
            take = np.linspace(0, len(members) - 1, min(n_per_cluster, len(members))).astype(np.int64)
            rows.append(members[take])
        else:
            rows.append(members[np.argsort(-certainty[members], kind="stable")[:n_per_cluster]])
    tiles = cells(images, np.concatenate(rows))
    height, width = tiles.shape[1:3]
    gap = max(2, height // 12)
    sheet = np.ones(((height + gap) * len(rows) - gap, (width + gap) * n_per_cluster - gap, 3))
    number = 0
    for row, members in enumerate(rows):
        for col in range(len(members)):
            top, left = row * (height + gap), col * (width + gap)
            sheet[top : top + height, left : left + width] = tiles[number]
            number += 1
    axes.imshow(sheet, interpolation="nearest")
    plain_axes(axes)
    colors = cluster_colors(names)
    for row, k in enumerate(shown):
        middle = row * (height + gap) + height / 2
        axes.text(
            -0.35 * width,
            middle,
            short(names[k]),
            ha="right",
            va="center",
            fontsize=10.5 if len(rows) <= 12 else 8.5,
            fontweight="bold",
            color=INK,
            bbox={
                "boxstyle": "round,pad=0.25",
                "facecolor": "white",
                "edgecolor": colors[k],
                "linewidth": 1.6,
            },
        )
        axes.text(
            sheet.shape[1] + 0.25 * width, middle, f"{sizes[k]:,}", va="center", fontsize=10, color=FAINT
        )
    if len(shown) < len(names):
        note = f"the {len(shown)} largest of {len(names)} clusters"
        axes.set_title(note, loc="left", fontsize=10, color=FAINT)
