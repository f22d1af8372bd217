"""The page of a clustering: what is in the file, and what a person meets who opens it in a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.cluster.hierarchy import linkage
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from torch_geometric.data import Data

from graphclust import report
from graphclust.graph import SampleGraph
from graphclust.report import write_report
from graphclust.report._measures import measure, nearest

EVIL = [
    "<img src=x onerror=\"document.title='hacked'\">",
    "</script><script>document.title='hacked'</script>",
    "<!--<script>",
    "\"quoted\" 'name' & `tick`",
    "line\u2028separator\u2029 \x00\x1b[31m",
    "\u202egnp.exe\u202c right to left",
    "lone \udcff surrogate",
    "${alert(1)}{{7*7}}{% raw %}",
    "=HYPERLINK(1),a",
    "javascript:document.title='hacked'",
]


@pytest.fixture(scope="module")
def few(digits: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """600 digits, their graph, ten clusters and their probabilities."""
    x = digits[0][:600]
    kmeans = KMeans(10, n_init=1, random_state=0).fit(x)
    closeness = np.exp(-np.square(kmeans.transform(x)))
    return {
        "images": x,
        "graph": SampleGraph.from_features(x, n_neighbors=8),
        "labels": kmeans.labels_,
        "position": x[:, [20, 42]],  # a layout takes longer than all the rest
        "probabilities": closeness / closeness.sum(axis=1, keepdims=True),
    }


def graph_of(edges: list[tuple[int, int, float]], n: int, x: np.ndarray | None = None) -> Data:
    source, target, weight = zip(*edges)
    return Data(
        edge_index=torch.tensor([source, target]),
        edge_weight=torch.tensor(weight),
        num_nodes=n,
        x=None if x is None else torch.from_numpy(x),
    )


def data_of(page: Path) -> dict[str, Any]:
    """The page's data, its arrays decoded."""
    text = page.read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)
    data = json.loads(found)
    data["arrays"] = {
        name: np.frombuffer(base64.b64decode(packed), dtype=f"<{kind}")
        for name, (kind, packed) in data["arrays"].items()
    }
    return data


# -- figures -------------------------------------------------------------------------------------------------


def test_measures_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    n, n_clusters = 60, 4
    labels = rng.integers(n_clusters, size=n)
    pairs = {(int(a), int(b)) for a, b in rng.integers(n, size=(300, 2)) if a != b}
    edges = [(a, b, float(w)) for (a, b), w in zip(sorted(pairs), rng.random(len(pairs)) + 0.1)]
    x = rng.normal(size=(n, 3)).astype(np.float32)
    found = measure(graph_of(edges, n, x), labels, None, torch.from_numpy(x), None, 0)
    inside = np.zeros(n_clusters)
    volume = np.zeros(n_clusters)
    for a, b, w in edges:
        inside[labels[a]] += 2 * w * (labels[a] == labels[b])
        volume[labels[a]] += w
        volume[labels[b]] += w
    np.testing.assert_allclose(found.cohesion, inside / volume, rtol=1e-5)
    assert found.inside == pytest.approx(inside.sum() / volume.sum(), rel=1e-5)
    for i in range(n):
        votes = np.zeros(n_clusters)
        for a, b, w in edges:
            votes[labels[a]] += w * (b == i)
        votes /= max(votes.sum(), 1e-12)
        others = np.where(np.arange(n_clusters) == labels[i], -1, votes)
        assert found.certainty[i] == pytest.approx(votes[labels[i]], rel=1e-5)
        assert found.margin[i] == pytest.approx(votes[labels[i]] - max(others.max(), 0), abs=1e-5)
        assert found.second[i] == (others.argmax() if others.max() > 0 else -1)
    centres = np.stack([x[labels == k].mean(axis=0) for k in range(n_clusters)])
    distance = np.linalg.norm(x - centres[labels], axis=1)
    for k in range(n_clusters):
        members = found.members(k)
        assert set(members) == set(np.flatnonzero(labels == k))
        strange = found.outlying > np.quantile(found.outlying, 0.95)  # these are no examples of their cluster
        keys = [(strange[i], -round(found.certainty[i], 3), distance[i]) for i in members]
        assert keys == sorted(keys)
    assert found.outlying[distance.argmax()] == 1  # without distances in the graph, the centre decides


