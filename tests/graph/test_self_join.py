import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

import graphclust.graph.indexes as indexes
import graphclust.graph.self_join as self_join
import graphclust.graph.self_join_plan as plan
import graphclust.graph.self_join_state as state_module
from graphclust import _files
from graphclust.graph import NeighborSearch, SampleGraph
from graphclust.graph.metric import Metric, Rows
from graphclust.graph.self_join_codes import Codes, distances_to, nearest_of, search_exactly
from graphclust.graph.self_join_lists import Basis, make_lists
from graphclust.graph.self_join_state import JoinState, single_threaded_workers

pytest.importorskip("faiss")


def blobs(n, d=16, clusters=40, seed=1):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, d)) * 2
    return (centres[rng.integers(0, clusters, n)] + rng.normal(size=(n, d))).astype(np.float32)


def true_distances(x, k, metric="euclidean"):
    x = np.asarray(x, dtype=np.float64)
    found = np.empty((len(x), k))
    for start in range(0, len(x), 500):
        table = cdist(x[start : start + 500], x, metric)
        table[np.arange(len(table)), np.arange(start, start + len(table))] = np.inf
        found[start : start + 500] = np.sort(table, axis=1)[:, :k]
    return found


def recall_of(x, index, k, metric="euclidean"):
    """Share of neighbours as near as the true ones (which of equally near ones is taken does not matter)."""
    x = np.asarray(x, dtype=np.float64)
    worst = true_distances(x, k, metric)[:, -1:]
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    own = np.stack([np.linalg.norm(x - x[column], axis=1) for column in index.numpy().T], axis=1)
    if metric == "cosine":
        own = own**2 / 2
    return float((own <= worst * (1 + 1e-6) + 1e-12).mean())


def check_table(x, index, distance, k, metric="euclidean"):
    """What holds for every neighbour table, exact or not."""
    n = len(x)
    assert index.shape == distance.shape == (n, k) and index.dtype == torch.int64
    assert int(index.min()) >= 0 and int(index.max()) < n
    assert not (index == torch.arange(n).unsqueeze(1)).any()
    assert (index.sort(dim=1).values.diff(dim=1) > 0).all()  # nobody twice
    step = distance.diff(dim=1)
    assert (step >= 0).all()
    assert (index.diff(dim=1)[step == 0] > 0).all() or distance.dtype != torch.float64
    rows = np.arange(0, n, max(1, n // 50))
    for i in rows:
        direct = cdist(
            np.asarray(x[i : i + 1], np.float64), np.asarray(x[index[i].numpy()], np.float64), metric
        )[0]
        np.testing.assert_allclose(distance[i], direct, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_reaches_the_wanted_recall(metric):
    x = blobs(8000) + 0.1
    search = NeighborSearch(metric, index="self-join", recall=0.95).fit(x)
    index, distance = search.self_neighbors(10)
    check_table(x, index, distance, 10, metric)
    recall = recall_of(x, index, 10, metric)
    assert recall >= 0.95
    assert abs(recall - search.recall_) < 0.03  # the estimate is honest
    assert search.index_name_.startswith("self-join (17")


@pytest.mark.parametrize("k", [1, 3, 30, 200])
def test_any_number_of_neighbours(k):
    x = blobs(3000)
    index, distance = NeighborSearch(index="self-join").fit(x).self_neighbors(k)
    check_table(x, index, distance, k)
    assert recall_of(x, index, k) >= 0.95


@pytest.mark.parametrize("n", [2, 3, 11, 257, 600])
def test_few_samples(n):
    x = blobs(n, d=5)
    k = min(10, n - 1)
    index, distance = NeighborSearch(index="self-join").fit(x).self_neighbors(k)
    check_table(x, index, distance, k)
    assert recall_of(x, index, k) >= 0.95
    index, distance = NeighborSearch(index="self-join").fit(x).self_neighbors(n - 1)
    check_table(x, index, distance, n - 1)


def test_the_largest_k_is_larger_than_a_list():
    x = blobs(1500, d=4)
    index, distance = NeighborSearch(index="self-join").fit(x).self_neighbors(1499)
    check_table(x, index, distance, 1499)


def test_all_samples_equal():
    x = np.full((6000, 8), 2.5, dtype=np.float32)
    search = NeighborSearch(index="self-join").fit(x)
    index, distance = search.self_neighbors(10)
    check_table(x, index, distance, 10)
    assert not distance.any() and search.recall_ == 1.0


def test_many_duplicates_and_constant_columns():
    x = blobs(6000, d=12)
    x[1000:4000] = x[5]  # far more than a list holds
    x[4000:4100] = x[6]
    x[:, [3, 7]] = 1.0
    index, distance = NeighborSearch(index="self-join").fit(x).self_neighbors(10)
    check_table(x, index, distance, 10)
    assert recall_of(x, index, 10) >= 0.95
    assert not distance[1000:4100].any()


@pytest.mark.parametrize("d", [1, 2])
def test_few_features(d):
    x = np.random.default_rng(0).normal(size=(5000, d)).astype(np.float32)
    index, distance = NeighborSearch(index="self-join").fit(x).self_neighbors(10)
    check_table(x, index, distance, 10)
    assert recall_of(x, index, 10) >= 0.95


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8])
def test_other_types(dtype):
    x = blobs(3000)
    x = (x * 16 + 128).clip(0, 255).astype(np.uint8) if dtype == np.uint8 else (x + 3).astype(dtype)
    index, distance = NeighborSearch(index="self-join").fit(x).self_neighbors(5, torch.float64)
    check_table(x, index, distance, 5)
    assert recall_of(x, index, 5) >= 0.95


def test_far_from_the_origin_and_far_apart():
    x = blobs(4000)
    shifted = x.astype(np.float64) + 1e6
    index, distance = NeighborSearch(index="self-join").fit(shifted).self_neighbors(5, torch.float64)
    check_table(shifted, index, distance, 5)
    assert recall_of(shifted, index, 5) >= 0.95
    for scale in (1e-25, 1e18):
        scaled = (x * scale).astype(np.float32)
        index = NeighborSearch(index="self-join").fit(scaled).self_neighbors(5)[0]
        assert recall_of(scaled / np.float32(scale), index, 5) >= 0.95


def test_clusters_that_do_not_touch():
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(30, 6)) * 1e4, 150, axis=0) + rng.normal(size=(4500, 6))
    x = x.astype(np.float32)
    index, distance = NeighborSearch(index="self-join").fit(x).self_neighbors(10)
    check_table(x, index, distance, 10)
    assert recall_of(x, index, 10) >= 0.95


