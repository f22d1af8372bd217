"""The folder that a saved estimator lives in: how it is replaced, and its JSON part."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix, issparse
from sklearn.base import BaseEstimator

from graphclust._files import is_no_folder, naming_full_disk, scratch_beside, sync
from graphclust._storage import fetch, file_checksum, resolve, sending

FORMAT_VERSION = 1
_META = "estimator.json"
#: Times that a folder is renamed while other processes do the same.
_ATTEMPTS = 100
_CHECKSUMS = "checksums.json"
_FILES = {_META, _CHECKSUMS, "model.safetensors", "results.safetensors", "keys.safetensors", "graph"}
_SPARSE = ("data", "indices", "indptr")
_KEYS = {"method", "parameters", "callables", "n_features", "feature_names"}
Estimator = TypeVar("Estimator", bound=BaseEstimator)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write to, which takes the place of `folder` when it is complete, and goes when it is not.

    At an address (`graphclust._storage`) it is a local one that is sent there.

    Raises
    ------
    ValueError
        When `folder` is a file, or holds anything that is not part of a saved estimator: it would be lost.
    """
    place = resolve(folder)
    if isinstance(place, str):
        with sending(place) as partial:
            yield partial
        return
    folder = place
    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = scratch_beside(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        with naming_full_disk(folder.parent, "the model"):
            yield partial
            _note_checksums(partial)
            _sync_all(partial)
        _take_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """Raise ValueError when `folder` is a file, or holds anything that is not part of a saved estimator."""
    if is_no_folder(folder):
        raise ValueError(f"{folder} is a file: name a folder")
    foreign = sorted({child.name for child in folder.glob("*")} - _FILES)
    if foreign:
        raise ValueError(
            f"{folder} holds other files ({', '.join(foreign[:3])}), which saving would remove: name an empty or a "
            "new folder"
        )


def _take_place(partial: Path, folder: Path) -> None:
    """Rename `partial` to `folder`, of which nothing is left; other processes may do the same."""
    previous = _beside(folder, "previous")
    for attempt in range(_ATTEMPTS):
        try:
            if folder.exists():
                shutil.rmtree(previous, ignore_errors=True)
                os.replace(folder, previous)
            os.replace(partial, folder)
            break
        except OSError as error:
            # Another process has moved the folder away, or has put its own there.
            others = error.errno in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST)
            if others and attempt + 1 < _ATTEMPTS:
                time.sleep(0.01 * random.random())
                continue
            if previous.exists() and not folder.exists():
                os.replace(previous, folder)
            raise
    if os.name == "posix":
        sync(folder.absolute().parent)  # before anything of the older model goes
    shutil.rmtree(previous, ignore_errors=True)


def _sync_all(folder: Path) -> None:
    """Have a folder and all that is in it on the disk: after a power cut a renamed folder may be there without it."""
    for path in [*folder.rglob("*"), folder]:
        if os.name == "posix" or path.is_file():
            sync(path)


def saved_folder(folder: str | Path) -> Path:
    """The folder itself, or what stood there before a save that was killed between its two renames.

    Of an address, the local copy.
    """
    place = resolve(folder)
    if isinstance(place, str):
        return fetch(place)
    folder = place
    previous = _beside(folder, "previous")
    return previous if not folder.exists() and previous.exists() else folder


def _note_checksums(folder: Path) -> None:
    """Write size and CRC-32 of the tensors' files; the graph has its own."""
    found = {path.name: file_checksum(path) for path in sorted(folder.glob("*.safetensors"))}
    (folder / _CHECKSUMS).write_text(json.dumps(found, indent=1), encoding="utf-8")


def _compare_checksums(folder: Path) -> None:
    """Raise ValueError where a file's content is not what was saved."""
    path = folder / _CHECKSUMS
    if not path.exists():  # a folder older than checksums, or one that was fetched and compared
        return
    try:
        noted = {name: int(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): fit and save again") from error
    for name, checksum in noted.items():
        file = folder / Path(name).name
        if not file.exists():
            raise ValueError(f"the model in {folder} cannot be read: {name} is missing; fit and save again")
        if file_checksum(file) != checksum:
            raise ValueError(
                f"the model in {folder} cannot be read: {name} has another checksum than when it was saved, its "
                "content changed or is not complete; restore it, or fit and save again"
            )


def _beside(folder: Path, what: str) -> Path:
    """Hidden sibling of a folder: no folder of the user's has its name."""
    folder = folder.absolute()
    return folder.with_name(f".{folder.name}.{what}")


def write_meta(folder: Path, estimator: Any, **more: Any) -> None:
    """Write the JSON part of a fitted estimator, with the format's version and what else its method keeps."""
    meta = {
        "format_version": FORMAT_VERSION,
        "method": type(estimator).__name__,
        "parameters": plain_parameters(estimator),
        # JSON knows lists only.
        "tuples": [k for k, v in estimator.get_params(deep=False).items() if isinstance(v, tuple)],
        "callables": [k for k, v in estimator.get_params(deep=False).items() if callable(v)],
        "n_features": estimator.n_features_in_,
        "feature_names": list(getattr(estimator, "feature_names_in_", [])),
        "image_shape": getattr(estimator, "image_shape_", None),
        "image_range": getattr(estimator, "image_range_", None),
        **more,
    }
    (folder / _META).write_text(json.dumps(meta, indent=1), encoding="utf-8")


def has_meta(folder: Path) -> bool:
    """Whether an estimator was saved in the folder."""
    return (folder / _META).is_file()


def read_meta(folder: Path, *more: str) -> dict[str, Any]:
    """The JSON part of a saved estimator, checked; `more` names what must be in it besides the common part."""
    path = folder / _META
    if not path.exists():
        raise FileNotFoundError(
            f"{folder} holds no saved estimator (no {_META}): name the folder that save or `graphclust cluster --out` "
            "wrote"
        )
    try:
        meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = meta.get("format_version")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): fit and save again") from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{folder} has format version {version}, this graphclust reads version {FORMAT_VERSION}: "
            "load it with the graphclust that wrote it, or fit again"
        )
    if missing := _KEYS.union(more) - set(meta):
        raise ValueError(f"{path} is damaged (it has no {', '.join(sorted(missing))}): fit and save again")
    return meta


