"""Graphs on disk: pieces, checksums, references to features, and what happens when the disk is full."""

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from graphclust.graph import SampleGraph, storage


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)


@pytest.fixture
def graph(x):
    return SampleGraph.from_features(x, 4)


def same(a, b):
    assert set(a.keys()) == set(b.keys())
    for key, value in a.items():
        assert value.dtype == b[key].dtype and torch.equal(value, b[key]), key
    assert a.construction == b.construction


def array_of(folder, name):
    """The file of an array; the rest of its name is the save's own."""
    (file,) = folder.glob(f"{name}.*.npy")
    return file


def flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("piece", [1, 100, 1 << 24])
def test_pieces_of_any_size_give_the_same_files(tmp_path, graph, piece, monkeypatch):
    graph.save(tmp_path / "whole")
    monkeypatch.setattr(storage, "_PIECE_BYTES", piece)
    graph.half = graph.x.half()[:, ::2]  # not contiguous
    graph.scalar = torch.tensor(3.5)
    graph.wide = graph.x.bfloat16()
    graph.save(tmp_path / "pieces")
    opened = SampleGraph.open(tmp_path / "pieces", verify=True)
    assert torch.equal(opened.wide, graph.wide.float()) and torch.equal(opened.half, graph.half)
    assert opened.scalar == 3.5
    for file in (tmp_path / "whole").glob("*.npy"):
        name = file.name.split(".")[0]
        assert file.read_bytes() == array_of(tmp_path / "pieces", name).read_bytes()
    assert np.array_equal(np.load(array_of(tmp_path / "pieces", "half")), graph.half.numpy())


@pytest.mark.parametrize("name", ["edge_weight", "edge_index"])
def test_a_changed_byte_is_found(tmp_path, graph, name, monkeypatch):
    graph.save(tmp_path)
    flip_last_byte(array_of(tmp_path, name))
    changed = rf"{name}\.\w+\.npy has checksum .* its content changed"
    with pytest.raises(ValueError, match=changed):
        SampleGraph.open(tmp_path)
    SampleGraph.open(tmp_path, verify=False)  # sizes and shapes are right
    monkeypatch.setattr(storage, "_ALWAYS_COMPARED", 100)  # large arrays are not read unless asked for
    SampleGraph.open(tmp_path)
    with pytest.raises(ValueError, match=changed):
        SampleGraph.open(tmp_path, verify=True)


def test_a_short_file_names_both_sizes(tmp_path, graph):
    graph.save(tmp_path)
    file = array_of(tmp_path, "x")
    size = file.stat().st_size
    with open(file, "r+b") as stream:
        stream.truncate(size - 24)
    with pytest.raises(ValueError, match=f"shorter than its header says.*{size - 24:,} bytes of {size:,}"):
        SampleGraph.open(tmp_path)
    with open(file, "ab") as stream:
        stream.write(bytes(100))
    with pytest.raises(ValueError, match=f"has {size + 76:,} bytes, but graph.json says {size:,}"):
        SampleGraph.open(tmp_path)


def test_features_stay_where_they_are(tmp_path, x):
    file = tmp_path / "features.npy"
    np.save(file, x)
    graph = SampleGraph.from_features(np.load(file, mmap_mode="r"), 4)
    folder = graph.save(tmp_path / "graph", features=file)
    assert not list(folder.glob("x.*"))
    same(SampleGraph.open(folder, verify=True), graph)
    # A second save, of the graph over its own reference, keeps the user's file.
    SampleGraph.open(folder).save(folder)
    assert file.exists() and list(folder.glob("x.*"))
    graph.save(folder, features=file)
    assert not list(folder.glob("x.*"))
    flip_last_byte(file)
    SampleGraph.open(folder, verify=False)
    with pytest.raises(ValueError, match="restore that file, or save the graph with a copy"):
        SampleGraph.open(folder, verify=True)
    file.unlink()
    with pytest.raises(ValueError, match=r"features\.npy is missing; restore that file"):
        SampleGraph.open(folder)


def test_a_file_with_other_features_is_refused(tmp_path, x, graph):
    for other in (x[:-1], x + 1, x.astype(np.float64)):
        np.save(tmp_path / "other.npy", other)
        with pytest.raises(ValueError, match="does not hold this graph's x"):
            graph.save(tmp_path / "graph", features=tmp_path / "other.npy")
    (tmp_path / "text.npy").write_text("no array")
    for name in ("text.npy", "absent.npy"):
        with pytest.raises(ValueError, match="is no .npy file that can be mapped"):
            graph.save(tmp_path / "graph", features=tmp_path / name)
    assert list((tmp_path / "graph").iterdir()) == []


def test_a_full_disk_is_seen_before_anything_is_written(tmp_path, graph, x, monkeypatch):
    graph.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**6, 10**6, 5000))
    with pytest.raises(OSError, match=r"needed and 5,000 are free") as caught:
        SampleGraph.from_features(x + 1, 4).save(tmp_path)
    assert caught.value.errno == errno.ENOSPC and str(tmp_path) in str(caught.value)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("calls", [1, 3, 6])