def test_without_structure_more_lists_are_visited():
    x = np.random.default_rng(0).random((4000, 48), dtype=np.float32)
    search = NeighborSearch(index="self-join", recall=0.97).fit(x)
    index, distance = search.self_neighbors(10)
    check_table(x, index, distance, 10)
    assert recall_of(x, index, 10) >= 0.96 and search.recall_ >= 0.97


def test_visits_of_all_lists_are_exact(monkeypatch):
    x = np.random.default_rng(0).random((3000, 64), dtype=np.float32)  # no few of the lists suffice
    monkeypatch.setattr(plan, "_levels", lambda *_: ())
    search = NeighborSearch(index="self-join", recall=1.0).fit(x)
    index, distance = search.self_neighbors(8)
    assert search.index_name_ == "self-join (75 lists, 75 visits)" and search.recall_ == 1.0
    exact = NeighborSearch(index="exact").fit(x).self_neighbors(8)
    assert torch.equal(index, exact[0]) and torch.equal(distance, exact[1])


def test_ties_go_to_the_smaller_index():
    grid = np.stack(np.meshgrid(np.arange(60), np.arange(60)), axis=-1).reshape(-1, 2).astype(np.uint8)
    index, distance = NeighborSearch(index="self-join", recall=1.0).fit(grid).self_neighbors(4)
    exact = NeighborSearch(index="exact").fit(grid).self_neighbors(4)
    assert torch.equal(distance, exact[1])
    inner = (exact[1] == 1).all(dim=1)  # four at distance 1, and no choice among equals
    assert inner.sum() == 58 * 58 and torch.equal(index[inner], exact[0][inner])


