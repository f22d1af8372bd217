"""Labels of new samples by a saved model, in blocks on the machines of a Ray cluster."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphclust._checks import check_features, share_tensor
from graphclust._files import new_map, replacing
from graphclust._storage import resolve, version_at
from graphclust.distributed._ray import connect, run_blocks
from graphclust.distributed.engine import RayEngine
from graphclust.distributed.rows import FilePart, MappedFile, cut, part_of, read


def predict(
    model: str | os.PathLike[str],
    x: Any,
    *,
    engine: RayEngine | None = None,
    out: str | os.PathLike[str] | None = None,
) -> NDArray[np.int64]:
    """Cluster of each new sample, as the saved model's ``predict`` gives it, computed block by block on a Ray cluster.

    Methods with a graph join each new sample to training samples alone, so a label does not depend on the block. What
    may differ from one call over all samples is the last bit of a probability, and so the label of a sample whose two
    best clusters tie. With ``index="auto"`` a very large call on one machine may search the neighbours approximately,
    where those of a block are searched exactly.

    Parameters
    ----------
    model : path
        What ``save`` wrote, on storage that all machines share, or an address such as ``s3://bucket/model``.
    x : array, tensor or memory map, shape [M, d]
        A memory map of a file is mapped by each machine, see `RayEngine`.
    engine : RayEngine, optional
        ``block_rows`` samples are a task; ``shard_rows`` is not used.
    out : path, optional
        A .npy file for the labels, written as they come; it takes its name when it is complete. The result is then a
        memory map of it.

    Returns
    -------
    ndarray, int64, shape [M]

    Raises
    ------
    FileNotFoundError, ValueError
        When there is no model in the folder, or ``x`` does not fit it.
    RuntimeError
        When the model is saved again before all samples are labelled: some labels would be the new model's.
    ImportError
        When Ray is not installed.
    """
    engine = engine or RayEngine()
    place = resolve(model)
    folder = place if isinstance(place, str) else place.absolute()
    if isinstance(folder, Path) and not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; pass the one that the model was saved to")
    data = check_features(x, "x")
    engine.check(data.device)
    m = len(data)
    blocks = cut(m, engine.block_size(m))
    if out is None:
        labels = np.empty(m, np.int64)
        _fill(labels, engine, folder, MappedFile.of(x) or data, blocks)
        return labels
    with replacing(Path(out)) as partial:
        table = new_map(partial, (m,), np.int64, "or name a file on another disk in out=")
        _fill(table, engine, folder, MappedFile.of(x) or data, blocks)
        table.flush()
    return np.load(out, mmap_mode="r")


def _fill(
    labels: np.ndarray, engine: RayEngine, folder: Path | str, x: Any, blocks: list[tuple[int, int]]
) -> None:
    ray = connect(engine.address)
    task = ray.remote(num_cpus=engine.cpus_per_task, max_retries=engine.max_retries)(label_block)
    stamp = _stamp(folder)

    def submit(block: tuple[int, int]) -> Any:
        return task.remote(str(folder), stamp, part_of(ray, x, *block))

    engine.tasks_.clear()
    for (start, stop), (found, node) in run_blocks(ray, blocks, submit, 1):
        labels[start:stop] = found
        engine.tasks_[node] += 1


def _stamp(folder: Path | str) -> str:
    """What changes when the model is saved again."""
    if isinstance(folder, str):
        return str(version_at(folder))
    try:
        return str(max((file.stat().st_mtime_ns for file in folder.rglob("*")), default=""))
    except FileNotFoundError:  # its files are being replaced
        return ""


def label_block(folder: str, stamp: str, part: FilePart | np.ndarray) -> tuple[NDArray[np.int64], str]:
    """Labels of a block, and Ray's id of the machine that gave them.

    ``stamp`` tells one save from the next, so that a worker reads a new one again.
    """
    import ray

    labels = _model(folder, stamp).predict(share_tensor(read(part)))
    return np.asarray(labels, dtype=np.int64), ray.get_runtime_context().get_node_id()


@lru_cache(maxsize=1)
def _model(folder: str, stamp: str) -> Any:
    """The saved model, if it is the one that the stamp was taken of."""
    from graphclust.methods import load

    place = resolve(folder)
    changed = (
        f"the model in {folder} was saved again while it was used: part of the labels would be the new model's; call "
        "predict again, and save to another folder while a call is running"
    )
    try:
        model = load(folder, device="cpu")
    except (OSError, ValueError) as error:
        if _stamp(place) != stamp:  # files of two models, or none between them
            raise RuntimeError(changed) from error
        raise
    if _stamp(place) != stamp:
        raise RuntimeError(changed)
    return model
