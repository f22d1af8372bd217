"""The published methods as estimators with one interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphclust.methods.base import DeepClusterer
from graphclust.methods.files import read_meta, saved_folder
from graphclust.methods.vgdcn import VGDCN

__all__ = ["VGDCN", "DeepClusterer", "load"]


def load(folder: str | Path, **parameters: Any) -> DeepClusterer:
    """Read a saved estimator of any method; see `DeepClusterer.load`."""
    folder = saved_folder(folder)
    method = read_meta(folder)["method"]
    classes = {c.__name__: c for c in (VGDCN,)}
    if method not in classes:
        raise ValueError(
            f"{folder} holds a {method!r}, which this graphclust does not have; it has {', '.join(classes)}"
        )
    return classes[method].load(folder, **parameters)
