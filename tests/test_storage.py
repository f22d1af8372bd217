"""Folders at addresses: graphs, models and checkpoints in fsspec's own memory, as they would be in a bucket."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from graphclust import _storage, load
from graphclust.graph import SampleGraph
from graphclust.methods import DEC, VGDCN, KMeans
from graphclust.training.checkpoint import read_checkpoint, write_checkpoint

SMALL: dict[str, Any] = {"hidden_channels": (16,), "pretrain_epochs": 2, "epochs": 2}


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty memory file system, and a cache of the test's own."""
    monkeypatch.setenv("GRAPHCLUST_CACHE", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    files.store.clear()
    return files


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a/b", Path("a/b")),
        (Path("/a"), Path("/a")),
        ("file:///a/b", Path("/a/b")),
        (Path("file:///a/b"), Path("/a/b")),
        ("s3://bucket/a/", "s3://bucket/a"),
        (Path("s3://bucket/a"), "s3://bucket/a"),
        ("C:/a", Path("C:/a")),
        ("a:b", Path("a:b")),
    ],
)
def test_what_is_an_address(given: Any, expected: Any) -> None:
    assert _storage.resolve(given) == expected


@pytest.fixture
def graph(digits: Any) -> SampleGraph:
    return SampleGraph.from_features(digits[0][:200], 4)


def test_a_graph_is_the_same_and_mapped(graph: SampleGraph, memory: Any, tmp_path: Path) -> None:
    graph.save("memory://bucket/graph")
    opened = SampleGraph.open("memory://bucket/graph")
    assert opened.construction == graph.construction
    for name, value in graph.items():
        assert torch.equal(opened[name], value) if isinstance(value, torch.Tensor) else opened[name] == value
    (folder,) = (tmp_path / "cache" / "storage").glob("*/*")
    assert (folder / "graph.json").is_file()
    memory.store.clear()  # what is open stays open
    assert float(opened.x.sum()) == float(graph.x.sum())


def test_nothing_is_fetched_twice(graph: SampleGraph, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    graph.save("memory://graph")
    SampleGraph.open("memory://graph")
    monkeypatch.setattr(type(memory), "get_file", lambda *a, **k: pytest.fail("fetched again"))
    SampleGraph.open("memory://graph", verify=True)


def test_a_new_save_takes_the_place_of_the_old_one(digits: Any, memory: Any) -> None:
    for n in (100, 60):
        SampleGraph.from_features(digits[0][:n], 4).save("memory://graph")
        assert SampleGraph.open("memory://graph").num_nodes == n
    versions = {path.split("/")[2] for path in memory.find("/graph")}
    assert len(versions) == 2  # one save, and what names it


def test_a_save_that_breaks_off_leaves_the_old_one(
    digits: Any, graph: SampleGraph, memory: Any, monkeypatch: pytest.MonkeyPatch, breaks_off: Any
) -> None:
    graph.save("memory://graph")
    before = memory.find("/graph")
    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "put_file", breaks_off(type(memory).put_file, after=2))
        with pytest.raises(OSError, match="network"):
            SampleGraph.from_features(digits[0][:60], 4).save("memory://graph")
    assert memory.find("/graph") == before
    assert SampleGraph.open("memory://graph").num_nodes == 200


def test_damage_is_named(graph: SampleGraph, memory: Any) -> None:
    with pytest.raises(FileNotFoundError, match="nothing saved at memory://graph"):
        SampleGraph.open("memory://graph")
    graph.save("memory://graph")
    (x,) = (path for path in memory.find("/graph") if "/x." in path)
    content = memory.cat_file(x)
    memory.pipe_file(x, content[:-4])
    with pytest.raises(ValueError, match=r"x\.\w+\.npy at memory://graph has"):
        SampleGraph.open("memory://graph")
    memory.rm(x)
    with pytest.raises(ValueError, match="lost its file"):
        SampleGraph.open("memory://graph")
    memory.pipe_file("/graph/graphclust.json", json.dumps({"format_version": 9}).encode())
    with pytest.raises(ValueError, match="format version 9"):
        SampleGraph.open("memory://graph")
    memory.pipe_file("/graph/graphclust.json", b"{")
    with pytest.raises(ValueError, match="damaged"):
        SampleGraph.open("memory://graph")


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"../../../out.txt": [3, 0]}},
        {"files": {"/tmp/out.txt": [3, 0]}},
        {"files": {"a/../../out.txt": [3, 0]}},
        {"files": {"..\\out.txt": [3, 0]}},
        {"version": "../other"},
        {"version": ".."},
        {"version": ""},
        {"version": 3},
        {"files": 3},
    ],
)
def test_an_index_cannot_name_what_is_elsewhere(
    change: dict[str, Any], graph: SampleGraph, memory: Any, tmp_path: Path
) -> None:
    """Neither to be written here, nor to be removed there."""
    graph.save("memory://bucket/graph")
    memory.pipe_file("/bucket/other/kept.txt", b"abc")
    index = json.loads(memory.cat_file("/bucket/graph/graphclust.json")) | change
    memory.pipe_file("/bucket/graph/graphclust.json", json.dumps(index).encode())
    for act in (
        lambda: SampleGraph.open("memory://bucket/graph"),
        lambda: graph.save("memory://bucket/graph"),
    ):
        with pytest.raises(ValueError, match="names files outside of its folder|is damaged"):
            act()
    assert memory.cat_file("/bucket/other/kept.txt") == b"abc"
    assert not list(tmp_path.rglob("out.txt"))


