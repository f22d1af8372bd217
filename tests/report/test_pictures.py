"""Pictures hold what they should, legibly, and leave pyplot alone."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from torch_geometric.data import Data

from graphclust import metrics, report
from graphclust.report import _style


@pytest.fixture(scope="module")
def clustered() -> dict[str, np.ndarray]:
    """Digits by k-means: features, images, classes, clusters and soft assignments."""
    x, y = load_digits(return_X_y=True)
    x = x / 16
    model = KMeans(10, n_init=1, random_state=0).fit(x)
    distance = model.transform(x)
    probabilities = np.exp(-2 * distance)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return {"x": x, "images": x.reshape(-1, 8, 8), "y": y, "labels": model.labels_, "p": probabilities}


def _draw(figure: Figure, tmp_path: Path) -> Figure:
    """Writes it, as a user would, and checks that pyplot knows nothing of it."""
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 500
    assert plt.get_fignums() == []
    return figure


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def _overlaps(boxes: list) -> int:
    return sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("n_clusters", [10, 40])
def test_map_names_every_cluster_and_no_label_covers_another(
    clustered, tmp_path: Path, n_clusters: int
) -> None:
    labels = np.arange(1797) % n_clusters if n_clusters == 40 else clustered["labels"]
    figure = _draw(report.embedding_map(clustered["x"], labels, title="Digits"), tmp_path)
    axes = figure.axes[0]
    assert sorted(map(int, _texts(figure))) == list(range(n_clusters))
    boxes = [text.get_bbox_patch().get_window_extent() for text in axes.texts]
    assert _overlaps(boxes) == 0
    assert len(axes.collections[0].get_offsets()) == 1797


def test_map_draws_two_dimensions_as_they_are_and_noise_in_grey(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(100, 2))
    labels = np.repeat([-1, 0, 1], [20, 40, 40])
    figure = _draw(report.embedding_map(torch.from_numpy(embedding), labels), tmp_path)
    points = figure.axes[0].collections[0]
    drawn = np.asarray(points.get_offsets())
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(embedding, axis=0))
    colors = points.get_facecolors()[:, :3]
    # Noise lies below everything else, and in a colour that no cluster has.
    assert len(np.unique(colors[:20], axis=0)) == 1 and not (colors[20:] == colors[0]).all(axis=1).any()
    assert sorted(_texts(figure)) == ["0", "1"]


def test_map_by_graph(clustered) -> None:
    ring = torch.stack([torch.arange(200), (torch.arange(200) + 1) % 200])
    graph = Data(edge_index=ring, num_nodes=200)
    labels = np.repeat([0, 1], 100)
    by_graph = (
        report.embedding_map(clustered["x"][:200], labels, graph=graph).axes[0].collections[0].get_offsets()
    )
    layout = report.graph_layout(graph)
    np.testing.assert_allclose(np.sort(by_graph, axis=0), np.sort(layout, axis=0), rtol=1e-5)
    assert len(report.embedding_map(None, labels, graph=graph).axes[0].collections[0].get_offsets()) == 200
    by_pca = (
        report.embedding_map(clustered["x"][:200], labels, graph=graph, layout="pca").axes[0].collections[0]
    )
    assert not np.allclose(np.sort(by_pca.get_offsets(), axis=0), np.sort(layout, axis=0))


def test_thumbnails_cover_neither_each_other_nor_the_labels(clustered, tmp_path: Path) -> None:
    figure = report.embedding_map(clustered["x"], clustered["labels"], images=clustered["images"])
    axes = _draw(figure, tmp_path).axes[0]
    thumbnails = [artist for artist in axes.artists if isinstance(artist, AnnotationBbox)]
    assert len(thumbnails) > 30
    boxes = [artist.get_window_extent() for artist in thumbnails]
    boxes += [text.get_bbox_patch().get_window_extent() for text in axes.texts]
    assert _overlaps(boxes) == 0


def test_samples_are_the_most_certain_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    certainty = rng.permutation(60) / 60
    labels = np.repeat(["left", "right"], 30)
    # Each image is as grey as its sample is certain, on a white border so that it is not inverted.
    images = np.ones((60, 36, 36))
    images[:, 1:-1, 1:-1] = certainty[:, None, None]
    figure = _draw(report.cluster_samples(images, labels, certainty, n_per_cluster=5), tmp_path)
    sheet = np.asarray(figure.axes[0].images[0].get_array())
    height = width = 36
    gap = (sheet.shape[0] - 2 * height) // 1
    for row, name in enumerate(["left", "right"]):
        shown = [
            sheet[row * (height + gap) + height // 2, col * (width + gap) + width // 2, 0] for col in range(5)
        ]
        np.testing.assert_allclose(shown, np.sort(certainty[labels == name])[::-1][:5])
    assert {"left", "right", "30"} <= set(_texts(figure))
    table = np.column_stack([certainty, 1 - certainty])
    by_table = report.cluster_samples(images, labels, np.where(table > 0.5, table, 0), n_per_cluster=5)
    assert by_table.axes[0].images[0].get_array().shape == sheet.shape


def test_samples_of_many_clusters_show_the_largest(clustered) -> None:
    labels = np.arange(1797) % 50
    labels[labels > 40] = 7
    figure = report.cluster_samples(clustered["images"], labels, max_clusters=3)
    assert figure.axes[0].get_title(loc="left") == "the 3 largest of 41 clusters"
    sizes = np.bincount(labels)
    assert {"7", f"{sizes[7]}"} <= set(_texts(figure))


@pytest.mark.parametrize(
    "convert",
    [
        lambda images: images,
        lambda images: torch.from_numpy(images).float(),
        lambda images: images.reshape(len(images), -1),
        lambda images: images[:, None],
        lambda images: (images * 255).round().astype(np.uint8),
        lambda images: images[..., None],
    ],
)
def test_all_forms_of_images_give_the_same_cells(clustered, convert) -> None:
    images = clustered["images"][:20]
    tiles = _style.cells(convert(images), [3, 5])
    assert tiles.shape == (2, 32, 32, 3)
    ink = np.repeat(np.repeat(1 - images[[3, 5]], 4, axis=1), 4, axis=2)
    np.testing.assert_allclose(tiles, np.repeat(ink[..., None], 3, axis=-1), atol=0.003)


def test_small_whole_numbers_are_no_bytes(digits) -> None:
    """The 17 levels of a digit, as scikit-learn has them, are as dark as the same between 0 and 1."""
    images = digits[0][:20].reshape(-1, 8, 8)
    np.testing.assert_allclose(
        _style.cells(16 * images / images.max(), [3, 5]), _style.cells(images / images.max(), [3, 5])
    )


def test_names_that_begin_alike_stay_different() -> None:
    names = {_style.short(f"class with a rather long name {i}") for i in range(10)}
    assert len(names) == 10 and max(map(len, names)) <= 14


def test_color_and_files_and_mixed_sizes(tmp_path: Path) -> None:
    from PIL import Image

    red = np.zeros((4, 40, 40, 3), dtype=np.uint8)
    red[..., 0] = 255
    np.testing.assert_allclose(_style.cells(red, [0])[0, 0, 0], [1, 0, 0])
    np.testing.assert_allclose(
        _style.cells(torch.from_numpy(red).permute(0, 3, 1, 2), [0])[0, 0, 0], [1, 0, 0]
    )
    paths = []
    for number, size in enumerate([(30, 80), (100, 20)]):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", size, (0, 0, 255)).save(paths[-1])
    tiles = _style.cells(paths, [0, 1])
    assert tiles.shape == (2, 64, 64, 3)
    np.testing.assert_allclose(tiles[:, 32, 32], [[0, 0, 1], [0, 0, 1]])
    mixed = _style.cells([np.ones((9, 5)), np.ones((3, 30))], [0, 1])
    assert mixed.shape == (2, 64, 64, 3)


def test_overview_prints_the_scores(clustered, tmp_path: Path) -> None:
    figure = report.overview(
        clustered["x"],
        clustered["labels"],
        clustered["images"],
        clustered["p"],
        y_true=clustered["y"],
        title="Digits",
    )
    _draw(figure, tmp_path)
    scores = metrics.evaluate(clustered["y"], clustered["labels"])
    line = figure.axes[0].get_title(loc="left")
    assert "1,797 samples, 10 clusters" in line
    for key in ("ACC", "NMI", "ARI"):
        assert f"{key} {100 * scores[key]:.1f}" in line


def test_image_grid(clustered, tmp_path: Path) -> None:
    images = clustered["images"][:23]
    rows = _draw(report.image_grid(images, 10, ["epoch 1", "epoch 40", "epoch 100"]), tmp_path)
    assert [axes.get_ylabel() for axes in rows.axes][::10] == ["epoch 1", "epoch 40", "epoch 100"]
    assert sum(axes.get_visible() for axes in rows.axes) == 23
    above = _draw(report.image_grid(images, 10, [str(i) for i in range(23)]), tmp_path)
    assert [axes.get_title() for axes in above.axes][:23] == [str(i) for i in range(23)]
    _draw(report.image_grid(images[:2]), tmp_path)


def test_palette() -> None:
    for n_colors in (1, 10, 11, 60):
        colors = _style.palette(n_colors)
        assert len({tuple(color) if not isinstance(color, str) else color for color in colors}) == n_colors
    many = np.array(_style.palette(99))
    assert many.min() >= 0 and many.max() <= 1


def test_spread_separates_boxes_and_leaves_others_alone() -> None:
    rng = np.random.default_rng(0)
    centres = np.concatenate([rng.normal(size=(15, 2)) * 20, np.zeros((3, 2)), [[500.0, 500.0]]])
    sizes = np.tile([30.0, 12.0], (len(centres), 1))
    moved = _style.spread(centres, sizes)
    gap = np.abs(moved[:, None] - moved[None])
    apart = (gap[..., 0] >= 29.9) | (gap[..., 1] >= 11.9)
    assert (apart | np.eye(len(moved), dtype=bool)).all()
    np.testing.assert_allclose(moved[-1], [500, 500], atol=1e-3)


def test_labels_with_dollar_signs_are_no_formulas(tmp_path: Path) -> None:
    labels = np.repeat(["$_{", "a$b$"], 20)
    _draw(report.embedding_map(np.random.default_rng(0).normal(size=(40, 2)), labels), tmp_path)


X = np.zeros((6, 3))
L = [0, 0, 0, 1, 1, 1]
GRAPH = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: report.embedding_map(X, L[:4]), "6 rows and labels has 4"),
        (lambda: report.embedding_map(X[:, 0], L), "must be"),
        (lambda: report.embedding_map(X * np.nan, L), "diverge"),
        (lambda: report.embedding_map(X, L, layout="graph"), "needs the sample graph"),
        (lambda: report.embedding_map(X, L, layout="tsne"), "'tsne'"),
        (lambda: report.embedding_map(X, L, graph=GRAPH), "5 nodes and labels has 6"),
        (lambda: report.embedding_map(None, L), "nothing to draw"),
        (lambda: report.cluster_samples(np.zeros((5, 4, 4)), L), "5 images and 6 labels"),
        (lambda: report.cluster_samples(np.zeros((6, 5)), L), "no square image"),
        (lambda: report.cluster_samples(np.zeros((6, 4, 4)), L, np.zeros((5, 2))), "5 rows and labels has 6"),
        (lambda: report.cluster_samples(np.zeros((6, 4, 4)), L, n_per_cluster=0), "n_per_cluster is 0"),
        (lambda: report.image_grid([]), "empty"),
        (lambda: report.image_grid(np.zeros((5, 4, 4)), 0), "n_columns is 0"),
        (lambda: report.image_grid(np.zeros((5, 4, 4)), 2, ["a"]), "one per row"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