@pytest.mark.parametrize(("d", "clusters"), [(16, 40), (64, 3)])
def test_same_seed_same_table_whatever_the_number_of_threads(d, clusters):
    x = blobs(6000, d, clusters)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    threads = torch.get_num_threads()
    search = NeighborSearch(index="self-join", random_state=3).fit(x)
    first = search.self_neighbors(10)
    assert ("candidates in " in search.index_name_) == (d == 64)  # by codes, or all samples of some lists
    assert torch.get_num_threads() == threads
    second = NeighborSearch(index="self-join", random_state=3).fit(x).self_neighbors(10)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert (state == np.random.get_state()[1]).all()  # noqa: NPY002
    torch.set_num_threads(3)
    try:
        third = NeighborSearch(index="self-join", random_state=3).fit(x).self_neighbors(10)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(first[0], third[0])


def test_new_samples_exactly_and_by_an_inverted_file(monkeypatch):
    x = blobs(6300)
    x, new = x[:6000], x[6000:]
    search = NeighborSearch(index="self-join").fit(x)
    exact = NeighborSearch(index="exact").fit(x).neighbors(new, 7)
    found = search.neighbors(new, 7)
    assert torch.equal(found[0], exact[0]) and torch.equal(found[1], exact[1])
    monkeypatch.setattr(indexes, "EXACT_SAMPLES", 10)
    monkeypatch.setattr(indexes, "EXACT_BUDGET", 0)
    joined = NeighborSearch(index="self-join").fit(x)
    joined.self_neighbors(3)
    for search in (NeighborSearch(index="self-join").fit(x), joined):  # without and with its centroids
        found = search.neighbors(new, 7)[0]
        assert search.index_name_.startswith("IVF")
        shared = [len(set(a) & set(b)) for a, b in zip(found.tolist(), exact[0].tolist(), strict=True)]
        assert np.mean(shared) / 7 > 0.9
        again = pickle.loads(pickle.dumps(search))
        assert torch.equal(again.neighbors(new, 7)[0], found)
        index, distance = search.self_neighbors(5)
        check_table(x, index, distance, 5)
        assert recall_of(x, index, 5) >= 0.95


def test_auto_rule():
    def joins(n, d, metric="euclidean", device="cpu", faiss=True):
        return indexes.is_self_join("auto", n, d, Metric.make(metric), torch.device(device), faiss)

    assert joins(1_000_000, 128) and joins(100_000, 64, "cosine")
    assert not joins(10_000, 784) and not joins(30_000, 128)
    assert not joins(1_000_000, 128, "inner_product") and not joins(1_000_000, 128, "manhattan")
    assert not joins(1_000_000, 128, device="cuda") and not joins(1_000_000, 128, faiss=False)


def test_auto_takes_it_for_large_data(monkeypatch):
    monkeypatch.setattr(indexes, "EXACT_SAMPLES", 100)
    monkeypatch.setattr(indexes, "EXACT_BUDGET", 1e6)
    x = blobs(2000)
    search = NeighborSearch().fit(x)
    assert search.index_name_ == "self-join"
    assert recall_of(x, search.self_neighbors(10)[0], 10) >= 0.95


@pytest.mark.parametrize("metric", ["inner_product", "manhattan"])
def test_other_metrics_are_refused(metric):
    with pytest.raises(ValueError, match=f"does not know metric='{metric}'.*'euclidean' and 'cosine'"):
        NeighborSearch(metric, index="self-join").fit(blobs(100))


def test_sample_graph_passes_the_folder_on(tmp_path):
    x = blobs(2000)
    graph = SampleGraph.from_features(x, 5, index="self-join", folder=tmp_path / "state")
    assert (tmp_path / "state" / "self_join.json").exists()
    assert graph.construction["index_name"].startswith("self-join")
    assert torch.equal(graph.neighbor_index, NeighborSearch(index="self-join").fit(x).self_neighbors(5)[0])


KILLED = r"""
import os, sys, time
import numpy as np
import graphclust.graph.self_join_state as state
from graphclust.graph import NeighborSearch

state._JOURNAL_SECONDS = state._FLUSH_PAUSE = 0
run = state.JoinState.run

def slow(self, stage, blocks, work, *rest):
    def block(number):
        if stage == sys.argv[3] and number >= int(sys.argv[4]):
            print("now", flush=True)
            time.sleep(60)
        work(number)
    run(self, stage, blocks, block, *rest)

state.JoinState.run = slow
x = np.load(sys.argv[1], mmap_mode="r")
NeighborSearch(index="self-join").fit(x).self_neighbors(10, folder=sys.argv[2])
"""


