"""Charts show the numbers that they are given."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix

from graphclust import metrics, report
from graphclust.report.charts import _tree_colors


def _draw(figure: Figure, tmp_path: Path) -> Figure:
    figure.savefig(tmp_path / "chart.png")
    assert plt.get_fignums() == []
    return figure


@pytest.mark.parametrize("n_clusters", [3, 4, 6])
def test_confusion_puts_matched_pairs_on_the_diagonal(tmp_path: Path, n_clusters: int) -> None:
    rng = np.random.default_rng(0)
    y_true = rng.integers(4, size=300)
    y_pred = np.where(rng.random(300) < 0.7, (y_true + 2) % n_clusters, rng.integers(n_clusters, size=300))
    figure = _draw(report.confusion(y_true, y_pred, class_names=["a", "b", "c", "d"], title="C"), tmp_path)
    axes = figure.axes[0]
    shares = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    order = [int(tick.get_text()) for tick in axes.get_xticklabels()]
    full = confusion_matrix(y_true, y_pred)[:4]
    np.testing.assert_allclose(shares, full[:, order] / full.sum(axis=1, keepdims=True))
    mapping = metrics.match_labels(y_true, y_pred)
    matched = [cluster for cluster in order if cluster in mapping]
    assert order[: len(matched)] == matched and [mapping[c] for c in matched] == sorted(mapping.values())
    drawn = sum(int(text.get_text()) for text in axes.texts)
    assert drawn == 300
    assert axes.get_title(loc="left") == f"ACC {100 * metrics.clustering_accuracy(y_true, y_pred):.1f}"


def test_confusion_of_many_classes(tmp_path: Path) -> None:
    y = np.arange(400) % 80
    figure = _draw(report.confusion(y, y), tmp_path)
    assert not figure.axes[0].texts
    with pytest.raises(ValueError, match="400 classes"):
        report.confusion(np.arange(400), np.arange(400))
    with pytest.raises(ValueError, match="class_names has 1"):
        report.confusion(y, y, class_names=["a"])


def test_training_curves_of_records(tmp_path: Path) -> None:
    history: list[dict] = [
        {"stage": "pretraining", "epoch": e, "reconstruction": 10.0 / e} for e in range(1, 6)
    ]
    history += [
        {"stage": "clustering", "epoch": e, "reconstruction": 2.0, "kl": 0.01 / e, "seconds": 1.0}
        for e in range(1, 4)
    ]
    figure = _draw(report.training_curves(history, title="Run"), tmp_path)
    first, second = figure.axes
    assert [first.get_title(loc="left"), second.get_title(loc="left")] == ["pretraining", "clustering"]
    (line,) = first.lines
    np.testing.assert_allclose(line.get_xydata(), [[e, 10 / e] for e in range(1, 6)])
    assert [line.get_label() for line in second.lines] == ["reconstruction", "kl"]
    assert first.get_yscale() == "linear" and second.get_yscale() == "log"
    only = report.training_curves(history, terms=["kl"])
    assert [len(axes.lines) for axes in only.axes] == [0, 1]


def test_training_curves_of_columns(tmp_path: Path) -> None:
    figure = _draw(report.training_curves({"loss": [-3.0, -4.0, -5.0], "kl": [1.0, 0.5]}), tmp_path)
    (axes,) = figure.axes
    loss, kl = axes.lines
    np.testing.assert_allclose(loss.get_xydata(), [[1, -3], [2, -4], [3, -5]])
    np.testing.assert_allclose(kl.get_xydata(), [[1, 1], [2, 0.5]])
    staged = report.training_curves({"stage": ["a", "a", "b"], "epoch": [0, 1, 0], "loss": [3, 2, 1]})
    assert [len(axes.lines[0].get_xdata()) for axes in staged.axes] == [2, 1]


def test_sweep_curve(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=(4, 5))
    figure = _draw(
        report.sweep_curve([10, 1, 3, 5], {"ACC": scores, "NMI": scores[:, 0]}, "n_neighbors"), tmp_path
    )
    (axes,) = figure.axes
    order = [1, 2, 3, 0]
    np.testing.assert_allclose(
        axes.lines[0].get_xydata(), np.column_stack([[1, 3, 5, 10], scores.mean(axis=1)[order]])
    )
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].max() == pytest.approx((scores.mean(axis=1) + scores.std(axis=1, ddof=1)).max())
    assert axes.get_xlabel() == "n_neighbors"
    named = report.sweep_curve(["gcn", "gat"], {"ACC": [1.0, 2.0]}, "conv")
    assert [tick.get_text() for tick in named.axes[0].get_xticklabels()] == ["gcn", "gat"]


def test_dendrogram_colors_each_cluster(tmp_path: Path) -> None:
    x = load_digits().data[:40]
    tree = linkage(x, "ward")
    figure = _draw(report.dendrogram(tree, n_clusters=5, labels=list(range(40)), title="Ward"), tmp_path)
    axes = figure.axes[0]
    assert sorted(int(tick.get_text()) for tick in axes.get_xticklabels()) == list(range(40))
    cut = axes.lines[0].get_ydata()[0]
    clusters = fcluster(tree, cut, "distance")
    assert clusters.max() == 5
    # Every merge below the cut has the colour of its cluster, and those above it one of their own.
    below = tree[:, 2] <= cut
    colors = _tree_colors(tree, below)
    with_merges = (np.bincount(clusters)[1:] > 1).sum()
    assert len({color for color, low in zip(colors, below, strict=True) if low}) == with_merges
    assert len({color for color, low in zip(colors, below, strict=True) if not low}) == 1
    by_distance = report.dendrogram(tree, distance=cut)
    assert len(by_distance.axes[0].collections[0].get_paths()) == 39


def test_dendrogram_of_a_large_tree_is_cut_down(tmp_path: Path) -> None:
    tree = linkage(load_digits().data, "average")
    figure = _draw(report.dendrogram(tree, n_clusters=10, max_leaves=30), tmp_path)
    names = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert len(names) == 30
    # A bare name is a single sample, a name in brackets that many.
    assert sum(int(name[1:-1]) if name.startswith("(") else 1 for name in names) == 1797


TREE = linkage(np.arange(4.0)[:, None])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: report.training_curves([]), ValueError, "no losses.*nothing to train"),
        (lambda: report.training_curves([1.0]), TypeError, "list of dicts"),
        (lambda: report.training_curves({"loss": [1.0]}, terms=["kl"]), ValueError, "no 'kl'"),
        (lambda: report.sweep_curve([], {}, "k"), ValueError, "nothing to draw"),
        (lambda: report.sweep_curve([1, 2], {"ACC": [1.0]}, "k"), ValueError, r"\(2, n_seeds\)"),
        (lambda: report.dendrogram(np.zeros((3, 2))), ValueError, "4"),
        (lambda: report.dendrogram(TREE, n_clusters=5), ValueError, "1 to 4"),
        (lambda: report.dendrogram(TREE, n_clusters=2, distance=1.0), ValueError, "both given"),
        (lambda: report.dendrogram(TREE, labels=["a"]), ValueError, "1 entries"),
        (lambda: report.dendrogram(TREE, max_leaves=1), ValueError, "max_leaves is 1"),
    ],
)
def test_bad_input(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_reliability_curve_shows_accuracy_over_confidence(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3) * 0.6, 500)
    y = np.array([rng.choice(3, p=row) for row in p])
    figure = _draw(report.reliability_curve(y, p, n_bins=10, title="R"), tmp_path)
    above, below = figure.axes
    curve = metrics.reliability(y, p, 10)
    np.testing.assert_allclose(above.lines[1].get_ydata(), curve["accuracy"])
    np.testing.assert_allclose([bar.get_height() for bar in below.patches], curve["share"])
    assert f"{metrics.calibration_error(y, p, 10):.1%}" in above.get_legend().get_texts()[1].get_text()
