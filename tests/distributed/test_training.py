"""Training on Ray's own test cluster: several nodes, killed in the middle, and added while it runs."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

import graphclust.distributed
from graphclust.distributed import RayEngine
from graphclust.methods import DEC, KMeans
from graphclust.training.checkpoint import read_checkpoint

STORE = 100 << 20


def runtime_context() -> Any:
    """Ray's, of the process that trains."""
    return importlib.import_module("ray").get_runtime_context()


@dataclass(eq=False, repr=False, kw_only=True)
class Holding(DEC):
    """Stops in the last stage, after checkpoints, for as long as there is a file ``hold``.

    Parameters
    ----------
    place : str
        Folder of that file; ``reached`` is written there, and for each process which machine it is on, and of how many.
    """

    place: str = ""

    def _loss(self, model: Any, batch: Any) -> Any:
        hold = Path(self.place) / "hold"
        if hold.exists():
            hold.with_name("reached").touch()
            hold.with_name(f"{dist.get_world_size()}-{runtime_context().get_node_id()}").touch()
            while hold.exists():
                time.sleep(0.05)
        return super()._loss(model, batch)


@dataclass(eq=False, repr=False, kw_only=True)
class Failing(DEC):
    """The second process alone finds something wrong, when it trains."""

    def _loss(self, model: Any, batch: Any) -> Any:
        if dist.is_initialized() and dist.get_rank() == 1:
            raise ValueError("wrong on one machine")
        return super()._loss(model, batch)


def model(place: Path) -> Holding:
    small: dict[str, Any] = {"hidden_channels": (32,), "pretrain_epochs": 3, "epochs": 3, "batch_size": 100}
    return Holding(10, random_state=0, tolerance=None, place=str(place), **small)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="needs Ray: pip install graphclust[distributed]")
    pytest.importorskip("ray.train", reason="needs Ray Train: pip install graphclust[distributed]")
    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    cluster = importlib.import_module("ray.cluster_utils").Cluster(initialize_head=True, head_node_args=head)
    # The machines cannot import this file.
    importlib.import_module("ray.cloudpickle").register_pickle_by_value(sys.modules[__name__])
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def add_node(cluster: Any) -> Any:
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    cluster.wait_for_nodes()
    return node


@pytest.fixture(scope="module")
def x(digits: Any) -> np.ndarray:
    return digits[0][:600]


@pytest.fixture(scope="module")
def second(cluster: Any) -> Any:
    return add_node(cluster)


@pytest.fixture(scope="module")
def unbroken(
    cluster: Any, second: Any, x: np.ndarray, tmp_path_factory: Any
) -> tuple[Holding, RayEngine, Path]:
    """Trained on two nodes."""
    folder, engine = tmp_path_factory.mktemp("unbroken"), RayEngine()
    np.save(folder / "x.npy", x)
    mapped = np.load(folder / "x.npy", mmap_mode="r")
    return graphclust.distributed.fit(model(folder), mapped, folder=folder, engine=engine), engine, folder


@pytest.mark.slow
def test_two_nodes_train_one_model(
    cluster: Any, second: Any, unbroken: tuple[Holding, RayEngine, Path], x: np.ndarray
) -> None:
    fitted, engine, folder = unbroken
    assert engine.tasks_ == {cluster.head_node.node_id: 1, second.node_id: 1}
    assert [record["epoch"] for record in fitted.history_] == [1, 2, 3] * 2
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint", "model", "outcome.json", "x.npy"]
    assert fitted.get_params() == model(folder).get_params()  # what was set for the job is not the user's
    np.testing.assert_array_equal(fitted.predict(x), fitted.labels_)
    alone = model(folder).fit(x)  # no noise: the sums alone have another order
    assert np.mean(alone.labels_ == fitted.labels_) > 0.98


@pytest.mark.slow
@pytest.mark.parametrize("retries", [0, 3])
def test_what_one_process_says_of_the_input_ends_the_job(
    cluster: Any, second: Any, x: np.ndarray, tmp_path: Path, retries: int
) -> None:
    """Also where the other waits for it in the middle of a step."""
    failing = Failing(10, random_state=0, hidden_channels=(32,), pretrain_epochs=1, epochs=1, batch_size=100)
    engine = RayEngine(max_retries=retries)
    with pytest.raises(ValueError, match="^wrong on one machine$"):
        graphclust.distributed.fit(failing, x, folder=tmp_path, engine=engine)


@pytest.mark.slow
def test_what_all_processes_say_of_the_input_ends_the_job(
    cluster: Any, second: Any, x: np.ndarray, tmp_path: Path
) -> None:
    engine = RayEngine()
    with pytest.raises(ValueError, match="n_samples=5 is smaller"):
        graphclust.distributed.fit(model(tmp_path), x[:5], folder=tmp_path, engine=engine)
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError, match="missing"):
        graphclust.distributed.fit(model(tmp_path), missing, folder=tmp_path, engine=engine)


