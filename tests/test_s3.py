"""Graphs, models, checkpoints and features in a bucket: a real S3 API, served by moto on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphclust import _storage, load
from graphclust._files import read_features
from graphclust.distributed import open_features
from graphclust.distributed.rows import FilePart, MappedFile, read
from graphclust.graph import SampleGraph
from graphclust.methods import DEC, VGDCN
from graphclust.training.checkpoint import read_checkpoint

SMALL: dict[str, Any] = {"hidden_channels": (16,), "pretrain_epochs": 2, "epochs": 2}


@pytest.fixture
def graph(digits: Any) -> SampleGraph:
    return SampleGraph.from_features(digits[0][:200], 4)


def test_graphs(digits: Any, graph: SampleGraph, s3: Any) -> None:
    """Saved twice and opened: the second counts, and nothing of the first is left in the bucket."""
    SampleGraph.from_features(digits[0][:60], 4).save("s3://bucket/graph")
    assert SampleGraph.open("s3://bucket/graph").num_nodes == 60
    graph.save("s3://bucket/graph")
    opened = SampleGraph.open("s3://bucket/graph", verify=True)
    for name, value in graph.items():
        assert torch.equal(opened[name], value) if isinstance(value, torch.Tensor) else opened[name] == value
    s3.invalidate_cache()
    assert len({path.split("/")[2] for path in s3.find("bucket/graph")}) == 2  # a save, and what names it


def test_damage_is_named_and_a_broken_save_leaves_the_old(
    digits: Any, graph: SampleGraph, s3: Any, monkeypatch: pytest.MonkeyPatch, breaks_off: Any
) -> None:
    with pytest.raises(FileNotFoundError, match="nothing saved at s3://bucket/graph"):
        SampleGraph.open("s3://bucket/graph")
    graph.save("s3://bucket/graph")
    with monkeypatch.context() as patch:
        patch.setattr(s3, "put_file", breaks_off(s3.put_file, after=2))
        with pytest.raises(OSError, match="network"):
            SampleGraph.from_features(digits[0][:60], 4).save("s3://bucket/graph")
    assert SampleGraph.open("s3://bucket/graph").num_nodes == 200
    s3.invalidate_cache()
    (x,) = (path for path in s3.find("bucket/graph") if "/x." in path)
    s3.pipe_file(x, s3.cat_file(x)[:-4])
    shutil.rmtree(_storage._cache())
    with pytest.raises(ValueError, match=r"x\.1\.npy at s3://bucket/graph has"):
        SampleGraph.open("s3://bucket/graph")


@pytest.mark.parametrize("method", [DEC, VGDCN])
def test_models(digits: Any, s3: Any, method: Any) -> None:
    x = digits[0][:200]
    model = method(10, random_state=0, **SMALL).fit(x)
    model.save("s3://bucket/model")
    for opened in (load("s3://bucket/model"), method.load("s3://bucket/model")):
        np.testing.assert_array_equal(opened.labels_, model.labels_)
        np.testing.assert_array_equal(opened.predict(x), model.predict(x))


def test_a_killed_run_goes_on_from_its_bucket(
    digits: Any, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SMALL | {"random_state": 0}
    unbroken = DEC(10, **settings).fit(digits[0][:200])

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DEC, "_loss", die)  # of the second stage
        DEC(10, checkpoint="s3://bucket/run", **settings).fit(digits[0][:200])
    tensors, meta = read_checkpoint(Path("s3://bucket/run")) or ({}, {})
    assert tensors and meta["stage"] == 1
    resumed = DEC(10, checkpoint="s3://bucket/run", **settings).fit(digits[0][:200])
    assert resumed.history_[:2] == meta["history"]
    np.testing.assert_array_equal(resumed.labels_, unbroken.labels_)
    np.testing.assert_array_equal(resumed.probabilities_, unbroken.probabilities_)


def test_small_files(s3: Any) -> None:
    assert _storage.read_text("s3://bucket/run", "a.txt") is None
    _storage.write_text("s3://bucket/run", "a.txt", "one")
    _storage.write_text("s3://bucket/run", "b/c.txt", "two")
    assert _storage.read_text("s3://bucket/run", "a.txt") == "one"
    for name in ("a.txt", "b", "never"):
        _storage.remove("s3://bucket/run", name)
    assert _storage.read_text("s3://bucket/run", "a.txt") is None
    assert _storage.read_text("s3://bucket/run", "b/c.txt") is None


def test_features(digits: Any, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = digits[0][:100]
    for n in (100, 60):  # written again: what is in the cache does not count any more
        np.save(tmp_path / "x.npy", x[:n])
        s3.put_file(str(tmp_path / "x.npy"), "bucket/x.npy")
        mapped = open_features("s3://bucket/x.npy")
        assert isinstance(mapped, np.memmap) and mapped.mode == "r"
        np.testing.assert_array_equal(mapped, x[:n])
    assert len(list(_storage._cache().rglob("x.npy"))) == 1
    np.testing.assert_array_equal(read_features("s3://bucket/x.npy").x, x[:60])
    # a machine without that file fetches it
    file = MappedFile.of(mapped)
    assert file is not None and file.address == "s3://bucket/x.npy"
    monkeypatch.setenv("GRAPHCLUST_CACHE", str(tmp_path / "other"))
    np.testing.assert_array_equal(read(FilePart(file, 10, 30)), x[10:30])
    assert len(list((tmp_path / "other").rglob("x.npy"))) == 1
    with pytest.raises(FileNotFoundError, match="no file at s3://bucket/y"):
        open_features("s3://bucket/y.npy")
    s3.pipe_file("bucket/y.npy", b"no array")
    with pytest.raises(ValueError, match=r"s3://bucket/y\.npy is no \.npy file"):
        open_features("s3://bucket/y.npy")


def test_features_come_whole_or_not_at_all(
    digits: Any, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", digits[0][:100])
    s3.put_file(str(tmp_path / "x.npy"), "bucket/x.npy")
    with monkeypatch.context() as patch:
        patch.setattr(s3, "get_file", lambda source, target: Path(target).write_bytes(b"a part"))
        with pytest.raises(ValueError, match="came 6 bytes instead of 25,728"):
            open_features("s3://bucket/x.npy")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
        with pytest.raises(OSError, match="25,728 bytes are needed and 1,000 are free.*GRAPHCLUST_CACHE"):
            open_features("s3://bucket/x.npy")
    assert not list(_storage._cache().rglob("*.npy"))
    np.testing.assert_array_equal(open_features("s3://bucket/x.npy"), digits[0][:100])
