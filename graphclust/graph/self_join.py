"""The nearest neighbours of every sample among all samples, for data too large for an exact search: a self-join.

All queries are known beforehand and are the data itself. So samples are put into lists of near ones, lists are compared
as blocks, and what the blocks miss is found as neighbours of neighbours.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphclust.graph._metrics import Rows
from graphclust.graph.self_join_lists import (
    Lists,
    is_wide,
    make_lists,
    near_all,
    scratch,
    squared_distances,
)
from graphclust.graph.self_join_rounds import (
    ROUND_BLOCK,
    Table,
    distances_to,
    join_links,
    link_range,
    links,
    visit,
    visit_own,
)
from graphclust.graph.self_join_state import JoinState, Track, checksum, single_threaded_workers

METRICS = ("euclidean", "cosine")
#: Samples of a list, lists that a sample visits, links in each direction of a round (then, if they do not suffice).
SIZE, VISITS, LINKS = 256, 8, (8, 16)
#: Visits end early when one adds less than this to the recall.
VISIT_GAIN = 0.02
#: Candidates kept beyond k: they make more links, and room for the order in float64.
PAD = 6
_SAMPLE = 512
_COPY = 512
_REFINE_BYTES = 1 << 19
_TASK = 16


class SelfJoin:
    r"""A k-nearest-neighbour graph by blocks of lists and by neighbours of neighbours, to a wanted recall.

    1. **Lists.** A two-level k-means makes L = N / 256 lists (:mod:`self_join_lists`). The samples are copied in the
       order of the lists, so that near samples are near in memory from here on.
    2. **Visits.** Each sample is compared with the samples of up to 8 lists nearest to it: visit by visit, all visitors
       of a list in one product :math:`|x|^2 + |y|^2 - 2 \langle x, y \rangle`, and a partial selection. Visits end
       when one adds less than 0.02 to the recall.
    3. **Rounds.** :math:`y` is likely near :math:`x` when both are near a third (NN-Descent: Dong, Moses and Li 2011).
       Each sample is linked to its 8 nearest and to 8 that count it among theirs; distances to the links of the links
       replace what is worse.
    4. **Stop** when the recall on 512 random samples, searched exactly, less one standard error, reaches the
       wanted one. Where a round brings too little, links are doubled; where that brings too little as well (data
       without structure), every sample visits as many more lists as the 512 show to be needed, in the end all:
       exact search.

    Departures from NN-Descent: it starts from lists, not at random; candidates are gathered for each sample rather
    than compared pair by pair, so that blocks do not depend on each other and results not on threads.

    **Size.** For each sample on disk: 4 d bytes for the copy, 16 (k + 6) for two tables, 64 for links (192 where they
    are doubled) and 36 for lists and order: 870 bytes for d = 128 and k = 10. In memory: the result, 12 k bytes with
    float32 distances, or before it some 100 bytes while lists are made; and blocks of a fixed size. The pages of
    files are the system's cache.
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
        self.size = max(SIZE, 8 * self.width)
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
            }
        self.state = JoinState(folder, fingerprint)
        noted = self.state.done("seed")
        self.seed = int((noted or self.state.finish("seed", seed=seed))["seed"])
        self.reached = 0.0
        self.rounds = 0

    def run(self, track: Track, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Index [N, k] (-1 where fewer were found) and distance [N, k] in the order of the data."""
        try:
            with single_threaded_workers() as pool:
                self._pool, self._track = pool, track
                self._prepare()
                table = self._search()
                return self._refine(table, dtype)
        finally:
            self.centroids = self._centroids()
            self.state.close()

    def describe(self) -> str:
        """For example "self-join (3906 lists, 4 visits, 2 rounds)"."""
        return f"self-join ({len(self.lists.centroids)} lists, {self.visits} visits, {self.rounds} rounds)"

    def _centroids(self) -> np.ndarray | None:
        lists = getattr(self, "lists", None)
        return None if lists is None else np.unique(np.asarray(lists.centroids), axis=0)

    def _prepare(self) -> None:
        """The lists, the copy in their order, the norms, and the exactly searched sample."""
        state, n = self.state, self.n
        if state.done("lists") is None:
            lists, probes = make_lists(self.rows, self.size, VISITS, self.seed, self._pool)
            state.keep("centroids", lists.centroids)
            state.keep("order", lists.order)
            state.keep("ends", lists.ends)
            state.keep("probes", probes)
            state.finish("lists")
            del lists, probes
        self.lists = Lists(
            state.load("centroids"), np.array(state.load("order")), np.array(state.load("ends"))
        )
        self.visits = state.load("probes").shape[1]
        if state.done("copy") is None:
            copy = state.array("rows", (n, self.d), np.float32)

            def work(block: int) -> None:
                part = slice(block * _COPY, (block + 1) * _COPY)
                rows = self.rows.prepare(
                    self.rows.x.index_select(0, torch.from_numpy(self.lists.order[part]))
                )
                copy[part] = rows.numpy()

            state.run("copy", -(-n // _COPY), work, self._pool, self._track, 8 * _COPY * self.d)
            state.finish("copy")
        self.copy = np.asarray(state.load("rows"))
        self.tensor, self.centers = torch.from_numpy(self.copy), torch.from_numpy(self.lists.centroids)
        self.wide = list(self._pool.map(self._is_wide, range(len(self.centers))))
        if state.done("sample") is None:
            self._search_sample()
            state.finish("sample")
        self.sample, self.truth = np.array(state.load("sample")), np.array(state.load("truth"))

    def _is_wide(self, one: int) -> bool:
        start, stop = int(self.lists.ends[one]), int(self.lists.ends[one + 1])
        return is_wide(self.tensor[start:stop], self.centers[one], self.k)

    def _search_sample(self) -> None:
        """Exact neighbours of random samples: places and squared distances, to measure recall with."""
        generator = np.random.default_rng([self.seed, 1])
        sample = generator.choice(self.n, min(_SAMPLE, self.n), replace=False)
        x, ends = self.tensor[torch.from_numpy(sample)], self.lists.ends
        c = min(self.width + 1, self.n)

        def block(one: int) -> np.ndarray:
            start, stop, center = int(ends[one]), int(ends[one + 1]), self.centers[one]
            shape = len(sample), stop - start
            y = self.tensor[start:stop] - center
            table = squared_distances(x - center, y, scratch("table", shape), self.wide[one])
            # float32 as an integer, then the place: one partition finds both.
            keys = scratch("long keys", shape, torch.int64).copy_(table.view(torch.int32))
            keys.bitwise_left_shift_(32).bitwise_or_(torch.arange(start, stop))
            found = keys.numpy()
            if c < shape[1]:
                found.partition(c - 1, axis=1)
            return found[:, :c].copy()

        best = np.empty((len(sample), 0), dtype=np.int64)
        for found in self._pool.map(block, range(len(ends) - 1)):
            best = np.concatenate([best, found], axis=1)
            if best.shape[1] > 64 * c:
                best = np.partition(best, c - 1, axis=1)[:, :c]
        best.sort(axis=1)
        places = (best[:, :c] & 0xFFFFFFFF).astype(self.place_type)
        places[places == sample[:, None]] = -1
        distance = distances_to(self.copy, x.numpy(), places)
        order = np.argsort(distance, axis=1, kind="stable")[:, : self.k]
        self.state.keep("sample", sample)
        self.state.keep("truth_place", np.take_along_axis(places, order, axis=1))
        self.state.keep("truth", np.take_along_axis(distance, order, axis=1))

    def _hits(self, table: Table) -> np.ndarray:
        """The share of each sampled sample's k that is as near as it can be."""
        index = table.index[self.sample]
        distance = np.sort(distances_to(self.copy, self.copy[self.sample], index), axis=1)[:, : self.k]
        worst = self.truth[:, -1:] * np.float32(1 + 1e-6)
        return (distance <= worst).mean(axis=1)

    def _measure(self, stage: str, table: Table) -> float:
        """Recall on the sample, noted; returns it less one standard error."""
        hits = self._hits(table)
        recall, error = float(hits.mean()), float(hits.std() / len(hits) ** 0.5)
        note = {"lower": recall - error, "recall": recall}
        return self._note(self.state.finish(stage, **note))

    def _note(self, note: dict[str, Any]) -> float:
        self.reached = float(note["recall"])
        return float(note["lower"])

    def _search(self) -> Table:
        """Visits, rounds, and where they do not suffice more of both."""
        self._turn = 0
        lower = self._visit_lists("visit", np.asarray(self.state.load("probes")), VISIT_GAIN)
        wide = 0
        while lower < self.recall:
            before = lower
            lower = self._round(LINKS[wide])
            # At this pace five more rounds would not do.
            if lower < self.recall and lower - before < (self.recall - lower) / 5:
                wide += 1
                if wide == len(LINKS):
                    lower = self._visit_more()
                    break
        return self._table(self._turn)

    def _table(self, turn: int) -> Table:
        """Two tables take turns: one is read while the other is written."""
        name, shape = "ab"[turn % 2], (self.n, self.width)
        return Table(
            np.asarray(self.state.array(f"index_{name}", shape, self.place_type)),
            np.asarray(self.state.array(f"distance_{name}", shape, np.float32)),
        )

    def _visit_lists(self, name: str, probes: np.ndarray, gain: float = 0.0) -> float:
        """Visit by visit, the visitors of each list against it; returns the measured recall."""
        lower = 0.0
        for turn in range(probes.shape[1]):
            before, stage = lower, f"{name} {turn}"
            noted = self.state.done(stage)
            if noted is not None:
                lower = self._note(noted)
            else:
                self._visit(stage, probes[:, turn], own=self._turn == 0)
                lower = self._measure(stage, self._table(self._turn + 1))
            self._turn += 1
            self.visits = turn + 1
            if lower >= self.recall or lower - before < gain:
                break
        return lower

    def _visit(self, stage: str, goal: np.ndarray, own: bool) -> None:
        old, new = self._table(self._turn), self._table(self._turn + 1)
        count, ends = len(self.centers), self.lists.ends
        if not own:
            visitors = np.argsort(goal, kind="stable").astype(self.place_type)
            begin = np.concatenate([[0], np.cumsum(np.bincount(goal, minlength=count))])

        def work(block: int) -> None:
            for one in range(block * _TASK, min((block + 1) * _TASK, count)):
                start, stop = int(ends[one]), int(ends[one + 1])
                if own:
                    visit_own(self.tensor, self.centers[one], start, stop, new, self.wide[one])
                else:
                    group = visitors[begin[one] : begin[one + 1]]
                    visit(self.tensor, self.centers[one], group, start, stop, old, new, self.wide[one])

        size = _TASK * self.size * (8 * self.d + 16 * self.width)
        self.state.run(stage, -(-count // _TASK), work, self._pool, self._track, size)

    def _round(self, reach: int) -> float:
        """One round of neighbours of neighbours; returns the measured recall."""
        stage = f"round {self.rounds}"
        self.rounds += 1
        self._turn += 1
        noted = self.state.done(stage)
        if noted is not None:
            return self._note(noted)
        old, new = self._table(self._turn - 1), self._table(self._turn)
        forward = min(reach, self.width)
        link = np.asarray(self.state.array(f"links_{reach}", (self.n + 1, forward + reach), self.place_type))
        if self.state.done(f"links of {stage}") is None:
            link[self.n] = -1
            step = link_range(self.n, min(self.width, forward + reach))

            def connect(block: int) -> None:
                low = block * step
                links(old.index, forward, reach, low, min(low + step, self.n), link)

            name = f"links of {stage}"
            self.state.run(name, -(-self.n // step), connect, self._pool, self._track, 4 * step * self.width)
            self.state.finish(name)

        step = _TASK * ROUND_BLOCK

        def work(block: int) -> None:
            for start in range(block * step, min((block + 1) * step, self.n), ROUND_BLOCK):
                join_links(self.copy, link, start, min(start + ROUND_BLOCK, self.n), old, new)

        size = step * (8 * self.d + 16 * self.width)
        self.state.run(stage, -(-self.n // step), work, self._pool, self._track, size)
        return self._measure(stage, new)

    def _visit_more(self) -> float:
        """Visit as many more lists as the sample needs: the rank of the lists of its true neighbours tells."""
        if self.state.done("more") is None:
            centroids = np.asarray(self.lists.centroids)
            count = len(centroids)
            place = np.array(self.state.load("truth_place"))
            ranks = near_all(torch.from_numpy(self.copy[self.sample]), centroids, count)
            rank = np.argsort(ranks, axis=1)
            one = np.searchsorted(self.lists.ends, place, side="right") - 1
            reached = np.sort(
                np.where(place >= 0, np.take_along_axis(rank, np.maximum(one, 0), 1), 0).ravel()
            )
            # The rank below which the wanted share lies, and a tenth more.
            wanted = reached[min(len(reached) - 1, int(np.ceil(self.recall * len(reached))))] + 1
            wanted = count if self.recall >= 1 else min(count, int(1.1 * wanted) + 1)
            more = self.state.array("more", (self.n, wanted), np.int32)

            def work(block: int) -> None:
                part = slice(block * 1024, (block + 1) * 1024)
                more[part] = near_all(self.tensor[part], centroids, wanted)

            self.state.run("more", -(-self.n // 1024), work, self._pool, self._track, 0)
            self.state.finish("more")
        return self._visit_lists("more", np.asarray(self.state.load("more")))

    def _refine(self, table: Table, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Distances from differences in float64, sorted by (distance, index), in the order of the data."""
        metric, order = self.rows.metric, self.lists.order
        same = self.rows.whole  # then the copy holds the values themselves, and near ones together
        index = torch.full((self.n, self.k), -1, dtype=torch.long)
        distance = torch.full((self.n, self.k), torch.inf, dtype=dtype)
        step = max(1, _REFINE_BYTES // (4 * self.d * self.width))
        base = self.tensor if same else self.rows.x

        def work(block: int) -> None:
            part = slice(block * step, min((block + 1) * step, self.n))
            place = table.index[part]
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