@pytest.mark.slow
def test_a_node_is_killed_and_one_added(
    cluster: Any, second: Any, unbroken: tuple[Holding, RayEngine, Path], x: np.ndarray, tmp_path: Path
) -> None:
    """Training goes on from its last checkpoint with the new node, and ends bit by bit as the unbroken one."""
    (tmp_path / "hold").touch()
    engine = RayEngine()
    # The training is what waits in a thread: nodes can be added by the main one alone.
    pool = ThreadPoolExecutor(1)
    job = pool.submit(graphclust.distributed.fit, model(tmp_path), x, folder=tmp_path, engine=engine)
    try:
        while (
            not (tmp_path / "reached").exists() and not job.done()
        ):  # then the first stage is in the checkpoint
            time.sleep(0.1)
        cluster.remove_node(second, allow_graceful=False)  # by SIGKILL
        third = add_node(cluster)
        (tmp_path / "hold").unlink()
        fitted = job.result(timeout=600)
    finally:
        (tmp_path / "hold").unlink(missing_ok=True)
        pool.shutdown(wait=False)
    assert engine.tasks_ == {cluster.head_node.node_id: 1, third.node_id: 1}
    np.testing.assert_array_equal(fitted.labels_, unbroken[0].labels_)
    np.testing.assert_array_equal(fitted.probabilities_, unbroken[0].probabilities_)


@pytest.mark.slow
def test_a_node_added_while_it_trains_is_used(
    cluster: Any, x: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun by one process, the training goes on with two from its checkpoint; nothing was lost, nothing killed."""
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node)
    # Ray Train looks every 20 seconds which nodes there are; before, it would wait for one that is gone.
    time.sleep(25)
    head = cluster.head_node.node_id
    training = importlib.import_module("graphclust.distributed.training")
    monkeypatch.setattr(training, "_RESIZE_EVERY", 3.0)
    (tmp_path / "hold").touch()
    engine = RayEngine(max_retries=0)  # what joins is no failure
    pool = ThreadPoolExecutor(1)
    settings: dict[str, Any] = {"folder": tmp_path, "workers": (1, 2), "engine": engine}
    job = pool.submit(graphclust.distributed.fit, model(tmp_path), x, **settings)

    def wait_for(*names: str) -> None:
        while not all((tmp_path / name).exists() for name in names) and not job.done():
            time.sleep(0.1)

    try:
        wait_for(f"1-{head}")
        before = read_checkpoint(tmp_path / "checkpoint")
        added = add_node(cluster)
        wait_for(f"2-{head}", f"2-{added.node_id}")  # both are in a step of the last stage
        (tmp_path / "hold").unlink()
        fitted = job.result(timeout=600)
    finally:
        (tmp_path / "hold").unlink(missing_ok=True)
        pool.shutdown(wait=False)
    assert engine.tasks_ == {head: 1, added.node_id: 1}
    assert before is not None
    assert fitted.history_[:3] == before[1]["history"]  # with the seconds that one process took for them
    alone = model(tmp_path).fit(x)
    assert np.mean(alone.labels_ == fitted.labels_) > 0.98


def test_a_ray_without_elastic_training_takes_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    train = pytest.importorskip("ray.train", reason="needs Ray Train: pip install graphclust[distributed]")

    @dataclass
    class Old:
        num_workers: int

    monkeypatch.setattr(train, "ScalingConfig", Old)
    training: Any = importlib.import_module("graphclust.distributed.training")
    with pytest.raises(ValueError, match=r"workers=\(1, 2\): the installed Ray .* fixed number of processes"):
        training._scaling(importlib.import_module("ray"), (1, 2), RayEngine(), False)


# -- without a cluster -----------------------------------------------------------------------------------------------


def test_wrong_arguments(tmp_path: Path) -> None:
    x = np.eye(20)
    fit: Any = graphclust.distributed.fit  # called as by someone without a type checker
    with pytest.raises(TypeError, match="KMeans is not trained in batches"):
        fit(KMeans(2), x, folder=tmp_path)
    with pytest.raises(
        ValueError, match="folder=None is no path: name a folder on storage that all machines"
    ):
        fit(DEC(2), x, folder=None)
    with pytest.raises(ValueError, match="engine='dask' is not known"):
        fit(DEC(2), x, folder=tmp_path, engine="dask")
    with pytest.raises(ValueError, match="workers"):
        fit(DEC(2), x, folder=tmp_path, workers=0)
    with pytest.raises(ValueError, match="workers"):
        fit(DEC(2), x, folder=tmp_path, workers=(3, 2))
