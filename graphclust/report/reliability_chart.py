"""A chart of how far probabilities can be believed."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy.stats import binomtest

from graphclust.metrics import calibration_error, reliability
from graphclust.report._style import FAINT, INK, chart_axes, new_figure, palette


def reliability_curve(
    y_true: Any, probabilities: Any, *, n_bins: int = 15, title: str | None = None
) -> Figure:
    """Accuracy over confidence, with the diagonal on which both agree; below, how many samples each bin has.

    Above the diagonal probabilities are too modest, under it too sure. A thin line is the 95 % interval of a bin
    (Wilson). The expected calibration error, the mean distance from the diagonal, stands in the legend.

    Parameters
    ----------
    y_true : array-like of shape (N,)
        Classes.
    probabilities : array-like of shape (N, K)
        `probabilities_`, or what `predict_proba` returns.
    n_bins : int
        See :func:`graphclust.metrics.reliability`.
    title : str, optional

    Returns
    -------
    Figure
    """
    curve = reliability(y_true, probabilities, n_bins)
    error = calibration_error(y_true, probabilities, n_bins)
    figure = new_figure(4.6, 4.8, title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    color = palette(1)[0]
    for axes in (above, below):
        chart_axes(axes)
    above.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--", label="confidence = accuracy")
    above.plot(
        curve["confidence"],
        curve["accuracy"],
        color=color,
        linewidth=2,
        marker="o",
        markersize=5,
        label=f"expected calibration error {error:.1%}",
    )
    # A bin of few samples tells little: its 95 % interval says so.
    counts = np.rint(curve["share"] * len(np.asarray(y_true))).astype(int)
    for at, accuracy, count in zip(curve["confidence"], curve["accuracy"], counts, strict=True):
        if count:
            interval = binomtest(round(accuracy * count), int(count)).proportion_ci(method="wilson")
            above.plot([at, at], [interval.low, interval.high], color=color, linewidth=1, alpha=0.5)
    above.set(xlim=(0, 1.02), ylim=(0, 1.02))
    above.set_ylabel("accuracy", color=INK)
    above.legend(frameon=False, fontsize=9, labelcolor=INK, loc="best")
    below.bar(curve["confidence"], curve["share"], width=0.8 / n_bins, color=color)
    below.set_ylabel("samples", color=INK)
    below.set_xlabel("confidence: probability of the most probable cluster", color=INK)
    for axis in (above.xaxis, above.yaxis, below.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    figure.align_ylabels()
    return figure