def test_neighbours_of_an_edge_list_are_its_heaviest_edges() -> None:
    graph = graph_of([(0, 1, 0.2), (2, 1, 0.9), (3, 1, 0.5), (1, 0, 0.3), (2, 3, 0.1)], 5)
    assert nearest(graph, 2).tolist() == [[1, 5], [2, 3], [1, 3], [1, 2], [5, 5]]


def test_probabilities_belong_to_labels(few: dict[str, Any]) -> None:
    graph, labels, table = few["graph"], few["labels"], few["probabilities"]
    found = measure(graph, labels, table, graph.x, None, 0)
    np.testing.assert_allclose(found.certainty, table[np.arange(600), labels])
    top = np.sort(table, axis=1)
    np.testing.assert_allclose(found.margin, top[:, -1] - top[:, -2])
    np.testing.assert_array_equal(found.second, np.argsort(table, axis=1)[:, -2])
    # Names instead of numbers: the columns are in their sorted order. Noise has none.
    words = np.array([f"kind {k}" for k in labels], dtype=object)
    np.testing.assert_allclose(measure(graph, words, table, graph.x, None, 0).certainty, found.certainty)
    noisy = np.where(np.arange(600) < 20, -1, labels)
    with_noise = measure(graph, noisy, table, graph.x, None, 0)
    assert with_noise.labels == [*range(10), -1]
    assert (with_noise.certainty[:20] == 0).all() and (with_noise.second < 10).all()
    with pytest.raises(ValueError, match="10 columns and the labels name 3 clusters"):
        measure(graph, [f"kind {k % 3}" for k in labels], table, graph.x, None, 0)


@pytest.mark.parametrize("noise", [0, 20])
def test_sparse_probabilities_are_read_alike(few: dict[str, Any], noise: int) -> None:
    graph, table = few["graph"], few["probabilities"]
    labels = np.where(np.arange(600) < noise, -1, few["labels"])
    dense = measure(graph, labels, table, graph.x, None, 0)
    sparse = measure(graph, labels, csr_matrix(table), graph.x, None, 0)
    for name in ("certainty", "margin", "second", "order"):
        np.testing.assert_allclose(getattr(sparse, name), getattr(dense, name), atol=1e-6, err_msg=name)
    pictures = graph.x.reshape(600, 8, 8)
    assert report.cluster_samples(pictures, few["labels"], probabilities=csr_matrix(table)).axes


def test_tree_leads_to_all_clusters(few: dict[str, Any], tmp_path: Path) -> None:
    noisy = np.where(np.arange(600) < 20, -1, few["labels"])
    arguments = {"graph": few["graph"], "position": few["position"], "labels": noisy}
    tree = data_of(write_report(tmp_path / "a.html", **arguments))["tree"]
    assert sorted(tree["order"]) == list(range(10)) and len(tree["merges"]) == 9
    given = linkage(np.random.default_rng(0).normal(size=(10, 2)), "average")
    merges = data_of(write_report(tmp_path / "b.html", tree=given, **arguments))["tree"]["merges"]
    assert [merge[:2] for merge in merges] == given[:, :2].astype(int).tolist()
    with pytest.raises(ValueError, match="10 clusters need a linkage of shape"):
        write_report(tmp_path / "c.html", tree=given[:-1], **arguments)