def test_a_copy_that_may_be_in_use_stays(graph: SampleGraph, tmp_path: Path) -> None:
    graph.save("memory://bucket/graph")
    older = _storage.fetch("memory://bucket/graph")
    graph.save("memory://bucket/graph")
    newer = _storage.fetch("memory://bucket/graph")
    assert older.is_dir() and newer.is_dir() and older != newer
    os.utime(older, (0, 0))
    graph.save("memory://bucket/graph")
    _storage.fetch("memory://bucket/graph")
    assert not older.exists() and newer.is_dir()


def during_the_second(call: Callable[..., Any], act: Callable[[], Any]) -> Callable[..., Any]:
    """The same call, but something happens when it is called for the second time."""
    calls: list[None] = []

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == 2:
            act()
        return call(*args, **kwargs)

    return meanwhile


def test_a_save_while_the_graph_is_fetched(
    digits: Any, graph: SampleGraph, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.save("memory://graph")
    other = SampleGraph.from_features(digits[0][:60], 4)
    get = during_the_second(type(memory).get_file, lambda: other.save("memory://graph"))
    monkeypatch.setattr(type(memory), "get_file", get)
    assert torch.equal(SampleGraph.open("memory://graph").x, other.x)


def test_of_two_saves_at_once_the_last_one_counts(
    digits: Any, graph: SampleGraph, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.save("memory://graph")
    other, last = (SampleGraph.from_features(digits[0][:n], 4) for n in (60, 80))
    put = during_the_second(type(memory).put_file, lambda: other.save("memory://graph"))
    monkeypatch.setattr(type(memory), "put_file", put)
    last.save("memory://graph")
    assert torch.equal(SampleGraph.open("memory://graph", verify=True).x, last.x)
    assert len({path.split("/")[2] for path in memory.find("/graph")}) == 2  # the save, and what names it


def test_what_dead_saves_left_is_removed_after_a_day(graph: SampleGraph, memory: Any) -> None:
    old, recent, own = f"/graph/{'0' * 32}/x.npy", f"/graph/{'1' * 32}/x.npy", "/graph/notes/text"
    for path in (old, recent, own):
        memory.pipe_file(path, b"half")
    for path in (old, own):
        memory.store[path].modified = datetime(2020, 1, 1, tzinfo=timezone.utc)
    graph.save("memory://graph")
    assert not memory.exists(old) and memory.exists(recent) and memory.exists(own)
    SampleGraph.open("memory://graph", verify=True)


def test_features_of_this_machine_are_not_named_elsewhere(graph: SampleGraph, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", graph.x)
    with pytest.raises(ValueError, match="leave features= out"):
        graph.save("memory://graph", features=tmp_path / "x.npy")


def test_unknown_addresses(graph: SampleGraph) -> None:
    with pytest.raises(ValueError, match="nowhere://x.*fsspec knows"):
        graph.save("nowhere://x")


@pytest.mark.parametrize(
    "model",
    [DEC(10, random_state=0, **SMALL), VGDCN(10, random_state=0, **SMALL), KMeans(10, random_state=0)],
)
@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_models(digits: Any, model: Any, protocol: str, tmp_path: Path) -> None:
    address = "memory://models/one" if protocol == "memory" else f"file://{tmp_path}/one"
    x = digits[0][:200]
    model.fit(x).save(address)
    assert (tmp_path / "one").is_dir() == (protocol == "file")
    for opened in (load(address), type(model).load(address)):
        np.testing.assert_array_equal(opened.labels_, model.labels_)
        np.testing.assert_array_equal(opened.predict(x), model.predict(x))


def test_checkpoints(digits: Any) -> None:
    """A run whose checkpoints are at an address goes on from them."""
    assert read_checkpoint("memory://run") is None
    write_checkpoint("memory://run", {"a": torch.arange(3)}, {"epoch": 2})
    tensors, meta = read_checkpoint("memory://run") or ({}, {})
    assert meta["epoch"] == 2 and torch.equal(tensors["a"], torch.arange(3))
    x = digits[0][:200]
    settings = SMALL | {"random_state": 0, "checkpoint": "memory://run2"}
    first = DEC(10, **settings).fit(x)
    again = DEC(10, **settings).fit(x)
    assert again.history_ == first.history_  # with the seconds of the first run: it was only read
