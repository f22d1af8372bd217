"""Feature files in, label tables out: what the command line reads and writes."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import socket
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from graphclust._tables import listed, read_table

__all__ = [
    "FeatureTable",
    "naming_full_disk",
    "new_map",
    "open_map",
    "read_features",
    "replacing",
    "table_format",
    "write_labels",
]

# Names that an .npz file often gives its features, the surest first.
_FEATURE_KEYS = ("x", "X", "features", "embeddings", "data", "images")
_TEXT = (".csv", ".tsv", ".txt")
#: How files of features end.
READABLE = (".npy", ".npz", *_TEXT, ".parquet", *(f"{ending}.gz" for ending in _TEXT))
#: The same for messages.
READABLE_AS_TEXT = ".npy, .npz, .parquet, .csv, .tsv or .txt (these three also with .gz)"


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
    columns : list of str or None
        Names of the d features, of a table that has a header.
    names : ndarray of shape (N,) or None
        Names of the samples, of a table that has some.
    """

    x: np.ndarray
    labels: np.ndarray | None = None
    image_shape: tuple[int, ...] | None = None
    columns: list[str] | None = None
    names: np.ndarray | None = None

    def data(self) -> Any:
        """What an estimator is given: images, a data frame where the columns have names, or rows."""
        if self.image_shape is not None:
            return self.x.reshape(-1, *self.image_shape)
        if self.columns is None:
            return self.x
        from pandas import DataFrame

        return DataFrame(self.x, columns=self.columns, copy=False)


def read_features(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    labels: str | None = None,
    ignore: Sequence[str] = (),
    names: str | None = None,
    columns: Sequence[str] | None = None,
    by_command: bool = True,
) -> FeatureTable:
    """Read features, and true labels where asked for, from an array file or a table.

    Parameters
    ----------
    path : path or address
        ``.npy`` (opened as a memory map), ``.npz``, ``.csv``, ``.tsv`` or ``.txt`` (with or without a header, also
        with ``.gz``), ``.parquet``. What is at an address that fsspec knows (``s3://bucket/x.npy``) is fetched into
        the local cache first.
    key : str, optional
        The array of an ``.npz`` file, or the column of a table that holds a vector a row. By default the array named
        x, X, features, embeddings, data or images, else the only one; of a table all columns that are left.
    labels : str, optional
        The array or column with the true labels, or (for ``.npy``) another ``.npy`` file.
    ignore : sequence of str, optional
        Columns of a table to leave out.
    names : str, optional
        Column of a table with the samples' names, which is no feature.
    columns : sequence of str, optional
        The features that a model was fitted to: of a table with a header these are taken, in this order, whatever else
        there is.
    by_command : bool
        Whether the caller has the options of the command line, for messages to name.

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
    from graphclust._storage import fetch_file, resolve  # which in turn writes by `replacing`

    place = resolve(path)
    path = fetch_file(place) if isinstance(place, str) else place
    if not path.is_file():
        what = "does not exist"
        if path.exists():
            what = (
                "is a folder, not a file"
                if path.is_dir()
                else "is no regular file (a pipe is read once only)"
            )
        raise FileNotFoundError(f"{path} {what}: give a file that ends in {READABLE_AS_TEXT}")
    suffix = path.suffix.lower()
    if not path.name.lower().endswith(READABLE):
        raise ValueError(
            f"{path} ends in {suffix or 'nothing'!r}: give a file that ends in {READABLE_AS_TEXT}"
        )
    if suffix in {".npy", ".npz"}:
        for given, what in ((ignore, "columns to ignore were"), (names, "a column of names was")):
            if given:
                raise ValueError(f"{what} named, and {path} is an array file without named columns")
    found: list[str] | None = None
    called: np.ndarray | None = None
    with _reading(path):
        if suffix == ".npy":
            array, true = _read_npy(path, key, labels)
        elif suffix == ".npz":
            array, true = _read_npz(path, key, labels, "key (--key)" if by_command else "column=")
        else:
            array, true, found, called = read_table(
                path,
                key=key,
                labels=labels,
                ignore=ignore,
                names=names,
                columns=columns,
                by_command=by_command,
            )
    x, image_shape = _as_rows(array, path)
    if true is not None and true.shape != (len(x),):
        raise ValueError(
            f"labels {labels!r} have shape {true.shape}, one for each of the {len(x)} samples is needed"
        )
    return FeatureTable(x, true, image_shape, found, called)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """A damaged file gets one error that names it, whatever its reader raises."""
    import gzip
    import zipfile
    import zlib

    try:
        yield
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, UnicodeDecodeError) as error:
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


def _read_npz(
    path: Path, key: str | None, labels: str | None, option: str
) -> tuple[np.ndarray, np.ndarray | None]:
    with np.load(path, allow_pickle=False) as arrays:
        names = list(arrays.files)
        if {"format", "shape", "data"} <= set(names):  # as scipy.sparse.save_npz writes it
            raise ValueError(
                f"{path} holds a sparse matrix: reduce it (sklearn.decomposition.TruncatedSVD), or save it dense "
                "(numpy.save of matrix.toarray())"
            )
        for name in (key, labels):
            if name is not None and name not in names:
                raise ValueError(f"{path} has no array {name!r}: it holds {listed(names)}")
        if key is None:
            left = [name for name in names if name != labels]
            known = [name for name in _FEATURE_KEYS if name in left]
            if not known and len(left) != 1:
                raise ValueError(f"{path} holds {listed(left)}: say with {option} which are the features")
            key = known[0] if known else left[0]
        return arrays[key], None if labels is None else arrays[labels]


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


def table_format(path: Path) -> str:
    """Tell csv from parquet by the ending of the file; ValueError for any other."""
    suffix = path.suffix.lower()
    if suffix not in {".csv", ".parquet"}:
        raise ValueError(f"{path} ends in {suffix or 'nothing'!r}: labels are written as .csv or .parquet")
    return suffix[1:]


def write_labels(
    path: Path,
    labels: np.ndarray,
    probabilities: np.ndarray | None,
    *,
    every: bool = False,
    names: np.ndarray | None = None,
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
    names : ndarray of shape (N,), optional
        Names of the samples, written as the column "name" beside the index.
    """
    import pandas as pd

    columns: dict[str, Any] = {"index": np.arange(len(labels))}
    if names is not None:
        columns["name"] = names
    columns["cluster"] = labels
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


