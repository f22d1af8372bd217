"""Nearest neighbours: exact for small data, a tuned approximate index for large data."""

from __future__ import annotations

import numbers
import os
import threading
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphclust._checks import check_count, check_device, check_features, check_generator, check_number
from graphclust._progress import tracked
from graphclust.graph._remote import RemoteEngine, remote_engine
from graphclust.graph.engines import exact_engine, load_faiss, scan, without_faiss
from graphclust.graph.indexes import ApproximateIndex, choose_index, is_exact_affordable, is_self_join
from graphclust.graph.metric import Metric, Rows
from graphclust.graph.self_join import SelfJoin

#: Candidates asked for beyond k, so that the direct distances can correct the float32 order of the engines.
PAD = 6
_REFINE_BYTES = 16 << 20
_WIDEN_BUDGET = 10**9
_TUNING_QUERIES = 256


class NeighborSearch:
    r"""The k nearest neighbours of samples, with distances computed directly.

    A fast engine (FAISS, or torch) proposes a few more than k candidates; their distances are then recomputed from
    the differences :math:`x - y` in float64 and sorted by (distance, index). So duplicates have distance 0, ties go
    to the smaller index, and rounding inside the engine does not change the result. Rows where it could have
    (a tie or near-tie at the last candidate) are searched again with more candidates.

    **Which index** ``"auto"`` takes: exact search costs about :math:`N_q N d` multiply-adds (times 4 for Manhattan,
    64 for Minkowski); up to 2e11 of them, or 5,000 samples, it is exact. Beyond, for Euclidean and cosine distance the
    neighbours of all samples are found by a self-join (:class:`graphclust.graph.self_join.SelfJoin`), and those of new
    samples by an inverted file that is built when it is first needed (exactly, where that costs less than 2e11). The
    inner product has an inverted file ("ivf") for both, the other two metrics, which have no centroids, a navigable
    small-world graph ("hnsw"). The effort (rounds of the join, lists or links that are visited) is raised until
    the recall@k on random samples, less one standard error, reaches ``recall``; of an index other
    random samples give ``recall_``, of a self-join the same ones, so that it is slightly optimistic there.

    Parameters
    ----------
    metric : {"euclidean", "cosine", "inner_product", "manhattan", "minkowski"}
    p : float
        Power of the Minkowski metric, at least 1 (``inf`` is allowed).
    index : str
        "auto", "exact", "self-join", "ivf", "hnsw" or a string for FAISS's ``index_factory`` such as "IVF1024,Flat".
    recall : float
        The recall@k that an approximate index has to reach, in (0, 1].
    device : str or torch.device, optional
        "cuda" searches exactly on the GPU. None: where the data is.
    random_state : int, Generator or None
        Of the samples on which an index is trained and tuned. HNSW is built by several threads, whose order is not
        fixed: there, results may differ slightly between runs.
    verbose : bool
        Show a progress bar.
    engine : {"local", "ray"} or RayEngine
        "ray" searches exactly on a Ray cluster, with the same result as ``index="exact"`` on one machine, see
        :class:`graphclust.distributed.RayEngine`. Needs the extra ``distributed``.

    Attributes
    ----------
    recall_ : float
        Estimated recall@k of the latest search (1.0 for exact search).
    index_name_ : str
        What was chosen, e.g. "exact", "self-join (632 lists, 33 visits)" or "IVF632,Flat (nprobe=6)".
    n_samples_, n_features_ : int
        Shape of the fitted data.
    """

    def __init__(
        self,
        metric: str = "euclidean",
        *,
        p: float = 2.0,
        index: str = "auto",
        recall: float = 0.95,
        device: str | torch.device | None = None,
        random_state: Any = 0,
        verbose: bool = False,
        engine: Any = "local",
    ):
        self.metric = metric
        self.p = p
        self.index = index
        self.recall = recall
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.engine = engine
        self._lock = threading.RLock()

    def fit(self, x: Any) -> NeighborSearch:
        """Take the samples among which neighbours are searched, and build the index where one is needed.

        Parameters
        ----------
        x : array, tensor or memory map, shape [N, d]
            float32 data is searched in place; other types are converted block by block.

        Raises
        ------
        ValueError, TypeError
            When ``x`` or a parameter of the constructor is not valid.
        ImportError
            When FAISS is needed but not installed.
        """
        self._metric = Metric.make(self.metric, self.p)
        check_number(self.recall, "recall", 0, 1, open_low=True)
        data = check_features(x, keep_double=True)
        self.n_samples_, self.n_features_ = data.shape
        self._device = check_device(self.device) or without_faiss(data.device, len(data))
        self._remote: RemoteEngine | None = remote_engine(self.engine, self.index, self._device)
        self._rows = Rows(data, self._metric)
        self._approximate: ApproximateIndex | None = None
        self._tuned: dict[int, tuple[int | None, float]] = {}
        self.recall_ = 1.0
        self._largest_norm = 0.0
        if self._metric.name == "cosine":
            self._warn_zero_rows()
        if self._metric.name == "inner_product":
            norms = [float(block.norm(dim=1).max()) for _, block in self._rows.blocks()]
            self._largest_norm = max(norms) / self._rows.scale
        has_faiss = load_faiss() is not None
        where = self.n_samples_, self.n_features_, self._metric, self._device, has_faiss
        name = self.index if self._remote is None else "exact"
        self._joins = is_self_join(name, *where)
        recipe = choose_index(name, *where)
        self._centroids: np.ndarray | None = None
        self._engine, self._exact_name = exact_engine(self._metric, self._device, self.n_samples_)
        self.index_name_ = self._exact_name
        if self._remote is not None:
            self._source = self._remote.source(x, data)
            self.index_name_ = self._remote.describe(self.n_samples_, self.n_features_, data.element_size())
        elif self._joins:
            self.index_name_ = "self-join"
        elif recipe is not None:
            self._approximate = ApproximateIndex.build(recipe, self._rows, check_generator(self.random_state))
            self.index_name_ = recipe
        return self

    def self_neighbors(
        self, k: int, dtype: torch.dtype = torch.float32, *, folder: str | os.PathLike[str] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Find the k nearest others of every fitted sample. A sample is never its own neighbour; duplicates of it are.

        Parameters
        ----------
        k : int
            Between 1 and N - 1.
        dtype : torch.dtype
            Of the distances.
        folder : path, optional
            Where a self-join keeps its state, so that the same call goes on where a killed one stopped, with the
            same result; some (4 d + 400) bytes a sample for k = 10. None: a temporary folder. Of two processes that
            make the same call with the same folder, the second waits for the first, with a warning, and takes over
            what that found. ``engine="ray"`` keeps the neighbours of each block there, 12 k bytes a sample. Other
            indexes do not use it.

        Returns
        -------
        index : Tensor, int64, shape [N, k]
            Nearest first; among equal distances the smaller index first.
        distance : Tensor, ``dtype``, shape [N, k]
            Distances (not squared); 1 - cosine similarity; the negative inner product.

        Raises
        ------
        ValueError
            When ``k`` is not valid, or ``folder`` belongs to other data, parameters or another version.
        OSError
            When there is no room for the state of a self-join.
        """
        self._check_fitted()
        remedy = f"there are {self.n_samples_} samples and a sample is not its own neighbour"
        k = check_count(k, "n_neighbors", 1, max(1, self.n_samples_ - 1), remedy)
        if self.n_samples_ < 2:
            raise ValueError(
                f"n_neighbors={k} needs at least {k + 1} samples, but x has 1; pass more samples"
            )
        if self._remote is not None:
            return self._remote.self_neighbors(self._source, self._rows, k, dtype, folder, self._track)
        if self._joins:
            return self._join(k, dtype, folder)
        index, distance = self._search(self._rows, k, own=torch.arange(self.n_samples_))
        return index, distance.to(dtype)

    def neighbors(self, x_query: Any, k: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Find the k nearest fitted samples of new samples (a fitted sample that is asked for finds itself).

        Parameters
        ----------
        x_query : array, tensor or memory map, shape [M, d]
        k : int
            Between 1 and N.
        dtype : torch.dtype
            Of the distances.

        Returns
        -------
        index : Tensor, int64, shape [M, k]
        distance : Tensor, ``dtype``, shape [M, k]
        """
        self._check_fitted()
        k = check_count(k, "n_neighbors", 1, self.n_samples_, f"there are {self.n_samples_} samples")
        query = check_features(x_query, "x_query", n_features=self.n_features_, keep_double=True)
        query = query.to(self._rows.x.device)
        if self._remote is not None:
            return self._remote.neighbors(self._source, self._rows, query, k, dtype, self._track)
        exact = is_exact_affordable(len(query), self.n_samples_, self.n_features_, self._metric)
        # Threads share the search of a graph, and how far an index looks is set on the index itself.
        with self._lock:
            if self._joins and not exact and self._approximate is None:
                self._build_for_new()
            index, distance = self._search(Rows(query, self._metric, like=self._rows), k, own=None)
        return index, distance.to(dtype)

    def _join(
        self, k: int, dtype: torch.dtype, folder: str | os.PathLike[str] | None
    ) -> tuple[Tensor, Tensor]:
        """The neighbours of all samples by a self-join; samples that it left with fewer than k are searched exactly."""
        seed = int(check_generator(self.random_state).integers(2**31 - 1))
        join = SelfJoin(
            self._rows,
            k,
            self.recall,
            seed,
            folder=folder,
            any_seed=not isinstance(self.random_state, numbers.Integral),
        )
        index, distance = join.run(self._track, dtype)
        self._centroids, self.recall_, self.index_name_ = join.centroids, join.reached, join.describe()
        rows = (index < 0).any(dim=1).nonzero().flatten()
        if rows.numel():
            part = Rows(self._rows.x[rows], self._metric, like=self._rows)
            c = min(self.n_samples_, k + PAD + 1)
            found = self._scan(part, c, self._quiet)
            index[rows], direct, _ = self._refine(part, found, k, rows)
            distance[rows] = direct.to(dtype)
        return index, distance

    def _build_for_new(self) -> None:
        """An inverted file for new samples, with the lists of the join where it has been done."""
        where = self.n_samples_, self.n_features_, self._metric, self._device
        recipe = choose_index("self-join", *where)
        if self._centroids is not None:
            recipe = f"IVF{len(self._centroids)},Flat"
        assert recipe is not None
        generator = check_generator(self.random_state)
        self._approximate = ApproximateIndex.build(recipe, self._rows, generator, self._centroids)
        self.index_name_ = recipe

    def _search(self, queries: Rows, k: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
        """Propose, refine, and search again the rows whose candidates may have missed a neighbour."""
        c = min(self.n_samples_, k + PAD + (own is not None))
        if self._approximate is None:
            candidates = self._scan(queries, c, self._track)
            self.recall_, self.index_name_ = 1.0, self._exact_name
        else:
            self._tune(k)
            candidates = self._approximate.search(queries, c, self._track)
        index, distance, complete = self._refine(queries, candidates, k, own)
        if self._approximate is not None:  # too few in the visited lists: an exact search of these rows
            complete, c = (index >= 0).all(dim=1), 0
        while not complete.all() and c < self.n_samples_:
            rows = (~complete).nonzero().flatten()
            c = min(self.n_samples_, 8 * max(c, k + PAD))
            if self._approximate is None and rows.numel() * c * self.n_features_ > _WIDEN_BUDGET:
                break  # ties deeper than about a thousand samples are cut anywhere
            part = Rows(queries.x[rows.to(queries.x.device)], self._metric, like=queries)
            found = (
                torch.arange(c).expand(rows.numel(), c)
                if c == self.n_samples_
                else self._scan(part, c, self._quiet)
            )
            index[rows], distance[rows], complete[rows] = self._refine(
                part, found, k, None if own is None else own[rows]
            )
            if self._approximate is not None:
                break
        device = queries.x.device
        return index.to(device), distance.to(device)

    def _scan(self, queries: Rows, c: int, track: Callable[[Iterable], Iterable]) -> Tensor:
        return scan(queries, self._rows, c, self._engine, track, device=self._device)

    def _refine(
        self, queries: Rows, candidates: Tensor, k: int, own: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Recompute the candidates' distances, sort by (distance, index), drop the sample itself, keep k.

        The third result tells for which rows nothing outside the candidates can belong to the k nearest.
        """
        n, c = candidates.shape
        base, d = self._rows.x, self.n_features_
        index = torch.empty((n, k), dtype=torch.long)
        distance = torch.empty((n, k), dtype=torch.float64)
        complete = torch.full((n,), c == self.n_samples_)
        step = max(1, _REFINE_BYTES // (8 * c * d))
        for start in range(0, n, step):
            rows = slice(start, start + step)
            # Sorted by index first: the stable sort by distance then keeps the smaller index first.
            block = candidates[rows].sort(dim=1).values
            query = queries.x[rows].to(base.device)
            picked = base[block.clamp_min(0).flatten().to(base.device)].view(*block.shape, d)
            direct = self._metric.direct(query, picked).cpu()
            absent = block < 0
            last = direct.masked_fill(absent, -torch.inf).amax(dim=1)
            if own is not None:
                absent |= block == own[rows].unsqueeze(1)
            direct.masked_fill_(absent, torch.inf)
            ordered, order = direct.sort(dim=1, stable=True)
            found = block.gather(1, order).masked_fill_(ordered.isinf(), -1)
            index[rows], distance[rows] = found[:, :k], ordered[:, :k]
            if c < self.n_samples_:
                norm = queries.prepare(queries.x[rows]).norm(dim=1).cpu().double() / queries.scale
                complete[rows] = self._metric.is_separated(ordered[:, k - 1], last, norm, self._largest_norm)
        return index, distance, complete

    def _tune(self, k: int) -> None:
        """Raise the index's search parameter until the recall@k on a random sample suffices; estimate it on another."""
        assert self._approximate is not None
        if k not in self._tuned:
            generator = check_generator(self.random_state)
            count = min(2 * _TUNING_QUERIES, self.n_samples_)
            rows = torch.from_numpy(generator.choice(self.n_samples_, count, replace=False))
            queries = Rows(self._rows.x[rows.to(self._rows.x.device)], self._metric, like=self._rows)
            c = min(self.n_samples_, k + PAD + 1)
            k = min(k, self.n_samples_ - 1)
            exact = self._scan(queries, c, self._quiet)
            _, truth, _ = self._refine(queries, exact, k, rows)
            worst = truth[:, -1:] + 1e-9 * truth[:, -1:].abs()

            def hits(search: ApproximateIndex) -> Tensor:
                _, found, _ = self._refine(queries, search.search(queries, c, self._quiet), k, rows)
                return (found <= worst).double().mean(dim=1)

            half = count // 2
            value, share = self._approximate.tune(hits, self.recall, half)
            self._tuned[k] = value, float(share[half:].mean())
        value, self.recall_ = self._tuned[k]
        self._approximate.set(value)
        self.index_name_ = self._approximate.describe()

    def _warn_zero_rows(self) -> None:
        zero = sum(int((block == 0).all(dim=1).sum()) for _, block in self._rows.blocks())
        if zero:
            warnings.warn(
                f"{zero} of {self.n_samples_} samples are zero vectors, which have no direction: their cosine "
                "distance to every sample is 1; remove them if that is not wanted",
                UserWarning,
                stacklevel=3,
            )

    def _track(self, steps: Iterable) -> Iterable:
        return tracked(steps, "Searching neighbours", self.verbose)

    @staticmethod
    def _quiet(steps: Iterable) -> Iterable:
        return steps

    def _check_fitted(self) -> None:
        if not hasattr(self, "_rows"):
            raise RuntimeError("this NeighborSearch has no data yet; call fit(x) first")

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_engine", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()
        if "_rows" in state:
            self._engine, self._exact_name = exact_engine(self._metric, self._device, self.n_samples_)