@pytest.mark.parametrize(
    ("stage", "block"),
    [("search", 1)] + [pytest.param(*case, marks=pytest.mark.slow) for case in (("copy", 3), ("search", 0))],
)
def test_a_killed_search_goes_on_and_ends_with_the_same_table(tmp_path, stage, block):
    x = blobs(5000, d=64, clusters=3)
    np.save(tmp_path / "x.npy", x)
    folder = tmp_path / "state"
    command = [sys.executable, "-c", KILLED, str(tmp_path / "x.npy"), str(folder), stage, str(block)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "now\n"
    time.sleep(0.5)  # the blocks before it end and are noted
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    journal = json.loads((folder / "self_join.json").read_text())
    assert stage not in journal["done"] and "lists" in journal["done"]
    if block > 1:
        assert journal["stage"] == stage and journal["blocks"] == block
    stamp = (folder / "order.npy").stat().st_mtime_ns

    worked = []
    run = JoinState.run

    def note(self, name, blocks, work, *rest):
        run(self, name, blocks, lambda number: (worked.append((name, number)), work(number)), *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JoinState, "run", note)
        search = NeighborSearch(index="self-join").fit(x)
        index, distance = search.self_neighbors(10, folder=folder)
    assert (folder / "order.npy").stat().st_mtime_ns == stamp  # the lists were not made again
    first = journal["blocks"] if journal["stage"] == stage else 0
    assert sorted(number for name, number in worked if name == stage)[0] == first
    assert "candidates in " in search.index_name_  # found by codes
    whole = NeighborSearch(index="self-join").fit(x).self_neighbors(10)
    assert torch.equal(index, whole[0]) and torch.equal(distance, whole[1])
    # A finished search has nothing left to do but the last step.
    worked.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JoinState, "run", note)
        again = NeighborSearch(index="self-join").fit(x).self_neighbors(10, folder=folder)
    assert torch.equal(again[0], index) and {name for name, _ in worked} == {""}


def test_what_the_journal_says_is_on_the_disk_before_it(tmp_path, monkeypatch):
    """After a power cut the arrays must hold what the journal says."""
    monkeypatch.setattr(state_module, "_JOURNAL_SECONDS", 0)
    monkeypatch.setattr(state_module, "_FLUSH_PAUSE", 0)
    state = JoinState(tmp_path / "state", {})
    array = state.array("rows", (40, 3), np.float32)
    flushed, noted = [], []
    flush, write = state._flush, state._write_journal

    def note_flush():
        flush()
        flushed.append(array[:, 0].copy())

    def note_write():
        noted.append((state._journal["blocks"], len(flushed)))
        write()

    monkeypatch.setattr(state, "_flush", note_flush)
    monkeypatch.setattr(state, "_write_journal", note_write)
    with ThreadPoolExecutor(1) as pool:
        state.run("copy", 40, lambda block: array.__setitem__(block, block + 1.0), pool, iter)
    state.finish("copy")
    state.close()
    assert noted[-1][0] == 0 and max(noted)[0] > 0
    for number, (blocks, flushes) in enumerate(noted):
        assert flushes == number + 1
        np.testing.assert_array_equal(flushed[number][:blocks], np.arange(blocks) + 1.0)


def test_flushing_writes_every_array(tmp_path, monkeypatch):
    state = JoinState(tmp_path / "state", {})
    state.keep("rows", np.ones(3))
    state.keep("index", np.ones(3))
    synced = []
    monkeypatch.setattr(state_module, "sync", synced.append)
    monkeypatch.setattr(np.memmap, "flush", lambda array: synced.append(Path(array.filename)))
    state._flush()
    state.close()
    assert {path.name for path in synced} == {"rows.npy", "index.npy"}


