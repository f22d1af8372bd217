"""`compare`: every method with every seed on the same data, scored on the same footing."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import graphclust
from graphclust import metrics
from graphclust._checks import check_count, check_number
from graphclust._files import replacing
from graphclust.comparison.contenders import Contender, contenders
from graphclust.comparison.data import ComparedData, DataLike, read_data
from graphclust.comparison.process import run_in_process
from graphclust.comparison.store import Result, RunStore
from graphclust.graph import SampleGraph

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WITH_LABELS = ("ACC", "NMI", "ARI", "F1")
WITHOUT_LABELS = ("modularity", "conductance", "silhouette")
_MEASURED = ("clusters", "seconds", "peak_mib", "gpu_mib")


class Comparison:
    """Methods on one data set; see `compare` for the parameters.

    `run` does what is left to do and yields each result as it comes; `runs`, `table` and `figure` show what there is.
    """

    def __init__(
        self,
        data: DataLike | ComparedData,
        methods: Any = "all",
        n_clusters: int | str = "auto",
        seeds: int | Sequence[int] = 5,
        *,
        labels: Any = None,
        parameters: Mapping[str, Any] | None = None,
        time_limit: float | None = None,
        out: str | os.PathLike[str] | None = None,
    ) -> None:
        if isinstance(seeds, (int, np.integer)):
            seeds = range(check_count(seeds, "seeds"))
        self.seeds = [check_count(seed, "a seed", minimum=0) for seed in dict.fromkeys(seeds)]
        if not self.seeds:
            raise ValueError("seeds is empty: give a number of seeds, or the seeds")
        if time_limit is not None:
            time_limit = check_number(time_limit, "time_limit", 0.0, open_low=True)
        self.time_limit = time_limit
        contenders(methods, 2, parameters)  # a wrong name shall not wait for the data
        self.data = data if isinstance(data, ComparedData) else read_data(data, labels)
        self.n_clusters = self._count(n_clusters)
        self.contenders = contenders(methods, self.n_clusters, parameters)
        self._store = None if out is None else RunStore(Path(out))
        self._records: dict[tuple[str, int], dict[str, Any]] = {}
        self._labels: dict[tuple[str, int], NDArray[Any]] = {}
        self._agreements: dict[tuple[str, tuple[int, ...]], float] = {}
        for contender, seed in self.planned if self._store is not None else ():
            assert self._store is not None
            earlier = self._store.read(self._key(contender, seed))
            if earlier is not None:
                self._take(contender, seed, earlier)

    def _count(self, n_clusters: int | str) -> int:
        if isinstance(n_clusters, str) and n_clusters == "auto":
            from graphclust.graph import estimate_n_clusters

            return int(
                estimate_n_clusters(self.data.x if self.data.edge_index is None else self.data.graph())
            )
        remedy = f"the data has {len(self.data.x)} samples"
        return check_count(n_clusters, "n_clusters", 1, len(self.data.x), remedy)

    # -- running -----------------------------------------------------------------------------------------------

    @property
    def planned(self) -> list[tuple[Contender, int]]:
        """All runs: every method with the first seed, then with the next, so that the whole table fills evenly."""
        return [
            (contender, seed)
            for number, seed in enumerate(self.seeds)
            for contender in self.contenders
            if contender.is_random or number == 0
        ]

    @property
    def left(self) -> list[tuple[Contender, int]]:
        """The planned runs without a result; what failed is among them, and is tried again by the next `run`."""
        return [(c, s) for c, s in self.planned if (c.name, s) not in self._labels]

    def run(self) -> Iterator[dict[str, Any]]:
        """Do the runs that are left, one at a time; yields the record of each (see `runs`) when it is written."""
        left = self.left
        if not left:
            return
        work = Path(tempfile.mkdtemp()) if self._store is None else self._store.work_folder()
        try:
            (work / "data").mkdir()
            self.data.save(work / "data")
            for contender, seed in left:
                outcome = run_in_process(contender, seed, work / "data", work, self.time_limit)
                if outcome.labels is None:
                    record = {"method": contender.name, "seed": seed, "error": outcome.error}
                    if self._store is not None:
                        record["log"] = self._store.write_log(self._key(contender, seed), outcome.log)
                    self._records[contender.name, seed] = record
                else:
                    result = Result({**outcome.measured, **self._scores(outcome.labels)}, outcome.labels)
                    if self._store is not None:
                        self._store.write(self._key(contender, seed), result)
                    self._take(contender, seed, result)
                self.write_tables()
                yield dict(self._records[contender.name, seed])
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _key(self, contender: Contender, seed: int) -> str:
        return contender.run_key(self.data.digest, seed)

    def _take(self, contender: Contender, seed: int, result: Result) -> None:
        """Keep a result; the scores against the classes are not stored with it, so that mended classes count."""
        record = {"method": contender.name, "seed": seed, **result.record}
        if self.data.labels is not None:
            record |= metrics.evaluate(self.data.labels, result.labels)
        self._records[contender.name, seed], self._labels[contender.name, seed] = record, result.labels

    @cached_property
    def _graph(self) -> SampleGraph:
        return self.data.common_graph()

    def _scores(self, labels: NDArray[Any]) -> dict[str, float]:
        """What needs no classes; NaN where a score is not defined, as the silhouette of one cluster."""
        scores = {
            "modularity": lambda: metrics.modularity(self._graph, labels),
            "conductance": lambda: metrics.conductance(self._graph, labels),
            "silhouette": lambda: metrics.silhouette(self.data.x, labels),
        }
        found: dict[str, float] = {}
        for name, score in scores.items():
            try:
                found[name] = float(score())
            except ValueError:
                found[name] = math.nan
        return {**found, "clusters": len(np.unique(labels))}

    # -- results -----------------------------------------------------------------------------------------------

    @property
    def score_names(self) -> tuple[str, ...]:
        """The scores of each run; those against classes where the data has labels."""
        return (*(WITH_LABELS if self.data.labels is not None else ()), *WITHOUT_LABELS)

    def runs(self) -> pd.DataFrame:
        """One row a run that ended: method, seed, scores, clusters found, costs, error and its log file.

        ``seconds`` are those of `fit`, ``peak_mib`` the largest resident memory of the whole process and ``start_mib``
        what it had taken before `fit`, for Python, the libraries and the data; ``gpu_mib`` is torch's on CUDA devices.
        """
        rows = [self._records[c.name, s] for c, s in self.planned if (c.name, s) in self._records]
        always = ["method", "seed", *self.score_names, "clusters", "seconds", "peak_mib", "start_mib"]
        sometimes = [name for name in ("gpu_mib", "error", "log") if any(name in row for row in rows)]
        return pd.DataFrame(rows, columns=[*always, *sometimes])

    def table(self) -> pd.DataFrame:
        """One row a method: runs and failures, mean and standard deviation over the seeds, agreement, last error."""
        runs = self.runs()
        averaged = [name for name in (*self.score_names, *_MEASURED) if name in runs]
        rows = []
        for contender in self.contenders:
            mine = runs[runs["method"] == contender.name]
            done = mine[mine["seconds"].notna()]
            row = {"method": contender.name, "runs": len(done), "failed": len(mine) - len(done)}
            for name in averaged:
                row |= {name: done[name].mean(), f"{name} sd": done[name].std(ddof=1)}
                if name == WITHOUT_LABELS[-1]:
                    row["agreement"] = self._agreement(contender.name, tuple(done["seed"]))
            if "error" in runs:
                row["error"] = next(iter(mine["error"].dropna()[::-1]), None)
            rows.append(row)
        return pd.DataFrame(rows)

    def _agreement(self, name: str, seeds: tuple[int, ...]) -> float:
        if len(seeds) < 2:
            return math.nan
        # All pairs of long labellings take a while, and the table is asked for after each run.
        if (name, seeds) not in self._agreements:
            self._agreements[name, seeds] = metrics.agreement([self._labels[name, seed] for seed in seeds])
        return self._agreements[name, seeds]

    def figure(self) -> Figure:
        """Quality of each method with its deviation, and quality against time (`report.method_comparison`)."""
        from graphclust.report import method_comparison

        runs = self.runs()
        done = {c.name: runs[(runs["method"] == c.name) & runs["seconds"].notna()] for c in self.contenders}
        done = {name: mine for name, mine in done.items() if len(mine)}
        shown = WITH_LABELS[:3] if self.data.labels is not None else WITHOUT_LABELS
        n, d = self.data.x.shape
        return method_comparison(
            {score: {name: mine[score].to_numpy() for name, mine in done.items()} for score in shown},
            {name: mine["seconds"].to_numpy() for name, mine in done.items()},
            title=f"{self.data.name}: {n:,} samples, {d:,} features, {self.n_clusters} clusters",
        )

    # -- files -------------------------------------------------------------------------------------------------

    def write_tables(self) -> None:
        """Write `runs.csv`, `table.csv` and `about.json` to the folder `out`."""
        if self._store is not None:
            self._store.write_text("runs.csv", self.runs().to_csv(index=False, float_format="%.6g"))
            self._store.write_text("table.csv", self.table().to_csv(index=False, float_format="%.6g"))
            self._store.write_text("about.json", json.dumps(self.about(), indent=1, default=str))

    def write_picture(self) -> None:
        """Write `comparison.png` to the folder `out`, where any run succeeded."""
        if self._store is not None and self._labels:
            with replacing(self._store.out / "comparison.png") as partial:
                self.figure().savefig(partial, dpi=110)

    def about(self) -> dict[str, Any]:
        """Data, parameters, machine and versions, which belong beside every table."""
        from importlib.metadata import version

        n, d = self.data.x.shape
        edges = {} if self.data.edge_index is None else {"edges": self.data.edge_index.shape[1]}
        return {
            "data": {
                "name": self.data.name,
                "samples": n,
                "features": d,
                **edges,
                "sha256": self.data.digest,
            },
            "n_clusters": self.n_clusters,
            "seeds": self.seeds,
            "time_limit": self.time_limit,
            "methods": {c.name: {"method": c.method, **c.parameters} for c in self.contenders},
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
            "threads": os.environ.get("OMP_NUM_THREADS", "all"),
            "python": platform.python_version(),
            "graphclust": graphclust.__version__,
            **{name: version(name) for name in ("torch", "torch-geometric", "scikit-learn", "numpy")},
        }


def compare(
    data: DataLike,
    methods: Any = "all",
    n_clusters: int | str = "auto",
    seeds: int | Sequence[int] = 5,
    labels: Any = None,
    out: str | os.PathLike[str] | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    time_limit: float | None = None,
    each_run: bool = False,
    verbose: bool = False,
) -> pd.DataFrame:
    """Compare methods on your own data: quality, agreement between seeds, time and memory.

    Each run is a fresh process, so that its peak memory is its own, and an error, a crash or a kill for lack of memory
    ends that run alone: it becomes a row with the error, and with `out` a log file. Runs follow one another, because
    times taken side by side would not be comparable. Modularity and conductance are computed on one graph for all
    methods (the given edges, else the 10 nearest neighbours of each sample), the silhouette on the given features,
    agreement as the mean adjusted Rand index of all pairs of seeds.

    Parameters
    ----------
    data : array [N, d], tensor, PyG Data, SampleGraph, Dataset, path or str
        Features; a file of them (.npy, .npz, .csv, .tsv, .txt, .parquet); the name of a data set (`datasets.names`),
        which brings its labels along. A graph goes with its edges to the methods that take edges, and as features to
        the others.
    methods : str, estimator, sequence of these, or mapping, default="all"
        Names in any case, classes or unfitted estimators; a mapping gives the rows names of their own, as in
        ``{"5 neighbours": VGDCN(n_neighbors=5), "20 neighbours": VGDCN(n_neighbors=20)}``.
    n_clusters : int or "auto", default="auto"
        K of all methods; "auto" is estimated once (`estimate_n_clusters`).
    seeds : int or sequence of int, default=5
        How many (0, 1, ...), or which.
    labels : array-like [N], optional
        True classes, for ACC, NMI, ARI and F1. For a file also the array, column or .npy file that holds them.
    out : path, optional
        Folder for `table.csv` (a row a method), `runs.csv` (a row a run), `comparison.png`, `about.json` (data,
        machine, versions), `runs/` and `logs/`. Called again with the same folder, only what is left is run: a run
        counts as done when data, method, all its parameters, seed and version are the same; what failed is tried again.
    parameters : mapping, optional
        ``{"epochs": 50}`` for all methods that have the parameter, ``{"VGDCN.epochs": 50}`` for one.
    time_limit : float, optional
        Seconds after which a run is ended and counts as failed.
    each_run : bool, default=False
        Return one row a run (`Comparison.runs`) instead of one a method (`Comparison.table`).
    verbose : bool, default=False
        Print the table as it fills.

    Returns
    -------
    DataFrame
        One row a method: ``runs`` and ``failed``; mean and standard deviation (of n - 1; columns that end in " sd") of
        each score in [0, 1], of seconds and of the memory in MiB; ``agreement``; the last error, where there is one.

    Raises
    ------
    ValueError, TypeError, FileNotFoundError
        For data, names or parameters that make no sense, before anything is run.

    Examples
    --------
    >>> import graphclust
    >>> table = graphclust.compare("digits", "kmeans, vgdcn", n_clusters=10, out="digits")  # doctest: +SKIP
    >>> table[["method", "ACC", "ACC sd", "seconds"]]  # doctest: +SKIP
    """
    comparison = Comparison(
        data, methods, n_clusters, seeds, labels=labels, parameters=parameters, time_limit=time_limit, out=out
    )
    if verbose:
        from graphclust.comparison.display import show

        show(comparison)
    else:
        for _ in comparison.run():
            pass
    comparison.write_tables()
    comparison.write_picture()
    return comparison.runs() if each_run else comparison.table()
