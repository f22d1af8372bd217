"""Real data sets by name: a local folder first, then the public source.

``load("usps")`` looks for ``usps.npz`` in ``root``, or in the folder that the environment variable
``GRAPHCLUST_DATA`` names; failing that in the cache (``GRAPHCLUST_CACHE``, else ``~/.cache/graphclust``);
failing that it downloads, because by the name the user asked for it. ``data/README.md`` in the repository
tells for each data set what it is, its source, licence and checksum.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphclust._catalogue import CITATION_PARTS, CITATIONS, DIGITS, IMAGE_FILES, LEAVES_SHA256, ImageFile

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["Dataset", "load", "names"]

_DATA_VARIABLE = "GRAPHCLUST_DATA"
_CACHE_VARIABLE = "GRAPHCLUST_CACHE"


@dataclass(frozen=True, eq=False)
class Dataset:
    """One data set in memory.

    Attributes
    ----------
    name : str
        As given to :func:`load`.
    source : str
        File or public address that it was read from.
    x : ndarray of shape (N, d), float32, or None
        Features; for images the pixels in [0, 1]. None for ``leaves``, whose images have many sizes.
    y : ndarray of shape (N,), int64, or None
        Classes 0 .. C-1, for scores alone.
    class_names : tuple of str
        Name of each class.
    images : ndarray of shape (N, H, W), float32, or None
        The pixels as images, in [0, 1]; shares memory with ``x``.
    paths : tuple of Path or None
        One image file per sample, for ``leaves``.
    edge_index : ndarray of shape (2, E), int64, or None
        Edges of an attributed graph, both directions listed, for ``cora`` and ``citeseer``.
    """

    name: str
    source: str
    x: np.ndarray | None = field(default=None, repr=False)
    y: np.ndarray | None = field(default=None, repr=False)
    class_names: tuple[str, ...] = ()
    images: np.ndarray | None = field(default=None, repr=False)
    paths: tuple[Path, ...] | None = field(default=None, repr=False)
    edge_index: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        for values in (self.x, self.paths, self.y):
            if values is not None:
                return len(values)
        return 0

    def __repr__(self) -> str:
        parts = [f"{len(self)} samples"]
        if self.x is not None:
            parts.append(f"{self.x.shape[1]} features")
        if self.images is not None:
            parts.append("images {}x{}".format(*self.images.shape[1:]))
        if self.paths is not None:
            parts.append("image files")
        if self.edge_index is not None:
            parts.append(f"{self.edge_index.shape[1]} edges")
        parts.append(f"{len(self.class_names)} classes")
        return f"Dataset({self.name!r}: {', '.join(parts)}; from {self.source})"

    def samples(self) -> Any:
        """What `graphclust.cluster` takes: the graph where there is one, else images, image files or features."""
        if self.edge_index is not None:
            return self.graph_data()
        if self.images is not None:
            return self.images
        return self.x if self.paths is None else [str(path) for path in self.paths]

    def graph_data(self) -> Data:
        """The attributed graph as a PyG ``Data`` with ``x``, ``edge_index`` and ``y``, without a copy.

        Raises
        ------
        ValueError
            If the data set has no graph of its own.
        """
        if self.edge_index is None or self.x is None:
            raise ValueError(
                f"{self.name!r} comes without a graph: load 'cora' or 'citeseer', "
                "or build one with graphclust.graph.SampleGraph.from_features(dataset.x)"
            )
        import torch
        from torch_geometric.data import Data

        labels = None if self.y is None else torch.from_numpy(self.y)
        return Data(x=torch.from_numpy(self.x), edge_index=torch.from_numpy(self.edge_index), y=labels)


def names() -> list[str]:
    """The names that :func:`load` knows."""
    return ["digits", *IMAGE_FILES, "leaves", *CITATIONS]


def load(name: str, root: str | os.PathLike[str] | None = None, *, verify: bool = True) -> Dataset:
    """A data set by its name.

    Parameters
    ----------
    name : str
        One of :func:`names`; capitals and ``-`` are accepted (``"Fashion-MNIST"``).
    root : path, optional
        Folder with the local files. Default: the environment variable ``GRAPHCLUST_DATA``; if that is not
        set either, the cache and then the public source. ``digits`` comes with scikit-learn and needs no
        file.
    verify : bool
        Compare local files with the published checksums. Turn it off for a variant of your own in the same
        layout.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If the name is unknown, or a file is truncated, of another layout or fails its checksum.
    FileNotFoundError
        If the data is in no folder that was tried and cannot be downloaded.

    Examples
    --------
    >>> load("digits")
    Dataset('digits': 1797 samples, 64 features, images 8x8, 10 classes; from scikit-learn)
    """
    key = str(name).lower().replace("-", "_")
    if key not in names():
        raise ValueError(f"there is no data set {name!r}: the names are {', '.join(names())}")
    if key == "digits":
        return _load_digits()
    folder = _local_folder(root)
    if key == "leaves":
        return _load_leaves(folder, verify)
    if key in CITATIONS:
        return _load_citations(key, folder, verify)
    return _load_images(key, folder, verify)


# -- where to look -------------------------------------------------------------------------------------------


def _local_folder(root: str | os.PathLike[str] | None) -> Path | None:
    given = root if root is not None else os.environ.get(_DATA_VARIABLE) or None
    if given is None:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        origin = "root" if root is not None else f"the environment variable {_DATA_VARIABLE}"
        raise FileNotFoundError(f"{origin} names the folder {folder}, which does not exist")
    return folder


def _cache_folder() -> Path:
    given = os.environ.get(_CACHE_VARIABLE)
    return Path(given).expanduser() if given else Path.home() / ".cache" / "graphclust"


def _not_found(name: str, tried: Iterable[Path], remedy: str) -> FileNotFoundError:
    places = ", ".join(str(path) for path in tried) or f"no local folder ({_DATA_VARIABLE} is not set)"
    return FileNotFoundError(
        f"the data set {name!r} was not found: tried {places}. "
        f"Set {_DATA_VARIABLE} (or root) to the folder that holds it; {remedy}"
    )


def _check(path: Path, what: str, found: str, expected: str, verify: bool) -> None:
    if verify and found != expected:
        raise ValueError(
            f"{what} of {path} has the sha256 {found[:16]}..., expected {expected[:16]}...: "
            "fetch the file again, or pass verify=False if it is meant to differ"
        )


def _array_sha256(values: np.ndarray) -> str:
    """Of the content, not the file: it does not change when the archive is packed anew."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def _files_sha256(files: Iterable[tuple[str, Path]]) -> str:
    """One checksum for several files: of their names and the checksums of their contents, in the order given."""
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


