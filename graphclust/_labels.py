"""Labels of any kind as integer codes: what the scores and the pictures share."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

_MISSING = "{name} has {count} missing labels (NaN or None): drop those samples first, or label noise -1"


def as_array(values: Any) -> np.ndarray:
    """Array from an array, a list or a tensor on any device, without importing torch."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def encode_labels(labels: Any, name: str) -> tuple[np.ndarray, list[Hashable]]:
    """Codes 0 .. K-1 of N labels, and the K labels themselves.

    The K labels come sorted where NumPy can sort them (numbers, or strings), else in the order of appearance.

    Parameters
    ----------
    labels : array-like of shape (N,)
        Any hashable labels: a list, an array, a tensor on any device, a data frame's column.
    name : str
        What the error messages call them.

    Raises
    ------
    TypeError
        If they are no array or list.
    ValueError
        If there are none, they are not one-dimensional, or one is NaN or None.
    """
    if hasattr(labels, "to_numpy"):  # pandas and polars columns
        labels = labels.to_numpy()
    elif hasattr(labels, "detach"):
        labels = as_array(labels)
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise TypeError(f"{name}={labels!r} is a {type(labels).__name__}: give one label per sample (N,)")
    if not isinstance(labels, np.ndarray):
        labels = list(labels)
        # NumPy would turn a mixed list into strings (and merge 1 with "1") and a list of tuples into a table.
        kinds = {str if isinstance(label, str) else type(label) for label in labels}
        if kinds == {str} or all(issubclass(kind, (int, float, np.number)) for kind in kinds):
            labels = np.asarray(labels)
    if len(labels) == 0:
        raise ValueError(f"{name} is empty: give at least one label")
    if isinstance(labels, np.ndarray):
        if labels.ndim != 1:
            raise ValueError(f"{name} has shape {labels.shape}: give one label per sample (N,)")
        if labels.dtype != object:
            if np.issubdtype(labels.dtype, np.floating) and np.isnan(labels).any():
                raise ValueError(_MISSING.format(name=name, count=int(np.isnan(labels).sum())))
            found, codes = np.unique(labels, return_inverse=True)
            return codes.astype(np.int64, copy=False), found.tolist()
    n_missing = sum(label is None or (isinstance(label, float) and math.isnan(label)) for label in labels)
    if n_missing:
        raise ValueError(_MISSING.format(name=name, count=n_missing))
    numbers: dict[Hashable, int] = {}
    codes = np.fromiter((numbers.setdefault(label, len(numbers)) for label in labels), np.int64, len(labels))
    return codes, list(numbers)