def unfitted(
    cls: type[Estimator], folder: Path, callables: dict[str, Any], *more: str
) -> tuple[Estimator, dict[str, Any]]:
    """The estimator of a folder with its parameters and the names of its features, and the JSON part."""
    meta = read_meta(folder, *more)
    _compare_checksums(folder)
    if meta["method"] != cls.__name__:
        raise ValueError(
            f"{folder} holds a {meta['method']}, not a {cls.__name__}: use graphclust.load(folder)"
        )
    missing = [name for name in meta["callables"] if name not in callables]
    if missing:
        raise ValueError(
            f"{folder} was saved with a callable for {', '.join(missing)}, which files cannot hold: "
            f"pass it again, load(folder, {missing[0]}=...)"
        )
    unknown = sorted(set(meta["parameters"]) - set(cls._get_param_names()))
    if unknown:
        raise ValueError(
            f"{folder} was saved by another version of graphclust: this {cls.__name__} has no parameter "
            f"{', '.join(map(repr, unknown))}; load it with the graphclust that wrote it, or fit again"
        )
    tuples = {name: tuple(meta["parameters"][name]) for name in meta.get("tuples", [])}
    estimator: Any = cls(**{**meta["parameters"], **tuples, **callables})
    estimator.n_features_in_ = meta["n_features"]
    if meta["feature_names"]:
        estimator.feature_names_in_ = np.asarray(meta["feature_names"], dtype=object)
    shape = meta.get("image_shape")  # a file older than images has none
    estimator.image_shape_ = None if shape is None else tuple(shape)
    values = meta.get("image_range")
    estimator.image_range_ = None if values is None else tuple(values)
    return estimator, meta


def write_results(folder: Path, estimator: Any, names: Sequence[str]) -> None:
    """Write the fitted arrays, sparse matrices and numbers `name_` of an estimator."""
    arrays: dict[str, Any] = {}
    for name in names:
        value = getattr(estimator, f"{name}_")
        if issparse(value):
            arrays |= {f"{name}.{part}": getattr(value, part) for part in _SPARSE}
            arrays[f"{name}.shape"] = value.shape
        else:
            arrays[name] = value
    tensors = {k: torch.from_numpy(np.array(v, order="C")) for k, v in arrays.items()}
    save_file(tensors, folder / "results.safetensors")


def read_results(folder: Path, estimator: Any, names: Sequence[str]) -> None:
    """Give an estimator the arrays that `write_results` wrote."""
    with reading(folder):
        results = load_file(folder / "results.safetensors")
        for name in names:
            if f"{name}.shape" in results:
                parts = tuple(results[f"{name}.{part}"].numpy() for part in _SPARSE)
                shape = tuple(results[f"{name}.shape"].tolist())
                setattr(estimator, f"{name}_", csr_matrix(parts, shape=shape))
                continue
            value = results[name].numpy()
            setattr(estimator, f"{name}_", value if value.ndim else value.item())


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """One message for everything that can be wrong with the tensors of a saved estimator."""
    try:
        yield
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        reason = textwrap.shorten(str(error), 200)  # torch lists every tensor that does not fit
        raise ValueError(
            f"the model in {folder} cannot be read: {reason}. It is damaged or of another version; "
            "fit and save again"
        ) from error


def plain_parameters(estimator: BaseEstimator) -> dict[str, Any]:
    """Constructor parameters as JSON can hold them; callables and random generators become None."""
    plain: dict[str, Any] = {}
    for name, value in estimator.get_params(deep=False).items():
        if isinstance(value, np.generic):
            value = value.item()
        elif isinstance(value, np.ndarray):
            value = value.tolist()
        elif isinstance(value, (tuple, list)):
            value = [v.item() if isinstance(v, np.generic) else v for v in value]
        elif isinstance(value, (Path, torch.device)):
            value = str(value)
        elif callable(value) or isinstance(value, (np.random.RandomState, np.random.Generator)):
            value = None
        plain[name] = value
    return plain
