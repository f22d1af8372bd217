"""Arrays of images as input: the same as their rows for every method, remembered, checked, saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from torch_geometric.data import Data

import graphclust
from graphclust import DEC, SDCN, VGDCN, ConsensusClustering, KMeans, SampleGraph
from graphclust.methods.image_arrays import choose_image_shape

pytestmark = pytest.mark.filterwarnings("ignore:.*clusters were asked for")
TINY: dict[str, Any] = {"hidden_channels": [16], "latent_dim": 4, "pretrain_epochs": 2, "random_state": 0}
MODELS = [
    KMeans(3, random_state=0),
    DEC(3, **TINY, epochs=2),
    SDCN(3, **TINY, epochs=2, branch_epochs=2),
    VGDCN(3, **TINY, epochs=2, branch_epochs=2),
]


@pytest.fixture(scope="module")
def images(digits: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return digits[0][:120].reshape(-1, 8, 8)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_images_are_their_rows(model: Any, images: np.ndarray, tmp_path: Path) -> None:
    rows = images.reshape(len(images), -1)
    labels = model.fit(rows).labels_
    assert model.image_shape_ is None
    predicted = model.predict(rows[:20])
    model.fit(images)
    np.testing.assert_array_equal(model.labels_, labels)
    assert model.image_shape_ == (8, 8, 1) and model.n_features_in_ == 64
    read = graphclust.load(model.save(tmp_path / "model"))
    assert read.image_shape_ == (8, 8, 1)
    for given in (images[:20], images[:20, :, :, None], rows[:20], torch.from_numpy(images[:20].copy())):
        np.testing.assert_array_equal(model.predict(given), predicted)
        np.testing.assert_array_equal(read.predict(given), predicted)
    np.testing.assert_allclose(model.transform(images[:9]), model.transform(rows[:9]), atol=1e-6)
    for wrong, message in [
        (images[:5, :7], "height 7, width 8"),
        (images[:5].reshape(-1, 4, 16), "height 4, width 16"),
        (images[:5].reshape(-1, 4, 4, 4), r"4 channel\(s\)"),
        (images[:5].reshape(5, 4, 4, 2, 2), r"shape \[5, 4, 4, 2, 2\]"),
        (rows[:5, :60], "60"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.predict(wrong)


def test_channels_may_come_first(images: np.ndarray) -> None:
    random = np.random.default_rng(0)
    colour = np.stack([images * weight for weight in random.random(3)], axis=3)
    last = KMeans(3, random_state=0).fit(colour)
    first = KMeans(3, random_state=0).fit(torch.from_numpy(colour).permute(0, 3, 1, 2))
    assert first.image_shape_ == last.image_shape_ == (8, 8, 3)
    np.testing.assert_array_equal(first.labels_, last.labels_)
    np.testing.assert_array_equal(first.predict(colour.transpose(0, 3, 1, 2)), last.labels_)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_scikit_learn_is_told(model: Any) -> None:
    assert model.__sklearn_tags__().input_tags.three_d_array
    assert model.__sklearn_tags__().input_tags.two_d_array


def test_colour_uint8_memory_map_and_list(images: np.ndarray, tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (40, 5, 4, 3), dtype=np.uint8)
    model = KMeans(3, random_state=0).fit(colour)
    assert model.image_shape_ == (5, 4, 3)
    labels = KMeans(3, random_state=0).fit(colour.reshape(40, -1)).labels_
    np.testing.assert_array_equal(model.labels_, labels)
    np.save(tmp_path / "images.npy", colour)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(KMeans(3, random_state=0).fit(mapped).labels_, labels)
    listed = KMeans(3, random_state=0).fit([image.tolist() for image in colour])
    np.testing.assert_array_equal(listed.labels_, labels)
    assert listed.image_shape_ == (5, 4, 3)


def test_what_an_earlier_fit_saw_is_forgotten(images: np.ndarray) -> None:
    rows = images.reshape(len(images), -1)
    model = DEC(3, **TINY, epochs=1).fit(images)
    model.fit(rows)
    assert model.image_shape_ is None
    with pytest.raises(ValueError, match="fitted to rows of 64 features"):
        model.predict(images[:3])
    model.fit(images)
    graph = SampleGraph.from_features(rows, n_neighbors=3)
    model.fit(Data(x=graph.x, edge_index=graph.edge_index))
    assert model.image_shape_ is None


@pytest.mark.parametrize(
    "model", [KMeans(3, random_state=0), DEC(3, **TINY, epochs=1)], ids=["KMeans", "DEC"]
)
def test_images_of_bytes_and_of_shares(model: Any, tmp_path: Path) -> None:
    """Files are read in [0, 1], and arrays of their pixels are bytes: the same images have the same labels."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 5, 4, 3), dtype=np.uint8)
    model = clone(model).fit(pixels / np.float32(255))
    model = graphclust.load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(model.predict(pixels), model.labels_)
    np.testing.assert_array_equal(model.predict([Image.fromarray(one) for one in pixels]), model.labels_)
    assert model.predict(Image.fromarray(pixels[0])) == model.labels_[:1]
    with pytest.raises(ValueError, match=r"values up to 25\d, but .* from 0 to 1.* \(X / 255\)"):
        model.predict(pixels.astype(np.float32))
    with pytest.raises(
        ValueError, match=r"shape of one image, \[5, 4, 3\]: pass a stack of images, X\[None\]"
    ):
        model.predict(pixels[0])
    with pytest.raises(ValueError, match=r"values up to 1, but .* from 0 to 255.*\(X \* 255\)"):
        model.fit(pixels).predict(pixels / 255)
    assert model.predict(np.zeros((2, 5, 4, 3), np.float32)).shape == (2,)  # black is black


