"""Search on Ray's own test cluster: several nodes on one machine, one of them killed, one added."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import graphclust.distributed
from graphclust.distributed import RayEngine, predict
from graphclust.graph import NeighborSearch, SampleGraph
from graphclust.images import read_images
from graphclust.methods import AEKMeans, ConsensusClustering

ray = pytest.importorskip("ray", reason="needs Ray: pip install graphclust[distributed]")
Cluster = importlib.import_module("ray.cluster_utils").Cluster
NodeAffinitySchedulingStrategy = importlib.import_module(
    "ray.util.scheduling_strategies"
).NodeAffinitySchedulingStrategy

pytestmark = pytest.mark.slow
STORE = 100 << 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    warm_up(cluster.head_node)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def second(cluster: Any) -> Any:
    """A second node, shared by the tests until one of them kills it."""
    if not cluster.worker_nodes:
        warm_up(add_node(cluster))
    return next(iter(cluster.worker_nodes))


def warm_up(node: Any) -> None:
    """Wait until a worker of the node has imported what it needs, which takes longer than any search here."""
    there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    task = ray.remote(importlib.import_module).options(num_cpus=1, scheduling_strategy=there)
    ray.wait(
        [task.remote("graphclust.distributed"), task.remote("graphclust.methods")], num_returns=2, timeout=120
    )


def add_node(cluster: Any) -> Any:
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    cluster.wait_for_nodes()
    return node


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """Rounded, with 40 copies of a sample: many ties, within shards and across them."""
    x = np.random.default_rng(0).normal(size=(2000, 16)).round(1).astype(np.float32)
    x[np.arange(40) * 47] = x[7]
    return x


def assert_same(found: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])  # not nearly: bit by bit


def search_with(engine: RayEngine, x: np.ndarray, between: Callable[[int], None]) -> NeighborSearch:
    """A search that calls `between` after each block that came back."""
    search = NeighborSearch(engine=engine).fit(x)

    def track(steps: Iterable) -> Iterator:
        for number, step in enumerate(steps):
            if number:
                between(number)
            yield step

    vars(search)["_track"] = track
    return search


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner_product", "manhattan", "minkowski"])
def test_two_nodes_give_the_result_of_one(
    cluster: Any, second: Any, x: np.ndarray, metric: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = NeighborSearch(metric, p=3, index="exact").fit(x).self_neighbors(10)
    for data in (mapped, x):
        engine = RayEngine(shard_rows=700, block_rows=500)
        search = NeighborSearch(metric, p=3, engine=engine).fit(data)
        assert_same(search.self_neighbors(10), expected)
        assert sum(engine.tasks_.values()) == 4 * 3
        assert search.index_name_ == "exact (ray, 3 shards)"


def test_new_samples(cluster: Any, x: np.ndarray) -> None:
    engine = RayEngine(shard_rows=500, block_rows=100)
    old, new = x[:1500], x[1400:]
    found = NeighborSearch(engine=engine).fit(old).neighbors(new, 7)
    assert_same(found, NeighborSearch(index="exact").fit(old).neighbors(new, 7))


def test_k_beyond_a_shard_and_partial_results_merged_in_a_tree(cluster: Any, x: np.ndarray) -> None:
    """40 shards of five samples, 50 neighbours: every shard gives all that it has."""
    part = x[:200]
    engine = RayEngine(shard_rows=5, block_rows=200)
    expected = NeighborSearch(index="exact").fit(part)
    assert_same(NeighborSearch(engine=engine).fit(part).self_neighbors(50), expected.self_neighbors(50))
    assert sum(engine.tasks_.values()) == 40
    assert_same(NeighborSearch(engine=engine).fit(part).self_neighbors(199), expected.self_neighbors(199))


def test_graph_is_the_same(cluster: Any, x: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    graph = SampleGraph.from_features(mapped, 8, engine="ray")
    expected = SampleGraph.from_features(x, 8, index="exact")
    for name in ("neighbor_index", "neighbor_distance", "edge_index", "edge_weight"):
        np.testing.assert_array_equal(graph[name], expected[name])
    assert graph.construction["estimated_recall"] == 1.0


def test_a_node_is_killed_in_the_middle(cluster: Any, second: Any, x: np.ndarray) -> None:
    """Its tasks, and the partial results in its memory (160 kB each, too large to be sent along), are made again."""
    engine = RayEngine(shard_rows=500, block_rows=100)
    killed: list[int] = []

    def kill(number: int) -> None:
        if not killed and engine.tasks_[second.node_id]:
            cluster.remove_node(second, allow_graceful=False)  # by SIGKILL
            killed.append(number)
        time.sleep(0 if killed else 1.0)

    found = search_with(engine, x, kill).self_neighbors(100)
    assert killed, "the second node did nothing before the search ended"
    assert killed[0] < 19  # blocks were left to do
    assert_same(found, NeighborSearch(index="exact").fit(x).self_neighbors(100))


def test_a_node_added_during_the_run_is_used(cluster: Any, x: np.ndarray) -> None:
    engine = RayEngine(shard_rows=500, block_rows=20)
    added: list[Any] = []

    def add(number: int) -> None:
        if number == 3:
            assert len(engine.tasks_) == 1  # the head alone so far
            added.append(add_node(cluster))
        if added and not engine.tasks_[added[0].node_id]:
            time.sleep(0.5)

    found = search_with(engine, x, add).self_neighbors(10)
    assert engine.tasks_[added[0].node_id] > 0
    assert len(engine.tasks_) == 2
    cluster.remove_node(added[0])
    assert_same(found, NeighborSearch(index="exact").fit(x).self_neighbors(10))


def test_a_job_killed_as_a_whole_goes_on_in_its_folder(cluster: Any, x: np.ndarray, tmp_path: Path) -> None:
    def die(number: int) -> None:
        if number == 6:
            raise KeyboardInterrupt

    engine = RayEngine(shard_rows=1000, block_rows=200)
    with pytest.raises(KeyboardInterrupt):
        search_with(engine, x, die).self_neighbors(10, folder=tmp_path / "search")
    again = RayEngine(shard_rows=500, block_rows=200)  # other shards: the result of a block is the same
    expected = NeighborSearch(index="exact").fit(x).self_neighbors(10)
    search = NeighborSearch(engine=again).fit(x)
    assert_same(search.self_neighbors(10, folder=tmp_path / "search"), expected)
    assert sum(again.tasks_.values()) == 4 * 4  # four of ten blocks were left
    assert_same(search.self_neighbors(10, folder=tmp_path / "search"), expected)
    assert not again.tasks_  # nothing left to do
    with pytest.raises(ValueError, match="other data or parameters"):
        search.self_neighbors(9, folder=tmp_path / "search")


def test_a_file_that_the_machines_do_not_see(cluster: Any, x: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", x)
    search = NeighborSearch(engine="ray").fit(np.load(tmp_path / "x.npy", mmap_mode="r"))
    (tmp_path / "x.npy").unlink()
    with pytest.raises(ValueError, match=r"x\.npy is not there .* storage that all machines see"):
        search.self_neighbors(3)


def test_features_of_images(cluster: Any, second: Any, digits: Any, tmp_path: Path) -> None:
    """By two machines as by one, in the same order; what cannot be read is listed."""
    for number, image in enumerate(digits[0][:30]):
        pixels = Image.fromarray((image.reshape(8, 8) * 255).astype(np.uint8)).resize((80 + number, 80))
        pixels.save(tmp_path / f"{number:03}.png")
    for number in (4, 5, 6, 17):  # a whole block, and one in another
        (tmp_path / f"{number:03}.png").write_bytes(b"no image")

    def means(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), 8, -1).mean(axis=2)

    expected = read_images(tmp_path, means, cache=None)
    engine = RayEngine(block_rows=3)
    importlib.import_module("ray.cloudpickle").register_pickle_by_value(sys.modules[__name__])
    found = graphclust.distributed.read_images(tmp_path, means, cache=None, engine=engine)
    np.testing.assert_array_equal(found.x, expected.x)
    assert found.paths == expected.paths and len(found) == 26
    assert found.skipped == expected.skipped and len(found.skipped) == 4
    assert found.settings == expected.settings
    assert found.open(3).size == expected.open(3).size
    assert sum(engine.tasks_.values()) == 10
    with pytest.raises(ValueError, match="features are pixels"):
        graphclust.distributed.read_images(tmp_path, "pixels")
    with pytest.raises(ValueError, match="not made of image files alone"):
        graphclust.distributed.read_images(np.zeros((5, 80, 80), np.uint8), means)
    with pytest.raises(ValueError, match="no image that can be read"):
        graphclust.distributed.read_images(tmp_path / "017.png", means, cache=None)


@pytest.mark.parametrize("method", [ConsensusClustering, AEKMeans])
def test_labels_in_blocks(cluster: Any, digits: Any, tmp_path: Path, method: Any) -> None:
    """A method that joins new samples to its graph, and one with a network alone."""
    x = digits[0]
    few = {} if method is ConsensusClustering else {"hidden_channels": (32,), "pretrain_epochs": 2}
    model = method(n_clusters=10, random_state=0, **few).fit(x[:600])
    model.save(tmp_path / "model")
    np.save(tmp_path / "new.npy", x[500:1100])
    mapped = np.load(tmp_path / "new.npy", mmap_mode="r")
    expected = model.predict(x[500:1100])
    engine = RayEngine(block_rows=130)
    np.testing.assert_array_equal(predict(tmp_path / "model", mapped, engine=engine), expected)
    assert sum(engine.tasks_.values()) == 5
    found = predict(tmp_path / "model", x[500:1100], engine=engine, out=tmp_path / "labels.npy")
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), expected)
    with pytest.raises(ValueError, match="features"):
        predict(tmp_path / "model", x[:5, :3])


def test_labels_while_a_node_comes_and_goes(
    cluster: Any, digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that joins labels blocks; what it had under way when it is killed is done again on the other."""
    x = digits[0]
    model = AEKMeans(10, random_state=0, hidden_channels=(32,), pretrain_epochs=2).fit(x[:600])
    model.save(tmp_path / "model")
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node)
    engine = RayEngine(block_rows=10)
    inference = importlib.import_module("graphclust.distributed.inference")
    run_blocks, events = inference.run_blocks, {}

    def watched(*arguments: Any) -> Iterator:
        for number, block in enumerate(run_blocks(*arguments)):
            yield block  # counted by then
            if number == 3:
                assert set(engine.tasks_) == {cluster.head_node.node_id}
                events["added"] = add_node(cluster)
            elif "killed" not in events and "added" in events:
                if engine.tasks_[events["added"].node_id]:
                    cluster.remove_node(events["added"], allow_graceful=False)  # by SIGKILL
                    events["killed"] = number
                else:
                    time.sleep(0.5)

    monkeypatch.setattr(inference, "run_blocks", watched)
    found = predict(tmp_path / "model", x, engine=engine)
    assert "killed" in events, "the added node did nothing before all blocks had labels"
    assert events["killed"] < 179  # of 180 blocks: some were left to do
    assert engine.tasks_[events["added"].node_id] > 0
    assert sum(engine.tasks_.values()) == 180
    np.testing.assert_array_equal(found, model.predict(x))
