"""Each data set as it is on disk, and what is said when it is not."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import sklearn.datasets
import torch
from sklearn.datasets import load_digits

from graphclust import datasets
from graphclust._catalogue import CITATION_PARTS, CITATIONS, IMAGE_FILES, LEAVES_SHA256

README = Path(__file__).parents[1] / "data" / "README.md"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, no data folder, and every download refused; the cache's folder."""
    import torch_geometric.datasets

    def refuse(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.delenv("GRAPHCLUST_DATA", raising=False)
    monkeypatch.setenv("GRAPHCLUST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", refuse)
    monkeypatch.setattr(torch_geometric.datasets, "Planetoid", refuse)
    return tmp_path / "cache"


def test_names() -> None:
    assert datasets.names() == [
        "digits",
        "usps",
        "mnist_test",
        "fashion_mnist",
        "fashion_mnist_test",
        "mnist",
        "leaves",
        "cora",
        "citeseer",
    ]
    with pytest.raises(ValueError, match=r"no data set 'iris'.*digits, usps.*citeseer"):
        datasets.load("iris")


def test_every_data_set_and_checksum_is_documented() -> None:
    text = README.read_text(encoding="utf-8")
    for name in datasets.names():
        assert f"| `{name}` |" in text
    sums = [spec.images_sha256 for spec in IMAGE_FILES.values() if spec.file]
    sums += [spec.labels_sha256 for spec in IMAGE_FILES.values() if spec.file]
    sums += [sha256 for _, _, sha256 in CITATIONS.values()] + [LEAVES_SHA256]
    for sha256 in sums:
        assert len(sha256) == 64 and sha256 in text


def test_digits(no_network: Path) -> None:
    data = datasets.load("digits")
    assert data.x.dtype == np.float32 and data.y.dtype == np.int64
    np.testing.assert_array_equal(data.x, (load_digits().data / 16).astype(np.float32))
    np.testing.assert_array_equal(data.y, load_digits().target)
    assert data.images.shape == (1797, 8, 8) and np.shares_memory(data.images, data.x)
    assert len(data) == 1797
    assert "1797 samples, 64 features, images 8x8, 10 classes" in repr(data)
    with pytest.raises(ValueError, match="comes without a graph"):
        data.graph_data()


@pytest.mark.parametrize(
    ("name", "shape", "smallest", "largest"),
    [
        ("usps", (9298, 16, 16), 708, 1553),
        ("MNIST-test", (10000, 28, 28), 892, 1135),
        ("fashion_mnist", (70000, 28, 28), 7000, 7000),
        ("fashion_mnist_test", (10000, 28, 28), 1000, 1000),
    ],
)
def test_image_files(data_folder: Path, name: str, shape, smallest: int, largest: int) -> None:
    data = datasets.load(name, data_folder)
    assert data.images.shape == shape and data.x.shape == (shape[0], shape[1] * shape[2])
    assert data.x.dtype == np.float32 and data.x.min() == 0 and data.x.max() == 1
    assert len(data.class_names) == 10
    counts = np.bincount(data.y)
    assert (counts.min(), counts.max()) == (smallest, largest)


def test_the_environment_variable_names_the_folder(
    data_folder: Path, no_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHCLUST_DATA", str(data_folder))
    assert datasets.load("mnist_test").source == str(data_folder / "mnist_test.npz")


def test_leaves(data_folder: Path) -> None:
    from PIL import Image

    data = datasets.load("leaves", data_folder)
    assert len(data) == len(data.paths) == 990
    assert data.x is None and len(data.class_names) == 99
    np.testing.assert_array_equal(np.bincount(data.y), np.full(99, 10))
    for i in (0, 500, 989):
        assert data.paths[i].parent.name == data.class_names[data.y[i]]
        with Image.open(data.paths[i]) as image:
            assert min(image.size) > 10


@pytest.mark.parametrize(
    ("name", "n_nodes", "n_features", "n_edges", "class_sizes"),
    [
        ("cora", 2708, 1433, 10556, [351, 217, 418, 818, 426, 298, 180]),
        ("citeseer", 3327, 3703, 9104, [264, 590, 668, 701, 596, 508]),
    ],
)
def test_citation_graphs(
    data_folder: Path, no_network: Path, name: str, n_nodes: int, n_features: int, n_edges: int, class_sizes
) -> None:
    data = datasets.load(name, data_folder)
    assert data.x.shape == (n_nodes, n_features) and data.x.dtype == np.float32
    assert data.edge_index.shape == (2, n_edges) and data.edge_index.dtype == np.int64
    assert np.bincount(data.y).tolist() == class_sizes and len(data.class_names) == len(class_sizes)
    graph = data.graph_data()
    assert graph.is_undirected() and not graph.has_self_loops() and graph.num_nodes == n_nodes
    assert torch.equal(graph.y, torch.from_numpy(data.y))
    assert not no_network.exists()  # local files are read where they lie


def test_citation_graphs_are_read_from_the_cache(data_folder: Path, no_network: Path) -> None:
    raw = no_network / "Cora" / "raw"
    raw.mkdir(parents=True)
    for path in (data_folder / "planetoid").glob("ind.cora.*"):
        shutil.copy(path, raw)
    assert datasets.load("cora").source == str(raw)


@pytest.mark.parametrize("name", ["usps", "mnist_test", "fashion_mnist_test", "leaves", "cora", "citeseer"])
def test_missing_files_say_what_was_tried(no_network: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load(name, folder)
    message = str(caught.value)
    assert "GRAPHCLUST_DATA" in message and str(folder) in message
    assert ("no route to host" in message) == (name != "leaves")
    with pytest.raises(FileNotFoundError, match="GRAPHCLUST_DATA"):
        datasets.load(name)


def test_a_folder_that_does_not_exist(no_network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"root names the folder .*nowhere"):
        datasets.load("usps", "/nowhere")
    monkeypatch.setenv("GRAPHCLUST_DATA", "/nowhere")
    with pytest.raises(FileNotFoundError, match=r"variable GRAPHCLUST_DATA names the folder .*nowhere"):
        datasets.load("usps")


def _usps_like(path: Path, n: int = 20) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(2001, size=(n, 16, 16)).astype(np.uint16)
    np.savez_compressed(path, images=images, labels=np.arange(n, dtype=np.uint8) % 10)


def test_wrong_checksum(tmp_path: Path) -> None:
    _usps_like(tmp_path / "usps.npz")
    with pytest.raises(ValueError, match=r"usps.npz has the sha256 .*verify=False"):
        datasets.load("usps", tmp_path)
    data = datasets.load("usps", tmp_path, verify=False)
    assert len(data) == 20 and data.x.max() <= 1


def test_wrong_checksum_of_pickles_stops_before_they_are_opened(tmp_path: Path) -> None:
    (tmp_path / "planetoid").mkdir()
    for part in CITATION_PARTS:
        (tmp_path / "planetoid" / f"ind.cora.{part}").write_bytes(b"not a pickle")
    with pytest.raises(ValueError, match="has the sha256"):
        datasets.load("cora", tmp_path)


@pytest.mark.parametrize("kept", [0, 10, 1000, -10])
def test_truncated_file(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "usps.npz"
    _usps_like(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"usps.npz cannot be read .*fetch it again"):
        datasets.load("usps", tmp_path)


def test_wrong_layout(tmp_path: Path) -> None:
    np.savez(tmp_path / "usps.npz", pixels=np.zeros(3))
    with pytest.raises(ValueError, match=r"holds the arrays \['pixels'\]"):
        datasets.load("usps", tmp_path)
    np.savez(tmp_path / "usps.npz", images=np.zeros((4, 8, 8), np.uint16), labels=np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match=r"shape \(4, 8, 8\)"):
        datasets.load("usps", tmp_path, verify=False)


def test_openml_usps_is_rescaled_and_kept(no_network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenML has pixels in [-1, 1] and classes "1" to "10"; what comes out is like the local file."""
    thousandths = np.random.default_rng(0).integers(2001, size=(50, 256))
    thousandths[0, :2] = 0, 2000
    calls = []

    def fetch_openml(**kwargs: object) -> SimpleNamespace:
        calls.append(kwargs["data_id"])
        target = np.array([str(1 + i % 10) for i in range(50)], dtype=object)
        return SimpleNamespace(data=thousandths / 1000 - 1, target=target)

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch_openml)
    for _ in range(2):  # the second time from the cache
        data = datasets.load("usps")
        np.testing.assert_array_equal(data.x, (thousandths / np.float32(2000)).astype(np.float32))
        np.testing.assert_array_equal(data.y, np.arange(50) % 10)
    assert calls == [41082]
    assert "openml.org/d/41082" in repr(data)