def test_bad_arrays(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"shape \[2, 2, 2, 2, 2\]"):
        KMeans(2).fit(np.zeros((2, 2, 2, 2, 2)))
    with pytest.raises(ValueError, match=r"shape \[5, 0, 4\]"):
        KMeans(2).fit(np.zeros((5, 0, 4)))
    with pytest.raises(ValueError):
        KMeans(2).fit([[[1.0, 2.0]], [[1.0]]])
    spoiled = images.copy()
    spoiled[7, 3, 3] = np.nan
    with pytest.raises(ValueError, match="the first is row 7"):
        KMeans(2).fit(spoiled)


@pytest.mark.parametrize(
    ("image_shape", "n_features", "read", "wanted"),
    [
        ("auto", 64, None, (8, 8, 1)),
        ("auto", 16, None, (4, 4, 1)),
        ("auto", 9, None, None),
        ("auto", 63, None, None),
        ("auto", 64, (4, 16, 1), (4, 16, 1)),
        ("auto", 1, (1, 1, 1), (1, 1, 1)),
        (None, 64, (8, 8, 1), None),
        ((8, 8), 64, None, (8, 8, 1)),
        ([1, 64], 64, None, (1, 64, 1)),
        ((2, 2, 3), 12, (2, 2, 3), (2, 2, 3)),
    ],
)
def test_what_is_an_image(image_shape: Any, n_features: int, read: Any, wanted: Any) -> None:
    assert choose_image_shape(image_shape, n_features, read) == wanted


@pytest.mark.parametrize(
    ("image_shape", "n_features", "read", "message"),
    [
        ((8, 8), 63, None, "64 values, but a sample of X has 63 features"),
        ((4, 16), 64, (8, 8, 1), r"is an image \(H, W, C\) = \(8, 8, 1\)"),
        ("square", 64, None, "'auto'"),
    ],
)
def test_what_cannot_be_an_image(image_shape: Any, n_features: int, read: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_image_shape(image_shape, n_features, read)


@pytest.mark.parametrize("method", [KMeans, ConsensusClustering])
def test_a_path_is_no_features(method: type, tmp_path: Path) -> None:
    """What `graphclust.cluster` reads, a method does not: it says who does."""
    model = method(2)
    for ask in (model.fit, KMeans(2, random_state=0).fit(np.random.default_rng(0).random((20, 3))).predict):
        with pytest.raises(TypeError, match=r"X is the path '.*more'.*read_images"):
            ask(tmp_path / "more")


@pytest.mark.parametrize(
    "data", [None, 3.0, {"a": 1}, nx.path_graph(4)], ids=lambda data: type(data).__name__
)
def test_what_is_no_array_is_named(data: Any) -> None:
    with pytest.raises(TypeError, match=f"X is a {type(data).__name__}: pass features.*from_networkx"):
        KMeans(2).fit(data)


def test_a_column_may_have_any_name() -> None:
    """A column "adj" makes no networkx graph of a table."""
    table = pd.DataFrame({"adj": [0.0, 0.1, 5.0, 5.1], "x": [0.0, 0.0, 1.0, 1.0]})
    assert len(set(KMeans(2, random_state=0).fit(table).labels_)) == 2
