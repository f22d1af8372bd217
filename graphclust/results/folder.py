"""`Result`: what a clustering of images leaves in a folder, and what can be asked of it later."""

from __future__ import annotations

import csv
import json
import os
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphclust._checks import check_count
from graphclust._files import replacing
from graphclust.graph import SampleGraph
from graphclust.graph.retrieval import duplicate_groups, nearest
from graphclust.images import (
    FileItem,
    Images,
    Skipped,
    decode,
    list_images,
    path_as_text,
    read_images,
    text_as_path,
    write_skipped,
)
from graphclust.results.export import export_images
from graphclust.results.places import as_paths, follow, names_and_files
from graphclust.results.strangers import warn_of_strangers
from graphclust.results.table import COLUMNS, Centers, assignments, centers_of, with_graph_columns

if TYPE_CHECKING:
    from pandas import DataFrame
    from PIL import Image

_META, _LABELS, _SKIPPED, _GRAPH, _MODEL = "images.json", "labels.parquet", "skipped.csv", "graph", "model"
_REPORT = "report.html"
_FORMAT_VERSION = 1
#: Neighbours of each image in the graph of a result, unless a graph is given.
N_NEIGHBORS = 15
_THUMBNAIL = 256


@dataclass(eq=False)
class Result:
    """Clusters of a collection of images, in a folder.

    ``labels.parquet`` (`graphclust.results.COLUMNS`), ``model/`` (`graphclust.load`), ``graph/`` (`SampleGraph.open`),
    ``skipped.csv`` and ``images.json``, which says how the images were read. Make one with :meth:`write`, read one with
    :meth:`open`.

    Attributes
    ----------
    folder : Path
    labels : DataFrame
        One row an image.
    graph : SampleGraph
        Of the features; its first ``meta["n_fitted"]`` samples are those that the model was fitted to.
    meta : dict
        Settings of `read_images`, sources, numbers.
    """

    folder: Path
    labels: DataFrame
    graph: SampleGraph
    meta: dict[str, Any]
    _images: Images | None = field(default=None, repr=False)
    _gone: set[int] = field(default_factory=set, repr=False)

    def __repr__(self) -> str:
        return f"Result({str(self.folder)!r}: {len(self.labels):,} images, {self.labels['cluster'].nunique()} clusters)"

    @classmethod
    def write(
        cls,
        folder: str | os.PathLike[str],
        images: Images,
        estimator: Any,
        *,
        graph: SampleGraph | None = None,
        source: Any = None,
    ) -> Result:
        """Write the result of a fitted estimator to a folder.

        Parameters
        ----------
        folder : path
        images : Images
        estimator : fitted estimator of graphclust
            It was fitted to ``images.x``.
        graph : SampleGraph, optional
            Of ``images.x``, for search, duplicates and outliers; by default of 15 neighbours.
        source : path or list of paths, optional
            Where the images were read from, to find those again that are no files of their own.

        Returns
        -------
        Result
        """
        n = len(images)
        if len(estimator.labels_) != n:
            raise ValueError(
                f"the estimator was fitted to {len(estimator.labels_)} samples, and there are {n} images"
            )
        if graph is None:
            graph = SampleGraph.from_features(images.x, min(N_NEIGHBORS, n - 1), random_state=0)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        from graphclust.report.page import remove_report

        labels = np.asarray(estimator.labels_, np.int64)
        embedding = getattr(estimator, "embedding_", images.x)
        table = assignments(
            images.paths,
            labels,
            getattr(estimator, "probabilities_", None),
            embedding,
            centers_of(embedding, labels),
        )
        meta = {
            "format_version": _FORMAT_VERSION,
            "settings": images.settings,
            "image_shape": list(images.image_shape or ()),
            "n_fitted": n,
            "sources": [] if source is None else as_paths(source),
            "folder": path_as_text(os.path.abspath(folder)),
        }
        result = cls(folder, with_graph_columns(table, graph)[list(COLUMNS)], graph, meta, images)
        # All is computed; an earlier result is none from here on, until the new one is complete.
        (folder / _META).unlink(missing_ok=True)
        remove_report(folder)
        estimator.save(folder / _MODEL)
        graph.save(folder / _GRAPH)
        result._save(images.skipped)
        return result

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Result:
        """Open a result that was written.

        Raises
        ------
        FileNotFoundError
            If the folder holds none.
        ValueError
            If it is of another version or damaged.

        Notes
        -----
        Where the folder was moved together with the images, they are found at their new place (`follow`).
        """
        import pandas as pd

        folder = Path(folder)
        missing = [name for name in (_META, _LABELS, _GRAPH) if not (folder / name).exists()]
        if missing:
            raise FileNotFoundError(
                f"{folder} holds no result of images (no {missing[0]}): name a folder that `graphclust cluster` wrote "
                "for a folder of images (of features there are labels and a model, for `graphclust predict`)"
            )
        try:
            meta = json.loads((folder / _META).read_text(encoding="utf-8"))
            version = meta["format_version"]
            table = pd.read_parquet(folder / _LABELS)
            paths = table["path"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ValueError(
                f"the result in {folder} is damaged ({error}): cluster the images again"
            ) from error
        if version != _FORMAT_VERSION:
            raise ValueError(
                f"{folder} has format version {version}, this graphclust reads {_FORMAT_VERSION}"
            )
        table["path"] = follow(meta, paths, folder)
        graph = SampleGraph.open(folder / _GRAPH)
        if graph.num_nodes > len(table):  # an update was cut off between graph and labels
            graph = _first_samples(graph, len(table))
        if graph.num_nodes < len(table):
            raise ValueError(
                f"the result in {folder} is damaged ({len(table):,} labels, and a graph of {graph.num_nodes:,} "
                "samples): cluster the images again"
            )
        return cls(folder, table, graph, meta)

    # -- questions -------------------------------------------------------------------------------------------------

    def search(self, image: Any, k: int = 10, *, features: Any = None) -> DataFrame:
        """Find the images most like one or more others.

        Parameters
        ----------
        image : path, array [H, W] or [H, W, 3], Pillow image, or a list of these
            One of the result finds itself first.
        k : int
            Images for each; all where the result has fewer.
        features : module or callable, optional
            Where the result was made with one, it has to be passed again.

        Returns
        -------
        DataFrame
            Columns query, rank (from 1), path, cluster, distance.
        """
        import pandas as pd

        k = min(check_count(k, "k"), len(self.labels))
        queries = self.read(
            image if isinstance(image, (list, str, os.PathLike)) else [image], features=features
        )
        if queries.skipped:
            path, reason = queries.skipped[0]
            more = f" (and {len(queries.skipped) - 1:,} more)" if len(queries.skipped) > 1 else ""
            warnings.warn(f"{path} cannot be searched for: {reason}{more}", stacklevel=2)
        index, distance = (values.cpu().numpy() for values in nearest(self.graph, queries.x, k))
        rows = self.labels.iloc[index.ravel()]
        return pd.DataFrame(
            {
                "query": np.repeat(queries.paths, k),
                "rank": np.tile(np.arange(1, k + 1), len(queries)),
                "path": rows["path"].to_numpy(),
                "cluster": rows["cluster"].to_numpy(),
                "distance": distance.ravel(),
            }
        )

    def duplicates(self, threshold: float | None = None) -> DataFrame:
        """Near-duplicates, group by group: columns group, path, cluster.

        Parameters
        ----------
        threshold : float, optional
            Largest distance of two copies; by default `graphclust.graph.duplicate_threshold`.
        """
        groups = duplicate_groups(self.graph, threshold).numpy()
        found = self.labels[["path", "cluster"]].assign(group=groups)[groups >= 0]
        return found.sort_values("group", kind="stable")[["group", "path", "cluster"]].reset_index(drop=True)

    def outliers(self, n: int | None = None) -> DataFrame:
        """The images that lie apart most, the farthest first: columns path, cluster, outlier_score."""
        n = len(self.labels) if n is None else check_count(n, "n", minimum=0)
        ordered = self.labels.sort_values("outlier_score", ascending=False, kind="stable")
        return ordered[["path", "cluster", "outlier_score"]].head(n).reset_index(drop=True)

    def predict(self, source: Any, *, features: Any = None, **options: Any) -> DataFrame:
        """Label new images as the model reads them: the first five of `graphclust.results.COLUMNS`.

        Parameters
        ----------
        source
            As for `read_images`, which also takes the options.
        features : module or callable, optional
            Where the result was made with one, it has to be passed again.
        """
        return self.label(self.read(source, features=features, **options))

    def label(self, images: Images) -> DataFrame:
        """Label images that :meth:`read` read; warns where they may be of kinds that no cluster holds."""
        warn_of_strangers(
            self.graph, self.labels["outlier_score"].to_numpy(np.float32), images.x, images.paths
        )
        if hasattr(self.model, "predict_proba"):
            probabilities = self.model.predict_proba(images.x)
            labels = np.asarray(probabilities.argmax(axis=1)).reshape(-1)  # of a sparse table: a matrix
        else:
            probabilities, labels = None, self.model.predict(images.x)
        embedding = self.model.transform(images.x) if hasattr(self.model, "embedding_") else images.x
        return assignments(
            images.paths, np.asarray(labels, np.int64), probabilities, embedding, self._centers
        )

    def update(self, source: Any, *, features: Any = None, **options: Any) -> DataFrame:
        """Read new images, label them and add them: :meth:`read`, then :meth:`add`."""
        return self.add(self.read(source, features=features, **options), source=source)

    def add(self, images: Images, source: Any = None) -> DataFrame:
        """Label images that :meth:`read` read, and add them to graph and labels; the model stays as it is.

        Images whose path is in the result are left out, so a folder that grew can be named again. A report that was
        written is written anew.

        Returns
        -------
        DataFrame
            The rows that were added.
        """
        import pandas as pd

        paths = images.paths
        if all(path.isdigit() for path in paths):  # rows of an array: they go on counting
            paths = [str(len(self.labels) + row) for row in range(len(images))]
        known, new = set(self.labels["path"]), list[int]()
        for row, path in enumerate(paths):
            if path not in known:
                known.add(path)
                new.append(row)
        if new:
            added = Images(images.x[new], [paths[row] for row in new], settings=images.settings)
            graph = self.graph.attach(added.x)
            graph.num_old = self.meta["n_fitted"]
            table = pd.concat([self.labels, self.label(added)], ignore_index=True)
            graph.save(self.folder / _GRAPH)
            self.graph, self.labels = graph, with_graph_columns(table, graph)[list(COLUMNS)]
        self.meta["sources"] += [path for path in as_paths(source) if path not in self.meta["sources"]]
        self._save([*_read_skipped(self.folder / _SKIPPED), *images.skipped])
        if new and (self.folder / _REPORT).is_file():
            self.write_report()
        return self.labels.tail(len(new))

    def export(self, out: str | os.PathLike[str], how: str = "copy") -> tuple[int, list[str]]:
        """Put the images into a folder per cluster; see `graphclust.results.export_images`."""
        return export_images(self.labels["path"], self.labels["cluster"], out, how, load=self._load)

    def image(self, row: int, at_least: int | None = None) -> Image.Image:
        """Image of a row: upright, mode "L" or "RGB"; `at_least` is the longer side that is enough.

        Raises
        ------
        ValueError
            If it can no longer be found or read, or the result is of features.
        """
        if self._images is not None and row < len(self._images):
            return self._images.open(row, at_least)
        path = str(self.labels["path"].iloc[row])
        file = text_as_path(path)
        # A row of an array is called by its number, which may be the name of a file here.
        own = not path.isdigit() and os.path.lexists(file)
        data = FileItem(file).load() if own else self._load(path)
        return decode(data, at_least=at_least)

    def write_report(self, **options: Any) -> Path:
        """Write ``report.html``, a page to look at; the options are those of `graphclust.report.write_report`."""
        from graphclust.report.page import write_report

        model, n = self.model, self.meta["n_fitted"]
        probabilities = getattr(model, "probabilities_", None) if n == len(self.labels) else None
        if probabilities is None and self.labels["probability"].notna().all():
            probabilities = self.labels["probability"].to_numpy()
        given: dict[str, Any] = {
            "probabilities": probabilities,
            "images": None if self.meta["settings"].get("features") == "given" else self._thumbnail,
            **names_and_files(self.labels["path"].tolist()),
            "features_name": str(self.meta["settings"].get("features")),
            "how_made": {
                "method": type(model).__name__,
                "parameters": {name: str(value) for name, value in model.get_params().items()},
                "images": {**self.meta["settings"], "sources": ", ".join(self.meta["sources"])},
            },
            "duplicates": self.labels["duplicate_group"].to_numpy(),
            "outlier_scores": self.labels["outlier_score"].to_numpy(),
        }
        if n_skipped := len(_read_skipped(self.folder / _SKIPPED)):
            given["how_made"]["images"]["left out"] = f"{n_skipped:,}, listed in {_SKIPPED}"
        labels = self.labels["cluster"].to_numpy()
        self._gone = set()
        page = write_report(self.folder, graph=self.graph, labels=labels, **{**given, **options})
        if self._gone:
            warnings.warn(
                f"{len(self._gone):,} of {len(labels):,} images are not where they were: the report has blank "
                "thumbnails of them",
                stacklevel=2,
            )
        return page

    def _thumbnail(self, row: int) -> Image.Image | None:
        try:
            return self.image(row, at_least=_THUMBNAIL)
        except ValueError:  # gone since
            self._gone.add(row)
            return None

    def read(self, source: Any, *, features: Any = None, **options: Any) -> Images:
        """Read images as those of the result were read."""
        settings = {**self.meta["settings"], **options}
        if features is not None:
            settings["features"] = features
        if settings.get("features") is None:
            raise ValueError(
                "the features came from a module or function of yours, which files cannot hold: pass it with features="
            )
        return read_images(source, **settings)

    # -- parts -----------------------------------------------------------------------------------------------------

    @cached_property
    def model(self) -> Any:
        """The fitted estimator."""
        from graphclust.methods import load

        return load(self.folder / _MODEL)

    @cached_property
    def _centers(self) -> Centers:
        fitted = self.graph.x[: self.meta["n_fitted"]].numpy()
        return centers_of(getattr(self.model, "embedding_", fitted), np.asarray(self.model.labels_, np.int64))

    def _load(self, path: str) -> Any:
        """Bytes or pixels of an image that is no file of its own, from the sources."""
        if path not in self._items:
            raise ValueError(
                f"{path} is found in none of the sources ({', '.join(self.meta['sources']) or 'none is known'}): put "
                "them back where they were"
            )
        return self._items[path].load()

    @cached_property
    def _items(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for source in self.meta["sources"]:
            try:
                found |= {item.name: item for item in list_images(source)}
            except (OSError, ValueError):  # gone since; the others may be there
                continue
        return found

    def _save(self, skipped: list[Skipped]) -> None:
        with replacing(self.folder / _LABELS) as partial:
            self.labels.to_parquet(partial, index=False)
        with replacing(self.folder / _META) as partial:
            partial.write_text(json.dumps(self.meta, indent=1), encoding="utf-8")
        with replacing(self.folder / _SKIPPED) as partial:
            write_skipped(partial, dict.fromkeys(skipped))


def _read_skipped(path: Path) -> list[Skipped]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [Skipped(*row) for row in list(csv.reader(file))[1:]]


def _first_samples(graph: SampleGraph, n: int) -> SampleGraph:
    """A graph without the samples that were attached last: only edges towards them were added."""
    kept = graph.edge_index[1] < n
    cut = SampleGraph(
        x=graph.x[:n], edge_index=graph.edge_index[:, kept], edge_weight=graph.edge_weight[kept]
    )
    cut["neighbor_index"], cut["neighbor_distance"] = (
        graph["neighbor_index"][:n],
        graph["neighbor_distance"][:n],
    )
    cut.construction = graph.construction
    if graph.get("num_old") is not None and graph.num_old < n:
        cut.num_old = graph.num_old
    return cut
