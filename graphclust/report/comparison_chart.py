"""The chart of a comparison: how good each method is, how far its seeds spread, and what it costs in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graphclust._labels import as_array
from graphclust.report._style import FAINT, INK, chart_axes, new_figure, palette, short

__all__ = ["method_comparison"]

_MARKERS = ("o", "s", "^", "D", "v")


def method_comparison(
    scores: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, Any], *, title: str | None = None
) -> Figure:
    """Quality of each method with bars of one standard deviation, and quality against time.

    On the left a row for each method, the best by the first score at the top, with a mark for each score; on the right
    the first score over the time of a run, which is drawn logarithmically. A method on the upper left is good and fast.

    Parameters
    ----------
    scores : mapping of a score's name to (mapping of a method's name to array-like of shape (n_seeds,))
        One to five scores of the same methods, such as ``{"ACC": {"KMeans": [0.66, 0.67], ...}, ...}``. NaN is left
        out.
    seconds : mapping of a method's name to array-like of shape (n_seeds,)
        Time of each run.
    title : str, optional

    Raises
    ------
    ValueError
        If there is nothing to draw, or the scores are not of the same methods.
    """
    if not scores or not seconds:
        raise ValueError("there is nothing to draw: give at least one score of one method, and its times")
    if len(scores) > len(_MARKERS):
        raise ValueError(f"{len(scores)} scores do not fit in a row: give at most {len(_MARKERS)}")
    for name, values in scores.items():
        if set(values) != set(seconds):
            raise ValueError(f"the score {name!r} and the times are not of the same methods")
    main = next(iter(scores))
    means = {method: _mean(values) for method, values in scores[main].items()}
    # NaN last; the order of the user's between equals.
    order = sorted(means, key=lambda method: -np.nan_to_num(means[method], nan=-np.inf))
    figure = new_figure(11.0, max(3.6, 1.5 + 0.29 * len(order)), title)
    left, right = figure.subplots(1, 2, width_ratios=[1.0, 1.15])
    _draw_rows(left, scores, order)
    costs = {method: (_mean(seconds[method]), scores[main][method]) for method in order}
    drawn = _draw_costs(right, costs, main)
    if len(drawn):
        figure.draw_without_rendering()  # from here on it is known where everything stands
        _label_points(right, drawn, [short(method, 22) for method in order][: len(drawn)])
    return figure


def _mean(values: Any) -> float:
    array = _known(values)
    return float(array.mean()) if len(array) else float("nan")


def _known(values: Any) -> np.ndarray:
    array = as_array(values).astype(float).ravel()
    return array[np.isfinite(array)]


def _deviation(values: Any) -> float:
    array = _known(values)
    return float(array.std(ddof=1)) if len(array) > 1 else 0.0


def _draw_rows(axes: Axes, scores: Mapping[str, Mapping[str, Any]], order: Sequence[str]) -> None:
    chart_axes(axes)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    rows = np.arange(len(order))
    # Marks of a row stand a little apart, so that their bars can be told from each other.
    shifts = np.linspace(-0.2, 0.2, len(scores)) if len(scores) > 1 else [0.0]
    for (name, values), color, marker, shift in zip(scores.items(), palette(len(scores)), _MARKERS, shifts):
        axes.errorbar(
            [_mean(values[method]) for method in order],
            rows + shift,
            xerr=[_deviation(values[method]) for method in order],
            fmt=marker,
            color=color,
            markersize=5.5,
            elinewidth=1.6,
            capsize=2.5,
            label=name,
        )
    spans = [(_mean(v[m]), _deviation(v[m])) for v in scores.values() for m in order if len(_known(v[m]))]
    if spans:
        low, high = min(m - s for m, s in spans), max(m + s for m, s in spans)
        room = 0.05 * (high - low) or 0.05  # a single point has no width of its own
        axes.set_xlim(low - room, high + room)
    axes.set_yticks(rows, [short(method, 24) for method in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("mean and standard deviation over the seeds", fontsize=9.5, color=INK)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=len(scores), frameon=False, fontsize=9, labelcolor=INK
    )


def _draw_costs(axes: Axes, costs: Mapping[str, tuple[float, Any]], score: str) -> np.ndarray:
    """Draw the points; returns their places (n, 2), those without a score left out (they come last)."""
    chart_axes(axes)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.set_xscale("log")
    color = palette(1)[0]
    places = []
    for seconds, values in costs.values():
        if not len(_known(values)):
            continue
        # A tenth of a millisecond stands in for nothing, which has no logarithm.
        places.append((max(seconds, 1e-4), _mean(values)))
        axes.errorbar(
            *places[-1],
            yerr=_deviation(values),
            fmt="o",
            color=color,
            markersize=6,
            elinewidth=1.6,
            capsize=2.5,
        )
    axes.margins(y=0.12)
    if places:
        times = [seconds for seconds, _ in places]
        room = max(1.25, (max(times) / min(times)) ** 0.15)
        axes.set_xlim(min(times) / room, max(times) * room)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("time of a run in seconds", fontsize=9.5, color=INK)
    axes.set_ylabel(score, fontsize=9.5, color=INK)
    return np.array(places)


def _label_points(axes: Axes, points: np.ndarray, names: Sequence[str]) -> None:
    """Names beside their points, moved up or down until none covers another, with a thin line where one was moved."""
    size = 8.0
    box = axes.get_window_extent()
    assert axes.figure is not None
    width, height = box.width / axes.figure.dpi, box.height / axes.figure.dpi  # in inches
    line = size * 1.3 / (72 * height)  # of text, as a share of the axes
    at = (axes.transData + axes.transAxes.inverted()).transform(points)
    taken: list[tuple[float, float, float]] = []  # left end, right end, middle
    for x, y in at:  # a name keeps clear of the marks as well
        taken.append((x - 0.07 / width, x + 0.07 / width, y))
    for i in np.argsort(-at[:, 1], kind="stable"):
        x, y = at[i]
        long = 0.58 * size * len(names[i]) / (72 * width)
        gap = 0.09 / width
        to_left = x + gap + long > 1.0
        left, right = (x - gap - long, x - gap) if to_left else (x + gap, x + gap + long)
        others = [middle for a, b, middle in taken if a < right and left < b]
        steps = (y + sign * step * line / 4 for step in range(12 * len(names)) for sign in (1, -1))
        free = (s for s in steps if 0 <= s <= 1 and all(abs(s - other) >= line for other in others))
        middle = next(free, y)
        taken.append((left, right, middle))
        line_to_it = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
        label = axes.annotate(
            names[i],
            (x, y),
            xycoords="axes fraction",
            xytext=(right if to_left else left, middle),
            textcoords="axes fraction",
            ha="right" if to_left else "left",
            va="center",
            fontsize=size,
            color=INK,
            arrowprops=line_to_it if abs(middle - y) > line / 2 else None,
        )
        label.set_in_layout(False)
