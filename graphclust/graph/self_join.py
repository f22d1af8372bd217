"""The nearest neighbours of every sample among all samples, for data too large for an exact search: a self-join.

All queries are known beforehand and are the data itself. So samples are put into lists of near ones, searched in the
order of the lists, and what a search needs for the wanted recall is found out on a few of them before.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphclust.graph.metric import Rows
from graphclust.graph.self_join_codes import Codes, distances_to, nearest_of, search_exactly
from graphclust.graph.self_join_lists import BLOCK, DIRECTIONS, Basis, Lists, make_lists
from graphclust.graph.self_join_plan import Way, choose_way
from graphclust.graph.self_join_state import JoinState, Track, checksum, single_threaded_workers

METRICS = ("euclidean", "cosine")
#: Candidates kept beyond k: room for the order in float64.
PAD = 2
#: Samples of a list, at least.
SIZE = 32
#: What the folder of a search holds; a folder of another layout is refused.
_LAYOUT = 2
_SAMPLE = 512
_COPY = 512
_REFINE_BYTES = 1 << 21
#: Rows of codes' tables, and candidates of whole lists, at once.
_QUERIES, _CANDIDATES = 1024, 1 << 22


class SelfJoin:
    r"""A k-nearest-neighbour graph by lists and 4-bit codes, to a wanted recall.

    1. **Lists.** k-means in the first 32 principal directions makes L = 2 sqrt(N) lists, each sample goes to the
       nearest (:mod:`self_join_lists`). The samples are copied in the order of the lists, so that near samples are
       near in memory from here on.
    2. **Codes.** Each coordinate along the first p principal directions in 4 bits. FAISS compares a sample with the
       codes in the m lists nearest to it, in some p / 20 ns each on one core, and returns c candidates
       (:mod:`self_join_codes`). Of these, distances :math:`|x - y|^2` are computed from all features.
    3. **Plan.** p, m and c are the cheapest whose recall on 512 random samples, searched exactly beforehand, is two
       standard errors above the wanted one: p is about 32, then twice as many until one does. Where none does
       (clusters very far apart for how dense they are) or where it is faster (few features, few samples),
       distances to *all* samples of m lists are computed, as an inverted file does; in the end m = L, exact search
       (:mod:`self_join_plan`). So recall does not hang on what was guessed about the data, but time does.

    **Size.** For each sample on disk: 4 d bytes for the copy, 4 (k + 2) for what is found and 4 for the order: 564
    bytes for d = 128 and k = 10. In memory: the result, 12 k bytes with float32 distances, before it p + 16 bytes for
    codes and places, and some 20 bytes while lists are made; 16 KB for each of the L lists; and blocks of a fixed
    size. The pages of files are the system's cache.

    **Time.** Comparing N samples with 2 sqrt(N) centroids, and with the codes in m lists of sqrt(N) / 2 samples:
    growing as N sqrt(N), by far slower than the N^2 of an exact search.
    """

    def __init__(
        self,
        rows: Rows,
        k: int,
        recall: float,
        seed: int,
        *,
        folder: str | os.PathLike[str] | None = None,
        any_seed: bool = False,
    ):
        self.rows, self.k, self.recall = rows, k, recall
        self.n, self.d = rows.x.shape
        self.width = min(k + PAD, max(1, self.n - 1))
        self.place_type = np.int32 if self.n < 2**31 else np.int64
        fingerprint: dict[str, Any] = {}
        if folder is not None:
            fingerprint = {
                "data": checksum(rows),
                "shape": [self.n, self.d],
                "dtype": str(rows.x.dtype).removeprefix("torch."),
                "metric": rows.metric.name,
                "n_neighbors": k,
                "recall": float(recall),
                "random_state": None if any_seed else seed,
                "layout": _LAYOUT,
            }
        self.state = JoinState(folder, fingerprint)
        try:
            noted = self.state.done("seed")
            self.seed = int((noted or self.state.finish("seed", seed=seed))["seed"])
        except BaseException:
            self.state.close()
            raise
        self.reached = 0.0
        self.centroids: np.ndarray | None = None

    def run(self, track: Track, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Index [N, k] (-1 where fewer were found) and distance [N, k] in the order of the data."""
        try:
            with single_threaded_workers() as pool:
                self._pool, self._track = pool, track
                self._prepare()
                return self._refine(self._search(), dtype)
        finally:
            self.state.close()

    def describe(self) -> str:
        """For example "self-join (2000 lists, 12 visits, 40 candidates in 32 dimensions)"."""
        way = self.way
        found = f", {way.candidates} candidates in {way.dimensions} dimensions" if way.dimensions else ""
        return f"self-join ({len(self.lists)} lists, {way.visits} visits{found})"

    def _prepare(self) -> None:
        """The lists, the copy in their order, and the exactly searched sample."""
        state, n = self.state, self.n
        if state.done("lists") is None:
            basis = self._pool.submit(Basis.fit, self.rows, self.seed).result()
            count = max(1, min(int(2 * n**0.5), n // max(SIZE, 4 * self.width)))
            lists = make_lists(self.rows, basis, count, self.seed, self._pool)
            state.keep("mean", basis.mean.numpy())
            state.keep("directions", basis.directions.numpy())
            for name in ("centroids", "first", "order", "ends"):
                state.keep(name, getattr(lists, name))
            state.finish("lists")
            del basis, lists
        self.basis = Basis(*(torch.from_numpy(np.array(state.load(name))) for name in ("mean", "directions")))
        self.lists = Lists(*(np.array(state.load(name)) for name in ("centroids", "first", "order", "ends")))
        self.centroids = np.unique(self.basis.back(self.lists.centroids), axis=0)
        if state.done("copy") is None:
            copy = state.array("rows", (n, self.d), np.float32)

            def work(block: int) -> None:
                part = slice(block * _COPY, (block + 1) * _COPY)
                index = torch.from_numpy(self.lists.order[part])
                copy[part] = self.rows.prepare(self.rows.x.index_select(0, index)).numpy()

            state.run("copy", -(-n // _COPY), work, self._pool, self._track, 8 * _COPY * self.d)
            state.finish("copy")
        self.copy = np.asarray(state.load("rows"))
        self.tensor = torch.from_numpy(self.copy)
        if state.done("sample") is None:
            generator = np.random.default_rng([self.seed, 1])
            sample = generator.choice(n, min(_SAMPLE, n), replace=False)
            index, distance = search_exactly(self.copy, sample, self.width, self._pool)
            state.keep("sample", sample)
            state.keep("truth_place", index[:, : self.k])
            state.keep("truth", distance[:, : self.k])
            state.finish("sample")
        self.sample, self.truth = np.array(state.load("sample")), np.array(state.load("truth"))

    def _hits(self, distance: np.ndarray) -> np.ndarray:
        """The share of each sampled sample's k that is as near as it can be; ``distance`` [S, c] is sorted."""
        return (distance[:, : self.k] <= self.truth[:, -1:] * np.float32(1 + 1e-6)).mean(axis=1)

    def _search(self) -> np.ndarray:
        """Places [N, k + 2] of the nearest of the candidates, -1 where there are fewer."""
        state, n = self.state, self.n
        codes: dict[int, Codes] = {}

        def encode(p: int) -> Codes:
            if p not in codes:
                codes.clear()
                codes[p] = Codes(self.copy, self.rows, self.basis, self.lists, p, self.seed, self._pool)
            return codes[p]

        def measure(way: Way) -> np.ndarray:
            found = encode(way.dimensions) if way.dimensions else None
            parts = np.array_split(self.sample, -(-len(self.sample) // 32))
            return self._hits(
                np.concatenate(list(self._pool.map(lambda part: self._find(part, way, found)[1], parts)))
            )

        noted = state.done("plan")
        if noted is None:
            z = self.basis.project(self.tensor[torch.from_numpy(self.sample)], DIRECTIONS)
            place = np.array(state.load("truth_place"))
            q = self.basis.directions.size(1)
            noted = vars(choose_way(self.lists, z, place, q, self.d, self.k, self.recall, measure))
            state.finish("plan", **noted)
        self.way = way = Way(**noted)
        table = np.asarray(state.array("index", (n, self.width), self.place_type))
        if state.done("search") is None:
            found = encode(way.dimensions) if way.dimensions else None

            def work(block: int) -> None:
                part = slice(block * BLOCK, min((block + 1) * BLOCK, n))
                table[part] = self._find(np.arange(part.start, part.stop), way, found)[0]

            state.run("search", -(-n // BLOCK), work, self._pool, self._track, 8 * BLOCK * self.d)
            distance = np.sort(distances_to(self.copy, self.copy[self.sample], table[self.sample]), axis=1)
            state.finish("search", recall=float(self._hits(distance).mean()))
        self.reached = float((state.done("search") or {})["recall"])
        return table

    def _find(self, places: np.ndarray, way: Way, codes: Codes | None) -> tuple[np.ndarray, np.ndarray]:
        """The nearest of the candidates of some samples: index and squared distance."""
        z = self.basis.project(self.tensor[torch.from_numpy(places)], max(DIRECTIONS, way.dimensions))
        visited = self.lists.visited(z, places, way.visits)
        mean = visited.shape[1] * -(-self.n // len(self.lists))
        step = _QUERIES if codes is not None else max(1, min(_QUERIES, _CANDIDATES // mean))
        found = []
        for start in range(0, len(places), step):
            part = slice(start, start + step)
            if codes is None:
                candidates = self.lists.members(visited[part])
            else:
                candidates = codes.candidates(z[part], visited[part], min(self.n, way.candidates + 1))
            found.append(nearest_of(self.copy, places[part], candidates, self.width))
        return np.concatenate([part[0] for part in found]), np.concatenate([part[1] for part in found])

    def _refine(self, table: np.ndarray, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Distances from differences in float64, sorted by (distance, index), in the order of the data."""
        metric, order = self.rows.metric, self.lists.order
        same = self.rows.whole  # then the copy holds the values themselves, and near ones together
        index = torch.full((self.n, self.k), -1, dtype=torch.long)
        distance = torch.full((self.n, self.k), torch.inf, dtype=dtype)
        step = max(1, _REFINE_BYTES // (4 * self.d * self.width))
        base = self.tensor if same else self.rows.x

        def work(block: int) -> None:
            part = slice(block * step, min((block + 1) * step, self.n))
            place = table[part]
            sample = order[np.maximum(place, 0)].astype(np.int64)
            by_index = np.argsort(np.where(place >= 0, sample, self.n), axis=1, kind="stable")
            sample = np.take_along_axis(sample, by_index, 1)
            place = np.take_along_axis(place, by_index, 1)
            own = order[part].astype(np.int64)
            where = np.maximum(place, 0) if same else sample
            picked = base.index_select(0, torch.from_numpy(where.ravel())).view(*where.shape, self.d)
            query = base[part] if same else base.index_select(0, torch.from_numpy(own))
            direct = metric.direct(query, picked)
            direct.masked_fill_(torch.from_numpy(place < 0), torch.inf)
            ordered, turn = direct.sort(dim=1, stable=True)
            turn = turn[:, : self.k]
            found = torch.from_numpy(sample).gather(1, turn)
            found.masked_fill_(ordered[:, : self.k].isinf(), -1)
            rows = torch.from_numpy(own)
            index[rows, : found.size(1)] = found
            distance[rows, : found.size(1)] = ordered[:, : self.k].to(dtype)

        # The result lives in memory: after a restart it is computed anew, from a table that is finished.
        self.state.run("", -(-self.n // step), work, self._pool, self._track, step * 4 * self.d)
        return index, distance