def test_duplicates_come_in_two_forms(few: dict[str, Any], tmp_path: Path) -> None:
    group = np.full(600, -1)
    group[[3, 9]], group[[4, 5, 6]], group[100] = 7, 2, 8
    arguments = {"graph": few["graph"], "labels": few["labels"], "position": few["position"]}
    one = data_of(write_report(tmp_path / "a.html", duplicates=group, **arguments))["arrays"]["duplicate"]
    other = data_of(write_report(tmp_path / "b.html", duplicates=[[3, 9], [6, 5, 4]], **arguments))["arrays"][
        "duplicate"
    ]
    expected = np.full(600, -1)
    expected[[4, 5, 6]], expected[[3, 9]] = 0, 1  # the largest first, none of a single sample
    np.testing.assert_array_equal(one, expected)
    np.testing.assert_array_equal(other, expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labels": np.zeros(599, int)}, "600 nodes and labels has 599"),
        ({"probabilities": np.ones((4, 2))}, r"probabilities has shape \(4, 2\)"),
        ({"probabilities": np.full(600, 1.5)}, r"outside \[0, 1\]"),
        ({"names": ["a"]}, "there are 1 names and 600 samples"),
        ({"files": ["a"]}, "there are 1 files and 600 samples"),
        ({"images": np.zeros((5, 8, 8))}, "5 images and labels has 600"),
        ({"images": np.zeros((600, 64)), "image_shape": (8, 9)}, "a sample has 64 values"),
        ({"outlier_scores": np.zeros(3)}, "600 finite numbers"),
        ({"position": np.zeros((600, 3))}, "600 finite pairs"),
        ({"duplicates": [[0, 600]]}, "sample numbers from 0 to 599"),
        ({"duplicates": np.zeros(7, int)}, "one group per sample"),
        ({"thumbnail_size": 900}, "between 16 and 255"),
        ({"embedding": np.zeros((7, 2))}, r"the embedding has shape \(7, 2\)"),
    ],
)
def test_bad_input_is_named(few: dict[str, Any], tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    arguments = {"graph": few["graph"], "labels": few["labels"], "position": few["position"], **wrong}
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / "page.html", **arguments)
    assert not list(tmp_path.iterdir())


# -- the file ------------------------------------------------------------------------------------------------


def test_out_is_a_page_or_a_folder(few: dict[str, Any], tmp_path: Path) -> None:
    arguments = {"graph": few["graph"], "labels": few["labels"], "position": few["position"]}
    assert (
        write_report(tmp_path / "new" / "folder", **arguments) == tmp_path / "new" / "folder" / "report.html"
    )
    assert write_report(tmp_path / "page.html", **arguments) == tmp_path / "page.html"
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="is a file that is no page"):
        write_report(tmp_path / "notes.txt", **arguments)


def test_policy_allows_its_own_scripts_alone(few: dict[str, Any], tmp_path: Path) -> None:
    text = write_report(
        tmp_path / "page.html", graph=few["graph"], labels=few["labels"], images=few["images"]
    ).read_text()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    for kind, (source,) in {"script-src": scripts, "style-src": styles}.items():
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|http://(?!www\.w3)|https://",
        scripts[0],
    )


def test_every_script_is_part_of_the_page() -> None:
    folder = Path(report.__file__).parent / "templates"
    included = set(re.findall(r'include "(.*?)"', (folder / "script.js").read_text(encoding="utf-8")))
    assert included == {f"js/{path.name}" for path in (folder / "js").iterdir()}


def test_data_never_ends_its_element(few: dict[str, Any], tmp_path: Path) -> None:
    names = [EVIL[i % len(EVIL)] + str(i) for i in range(600)]
    page = write_report(
        tmp_path / "page.html",
        graph=few["graph"],
        labels=few["labels"],
        names=names,
        title=EVIL[1],
        how_made={EVIL[0]: EVIL[1]},
    )
    text = page.read_text(encoding="utf-8")
    (block,) = re.findall(r'id="data">([^<]*)</script>', text)
    assert not set(block) & set("<>&\u2028\u2029") and block.isascii()
    assert data_of(page)["names"] == names
    assert "<title>&lt;/script&gt;" in text