# -- images --------------------------------------------------------------------------------------------------


def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = np.divide(bunch.data, 16, dtype=np.float32)
    return Dataset("digits", "scikit-learn", x, bunch.target.astype(np.int64), DIGITS, x.reshape(-1, 8, 8))


def _load_images(name: str, folder: Path | None, verify: bool) -> Dataset:
    spec = IMAGE_FILES[name]
    tried = []
    if folder is not None and spec.file is not None:
        path = folder / spec.file
        if path.is_file():
            images, labels = _read_npz(path)
            _check(path, "'images'", _array_sha256(images), spec.images_sha256, verify)
            _check(path, "'labels'", _array_sha256(labels), spec.labels_sha256, verify)
            some = slice(spec.first_row_of_file, None)
            return _image_dataset(name, spec, images[some], labels[some], str(path))
        tried.append(path)
    cached = _cache_folder() / f"openml-{spec.openml_id}.npz"
    if not cached.is_file():
        tried.append(cached)
        try:
            images, labels = _fetch_openml(spec, cached.parent)
        except (OSError, ValueError, RuntimeError) as error:
            raise _not_found(
                name, tried, f"its download (OpenML, data set {spec.openml_id}) failed: {error}"
            ) from error
        _write_npz(cached, images, labels)
    images, labels = _read_npz(cached)
    source = f"openml.org/d/{spec.openml_id}"
    return _image_dataset(name, spec, images[spec.first_row :], labels[spec.first_row :], source)


