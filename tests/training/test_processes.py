"""Several processes that train one network: what torchrun starts ends as one process does."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import adjusted_rand_score

from graphclust.graph import SampleGraph
from graphclust.metrics import clustering_accuracy
from graphclust.training.batches import BatchSource
from graphclust.training.processes import Processes, Share, join_processes
from graphclust.training.shared_norm import shared_batch_norm

SCRIPT = Path(__file__).with_name("together.py")


def load_script():
    spec = importlib.util.spec_from_file_location("together", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def torchrun(folder, *, processes=2):
    """What each of the processes found."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
    ]
    run = subprocess.run(
        [*command, str(SCRIPT), str(folder)], capture_output=True, text=True, env=environment, timeout=600
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(processes)]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    return torchrun(tmp_path_factory.mktemp("together"))


@pytest.fixture(scope="module")
def script():
    return load_script()


# -- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "count"), [(10, 3), (256, 2), (7, 3), (4, 2), (100, 7)])
def test_parts_cover_a_batch(size, count):
    parts = [Share(rank, count).of(size) for rank in range(count)]
    assert [i for part in parts for i in range(size)[part]] == list(range(size))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1 and min(lengths) >= 2


@pytest.mark.parametrize(("size", "count"), [(3, 2), (5, 3), (1, 2), (100, 1)])
def test_small_batches_are_not_cut(size, count):
    assert not Share(0, count).cuts(size)
    assert {(p.start, p.stop) for p in (Share(r, count).of(size) for r in range(count))} == {(0, size)}


@pytest.mark.parametrize("uses_graph", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_parts_of_an_epoch(digits, uses_graph, workers):
    """The same batches as one process draws, each sample in one part; a batch of three is in both."""
    if workers and not uses_graph:
        pytest.skip("plain batches have no workers")
    graph = SampleGraph.from_features(digits[0][:103], 4)
    whole = list(BatchSource(graph, num_neighbors=[2]).epoch(5, 20, uses_graph=uses_graph))
    parts = [
        list(
            BatchSource(graph, num_neighbors=[2], num_workers=workers).epoch(
                5, 20, uses_graph=uses_graph, share=Share(rank, 2)
            )
        )
        for rank in range(2)
    ]
    assert [batch.whole for batch in parts[0]] == [20] * 5 + [3]
    for one, *both in zip(whole, *parts, strict=True):
        assert both[0].size == (10 if one.size == 20 else 3)
        index = torch.cat([b.index for b in both]) if one.size == 20 else both[1].index
        assert torch.equal(index, one.index)
        assert all(torch.equal(b.x[: b.size], graph.x[b.index]) for b in both)


def test_a_process_alone_asks_nobody():
    alone = join_processes(torch.device("cpu"))
    assert type(alone) is Processes and alone.is_first and alone.weight(3, 7) == 1.0
    assert alone.agreed(lambda: 4) == 4
    tensor = torch.arange(3.0)
    assert alone.add_up(tensor) is tensor


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5, 5)])
def test_shared_batch_norm_is_torchs_own(shape):
    """One process: the same values, gradients and running statistics."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    weight, bias = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    results = []
    for normalise in (F.batch_norm, lambda *a: shared_batch_norm(lambda t: t, *a[:5], *a[6:])):
        given = x.clone().requires_grad_()
        mean, var = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
        out = normalise(given, mean, var, weight, bias, True, 0.3, 1e-5)
        out.pow(3).sum().backward()
        results.append((out, given.grad, mean, var))
    for mine, other in zip(*results):
        torch.testing.assert_close(mine, other)


# -- torchrun --------------------------------------------------------------------------------------------------------


def assert_close(a, b, *, relative):
    for name in ("state", "memory"):
        assert a[name].keys() == b[name].keys()
        for key, value in a[name].items():
            torch.testing.assert_close(value, b[name][key], rtol=relative, atol=relative / 10)
    for mine, other in zip(a["history"], b["history"], strict=True):
        assert mine.keys() == other.keys() and mine["stage"] == other["stage"]
        numbers = (
            [value for value in record.values() if not isinstance(value, str)] for record in (mine, other)
        )
        np.testing.assert_allclose(*numbers, rtol=relative)


@pytest.mark.slow
def test_two_processes_compute_what_one_does(together, script, digits):
    """Gradients, normalisation, frequencies, labels that change: the same but for the order of the sums."""
    one = script.train_exactly(digits[0])
    assert len(one["history"]) == 7 and all("changed" in record for record in one["history"])
    assert_close(together[0]["exact"], one, relative=1e-6)
    assert_close(together[0]["exact"], together[1]["exact"], relative=0)  # bit by bit


@pytest.mark.slow
def test_killed_and_resumed_ends_like_the_unbroken_run(together):
    for found in together:
        assert found["files"] == ["checkpoint.safetensors"]
        assert_close(found["resumed"], found["exact"], relative=0)


@pytest.mark.slow
def test_wrong_input_is_named_in_both(together):
    for found in together:
        assert "data_digest" in found["other data"] and "call fit with the same" in found["other data"]
        assert "latent_dim = 5 and 6" in found["other parameters"]


@pytest.mark.slow
def test_labels_of_two_processes(together, script, digits):
    """As near to those of one process as another seed of it: 0.84 - 0.9 was measured."""
    x, y = digits[0], digits[1][:900]
    for name in ("labels", "unseeded"):
        assert np.array_equal(together[0][name], together[1][name])
    labels, alone = together[0]["labels"], script.small_fit(x, random_state=0).labels_
    assert adjusted_rand_score(alone, labels) > 0.7
    assert abs(clustering_accuracy(y, labels) - clustering_accuracy(y, alone)) < 0.1