def test_two_searches_share_a_folder_one_after_the_other(tmp_path, monkeypatch):
    """The second waits, and has nothing left to do but the last step."""
    x = blobs(2000)
    expected = NeighborSearch(index="self-join").fit(x).self_neighbors(5)
    first_has_it, second_waits = threading.Event(), threading.Event()
    run, stages = JoinState.run, []

    def note(self, stage, *rest):
        stages.append((threading.get_ident(), stage))
        first_has_it.set()
        assert second_waits.wait(60)
        run(self, stage, *rest)

    def warned(message, *_, **__):
        assert "waiting until it ends" in message
        second_waits.set()

    def search():
        found = NeighborSearch(index="self-join").fit(x).self_neighbors(5, folder=tmp_path / "state")
        return threading.get_ident(), found

    monkeypatch.setattr(JoinState, "run", note)
    monkeypatch.setattr(state_module, "warnings", SimpleNamespace(warn=warned))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(search)
        assert first_has_it.wait(60)
        second = pool.submit(search)
        (one, found), (other, taken) = first.result(), second.result()
    for result in (found, taken):
        assert torch.equal(result[0], expected[0]) and torch.equal(result[1], expected[1])
    assert {stage for thread, stage in stages if thread == one} > {""}
    assert {stage for thread, stage in stages if thread == other} == {""}


def test_a_folder_in_use_by_another_search_is_refused_at_once(tmp_path):
    state = JoinState(tmp_path / "state", {"data": "a"})
    with pytest.raises(ValueError, match="holds a search of other data"):
        JoinState(tmp_path / "state", {"data": "b"})
    state.close()
    JoinState(tmp_path / "state", {"data": "a"}).close()


def test_a_search_that_fails_lets_go_of_its_folder(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(JoinState, "_write_journal", fail)
        with pytest.raises(RuntimeError, match="broken") as first:  # while it is kept, so are its frames
            JoinState(tmp_path / "state", {})
    with monkeypatch.context() as patch:
        patch.setattr(JoinState, "finish", fail)
        with pytest.raises(RuntimeError, match="broken") as second:
            NeighborSearch(index="self-join").fit(blobs(500)).self_neighbors(5, folder=tmp_path / "other")
    monkeypatch.setattr(state_module, "warnings", SimpleNamespace(warn=fail))
    JoinState(tmp_path / "state", {}).close()
    NeighborSearch(index="self-join").fit(blobs(500)).self_neighbors(5, folder=tmp_path / "other")
    assert first.value is not second.value


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path):
    x = blobs(1000)
    folder = tmp_path / "state"
    search = NeighborSearch(index="self-join", random_state=0).fit(x)
    expected = search.self_neighbors(5, folder=folder)[0]
    other = x.copy()
    other[7, 3] += 1
    for data, k, arguments, message in [
        (other, 5, {}, "other data or parameters.*data "),
        (x, 6, {}, "n_neighbors 5 instead of 6"),
        (x, 5, {"recall": 0.9}, "recall 0.95 instead of 0.9"),
        (x, 5, {"metric": "cosine"}, "metric 'euclidean' instead of 'cosine'"),
        (x, 5, {"random_state": 1}, "random_state"),
        (x[:900], 5, {}, r"shape \[1000, 16\] instead of \[900, 16\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            NeighborSearch(**{"index": "self-join", **arguments}).fit(data).self_neighbors(k, folder=folder)
    assert torch.equal(search.self_neighbors(5, folder=folder)[0], expected)

    journal = json.loads((folder / "self_join.json").read_text())
    (folder / "self_join.json").write_text(json.dumps({**journal, "version": 99}))
    with pytest.raises(ValueError, match="version 99, but this is graphclust.SelfJoin version 1"):
        search.self_neighbors(5, folder=folder)
    (folder / "self_join.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        search.self_neighbors(5, folder=folder)
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="not empty and holds no search"):
        search.self_neighbors(5, folder=full)
    with pytest.raises(ValueError, match="is a file"):
        search.self_neighbors(5, folder=full / "letter.txt")
    assert (full / "letter.txt").read_text() == "dear"


def test_without_a_seed_a_folder_keeps_the_first_one(tmp_path):
    x = blobs(1000)
    search = NeighborSearch(index="self-join", random_state=None).fit(x)
    first = search.self_neighbors(5, folder=tmp_path / "state")[0]
    assert torch.equal(first, search.self_neighbors(5, folder=tmp_path / "state")[0])


@pytest.mark.parametrize("name", ["order", "rows", "truth"])
def test_a_shortened_file_is_one_error(tmp_path, name):
    x = blobs(1000)
    search = NeighborSearch(index="self-join").fit(x)
    search.self_neighbors(5, folder=tmp_path / "state")
    path = tmp_path / "state" / f"{name}.npy"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ValueError, match=f"{name}.npy is missing or damaged"):
        search.self_neighbors(5, folder=tmp_path / "state")


def test_a_full_disk_is_one_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files.os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"no room for .* bytes.*pass folder= on another disk"):
        NeighborSearch(index="self-join").fit(blobs(1000)).self_neighbors(5, folder=tmp_path / "state")


