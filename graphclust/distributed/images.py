"""Features of image files by a network, in blocks on the machines of a Ray cluster."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from graphclust.distributed._ray import connect, run_blocks
from graphclust.distributed.engine import RayEngine
from graphclust.distributed.rows import cut
from graphclust.images import Images
from graphclust.images import read_images as read_here
from graphclust.images.items import FileItem
from graphclust.images.pipeline import NothingReadable
from graphclust.images.read import chosen_features
from graphclust.images.sources import open_source

#: Files of a task: seconds of work for a network, and a few megabytes of features to send back.
_BLOCK = 512


def read_images(
    source: Any, features: Any = "auto", *, engine: RayEngine | None = None, **settings: Any
) -> Images:
    """``graphclust.images.read_images`` of image files, computed block by block on a Ray cluster.

    The files are listed here, and read, decoded and encoded on the machines. The rows, names and what was skipped are
    in the order of one machine; a row may differ in its last bits, as the network is given other batches.

    Parameters
    ----------
    source : path or sequence of paths
        A folder of image files, or such files, on storage that all machines see under the same path.
    features : str, torch.nn.Module or callable
        A network, see `graphclust.images.read_images`. Pixels are not computed, so nothing is gained by other machines.
    engine : RayEngine, optional
        ``block_rows`` files are a task (512), ``cpus_per_task`` its processors. ``tasks_`` counts the blocks of each
        machine.
    **settings
        Further parameters of `graphclust.images.read_images`. A `cache` is that of each machine, or a shared folder.

    Returns
    -------
    Images

    Raises
    ------
    ValueError
        When nothing can be read, when these are not image files, or when their pixels are the features.
    ImportError
        When Ray is not installed.
    """
    engine = engine or RayEngine()
    started = time.perf_counter()
    opened = open_source(source, column=settings.get("column"))
    items = [item for item in opened.items if isinstance(item, FileItem)]
    if opened.features is not None or len(items) < len(opened.items):
        raise ValueError(
            f"{opened.where} is not made of image files alone, which other machines could open: unpack shards into a "
            "folder, or use graphclust.images.read_images"
        )
    features, mirror = chosen_features(opened, features, settings.pop("mirror", "auto"))
    if isinstance(features, str) and features == "pixels":
        raise ValueError("these features are pixels, which are only read: use graphclust.images.read_images")
    ray = connect(engine.address)
    task = ray.remote(num_cpus=engine.cpus_per_task, max_retries=engine.max_retries)(read_block)
    settings |= {
        "features": features,
        "mirror": mirror,
        "workers": settings.get("workers", engine.cpus_per_task),
    }
    kept = ray.put(settings)  # a network once, not with each block
    paths = [os.path.abspath(item.path) for item in items]

    def submit(block: tuple[int, int]) -> Any:
        return task.remote(paths[slice(*block)], kept)

    engine.tasks_.clear()
    parts: dict[int, Images | list] = {}
    for (start, _), (found, node) in run_blocks(ray, cut(len(paths), engine.block_rows or _BLOCK), submit, 1):
        parts[start] = found
        engine.tasks_[node] += 1
    whole = Images(np.empty((0, 0), np.float32), [], list(opened.skipped))
    read: list[Images] = []
    for _, part in sorted(parts.items()):
        if isinstance(part, Images):
            read.append(part)
        whole.skipped += part.skipped if isinstance(part, Images) else part
    if not read:
        raise ValueError(f"{opened.where} holds no image that can be read: {whole.skipped[0].reason}")
    whole.x = np.concatenate([part.x for part in read])
    whole.paths = [path for part in read for path in part.paths]
    whole.items = [item for part in read for item in part.items]
    whole.settings, whole.seconds = read[0].settings, time.perf_counter() - started
    return whole


def read_block(paths: list[str], settings: dict[str, Any]) -> tuple[Images | list, str]:
    """The images of some files, or why none of them can be read; and Ray's id of the machine that read them."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    try:
        return read_here(paths, **settings), node
    except NothingReadable as error:
        return error.skipped, node
