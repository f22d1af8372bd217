"""Engines on other machines, as far as one can see without Ray: names, errors, shards, merging."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from graphclust.distributed import RayEngine
from graphclust.distributed.rows import MappedFile, cut, read
from graphclust.distributed.search import Found, merge
from graphclust.graph import NeighborSearch


def test_without_ray_one_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r"pip install graphclust\[distributed\]"):
        NeighborSearch(engine="ray").fit(np.eye(5))
    index, _ = NeighborSearch().fit(np.eye(5)).self_neighbors(2)
    assert index.shape == (5, 2)


def test_ray_is_not_imported_until_it_is_asked_for() -> None:
    code = (
        "import sys, graphclust.distributed\n"
        "graphclust.distributed.fit\n"
        "from graphclust.graph import NeighborSearch\n"
        "NeighborSearch().fit([[0.0], [1.0], [3.0]]).self_neighbors(1)\n"
        "print('ray' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("engine", ["dask", None, 3])
def test_unknown_engine(engine: object) -> None:
    with pytest.raises(ValueError, match="choose 'local', 'ray'"):
        NeighborSearch(engine=engine).fit(np.eye(5))


def test_ray_searches_exactly_or_not_at_all() -> None:
    with pytest.raises(ValueError, match="index='ivf' needs engine='local'"):
        NeighborSearch(index="ivf", engine=RayEngine()).fit(np.eye(5))


@pytest.mark.parametrize("name", ["shard_rows", "block_rows", "cpus_per_task"])
def test_sizes_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        NeighborSearch(engine=RayEngine(**{name: 0})).fit(np.eye(5))


@pytest.mark.parametrize(("n", "size"), [(10, 3), (10, 10), (1, 5), (2000, 300), (7, 1)])
def test_cuts_are_even_and_cover_all_rows(n: int, size: int) -> None:
    parts = cut(n, size)
    lengths = [stop - start for start, stop in parts]
    assert [row for start, stop in parts for row in range(start, stop)] == list(range(n))
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1


def test_merging_keeps_distance_then_index_and_drops_the_sample_itself() -> None:
    def found(index: list[list[int]], distance: list[list[float]], node: str) -> Found:
        return Found(np.array(index), np.array(distance), Counter({node: 1}))

    # queries are samples 3 and 4; both tie with others
    parts = (
        found([[7, 9], [9, 8]], [[1.0, 2.0], [0.0, 1.0]], "a"),
        found([[3, 0, 2], [4, 1, 0]], [[0.0, 1.0, 1.0], [0.0, 0.0, 5.0]], "b"),
    )
    result = merge(3, 3, *parts)
    assert result.index.tolist() == [[0, 2, 7], [1, 9, 8]]
    assert result.distance.tolist() == [[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]
    assert result.tasks == {"a": 1, "b": 1}
    assert merge(9, None, *parts).index.tolist() == [[3, 0, 2, 7, 9], [1, 4, 9, 8, 0]]


def test_the_file_behind_a_memory_map(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.float32).reshape(8, 3)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    file = MappedFile.of(mapped)
    assert file is not None
    np.testing.assert_array_equal(read(file.rows(2, 5)), x[2:5])
    # what may differ from the file has no file behind it
    assert MappedFile.of(x) is None
    assert MappedFile.of(torch.from_numpy(x)) is None
    assert MappedFile.of(mapped[1:]) is None
    assert MappedFile.of(np.load(tmp_path / "x.npy", mmap_mode="c")) is None
    with open(tmp_path / "x.npy", "r+b") as stream:
        stream.truncate(200)
    with pytest.raises(
        ValueError, match=r"x\.npy has 200 bytes instead of 224 .* storage that all machines see"
    ):
        file.rows(0, 1)
    (tmp_path / "x.npy").unlink()
    with pytest.raises(ValueError, match="is not there"):
        file.rows(0, 1)
