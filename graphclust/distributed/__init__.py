"""Work on more than one machine, on Ray: exact search in shards and blocks, labels in blocks.

Ray is imported when a job starts, the methods by the workers that label.
"""

from graphclust.distributed.engine import RayEngine
from graphclust.distributed.inference import predict

__all__ = ["RayEngine", "predict"]