def test_no_temporary_files_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(state_module.tempfile, "tempdir", str(tmp_path))
    NeighborSearch(index="self-join").fit(blobs(1000)).self_neighbors(5)
    assert not list(tmp_path.iterdir())


def join_parts(x, count=40):
    """The parts of a self-join: rows, their basis, their lists and the copy in their order."""
    rows = Rows(torch.from_numpy(x), Metric.make("euclidean"))
    basis = Basis.fit(rows, 0)
    with single_threaded_workers() as pool:
        lists = make_lists(rows, basis, count, 0, pool)
    return rows, basis, lists, x[lists.order]


@pytest.mark.parametrize(("n", "d"), [(5000, 8), (60, 100)])
def test_a_basis_keeps_distances(n, d):
    x = blobs(n, d) + 3
    x[:, 2] = 7
    basis = Basis.fit(Rows(torch.from_numpy(x), Metric.make("euclidean")), 0)
    q = min(n, d) - 1  # a constant column, or one less than the samples
    assert basis.directions.shape == (d, q)
    np.testing.assert_allclose(basis.directions.T @ basis.directions, np.eye(q), atol=1e-4)
    z = basis.project(torch.from_numpy(x), q)
    np.testing.assert_allclose(cdist(z[:50], z), cdist(x[:50], x), rtol=1e-4, atol=1e-4)
    assert (np.diff(z.var(axis=0)) <= 1e-3 * z.var()).all()  # those with most variance first
    np.testing.assert_allclose(basis.back(z), x, atol=1e-3)


def test_lists_hold_every_sample_once():
    _, basis, lists, copy = join_parts(blobs(5000), 50)
    assert 50 <= len(lists) == len(lists.centroids) < 60
    np.testing.assert_array_equal(np.sort(lists.order), np.arange(5000))
    assert lists.ends[0] == 0 and lists.ends[-1] == 5000 and (np.diff(lists.ends) <= 400).all()
    z = basis.project(torch.from_numpy(copy), 16)
    distance = cdist(z, lists.centroids)
    piece = np.repeat(np.arange(len(lists.ends) - 1), np.diff(lists.ends))
    own = np.searchsorted(lists.first, piece, side="right") - 1
    assert (distance.argmin(axis=1) == own).mean() > 0.999
    places = np.arange(0, 5000, 9)
    visited = lists.visited(z[places], places, 4)
    assert (visited[:, 0] == piece[places]).mean() > 0.999
    np.testing.assert_array_equal(lists.nearest(z[places], 4), np.argsort(distance[places], axis=1)[:, :4])
    members = lists.members(visited)
    for row, some in zip(visited[:40], members[:40], strict=True):
        wanted = np.concatenate([np.arange(lists.ends[one], lists.ends[one + 1]) for one in row])
        np.testing.assert_array_equal(some[: len(wanted)], wanted)
        assert (some[len(wanted) :] == -1).all()


def test_a_long_list_is_cut_and_its_samples_visit_their_own_piece():
    x = blobs(4000)
    x[500:3000] = x[0]
    _, basis, lists, copy = join_parts(x)
    length = np.diff(lists.ends)
    assert length.max() <= 400 and len(length) > len(lists)
    z = basis.project(torch.from_numpy(copy), 16)
    places = np.flatnonzero((copy == x[0]).all(axis=1))
    piece = np.searchsorted(lists.ends, places, side="right") - 1
    assert len(np.unique(piece)) >= 7
    assert (lists.visited(z[places], places, 3) == piece[:, None]).any(axis=1).mean() > 0.99
    every = lists.visited(z[:5], np.arange(5), len(lists))
    np.testing.assert_array_equal(every, np.tile(np.arange(len(length)), (5, 1)))


