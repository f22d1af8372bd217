import json
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

import graphclust.graph._indexes as indexes
import graphclust.graph.self_join as self_join
import graphclust.graph.self_join_rounds as rounds
import graphclust.graph.self_join_state as state_module
from graphclust.graph import NeighborSearch, SampleGraph
from graphclust.graph._metrics import Metric, Rows
from graphclust.graph.self_join_lists import make_lists, smallest
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
    assert search.index_name_.startswith("self-join (3")


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


def test_visits_of_all_lists_are_exact():
    x = np.random.default_rng(0).random((3000, 64), dtype=np.float32)  # 11 lists, of which no few suffice
    search = NeighborSearch(index="self-join", recall=1.0).fit(x)
    index, distance = search.self_neighbors(8)
    assert "11 visits" in search.index_name_
    exact = NeighborSearch(index="exact").fit(x).self_neighbors(8)
    assert torch.equal(index, exact[0]) and torch.equal(distance, exact[1])


def test_ties_go_to_the_smaller_index():
    grid = np.stack(np.meshgrid(np.arange(60), np.arange(60)), axis=-1).reshape(-1, 2).astype(np.uint8)
    index, distance = NeighborSearch(index="self-join", recall=1.0).fit(grid).self_neighbors(4)
    exact = NeighborSearch(index="exact").fit(grid).self_neighbors(4)
    assert torch.equal(distance, exact[1])
    inner = (exact[1] == 1).all(dim=1)  # four at distance 1, and no choice among equals
    assert inner.sum() == 58 * 58 and torch.equal(index[inner], exact[0][inner])


def test_same_seed_same_table_whatever_the_number_of_threads():
    x = blobs(6000)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    threads = torch.get_num_threads()
    first = NeighborSearch(index="self-join", random_state=3).fit(x).self_neighbors(10)
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

state._JOURNAL_SECONDS = 0
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
NeighborSearch(index="self-join", recall=0.999).fit(x).self_neighbors(10, folder=sys.argv[2])
"""


@pytest.mark.parametrize(
    ("stage", "block"),
    [("visit 0", 0), ("round 0", 1)]
    + [
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (("copy", 3), ("visit 1", 1), ("links of round 0", 0))
    ],
)
def test_a_killed_search_goes_on_and_ends_with_the_same_table(tmp_path, stage, block):
    x = blobs(5000)
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
        search = NeighborSearch(index="self-join", recall=0.999).fit(x)
        index, distance = search.self_neighbors(10, folder=folder)
    assert (folder / "order.npy").stat().st_mtime_ns == stamp  # the lists were not made again
    first = journal["blocks"] if journal["stage"] == stage else 0
    assert sorted(number for name, number in worked if name == stage)[0] == first
    whole = NeighborSearch(index="self-join", recall=0.999).fit(x).self_neighbors(10)
    assert torch.equal(index, whole[0]) and torch.equal(distance, whole[1])
    # A finished search has nothing left to do but the last step.
    worked.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JoinState, "run", note)
        again = NeighborSearch(index="self-join", recall=0.999).fit(x).self_neighbors(10, folder=folder)
    assert torch.equal(again[0], index) and {name for name, _ in worked} == {""}


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

    monkeypatch.setattr(state_module.os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"no room for .* bytes.*pass folder= on another disk"):
        NeighborSearch(index="self-join").fit(blobs(1000)).self_neighbors(5, folder=tmp_path / "state")


def test_no_temporary_files_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(state_module.tempfile, "tempdir", str(tmp_path))
    NeighborSearch(index="self-join").fit(blobs(1000)).self_neighbors(5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("width", "k"), [(1, 1), (5, 5), (17, 4), (300, 16), (1500, 22)])
def test_smallest_equals_a_sort(width, k):
    scores = np.random.default_rng(width).random((40, width)).astype(np.float32)
    scores[:, ::7] = np.inf
    scores[3] = 0.0
    kept = scores.copy()
    found = smallest(torch.from_numpy(scores), k)
    np.testing.assert_array_equal(scores, kept)
    assert found.shape == (40, k)
    truth = np.sort(scores, axis=1)[:, :k]
    np.testing.assert_allclose(np.take_along_axis(scores, found, axis=1), truth, rtol=2 * width / 2**23)
    np.testing.assert_array_equal(found[3], np.arange(k))  # equal scores: the smaller position


@pytest.mark.parametrize(("forward", "backward"), [(2, 3), (4, 4)])
def test_links_equal_their_definition(forward, backward, monkeypatch):
    rng = np.random.default_rng(0)
    n, reach = 50, forward + backward
    index = np.stack([rng.permutation(n)[:reach] for _ in range(n)]).astype(np.int32)
    index[5, 1:] = -1
    monkeypatch.setattr(rounds, "_LINK_BUDGET", 40)
    out = np.full((n + 1, reach), -1, dtype=np.int32)
    for low in range(0, n, 20):
        rounds.links(index, forward, backward, low, min(low + 20, n), out)
    assert (out[n] == -1).all()
    for target in range(n):
        who = sorted(
            (rank, source) for source in range(n) for rank in range(reach) if index[source, rank] == target
        )[:backward]
        wanted = [source for _, source in who] + [-1] * (backward - len(who))
        assert out[target].tolist() == index[target, :forward].tolist() + wanted


def test_lists_hold_every_sample_once():
    x = torch.from_numpy(blobs(5000))
    rows = Rows(x, Metric.make("euclidean"))
    with single_threaded_workers() as pool:
        lists, probes = make_lists(rows, 100, 4, 0, pool)
    np.testing.assert_array_equal(np.sort(lists.order), np.arange(5000))
    assert lists.ends[0] == 0 and lists.ends[-1] == 5000 and (np.diff(lists.ends) <= 400).all()
    distance = torch.cdist(x[lists.order], torch.from_numpy(lists.centroids)).numpy()
    own = np.repeat(np.arange(len(lists.centroids)), np.diff(lists.ends))
    np.testing.assert_array_equal(probes[:, 0], own)
    nearest = np.argsort(distance, axis=1)[:, :4]
    assert (nearest[:, 0] == own).mean() > 0.97
    assert np.mean([len(set(a) & set(b)) for a, b in zip(nearest, probes, strict=True)]) > 3.8


def test_a_block_that_fails_ends_the_search(monkeypatch):
    def fail(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(self_join, "visit_own", fail)
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="broken"):
        NeighborSearch(index="self-join").fit(blobs(1000)).self_neighbors(5)
    assert torch.get_num_threads() == threads
