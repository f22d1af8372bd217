"""What a million samples need: results as they come, features from the map, batches made by other processes."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from scipy.sparse import issparse

from graphclust import DEC, DinkNet, load
from graphclust.graph import SampleGraph
from graphclust.training import inference
from graphclust.training.batches import BatchSource
from graphclust.training.inference import collect


@pytest.fixture
def logits():
    return torch.randn(1000, 12, generator=torch.Generator().manual_seed(0))


def test_small_results_are_dense(logits):
    labels, p = collect(logits.split(170), 1000)
    np.testing.assert_allclose(p, logits.softmax(dim=1).numpy(), rtol=1e-6)
    assert np.array_equal(labels, p.argmax(axis=1)) and labels.dtype == np.int64


def test_large_results_keep_the_five_largest(logits, monkeypatch):
    monkeypatch.setattr(inference, "MOST_DENSE", 11_999)
    labels, p = collect(logits.split(170), 1000)
    exact = logits.softmax(dim=1).numpy()
    assert issparse(p) and p.nnz == 5000 and np.array_equal(labels, exact.argmax(axis=1))
    kept = np.sort(exact, axis=1)[:, -5:]
    np.testing.assert_allclose(np.sort(p.toarray(), axis=1)[:, -5:], kept, rtol=1e-6)
    assert np.array_equal(np.asarray(p.argmax(axis=1)).ravel(), labels)


def test_results_are_written_as_they_come(logits, tmp_path):
    def blocks():
        for number, block in enumerate(logits.split(170)):
            if number == 3:  # the first rows are on the disk, not under their names
                partial = next(tmp_path.glob(".labels*"))
                assert np.array_equal(np.load(partial)[:510], logits[:510].argmax(dim=1).numpy())
                assert not (tmp_path / "labels.npy").exists()
            yield block

    labels, p = collect(blocks(), 1000, tmp_path)
    assert isinstance(labels, np.memmap) and sorted(f.name for f in tmp_path.iterdir()) == [
        "labels.npy",
        "top_indices.npy",
        "top_probabilities.npy",
    ]
    top, values = (np.load(tmp_path / f"top_{name}.npy") for name in ("indices", "probabilities"))
    assert np.array_equal(top[:, 0], np.load(tmp_path / "labels.npy")) and (np.diff(values) <= 0).all()
    assert np.array_equal(np.asarray(p.argmax(axis=1)).ravel(), labels)


def test_a_broken_run_leaves_the_results_before(logits, tmp_path):
    collect([logits], 1000, tmp_path)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}

    def breaks():
        yield -logits[:500]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(breaks(), 1000, tmp_path)
    with pytest.raises(ValueError, match="the blocks have 500 rows, but 1000 samples"):
        collect([logits[:500]], 1000, tmp_path)
    assert before == {f.name: f.read_bytes() for f in tmp_path.iterdir()}


def test_workers_make_the_same_batches():
    x = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)
    graph = SampleGraph.from_features(x, 5)
    alone = BatchSource(graph, num_neighbors=[3, 2], seed=7)
    helped = BatchSource(graph, num_neighbors=[3, 2], seed=7, num_workers=2)
    for epoch in (4, 5):
        pairs = list(
            zip(
                alone.epoch(epoch, 64, uses_graph=True),
                helped.epoch(epoch, 64, uses_graph=True),
                strict=True,
            )
        )
        assert len(pairs) == 7
        for a, b in pairs:
            assert torch.equal(a.x, b.x) and torch.equal(a.index, b.index)
            assert torch.equal(a.adjacency.edge_index, b.adjacency.edge_index)
            assert torch.equal(a.adjacency.propagation_weight, b.adjacency.propagation_weight)


OPTIONS = {"latent_dim": 4, "hidden_channels": (16,), "pretrain_epochs": 2, "epochs": 1, "batch_size": 64}


@pytest.mark.parametrize("method", [DEC, DinkNet])
def test_a_memory_map_gives_the_labels_of_the_array(tmp_path, method, monkeypatch):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 300)
    x = (rng.normal(size=(4, 9)) * 4)[y] + rng.normal(size=(300, 9))
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    rows = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = method(4, random_state=0, **OPTIONS).fit(rows)
    same = method(4, random_state=0, **OPTIONS).fit(np.array(rows))
    assert np.array_equal(model.labels_, same.labels_)
    # The same with sparse probabilities, kept and written.
    monkeypatch.setattr(inference, "MOST_DENSE", 0)
    sparse = method(4, random_state=0, **OPTIONS).fit(rows)
    assert np.array_equal(sparse.labels_, model.labels_) and issparse(sparse.probabilities_)
    sparse.save(tmp_path / "model")
    assert (load(tmp_path / "model").probabilities_ != sparse.probabilities_).nnz == 0
    written = model.predict(rows, out=tmp_path / "out")
    assert np.array_equal(written, model.predict(rows))
    assert np.array_equal(np.load(tmp_path / "out" / "labels.npy"), written)


def test_labels_of_equal_probabilities_are_the_first_of_them_sparse_as_dense(monkeypatch):
    p = torch.tensor(np.random.default_rng(0).choice([0.0, 0.25], size=(200, 12))).float()
    dense = collect([p], 200, are_logits=False)
    monkeypatch.setattr(inference, "MOST_DENSE", 0)
    sparse = collect([p], 200, are_logits=False)
    np.testing.assert_array_equal(sparse.labels, dense.labels)
    found = np.asarray(sparse.probabilities.argmax(axis=1)).ravel()
    np.testing.assert_array_equal(found, dense.labels)
    for row, label in enumerate(dense.labels):
        stored = sparse.probabilities.indices[5 * row : 5 * row + 5]
        assert label in stored and len(set(stored.tolist())) == 5
        np.testing.assert_array_equal(sparse.probabilities.data[5 * row : 5 * row + 5].max(), p[row].max())


@pytest.mark.skipif(sys.platform != "linux", reason="reads resident memory from /proc")
def test_training_reads_features_from_the_map(tmp_path):
    """200 MiB of features; the network, its batches and the codes take less than 130 MiB of anonymous memory."""
    code = f"""
        import threading, time, warnings
        import numpy as np, torch
        from graphclust import DinkNet
        from graphclust.graph import SampleGraph
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        def anonymous():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024
        rng = np.random.default_rng(0)
        rows = np.lib.format.open_memmap({str(tmp_path / "x.npy")!r}, "w+", np.float32, (102_400, 512))
        for start in range(0, 102_400, 6400):
            rows[start : start + 6400] = rng.random((6400, 512), dtype=np.float32)
        rows.flush()
        del rows
        def ring(n, file):
            ahead = torch.arange(n).roll(-1)
            edges = torch.cat([torch.stack([torch.arange(n), ahead]), torch.stack([ahead, torch.arange(n)])], dim=1)
            return SampleGraph.from_edges(edges, torch.from_numpy(file))
        options = dict(latent_dim=4, hidden_channels=(), pretrain_epochs=1, epochs=0, batch_size=1024, n_hops=1,
                       num_neighbors=(1, 1), random_state=0, precision="32-true")  # bfloat16 needs workspace
        file = np.load({str(tmp_path / "x.npy")!r}, mmap_mode="c")
        DinkNet(3, **options).fit(ring(600, np.array(file[:600])))  # what imports and threads take
        before, most, running = anonymous(), [0.0], [True]
        def watch():
            while running[0]:
                most[0] = max(most[0], anonymous())
                time.sleep(0.01)
        watcher = threading.Thread(target=watch)
        watcher.start()
        model = DinkNet(3, **options).fit(ring(102_400, file))
        running[0] = False
        watcher.join()
        print(most[0] - before, len(model.labels_))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    grown, n = done.stdout.split()
    assert int(n) == 102_400 and float(grown) < 130