def test_a_disk_that_runs_full_leaves_the_old_graph_and_nothing_else(tmp_path, graph, x, calls, monkeypatch):
    graph.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = []

    def flush(stream):
        done.append(stream)
        if len(done) == calls:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "_flush", flush)
    with pytest.raises(OSError, match="no room for the graph.*bytes are needed"):
        SampleGraph.from_features(x + 1, 4).save(tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    same(SampleGraph.open(tmp_path, verify=True), graph)


def test_a_real_limit_on_file_sizes(tmp_path, graph, with_file_limit):
    graph.save(tmp_path)
    code = f"""
import torch
from graphclust.graph import SampleGraph
graph = SampleGraph.open({str(tmp_path)!r})
graph.x = torch.zeros(300, 4096)
limit()
try:
    graph.save({str(tmp_path)!r})
except OSError as error:
    print("refused", error)
"""
    printed = with_file_limit(code, 1 << 20)
    assert "refused" in printed and "no room for the graph" in printed
    same(SampleGraph.open(tmp_path, verify=True), graph)
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.skipif(sys.platform != "linux", reason="reads resident memory from /proc")
def test_copying_and_opening_a_map_takes_no_memory_of_its_size(tmp_path):
    """80 MiB of features are saved and opened in less than 60 MiB of anonymous memory."""
    code = f"""
        import numpy as np, torch
        from graphclust.graph import SampleGraph
        def anonymous():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024
        rows = np.lib.format.open_memmap({str(tmp_path / "x.npy")!r}, "w+", np.float32, (20_480, 1024))
        rows[:] = 1.0
        rows.flush()
        del rows
        x = torch.from_numpy(np.load({str(tmp_path / "x.npy")!r}, mmap_mode="c"))
        edges = torch.stack([torch.arange(1, 20_480), torch.arange(20_479)])
        graph = SampleGraph.from_edges(edges, x)
        before = anonymous()
        graph.save({str(tmp_path / "graph")!r})
        opened = SampleGraph.open({str(tmp_path / "graph")!r}, verify=True)
        print(anonymous() - before, opened.x.shape[0])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    grown, rows = done.stdout.split()
    assert int(rows) == 20_480 and float(grown) < 60


def test_folders_without_checksums_still_open(tmp_path, graph):
    graph.save(tmp_path)
    header = json.loads((tmp_path / "graph.json").read_text())
    for entry in header["arrays"].values():
        del entry["crc32"], entry["bytes"]
    (tmp_path / "graph.json").write_text(json.dumps(header))
    same(SampleGraph.open(tmp_path, verify=True), graph)


def test_folders_of_numbered_saves_are_opened_and_replaced(tmp_path, graph, x):
    """Older versions counted the saves: x.1.npy."""
    graph.save(tmp_path)
    header = json.loads((tmp_path / "graph.json").read_text())
    for name, entry in header["arrays"].items():
        (tmp_path / entry["file"]).rename(tmp_path / f"{name}.1.npy")
        entry["file"] = f"{name}.1.npy"
    (tmp_path / "graph.json").write_text(json.dumps({**header, "counter": 1}))
    same(SampleGraph.open(tmp_path, verify=True), graph)
    other = SampleGraph.from_features(x + 1, 4)
    other.save(tmp_path)
    same(SampleGraph.open(tmp_path, verify=True), other)
    assert len(list(tmp_path.iterdir())) == 6


def once(monkeypatch, name, act):
    """Has something happen when a function of the module is called for the second time."""
    function, calls = getattr(storage, name), []

    def meanwhile(*args):
        calls.append(name)
        if len(calls) == 2:
            act()
        return function(*args)

    monkeypatch.setattr(storage, name, meanwhile)


def test_a_save_in_the_middle_of_another_mixes_nothing(tmp_path, graph, x, monkeypatch):
    other = SampleGraph.from_features(x[:200] + 1, 4)
    opened = []

    def save_other():
        other.save(tmp_path)
        opened.append(SampleGraph.open(tmp_path, verify=True))

    once(monkeypatch, "_write", save_other)
    graph.save(tmp_path)
    same(SampleGraph.open(tmp_path, verify=True), graph)  # the last one counts
    same(opened[0], other)  # what is mapped stays as it was
    assert len(list(tmp_path.iterdir())) == 6


def test_a_save_while_the_graph_is_opened(tmp_path, graph, x, monkeypatch):
    graph.save(tmp_path)
    other = SampleGraph.from_features(x[:200] + 1, 4)
    once(monkeypatch, "_map", lambda: other.save(tmp_path))
    same(SampleGraph.open(tmp_path, verify=True), other)


def test_a_file_that_vanishes_is_one_error(tmp_path, graph, monkeypatch):
    graph.save(tmp_path)
    load = np.load

    def vanish(path, **options):
        array = load(path, **options)
        path.unlink()
        return array

    monkeypatch.setattr(storage.np, "load", vanish)
    with pytest.raises(ValueError, match=r"\.npy is missing; restore it or save the graph again"):
        SampleGraph.open(tmp_path)


def test_savers_and_readers_at_once(tmp_path, graph, x):
    """Whoever opens the folder gets one of the graphs, whole."""
    graphs = [graph, SampleGraph.from_features(x[:200] + 1, 4)]
    graph.save(tmp_path)
    with ThreadPoolExecutor(3) as pool:
        saves = [pool.submit(graphs[number % 2].save, tmp_path) for number in range(40)]
        while not all(save.done() for save in saves):
            opened = SampleGraph.open(tmp_path, verify=True)
            same(opened, graphs[opened.num_nodes == 200])
        for save in saves:
            save.result()
    graph.save(tmp_path)  # removes what saves left that ended at the same moment
    assert len(list(tmp_path.iterdir())) == 6


def test_only_what_a_dead_save_left_is_removed(tmp_path, graph):
    dead, going_on = "0" * 32, "1" * 32
    for token in (dead, going_on):
        for name in (f"x.{token}.npy", f"graph.json.{token}.tmp"):
            (tmp_path / name).write_bytes(b"half")
    (tmp_path / "x.mine.npy").write_bytes(b"precious")
    os.utime(tmp_path / f"graph.json.{dead}.tmp", (0, 0))
    graph.save(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert not any(dead in name for name in left)
    assert {f"x.{going_on}.npy", f"graph.json.{going_on}.tmp", "x.mine.npy"} <= left
