"""The one training loop: full batch and mini-batch, devices, precision, checkpoints, resume, inference in pieces."""

from graphclust.training.batches import Batch, BatchSource
from graphclust.training.inference import in_blocks, layerwise_logits
from graphclust.training.stage import Stage, Step
from graphclust.training.trainer import Trainer, choose_device, choose_precision

__all__ = [
    "Batch",
    "BatchSource",
    "Stage",
    "Step",
    "Trainer",
    "choose_device",
    "choose_precision",
    "in_blocks",
    "layerwise_logits",
]