def scratch_beside(path: Path) -> Path:
    """A name beside a file or folder that no other process or thread writes to; what dead ones left is removed.

    Under torchrun, for instance, every process saves the same model.
    """
    host = re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())
    ending = f".partial{path.suffix}"
    for left in path.parent.glob(f".{glob.escape(path.stem)}.{host}-*-*{ending}"):
        number = left.name.removesuffix(ending).split("-")[-2]
        if number.isdigit() and not is_running(int(number)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
    return path.with_name(f".{path.stem}.{host}-{os.getpid()}-{threading.get_ident()}{ending}")


def is_running(process: int) -> bool:
    """Whether a process of this machine is there; True where that cannot be asked."""
    if os.name == "nt":  # where the question would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to; the file takes the place of `path` when it is complete, and goes when it is not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = scratch_beside(path)
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
        if os.name == "posix":
            sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def is_no_folder(path: Path) -> bool:
    """Whether something else than a folder is there; by one look: between two another process may move its own away."""
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        return False


def sync(path: Path) -> None:
    """Have a file, or a folder's list of names, on the disk: a name that outlives its content is an empty file."""
    number = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        with suppress(OSError):  # a file system that cannot is as safe as it can be
            os.fsync(number)
    finally:
        os.close(number)


def new_map(path: Path, shape: tuple[int, ...], dtype: Any, remedy: str) -> np.memmap:
    """A new .npy file, mapped for writing, whose room on the disk is taken.

    Without that a disk that runs full in the middle ends the process (SIGBUS) instead of raising.

    Raises
    ------
    OSError
        When there is no room; `remedy` ends its message. No file is left.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with open(path, "r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raise OSError(
            error.errno, f"no room for {size:,} bytes in {str(path.parent)!r}; free some, {remedy}"
        ) from error
    return array


def open_map(path: Path, place: object, remedy: str) -> np.memmap:
    """An .npy file, mapped for reading; `place` is what the caller's user named.

    Raises
    ------
    ValueError
        When it cannot be mapped; `remedy` ends its message.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{place} is no .npy file that can be mapped ({error}); {remedy}") from error
    if not isinstance(array, np.memmap):
        raise ValueError(f"{place} is no .npy file; {remedy}")
    return array


@contextmanager
def naming_full_disk(place: Path, what: str) -> Iterator[None]:
    """One OSError for a disk that runs full while `what` is written, also where safetensors found it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        # safetensors says the number in words alone.
        in_words = isinstance(error, SafetensorError) and any(
            f"os error {code})" in str(error) for code in full
        )
        if not in_words and getattr(error, "errno", None) not in full:
            raise
        raise OSError(
            errno.ENOSPC,
            f"no room for {what}: {shutil.disk_usage(place).free:,} bytes are free; free some, or name a folder on "
            "another disk. What was there before is unchanged",
            str(place),
        ) from error