def _image_dataset(
    name: str, spec: ImageFile, images: np.ndarray, labels: np.ndarray, source: str
) -> Dataset:
    if images.shape[1:] != spec.shape[1:] or len(images) != len(labels):
        raise ValueError(
            f"{source} has images of shape {images.shape} and {len(labels)} labels; {name!r} is {spec.shape}"
        )
    x = np.divide(images.reshape(len(images), -1), np.float32(spec.white), dtype=np.float32)
    return Dataset(name, source, x, labels.astype(np.int64), spec.class_names, x.reshape(images.shape))


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): it is truncated or no .npz, fetch it again"
        ) from error
    if not {"images", "labels"} <= set(arrays):
        raise ValueError(f"{path} holds the arrays {sorted(arrays)}: it must hold 'images' and 'labels'")
    return arrays["images"], arrays["labels"]


def _write_npz(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Whole or not at all: a reader, or the next run after a kill, never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: two processes may fetch the same data at once.
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as handle:
        try:
            np.savez_compressed(handle, images=images, labels=labels)
        except BaseException:
            os.unlink(handle.name)
            raise
    os.replace(handle.name, path)


def _fetch_openml(spec: ImageFile, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images of an OpenML data set in the integer form of the local files."""
    from rich.console import Console
    from sklearn.datasets import fetch_openml

    address = f"openml.org/d/{spec.openml_id}"
    with Console(stderr=True).status(f"Downloading {spec.title} from {address} ..."):
        bunch: Any = fetch_openml(data_id=spec.openml_id, as_frame=False, data_home=str(cache / "openml"))
    values = np.asarray(bunch.data, dtype=np.float64)
    labels = np.asarray(bunch.target).astype(np.int64)
    # OpenML's USPS has pixels in [-1, 1] and classes 1 .. 10 for the digits 0 .. 9; its MNIST is 0 .. 255
    # and 0 .. 9.
    low, high = values.min(), values.max()
    integers = np.rint((values - low) * (spec.white / (high - low)))
    images = integers.astype(np.uint16 if spec.white > 255 else np.uint8).reshape(-1, *spec.shape[1:])
    return images, (labels - labels.min()).astype(np.uint8)


def _load_leaves(folder: Path | None, verify: bool) -> Dataset:
    top = None if folder is None else folder / "leaves"
    files = (
        [] if top is None else sorted(top.glob("*/*.jpg"), key=lambda path: path.relative_to(top).as_posix())
    )
    if top is None or not files:
        raise _not_found(
            "leaves",
            [] if top is None else [top / "<species>" / "*.jpg"],
            "it has no download: data/README.md says where the images come from and how to lay them out",
        )
    named = ((path.relative_to(top).as_posix(), path) for path in files)
    if verify:
        _check(top, "the content", _files_sha256(named), LEAVES_SHA256, verify)
    species = sorted({path.parent.name for path in files})
    number = {name: k for k, name in enumerate(species)}
    y = np.array([number[path.parent.name] for path in files], dtype=np.int64)
    return Dataset("leaves", str(top), y=y, class_names=tuple(species), paths=tuple(files))


# -- citation graphs -----------------------------------------------------------------------------------------


def _load_citations(name: str, folder: Path | None, verify: bool) -> Dataset:
    pyg_name, class_names, sha256 = CITATIONS[name]
    cache = _cache_folder()
    raw = cache / pyg_name / "raw"  # where PyG's Planetoid puts its downloads
    candidates = ([] if folder is None else [folder / "planetoid"]) + [raw]
    place = next((c for c in candidates if all(path.is_file() for _, path in _citation_files(c, name))), None)
    if place is None:
        from torch_geometric.datasets import Planetoid

        try:
            Planetoid(root=str(cache), name=pyg_name)
        except (OSError, ValueError, RuntimeError) as error:
            tried = [candidate / f"ind.{name}.*" for candidate in candidates]
            raise _not_found(name, tried, f"its download (PyG's Planetoid) failed: {error}") from error
        place = raw
    files = _citation_files(place, name)
    # The files are pickles: what is not the published content is not opened.
    _check(place / f"ind.{name}.*", "the content", _files_sha256(files), sha256, verify)
    from torch_geometric.io import read_planetoid_data

    data = read_planetoid_data(str(place), name)
    return Dataset(
        name,
        str(place),
        data.x.numpy().astype(np.float32, copy=False),
        data.y.numpy().astype(np.int64, copy=False),
        class_names,
        edge_index=data.edge_index.numpy(),
    )


def _citation_files(place: Path, name: str) -> list[tuple[str, Path]]:
    files = sorted(f"ind.{name}.{part}" for part in CITATION_PARTS)
    return [(file, place / file) for file in files]