@pytest.mark.parametrize("d", [1, 7, 16])
def test_codes_rank_like_their_levels(d):
    rows, basis, lists, copy = join_parts(blobs(3000, d))
    with single_threaded_workers() as pool:
        codes = Codes(copy, rows, basis, lists, d, 0, pool)
    z = basis.project(torch.from_numpy(copy), d)
    visited = np.tile(np.arange(len(lists.ends) - 1), (30, 1))
    found = codes.candidates(z[:30], visited, 100)
    assert found.shape == (30, 100) and all(len(set(row)) == 100 for row in found.tolist())
    import faiss

    levels = faiss.vector_to_array(codes._base.pq.centroids).reshape(d, 16)
    assert (np.diff(levels, axis=1) >= 0).all()
    nearest = np.abs(z[:, :, None] - levels).argmin(axis=2)
    rebuilt = np.take_along_axis(levels, nearest.T, axis=1).T
    distance = cdist(z[:30], rebuilt, "sqeuclidean")
    worst = np.sort(distance, axis=1)[:, 99]
    taken = np.take_along_axis(distance, found, axis=1)
    # FAISS rounds the parts of a distance to 8 bits.
    assert (taken <= worst[:, None] + 0.02 * distance.max(axis=1, keepdims=True)).all()
    few = codes.candidates(z[:30], visited[:, :1], 2000)
    assert (few[:, lists.ends[1] :] == -1).all() and (np.sort(few, axis=1)[:, -1] == lists.ends[1] - 1).all()


def test_nearest_of_leaves_the_sample_and_the_absent_out():
    rows = blobs(300)
    candidates = np.random.default_rng(0).permuted(np.tile(np.arange(300), (20, 1)), axis=1)[:, :50]
    candidates[:, 7] = np.arange(20)
    candidates[:, 10:13] = -1
    candidates[3] = -1
    candidates[3, 5:8] = [9, 3, 8]
    index, distance = nearest_of(rows, np.arange(20), candidates, 6)
    truth = distances_to(rows, rows[:20], np.tile(np.arange(300), (20, 1)))
    for i in range(20):
        wanted = sorted(set(candidates[i].tolist()) - {i, -1}, key=lambda j: truth[i, j])[:6]
        assert index[i].tolist() == wanted + [-1] * (6 - len(wanted))
        np.testing.assert_allclose(distance[i, : len(wanted)], truth[i, wanted])
    assert np.isinf(distance[3, 2:]).all()
    assert (nearest_of(rows, np.arange(20), candidates[:, :3], 6)[0][:, 3:] == -1).all()


@pytest.mark.parametrize("apart", [0, 1e4])
def test_the_sample_is_searched_exactly(apart):
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(50, 6)) * apart, 200, axis=0) + rng.normal(size=(10_000, 6))
    x = x.astype(np.float32)
    with single_threaded_workers() as pool:
        _, distance = search_exactly(x, np.arange(0, 10_000, 100), 9, pool)
    wide = x.astype(np.float64)
    truth = np.sort(cdist(wide[::100], wide, "sqeuclidean"), axis=1)[:, 1:10]
    np.testing.assert_allclose(distance, truth, rtol=1e-4)


@pytest.mark.parametrize("limit", [0.5, 1.0])  # 32 dimensions suffice, or only all
def test_the_plan_is_the_cheapest_way_that_suffices(limit, monkeypatch):
    _, basis, lists, copy = join_parts(blobs(4000, 48))
    monkeypatch.setattr(plan, "_VARIANCE", 0.999_999)
    z = basis.project(torch.from_numpy(copy[::10]), 32)
    truth = np.argsort(cdist(copy[::10], copy), axis=1)[:, 1:6]
    asked = []

    def enough(way):
        if not way.dimensions:
            return way.visits >= 12
        return way.visits >= 12 and way.candidates >= 30 and (way.dimensions == 48 or limit == 0.5)

    def measure(way):
        asked.append(way)
        return np.full(400, 1.0 if enough(way) else 0.5)

    way = plan.choose_way(lists, z, truth, 48, 48, 5, 0.9, measure)
    sufficient = [one for one in asked if enough(one)]
    cost = [one.cost(4000 / len(lists), 48) for one in sufficient]
    assert way == sufficient[int(np.argmin(cost))]
    nothing = plan.choose_way(lists, z, truth, 48, 48, 5, 0.9, lambda _: np.zeros(400))
    assert nothing == plan.Way(0, len(lists))  # exact search


def test_a_block_that_fails_ends_the_search(monkeypatch):
    def fail(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(self_join, "nearest_of", fail)
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="broken"):
        NeighborSearch(index="self-join").fit(blobs(1000)).self_neighbors(5)
    assert torch.get_num_threads() == threads
