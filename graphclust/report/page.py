"""The page in which a person looks at the clusters, uses them and sees how far to trust them: one HTML file.

Everything is in the file: data as JSON and base64, style, scripts; thumbnails too, unless there are so many that
they go into a folder beside it. It asks no server for anything: a Content-Security-Policy forbids that.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphclust import __version__
from graphclust._checks import check_count
from graphclust._labels import as_array
from graphclust.report._measures import cluster_tree, measure, nearest
from graphclust.report._page_data import (
    as_address,
    as_text,
    cluster_records,
    example_samples,
    made_sections,
    plain_text,
    rounded,
    sheet_record,
    tree_record,
)
from graphclust.report._thumbnails import Progress, Sheets, thumbnail_sheets
from graphclust.report.layout import graph_layout

__all__ = ["write_report"]

_NEIGHBORS = 12


def write_report(
    out: str | os.PathLike[str],
    *,
    graph: Any,
    labels: Any,
    probabilities: Any = None,
    images: Any = None,
    names: Sequence[Any] | None = None,
    files: Sequence[Any] | None = None,
    tree: Any = None,
    features_name: str | None = None,
    how_made: Mapping[str, Any] | None = None,
    title: str = "Clusters",
    duplicates: Any = None,
    outlier_scores: Any = None,
    embedding: Any = None,
    position: Any = None,
    cluster_names: Mapping[Any, str] | None = None,
    image_shape: Sequence[int] | None = None,
    thumbnail_size: int = 96,
    max_embedded: int = 24 * 2**20,
    random_state: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write a web page of a clustering: galleries, map, tree, near-duplicates, search, and how it was made.

    Parameters
    ----------
    out : path
        The page, or a folder, in which it is ``report.html``. Thumbnails that are not embedded go into the folder
        ``<page>_files`` beside it.
    graph : Data
        The sample graph. Neighbours ("more like this"), map, tree and cohesion come from it.
    labels : array-like of shape (N,)
        Clusters, any hashable labels; -1 is noise.
    probabilities : array-like of shape (N, K) or (N,), optional
        Of each cluster, columns in the sorted order of the labels (or column k for the label k), or of the sample's
        own. Without them the certainty of a sample is the share of its edges' weight inside its cluster.
    images : optional
        N images: an array (N, H, W), (N, H, W, C), (N, C, H, W) or (N, H * H), a list of arrays of any sizes, of
        Pillow images or of image files, or a callable that returns the image of a sample number. Samples whose image
        is None or cannot be read have a blank thumbnail. Grey images in an array whose border is dark are inverted.
    names : sequence, optional
        One per sample; without them files go by their path, others by their number. Shown as text, whatever they
        hold.
    files : sequence of path or None, optional
        The original file of each sample, which the page leads to by its place as seen from the page. By default those
        of ``images`` that are paths.
    tree : ndarray of shape (K - 1, 4) or MergeTree, optional
        Linkage of the K clusters in scipy's format, leaf k being the k-th label in sorted order without noise.
        Default: average linkage on the graph (`graphclust.graph.partition.merge_parts`), up to 1,000 clusters.
    features_name : str, optional
        What the samples were compared by.
    how_made : mapping, optional
        What a reader needs to repeat the result: parameters, data, time. Values may be mappings, which become
        sections of their own.
    title : str
    duplicates : array-like of shape (N,) or sequence of sequences of int, optional
        Group of near-duplicates of each sample (-1: in none), or the samples of each group.
    outlier_scores : array-like of shape (N,), optional
        Larger is farther out. Default: the mean distance to a sample's neighbours over that of its neighbours to
        theirs; for a graph without distances the distance to the cluster's centre.
    embedding : array-like of shape (N, d), optional
        Where silhouette and centres are measured. Default: ``graph.x``.
    position : array-like of shape (N, 2), optional
        Coordinates on the map. Default: `graph_layout`.
    cluster_names : mapping, optional
        Label to name. On the page names can be changed.
    image_shape : sequence of int, optional
        (H, W), (H, W, C) or (C, H, W) of flat rows of ``images``.
    thumbnail_size : int
        Longest side of a thumbnail in pixels, 16 to 255.
    max_embedded : int
        Bytes of thumbnails up to which all are inside the page.
    random_state : int
        Seed of the layout and of the samples that the silhouette is measured on.
    progress : callable, optional
        Called with the number of thumbnails that are drawn and of all samples.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ValueError, TypeError
        If lengths differ, or a parameter is not valid. Nothing is written then.

    Examples
    --------
    >>> from graphclust import KMeans, SampleGraph
    >>> from sklearn.datasets import load_digits
    >>> x = load_digits().data / 16
    >>> labels = KMeans(n_clusters=10, random_state=0).fit_predict(x)
    >>> write_report("digits.html", graph=SampleGraph.from_features(x), labels=labels, images=x)  # doctest: +SKIP
    """
    page = _page_path(out)
    check_count(thumbnail_size, "thumbnail_size", 16, 255)
    check_count(max_embedded, "max_embedded", 0)
    features = embedding if embedding is not None else getattr(graph, "x", None)
    features = as_array(features) if features is not None and not hasattr(features, "shape") else features
    measures = measure(graph, labels, probabilities, features, outlier_scores, random_state)
    n_samples, n_clusters = len(measures.codes), len(measures.labels)
    if n_clusters > 65_000:
        raise ValueError(f"labels name {n_clusters} clusters: the page holds up to 65,000; merge some first")
    texts, links = _names(names, images, files, n_samples, page.parent)
    groups = _duplicate_groups(duplicates, n_samples)
    linkage = cluster_tree(graph, measures, tree)
    place = _positions(position, graph, n_samples, random_state)
    examples = example_samples(measures)
    # As many as a row of the overview shows; fewer where there are very many clusters.
    n_front = int(np.clip(2400 // n_clusters, 4, 12))
    folder = page.with_name(page.stem + "_files")
    page.parent.mkdir(parents=True, exist_ok=True)
    sheets = None
    if images is not None:
        sheets = thumbnail_sheets(
            images,
            measures.order,
            np.concatenate([sample[:n_front] for sample, _, _ in examples]),
            image_shape=image_shape,
            size=thumbnail_size,
            max_embedded=max_embedded,
            folder=folder,
            progress=progress,
        )
    arrays = {
        "x": place[:, 0],
        "y": place[:, 1],
        "code": measures.codes.astype(np.uint16),
        "certainty": _sixteen_bits(measures.certainty),
        "margin": _sixteen_bits(measures.margin / 2 + 0.5),
        "second": np.where(measures.second < 0, 65_535, measures.second).astype(np.uint16),
        "outlying": _sixteen_bits(measures.outlying),
        "order": measures.order.astype(np.uint32),
        "neighbors": nearest(graph, _NEIGHBORS),
        **({} if groups is None else {"duplicate": groups.astype(np.int32)}),
        **({} if sheets is None else {"width": sheets.widths, "height": sheets.heights}),
    }
    data = {
        "title": plain_text(title),
        "n": n_samples,
        "neighbors": arrays["neighbors"].shape[1],
        "inside": rounded(measures.inside),
        "probability": measures.certainty_is_probability,
        "features": None if features_name is None else plain_text(features_name),
        "names": texts,
        "links": links,
        "clusters": cluster_records(measures, examples, place, cluster_names),
        "tree": tree_record(linkage),
        "sheets": sheet_record(sheets, folder.name, n_front),
        "made": made_sections(how_made, graph, measures, features_name, sheets),
        "arrays": {name: _packed(values) for name, values in arrays.items()},
    }
    data["key"] = hashlib.sha256(json.dumps([data["names"], data["arrays"]["code"]]).encode()).hexdigest()[
        :16
    ]
    _write(page, _render(data, sheets, plain_text(title)))
    _remove_stale(folder, [] if sheets is None else sheets.files)
    return page


def remove_report(out: str | os.PathLike[str]) -> None:
    """Remove a page that :func:`write_report` wrote, and its sheets of thumbnails; nothing else."""
    page = _page_path(out)
    page.unlink(missing_ok=True)
    _remove_stale(page.with_name(page.stem + "_files"), [])


# -- what comes in -------------------------------------------------------------------------------------------


def _page_path(out: str | os.PathLike[str]) -> Path:
    path = Path(out)
    if path.suffix.lower() in (".html", ".htm") and not path.is_dir():
        return path
    if path.is_file():
        raise ValueError(
            f"out={str(out)!r} is a file that is no page: name a folder or a file that ends in .html"
        )
    return path / "report.html"


def _names(
    names: Sequence[Any] | None, images: Any, files: Sequence[Any] | None, n_samples: int, home: Path
) -> tuple[list[str] | None, dict[str, Any] | None]:
    """Names as text, and where the original files lie as seen from the page."""
    if names is not None and len(names) != n_samples:
        raise ValueError(f"there are {len(names)} names and {n_samples} samples: give one per sample")
    if files is not None and len(files) != n_samples:
        raise ValueError(
            f"there are {len(files)} files and {n_samples} samples: give a path or None per sample"
        )
    given = None if names is None else [as_text(name) for name in names]
    if files is not None:
        images = list(files)
    elif isinstance(images, np.ndarray) and images.dtype == object:
        images = images.tolist()
    if not isinstance(images, (list, tuple)) or not any(
        isinstance(image, (str, os.PathLike)) for image in images
    ):
        return given, None
    paths = [os.path.abspath(os.fsdecode(i)) if isinstance(i, (str, os.PathLike)) else None for i in images]
    try:
        common = os.path.commonpath([os.path.dirname(path) for path in paths if path is not None])
        base = os.path.relpath(common, os.path.abspath(home))
        # "./" keeps a folder that is called "javascript:" from being read as a kind of address.
        base = "./" + as_address(base) + "/"
    except ValueError:  # on another drive
        return given or [path or f"sample {i}" for i, path in enumerate(paths)], None
    inner = [None if path is None else os.path.relpath(path, common) for path in paths]
    texts = given or [path or f"sample {i}" for i, path in enumerate(inner)]
    targets = [None if path is None else as_address(path) for path in inner]
    # The page can work out most of them from the names.
    odd = {
        i: target
        for i, (target, text) in enumerate(zip(targets, texts))
        if target != as_address(text) or not _is_unicode(text)
    }
    return texts, {"base": base, "odd": odd}


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _duplicate_groups(duplicates: Any, n_samples: int) -> np.ndarray | None:
    """Number of the group of each sample, the largest group first; -1 for samples in none."""
    if duplicates is None:
        return None
    group = np.full(n_samples, -1, dtype=np.int64)
    if len(duplicates) and all(np.ndim(members) == 1 for members in duplicates):
        for number, members in enumerate(duplicates):
            index = as_array(members)
            if len(index) and (index.dtype.kind not in "iu" or index.min() < 0 or index.max() >= n_samples):
                raise ValueError(
                    f"duplicate group {number} is {members!r:.60}: give sample numbers from 0 to {n_samples - 1}"
                )
            group[index] = number
    elif len(duplicates):
        given = as_array(duplicates)
        if given.shape != (n_samples,):
            raise ValueError(f"duplicates has shape {given.shape}: give one group per sample, ({n_samples},)")
        given = np.array([-1 if value is None or value != value else int(value) for value in given.tolist()])
        group = np.where(given < 0, -1, given)
    inside = group >= 0
    numbers, code, count = np.unique(group[inside], return_inverse=True, return_counts=True)
    rank = np.full(len(numbers), -1)
    large = np.flatnonzero(count > 1)
    rank[large[np.argsort(-count[large], kind="stable")]] = np.arange(len(large))
    group[inside] = rank[code] if len(numbers) else -1
    return group


def _positions(position: Any, graph: Any, n_samples: int, random_state: int) -> np.ndarray:
    """Coordinates in 0 .. 65535, one scale for both."""
    place = graph_layout(graph, random_state=random_state) if position is None else as_array(position)
    if place.shape != (n_samples, 2) or not np.isfinite(place).all():
        raise ValueError(
            f"position has shape {place.shape}: give {n_samples} finite pairs of coordinates, (N, 2)"
        )
    low, high = place.min(axis=0), place.max(axis=0)
    span = max(float((high - low).max()), 1e-12)
    # In the middle of the square, as matplotlib has it: y grows upwards, on a screen downwards.
    unit = (place - (low + high) / 2) / span + 0.5
    unit[:, 1] = 1 - unit[:, 1]
    return np.rint(65_535 * np.clip(unit, 0, 1)).astype(np.uint16)


# -- what goes out -------------------------------------------------------------------------------------------


def _sixteen_bits(values: np.ndarray) -> np.ndarray:
    return np.rint(65_535 * np.clip(values, 0, 1)).astype(np.uint16)


def _packed(values: np.ndarray) -> list[str]:
    """Type and little-endian bytes of an array, as the page's scripts read them."""
    values = np.ascontiguousarray(values)
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return [values.dtype.str[1:], base64.b64encode(values.tobytes()).decode("ascii")]


def _render(data: dict[str, Any], sheets: Sheets | None, title: str) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("graphclust.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    source = {name: _trusted(environment, name) for name in ("style.css", "script.js")}
    # ASCII alone, and no character that could end the element it stands in.
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    from_files = bool(sheets is not None and sheets.files)
    policy = {
        "default-src": "'none'",
        "script-src": _digest(source["script.js"]),
        "style-src": _digest(source["style.css"]),
        "img-src": "data: 'self' file:" if from_files else "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return environment.get_template("report.html").render(
        title=title,
        version=__version__,
        policy=Markup("; ".join(f"{name} {value}" for name, value in policy.items())),
        style=Markup(source["style.css"]),
        script=Markup(source["script.js"]),
        data=Markup(text),
        sheets=[Markup(sheet) for sheet in (sheets.embedded if sheets is not None else [])],
    )


def _trusted(environment: Any, name: str) -> str:
    """The project's own style or script, put together from its files; it holds no data."""
    return environment.overlay(autoescape=False).get_template(name).render()


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _write(page: Path, text: str) -> None:
    """Put the page in its place at once, so that nobody opens half of it."""
    partial = page.with_name(f".{page.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(text.encode("utf-8"))
        os.replace(partial, page)
    finally:
        partial.unlink(missing_ok=True)


def _remove_stale(folder: Path, kept: list[str]) -> None:
    """Remove sheets of an earlier page; nothing but sheets."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if re.fullmatch(r"sheet-[0-9a-f]{20}\.(webp|jpeg|png)", path.name) and path.name not in kept:
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
