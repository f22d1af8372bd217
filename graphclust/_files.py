"""Feature files in, label tables out: what the command line reads and writes."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame, Series

__all__ = ["FeatureTable", "read_features", "replacing", "table_format", "write_labels"]

# Names that an .npz file often gives its features, the surest first.
_FEATURE_KEYS = ("x", "X", "features", "embeddings", "data", "images")
# Lines that tell what marks the decimals.
_FIRST_LINES = 100
_READABLE = (".npy", ".npz", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features of one file.

    Attributes
    ----------
    x : ndarray of shape (N, d)
        Features; a memory map where the file allows one. Images are flattened, 8-bit ones scaled to [0, 1].
    labels : ndarray of shape (N,) or None
        The true classes, where they were asked for; for scores alone.
    image_shape : tuple of int or None
        (H, W) or (H, W, C) where the file holds images.
    """

    x: np.ndarray
    labels: np.ndarray | None = None
    image_shape: tuple[int, ...] | None = None


def read_features(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    labels: str | None = None,
    ignore: Sequence[str] = (),
) -> FeatureTable:
    """Read features, and true labels where asked for, from an array file or a table.

    Parameters
    ----------
    path : path
        ``.npy`` (opened as a memory map), ``.npz``, ``.csv`` or ``.tsv`` (with or without a header), ``.parquet``.
    key : str, optional
        The array of an ``.npz`` file, or the column of a table that holds a vector a row. By default the array named
        x, X, features, embeddings, data or images, else the only one; of a table all columns that are left.
    labels : str, optional
        The array or column with the true labels, or (for ``.npy``) another ``.npy`` file.
    ignore : sequence of str, optional
        Columns of a table to leave out.

    Returns
    -------
    FeatureTable

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read as features; the message names the column or array, and the remedy.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}: give a file that ends in {', '.join(_READABLE)}")
    suffix = path.suffix.lower()
    if suffix not in _READABLE:
        raise ValueError(
            f"{path} ends in {suffix or 'nothing'!r}: give a file that ends in {', '.join(_READABLE)}"
        )
    if ignore and suffix in {".npy", ".npz"}:
        raise ValueError(f"columns to ignore were named, and {path} is an array file without named columns")
    with _reading(path):
        if suffix == ".npy":
            array, true = _read_npy(path, key, labels)
        elif suffix == ".npz":
            array, true = _read_npz(path, key, labels)
        else:
            array, true = _read_table(path, key, labels, ignore)
    x, image_shape = _as_rows(array, path)
    if true is not None and true.shape != (len(x),):
        raise ValueError(
            f"labels {labels!r} have shape {true.shape}, one for each of the {len(x)} samples is needed"
        )
    return FeatureTable(x, true, image_shape)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """A damaged file gets one error that names it, whatever its reader raises."""
    import zipfile
    import zlib

    try:
        yield
    except (EOFError, zipfile.BadZipFile, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged or not what its name says ({error})") from error
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path} cannot be read ({error})") from error


def _read_npy(path: Path, key: str | None, labels: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    if key is not None:
        raise ValueError(f"a key ({key!r}) was named, and {path} holds a single array without a name")
    true = None
    if labels is not None:
        if not (labels.endswith(".npy") and Path(labels).is_file()):
            raise ValueError(f"labels of {path} are read from another .npy file, and {labels!r} is none")
        true = np.load(labels, allow_pickle=False)
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":  # NumPy would take it for pickled objects, and advise to load these
            raise ValueError(f"{path} is damaged or not what its name says (no array that NumPy saved)")
    return np.load(path, mmap_mode="r", allow_pickle=False), true


def _read_npz(path: Path, key: str | None, labels: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    with np.load(path, allow_pickle=False) as arrays:
        names = list(arrays.files)
        for name in (key, labels):
            if name is not None and name not in names:
                raise ValueError(f"{path} has no array {name!r}: it holds {_listed(names)}")
        if key is None:
            left = [name for name in names if name != labels]
            known = [name for name in _FEATURE_KEYS if name in left]
            if not known and len(left) != 1:
                raise ValueError(f"{path} holds {_listed(left)}: say with key (--key) which are the features")
            key = known[0] if known else left[0]
        return arrays[key], None if labels is None else arrays[labels]


def _read_table(
    path: Path, key: str | None, labels: str | None, ignore: Sequence[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    table = _parse_table(path)
    table.columns = [str(name) for name in table.columns]
    names = list(table.columns)
    for name in (key, labels, *ignore):
        if name is not None and name not in names:
            raise ValueError(f"{path} has no column {name!r}: it holds {_listed(names)}")
    true = None if labels is None else table[labels].to_numpy()
    if key is not None:
        return _vectors(table[key], path), true
    for name in _row_numbers(table.drop(columns=[*ignore, *([] if labels is None else [labels])])):
        warnings.warn(
            f"{path}: column {name!r} counts the rows and is taken as a feature; leave it out if it is their number "
            "(--ignore)",
            stacklevel=2,
        )
    return _numbers(table.drop(columns=[*ignore, *([] if labels is None else [labels])]), path), true


def _row_numbers(table: DataFrame) -> list[str]:
    """Columns of whole numbers that grow by one from row to row."""
    import pandas as pd

    found = []
    for name in table.columns:
        column = table[name]
        if len(column) > 2 and pd.api.types.is_integer_dtype(column) and not column.isna().any():
            steps = np.diff(column.to_numpy(dtype=np.int64))
            if bool((steps == 1).all()):
                found.append(str(name))
    return found


def _parse_table(path: Path) -> DataFrame:
    import pandas as pd

    if path.suffix.lower() == ".parquet":
        return pd.read_parquet(path)
    encoding = _encoding(path)
    with path.open(encoding=encoding) as file:
        lines = list(islice(file, _FIRST_LINES))
    first = lines[0] if lines else ""
    separator = _separator(lines)
    decimal = _decimal_mark(lines, separator)
    # A first line of numbers alone is data. Columns without a header are called 0, 1, 2, ...
    header = None if all(_is_number(cell, decimal) for cell in first.strip().split(separator)) else 0
    try:
        return pd.read_csv(path, sep=separator, header=header, encoding=encoding, decimal=decimal)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty: one row a sample is needed") from None


def _encoding(path: Path) -> str:
    """UTF-8, or what spreadsheets of Western Europe write where the bytes are none."""
    with path.open(encoding="utf-8-sig") as file:
        try:
            while file.read(1 << 20):
                pass
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8-sig"


def _separator(lines: Sequence[str]) -> str:
    """A tab or semicolon that all lines have equally often (commas mark decimals too), or the commonest."""
    counted = [line for line in lines if line.strip()] or [""]
    for mark in "\t;":
        if mark in counted[0] and len({line.count(mark) for line in counted}) == 1:
            return mark
    return max(",;\t", key=counted[0].count)


def _decimal_mark(lines: Sequence[str], separator: str) -> str:
    """A comma where it stands inside of numbers, and no point does; spreadsheets of many countries write 1,5."""
    if separator == ",":
        return "."
    cells = [cell.strip().strip('"') for line in lines for cell in line.split(separator)]
    with_comma = any(re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", cell) for cell in cells)
    with_point = any(re.fullmatch(r"[+-]?\d*\.\d+([eE][+-]?\d+)?", cell) for cell in cells)
    return "," if with_comma and not with_point else "."


def _is_number(cell: str, decimal: str) -> bool:
    try:
        float(cell.strip().strip('"').replace(decimal, "."))
    except ValueError:
        return not cell.strip()  # an empty cell is a missing number, not a name
    return True


def _numbers(table: DataFrame, path: Path) -> np.ndarray:
    import pandas as pd

    wrong = [
        name
        for name in table.columns
        if not (pd.api.types.is_numeric_dtype(table[name]) or pd.api.types.is_bool_dtype(table[name]))
    ]
    if wrong:
        example = table[wrong[0]].dropna()
        shown = f", for example {example.iloc[0]!r}" if len(example) else ""
        raise ValueError(
            f"{path}: the values of {_listed(wrong)} are not numbers{shown}; leave the column out "
            "(--ignore), or name it as the true class (--labels)"
        )
    missing = table.isna().any()
    if missing.any():
        name = missing.idxmax()
        row = int(np.flatnonzero(table[name].isna())[0])
        raise ValueError(
            f"{path}: column {name!r} has no value in row {row} (from 0): fill it, or leave the column out (--ignore)"
        )
    return table.to_numpy(dtype=np.float64 if (table.dtypes == np.float64).any() else np.float32)


def _vectors(column: Series, path: Path) -> np.ndarray:
    """A column that holds one vector a row, as embedding tables have."""
    rows = [np.asarray(row, dtype=np.float32) if np.ndim(row) == 1 else None for row in column]
    lengths = {len(row) for row in rows if row is not None}
    if any(row is None for row in rows) or len(lengths) != 1:
        raise ValueError(f"{path}: column {column.name!r} must hold one vector a row, all of one length")
    return np.stack([row for row in rows if row is not None])


def _as_rows(array: np.ndarray, path: Path) -> tuple[np.ndarray, tuple[int, ...] | None]:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path} holds values of type {array.dtype}: real numbers are needed")
    if array.ndim not in (2, 3, 4) or array.size == 0:
        raise ValueError(
            f"{path} holds an array of shape {array.shape}: features [N, d] or images [N, H, W(, C)] are needed"
        )
    if array.ndim == 2:
        return array, None
    flat = array.reshape(len(array), -1)  # of a contiguous memory map: still a view of the file
    if flat.dtype == np.uint8:
        flat = flat.astype(np.float32) / 255
    return flat, array.shape[1:]


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return (shown or "nothing") + (f" and {len(names) - most} more" if len(names) > most else "")


def table_format(path: Path) -> str:
    """Tell csv from parquet by the ending of the file; ValueError for any other."""
    suffix = path.suffix.lower()
    if suffix not in {".csv", ".parquet"}:
        raise ValueError(f"{path} ends in {suffix or 'nothing'!r}: labels are written as .csv or .parquet")
    return suffix[1:]


def write_labels(
    path: Path, labels: np.ndarray, probabilities: np.ndarray | None, *, every: bool = False
) -> None:
    """Write one row a sample: its index, its cluster, the probability of that cluster.

    Parameters
    ----------
    path : Path
        Ends in ``.csv`` or ``.parquet``; replaced in one step, so that no reader sees half a table.
    labels : ndarray of shape (N,)
        Clusters.
    probabilities : ndarray of shape (N, K) or None
        Cluster probabilities; the column is left out without them.
    every : bool, default=False
        Also write all K probabilities of each sample, as columns p_0 ... p_{K-1}.
    """
    import pandas as pd

    columns: dict[str, Any] = {"index": np.arange(len(labels)), "cluster": labels}
    if probabilities is not None:
        # Of a sparse matrix, which many samples have, NumPy would make a matrix of one row.
        columns["probability"] = np.asarray(probabilities[np.arange(len(labels)), labels]).reshape(-1)
        if every:
            check_all_probabilities(probabilities)
            columns |= {
                f"p_{cluster}": probabilities[:, cluster] for cluster in range(probabilities.shape[1])
            }
    table = pd.DataFrame(columns)
    kind = table_format(path)
    with replacing(path) as partial:
        if kind == "csv":
            table.to_csv(partial, index=False, float_format="%.6g")
        else:
            table.to_parquet(partial, index=False)


def check_all_probabilities(probabilities: Any) -> None:
    """Raise ValueError for a sparse table: written out, it would have a column for each of very many clusters."""
    if hasattr(probabilities, "toarray"):
        n, k = probabilities.shape
        raise ValueError(
            f"all probabilities of {n:,} samples and {k:,} clusters are {n * k:,} numbers: leave out --probabilities, "
            "and read the largest ones from Python (estimator.predict_proba is a sparse matrix)"
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to; the file takes the place of `path` when it is complete, and goes when it is not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