def test_thumbnails_are_the_images(few: dict[str, Any], tmp_path: Path) -> None:
    page = write_report(
        tmp_path / "page.html", graph=few["graph"], labels=few["labels"], images=few["images"]
    )
    data = data_of(page)
    sheets = re.findall(r'class="thumbnails">([^<]*)<', page.read_text(encoding="utf-8"))
    layout = data["sheets"]
    assert layout["cell"] == 8 and layout["pixelated"]
    decoded = [np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet))).convert("L")) for sheet in sheets]
    for cell, sample in enumerate(data["arrays"]["order"]):
        number, place = divmod(cell, layout["each"])
        top, left = place // layout["columns"] * 8, place % layout["columns"] * 8
        # Light strokes on black became ink on paper; the code is lossless but for the rounding of levels.
        np.testing.assert_allclose(
            decoded[number][top : top + 8, left : left + 8] / 255,
            1 - few["images"][sample].reshape(8, 8),
            atol=0.003,
        )
    front = data["clusters"][0]["representative"][0]
    number, place = divmod(-(-600 // layout["each"]) * layout["each"], layout["each"])
    assert place == 0
    np.testing.assert_allclose(
        decoded[number][:8, :8] / 255, 1 - few["images"][front].reshape(8, 8), atol=0.003
    )


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Thirty files of many kinds, some of them broken, in folders with hostile names."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(30):
        folder = tmp_path / "photos" / ("plain" if i % 2 else "it's <b>& 100% #1?")
        folder.mkdir(parents=True, exist_ok=True)
        mode = ["RGB", "L", "P", "RGBA", "LA", "CMYK", "I;16"][i % 7]
        size = (40 + 5 * i, 160 - 3 * i)
        if mode == "I;16":
            image = Image.fromarray(rng.integers(0, 40_000, size[::-1]).astype(np.uint16))
        else:
            image = Image.effect_noise(size, 80).convert(mode)
        path = folder / f"{i}.{'jpg' if mode in ('RGB', 'L', 'CMYK') else 'png'}"
        image.save(path)
        paths.append(path)
    paths[4].write_bytes(paths[4].read_bytes()[:60])
    paths[11].write_bytes(b"")
    paths[12].write_text("no image", encoding="utf-8")
    paths[13].unlink()
    return paths


def test_files_of_every_kind(photos: list[Path], tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    graph = SampleGraph.from_features(x, n_neighbors=4)
    page = write_report(
        tmp_path / "out" / "report.html", graph=graph, labels=np.arange(30) % 3, images=photos
    )
    data = data_of(page)
    cell = np.argsort(data["arrays"]["order"])
    for i in range(30):
        size = (data["arrays"]["width"][cell[i]], data["arrays"]["height"][cell[i]])
        if i in (4, 11, 12, 13):
            assert size == (0, 0)
        else:
            wanted = Image.open(photos[i]).size
            assert max(size) == min(96, max(wanted))
            assert size[0] / size[1] == pytest.approx(wanted[0] / wanted[1], rel=0.05)
    assert ["Images that could not be read", "4"] in data["made"][-1][1]
    assert data["links"]["base"] == "./../photos/"
    assert data["names"][1] == "plain/1.jpg" and not data["links"]["odd"]
    # A callable and images of one's own are as good as files; what raises is blank.
    opened = write_report(
        tmp_path / "callable.html",
        graph=graph,
        labels=np.arange(30) % 3,
        images=lambda i: Image.open(photos[i]),
    )
    np.testing.assert_array_equal(data_of(opened)["arrays"]["width"], data["arrays"]["width"])


def test_names_that_are_not_utf8_lead_to_their_file(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9 \xff.png")
    try:
        Image.new("RGB", (20, 20), "red").save(path, "PNG")
    except (OSError, UnicodeError):
        pytest.skip("this file system keeps no such names")
    plain = tmp_path / "b.png"
    Image.new("RGB", (20, 20)).save(plain)
    graph = graph_of([(0, 1, 1.0), (1, 0, 1.0)], 2, np.eye(2, dtype=np.float32))
    data = data_of(write_report(tmp_path / "page.html", graph=graph, labels=[0, 0], images=[path, plain]))
    assert data["links"]["base"] == "././" and data["arrays"]["width"].tolist()[:2] == [20, 20]
    assert os.fsencode(data["names"][0]) == b"caf\xe9 \xff.png"
    # The page's scripts could not encode such a name, so that its address is given.
    assert data["links"]["odd"] == {"0": "caf%E9%20%FF.png"}


def test_many_thumbnails_go_beside_the_page(few: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    folder = tmp_path / "report_files"
    arguments = {
        "graph": few["graph"],
        "labels": few["labels"],
        "position": few["position"],
        "images": few["images"],
    }
    write_report(page, max_embedded=0, **arguments)
    first = {path.name for path in folder.iterdir()}
    assert first and {Path(file).name for file in data_of(page)["sheets"]["files"]} == first
    assert 'class="thumbnails"' not in page.read_text(encoding="utf-8")
    (folder / "mine.txt").write_text("kept", encoding="utf-8")
    write_report(page, max_embedded=0, **{**arguments, "images": few["images"][::-1]})
    assert not first & {path.name for path in folder.iterdir()}
    write_report(page, **arguments)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]
