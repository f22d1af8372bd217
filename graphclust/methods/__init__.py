"""The published methods as estimators with one interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphclust.methods.base import DeepClusterer, read_meta
from graphclust.methods.vgdcn import VGDCN

__all__ = ["VGDCN", "DeepClusterer", "load"]


def load(folder: str | Path, **parameters: Any) -> DeepClusterer:
    """Read a saved estimator of any method; see `DeepClusterer.load`."""
    method = read_meta(Path(folder))["method"]
    if method not in __all__:
        raise ValueError(
            f"{folder} holds a {method!r}, which this graphclust does not have; it has {__all__[:-2]}"
        )
    chosen: type[DeepClusterer] = globals()[method]
    return chosen.load(folder, **parameters)
