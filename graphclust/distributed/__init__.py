"""Work on more than one machine, on Ray: features of images, exact search in shards, training by several
processes, labels in blocks.

Ray is imported when a job starts, the methods by the workers that label and by `fit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphclust.distributed.engine import RayEngine
from graphclust.distributed.inference import predict
from graphclust.distributed.rows import open_features

if TYPE_CHECKING:
    from graphclust.distributed.images import read_images
    from graphclust.distributed.training import fit

__all__ = ["RayEngine", "fit", "open_features", "predict", "read_images"]


def __getattr__(name: str) -> Any:
    # The search alone, on many machines, has no need of the methods.
    if name == "fit":
        from graphclust.distributed.training import fit

        return fit
    if name == "read_images":
        from graphclust.distributed.images import read_images

        return read_images
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
